//! What the fuzz targets in `fuzz/` call, and no part of the API: each takes bytes as a file or a
//! client might give them, and panics where that would be wrong. The tests run all of them on the
//! corpus that is kept.

use std::{fs, io::Cursor, panic, path::Path, path::PathBuf, process, sync::LazyLock, sync::Once};

use image::ImageFormat;

use crate::{
    DecodeLimits, Model, RunOptions, decode, decode_rgba,
    folder::{Files, SmallFiles, parts},
    load::Loader,
};

/// A target takes any bytes.
pub type Target = fn(&[u8]);

/// Every target, by its name.
pub const TARGETS: [(&str, Target); 3] = [
    ("picture", picture),
    ("model_folder", model_folder),
    ("weights", weights),
];

/// The target with this name.
///
/// # Panics
/// When there is none.
pub fn target(name: &str) -> Target {
    own_panics_abort();
    let found = TARGETS.iter().find(|(of, _)| *of == name);
    found.expect("a target of this name").1
}

/// Checkpoints that load, one of each form of a folder. The first is what weights are of.
static GOOD: LazyLock<Vec<(SmallFiles, Vec<u8>)>> = LazyLock::new(|| {
    let folders = [
        "quick_gelu_legacy_eos",
        "open_clip_plain",
        "siglip",
        "siglip2_naflex",
    ];
    let read = |name: &str| {
        let folder = data().join(name);
        let small = SmallFiles::read(&folder).expect("it is committed");
        let weights = fs::read(folder.join(small.layout.weights())).expect("it is committed");
        (small, weights)
    };
    folders.into_iter().map(read).collect()
});

/// Small files of a folder, and lists of parts.
const FILES: u8 = 6;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/data")
}

fn picture(bytes: &[u8]) {
    let limits = DecodeLimits {
        max_bytes: 1 << 20,
        max_pixels: 1 << 18,
        max_side: 1 << 14,
    };
    match (decode(bytes, &limits), decode_rgba(bytes, &limits)) {
        (Ok(rgb), Ok(rgba)) => {
            let (width, height) = (rgb.width(), rgb.height());
            assert!(u64::from(width) * u64::from(height) <= limits.max_pixels);
            assert!(width.max(height) <= limits.max_side);
            assert_eq!((width, height), (rgba.width(), rgba.height()));
            let opaque = rgba.as_rgba().as_chunks::<4>().0.iter();
            assert!(
                opaque
                    .zip(rgb.as_rgb().as_chunks::<3>().0)
                    .all(|(a, b)| a[..3] == b[..])
            );
        }
        (Err(rgb), Err(rgba)) => assert_eq!(rgb.to_string(), rgba.to_string()),
        (rgb, rgba) => panic!("{rgb:?} as RGB, {rgba:?} with alpha"),
    }
}

/// A decoder or tokenizer from outside may panic, which is caught and costs its picture or text
/// only. Code of ours must not, even where that would be caught.
fn own_panics_abort() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let ours = |file: &str| file.contains("encoders/src");
            if info.location().is_some_and(|place| ours(place.file())) {
                before(info);
                process::abort();
            }
        }));
    });
}

/// The first byte says which small file of which good folder the others replace.
fn model_folder(bytes: &[u8]) {
    let Some((which, contents)) = bytes.split_first() else {
        return;
    };
    let (small, weights) = &GOOD[usize::from(which / FILES) % GOOD.len()];
    let mut files = good(small, weights);
    match which % FILES {
        0 => files.config = contents,
        1 => files.preprocessor = contents,
        2 => files.tokenizer = contents,
        3 => files.card = Some(contents),
        4 => files.tokenizer_config = Some(contents),
        _ => {
            // Parts are names of files in the folder, and nothing else.
            if let Ok(parts) = parts::listed(contents, Path::new("model.safetensors.index.json")) {
                assert!(parts.iter().all(|part| !part.contains('/')));
            }
            return;
        }
    }
    used(&files);
}

/// The bytes are a weights file, and once more the head of a good one.
fn weights(bytes: &[u8]) {
    let (small, weights) = &GOOD[0];
    let (length, rest) = weights.split_first_chunk().expect("it has a length");
    let values = &rest[u64::from_le_bytes(*length) as usize..];
    let with_values = [&(bytes.len() as u64).to_le_bytes(), bytes, values].concat();
    for weights in [bytes, &with_values] {
        used(&good(small, weights));
    }
}

fn good<'a>(small: &'a SmallFiles, weights: &'a [u8]) -> Files<'a> {
    Files {
        folder: PathBuf::from("model"),
        name: "model",
        layout: small.layout,
        config: &small.config,
        preprocessor_form: small.preprocessor_form,
        preprocessor: &small.preprocessor,
        tokenizer: &small.tokenizer,
        tokenizer_config: small.tokenizer_config.as_deref(),
        weights: vec![(small.layout.weights(), weights)],
        card: small.card.as_deref(),
        readme: small.readme.as_deref(),
    }
}

/// What loads must encode, or say why it cannot.
fn used(files: &Files<'_>) {
    let loaded = Loader::of_files(files);
    let Ok(model) = loaded.and_then(|l| Model::from_loader(l, RunOptions::default())) else {
        return;
    };
    let _ = model
        .text()
        .encode(&["a red bicycle".to_owned(), String::new()]);
    let picture = crate::Picture::new(5, 3, (0..45).collect()).expect("it fills its shape");
    let _ = model.image().encode(&[model.prepare(&picture)]);
}

/// What fuzzing starts from: a small file of every kind, and the target that it is for.
///
/// # Panics
/// When the reference data is not there.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut seeds = Vec::new();
    for folder in ["pictures", "jpeg", "avif"] {
        let mut paths: Vec<PathBuf> = fs::read_dir(data().join(folder))
            .expect("it is committed")
            .map(|entry| entry.expect("it lists").path())
            .collect();
        paths.sort();
        for path in paths.iter().filter(|path| path.is_file()) {
            let bytes = fs::read(path).expect("it is committed");
            let avif = path.extension().is_some_and(|ending| ending == "avif");
            let known = image::guess_format(&bytes).is_ok() || avif;
            if known && bytes.len() < 4096 {
                seeds.push(("picture", bytes));
            }
        }
    }
    let image = image::RgbaImage::from_fn(9, 7, |x, y| image::Rgba([x as u8, y as u8, 3, 200]));
    for format in [
        ImageFormat::Bmp,
        ImageFormat::Tiff,
        ImageFormat::Gif,
        ImageFormat::WebP,
    ] {
        let mut bytes = Cursor::new(Vec::new());
        image
            .write_to(&mut bytes, format)
            .expect("memory takes every byte");
        seeds.push(("picture", bytes.into_inner()));
    }
    let card: Vec<u8> =
        br#"{"name": "small", "license": "MIT", "description": "for tests"}"#.to_vec();
    let list =
        br#"{"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}"#
            .to_vec();
    for (first, (small, _)) in (0..).step_by(usize::from(FILES)).zip(GOOD.iter()) {
        // They say nothing of the form.
        let own = first == 0;
        let files = [
            Some(&small.config),
            Some(&small.preprocessor).filter(|contents| !contents.is_empty()),
            Some(&small.tokenizer),
            own.then_some(&card),
            small.tokenizer_config.as_ref(),
            own.then_some(&list),
        ]
        .map(Option::<&Vec<u8>>::cloned);
        for (which, contents) in (first..).zip(files) {
            seeds.extend(contents.map(|c| ("model_folder", [&[which], &c[..]].concat())));
        }
    }
    let (_, weights) = &GOOD[0];
    let (length, rest) = weights.split_first_chunk().expect("it has a length");
    seeds.push((
        "weights",
        rest[..u64::from_le_bytes(*length) as usize].to_vec(),
    ));
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_input_of_the_corpus_is_a_finding() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        for (name, target) in TARGETS {
            let entries = fs::read_dir(corpus.join(name)).expect("every target has a corpus");
            let mut inputs = 0;
            for entry in entries {
                let path = entry.expect("lists").path();
                let bytes = fs::read(&path).expect("reads");
                let ran = panic::catch_unwind(|| target(&bytes));
                assert!(ran.is_ok(), "{} is a finding", path.display());
                inputs += 1;
            }
            assert!(inputs > 0, "no input for {name}");
        }
    }

    #[test]
    fn no_seed_is_a_finding() {
        let seeds = seeds();
        for (name, target) in TARGETS {
            let of = seeds.iter().filter(|(of, _)| *of == name);
            assert!(of.clone().count() > 0, "no seed for {name}");
            of.for_each(|(_, bytes)| target(bytes));
        }
    }

    #[test]
    fn the_good_folders_load() {
        for (small, weights) in &*GOOD {
            let loader = Loader::of_files(&good(small, weights)).expect("it is whole");
            Model::from_loader(loader, RunOptions::default()).expect("it loads");
        }
    }
}
