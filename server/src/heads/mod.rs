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
    examples::modality,
    make::{Words, make, of_words},
    predict::{DEFAULT_K, Said, Teller, predict, tell},
    suggest::suggest,
    wire::{HeadIn, InputIn, PredictIn, SuggestIn, TemplatesIn},
};
