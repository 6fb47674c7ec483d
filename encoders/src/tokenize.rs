//! Words to token ids, by a `tokenizer.json`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use tokenizers::{
    PostProcessor, Tokenizer, TruncationDirection, TruncationParams, TruncationStrategy,
};

use crate::ModelError;

/// A tokenizer that never gives more ids than the text tower takes.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
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
        // Texts are padded by the tower, and only as far as their batch needs.
        tokenizer.with_padding(None);
        Ok(Self { tokenizer })
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

    /// Token ids of a text, special ones included.
    ///
    /// # Errors
    /// When the tokenizer's rules fail on this text; the reason is in words.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        match caught(|| self.tokenizer.encode_fast(text, true)).and_then(|encoded| encoded) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(source) => Err(source.to_string()),
        }
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
        for context in 2..5 {
            let tokenizer = TextTokenizer::from_json(&contents, &file, context);
            let tokenizer = tokenizer.expect("there is room");
            for text in ["", "a", "a red heart on a white ground"] {
                let ids = tokenizer.encode(text).expect("it tokenizes");
                assert!(
                    (2..=context).contains(&ids.len()),
                    "{context}: {text:?}: {ids:?}"
                );
            }
        }
    }
}
