//! Makes model folders: the trainer and the recipes of the built-in model.

pub mod augment;
pub mod captions;
pub mod checkpoint;
pub mod config;
pub mod data;
mod error;
pub mod evaluate;
pub mod experiment;
pub mod export;
pub mod fit;
pub mod loader;
pub mod manifest;
mod metrics;
pub mod objective;
pub mod optimizer;
pub mod pairs;
pub mod parameters;
pub mod plot;
pub mod prepare;
pub mod tokenizer;
pub mod towers;
pub mod words;

pub use error::TrainingError;
