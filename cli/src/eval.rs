//! `diptych eval`: how good a model is, and how well an index finds.

mod classes;
mod demo;
mod encode;
mod few_shot;
mod hands;
mod html;
mod index;
mod judged;
mod linear_probe;
mod probe;
mod report;
mod retrieval;
mod words;
mod zero_shot;

use anyhow::Result;

use crate::args::{EvalCommand, Places};

/// Measures and prints.
///
/// # Errors
/// When the data, the model or the collection cannot be used.
pub fn run(places: &Places, command: &EvalCommand) -> Result<()> {
    match command {
        EvalCommand::Demo(args) => demo::run(places, args),
        EvalCommand::Retrieval(args) => retrieval::run(places, args),
        EvalCommand::ZeroShot(args) => zero_shot::run(places, args),
        EvalCommand::LinearProbe(args) => linear_probe::run(places, args),
        EvalCommand::FewShot(args) => few_shot::run(places, args),
        EvalCommand::Index(args) => index::run(places, args),
    }
}
