//! `diptych search`: hits in a table or as JSON.

use std::{num::NonZeroUsize, path::Path, time::Instant};

use anyhow::{Context, Result, bail};
use embedding::{Aspect, Encoded, Modality, Spaces};
use engine::{Collection, Explained, Filter, Hit, Plan, Query, SearchRequest, ShardPlan, Target};
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
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<Vec<ShardPlan>>,
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
    let filter = args.filter.as_deref().map(filter).transpose()?;
    let asked = Asked {
        collection: &collection,
        query: &query,
        k: args.k,
        filter: filter.as_ref(),
        explain: args.explain,
    };
    let (hits, shards) = asked.hits(args.target)?;
    let took_ms = start.elapsed().as_secs_f64() * 1e3;
    if args.json {
        let collection = collection.name();
        let hits = hits.into_iter().map(found).collect();
        return Ok(output::json(&Answer {
            collection,
            space,
            took_ms,
            hits,
            explain: args.explain.then_some(shards),
        })?);
    }
    if args.explain {
        for shard in &shards {
            output::note(&in_words(shard));
        }
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

fn filter(json: &str) -> Result<Filter> {
    let value = serde_json::from_str(json).context("--filter is not JSON")?;
    Filter::from_json(&value).context("--filter")
}

/// What is searched for, whatever the kind of what is found.
struct Asked<'a> {
    collection: &'a Collection,
    query: &'a Query,
    k: NonZeroUsize,
    filter: Option<&'a Filter>,
    explain: bool,
}

impl Asked<'_> {
    /// Hits, and how they were found. Texts lie nearer to texts than to pictures, so that one list
    /// by score would hide one kind behind the other: for both, the best of each kind take turns.
    fn hits(&self, target: TargetArg) -> Result<(Vec<Hit>, Vec<ShardPlan>)> {
        let search = |target| {
            let mut request = SearchRequest::new(self.query.clone(), target, self.k);
            request.filter = self.filter.cloned();
            if !self.explain {
                return anyhow::Ok((self.collection.search(&request)?, Vec::new()));
            }
            let Explained { hits, shards, .. } = self.collection.explain(&request)?;
            Ok((hits, shards))
        };
        match target {
            TargetArg::Image => search(Target::Image),
            TargetArg::Text => search(Target::Text),
            TargetArg::Both => {
                let (images, mut shards) = search(Target::Image)?;
                let (texts, of_texts) = search(Target::Text)?;
                shards.extend(of_texts);
                let mut kinds = [images.into_iter(), texts.into_iter()];
                // Ends when both have ended, however many hits were asked for.
                let turns = std::iter::from_fn(|| {
                    let turn = kinds.each_mut().map(Iterator::next);
                    turn.iter().any(Option::is_some).then_some(turn)
                });
                let hits = turns.flatten().flatten().take(self.k.get());
                Ok((hits.collect(), shards))
            }
        }
    }
}

fn in_words(shard: &ShardPlan) -> String {
    let plan = match shard.plan {
        Plan::ScanMatching => "scan of the matching rows",
        Plan::Graph if shard.fell_back => "graph, then scan of the matching rows",
        Plan::Graph => "graph",
        Plan::ScanAll => "scan of all rows",
    };
    format!(
        "{}: {plan}; {} of {} rows match, {} estimated; {} comparisons",
        shard.shard,
        shard.matching,
        shard.sealed_rows + shard.tail_rows,
        shard.estimated_matching,
        shard.distances,
    )
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
