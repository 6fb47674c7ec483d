//! How sources of pairs are written: one path or several, each a text or a table with columns.

use std::fmt;

use pairs::Source;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

/// What a run is evaluated on.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Validation {
    /// A share of the pairs, split off by a hash of their ids: the same pairs in every run.
    Share(f64),
    /// Pairs of their own.
    Sources(Vec<Source>),
}

impl<'de> Deserialize<'de> for Validation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written {
            share: true,
            list: true,
        })
    }
}

/// Sources alone.
pub(super) fn sources<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Source>, D::Error> {
    let written = Written {
        share: false,
        list: true,
    };
    match deserializer.deserialize_any(written)? {
        Validation::Sources(sources) => Ok(sources),
        Validation::Share(_) => Ok(Vec::new()),
    }
}

/// One source in a list.
struct One(Source);

impl<'de> Deserialize<'de> for One {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written {
            share: false,
            list: false,
        };
        let source = match deserializer.deserialize_any(written)? {
            Validation::Sources(sources) => sources.into_iter().next(),
            Validation::Share(_) => None,
        };
        let none = || serde::de::Error::custom("expected a source");
        source.map(Self).ok_or_else(none)
    }
}

struct Written {
    /// Whether a number may stand there.
    share: bool,
    /// Whether a list may.
    list: bool,
}

impl<'de> Visitor<'de> for Written {
    type Value = Validation;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path, a table with path, image_column and caption_column")?;
        if self.list {
            f.write_str(", or a list of these")?;
        }
        if self.share {
            f.write_str("; or a share of the pairs")?;
        }
        Ok(())
    }

    fn visit_f64<E: serde::de::Error>(self, share: f64) -> Result<Validation, E> {
        if self.share {
            Ok(Validation::Share(share))
        } else {
            Err(E::invalid_type(serde::de::Unexpected::Float(share), &self))
        }
    }

    fn visit_str<E: serde::de::Error>(self, path: &str) -> Result<Validation, E> {
        Ok(Validation::Sources(vec![Source::new(path)]))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Validation, A::Error> {
        let source = Source::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Validation::Sources(vec![source]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Validation, A::Error> {
        if !self.list {
            let found = serde::de::Unexpected::Seq;
            return Err(serde::de::Error::invalid_type(found, &self));
        }
        let mut sources = Vec::new();
        while let Some(One(source)) = list.next_element()? {
            sources.push(source);
        }
        Ok(Validation::Sources(sources))
    }
}

#[cfg(test)]
mod tests {
    use super::super::DataConfig;
    use super::*;

    fn read(toml: &str) -> Result<DataConfig, String> {
        toml::from_str(toml).map_err(|e| e.to_string())
    }

    #[test]
    fn a_source_is_a_path_or_a_table_and_there_may_be_several() {
        let one = read("pairs = \"a.csv\"\nvalidation = 0.1").expect("reads");
        assert_eq!(one.pairs, [Source::new("a.csv")]);
        assert_eq!(one.validation, Some(Validation::Share(0.1)));
        let table = "{ path = \"b.jsonl\", caption_column = \"title\" }";
        let several = format!("pairs = [\"a.csv\", {table}]\nvalidation = {table}");
        let several = read(&several).expect("reads");
        let titled = Source {
            caption_column: Some("title".to_owned()),
            ..Source::new("b.jsonl")
        };
        assert_eq!(several.pairs, [Source::new("a.csv"), titled.clone()]);
        assert_eq!(several.validation, Some(Validation::Sources(vec![titled])));
        // What a checkpoint holds to compare can be read back.
        let text = toml::to_string(&several).expect("writes");
        assert_eq!(read(&text).expect("reads"), several);
    }

    #[test]
    fn what_is_no_source_is_refused_in_words() {
        for (wrong, says) in [
            ("pairs = 0.1", "expected a path, a table"),
            ("pairs = [[\"a\"]]", "invalid type: sequence"),
            (
                "pairs = { path = \"a\", image = \"b\" }",
                "unknown field `image`",
            ),
            ("pairs = { image_column = \"b\" }", "missing field `path`"),
            ("validation = true", "or a share of the pairs"),
        ] {
            let message = read(wrong).expect_err("is refused");
            assert!(message.contains(says), "{wrong}: {message}");
        }
    }
}
