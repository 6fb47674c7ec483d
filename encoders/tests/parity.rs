//! Equal to transformers and to `OpenCLIP`: token ids, pixel values and embeddings of the checkpoints
//! and pictures under `tests/reference/data`, which `tests/reference/make_reference.py` made.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use embedding::{Embedding, Encoded, Modality, Scoring, check_contract};
use encoders::{DecodeLimits, Model, Picture, Pixels, decode};
use safetensors::SafeTensors;
use serde_json::Value;

const CHECKPOINTS: [&str; 9] = [
    // CLIP as OpenAI, LAION and DataComp publish it; and pictures of another size than it learned.
    "quick_gelu_legacy_eos",
    "gelu_named_eos",
    "clip_interpolated",
    // SigLIP, SigLIP 2 of one size, SigLIP 2 NaFlex.
    "siglip",
    "siglip2",
    "siglip2_naflex",
    // OpenCLIP's own form: shortest, longest with padding, squash; the last like CLIPA.
    "open_clip_plain",
    "open_clip_custom",
    "open_clip_clipa",
];

/// Largest difference of an element of a unit embedding, from equal inputs to the tower.
const MAX_ABS: f32 = 2e-6;

/// Largest difference of a normalized pixel value, from equal gray levels.
const MAX_PIXEL: f32 = 1e-6;

/// Least cosine from the bytes of the file. Decoders of lossy WebP differ by a few gray levels.
const MIN_COSINE: f32 = 0.9999;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/data")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("it is committed")).expect("it is JSON")
}

fn strings(value: &Value) -> Vec<String> {
    let values = value.as_array().expect("an array").iter();
    values
        .map(|v| v.as_str().expect("a string").to_owned())
        .collect()
}

/// Tensors by name: shape and little-endian bytes.
fn tensors(path: &Path) -> HashMap<String, (Vec<usize>, Vec<u8>)> {
    let bytes = std::fs::read(path).expect("it is committed");
    let file = SafeTensors::deserialize(&bytes).expect("it is safetensors");
    let entry = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        (name, (view.shape().to_vec(), view.data().to_vec()))
    };
    file.tensors().into_iter().map(entry).collect()
}

/// A checkpoint and what transformers makes of it.
struct Case {
    name: &'static str,
    model: Model,
    listing: Value,
    expected: HashMap<String, (Vec<usize>, Vec<u8>)>,
}

impl Case {
    fn load(name: &'static str) -> Self {
        let folder = data().join(name);
        Self {
            name,
            model: Model::load(&folder).expect("the checkpoint loads"),
            listing: json(&folder.join("expected.json")),
            expected: tensors(&folder.join("expected.safetensors")),
        }
    }

    fn texts(&self) -> Vec<(String, Vec<u32>)> {
        let texts = self.listing["texts"].as_array().expect("an array").iter();
        let ids = |text: &Value| {
            let ids = text["ids"].as_array().expect("an array").iter();
            ids.map(|id| id.as_u64().expect("an id") as u32).collect()
        };
        texts
            .map(|t| (t["text"].as_str().expect("a string").to_owned(), ids(t)))
            .collect()
    }

    fn pictures(&self) -> Vec<String> {
        strings(&self.listing["pictures"])
    }

    /// Rows of a tensor, or `None` where the checkpoint has no such output.
    fn rows(&self, name: &str) -> Option<Vec<Vec<f32>>> {
        let (shape, bytes) = self.expected.get(name)?;
        let values: Vec<f32> = bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect();
        let length = shape[1..].iter().product();
        Some(values.chunks_exact(length).map(<[f32]>::to_vec).collect())
    }

    /// The pixel values that the reference hands to its image tower: all in one tensor, or one
    /// tensor for each picture, `[3, height, width]`.
    fn pixels(&self) -> Vec<Pixels> {
        let Some((shape, _)) = self.expected.get("image_pixels") else {
            let one = |name: &String| {
                let name = format!("pixels/{name}");
                let (shape, _) = &self.expected[&name];
                let planes = self.rows(&name).expect("it is there");
                Pixels::new(planes.concat(), shape[1], shape[2]).expect("they fill their shape")
            };
            return self.pictures().iter().map(one).collect();
        };
        let rows = self.rows("image_pixels").expect("it is there");
        let pixels = rows
            .into_iter()
            .map(|row| Pixels::new(row, shape[2], shape[3]));
        pixels
            .collect::<Result<_, _>>()
            .expect("they fill their shape")
    }
}

fn picture_bytes(name: &str) -> Vec<u8> {
    std::fs::read(data().join("pictures").join(name)).expect("it is committed")
}

fn cosine(ours: &Embedding, theirs: &[f32]) -> f32 {
    ours.as_slice().iter().zip(theirs).map(|(a, b)| a * b).sum()
}

/// Runs `check` on each output with its input's name, aspect and expected row; an aspect must be
/// there on both sides or on neither.
fn compare(
    case: &Case,
    modality: &str,
    inputs: &[String],
    outputs: &[Encoded],
    check: impl Fn(&str, &Embedding, &[f32]),
) {
    assert_eq!(inputs.len(), outputs.len());
    let shared = case
        .rows(&format!("{modality}_shared"))
        .expect("every checkpoint has them");
    let specific = case.rows(&format!("{modality}_specific"));
    for (i, (input, output)) in inputs.iter().zip(outputs).enumerate() {
        let short: String = input.chars().take(40).collect();
        let what = format!("{}, {modality} {short:?}", case.name);
        assert_eq!(output.shared.dim(), shared[i].len(), "{what}");
        check(&format!("{what}, shared"), &output.shared, &shared[i]);
        assert_eq!(
            output.specific.is_some(),
            specific.is_some(),
            "{what}: specific"
        );
        if let (Some(ours), Some(theirs)) = (&output.specific, &specific) {
            assert_eq!(ours.dim(), theirs[i].len(), "{what}");
            check(&format!("{what}, specific"), ours, &theirs[i]);
        }
    }
}

fn within_max_abs(what: &str, ours: &Embedding, theirs: &[f32]) {
    let differences = ours
        .as_slice()
        .iter()
        .zip(theirs)
        .map(|(a, b)| (a - b).abs());
    let worst = differences.fold(0.0, f32::max);
    assert!(worst <= MAX_ABS, "{what}: an element differs by {worst:e}");
}

#[test]
fn pictures_decode_to_the_bytes_of_pillow() {
    let folder = data().join("pictures");
    let list = json(&folder.join("list.json"));
    let exact = strings(&list["exact"]);
    assert!(exact.len() > 15, "the reference has lost its cases");
    let decoded = tensors(&folder.join("decoded.safetensors"));
    for name in strings(&list["all"]) {
        let (shape, theirs) = &decoded[&name];
        let picture = decode(&picture_bytes(&name), &DecodeLimits::default()).expect(&name);
        assert_eq!(
            [picture.height() as usize, picture.width() as usize],
            shape[..2],
            "{name}"
        );
        let ours = picture.as_rgb();
        let is_jpeg = Path::new(&name).extension().is_some_and(|end| end == "jpg");
        if exact.contains(&name) || is_jpeg {
            assert!(ours == theirs, "{name}: not every byte is the same");
        }
        let differences = ours.iter().zip(theirs).map(|(a, b)| a.abs_diff(*b));
        let sum: f64 = differences.map(f64::from).sum();
        let mean = sum / ours.len() as f64;
        assert!(mean <= 0.5, "{name}: {mean} gray levels on average");
    }
}

#[test]
fn token_ids_are_identical() {
    for case in CHECKPOINTS.map(Case::load) {
        for (text, ids) in case.texts() {
            let ours = case.model.tokenize(&text).expect("it tokenizes");
            assert_eq!(ours, ids, "{}: {text:?}", case.name);
        }
    }
}

#[test]
fn pixel_values_are_equal() {
    let decoded = tensors(&data().join("pictures/decoded.safetensors"));
    for case in CHECKPOINTS.map(Case::load) {
        for (name, theirs) in case.pictures().iter().zip(case.pixels()) {
            let (shape, rgb) = &decoded[name];
            let picture = Picture::new(shape[1] as u32, shape[0] as u32, rgb.clone());
            let ours = case.model.prepare(&picture.expect("it fills its shape"));
            assert_eq!(
                (ours.height(), ours.width()),
                (theirs.height(), theirs.width())
            );
            let worst = ours
                .as_slice()
                .iter()
                .zip(theirs.as_slice())
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(
                worst <= MAX_PIXEL,
                "{}, {name}: a value differs by {worst:e}",
                case.name
            );
        }
    }
}

#[test]
fn text_embeddings_are_equal() {
    for case in CHECKPOINTS.map(Case::load) {
        let texts: Vec<String> = case.texts().into_iter().map(|(text, _)| text).collect();
        let outputs = case.model.text().encode(&texts).expect("they encode");
        compare(&case, "text", &texts, &outputs, within_max_abs);
    }
}

#[test]
fn image_embeddings_are_equal_from_equal_pixels() {
    for case in CHECKPOINTS.map(Case::load) {
        let outputs = case
            .model
            .image()
            .encode(&case.pixels())
            .expect("they encode");
        compare(&case, "image", &case.pictures(), &outputs, within_max_abs);
    }
}

#[test]
fn image_embeddings_agree_from_the_files() {
    for case in CHECKPOINTS.map(Case::load) {
        let names = case.pictures();
        let pixels: Vec<Pixels> = names
            .iter()
            .map(|name| decode(&picture_bytes(name), &DecodeLimits::default()).expect(name))
            .map(|picture| case.model.prepare(&picture))
            .collect();
        let outputs = case.model.image().encode(&pixels).expect("they encode");
        compare(&case, "image", &names, &outputs, |what, ours, theirs| {
            let cosine = cosine(ours, theirs);
            assert!(cosine >= MIN_COSINE, "{what}: cosine {cosine}");
        });
    }
}

#[test]
fn both_encoders_keep_their_contract() {
    for case in CHECKPOINTS.map(Case::load) {
        // Distinct in meaning: neither spelled two ways nor empty twice.
        let texts = ["a red bicycle", "", "two dogs", "x ".repeat(80).as_str()].map(str::to_owned);
        check_contract(case.model.text().as_ref(), &texts);
        check_contract(case.model.image().as_ref(), &case.pixels());
        assert_eq!(case.model.text().modality(), Modality::Text);
        assert_eq!(case.model.image().modality(), Modality::Image);
    }
}

#[test]
fn how_cosines_become_probabilities_is_read() {
    for case in CHECKPOINTS.map(Case::load) {
        let number = |key: &str| case.listing[key].as_f64().map(|x| x as f32);
        let scale = number("logit_scale").expect("every checkpoint has one");
        let scoring = case.model.scoring();
        let what = format!("{}: {scoring}", case.name);
        assert!((scoring.logit_scale() - scale).abs() <= 1e-4, "{what}");
        match (scoring, number("logit_bias")) {
            (Scoring::Softmax { .. }, None) => {}
            (Scoring::Sigmoid { logit_bias, .. }, Some(bias)) => {
                assert!((logit_bias - bias).abs() <= 1e-4, "{what}");
            }
            _ => panic!("{what}"),
        }
        assert_eq!(case.model.spaces().scoring, Some(scoring), "{what}");
    }
}
