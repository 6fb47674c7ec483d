//! Layers of settings: defaults, a TOML file, the environment, flags; each goes before the one that
//! it stands upon. What is set must be there among the defaults, so that a slip of the pen is told.
//!
//! Over 400 lines only with its tests.

use std::{collections::BTreeMap, ffi::OsString, fmt, path::PathBuf};

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use toml::{Table, Value};

/// How the names of variables begin.
const PREFIX: &str = "DIPTYCH_";

/// Names the file of settings, and is none of them.
pub const CONFIG: &str = "DIPTYCH_CONFIG";

/// Likeness from which an unknown name is taken for a slip of the pen.
const ALIKE: f64 = 0.75;

/// Letters from which the beginning of a name is taken for it, as `cert` for `certificate`.
const BEGUN: usize = 3;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The default.
    Default,
    /// The file.
    File(PathBuf),
    /// A variable.
    Variable(String),
    /// A flag.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// Why settings cannot be read.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// The file is no TOML.
    #[error("{} is not valid TOML", file.display())]
    Toml {
        /// The file.
        file: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// Nothing has this name.
    #[error("{origin}: there is no setting {name}{}", meant.as_ref().map_or_else(String::new, |m| format!(", did you mean {m}?")))]
    Unknown {
        /// Where it stands.
        origin: Origin,
        /// The name as it stands there.
        name: String,
        /// What is nearly called so.
        meant: Option<String>,
    },
    /// A value of a wrong kind or out of its range.
    #[error("{origin}: {key} is {value}: {reason}")]
    Value {
        /// Where it stands.
        origin: Origin,
        /// The key, with dots.
        key: String,
        /// The value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Settings upon each other.
#[derive(Debug, Clone)]
pub struct Layers {
    values: Table,
    origins: BTreeMap<String, Origin>,
    /// Variables that may be meant for us, and name nothing.
    pub ignored: Vec<String>,
}

impl Layers {
    /// The defaults, of which everything that can be set has one.
    ///
    /// # Errors
    /// When they are no table, or have a number that TOML does not.
    pub fn new(defaults: &impl Serialize) -> Result<Self, toml::ser::Error> {
        let values = Table::try_from(defaults)?;
        let mut keys = Vec::new();
        leaves("", &values, &mut |key, _| keys.push(key.to_owned()));
        Ok(Self {
            values,
            origins: keys.into_iter().map(|k| (k, Origin::Default)).collect(),
            ignored: Vec::new(),
        })
    }

    /// Lays the contents of a file on top.
    ///
    /// # Errors
    /// When they are no TOML, or set what there is not.
    pub fn file(&mut self, path: &std::path::Path, text: &str) -> Result<(), SettingsError> {
        let table: Table = text.parse().map_err(|source| SettingsError::Toml {
            file: path.to_owned(),
            source: Box::new(source),
        })?;
        let origin = Origin::File(path.to_owned());
        let mut found = Vec::new();
        leaves("", &table, &mut |key, value| {
            found.push((key.to_owned(), value.clone()));
        });
        for (key, value) in found {
            self.set(&key, value, &origin)?;
        }
        Ok(())
    }

    /// Lays the variables `DIPTYCH_...` on top. Empty ones set nothing.
    ///
    /// # Errors
    /// When one sets what there is not, or a value that cannot be read.
    pub fn environment(
        &mut self,
        variables: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<(), SettingsError> {
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            if name == CONFIG || value.is_empty() {
                continue;
            }
            let origin = Origin::Variable(name.to_owned());
            let key = name[PREFIX.len()..].to_lowercase().replace("__", ".");
            let Some(default) = self.get(&key) else {
                let meant = self.meant(&key, key.contains('.'));
                let meant = meant.map(|key| variable(&key));
                let is_config = alike(&key, "config") >= ALIKE;
                let meant = meant.or_else(|| is_config.then(|| CONFIG.to_owned()));
                // The port is part of the address.
                let is_port = key == "port" && value.to_str().is_some_and(is_number);
                let meant = meant.or_else(|| is_port.then(|| variable("bind")));
                // What others call by our name, as Kubernetes does the addresses of services (its
                // DIPTYCH_PORT is tcp://...), is no mistake of the operator's.
                if meant.is_none() && !key.contains('.') {
                    self.ignored.push(name.to_owned());
                    continue;
                }
                let name = name.to_owned();
                return Err(SettingsError::Unknown {
                    origin: Origin::Variable("the environment".to_owned()),
                    name,
                    meant,
                });
            };
            let bad = |reason: &str| SettingsError::Value {
                origin: origin.clone(),
                key: key.clone(),
                value: format!("{:?}", value.to_string_lossy()),
                reason: reason.to_owned(),
            };
            let text = value.to_str().ok_or_else(|| bad("it is not UTF-8"))?;
            let value = from_text(default, text).map_err(|expected| bad(&expected))?;
            self.put(&key, value);
            self.origins.insert(key, origin);
        }
        Ok(())
    }

    /// Lays a flag on top; `None` where it is not given.
    ///
    /// # Errors
    /// When there is no such key.
    pub fn flag(
        &mut self,
        key: &str,
        value: Option<impl Into<Value>>,
    ) -> Result<(), SettingsError> {
        match value {
            Some(value) => self.set(key, value.into(), &Origin::Flag),
            None => Ok(()),
        }
    }

    /// What all layers come to.
    ///
    /// # Errors
    /// When a value is of a wrong kind.
    pub fn settle<T: DeserializeOwned>(&self) -> Result<T, SettingsError> {
        let values = Value::Table(self.values.clone());
        serde_path_to_error::deserialize(values).map_err(|error| {
            let key = error.path().to_string();
            // Of a list, the element is named, and where the list comes from is known.
            let (list, rest) = key.split_once('[').unwrap_or((&key, ""));
            let place = rest.split(']').next().and_then(|i| i.parse::<usize>().ok());
            let value = self.get(list);
            let value = place.map_or(value, |place| value?.get(place));
            SettingsError::Value {
                origin: self.origin(list),
                value: value.map_or_else(String::new, Value::to_string),
                reason: error.inner().message().trim().to_owned(),
                key,
            }
        })
    }

    /// Every key with its value as TOML, and where it comes from, in the order of the keys.
    pub fn all(&self) -> Vec<(String, Value, Origin)> {
        let mut all = Vec::new();
        leaves("", &self.values, &mut |key, value| {
            all.push((key.to_owned(), value.clone(), self.origin(key)));
        });
        all
    }

    /// Where the value of a key comes from.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    fn set(&mut self, key: &str, value: Value, origin: &Origin) -> Result<(), SettingsError> {
        match self.get(key) {
            None => Err(SettingsError::Unknown {
                origin: origin.clone(),
                name: key.to_owned(),
                meant: self.meant(key, true),
            }),
            // A section without anything in it.
            Some(Value::Table(_)) if value.is_table() => Ok(()),
            Some(Value::Table(_)) => Err(SettingsError::Value {
                origin: origin.clone(),
                key: key.to_owned(),
                value: value.to_string(),
                reason: format!("expected a section [{key}]"),
            }),
            Some(_) => {
                self.put(key, value);
                self.origins.insert(key.to_owned(), origin.clone());
                Ok(())
            }
        }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        let (mut table, mut parts) = (&self.values, key.split('.').peekable());
        while let Some(part) = parts.next() {
            let value = table.get(part)?;
            if parts.peek().is_none() {
                return Some(value);
            }
            table = value.as_table()?;
        }
        None
    }

    fn put(&mut self, key: &str, value: Value) {
        let (folder, name) = key.rsplit_once('.').unwrap_or(("", key));
        let mut table = &mut self.values;
        for part in folder.split('.').filter(|part| !part.is_empty()) {
            let Some(Value::Table(inner)) = table.get_mut(part) else {
                return;
            };
            table = inner;
        }
        table.insert(name.to_owned(), value);
    }

    /// The key that is nearly called so, if one is; with `within`, in whatever section.
    fn meant(&self, key: &str, within: bool) -> Option<String> {
        let last = |key: &str| key.rsplit('.').next().unwrap_or(key).to_owned();
        let likeness = |known: &String| {
            let whole = alike(key, known);
            let is_begun = last(key).len() >= BEGUN && known.starts_with(key);
            // Somebody may have put it into another section, or into none; of what names none, as
            // variables of others do, only the whole is compared.
            if within {
                let begun = if is_begun { ALIKE } else { 0.0 };
                whole.max(alike(&last(key), &last(known))).max(begun)
            } else {
                whole
            }
        };
        let all = self.origins.keys().map(|known| (likeness(known), known));
        let (likeness, best) = all.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
        (likeness >= ALIKE).then(|| best.clone())
    }
}

/// How alike two names are, 0 to 1.
fn alike(a: &str, b: &str) -> f64 {
    strsim::normalized_damerau_levenshtein(a, b)
}

fn is_number(text: &str) -> bool {
    text.trim().parse::<u64>().is_ok()
}

/// The variable that sets a key.
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

/// Calls `found` with every value that is no section. An empty section has none.
fn leaves(prefix: &str, table: &Table, found: &mut impl FnMut(&str, &Value)) {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        match value {
            Value::Table(inner) if !inner.is_empty() => leaves(&key, inner, found),
            value => found(&key, value),
        }
    }
}

/// Reads a value of the kind that the default is of; of a list, what stands between commas, numbers as
/// numbers.
fn from_text(default: &Value, text: &str) -> Result<Value, String> {
    let text = text.trim();
    let bad = |expected: &str| Err(format!("expected {expected}"));
    Ok(match default {
        Value::Boolean(_) => match text {
            "true" | "1" => Value::Boolean(true),
            "false" | "0" => Value::Boolean(false),
            _ => return bad("true or false"),
        },
        Value::Integer(_) => match text.replace('_', "").parse() {
            Ok(number) => Value::Integer(number),
            Err(_) => return bad("a whole number"),
        },
        Value::Float(_) => match text.parse() {
            Ok(number) => Value::Float(number),
            Err(_) => return bad("a number"),
        },
        Value::Array(_) => {
            let parts = text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty());
            let part = |part: &str| part.parse().map_or_else(|_| part.into(), Value::Integer);
            Value::Array(parts.map(part).collect())
        }
        Value::Table(_) => return bad("no value: this is a section"),
        _ => Value::String(text.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct All {
        bind: String,
        names: Vec<String>,
        limits: Inner,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        body_bytes: u32,
        share: f64,
        open: bool,
    }

    fn layers() -> Layers {
        let limits = Inner {
            body_bytes: 7,
            share: 0.5,
            open: false,
        };
        let (bind, names) = ("here".to_owned(), Vec::new());
        Layers::new(&All {
            bind,
            names,
            limits,
        })
        .expect("a table")
    }

    fn environment(layers: &mut Layers, name: &str, value: &str) -> Result<(), SettingsError> {
        layers.environment([(name.into(), value.into())].into_iter())
    }

    #[test]
    fn each_layer_goes_before_the_one_below_it_and_leaves_the_rest() {
        let mut layers = layers();
        layers
            .file(Path::new("f"), "[limits]")
            .expect("sets nothing");
        let text = "bind = 'file'\nnames = ['a']\n[limits]\nbody_bytes = 8\nshare = 0.25\n";
        layers.file(Path::new("f"), text).expect("is read");
        environment(&mut layers, "DIPTYCH_LIMITS__BODY_BYTES", "9").expect("is read");
        environment(&mut layers, "DIPTYCH_NAMES", "b, c").expect("is read");
        environment(&mut layers, "DIPTYCH_BIND", "").expect("sets nothing");
        layers.flag("limits.open", Some(true)).expect("is there");
        layers.flag("bind", None::<String>).expect("sets nothing");
        let all: All = layers.settle().expect("fits");
        assert_eq!(
            (all.bind.as_str(), all.names),
            ("file", vec!["b".into(), "c".into()])
        );
        assert_eq!((all.limits.body_bytes, all.limits.open), (9, true));
        assert_eq!(layers.origin("limits.share"), Origin::File("f".into()));
        assert_eq!(layers.origin("limits.open"), Origin::Flag);
    }

    #[test]
    fn an_unknown_key_is_refused_with_what_was_meant() {
        let refused = |text| {
            let refused = layers().file(Path::new("d.toml"), text);
            refused.expect_err(text).to_string()
        };
        let typo = refused("[limits]\nbody_byts = 8");
        assert!(
            typo.contains("d.toml") && typo.contains("limits.body_byts"),
            "{typo}"
        );
        assert!(typo.contains("did you mean limits.body_bytes?"), "{typo}");
        let outside = refused("body_bytes = 8");
        assert!(
            outside.contains("did you mean limits.body_bytes?"),
            "{outside}"
        );
        assert!(!refused("nothing_alike_at_all = 1").contains("mean"));
        let begun = refused("[limits]\nbody = 8");
        assert!(begun.contains("did you mean limits.body_bytes?"), "{begun}");
        assert!(refused("limits = 3").contains("a section [limits]"));
        assert!(refused("[bind]\na = 3").contains("bind.a"));
        assert!(refused("a = = 3").contains("d.toml"));
    }

    #[test]
    fn a_variable_with_a_slip_of_the_pen_is_refused_and_one_of_others_is_not() {
        let mut layers = layers();
        let typo = environment(&mut layers, "DIPTYCH_LIMITS__BODY_BYTE", "1").expect_err("a typo");
        assert!(
            typo.to_string().contains("DIPTYCH_LIMITS__BODY_BYTES"),
            "{typo}"
        );
        assert!(environment(&mut layers, "DIPTYCH_X__Y", "1").is_err());
        let file = environment(&mut layers, "DIPTYCH_CONFG", "a.toml").expect_err("a typo");
        assert!(file.to_string().contains("mean DIPTYCH_CONFIG?"), "{file}");
        environment(&mut layers, "DIPTYCH_SERVICE_HOST", "10.0.0.1").expect("is another's");
        environment(&mut layers, "DIPTYCH_PORT", "tcp://10.0.0.1:7700").expect("is another's");
        assert_eq!(layers.ignored, ["DIPTYCH_SERVICE_HOST", "DIPTYCH_PORT"]);
        let port = environment(&mut layers, "DIPTYCH_PORT", "7701").expect_err("a port");
        assert!(port.to_string().contains("mean DIPTYCH_BIND?"), "{port}");
        let word = environment(&mut layers, "DIPTYCH_LIMITS__OPEN", "perhaps").expect_err("a word");
        assert!(word.to_string().contains("true or false"), "{word}");
    }

    #[test]
    fn a_value_of_a_wrong_kind_is_told_with_its_key_and_where_it_stands() {
        let mut layers = layers();
        let text = "[limits]\nbody_bytes = 'many'";
        layers.file(Path::new("d.toml"), text).expect("is TOML");
        let refused = layers.settle::<All>().expect_err("no number").to_string();
        for part in ["d.toml", "limits.body_bytes", "many"] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
        let mut layers = layers.clone();
        layers
            .file(Path::new("d.toml"), "names = [1]\n[limits]\nbody_bytes = 3")
            .expect("is TOML");
        let refused = layers.settle::<All>().expect_err("no text").to_string();
        assert!(
            refused.contains("names[0] is 1: ") && refused.contains("d.toml"),
            "{refused}"
        );
    }
}
