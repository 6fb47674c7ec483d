use std::path::Path;

use encoders::{Filter, Normalization, RgbaPicture};
use fs_err as fs;
use pairs::Source;

use super::*;
use crate::{loader::check_contract, pairs::PairSet, tokenizer};

/// A folder of pictures, those in `broken` damaged, each with its captions.
fn world(folder: &Path, captions: &[&[&str]], broken: &[usize]) -> Vec<Captioned> {
    for (i, captions) in captions.iter().enumerate() {
        let rgba = (0..9 * 7).flat_map(|p| [(i * 40) as u8, p as u8, 9, 255]);
        let picture = RgbaPicture::new(9, 7, rgba.collect()).expect("sizes fit");
        let bytes = if broken.contains(&i) {
            b"no picture".to_vec()
        } else {
            picture.to_png()
        };
        fs::write(folder.join(format!("{i:03}.png")), bytes).expect("written");
        fs::write(folder.join(format!("{i:03}.txt")), captions.join("\n")).expect("written");
    }
    let config = crate::config::DataConfig {
        pairs: vec![Source::new(folder)],
        ..crate::config::DataConfig::default()
    };
    PairSet::read(&config).expect("reads").training
}

fn source(pairs: Vec<Captioned>, batch: usize, seed: u64, change: &str) -> PairBatches {
    let recipe = include_str!("../../testing/plain.toml");
    let from = recipe.find("[augment]").expect("a section");
    let mut config: RunConfig =
        toml::from_str(&format!("{}{change}", &recipe[..from])).expect("parses");
    config.optimizer.batch = batch;
    config.seed = seed;
    let words = pairs.iter().flat_map(|p| p.captions.clone());
    let words = tokenizer::train_on(words, 600).expect("trains");
    let words = tokenizer::load(&words, Path::new("tokenizer.json"), 16).expect("loads");
    let side = std::num::NonZeroU32::new(4).expect("not 0");
    let preprocess = PreprocessConfig::squash(side, Filter::Bilinear, Normalization::HALF);
    PairBatches::new(pairs, words, preprocess, config).expect("enough")
}

fn numbered(n: usize) -> Vec<Vec<String>> {
    (0..n)
        .map(|i| vec![format!("one {i}"), format!("two {i}")])
        .collect()
}

fn borrowed(captions: &[Vec<String>]) -> Vec<Vec<&str>> {
    captions
        .iter()
        .map(|all| all.iter().map(String::as_str).collect())
        .collect()
}

fn many(folder: &Path, n: usize, broken: &[usize]) -> Vec<Captioned> {
    let captions = numbered(n);
    let captions = borrowed(&captions);
    let captions: Vec<&[&str]> = captions.iter().map(Vec::as_slice).collect();
    world(folder, &captions, broken)
}

const VARIED: &str = "[augment]\ncrop = [0.3, 1.0]\nmirror_share = 0.5\n";
const VIEWS: &str = "[objective.latent]\nin_modal = 1.0\n";

#[test]
fn batches_of_pairs_keep_the_contract_with_and_without_damage() {
    for broken in [&[][..], &[1, 5]] {
        let folder = tempfile::tempdir().expect("a folder");
        let pairs = many(folder.path(), 11, broken);
        check_contract(|seed| {
            let mut source = source(pairs.clone(), 4, seed, &format!("{VARIED}{VIEWS}"));
            source.config.data.unreadable_share = 1.0;
            source
        });
    }
}

#[test]
fn every_picture_comes_once_in_an_epoch_and_epochs_differ() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = source(many(folder.path(), 11, &[]), 3, 7, "");
    let epoch = |first: usize| {
        let items = (first..first + 3).flat_map(|step| source.batch(step).expect("a batch").items);
        items.collect::<Vec<_>>()
    };
    let (one, two) = (epoch(0), epoch(3));
    for items in [&one, &two] {
        let distinct: HashSet<_> = items.iter().collect();
        assert_eq!(distinct.len(), 9, "{items:?}");
    }
    assert_ne!(one, two);
    // Which epoch was asked for last plays no part.
    assert_eq!(epoch(0), one);
}

#[test]
fn a_caption_is_true_of_every_picture_that_has_it_and_both_of_ones_own_are_drawn() {
    let folder = tempfile::tempdir().expect("a folder");
    let captions: [&[&str]; 3] = [&["a dog", "a pet"], &["a pet"], &["a tree"]];
    let source = source(world(folder.path(), &captions, &[]), 3, 7, VIEWS);
    let id = |text: &str| source.tokenizer.encode(text).expect("encodes");
    let mut drawn = HashSet::new();
    for step in 0..20 {
        let batch = source.batch(step).expect("a batch");
        let row = |item: usize| batch.items.iter().position(|i| *i == item).expect("there");
        let (dog, pet, tree) = (row(0), row(1), row(2));
        let says_pet = batch.first.tokens[dog] == id("a pet");
        let second = batch.second.as_ref().expect("a second view");
        assert_ne!(second.tokens[dog], batch.first.tokens[dog]);
        drawn.insert(says_pet);
        let at = |of: &[f32], r: usize, c: usize| of[r * 3 + c] > 0.5;
        assert!(at(&batch.positives, dog, pet), "a dog is a pet, too");
        assert_eq!(at(&batch.positives, pet, dog), says_pet);
        assert!(!at(&batch.positives, tree, dog) && !at(&batch.positives, dog, tree));
        // The first caption of the one is the second of the other, or true of it.
        assert!(at(&batch.text_positives, dog, pet));
        assert!(at(&batch.text_positives, pet, dog));
        assert!(!at(&batch.text_positives, tree, pet));
    }
    assert_eq!(drawn.len(), 2, "one of two captions is never drawn");
}

#[test]
fn a_damaged_picture_is_named_and_replaced_by_the_same_one_each_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let pairs = many(folder.path(), 12, &[3]);
    let mut source = source(pairs, 4, 7, "");
    source.config.data.unreadable_share = 0.5;
    let epoch: Vec<Batch> = (0..3).map(|s| source.batch(s).expect("a batch")).collect();
    let skipped: Vec<_> = epoch.iter().flat_map(|b| &b.skipped).collect();
    assert!(skipped.len() == 1, "{skipped:?}");
    assert!(skipped[0].path.ends_with("003.png") && !skipped[0].reason.is_empty());
    assert!(epoch.iter().all(|b| !b.items.contains(&3)));
    assert_eq!(epoch[2], source.batch(2).expect("a batch"));
}

#[test]
fn more_damage_than_allowed_stops_the_run_and_one_picture_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let pairs = many(folder.path(), 40, &[0]);
    let sound = source(pairs, 4, 7, "");
    for step in 0..20 {
        sound
            .batch(step)
            .expect("one of forty is within a twentieth");
    }
    let broken: Vec<usize> = (0..40).filter(|i| i % 2 == 0).collect();
    let pairs = many(folder.path(), 40, &broken);
    let half = source(pairs.clone(), 4, 7, "");
    let refused = (0..20).find_map(|step| half.batch(step).err());
    let message = refused.expect("is stopped").to_string();
    assert!(
        message.contains("cannot be read, 0.05 are allowed"),
        "{message}"
    );
    assert!(message.contains(".png: "), "{message}");
    // Nothing left to put in their place.
    let mut nothing = source(pairs, 24, 7, "");
    nothing.config.data.unreadable_share = 1.0;
    let message = nothing.batch(0).expect_err("is stopped").to_string();
    assert!(message.contains("20 pairs"), "{message}");
}
