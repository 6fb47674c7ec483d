//! `diptych search`: hits in a table or as JSON.

use std::{num::NonZeroUsize, path::Path, time::Instant};

use anyhow::{Result, bail};
use embedding::{Aspect, Encoded, Modality, Spaces};
use engine::{Collection, Hit, Query, SearchRequest, Target};
use serde::Serialize;

use crate::{
    args::{Places, SearchArgs, SpaceArg, TargetArg},
    home::{self, Home},
    inputs, output,
};

#[derive(Debug, Serialize)]
struct Answer<'a> {
    collection: &'a str,
    space: &'static str,
    took_ms: f64,
    hits: Vec<Found>,
}

#[derive(Debug, Serialize)]
struct Found {
    id: String,
    modality: Modality,
    score: f32,
    payload: engine::Payload,
    source: Option<String>,
    text: Option<String>,
}

/// Searches and prints.
///
/// # Errors
/// When the query or the collection cannot be used.
pub fn run(places: &Places, args: &SearchArgs) -> Result<()> {
    let engine = Home::new(places)?.open_existing()?;
    let model = home::model(places)?;
    let collection = home::collection(&engine, &args.collection, &model)?;
    let start = Instant::now();
    let (modality, encoded) = match (&args.image, &args.text) {
        (Some(file), _) => (Modality::Image, inputs::encode_picture(file, &model)?),
        (None, Some(text)) => (Modality::Text, inputs::encode_text(text, &model)?),
        (None, None) => bail!("nothing to search for: give words, or a picture with --image"),
    };
    let query = query(model.spaces(), modality, encoded, args)?;
    let space = if query.space.aspect == Aspect::Shared {
        "shared"
    } else {
        "specific"
    };
    let hits = hits(&collection, &query, args.target, args.k)?;
    let took_ms = start.elapsed().as_secs_f64() * 1e3;
    if args.json {
        let collection = collection.name();
        let hits = hits.into_iter().map(found).collect();
        return Ok(output::json(&Answer {
            collection,
            space,
            took_ms,
            hits,
        })?);
    }
    let rows: Vec<_> = hits.iter().enumerate().map(row).collect();
    Ok(output::table(["rank", "score", "name", "where"], &rows)?)
}

/// The query in the space that was asked for. On its own it is the shared one: where pictures and
/// texts meet, pictures are also near pictures that mean the same.
fn query(spaces: &Spaces, from: Modality, encoded: Encoded, args: &SearchArgs) -> Result<Query> {
    if args.space != SpaceArg::Specific {
        return Ok(Query {
            embedding: encoded.shared,
            space: spaces.shared(),
        });
    }
    let same_kind = match from {
        Modality::Image => args.target == TargetArg::Image,
        Modality::Text => args.target == TargetArg::Text,
    };
    if !same_kind {
        bail!("--space specific finds only {from} items by {from}: add --target {from}");
    }
    match (encoded.specific, spaces.specific(from)) {
        (Some(embedding), Some(space)) => Ok(Query { embedding, space }),
        _ => bail!(
            "the model {} keeps nothing specific to {from} items",
            spaces.model
        ),
    }
}

/// Texts lie nearer to texts than to pictures, so that one list by score would hide one kind
/// behind the other: for both, the best of each kind take turns.
fn hits(
    collection: &Collection,
    query: &Query,
    target: TargetArg,
    k: NonZeroUsize,
) -> Result<Vec<Hit>> {
    let search = |target| collection.search(&SearchRequest::new(query.clone(), target, k));
    Ok(match target {
        TargetArg::Image => search(Target::Image)?,
        TargetArg::Text => search(Target::Text)?,
        TargetArg::Both => {
            let mut kinds = [
                search(Target::Image)?.into_iter(),
                search(Target::Text)?.into_iter(),
            ];
            // Ends when both have ended, however many hits were asked for.
            let turns = std::iter::from_fn(|| {
                let turn = kinds.each_mut().map(Iterator::next);
                turn.iter().any(Option::is_some).then_some(turn)
            });
            turns.flatten().flatten().take(k.get()).collect()
        }
    })
}

fn found(hit: Hit) -> Found {
    Found {
        id: hit.id.to_string(),
        modality: hit.modality,
        score: hit.score.0,
        payload: hit.payload,
        source: hit.source,
        text: hit.text,
    }
}

fn row((i, hit): (usize, &Hit)) -> [String; 4] {
    let place = hit.source.clone().unwrap_or_else(|| hit.id.to_string());
    let file_name = || {
        Path::new(&place)
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
    };
    let named = hit
        .payload
        .get("name")
        .and_then(|name| name.as_str())
        .map(str::to_owned);
    let name = named
        .or_else(|| hit.text.clone())
        .or_else(file_name)
        .unwrap_or_default();
    [
        (i + 1).to_string(),
        format!("{:.3}", hit.score.0),
        name,
        place,
    ]
}
