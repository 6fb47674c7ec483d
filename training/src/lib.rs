//! Makes model folders: the trainer and the recipes of the built-in model.

pub mod augment;
pub mod captions;
pub mod checkpoint;
pub mod config;
pub mod distill;
mod error;
pub mod evaluate;
pub mod experiment;
pub mod export;
pub mod fit;
pub mod geometry;
pub mod loader;
pub mod manifest;
mod metrics;
pub mod objective;
pub mod optimizer;
pub mod parameters;
pub mod plot;
pub mod prepare;
pub mod ssl;
pub mod tokenizer;
pub mod towers;
pub mod words;

pub use error::TrainingError;
