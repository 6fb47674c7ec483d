//! Everything that can be set, in one tree: in a TOML file, by variables, by flags.
//! `diptych.example.toml` has all of it, with its defaults and in words.

pub mod layers;

use std::{
    fmt::Display,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result, anyhow};
use encoders::{Place, PrecisionChoice};
use engine::EngineConfig;
use fs_err as fs;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use server::{Limits, ServerConfig, TlsFiles, UrlConfig};

use self::layers::Layers;
use crate::telemetry::TelemetrySettings;

/// Everything that can be set. An empty text stands for a default that depends on the machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The data folder.
    pub data: PathBuf,
    /// A model folder or the name of a model.
    pub model: String,
    /// How weights are stored.
    pub precision: String,
    /// What computes the towers.
    pub device: String,
    /// Where `serve` listens.
    #[serde(deserialize_with = "address")]
    pub bind: SocketAddr,
    /// See [`ServerConfig::insecure`].
    pub insecure: bool,
    /// See [`ServerConfig::hosts`].
    pub hosts: Vec<String>,
    /// See [`ServerConfig::cors`].
    pub cors: Vec<String>,
    /// Where snapshots are kept.
    pub snapshots: PathBuf,
    /// Folders whose pictures may be shown, beside those that were indexed.
    pub media_roots: Vec<PathBuf>,
    /// See [`ServerConfig::workers`].
    pub workers: usize,
    /// See [`ServerConfig::shutdown_s`].
    pub shutdown_s: u64,
    /// Certificate and key.
    pub tls: TlsSettings,
    /// What is logged.
    pub log: LogSettings,
    /// Where traces go.
    pub telemetry: TelemetrySettings,
    /// See [`ServerConfig::urls`].
    pub urls: UrlConfig,
    /// How collections are indexed.
    pub index: IndexSettings,
    /// See [`Limits`].
    pub limits: Limits,
}

/// Certificate and key, both or none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// PEM file of the certificate, then of those that vouch for it.
    pub certificate: PathBuf,
    /// PEM file of the key.
    pub key: PathBuf,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// The form of a line.
    pub format: LogFormat,
    /// Which lines, as `RUST_LOG` says it.
    pub filter: String,
}

/// The form of a line of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// An object of JSON in each line.
    Json,
}

/// The part of the engine's settings that operators change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexSettings {
    /// See [`EngineConfig::target_recall`].
    pub target_recall: f64,
    /// See [`EngineConfig::most_ef_search`].
    pub most_ef_search: usize,
    /// See [`EngineConfig::audit_share`].
    pub audit_share: f64,
    /// See [`EngineConfig::seal_share`].
    pub seal_share: f64,
    /// See [`EngineConfig::index_memory_bytes`]; 0 for no limit.
    pub memory_bytes: u64,
    /// See [`EngineConfig::store_cache_bytes`].
    pub store_cache_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let (server, engine) = (ServerConfig::default(), EngineConfig::default());
        Self {
            data: PathBuf::new(),
            model: String::new(),
            precision: "auto".into(),
            device: "cpu".into(),
            bind: server.bind,
            insecure: server.insecure,
            hosts: server.hosts,
            cors: server.cors,
            snapshots: PathBuf::new(),
            media_roots: server.media_roots,
            workers: server.workers,
            shutdown_s: server.shutdown_s,
            tls: TlsSettings::default(),
            log: LogSettings {
                format: LogFormat::default(),
                filter: String::new(),
            },
            telemetry: TelemetrySettings::default(),
            urls: server.urls,
            index: IndexSettings {
                target_recall: engine.target_recall,
                most_ef_search: engine.most_ef_search,
                audit_share: engine.audit_share,
                seal_share: engine.seal_share,
                memory_bytes: engine.index_memory_bytes.unwrap_or_default(),
                store_cache_bytes: engine.store_cache_bytes,
            },
            limits: server.limits,
        }
    }
}

/// Reads the file, if one is named, and the environment.
///
/// # Errors
/// When one of both cannot be read, or sets what there is not.
pub fn read(file: Option<&Path>) -> Result<Layers> {
    let mut layers = Layers::new(&Settings::default())?;
    if let Some(file) = file {
        let text = fs::read_to_string(file).context("the configuration cannot be read")?;
        layers.file(file, &text)?;
    }
    layers.environment(std::env::vars_os())?;
    Ok(layers)
}

impl Settings {
    /// How weights are stored.
    ///
    /// # Errors
    /// When it is none of the ways that there are.
    pub fn precision(&self) -> Result<PrecisionChoice> {
        choice("precision", &self.precision)
    }

    /// What computes the towers.
    ///
    /// # Errors
    /// When it is no device.
    pub fn device(&self) -> Result<Place> {
        choice("device", &self.device)
    }

    /// The settings of the engine.
    ///
    /// # Errors
    /// When a value is out of its range.
    pub fn engine(&self) -> Result<EngineConfig> {
        let IndexSettings {
            target_recall,
            most_ef_search,
            audit_share,
            seal_share,
            memory_bytes,
            store_cache_bytes,
        } = self.index;
        let config = EngineConfig {
            target_recall,
            most_ef_search,
            audit_share,
            seal_share,
            index_memory_bytes: (memory_bytes > 0).then_some(memory_bytes),
            store_cache_bytes,
            ..EngineConfig::default()
        };
        config.validate().context("[index]")?;
        Ok(config)
    }

    /// The settings of the server, but for what lies in the data folder.
    ///
    /// # Errors
    /// When there is a certificate without a key, or the reverse.
    pub fn server(&self) -> Result<ServerConfig> {
        let TlsSettings { certificate, key } = self.tls.clone();
        let tls = match (certificate.as_os_str(), key.as_os_str()) {
            (certificate, key) if certificate.is_empty() != key.is_empty() => {
                let missing = if key.is_empty() {
                    "tls.key"
                } else {
                    "tls.certificate"
                };
                return Err(anyhow!("{missing} is missing: TLS needs both files"));
            }
            (certificate, _) if certificate.is_empty() => None,
            _ => Some(TlsFiles { certificate, key }),
        };
        Ok(ServerConfig {
            bind: self.bind,
            insecure: self.insecure,
            hosts: self.hosts.clone(),
            cors: self.cors.clone(),
            tls,
            urls: self.urls.clone(),
            limits: self.limits.clone(),
            media_roots: self.media_roots.clone(),
            workers: self.workers,
            shutdown_s: self.shutdown_s,
            ..ServerConfig::default()
        })
    }
}

/// An address with its port.
fn address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    let expected = "expected an address with its port, as \"127.0.0.1:7700\"";
    text.parse().map_err(|_| D::Error::custom(expected))
}

fn choice<T: FromStr<Err: Display>>(key: &str, text: &str) -> Result<T> {
    text.parse().map_err(|error| anyhow!("{key}: {error}"))
}

#[cfg(test)]
mod tests {
    use toml::{Table, Value};

    use super::*;

    const EXAMPLE: &str = include_str!("../../diptych.example.toml");

    #[test]
    fn the_example_has_every_default_and_nothing_else() {
        let example: Table = EXAMPLE.parse().expect("the example is TOML");
        let defaults = Table::try_from(Settings::default()).expect("a table");
        let flat = |table: &Table| {
            let mut all = Vec::new();
            for (name, value) in table {
                match value {
                    Value::Table(inner) => {
                        all.extend(
                            inner
                                .iter()
                                .map(|(k, v)| (format!("{name}.{k}"), v.clone())),
                        );
                    }
                    value => all.push((name.clone(), value.clone())),
                }
            }
            all.sort_by(|(a, _), (b, _)| a.cmp(b));
            all
        };
        assert_eq!(flat(&example), flat(&defaults));
    }

    #[test]
    fn every_setting_of_the_example_is_explained() {
        let mut explained = false;
        for line in EXAMPLE.lines() {
            let is_setting = line.contains(" = ") && !line.starts_with('#');
            assert!(!is_setting || explained, "nothing is said about {line}");
            explained = line.starts_with("# ");
        }
    }

    #[test]
    fn settings_reach_the_engine_and_the_server() {
        let mut layers = Layers::new(&Settings::default()).expect("a table");
        let text = "bind = '127.0.0.1:1'\nhosts = ['a.example']\n[index]\nmemory_bytes = 5\n\
                    [limits]\nk = 3\n";
        layers.file(Path::new("f"), text).expect("is read");
        let settings: Settings = layers.settle().expect("fits");
        let server = settings.server().expect("fits");
        let engine = settings.engine().expect("fits");
        assert_eq!((server.bind.port(), server.limits.k), (1, 3));
        assert_eq!(
            (server.hosts.len(), engine.index_memory_bytes),
            (1, Some(5))
        );
        let usual = Settings::default().engine().expect("fits");
        assert_eq!(usual.index_memory_bytes, None);
    }

    #[test]
    fn tls_needs_both_files() {
        let mut half = Settings::default();
        half.tls.key = "key.pem".into();
        let refused = half.server().expect_err("there is no certificate");
        assert!(refused.to_string().contains("tls.certificate"), "{refused}");
    }
}
