//! Models whose weights are in several files.

use serde_json::{Map, Value, json};

use super::*;

const INDEX: &str = "model.safetensors.index.json";
const PARTS: [&str; 2] = [
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
];

/// A place whose hub has the weights in two parts, and a file of the same kind that is none of them.
fn place() -> Place {
    let place = Place::new();
    let whole = fs_err::read(checkpoint().join(WEIGHTS)).expect("read");
    let (map, parts) = split(&whole);
    for (name, part) in PARTS.into_iter().zip(parts) {
        place.hub.put(COMMIT, name, part);
    }
    place.hub.put(COMMIT, "model-00003.safetensors", whole);
    put_index(&place, &map);
    let key = (COMMIT.to_owned(), WEIGHTS.to_owned());
    place.hub.state().files.remove(&key).expect("it was there");
    place
}

fn put_index(place: &Place, map: &Value) {
    let index = json!({ "metadata": {}, "weight_map": map }).to_string();
    place.hub.put(COMMIT, INDEX, index.into());
}

/// Which tensor is in which part, and the parts: every other tensor of a safetensors file in each.
fn split(whole: &[u8]) -> (Value, [Vec<u8>; 2]) {
    let (length, rest) = whole.split_first_chunk().expect("a length");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: Map<String, Value> = serde_json::from_slice(header).expect("JSON");
    header.remove("__metadata__");
    let mut map = json!({});
    let mut halves = [(json!({}), Vec::new()), (json!({}), Vec::new())];
    for (i, (name, mut tensor)) in header.into_iter().enumerate() {
        let (header, values) = &mut halves[i % 2];
        let offset = |i: usize| tensor["data_offsets"][i].as_u64().expect("an offset") as usize;
        let (start, own) = (values.len(), &data[offset(0)..offset(1)]);
        values.extend(own);
        tensor["data_offsets"] = json!([start, values.len()]);
        map[&name] = json!(PARTS[i % 2]);
        header[&name] = tensor;
    }
    let parts = halves.map(|(header, values)| {
        let header = header.to_string().into_bytes();
        [&(header.len() as u64).to_le_bytes(), &header[..], &values].concat()
    });
    (map, parts)
}

#[test]
fn weights_in_parts_are_fetched_by_their_list_and_embed_as_those_in_one_file() {
    let place = place();
    let first = answer(&place.by_name());
    let asked = place.hub.asked();
    let folder = checkpoint();
    let whole = answer(&place.embed(&["--model", text(&folder)]));
    assert_eq!(first["items"], whole["items"]);
    let contents: Vec<&str> = contents(&asked)
        .into_iter()
        .filter(|asked| !asked.by_store && !asked.line.contains("resolve-cache"))
        .map(|asked| asked.line.rsplit('/').next().expect("a name"))
        .collect();
    let [config, preprocessor, tokenizer, _] = NEEDED;
    let [one, two] = PARTS;
    assert_eq!(
        contents,
        [
            INDEX,
            config,
            preprocessor,
            tokenizer,
            "README.md",
            one,
            two
        ]
    );

    assert_eq!(answer(&place.by_name()), first);
    let asked = place.hub.asked();
    assert_eq!(asked.len(), 1, "the revision only: {asked:?}");
    assert_eq!(answer(&place.embed(&["--model", NAME, "--offline"])), first);
    let snapshot = place.cache().join("snapshots").join(COMMIT);
    let by_folder = answer(&place.embed(&["--model", text(&snapshot)]));
    assert_eq!(by_folder["fingerprint"], first["fingerprint"]);
}

#[test]
fn a_model_lacks_nothing_only_when_all_parts_are_here() {
    let place = place();
    place.hub.state().corrupt = Some(PARTS[1]);
    refused(&place.by_name(), &[PARTS[1], "checksum"]);
    let snapshot = place.cache().join("snapshots").join(COMMIT);
    assert!(snapshot.join(PARTS[0]).is_file());
    let offline = ["--model", NAME, "--offline"];
    refused(&place.embed(&offline), &["(completely)"]);
    place.hub.state().corrupt = None;
    place.hub.asked();
    let first = answer(&place.by_name());
    let asked = place.hub.asked();
    let contents = contents(&asked);
    let of_part = |asked: &&Asked| asked.line.contains(PARTS[1]);
    assert!(contents.iter().all(of_part), "{contents:?}");
    assert_eq!(answer(&place.embed(&offline)), first);
}

#[test]
fn a_list_of_parts_that_cannot_be_used_is_refused_before_they_are_fetched() {
    for (map, words) in [
        (
            json!({"a": "../x.safetensors"}),
            &[INDEX, "\"../x.safetensors\""][..],
        ),
        (json!({}), &[INDEX, "names no files"]),
        (json!([]), &[INDEX, "is not usable"]),
        (
            json!({"a": "model-00004.safetensors", "b": PARTS[0]}),
            &["lacks model-00004.safetensors"],
        ),
    ] {
        let place = place();
        put_index(&place, &map);
        refused(&place.by_name(), words);
        let asked = place.hub.asked();
        let is_index = |asked: &&Asked| asked.line.contains(INDEX);
        assert!(contents(&asked).iter().all(is_index), "{asked:?}");
    }
    let place = place();
    place.hub.put(COMMIT, INDEX, vec![b' '; 5 << 20]);
    refused(
        &place.by_name(),
        &[INDEX, "has 5242880 bytes, at most 4194304"],
    );
    assert_eq!(contents(&place.hub.asked()).len(), 0);
}
