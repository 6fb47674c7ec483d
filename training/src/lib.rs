//! Makes model folders: the trainer and the recipes of the built-in model.

pub mod augment;
pub mod captions;
pub mod checkpoint;
pub mod config;
pub mod data;
pub mod distill;
mod error;
pub mod evaluate;
pub mod experiment;
pub mod export;
pub mod fit;
pub mod geometry;
pub mod loader;
pub mod manifest;
pub mod memory;
mod metrics;
pub mod objective;
pub mod optimizer;
pub mod pairs;
pub mod parameters;
mod passes;
pub mod plot;
pub mod prepare;
mod report;
pub mod ssl;
pub mod stopping;
pub mod tokenizer;
pub mod towers;
pub mod tuning;
pub mod whitening;
pub mod words;

pub use error::TrainingError;
