//! Typed access to the keys of a JSON file, with errors that name file and key.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::ModelError;

/// An object inside a JSON file.
pub(super) struct Keys<'a> {
    file: &'a Path,
    prefix: String,
    values: &'a Map<String, Value>,
}

impl<'a> Keys<'a> {
    /// The outermost object of a file.
    pub(super) fn root(file: &'a Path, value: &'a Value) -> Result<Self, ModelError> {
        match value.as_object() {
            Some(values) => Ok(Self {
                file,
                prefix: String::new(),
                values,
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
    pub(super) fn section(&self, key: &str) -> Result<Keys<'a>, ModelError> {
        let expected = "an object";
        let value = self.get(key, expected)?;
        match value.as_object() {
            Some(values) => Ok(Keys {
                file: self.file,
                prefix: self.path(key) + ".",
                values,
            }),
            None => Err(self.bad(key, expected)),
        }
    }

    /// A whole number above 0.
    pub(super) fn count(&self, key: &str) -> Result<usize, ModelError> {
        let expected = "a whole number above 0";
        let number = self.get(key, expected)?.as_u64().filter(|n| *n > 0);
        number
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| self.bad(key, expected))
    }

    /// A token id.
    pub(super) fn id(&self, key: &str) -> Result<u32, ModelError> {
        let expected = "a token id";
        let number = self.get(key, expected)?.as_u64();
        number
            .and_then(|n| u32::try_from(n).ok())
            .ok_or_else(|| self.bad(key, expected))
    }

    /// A finite number above 0.
    pub(super) fn positive(&self, key: &str) -> Result<f64, ModelError> {
        let expected = "a number above 0";
        let number = self
            .get(key, expected)?
            .as_f64()
            .filter(|x| x.is_finite() && *x > 0.0);
        number.ok_or_else(|| self.bad(key, expected))
    }

    /// A string.
    pub(super) fn text(&self, key: &str, expected: &'static str) -> Result<&'a str, ModelError> {
        self.get(key, expected)?
            .as_str()
            .ok_or_else(|| self.bad(key, expected))
    }

    /// A list of at least one whole number above 0.
    pub(super) fn counts(&self, key: &str) -> Result<Vec<usize>, ModelError> {
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

    /// The error for a value that is not supported.
    pub(super) fn bad(&self, key: &str, expected: &str) -> ModelError {
        ModelError::BadValue {
            file: PathBuf::from(self.file),
            key: self.path(key),
            value: self.values.get(key).unwrap_or(&Value::Null).to_string(),
            expected: expected.to_owned(),
        }
    }

    fn get(&self, key: &str, expected: &'static str) -> Result<&'a Value, ModelError> {
        self.values.get(key).ok_or_else(|| ModelError::MissingKey {
            file: PathBuf::from(self.file),
            key: self.path(key),
            expected,
        })
    }

    fn path(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}
