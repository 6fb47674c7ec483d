//! Items and their embeddings, kept durably and searched by cosine.
//!
//! The store is the ground state and every index is derived from it: deleting all index files
//! loses nothing. A write is durable when the call returns, unless it asks for less, and searchable
//! at once.
//!
//! It is **not** an encoder (it never sees a picture or a word, only embeddings) and not a server
//! (it is synchronous and knows no network).
//!
//! ```
//! use std::num::NonZeroUsize;
//!
//! use embedding::{Encoder, HashEncoder, Modality};
//! use engine::{Engine, EngineConfig, Item, ItemId, Query, SearchRequest, Target};
//!
//! let encoder = HashEncoder::new(Modality::Text, 16);
//! let spaces = Encoder::<&str>::spaces(&encoder).clone();
//! let engine = Engine::in_memory(EngineConfig::default());
//! let notes = engine.create("notes", &spaces)?;
//!
//! let encoded = encoder.encode(&["a red bicycle", "a blue boat"])?;
//! let items = encoded.iter().zip(["bicycle", "boat"]).map(|(encoded, id)| {
//!     let id = ItemId::new(id)?;
//!     let mut item = Item::new(id, Modality::Text, encoded.shared.clone());
//!     item.specific = encoded.specific.clone();
//!     Ok(item)
//! });
//! notes.upsert(items.collect::<Result<_, engine::EngineError>>()?)?;
//!
//! let query = Query { embedding: encoded[0].shared.clone(), space: spaces.shared() };
//! let answer = notes.search(&SearchRequest::new(query, Target::Both, NonZeroUsize::MIN))?;
//! assert_eq!(answer.hits[0].id.as_str(), "bicycle");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Reading order: [`Item`] and [`SearchRequest`] are what goes in, [`Engine`] and [`Collection`]
//! what is called; `writing` is the one way in which items change. Below them a collection is a few shards (`shard`), each one sealed, immutable
//! `segment` with an [`index`], plus a tail that is scanned exactly, plus tombstones; `sealing`
//! builds new segments in the background; `record` and `catalog` say how things lie in the
//! [`store`]; [`Fields`] and [`Filter`] (`filter`, `indexing`) choose among items by their payloads;
//! `confidence` says how sure a hit is; `audit` repeats a share of the searches exactly and keeps
//! recall above its target; [`Collection::snapshot`] and [`Engine::restore`] (`snapshot`) keep a
//! collection as it was at one moment; [`Collection::list`] pages through it.
//! [`Head`], [`Prompts`], [`logistic`], [`Map`] and [`metrics`] stand beside; `heads` learns heads and keeps
//! them with a collection.

mod audit;
mod background;
mod bits;
mod budget;
mod catalog;
mod change;
mod checking;
mod collection;
mod column;
mod confidence;
mod config;
mod directions;
mod draws;
mod engine;
mod error;
mod filter;
mod flushing;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod head;
mod heads;
pub mod index;
mod indexing;
mod item;
mod jobs;
mod listing;
mod loading;
pub mod logistic;
mod map;
mod marks;
pub mod metrics;
mod product;
mod prompts;
mod record;
mod repair;
mod request;
mod sealing;
mod searching;
mod segment;
mod segment_file;
mod shard;
mod snapshot;
mod state;
pub mod store;
mod swapping;
mod turns;
mod versions;
mod ways;
mod writing;

pub use audit::{LaneRecall, Recall, Selectivity, SelectivityRecall};
pub use background::step_back;
#[cfg(target_os = "linux")]
pub use background::step_back_by;
pub use catalog::is_name;
pub use change::{Change, Durability, ItemWrite, Outcome, PayloadChange, WriteOptions, Written};
pub use collection::Collection;
pub use confidence::{CalibrationKind, CalibrationReport, DirectionReport};
pub use config::{EngineConfig, GraphBuilder, HnswParams};
pub use draws::Draws;
pub use engine::Engine;
pub use error::{EngineError, is_storage_full};
pub use filter::{
    field::{FieldKind, Fields, MAX_FIELD_NAME_BYTES, MAX_FIELDS},
    language::{
        Clause, Condition, Filter, MAX_CLAUSES, MAX_FILTER_DEPTH, MAX_IN_VALUES, Range, Test,
    },
    plan::{Plan, ShardPlan},
    value::{MAX_KEYWORD_BYTES, MAX_VALUES},
};
pub use head::{Head, Prediction};
pub use heads::{
    About, HeadAspect, HeadBrief, HeadEntry, HeadKind, HeldOut, Inputs, KeptHead, LabelRecall,
    LabelSpreads, Labeled, LabeledField, Lesson, Likeness, MAX_HEAD_BYTES, MAX_HEADS, MAX_VERSIONS,
    Strategy, SuggestRequest, Suggested, Suggestion, Taught, TeachOptions, VersionEntry, teach,
};
pub use item::{Item, ItemId, ItemMeta, Payload, Stats, Upserted};
pub use jobs::{Job, JobKind, JobState, MAX_JOBS, MAX_OPEN_JOBS};
pub use listing::{ListRequest, Listing};
pub use map::{Map, MapMethod};
pub use prompts::Prompts;
pub use request::{
    Answer, Cursor, Explanation, GroupBy, Hit, MAX_PARTS, Mix, Page, Part, Query, Score,
    SearchRequest, Target,
};
pub use snapshot::{
    Done, SnapshotError, SnapshotInfo, SnapshotOptions, SnapshotReport, list_snapshots,
    pack_snapshot, read_snapshot, remove_snapshot, verify_snapshot,
};
pub use ways::Way;

/// The examples of the page about filters run as tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/filters.md")]
mod filters_page {}

#[cfg(test)]
mod tests;
