//! What `tokenizer_config.json` adds to a `tokenizer.json`, as the `AutoTokenizer` of transformers
//! 5.23 understands it.

use crate::{ModelError, keys::Keys};

pub(super) use crate::tokenize::{Cleaning, Pad, Rules};

/// The class of transformers that reads the tokenizer of a `SigLIP` folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Cleans texts itself and is filled up with the end of text.
    Siglip,
    /// Reads texts as they are.
    Gemma,
    /// The same in lower case.
    Siglip2,
    /// All is in `tokenizer.json`.
    Plain,
}

/// The rules of a `SigLIP` folder; `naflex` where its `model_type` is `siglip2`, for which
/// transformers knows that published files name the wrong class. `keys` are those of
/// `tokenizer_config.json`, `context_length` is the length that texts are filled up to.
pub(super) fn siglip(
    keys: &Keys<'_>,
    naflex: bool,
    context_length: usize,
) -> Result<Rules, ModelError> {
    let class = class(keys, naflex)?;
    let text = |key: &str, default: Option<&str>| match default {
        Some(default) if !keys.is_set(key) => Ok(default.to_owned()),
        _ => token(keys, key),
    };
    if keys.is_set("model_max_length") {
        // What was never set is written as a number beyond all integers.
        let longest = keys.positive("model_max_length")?;
        if longest < context_length as f64 {
            let expected = format!("at least {context_length}, max_position_embeddings");
            return Err(keys.bad("model_max_length", &expected));
        }
    }
    let side = "\"left\" or \"right\"";
    let pad_left = if keys.is_set("padding_side") {
        match keys.text("padding_side", side)? {
            "left" => true,
            "right" => false,
            _ => return Err(keys.bad("padding_side", side)),
        }
    } else {
        matches!(class, Class::Gemma | Class::Siglip2)
    };
    let pad = match class {
        Class::Siglip => text("pad_token", Some("</s>"))?,
        Class::Gemma | Class::Siglip2 => text("pad_token", Some("<pad>"))?,
        Class::Plain => text("pad_token", None)?,
    };
    let flag = |key: &str| Ok::<_, ModelError>(keys.is_set(key) && keys.flag(key)?);
    let around = match class {
        Class::Gemma | Class::Siglip2
            if keys.is_set("add_bos_token") || keys.is_set("add_eos_token") =>
        {
            let before = flag("add_bos_token")?.then(|| text("bos_token", Some("<bos>")));
            let after = flag("add_eos_token")?.then(|| text("eos_token", Some("<eos>")));
            Some([before.transpose()?, after.transpose()?])
        }
        _ => None,
    };
    Ok(Rules {
        cleaning: match class {
            Class::Siglip => Cleaning::Canonical {
                lowercase: !keys.is_set("do_lower_case") || keys.flag("do_lower_case")?,
            },
            Class::Siglip2 => Cleaning::Lowercase,
            Class::Gemma | Class::Plain => Cleaning::AsIs,
        },
        pad: Some(Pad::Token(pad)),
        pad_left,
        around,
        zeroed: None,
    })
}

fn class(keys: &Keys<'_>, naflex: bool) -> Result<Class, ModelError> {
    const EXPECTED: &str =
        "SiglipTokenizer, Siglip2Tokenizer, GemmaTokenizer or PreTrainedTokenizerFast";
    if naflex {
        return Ok(Class::Siglip2);
    }
    if !keys.is_set("tokenizer_class") {
        return Ok(Class::Siglip);
    }
    let name = keys.text("tokenizer_class", EXPECTED)?;
    match name.strip_suffix("Fast").unwrap_or(name) {
        "SiglipTokenizer" => Ok(Class::Siglip),
        "Siglip2Tokenizer" => Ok(Class::Siglip2),
        "GemmaTokenizer" => Ok(Class::Gemma),
        "PreTrainedTokenizer" | "TokenizersBackend" => Ok(Class::Plain),
        _ => Err(keys.bad("tokenizer_class", EXPECTED)),
    }
}

/// A token, alone or as an object with its properties.
pub(super) fn token(keys: &Keys<'_>, key: &str) -> Result<String, ModelError> {
    const EXPECTED: &str = "a token";
    let value = keys.get(key, EXPECTED)?;
    let content = value.get("content").unwrap_or(value).as_str();
    content
        .map(str::to_owned)
        .ok_or_else(|| keys.bad(key, EXPECTED))
}
