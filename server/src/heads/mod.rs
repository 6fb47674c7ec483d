//! Classifiers that a collection keeps: made of examples or of words, and put to items, pictures and
//! texts.

mod describe;
mod examples;
mod make;
mod predict;
mod suggest;
mod wire;

pub(crate) use self::{
    describe::{brief, entry, kept, made_at},
    make::make,
    predict::predict,
    suggest::suggest,
    wire::{HeadIn, PredictIn, SuggestIn},
};
