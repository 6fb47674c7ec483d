//! Typed access to the keys of a JSON file, with errors that name file and key.
//!
//! Null counts as missing in every file, as in transformers, which writes it for what was never set.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::ModelError;

/// The contents of a JSON file; `file` is for messages.
pub(crate) fn parse(contents: &[u8], file: &Path) -> Result<Value, ModelError> {
    serde_json::from_slice(contents).map_err(|source| ModelError::Json {
        file: file.to_owned(),
        source,
    })
}

/// An object inside a JSON file.
pub(crate) struct Keys<'a> {
    file: &'a Path,
    prefix: String,
    values: &'a Map<String, Value>,
    /// The name of an object beside this one, and what it holds: its values win.
    overriding: Option<(String, &'a Map<String, Value>)>,
}

impl<'a> Keys<'a> {
    /// The outermost object of a file.
    pub(crate) fn root(file: &'a Path, value: &'a Value) -> Result<Self, ModelError> {
        match value.as_object() {
            Some(values) => Ok(Self {
                file,
                prefix: String::new(),
                values,
                overriding: None,
            }),
            None => Err(ModelError::BadValue {
                file: PathBuf::from(file),
                key: ".".to_owned(),
                value: "no object".to_owned(),
                expected: "a JSON object".to_owned(),
            }),
        }
    }

    /// An object inside this one.
    ///
    /// Where there is a `{key}_dict` beside it, as in files from before 2023, transformers lets its
    /// values win. Here both must agree on every key that is read: which of two different values
    /// the weights were trained with, nobody can tell.
    pub(crate) fn section(&self, key: &str) -> Result<Keys<'a>, ModelError> {
        let object = |key: &str| {
            let expected = "an object";
            let value = self.get(key, expected)?;
            value.as_object().ok_or_else(|| self.bad(key, expected))
        };
        let overriding = format!("{key}_dict");
        Ok(Keys {
            file: self.file,
            prefix: self.path(key) + ".",
            values: object(key)?,
            overriding: if self.is_set(&overriding) {
                let values = object(&overriding)?;
                Some((self.path(&overriding), values))
            } else {
                None
            },
        })
    }

    /// Whether a key is there and not null.
    pub(crate) fn is_set(&self, key: &str) -> bool {
        let overriding = self.overriding.as_ref().map(|(_, values)| *values);
        set(self.values, key).is_some() || overriding.is_some_and(|v| set(v, key).is_some())
    }

    /// Every key and its value.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// A whole number above 0.
    pub(crate) fn count(&self, key: &str) -> Result<usize, ModelError> {
        let expected = "a whole number above 0";
        let number = self.get(key, expected)?.as_u64().filter(|n| *n > 0);
        number
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| self.bad(key, expected))
    }

    /// A token id.
    pub(crate) fn id(&self, key: &str) -> Result<u32, ModelError> {
        let expected = "a token id";
        let number = self.get(key, expected)?.as_u64();
        number
            .and_then(|n| u32::try_from(n).ok())
            .ok_or_else(|| self.bad(key, expected))
    }

    /// A finite number above 0.
    pub(crate) fn positive(&self, key: &str) -> Result<f64, ModelError> {
        let expected = "a number above 0";
        let number = self
            .get(key, expected)?
            .as_f64()
            .filter(|x| x.is_finite() && *x > 0.0);
        number.ok_or_else(|| self.bad(key, expected))
    }

    /// A string.
    pub(crate) fn text(&self, key: &str, expected: &'static str) -> Result<&'a str, ModelError> {
        self.get(key, expected)?
            .as_str()
            .ok_or_else(|| self.bad(key, expected))
    }

    /// A list of at least one whole number above 0.
    pub(crate) fn counts(&self, key: &str) -> Result<Vec<usize>, ModelError> {
        let expected = "a list of whole numbers above 0";
        let list = self
            .get(key, expected)?
            .as_array()
            .filter(|list| !list.is_empty());
        let numbers = list.and_then(|list| {
            list.iter()
                .map(|n| n.as_u64().filter(|n| *n > 0).map(|n| n as usize))
                .collect::<Option<_>>()
        });
        numbers.ok_or_else(|| self.bad(key, expected))
    }

    /// True or false.
    pub(crate) fn flag(&self, key: &str) -> Result<bool, ModelError> {
        let expected = "true or false";
        self.get(key, expected)?
            .as_bool()
            .ok_or_else(|| self.bad(key, expected))
    }

    /// The error for a value that is not supported.
    pub(crate) fn bad(&self, key: &str, expected: &str) -> ModelError {
        let overriding = self.overriding.as_ref().map(|(_, values)| *values);
        let value = set(self.values, key).or_else(|| set(overriding?, key));
        ModelError::BadValue {
            file: PathBuf::from(self.file),
            key: self.path(key),
            value: value.map_or_else(|| "missing".to_owned(), Value::to_string),
            expected: expected.to_owned(),
        }
    }

    /// The error for a value that is not there.
    pub(crate) fn missing(&self, key: &str, expected: &'static str) -> ModelError {
        ModelError::MissingKey {
            file: PathBuf::from(self.file),
            key: self.path(key),
            expected,
        }
    }

    /// A value of any kind that must be there.
    pub(crate) fn get(&self, key: &str, expected: &'static str) -> Result<&'a Value, ModelError> {
        let value = set(self.values, key);
        let Some((name, values)) = &self.overriding else {
            return value.ok_or_else(|| self.missing(key, expected));
        };
        match (value, set(values, key)) {
            (Some(value), Some(other)) if value != other => Err(ModelError::BadValue {
                file: PathBuf::from(self.file),
                key: format!("{name}.{key}"),
                value: other.to_string(),
                expected: format!("{value} as `{}` says", self.path(key)),
            }),
            (value, other) => value.or(other).ok_or_else(|| self.missing(key, expected)),
        }
    }

    fn path(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}

/// The value of a key that is there and not null.
fn set<'a>(values: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    values.get(key).filter(|value| !value.is_null())
}
