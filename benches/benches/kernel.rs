//! The inner loops that can be called alone. Convolutions and matrix products cannot: their bench
//! is batch 1 of `encode`.

use std::{hint::black_box, io::Cursor, num::NonZeroU32, num::NonZeroUsize, sync::Arc};

use benches::{ClipLike, photo_like};
use divan::{
    Bencher,
    counter::{BytesCount, ItemsCount},
};
use embedding::Modality;
use encoders::{DecodeLimits, Filter, Normalization, Picture, PreprocessConfig, decode};
use engine::index::{Flat, Index, Live, Rows, SearchParams};
use image::{ImageFormat, RgbImage};

const ROWS: usize = 10_000;
const K: NonZeroUsize = NonZeroUsize::new(10).unwrap();
/// Side of the pixels that CLIP ViT-B/32 sees.
const SIDE: NonZeroU32 = NonZeroU32::new(224).unwrap();
const WIDTH: usize = 640;
const HEIGHT: usize = 480;
const SEED: u64 = 7;

fn main() {
    divan::main();
}

/// The ten nearest of 10,000 rows, by comparing with all.
#[divan::bench(args = [128, 512])]
fn exact_scan(bencher: Bencher, dim: usize) {
    let world = ClipLike::new(dim, SEED);
    let mut rows = Rows::with_capacity(dim, ROWS);
    for row in world.rows(Modality::Image, ROWS, 1) {
        rows.push(row.as_slice());
    }
    let flat = Flat::new(Arc::new(rows));
    let query = world.rows(Modality::Image, 1, 2).remove(0);
    let params = SearchParams { ef_search: K.get() };
    bencher
        .counter(BytesCount::new(ROWS * dim * size_of::<f32>()))
        .counter(ItemsCount::new(ROWS))
        .bench_local(|| flat.search(black_box(&query), K, &params, Live::all(ROWS)));
}

/// Resize as Pillow does, crop and normalize one picture.
#[divan::bench]
fn prepare_for_clip(bencher: Bencher) {
    let rgb = photo_like(WIDTH, HEIGHT, SEED);
    let picture = Picture::new(WIDTH as u32, HEIGHT as u32, rgb).expect("the size fits");
    let config = PreprocessConfig::shortest_edge(SIDE, Filter::Bicubic, Normalization::CLIP);
    bencher
        .counter(ItemsCount::new(1_usize))
        .bench_local(|| config.prepare(black_box(&picture)));
}

/// Decode one picture.
#[divan::bench(args = ["jpeg", "png", "webp"])]
fn decode_picture(bencher: Bencher, format: &str) {
    let format = ImageFormat::from_extension(format).expect("a known format");
    let rgb = photo_like(WIDTH, HEIGHT, SEED);
    let picture = RgbImage::from_raw(WIDTH as u32, HEIGHT as u32, rgb).expect("the size fits");
    let mut file = Cursor::new(Vec::new());
    picture
        .write_to(&mut file, format)
        .expect("the picture can be written");
    let bytes = file.into_inner();
    let limits = DecodeLimits::default();
    bencher
        .counter(ItemsCount::new(1_usize))
        .counter(BytesCount::new(WIDTH * HEIGHT * 3))
        .bench_local(|| decode(black_box(&bytes), &limits).expect("what was written decodes"));
}
