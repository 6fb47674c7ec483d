//! Where things are: the data folder, the model, the collections.

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use encoders::Model;
use engine::{Collection, Engine, EngineConfig, EngineError, SnapshotInfo, store::StoreError};

use crate::{args::Places, named::Named};

/// Collections of a damaged store for which a command is shown.
const MOST_ADVICE: usize = 10;

/// The data folder: `store/` is the engine's, `gallery/` holds the pictures of the demo.
#[derive(Debug)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// The data folder that was named, or the platform's. Nothing is touched yet.
    ///
    /// # Errors
    /// When none was named and the platform's cannot be told.
    pub fn new(places: &Places) -> Result<Self> {
        // An empty variable in the environment names nothing.
        let named = places
            .data
            .as_deref()
            .filter(|dir| !dir.as_os_str().is_empty());
        let root = match named {
            Some(dir) => dir.to_owned(),
            None => platform_data_dir()
                .context("no home folder is known; name a data folder with --data DIR")?,
        };
        Ok(Self {
            root: std::path::absolute(root)?,
        })
    }

    /// The folder itself, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the pictures of the demo are.
    pub fn gallery(&self) -> PathBuf {
        self.root.join("gallery")
    }

    /// Where snapshots are that were asked for over HTTP: of each collection in a folder of its
    /// own.
    pub fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// The API keys.
    pub fn keys(&self) -> PathBuf {
        self.root.join("keys.json")
    }

    /// The log of administrative actions.
    pub fn audit(&self) -> PathBuf {
        self.root.join("audit.jsonl")
    }

    /// Opens the store to write, and makes it where there is none.
    ///
    /// # Errors
    /// When the folder cannot be used, or another process uses it.
    pub fn open_or_create(&self) -> Result<Engine> {
        self.open_or_create_with(EngineConfig::default())
    }

    /// The same with other settings of the engine.
    ///
    /// # Errors
    /// When the folder cannot be used, another process uses it, or a setting is out of its range.
    pub fn open_or_create_with(&self, config: EngineConfig) -> Result<Engine> {
        fs_err::create_dir_all(&self.root).context("the data folder cannot be made")?;
        self.open(config)
    }

    /// Opens the store to read.
    ///
    /// # Errors
    /// When there is none, it cannot be read, or another process uses it.
    pub fn open_existing(&self) -> Result<Engine> {
        self.open_existing_with(EngineConfig::default())
    }

    /// The same with other settings of the engine.
    ///
    /// # Errors
    /// As for [`Home::open_existing`], or when a setting is out of its range.
    pub fn open_existing_with(&self, config: EngineConfig) -> Result<Engine> {
        if !self.store().is_dir() {
            bail!(
                "nothing is indexed in {} yet: run `diptych index PATH` first",
                self.root.display()
            );
        }
        self.open(config)
    }

    fn open(&self, config: EngineConfig) -> Result<Engine> {
        Engine::open(&self.store(), config).map_err(|error| match error {
            EngineError::Locked { .. } => anyhow::Error::new(error).context(
                "another diptych process uses this data folder; \
                 ask it over HTTP (see the README), stop it, or name another folder with --data",
            ),
            error => {
                let what = format!("the data folder {} cannot be opened", self.root.display());
                let is_damaged = matches!(
                    error,
                    EngineError::Store(StoreError::CannotOpen { .. } | StoreError::Damaged { .. })
                        | EngineError::DamagedCollection { .. }
                );
                let what = if is_damaged {
                    format!("{what}, its store is damaged; {}", self.way_out())
                } else {
                    what
                };
                anyhow::Error::new(error).context(what)
            }
        })
    }

    /// What to do about a damaged store, in words.
    fn way_out(&self) -> String {
        let newest = newest_snapshots(&self.snapshots());
        if newest.is_empty() {
            return format!("there is no snapshot in {}", self.snapshots().display());
        }
        let mut aside = self.root.clone().into_os_string();
        aside.push("-restored");
        let commands: Vec<String> = newest
            .into_iter()
            .take(MOST_ADVICE)
            .map(|(path, info)| {
                format!(
                    "\n  diptych snapshot restore {} {} --data {}",
                    quoted(&path),
                    info.collection,
                    quoted(Path::new(&aside))
                )
            })
            .collect();
        format!(
            "the newest snapshot of each collection can be restored into a new data folder:{}\n\
             what was found",
            commands.concat()
        )
    }

    fn store(&self) -> PathBuf {
        self.root.join("store")
    }
}

/// The model that was named, or the built-in one.
///
/// # Errors
/// When there is none of this name, or it is not usable.
pub fn model(places: &Places) -> Result<Model> {
    Named::find(places)?.load(places.run_options())
}

/// The collection `name`.
///
/// # Errors
/// When there is none.
pub fn find(engine: &Engine, name: &str) -> Result<Arc<Collection>> {
    if let Some(collection) = engine.collection(name) {
        return Ok(collection);
    }
    let names: Vec<String> = engine
        .collections()
        .iter()
        .map(|c| c.name().to_owned())
        .collect();
    match names.as_slice() {
        [] => bail!("there is no collection yet: run `diptych index PATH` first"),
        _ => bail!(
            "there is no collection {name:?}; there is {}",
            names.join(", ")
        ),
    }
}

/// The collection `name`, which `model` must have made.
///
/// # Errors
/// When there is none, or another model made it.
pub fn collection(engine: &Engine, name: &str, model: &Model) -> Result<Arc<Collection>> {
    let collection = find(engine, name)?;
    let (theirs, ours) = (collection.spaces(), model.spaces());
    if !theirs.same_model(ours) {
        bail!(
            "collection {name:?} was made by the model {} ({}), not by {} ({}): \
             name that model with --model, index into another collection, or have `diptych serve` \
             encode it again (POST /v1/collections/{name}/reencode)",
            theirs.model,
            theirs.fingerprint,
            ours.model,
            ours.fingerprint,
        );
    }
    Ok(collection)
}

/// The newest complete snapshot of each collection, in a folder or in folders in it. What cannot be
/// read is none.
fn newest_snapshots(folder: &Path) -> Vec<(PathBuf, SnapshotInfo)> {
    let within = fs_err::read_dir(folder).into_iter().flatten().flatten();
    let folders = within.map(|entry| entry.path()).chain([folder.to_owned()]);
    let mut all: Vec<_> = folders
        .filter_map(|folder| engine::list_snapshots(&folder).ok())
        .flatten()
        .collect();
    all.sort_by(|(a, x), (b, y)| {
        (&x.collection, y.made_at_ms, a).cmp(&(&y.collection, x.made_at_ms, b))
    });
    all.dedup_by(|(_, next), (_, kept)| next.collection == kept.collection);
    all
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

fn platform_data_dir() -> Option<PathBuf> {
    let absolute = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    let base = if cfg!(windows) {
        absolute("APPDATA")
    } else if cfg!(target_os = "macos") {
        absolute("HOME").map(|home| home.join("Library/Application Support"))
    } else {
        absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|h| h.join(".local/share")))
    };
    base.map(|base| base.join("diptych"))
}
