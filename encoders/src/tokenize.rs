//! Words to token ids, by a `tokenizer.json`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use tokenizers::{
    NormalizerWrapper, PaddingDirection, PaddingParams, PaddingStrategy, PostProcessor, Tokenizer,
    TruncationDirection, TruncationParams, TruncationStrategy,
    normalizers::{Lowercase, Replace, Sequence, Strip, replace::ReplacePattern},
    processors::template::TemplateProcessing,
};

use crate::ModelError;

/// What is done to a text before a `tokenizer.json` has its turn. Special tokens in a text are
/// found before that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Cleaning {
    /// Nothing.
    #[default]
    AsIs,
    /// Lower case: `SigLIP` 2.
    Lowercase,
    /// One blank for any number of them, none at the ends: `OpenCLIP` before tokenizers of others.
    Whitespace,
    /// The same, without ASCII punctuation, and in lower case if the flag is set: `SigLIP`.
    Canonical {
        /// Whether the text becomes lower case.
        lowercase: bool,
    },
}

/// The token that fills texts up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pad {
    /// Known by its id.
    Id(u32),
    /// Known by its name.
    Token(String),
}

/// What else a folder says of its tokenizer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Rules {
    pub cleaning: Cleaning,
    /// Every text is filled up to the context length with this.
    pub pad: Option<Pad>,
    /// Whether texts are filled up at their start.
    pub pad_left: bool,
    /// Tokens around every text, in place of what the file adds: before it and after it.
    pub around: Option<[Option<String>; 2]>,
    /// A token that becomes id 0 in the end.
    pub zeroed: Option<String>,
}

/// A tokenizer that never gives more ids than the text tower takes.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    /// An id that becomes 0.
    zeroed: Option<u32>,
}

impl TextTokenizer {
    /// Reads the contents of a `tokenizer.json`; `file` is for messages. Longer texts are cut to
    /// `context_length` ids; the special tokens that the file's template adds are kept.
    ///
    /// # Errors
    /// When the contents are no tokenizer, or the template alone is longer than `context_length`.
    pub fn from_json(
        contents: &[u8],
        file: &Path,
        context_length: usize,
    ) -> Result<Self, ModelError> {
        Self::with_rules(contents, file, context_length, &Rules::default())
    }

    /// The same, with what else the folder says.
    pub(crate) fn with_rules(
        contents: &[u8],
        file: &Path,
        context_length: usize,
        rules: &Rules,
    ) -> Result<Self, ModelError> {
        let error = |source: tokenizers::Error| ModelError::Tokenizer {
            file: PathBuf::from(file),
            problem: source.to_string(),
        };
        // The reader panics on some damage within, and must not end the process.
        serde_json::from_slice::<IgnoredAny>(contents).map_err(|source| ModelError::Json {
            file: PathBuf::from(file),
            source,
        })?;
        let read = caught(|| Tokenizer::from_bytes(contents));
        let mut tokenizer = read.and_then(|read| read).map_err(error)?;
        let id_of = |tokenizer: &Tokenizer, token: &str| {
            let id = tokenizer.token_to_id(token);
            id.ok_or_else(|| error(format!("it has no token {token:?}").into()))
        };
        let zeroed = rules.zeroed.as_deref();
        let zeroed = zeroed.map(|token| id_of(&tokenizer, token)).transpose()?;
        if let Some(around) = &rules.around {
            let template = template(around, |token| id_of(&tokenizer, token), error)?;
            tokenizer.with_post_processor(Some(template));
        }
        if rules.cleaning != Cleaning::AsIs {
            let mut steps = rules.cleaning.steps().map_err(error)?;
            steps.extend(tokenizer.get_normalizer().cloned());
            let steps = Sequence::new(steps);
            tokenizer.with_normalizer(Some(steps)).map_err(error)?;
        }
        // The subtraction in `with_truncation` and `encode` is unchecked.
        let added = tokenizer
            .get_post_processor()
            .map_or(0, |template| template.added_tokens(false));
        if added > context_length {
            return Err(ModelError::Tokenizer {
                file: PathBuf::from(file),
                problem: format!(
                    "its template adds {added} ids, the text tower takes {context_length}"
                ),
            });
        }
        let truncation = TruncationParams {
            direction: TruncationDirection::Right,
            max_length: context_length,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
        };
        tokenizer.with_truncation(Some(truncation)).map_err(error)?;
        // Where padding plays no part, texts are padded by the tower, and only as far as their
        // batch needs.
        let padding = match &rules.pad {
            None => None,
            Some(Pad::Id(id)) => Some(*id),
            Some(Pad::Token(token)) => Some(id_of(&tokenizer, token)?),
        };
        tokenizer.with_padding(padding.map(|pad_id| PaddingParams {
            strategy: PaddingStrategy::Fixed(context_length),
            direction: if rules.pad_left {
                PaddingDirection::Left
            } else {
                PaddingDirection::Right
            },
            pad_id,
            ..PaddingParams::default()
        }));
        Ok(Self { tokenizer, zeroed })
    }

    /// Number of token ids, special ones included.
    pub fn vocabulary(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The largest token id, special ones included.
    pub fn largest_id(&self) -> Option<u32> {
        self.tokenizer.get_vocab(true).into_values().max()
    }

    /// The id of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// Whether a text has more ids than the text tower takes, so that its end is left out.
    pub fn cuts(&self, text: &str) -> bool {
        let encoding =
            caught(|| self.tokenizer.encode_fast(text, true)).and_then(|encoded| encoded);
        encoding.is_ok_and(|encoding| !encoding.get_overflowing().is_empty())
    }

    /// Token ids of a text, special ones included.
    ///
    /// # Errors
    /// When the tokenizer's rules fail on this text; the reason is in words.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        match caught(|| self.tokenizer.encode_fast(text, true)).and_then(|encoded| encoded) {
            Ok(encoding) => {
                let zero = |id: &u32| if Some(*id) == self.zeroed { 0 } else { *id };
                Ok(encoding.get_ids().iter().map(zero).collect())
            }
            Err(source) => Err(source.to_string()),
        }
    }
}

impl Cleaning {
    fn steps(self) -> tokenizers::Result<Vec<NormalizerWrapper>> {
        let replace = |pattern: &str, by: &str| {
            Replace::new(ReplacePattern::Regex(pattern.to_owned()), by).map(Into::into)
        };
        let blanks = || -> tokenizers::Result<[NormalizerWrapper; 2]> {
            Ok([replace(r"\s+", " ")?, Strip::new(true, true).into()])
        };
        let mut steps = Vec::new();
        if matches!(self, Self::Lowercase | Self::Canonical { lowercase: true }) {
            steps.push(Lowercase.into());
        }
        if matches!(self, Self::Canonical { .. }) {
            steps.push(replace(r"[!-/:-@\[-`{-~]", "")?);
        }
        if matches!(self, Self::Whitespace | Self::Canonical { .. }) {
            steps.extend(blanks()?);
        }
        Ok(steps)
    }
}

/// A template that puts these tokens around every text.
fn template(
    [before, after]: &[Option<String>; 2],
    id_of: impl Fn(&str) -> Result<u32, ModelError>,
    error: impl Fn(tokenizers::Error) -> ModelError,
) -> Result<TemplateProcessing, ModelError> {
    let mut special = Vec::new();
    for token in [before, after].into_iter().flatten() {
        special.push((token.clone(), id_of(token)?));
    }
    let parts = [before.as_deref(), Some("$A"), after.as_deref()];
    let parts: Vec<String> = parts.into_iter().flatten().map(str::to_owned).collect();
    let mut builder = TemplateProcessing::builder();
    let built = builder.try_single(parts).map(|builder| {
        builder.special_tokens(special);
        builder.build()
    });
    match built {
        Ok(Ok(template)) => Ok(template),
        Ok(Err(problem)) => Err(error(problem.into())),
        Err(problem) => Err(error(problem.into())),
    }
}

/// Runs code from outside that panics on some damage.
fn caught<T>(work: impl FnOnce() -> T) -> tokenizers::Result<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| "the tokenizer gave up".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tokenizers crate expects that what it has already taken for JSON is JSON: a line break
    /// within a name, among the decoders, was a panic.
    #[test]
    fn a_file_that_is_no_json_deep_inside_is_refused() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("builtin/tokenizer.json");
        let contents = fs_err::read_to_string(&file).expect("it is committed");
        let at = contents.rfind("\"decoder\"").expect("it has one");
        let quote = at + contents[at..].find("\"type\"").expect("of some type") + 1;
        let damaged = [&contents[..quote], "\n", &contents[quote..]].concat();
        let error = TextTokenizer::from_json(damaged.as_bytes(), &file, 77).expect_err("damaged");
        assert!(matches!(error, ModelError::Json { .. }), "{error}");
    }

    /// The tokenizers crate subtracts the template from the length without looking: a panic in a
    /// debug build, texts of any length in a release build.
    #[test]
    fn a_context_shorter_than_the_template_is_refused() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("builtin/tokenizer.json");
        let contents = fs_err::read(&file).expect("it is committed");
        for context in [0, 1] {
            let error = TextTokenizer::from_json(&contents, &file, context)
                .expect_err("there is no room for start and end");
            let expected = format!("its template adds 2 ids, the text tower takes {context}");
            assert!(error.to_string().ends_with(&expected), "{error}");
        }
        let whole = TextTokenizer::from_json(&contents, &file, 77).expect("there is room");
        for context in 2..5 {
            let tokenizer = TextTokenizer::from_json(&contents, &file, context);
            let tokenizer = tokenizer.expect("there is room");
            for text in ["", "a", "a red heart on a white ground"] {
                let ids = tokenizer.encode(text).expect("it tokenizes");
                assert!(
                    (2..=context).contains(&ids.len()),
                    "{context}: {text:?}: {ids:?}"
                );
                let all = whole.encode(text).expect("it tokenizes").len();
                assert_eq!(tokenizer.cuts(text), all > context, "{context}: {text:?}");
            }
        }
    }
}
