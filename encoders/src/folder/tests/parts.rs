//! Weights in several files, and the processor as transformers 5 writes it.

use embedding::Encoded;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::Picture;

const PARTS: [&str; 2] = ["model-00001-of-00002", "model-00002-of-00002"];

fn part(n: usize) -> String {
    format!("{}.safetensors", PARTS[n])
}

/// What a folder makes of a text and a picture.
fn embeddings(folder: &TempDir) -> [Vec<Encoded>; 2] {
    let model = Model::load(folder.path()).expect("it loads");
    let texts = ["a red bicycle".to_owned(), "two cats".to_owned()];
    let picture = Picture::new(29, 31, (0..29 * 31 * 3).map(|i| (i * 7) as u8).collect());
    let pixels = model.prepare(&picture.expect("it fills its shape"));
    [
        model.text().encode(&texts).expect("texts"),
        model.image().encode(&[pixels]).expect("a picture"),
    ]
}

fn fingerprint(folder: &TempDir) -> embedding::Fingerprint {
    let model = Model::load(folder.path()).expect("it loads");
    model.spaces().fingerprint
}

/// Cuts the weights of a copy in two, every other tensor to the second, and writes their index; what
/// was in one file is gone.
fn split(folder: &TempDir, weights: &str) -> String {
    let whole = folder.path().join(weights);
    let bytes = fs::read(&whole).expect("it was copied");
    let tensors = SafeTensors::deserialize(&bytes).expect("it is safetensors");
    let mut map = json!({});
    let mut halves = [Vec::new(), Vec::new()];
    let mut sorted = tensors.tensors();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    for (i, (name, view)) in sorted.into_iter().enumerate() {
        map[&name] = json!(part(i % 2));
        halves[i % 2].push((name, view));
    }
    for (n, half) in halves.into_iter().enumerate() {
        let bytes = safetensors::serialize(half, None).expect("it is safetensors again");
        fs::write(folder.path().join(part(n)), bytes).expect("it is ours");
    }
    fs::remove_file(whole).expect("it was there");
    let index = format!("{weights}.index.json");
    let contents = json!({ "metadata": { "total_size": 1 }, "weight_map": map });
    fs::write(folder.path().join(&index), contents.to_string()).expect("it is ours");
    index
}

/// The file of a part, read back with a change.
fn rewrite(folder: &TempDir, name: &str, change: impl Fn(&mut Vec<(String, TensorView<'_>)>)) {
    let file = folder.path().join(name);
    let bytes = fs::read(&file).expect("it is ours");
    let mut tensors = SafeTensors::deserialize(&bytes).expect("ours").tensors();
    change(&mut tensors);
    fs::write(file, safetensors::serialize(tensors, None).expect("ours")).expect("it is ours");
}

#[test]
fn weights_in_two_files_give_the_very_embeddings_of_those_in_one() {
    for (name, weights) in [
        (LARGEST_ID, WEIGHTS),
        ("siglip", WEIGHTS),
        ("open_clip_plain", OPEN_CLIP_WEIGHTS),
    ] {
        let (folder, whole) = (copy(name), copy(name));
        let parameters = |folder: &TempDir| {
            let model = Model::load(folder.path()).expect("it loads");
            model.info().parameters
        };
        split(&folder, weights);
        assert_eq!(embeddings(&folder), embeddings(&whole), "{name}");
        assert_eq!(parameters(&folder), parameters(&whole), "{name}");
    }
}

/// A folder that was read before anybody put an index beside its weights stays what it is.
#[test]
fn weights_in_one_file_go_before_those_in_several() {
    let (folder, whole) = (copy(LARGEST_ID), copy(LARGEST_ID));
    let index = split(&folder, WEIGHTS);
    let of_parts = fingerprint(&folder);
    assert_ne!(of_parts, fingerprint(&whole));
    // The index says which files there are, and else nothing.
    edit(&folder, &index, |index| index["metadata"] = Value::Null);
    assert_eq!(fingerprint(&folder), of_parts);
    let from = whole.path().join(WEIGHTS);
    fs::copy(from, folder.path().join(WEIGHTS)).expect("copied");
    fs::write(folder.path().join(index), "not read").expect("it is ours");
    assert_eq!(fingerprint(&folder), fingerprint(&whole));

    // The same where the other form of the folder is the one that has them in one file.
    let (folder, open) = (copy(LARGEST_ID), copy("open_clip_plain"));
    split(&folder, WEIGHTS);
    for file in [OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS, TOKENIZER] {
        fs::copy(open.path().join(file), folder.path().join(file)).expect("copied");
    }
    assert_eq!(fingerprint(&folder), fingerprint(&open));
}

#[test]
fn a_part_that_is_not_there_is_named() {
    let folder = copy(LARGEST_ID);
    let index = split(&folder, WEIGHTS);
    fs::remove_file(folder.path().join(part(1))).expect("it was there");
    assert_eq!(
        refused(&folder, &part(1)),
        format!(" is missing: {index} lists it among 2 files of the weights")
    );
}

#[test]
fn an_index_names_files_of_its_own_folder_or_is_refused() {
    let expected = "expected the name of a file of the same folder";
    for name in ["../x.safetensors", "a/x", "..", "", "/x"] {
        let folder = copy(LARGEST_ID);
        let index = split(&folder, WEIGHTS);
        edit(&folder, &index, |index| {
            index["weight_map"]["t"] = json!(name);
        });
        assert_eq!(
            refused(&folder, &index),
            format!(": key `weight_map.t` is {name:?}, {expected}")
        );
    }
    let object = "an object: the name of a file for that of each tensor";
    for (contents, problem) in [
        ("{", " is not valid JSON".to_owned()),
        (
            "[]",
            ": key `.` is no object, expected a JSON object".to_owned(),
        ),
        (
            "{}",
            format!(": key `weight_map` is missing, expected {object}"),
        ),
        (
            r#"{"weight_map": {}}"#,
            format!(": key `weight_map` is {{}}, expected {object}"),
        ),
        (
            r#"{"weight_map": {"t": 1}}"#,
            format!(": key `weight_map.t` is 1, {expected}"),
        ),
    ] {
        let folder = copy(LARGEST_ID);
        let index = split(&folder, WEIGHTS);
        fs::write(folder.path().join(&index), contents).expect("it is ours");
        assert_eq!(refused(&folder, &index), problem);
    }
    let folder = copy(LARGEST_ID);
    let index = split(&folder, WEIGHTS);
    let long = " ".repeat(5 << 20);
    fs::write(folder.path().join(&index), long).expect("it is ours");
    let error = refused(&folder, &index);
    assert!(
        error.starts_with(": key `.` is of more than 4194304 bytes"),
        "{error}"
    );
}

#[test]
fn what_is_wrong_with_a_tensor_is_said_of_its_part_or_of_the_index() {
    let projection = "text_projection.weight";
    let folder = copy(LARGEST_ID);
    let index = split(&folder, WEIGHTS);
    let map = read(&folder, &index)["weight_map"].clone();
    let own = map[projection].as_str().expect("it is listed").to_owned();
    let other = if own == part(0) { part(1) } else { part(0) };
    rewrite(&folder, &own, |tensors| {
        tensors.retain(|(name, _)| name != projection);
    });
    assert_eq!(
        refused(&folder, &index),
        format!(
            ": tensor `{projection}`: is in none of the 2 files that are listed, expected shape [24, 32]"
        )
    );
    let add = |part: &str| {
        rewrite(&folder, part, |tensors| {
            let view =
                TensorView::new(safetensors::Dtype::F32, vec![3], &[0; 12]).expect("it fits");
            tensors.push((projection.to_owned(), view));
        });
    };
    // It may be in another than the index says, as in transformers.
    add(&other);
    assert_eq!(
        refused(&folder, &other),
        format!(": tensor `{projection}`: has shape [3], expected [24, 32]")
    );
    add(&own);
    let first = folder.path().join(part(0));
    assert_eq!(
        refused(&folder, &part(1)),
        format!(": tensor `{projection}`: is in {}, too", first.display())
    );
    fs::write(folder.path().join(part(1)), "cut").expect("it is ours");
    assert_eq!(
        refused(&folder, &part(1)),
        " is not a usable safetensors file: it is damaged or cut short, at 3 bytes; copy or download it again"
    );
    fs::write(folder.path().join(part(1)), b"PK\x03\x04rest").expect("it is ours");
    assert_eq!(
        refused(&folder, &part(1)),
        " is not a usable safetensors file: it is a file of torch.save under another name: save it as safetensors"
    );
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
    let missing = " is missing: a pointer of Git LFS is in its place; `git lfs pull` in that folder fetches the file";
    fs::write(folder.path().join(part(1)), pointer).expect("it is ours");
    assert_eq!(refused(&folder, &part(1)), missing);
    fs::write(folder.path().join(TOKENIZER), pointer).expect("it is ours");
    assert_eq!(refused(&folder, TOKENIZER), missing);
}

/// Puts `preprocessor_config.json` where transformers 5 writes it.
fn nest(folder: &TempDir) {
    let own = read(folder, PREPROCESSOR);
    let whole = json!({ "image_processor": own, "processor_class": "CLIPProcessor" });
    fs::write(folder.path().join(PROCESSOR), whole.to_string()).expect("it is ours");
    fs::remove_file(folder.path().join(PREPROCESSOR)).expect("it was there");
}

#[test]
fn the_file_of_the_whole_processor_stands_in_for_that_of_pictures() {
    for name in [LARGEST_ID, "siglip", "siglip2_naflex"] {
        let (folder, before) = (copy(name), copy(name));
        nest(&folder);
        assert_eq!(embeddings(&folder), embeddings(&before), "{name}");
        // The file of pictures alone goes first.
        let own = before.path().join(PREPROCESSOR);
        fs::copy(own, folder.path().join(PREPROCESSOR)).expect("copied");
        fs::write(folder.path().join(PROCESSOR), "not read").expect("it is ours");
        assert_eq!(fingerprint(&folder), fingerprint(&before), "{name}");
    }
}

#[test]
fn what_is_wrong_in_the_file_of_the_whole_processor_is_said_of_it() {
    let folder = copy("siglip");
    nest(&folder);
    edit(&folder, PROCESSOR, |keys| {
        keys["image_processor"]["resample"] = json!(9);
    });
    assert_eq!(
        refused(&folder, PROCESSOR),
        ": key `image_processor.resample` is 9, expected 0 to 5, a filter of Pillow"
    );
    edit(&folder, PROCESSOR, |keys| {
        keys["image_processor"]["resample"] = json!(2);
        keys["image_processor"]["size"] = json!({"height": 4, "width": 30});
    });
    assert_eq!(
        refused(&folder, PROCESSOR),
        ": key `image_processor.size` is made for 30 x 4 pixels, expected at least one patch of 5 x 5"
    );
    edit(&folder, PROCESSOR, |keys| remove(keys, "image_processor"));
    assert_eq!(
        refused(&folder, PROCESSOR),
        ": key `image_processor` is missing, expected the keys of preprocessor_config.json, which is \
         not there either"
    );
    fs::remove_file(folder.path().join(PROCESSOR)).expect("it was there");
    assert_eq!(
        refused(&folder, PREPROCESSOR),
        " is missing: there is no processor_config.json, which would do, either"
    );
}

/// Of every form that can be trained further, also the one with all pictures of one other size.
#[test]
fn a_folder_that_is_written_again_keeps_its_form_and_embeddings_in_one_file() {
    for (name, weights) in [
        (LARGEST_ID, WEIGHTS),
        ("siglip", WEIGHTS),
        ("clip_interpolated", WEIGHTS),
        ("open_clip_custom", OPEN_CLIP_WEIGHTS),
    ] {
        let (folder, whole) = (copy(name), copy(name));
        split(&folder, weights);
        let written = tempfile::tempdir().expect("a folder");
        let base = Base::open(folder.path()).expect("it opens");
        let retrained = Retrained {
            tensors: Vec::new(),
            stored: None,
            card: Card::default(),
        };
        base.write(&retrained, written.path()).expect("it writes");
        assert!(written.path().join(weights).is_file(), "{name}");
        assert_eq!(embeddings(&written), embeddings(&whole), "{name}");
    }
    let refused = Base::open(copy("siglip2_naflex").path()).err();
    let message = refused.expect("every size").to_string();
    assert!(message.contains("NaFlex"), "{message}");
}
