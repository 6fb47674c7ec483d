//! Byte-pair encoding (Sennrich et al. 2016) in the form of CLIP's tokenizer.

use std::{
    collections::{BTreeSet, HashSet},
    iter,
    path::Path,
};

use encoders::TextTokenizer;
use serde_json::{Map, Value, json};
use tokenizers::{
    AddedToken, Tokenizer,
    models::{TrainerWrapper, bpe::BpeTrainer},
    pre_tokenizers::byte_level::ByteLevel,
};

use crate::{TrainingError, captions::Caption, manifest::Concept, words::ENGLISH};

/// First token of every text.
pub const START: &str = "<|startoftext|>";
/// Last token of every text; the one that is pooled.
pub const END: &str = "<|endoftext|>";
/// Marks the end of a word.
const END_OF_WORD: &str = "</w>";

/// English counts so many times what all other languages count together. A vocabulary of 8,192 then
/// splits English names as one of 4,096 that knows no other language: 3.3 tokens each. At the weight
/// 1 they are 3.6, and those of the 14 others are shorter by 0.3 at most.
const ENGLISH_WEIGHT: usize = 2;

/// Learns `vocabulary` tokens from the words of the concepts in all their languages; the contents of
/// a `tokenizer.json`. Equal words give equal contents.
///
/// # Errors
/// When the tokenizer library refuses.
pub fn train(concepts: &[Concept], vocabulary: usize) -> Result<String, TrainingError> {
    train_on(corpus(concepts), vocabulary)
}

/// The same from texts.
///
/// # Errors
/// When the tokenizer library refuses.
pub fn train_on(
    texts: impl Iterator<Item = String> + Send,
    vocabulary: usize,
) -> Result<String, TrainingError> {
    let empty = layout(&Map::new(), &[], 0).to_string();
    let mut tokenizer = Tokenizer::from_bytes(empty).map_err(TrainingError::Tokenizer)?;
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    // Both forms of every byte are added below, and two special tokens.
    let merges = vocabulary - 2 * alphabet.len() - 2;
    // The trainer numbers what it is given before it numbers what it meets, which it does in the
    // order of a randomly seeded map; and it breaks ties between pairs by these numbers.
    let finals = alphabet.iter().map(|c| format!("{c}{END_OF_WORD}"));
    let trainer = BpeTrainer::builder()
        .vocab_size(alphabet.len() * 2 + merges)
        .special_tokens(
            finals
                .clone()
                .map(|token| AddedToken::from(token, true))
                .collect(),
        )
        .initial_alphabet(
            alphabet
                .iter()
                .copied()
                .collect::<HashSet<_>>()
                .into_iter()
                .collect(),
        )
        .end_of_word_suffix(END_OF_WORD.to_owned())
        .show_progress(false)
        .build();
    let mut trainer = TrainerWrapper::BpeTrainer(trainer);
    tokenizer
        .train(&mut trainer, texts)
        .map_err(TrainingError::Tokenizer)?;
    let learned = tokenizer
        .to_string(false)
        .map_err(TrainingError::Tokenizer)?;
    let learned: Value =
        serde_json::from_str(&learned).map_err(|e| TrainingError::Tokenizer(e.into()))?;
    let pairs = learned["model"]["merges"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let pairs = &pairs[..pairs.len().min(merges)];

    // Ids as in CLIP: bytes, bytes that end a word, merges in order, and the special tokens last.
    // A byte that the corpus lacks would otherwise become the unknown token, which here is END.
    let bytes = alphabet.iter().map(char::to_string);
    let merged = pairs
        .iter()
        .map(|pair| format!("{}{}", text(&pair[0]), text(&pair[1])));
    let mut vocab = Map::new();
    for token in bytes
        .chain(finals)
        .chain(merged)
        .chain([START.to_owned(), END.to_owned()])
    {
        let id = vocab.len();
        vocab.entry(token).or_insert_with(|| id.into());
    }
    let start = vocab[START].as_u64().unwrap_or_default();
    Ok(layout(&vocab, pairs, start).to_string())
}

/// All words of the concepts and all wording around them, the English ones repeated.
fn corpus(concepts: &[Concept]) -> impl Iterator<Item = String> {
    let names = concepts.iter().map(|c| c.name.clone());
    let tags = concepts.iter().flat_map(|c| c.tags.clone());
    let english: Vec<String> = names.chain(tags).chain(Caption::wording(ENGLISH)).collect();
    let translated = concepts.iter().flat_map(|c| c.translations.values());
    let translated = translated.flat_map(|words| iter::once(&words.name).chain(&words.tags));
    let languages = concepts.iter().flat_map(|c| c.translations.keys());
    let languages: BTreeSet<&str> = languages.map(String::as_str).collect();
    let times = (ENGLISH_WEIGHT * languages.len()).max(1);
    iter::repeat_n(english, times)
        .flatten()
        .chain(translated.cloned())
        .chain(languages.into_iter().flat_map(Caption::wording))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A `tokenizer.json` with the rules of CLIP's, and two for other scripts: marks belong to the letters
/// before them, or every Hindi vowel sign would end a word; and the dot that lower case leaves above
/// the i of a capital with a dot, as in Turkish, is dropped. English has neither.
fn layout(vocab: &Map<String, Value>, merges: &[Value], start: u64) -> Value {
    let special = |id: u64, content: &str| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true
        })
    };
    let added = if vocab.is_empty() {
        vec![]
    } else {
        vec![special(start, START), special(start + 1, END)]
    };
    let processor = json!({
        "type": "RobertaProcessing", "sep": [END, start + 1], "cls": [START, start],
        "trim_offsets": false, "add_prefix_space": false
    });
    let pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}\p{M}]+|[\p{N}]|[^\s\p{L}\p{M}\p{N}]+";
    let unknown = if vocab.is_empty() {
        Value::Null
    } else {
        json!(END)
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
            {"type": "Replace", "pattern": {"String": "i\u{307}"}, "content": "i"}
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": true},
            // Its own pattern would split the marks off again.
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
             "use_regex": false}
        ]},
        "post_processor": if vocab.is_empty() { Value::Null } else { processor },
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                    "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": unknown,
            "continuing_subword_prefix": "", "end_of_word_suffix": END_OF_WORD,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges
        }
    })
}

/// Reads the contents of a tokenizer that [`train`] made.
///
/// # Errors
/// When they are damaged.
pub fn load(
    contents: &str,
    file: &Path,
    context_length: usize,
) -> Result<TextTokenizer, TrainingError> {
    Ok(TextTokenizer::from_json(
        contents.as_bytes(),
        file,
        context_length,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::{Translations, Words};

    fn concept(name: &str) -> Concept {
        Concept {
            key: name.into(),
            name: name.into(),
            tags: vec!["love".into(), "heart".into()],
            skin_tone: false,
            translations: Translations::new(),
            pictures: Vec::new(),
        }
    }

    /// The library's trainer breaks ties by numbers that it gives in the order of a randomly seeded
    /// map: merges differed from run to run until every number was given beforehand.
    #[test]
    fn equal_words_give_equal_files_however_many_pairs_are_equally_frequent() {
        let concepts: Vec<Concept> = (b'a'..=b'z')
            .zip((b'a'..=b'z').rev())
            .map(|(a, b)| concept(&String::from_utf8_lossy(&[a, b, b' ', b, b, a, b' ', a])))
            .collect();
        let first = train(&concepts, 700).expect("trains");
        for _ in 0..10 {
            assert_eq!(train(&concepts, 700).expect("trains"), first);
        }
    }

    /// A Hindi face, a Turkish flag, an Arabic one with a vowel sign, and a Japanese smile.
    const FOREIGN: [(&str, &str); 4] = [
        ("hi", "\u{91a}\u{947}\u{939}\u{930}\u{93e}"),
        ("tr", "italya bayra\u{11f}\u{131}"),
        ("ar", "\u{639}\u{644}\u{645}\u{64b}\u{627}"),
        ("ja", "\u{306b}\u{3063}\u{3053}\u{308a}\u{7b11}\u{3046}"),
    ];

    fn foreign() -> Concept {
        let words = |name: &str| Words {
            name: name.to_owned(),
            tags: vec![name.to_owned()],
        };
        let words = FOREIGN.map(|(language, name)| (language.to_owned(), words(name)));
        Concept {
            translations: words.into(),
            ..concept("face")
        }
    }

    #[test]
    fn english_counts_twice_as_much_as_all_other_languages_and_each_has_its_carriers() {
        let corpus: Vec<String> = corpus(&[foreign()]).collect();
        let count = |text: &str| corpus.iter().filter(|t| *t == text).count();
        assert_eq!(count("face"), 2 * FOREIGN.len());
        assert_eq!(count("a picture of "), 2 * FOREIGN.len());
        assert_eq!(
            count("italya bayra\u{11f}\u{131}"),
            2,
            "a name and a keyword"
        );
        assert_eq!(count("resim: "), 1);
        assert_eq!(count("Bild: "), 0, "no concept has German words");
    }

    #[test]
    fn words_of_other_scripts_stay_whole_and_can_be_read_back() {
        let contents = train(&[foreign()], 1500).expect("trains");
        let tokenizer = Tokenizer::from_bytes(&contents).expect("loads");
        for (language, name) in FOREIGN {
            let ids = tokenizer.encode(name, false).expect("encodes");
            let read = tokenizer.decode(ids.get_ids(), true).expect("decodes");
            let read = read.replace(END_OF_WORD, " ");
            assert_eq!(read.trim(), name, "{language}: {:?}", ids.get_tokens());
            let words = name.split(' ').count();
            assert_eq!(ids.len(), words, "{language}: {:?}", ids.get_tokens());
        }
        let ids = |text: &str| {
            tokenizer
                .encode(text, false)
                .expect("encodes")
                .get_ids()
                .to_vec()
        };
        assert_eq!(ids("\u{130}TALYA"), ids("italya"));
        // The parts of a letter are one letter.
        assert_eq!(ids("bayrag\u{306}\u{131}"), ids("bayra\u{11f}\u{131}"));
    }

    #[test]
    fn texts_start_and_end_as_in_clip_and_no_byte_is_unknown() {
        let concepts = [
            concept("red heart"),
            concept("blue heart"),
            concept("grinning face"),
        ];
        let contents = train(&concepts, 600).expect("trains");
        let tokenizer = load(&contents, Path::new("tokenizer.json"), 12).expect("loads");
        let (start, end) = (tokenizer.id(START), tokenizer.id(END));
        assert_eq!(end.map(|id| id as usize + 1), Some(tokenizer.vocabulary()));
        let hearts = tokenizer.encode("Red   HEART").expect("encodes");
        assert_eq!(hearts, tokenizer.encode("red heart").expect("encodes"));
        let bytes = "redheart".len() + 2;
        assert!(hearts.len() < bytes, "merges are used: {hearts:?}");
        for text in [
            "",
            "\u{65e5}\u{672c} \u{1f600}\u{1f3fd}",
            "q",
            "\u{e9}",
            &"word ".repeat(50),
        ] {
            let ids = tokenizer.encode(text).expect("encodes");
            assert!(ids.len() <= 12);
            assert_eq!((ids.first().copied(), ids.last().copied()), (start, end));
            assert_eq!(
                ids.iter().filter(|id| Some(**id) == end).count(),
                1,
                "{text:?}: {ids:?}"
            );
        }
    }
}
