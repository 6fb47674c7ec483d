//! Texts and pictures per second through the built-in model, which may use every core.

use std::{hint::black_box, sync::LazyLock};

use benches::photo_like;
use divan::{Bencher, counter::ItemsCount};
use encoders::{Model, Picture};

/// Captions of several lengths, as they come.
const CAPTIONS: [&str; 8] = [
    "cat",
    "red heart",
    "a dog on a beach",
    "woman with a blue umbrella in the rain",
    "flag of a small country",
    "an old bicycle leaning against a yellow wall, seen from the other side of the street",
    "two people shaking hands",
    "show me a birthday cake with candles",
];
const SEED: u64 = 7;

static MODEL: LazyLock<Model> =
    LazyLock::new(|| Model::builtin().expect("the built-in model loads"));

fn main() {
    divan::main();
}

/// Tokenizer and text tower.
#[divan::bench(args = [1, 8, 32])]
fn texts(bencher: Bencher, batch: usize) {
    let tower = MODEL.text();
    let texts: Vec<String> = CAPTIONS
        .iter()
        .rev()
        .cycle()
        .take(batch)
        .map(|text| (*text).to_owned())
        .collect();
    bencher
        .counter(ItemsCount::new(batch))
        .bench_local(|| tower.encode(black_box(&texts)).expect("captions encode"));
}

/// The image tower, from prepared pixels.
#[divan::bench(args = [1, 8, 32])]
fn pictures(bencher: Bencher, batch: usize) {
    let tower = MODEL.image();
    let pixels: Vec<_> = (0..batch as u64)
        .map(|i| {
            let picture = Picture::new(96, 80, photo_like(96, 80, SEED + i));
            MODEL.prepare(&picture.expect("the size fits"))
        })
        .collect();
    bencher
        .counter(ItemsCount::new(batch))
        .bench_local(|| tower.encode(black_box(&pixels)).expect("pictures encode"));
}
