//! `diptych search`: hits in a table or as JSON.

use std::{path::Path, time::Instant};

use anyhow::{Context, Result, bail};
use embedding::{Aspect, Encoded, Modality, Space, Spaces};
use encoders::Model;
use engine::{
    Collection, Filter, GroupBy, Hit, ItemId, Mix, Page, Part, Plan, Query, Score, SearchRequest,
    ShardPlan, Target,
};
use serde::Serialize;

use crate::{
    args::{Places, SearchArgs, SpaceArg, TargetArg},
    home::{self, Home},
    inputs, output,
};

/// What `--not` counts beside what is searched for: enough to tell two good hits apart, not so
/// much that what is merely unlike it comes first.
const NOT_WEIGHT: f32 = -0.5;
/// The specific space's part of a score in `--space mixed`.
const SPECIFIC_SHARE: f32 = 0.5;

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
    confidence: Option<f32>,
    payload: engine::Payload,
    source: Option<String>,
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    duplicates: Vec<ItemId>,
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
    let asked = asked(args, &model, &collection)?;
    let target = match args.target {
        TargetArg::Image => Target::Image,
        TargetArg::Text => Target::Text,
        TargetArg::Both => Target::Both,
    };
    let (parts, mix, space) = in_spaces(model.spaces(), &asked, target, args.space)?;
    let like = args.like.iter().map(|id| Ok(ItemId::new(id.as_str())?));
    let request = SearchRequest {
        mix,
        exclude: like.collect::<Result<_>>()?,
        filter: args.filter.as_deref().map(filter).transpose()?,
        min_score: args.min_score.map(Score),
        min_confidence: args.min_confidence,
        page: match args.offset {
            0 => Page::First,
            offset => Page::Offset(offset),
        },
        group_by: args.group_by.clone().map(|field| GroupBy {
            field,
            hits: std::num::NonZeroUsize::MIN,
        }),
        collapse: args.collapse.map(Score),
        diversity: args.diversity,
        explain: args.explain,
        ..SearchRequest::of(parts, target, args.k)
    };
    let answer = collection.search(&request)?;
    let (hits, how) = (answer.hits, answer.explanation);
    let shards = how.map(|how| how.shards);
    let took_ms = start.elapsed().as_secs_f64() * 1e3;
    if args.json {
        let collection = collection.name();
        let hits = hits.into_iter().map(found).collect();
        return Ok(output::json(&Answer {
            collection,
            space,
            took_ms,
            hits,
            explain: shards,
        })?);
    }
    for shard in shards.iter().flatten() {
        output::note(&in_words(shard));
    }
    let rows: Vec<_> = hits.iter().enumerate().map(row).collect();
    Ok(output::table(
        ["rank", "score", "sure", "name", "where"],
        &rows,
    )?)
}

/// One of the things that are searched for.
struct Asked {
    encoded: Encoded,
    modality: Modality,
    weight: f32,
}

fn asked(args: &SearchArgs, model: &Model, collection: &Collection) -> Result<Vec<Asked>> {
    let mut asked = Vec::new();
    let mut add = |encoded, modality, weight| {
        asked.push(Asked {
            encoded,
            modality,
            weight,
        });
    };
    if let Some(text) = &args.text {
        add(inputs::encode_text(text, model)?, Modality::Text, 1.0);
    }
    for file in &args.image {
        add(inputs::encode_picture(file, model)?, Modality::Image, 1.0);
    }
    for id in &args.like {
        let id = ItemId::new(id.as_str()).context("--like")?;
        let Some(item) = collection.get(&id)? else {
            bail!("collection {} has no item {id}", collection.name());
        };
        let (shared, specific) = (item.shared, item.specific);
        add(Encoded { shared, specific }, item.modality, 1.0);
    }
    for text in &args.not {
        add(
            inputs::encode_text(text, model)?,
            Modality::Text,
            NOT_WEIGHT,
        );
    }
    Ok(asked)
}

/// The parts of the search in the spaces that were asked for, and what these are called. On its
/// own it is the shared one: where pictures and texts meet, pictures are also near pictures that
/// mean the same.
fn in_spaces(
    spaces: &Spaces,
    asked: &[Asked],
    target: Target,
    wanted: SpaceArg,
) -> Result<(Vec<Part>, Option<Mix>, &'static str)> {
    let shared = || in_space(asked, &spaces.shared());
    if matches!(wanted, SpaceArg::Auto | SpaceArg::Shared) {
        return Ok((shared()?, None, "shared"));
    }
    let own = asked[0].modality;
    let is_alike = asked.iter().all(|part| part.modality == own);
    let is_target = target.includes(own) && target != Target::Both;
    if !is_alike || !is_target {
        bail!(
            "a specific space compares only {own} items with {own} items: add --target {own}, \
             and search for nothing else"
        );
    }
    let space = spaces.specific(own);
    let space = space.with_context(|| nothing_specific(spaces, own))?;
    let specific = in_space(asked, &space)?;
    Ok(match wanted {
        SpaceArg::Mixed => {
            let mix = Mix {
                parts: specific,
                share: SPECIFIC_SHARE,
            };
            (shared()?, Some(mix), "mixed")
        }
        _ => (specific, None, "specific"),
    })
}

fn nothing_specific(spaces: &Spaces, modality: Modality) -> String {
    let model = &spaces.model;
    format!("the model {model} keeps nothing specific to {modality} items")
}

fn in_space(asked: &[Asked], space: &Space) -> Result<Vec<Part>> {
    let part = |asked: &Asked| {
        let row = match space.aspect {
            Aspect::Shared => Some(&asked.encoded.shared),
            Aspect::Specific(_) => asked.encoded.specific.as_ref(),
        };
        let Some(embedding) = row.cloned() else {
            bail!("there is nothing specific to what is searched for: use --space shared");
        };
        let space = space.clone();
        Ok(Part {
            query: Query { embedding, space },
            modality: Some(asked.modality),
            weight: asked.weight,
        })
    };
    asked.iter().map(part).collect()
}

fn filter(json: &str) -> Result<Filter> {
    let value = serde_json::from_str(json).context("--filter is not JSON")?;
    Filter::from_json(&value).context("--filter")
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
        confidence: hit.confidence,
        payload: hit.payload,
        source: hit.source,
        text: hit.text,
        group: hit.group,
        duplicates: hit.duplicates,
    }
}

fn row((i, hit): (usize, &Hit)) -> [String; 5] {
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
    let mut name = named
        .or_else(|| hit.text.clone())
        .or_else(file_name)
        .unwrap_or_default();
    if !hit.duplicates.is_empty() {
        name = format!("{name} (and {} alike)", hit.duplicates.len());
    }
    [
        (i + 1).to_string(),
        format!("{:.3}", hit.score.0),
        hit.confidence
            .map_or("-".into(), |sure| format!("{:.0} %", 100.0 * sure)),
        name,
        place,
    ]
}
