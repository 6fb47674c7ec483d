//! Typed access to the keys of a JSON file, with errors that name file and key.
//!
//! Null counts as missing in every file, as in transformers, which writes it for what was never set.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

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
#[derive(Clone)]
pub(crate) struct Keys<'a> {
    file: &'a Path,
    prefix: String,
    values: &'a Map<String, Value>,
    /// The name of an object beside this one, and what it holds: its values win.
    overriding: Option<(String, &'a Map<String, Value>)>,
    /// What is meant by keys that are not there.
    defaults: Option<&'a Map<String, Value>>,
    /// Whether an overriding object may leave out what the section says.
    lenient: bool,
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
                defaults: None,
                lenient: false,
            }),
            None => Err(ModelError::BadValue {
                file: PathBuf::from(file),
                key: ".".to_owned(),
                value: "no object".to_owned(),
                expected: "a JSON object".to_owned(),
            }),
        }
    }

    /// The same keys, where those that are not there mean what `defaults`, an object, says.
    pub(crate) fn with_defaults(mut self, defaults: &'static Value) -> Self {
        self.defaults = defaults.as_object();
        self
    }

    /// The same keys, where a default does not count as said by an overriding object that leaves a
    /// key out.
    pub(crate) fn without_overridden_default(&self) -> Self {
        Self {
            lenient: true,
            ..self.clone()
        }
    }

    /// An object inside this one, or an empty one where it is not there.
    pub(crate) fn section_or_empty(&self, key: &str) -> Result<Keys<'a>, ModelError> {
        static EMPTY: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
        let values = match set(self.values, key) {
            Some(value) => value.as_object(),
            None => Some(&*EMPTY),
        };
        Ok(Keys {
            file: self.file,
            prefix: self.path(key) + ".",
            values: values.ok_or_else(|| self.bad(key, "an object"))?,
            overriding: None,
            defaults: None,
            lenient: false,
        })
    }

    /// An object inside this one.
    ///
    /// Where there is a `{key}_dict` beside it, as in files from before 2023, transformers lets its
    /// values win, and where it leaves a key out, the default. Here both must agree on every key
    /// that is read: which of two different values the weights were trained with, nobody can tell.
    pub(crate) fn section(&self, key: &str) -> Result<Keys<'a>, ModelError> {
        let mut section = self.section_or_empty(key)?;
        let overriding = format!("{key}_dict");
        if self.is_set(&overriding) {
            let values = self.section_or_empty(&overriding)?.values;
            section.overriding = Some((self.path(&overriding), values));
        }
        Ok(section)
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

    /// Three numbers, or one for all three.
    pub(crate) fn triple(&self, key: &str) -> Result<[f64; 3], ModelError> {
        let expected = "a number, or three, red first";
        let numbers: Option<Vec<f64>> = match self.get(key, expected)? {
            Value::Array(numbers) => numbers.iter().map(Value::as_f64).collect(),
            number => number.as_f64().map(|number| vec![number; 3]),
        };
        let numbers = numbers.and_then(|numbers| numbers.try_into().ok());
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
        let default = self.defaults.and_then(|defaults| set(defaults, key));
        let value = set(self.values, key);
        let Some((name, values)) = &self.overriding else {
            let value = value.or(default);
            return value.ok_or_else(|| self.missing(key, expected));
        };
        let default = default.filter(|_| !self.lenient || value.is_none());
        match (value, set(values, key).or(default)) {
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
