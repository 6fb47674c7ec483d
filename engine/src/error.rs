//! Everything that can go wrong in the engine.

mod causes;

use std::{io, path::PathBuf};

use embedding::Aspect;
use thiserror::Error;

pub use self::causes::is_storage_full;
pub(crate) use self::causes::{panic_text, with_causes};

use crate::{
    filter::field::FieldKind, request::Target, snapshot::SnapshotError, store::StoreError,
};

/// Why the engine could not do what was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// Another process (or another `Engine` of this one) works in the directory.
    #[error("{} is in use by another process; stop it or choose another directory", dir.display())]
    Locked {
        /// The data directory.
        dir: PathBuf,
    },
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] StoreError),
    /// A file or folder could not be read or written.
    #[error("the data directory could not be used")]
    Io(#[from] io::Error),
    /// A number in the configuration is out of its range.
    #[error("{key} is {value}, expected {expected}")]
    BadConfig {
        /// Which setting.
        key: &'static str,
        /// Its value.
        value: f64,
        /// What is allowed.
        expected: &'static str,
    },
    /// Not a name of a collection.
    #[error(
        "{name:?} is no name for a collection: expected 1 to 64 of a-z, 0-9, _ and -, \
         starting with a letter or a digit"
    )]
    BadName {
        /// What was given.
        name: String,
    },
    /// Not an id of an item.
    #[error("{id:?} is no id for an item: {reason}")]
    BadId {
        /// What was given, cut after 64 characters.
        id: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The collection holds embeddings of another model.
    #[error(
        "collection {collection} was made by {made_by}, got {got}: embeddings of different models \
         cannot meet; use that model, or encode the items again into a new collection"
    )]
    AnotherModel {
        /// Name of the collection.
        collection: String,
        /// The model that made it.
        made_by: String,
        /// The model of the request.
        got: String,
    },
    /// A model whose embeddings would have no elements, or more than any has.
    #[error("model {model} has {aspect} dim {dim}, expected 1 to 65536")]
    BadDim {
        /// Name of the model.
        model: String,
        /// Which of its embeddings.
        aspect: Aspect,
        /// Number of its elements.
        dim: usize,
    },
    /// The collection was deleted while it was in use.
    #[error("collection {collection} was deleted")]
    Deleted {
        /// Name of the collection.
        collection: String,
    },
    /// An embedding has the wrong number of elements.
    #[error("collection {collection} has {aspect} dim {expected}, got {got} for {what}")]
    WrongDim {
        /// Name of the collection.
        collection: String,
        /// Which embedding.
        aspect: Aspect,
        /// Dim of the collection's embeddings.
        expected: usize,
        /// Dim of the given one.
        got: usize,
        /// The item, or "the query".
        what: String,
    },
    /// An item brings a specific embedding that the collection's model does not make.
    #[error("collection {collection} keeps no {aspect} embeddings, but item {id} has one")]
    NoSuchAspect {
        /// Name of the collection.
        collection: String,
        /// The aspect that is not kept.
        aspect: Aspect,
        /// The item.
        id: String,
    },
    /// A query in the specific space of one modality cannot search the other.
    #[error("a query in the {aspect} space finds no {target} items")]
    NoSuchTarget {
        /// The query's aspect.
        aspect: Aspect,
        /// What was to be searched.
        target: Target,
    },
    /// Something that a search asks for does not go, or not with the rest.
    #[error("{field}: {reason}")]
    BadSearch {
        /// Which part of the request.
        field: &'static str,
        /// What is wrong with it, and what was expected.
        reason: String,
    },
    /// A stored record does not read back as it was written.
    #[error("item {id} of collection {collection} is damaged in the store: {reason}")]
    DamagedItem {
        /// Name of the collection.
        collection: String,
        /// The item.
        id: String,
        /// What is wrong with the record.
        reason: String,
    },
    /// The stored description of a collection does not read back as it was written.
    #[error("the description of collection {collection} is damaged in the store: {reason}")]
    DamagedCollection {
        /// Name of the collection.
        collection: String,
        /// What is wrong with the record.
        reason: String,
    },
    /// A collection lies in the store as another version of the program writes it.
    #[error(
        "collection {collection} is in format {format}, as another version of this program writes \
         it, expected {expected}: open the folder with that version, or add the items to a new one"
    )]
    OtherFormat {
        /// Name of the collection.
        collection: String,
        /// What was found.
        format: u32,
        /// What this program reads.
        expected: u32,
    },
    /// The item does not have the version that a write was made for. Nothing was written.
    #[error(
        "item {id} of collection {collection} {}, expected {}",
        found.map_or_else(|| "is not there".to_owned(), |found| format!("has version {found}")),
        if *expected == 0 { "that it is not there".to_owned() } else { format!("version {expected}") }
    )]
    VersionConflict {
        /// Name of the collection.
        collection: String,
        /// The item.
        id: String,
        /// What the write expected; 0 for no item.
        expected: u64,
        /// The version of the item, if it is there.
        found: Option<u64>,
    },
    /// There is no item whose payload could change.
    #[error("collection {collection} has no item {id}")]
    NoItem {
        /// Name of the collection.
        collection: String,
        /// The id that was asked for.
        id: String,
    },
    /// A change would make a payload too large.
    #[error("the payload of item {id} would have {bytes} bytes, at most {most} are allowed")]
    PayloadTooLarge {
        /// The item.
        id: String,
        /// Its size, as JSON.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// A label or a template cannot be made into prompts.
    #[error("{field}: {reason}")]
    BadPrompt {
        /// Which, as `labels[1]` or `templates`.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// All labels in all templates make too much text.
    #[error("the labels in all templates have {bytes} bytes, at most {max} are allowed")]
    PromptsTooLarge {
        /// Their size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The labels, prompts or weights of a head do not fit together.
    #[error("this is no head: {reason}")]
    BadHead {
        /// What does not fit, with the values.
        reason: String,
    },
    /// Labels, examples or options from which nothing can be learned.
    #[error("{reason}")]
    BadLesson {
        /// Which part of what was asked for.
        field: String,
        /// What is wrong with it, and what was expected.
        reason: String,
    },
    /// Not a name of a head.
    #[error(
        "{name:?} is no name for a head: expected 1 to 64 of a-z, 0-9, _ and -, starting with a \
         letter or a digit"
    )]
    BadHeadName {
        /// What was given.
        name: String,
    },
    /// There is no such head, or no such version of it.
    #[error(
        "collection {collection} has no head {head}{}",
        version.map_or_else(String::new, |version| format!(" of version {version}"))
    )]
    NoHead {
        /// Name of the collection.
        collection: String,
        /// The name that was asked for.
        head: String,
        /// The version that was asked for, where the head is there.
        version: Option<u32>,
    },
    /// More heads than a collection may have.
    #[error("collection {collection} has {most} heads, and no more are allowed: delete one first")]
    TooManyHeads {
        /// Name of the collection.
        collection: String,
        /// How many there may be.
        most: usize,
    },
    /// As many jobs wait or run as may.
    #[error("{most} jobs wait or run, and no more are allowed: try again when one has ended")]
    TooManyJobs {
        /// How many there may be.
        most: usize,
    },
    /// A stored head does not read back as it was written.
    #[error("head {head} of collection {collection} is damaged in the store: {reason}")]
    DamagedHead {
        /// Name of the collection.
        collection: String,
        /// Name of the head.
        head: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A query meets a head of another space.
    #[error("a head in the space {expected} got a query in the space {got}")]
    AnotherSpace {
        /// Space of the head.
        expected: String,
        /// Space of the query.
        got: String,
    },
    /// Not a name of a field.
    #[error("{name:?} is no name for a field: {reason}")]
    BadField {
        /// What was given, cut after 64 characters.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More fields than a collection may have.
    #[error("{count} fields are too many: a collection has at most {most}")]
    TooManyFields {
        /// How many there would be.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// A field was declared otherwise before.
    #[error("field {field} of collection {collection} is declared as {declared}, got {got}")]
    AnotherKind {
        /// Name of the collection.
        collection: String,
        /// Name of the field.
        field: String,
        /// What it is declared as.
        declared: FieldKind,
        /// What it should become.
        got: FieldKind,
    },
    /// The payload of an item has a value that does not fit a declared field.
    #[error(
        "field {field} of item {id} is {value}, but collection {collection} expects {expected}"
    )]
    WrongValue {
        /// Name of the collection.
        collection: String,
        /// The item.
        id: String,
        /// Name of the field.
        field: String,
        /// The value, cut short.
        value: String,
        /// What the field takes.
        expected: &'static str,
    },
    /// A filter cannot be read, or does not fit the declared fields.
    #[error("{}: {reason}", if path.is_empty() { "the filter" } else { path })]
    BadFilter {
        /// Which part of the filter: `must[0].gte`; empty for the whole.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The index of a field does not read back. It is built again at the next open.
    #[error(
        "the index of field {field} of collection {collection} is damaged: restart to build it"
    )]
    DamagedField {
        /// Name of the collection.
        collection: String,
        /// Name of the field.
        field: String,
    },
    /// The confidence of hits cannot be calibrated.
    #[error("collection {collection} cannot be calibrated: {reason}")]
    CannotCalibrate {
        /// Name of the collection.
        collection: String,
        /// What is missing or wrong, with the values.
        reason: String,
    },
    /// A collection with this name is there already.
    #[error("collection {collection} is there already: choose another name, or delete it first")]
    CollectionExists {
        /// Name of the collection.
        collection: String,
    },
    /// A snapshot could not be made or restored.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The collection has as many items as there are numbers for them.
    #[error("collection {collection} is full")]
    Full {
        /// Name of the collection.
        collection: String,
    },
    /// A background thread of the engine could not finish its work.
    #[error("sealing shard {shard} of collection {collection} failed: {reason}")]
    SealFailed {
        /// Name of the collection.
        collection: String,
        /// Name of the shard.
        shard: String,
        /// What happened.
        reason: String,
    },
}

impl From<StoreError> for EngineError {
    fn from(source: StoreError) -> Self {
        match source {
            StoreError::Locked { dir } => Self::Locked { dir },
            source => Self::Store(source),
        }
    }
}
