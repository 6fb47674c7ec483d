//! Pictures and manifest from a small raw folder, made here.

use super::*;

const ICONS: &str = r##"{
  "width": 10, "height": 10,
  "icons": {
    "grinning-face": {"body": "<circle cx=\"5\" cy=\"5\" r=\"5\" fill=\"#ff0000\"/>"},
    "hand-left": {"body": "<path fill=\"currentColor\" d=\"M0 0h5v10H0z\"/>"},
    "nothing": {"body": "<g/>"},
    "no-emoji-at-all": {"body": "<path d=\"M0 0h5v10H0z\"/>"},
    "old": {"body": "<path d=\"M0 0h5v10H0z\"/>", "hidden": true}
  },
  "aliases": {"hand-right": {"parent": "hand-left", "hFlip": true}}
}"##;
const CHARACTERS: &str = r#"{"1f448": "hand-left", "1f449": "hand-right", "2764-fe0f": "nothing"}"#;
const ANNOTATIONS: &str = r#"{"annotations": {"annotations": {
  "\ud83d\ude00": {"default": ["face", "grin", "grinning face"], "tts": ["grinning face"]}}}}"#;
/// The keywords hold the name; one emoji is unknown, and one has no name.
const GERMAN: &str = r#"{"annotations": {"annotations": {
  "\u2764": {"default": ["Liebe"]}, "\u2190": {"tts": ["Pfeil nach links"]},
  "\ud83d\ude00": {"default": ["Gesicht", "grinsendes Gesicht"], "tts": ["grinsendes Gesicht"]}}}}"#;
const GERMAN_DERIVED: &str = r#"{"annotationsDerived": {"annotations": {
  "\ud83d\udc4b\ud83c\udffb": {"default": ["Hand"], "tts": ["winkende Hand: helle Hautfarbe"]}}}}"#;
const DERIVED: &str = r#"{"annotationsDerived": {"annotations": {}}}"#;

fn write(file: &Path, text: &str) {
    fs::create_dir_all(file.parent().expect("a folder")).expect("a new folder");
    fs::write(file, text).expect("a written file");
}

fn raw_folder(root: &Path) -> PrepareConfig {
    let raw = root.join("raw");
    for (language, single, sequences) in
        [("en", ANNOTATIONS, DERIVED), ("de", GERMAN, GERMAN_DERIVED)]
    {
        let file = |kind: &str| raw.join(format!("cldr/{kind}/{language}/annotations.json"));
        write(&file("annotations/annotations"), single);
        write(&file("derived/annotationsDerived"), sequences);
    }
    write(&raw.join("styles/plain/icons.json"), ICONS);
    write(&raw.join("styles/plain/chars.json"), CHARACTERS);
    PrepareConfig {
        raw,
        out: root.join("out"),
        source: Source::Permissive,
        side: 20,
    }
}

fn manifest(config: &PrepareConfig) -> Vec<PictureEntry> {
    let text = fs::read_to_string(config.out.join("manifest.jsonl")).expect("a manifest");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("an entry"))
        .collect()
}

/// A picture that looks like every other one with the same `look`.
fn picture(concept: &str, skin_tone: bool, look: u8) -> (PictureEntry, Vec<u8>) {
    let entry = PictureEntry {
        image: String::new(),
        concept: concept.to_owned(),
        name: String::new(),
        tags: Vec::new(),
        style: String::new(),
        skin_tone,
    };
    (entry, vec![look])
}

#[test]
fn drawings_become_pictures_with_names_and_keywords_and_the_rest_is_reported() {
    let root = tempfile::tempdir().expect("a folder");
    let config = raw_folder(root.path());
    let report = prepare(&config).expect("pictures");

    let entries = manifest(&config);
    let concepts: Vec<_> = entries.iter().map(|entry| entry.concept.as_str()).collect();
    assert_eq!(concepts, ["1f448", "1f449", "1f600"]);
    let grinning = &entries[2];
    assert_eq!(grinning.name, "grinning face");
    assert_eq!(
        grinning.tags,
        ["face", "grin"],
        "the name itself is no keyword"
    );
    assert_eq!(grinning.image, "plain/1f600.png");

    let plain = &report.styles["plain"];
    assert_eq!(plain.pictures, 3);
    assert_eq!(plain.unknown, ["no-emoji-at-all"]);
    assert_eq!(plain.broken, ["nothing: shows nothing"]);
}

#[test]
fn every_known_emoji_gets_its_words_in_every_fetched_language() {
    let root = tempfile::tempdir().expect("a folder");
    let config = raw_folder(root.path());
    let report = prepare(&config).expect("pictures");
    let text = fs::read_to_string(config.out.join("words.jsonl")).expect("words");
    let entries: HashMap<String, words::Translations> = text
        .lines()
        .map(|line| serde_json::from_str::<words::WordsEntry>(line).expect("an entry"))
        .map(|entry| (entry.concept, entry.words))
        .collect();
    let words = |name: &str, tags: &[&str]| words::Words {
        name: name.to_owned(),
        tags: tags.iter().map(|t| (*t).to_owned()).collect(),
    };
    let grinning = &entries["1f600"];
    assert_eq!(grinning["en"], words("grinning face", &["face", "grin"]));
    assert_eq!(grinning["de"], words("grinsendes Gesicht", &["Gesicht"]));
    let waving = words("winkende Hand: helle Hautfarbe", &["Hand"]);
    assert_eq!(entries["1f44b-1f3fb"]["de"], waving);
    assert!(
        !entries["2764"].contains_key("de"),
        "has keywords and no name"
    );
    assert!(!entries.contains_key("2190"), "is no emoji");
    assert_eq!(report.languages["de"], 2);
    assert_eq!(report.languages["en"], entries.len());
}

#[test]
fn a_flipped_alias_is_drawn_flipped_and_in_black() {
    let root = tempfile::tempdir().expect("a folder");
    let config = raw_folder(root.path());
    prepare(&config).expect("pictures");
    for (concept, black_column, clear_column) in [("1f448", 2, 17), ("1f449", 17, 2)] {
        let png = fs::read(config.out.join(format!("plain/{concept}.png"))).expect("a picture");
        let pixels = encoders::decode_rgba(&png, &encoders::DecodeLimits::default())
            .expect("a good picture")
            .into_vec();
        let row = &pixels[10 * 20 * 4..];
        assert_eq!(row[black_column * 4..][..4], [0, 0, 0, 255], "{concept}");
        assert_eq!(row[clear_column * 4 + 3], 0, "{concept}");
    }
}

#[test]
fn the_same_raw_folder_gives_the_same_manifest() {
    let root = tempfile::tempdir().expect("a folder");
    let config = raw_folder(root.path());
    prepare(&config).expect("pictures");
    let first = manifest(&config);
    prepare(&config).expect("pictures");
    assert_eq!(manifest(&config), first);
}

#[test]
fn an_empty_raw_folder_is_an_error_that_names_it() {
    let root = tempfile::tempdir().expect("a folder");
    let config = PrepareConfig {
        source: Source::ShareAlike,
        ..raw_folder(root.path())
    };
    let problem = prepare(&config).expect_err("nothing to share alike");
    assert!(problem.to_string().contains("share-alike"), "{problem}");
}

#[test]
fn the_test_style_is_refused_before_anything_is_drawn() {
    let root = tempfile::tempdir().expect("a folder");
    let config = raw_folder(root.path());
    write(&config.raw.join("styles/twemoji/icons.json"), ICONS);
    write(&config.raw.join("styles/twemoji/chars.json"), CHARACTERS);
    let problem = prepare(&config).expect_err("is kept for tests");
    let problem = problem.to_string();
    assert!(problem.contains("styles/twemoji is a style"), "{problem}");
    assert!(!config.out.exists());
}

#[test]
fn skin_tones_that_look_like_the_default_are_left_out() {
    let pictures = vec![
        picture("a", false, 1),
        picture("a-1f3fb", true, 1),
        picture("b", true, 2),
    ];
    let (kept, left_out) = split_indistinct(pictures);
    let concepts = |part: Pictures| part.into_iter().map(|(e, _)| e.concept).collect::<Vec<_>>();
    assert_eq!(concepts(kept), ["a", "b"]);
    assert_eq!(concepts(left_out), ["a-1f3fb"]);
}

#[test]
fn three_concepts_may_look_alike_and_four_may_not() {
    let alike = |count: usize| {
        (0..count)
            .map(|n| picture(&n.to_string(), false, 1))
            .collect()
    };
    assert_eq!(split_indistinct(alike(3)).0.len(), 3);
    assert_eq!(split_indistinct(alike(4)).0.len(), 0);
}

#[test]
fn flags_are_known_by_their_country_codes() {
    use super::names::concept_of_flag;
    assert_eq!(concept_of_flag("de-4x3").as_deref(), Some("1f1e9-1f1ea"));
    assert_eq!(concept_of_flag("us").as_deref(), Some("1f1fa-1f1f8"));
    let wales = "1f3f4-e0067-e0062-e0077-e006c-e0073-e007f";
    assert_eq!(concept_of_flag("gb-wls").as_deref(), Some(wales));
    assert_eq!(concept_of_flag("de-1x1"), None);
    assert_eq!(concept_of_flag("esperanto"), None);
}
