//! What `--model` names: a folder, or a model on a hub, which is downloaded when it is not here.

use std::{
    ffi::OsStr,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use encoders::{Model, RunOptions};
use hub::{Commit, Event, HubError, RepoName, Revision, Settings, Snapshot};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::{args::Places, output};

/// What a wrong name may have meant, besides folders nearby. Those of the README.
const RECOMMENDED: [&str; 7] = [
    "openai/clip-vit-base-patch32",
    "openai/clip-vit-large-patch14",
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    "laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K",
    "google/siglip-base-patch16-224",
    "google/siglip2-base-patch16-224",
    "google/siglip2-so400m-patch14-384",
];
/// How alike two names are when one may be a slip of the other, 0 to 1.
const ALIKE: f64 = 0.6;

/// A model that was found.
#[derive(Debug)]
pub enum Named {
    /// The one in the binary.
    Builtin,
    /// One in a folder.
    Folder(PathBuf),
    /// One of a hub.
    Hub(Snapshot),
}

/// What a name means, as far as that is known without a network.
enum Meant {
    Here(Named),
    Hub(RepoName, Option<Revision>),
}

/// Checks that a model can be meant, without looking for it on a hub.
///
/// # Errors
/// When its name is neither a folder nor that of a model on a hub.
pub fn check(places: &Places) -> Result<()> {
    said(places).map(drop)
}

fn said(places: &Places) -> Result<Meant> {
    // An empty variable in the environment names nothing.
    let Some(value) = places.model.as_deref().filter(|value| !value.is_empty()) else {
        if let Some(revision) = &places.revision {
            bail!("--revision {revision} is of a model on a hub: name it with --model OWNER/NAME");
        }
        return Ok(Meant::Here(Named::Builtin));
    };
    let path = Path::new(value);
    if path.is_dir() {
        if let Some(revision) = &places.revision {
            bail!(
                "--revision {revision} is of a model on a hub, but {} is a folder",
                path.display()
            );
        }
        return Ok(Meant::Here(Named::Folder(path.to_owned())));
    }
    if path.is_file() {
        bail!(
            "--model {} is a file, expected a folder or OWNER/NAME of a model on a hub",
            path.display()
        );
    }
    let (repo, revision) = parse(value, places.revision.as_deref())?;
    Ok(Meant::Hub(repo, revision))
}

impl Named {
    /// Finds the model, and downloads it where it is on a hub and not here.
    ///
    /// # Errors
    /// When there is none of this name, or it is not to be had.
    pub fn find(places: &Places) -> Result<Self> {
        let (repo, revision) = match said(places)? {
            Meant::Here(named) => return Ok(named),
            Meant::Hub(repo, revision) => (repo, revision),
        };
        let settings = Settings::from_env(places.offline)?;
        let mut show = Show::new(&repo, revision.as_ref(), &settings);
        // With its causes, which a text of the first alone would lose.
        let usable = |folder: &Path| {
            encoders::check_files(folder).map_err(|e| format!("{:#}", anyhow::Error::from(e)))
        };
        let found = hub::fetch(&settings, &repo, revision.as_ref(), &usable, &mut |event| {
            show.event(&event);
        });
        show.end();
        match found {
            Ok(snapshot) => Ok(Self::Hub(snapshot)),
            Err(error @ (HubError::NoModel { .. } | HubError::NotShown { .. })) => {
                Err(nothing(repo.as_str(), &error))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the model. One that was never verified is verified first, so that a precision can be
    /// chosen and every later start be checked; and so is one that is new to this CPU or version.
    ///
    /// # Errors
    /// When its files are not usable, or the self-check fails.
    pub fn load(&self, options: RunOptions) -> Result<Model> {
        if let Some(folder) = self.folder()
            && encoders::wants_verification(folder, options).unwrap_or(false)
            && let Err(error) = self.verify()
        {
            let without = if encoders::has_probes(folder).unwrap_or(false) {
                "it could not be kept which precisions pass on this CPU, so that they are tried at \
                 every start"
            } else {
                "the model could not be verified, so that it runs in f32 unless --precision says \
                 otherwise, and without a self-check"
            };
            output::note(&format!("{without}: {error:#}"));
        }
        match self {
            Self::Builtin => {
                Model::builtin_with(options).context("the built-in model cannot be used")
            }
            Self::Folder(folder) => Model::load_with(folder, options)
                .with_context(|| format!("the model in {} cannot be used", folder.display())),
            Self::Hub(Snapshot {
                folder,
                repo,
                commit,
            }) => Model::load_named(folder, repo.as_str(), options)
                .with_context(|| format!("the model {repo} at {commit} cannot be used")),
        }
    }

    /// Writes what the reference network makes of some inputs into the folder, and which precisions of
    /// this CPU are near it.
    ///
    /// # Errors
    /// When the files are not usable, or the folder cannot be written to.
    pub fn verify(&self) -> Result<()> {
        let (Self::Folder(folder) | Self::Hub(Snapshot { folder, .. })) = self else {
            return Ok(());
        };
        output::note(
            "verifying the model, once: its embeddings of a few inputs, and which precisions of this CPU are near \
             them, go into diptych.json",
        );
        let own = folder
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let name = match self {
            Self::Hub(snapshot) => snapshot.repo.as_str().to_owned(),
            _ => own.unwrap_or_else(|| "model".to_owned()),
        };
        Ok(encoders::verify(folder, &name)?)
    }

    /// The folder of the model; the built-in one has none.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Builtin => None,
            Self::Folder(folder) | Self::Hub(Snapshot { folder, .. }) => Some(folder),
        }
    }

    /// What exactly was taken from a hub.
    pub fn commit(&self) -> Option<&Commit> {
        match self {
            Self::Hub(snapshot) => Some(&snapshot.commit),
            Self::Builtin | Self::Folder(_) => None,
        }
    }
}

/// `owner/name` or `owner/name@revision`.
fn parse(value: &OsStr, revision: Option<&str>) -> Result<(RepoName, Option<Revision>)> {
    let value = value.to_string_lossy();
    let (name, within) = match value.split_once('@') {
        Some((name, revision)) => (name, Some(revision)),
        None => (&*value, None),
    };
    if let (Some(within), Some(revision)) = (within, revision)
        && within != revision
    {
        bail!("--model {value} and --revision {revision} name two revisions: name one");
    }
    let repo = name.parse().map_err(|error| nothing(name, &error))?;
    let revision = within.or(revision).map(str::parse).transpose()?;
    Ok((repo, revision))
}

/// A name that is neither a folder's nor a model's.
fn nothing(name: &str, error: &HubError) -> anyhow::Error {
    anyhow!("there is no folder {name} here, and {error}{}", meant(name))
}

/// What a name that names nothing may have meant, in words, or nothing.
fn meant(value: &str) -> String {
    let path = Path::new(value);
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let beside = parent.unwrap_or(Path::new("."));
    let folders = fs_err::read_dir(beside).into_iter().flatten().flatten();
    let folders = folders
        .filter(|entry| entry.path().is_dir())
        .map(|entry| match parent {
            Some(parent) => parent.join(entry.file_name()).display().to_string(),
            None => entry.file_name().to_string_lossy().into_owned(),
        });
    let alike = |candidate: &str| {
        let (a, b) = (value.to_lowercase(), candidate.to_lowercase());
        let whole = strsim::normalized_damerau_levenshtein(&a, &b);
        // Somebody may have left the owner out.
        let name = b.rsplit('/').next().filter(|_| !a.contains('/'));
        name.map_or(whole, |name| {
            whole.max(strsim::normalized_damerau_levenshtein(&a, name))
        })
    };
    let all = folders.chain(RECOMMENDED.map(str::to_owned));
    let best = all
        .map(|name| (alike(&name), name))
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match best {
        Some((likeness, name)) if likeness >= ALIKE && name != value => {
            format!("; did you mean {name}?")
        }
        _ => String::new(),
    }
}

/// Shows what happens on standard error, and a bar where that is a terminal.
struct Show<'a> {
    repo: &'a RepoName,
    named: &'a str,
    settings: &'a Settings,
    bar: Option<ProgressBar>,
}

impl<'a> Show<'a> {
    fn new(repo: &'a RepoName, revision: Option<&'a Revision>, settings: &'a Settings) -> Self {
        let named = revision.map_or("main", Revision::as_str);
        Self {
            repo,
            named,
            settings,
            bar: None,
        }
    }

    fn event(&mut self, event: &Event<'_>) {
        let repo = self.repo;
        match event {
            Event::Unchecked { commit, endpoint, reason } => self.note(&format!(
                "warning: {endpoint} could not be asked for {} of {repo} ({reason}); going on with {} from \
                 the cache, as it was the last time",
                self.named,
                commit.short(),
            )),
            Event::Moved { revision, from, to } => self.note(&format!(
                "{revision} of {repo} has moved from {} to {}; --revision {from} keeps what it was",
                from.short(),
                to.short(),
            )),
            Event::Converted { revision } => self.note(&format!(
                "{repo} has no safetensors; taking the conversion by the hub itself, revision {revision}"
            )),
            Event::Begins { commit, total_bytes, have_bytes } => {
                self.note(&format!(
                    "downloading {repo} at {commit}, {} into {}",
                    HumanBytes(total_bytes - have_bytes),
                    self.settings.cache.display(),
                ));
                self.bar = Some(bar(*total_bytes, *have_bytes));
            }
            Event::Waits { file } => self.note(&format!("another process downloads {file}; waiting for it")),
            Event::GoesOn { file, at_bytes } => self.note(&format!(
                "the connection was lost at {} of {file}; going on",
                HumanBytes(*at_bytes)
            )),
            Event::Has { bytes } => {
                if let Some(bar) = &self.bar {
                    bar.set_position(*bytes);
                }
            }
            _ => self.end(),
        }
    }

    /// A bar that is drawn would be torn by a line.
    fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::note(text)),
            None => output::note(text),
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn bar(total_bytes: u64, have_bytes: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{msg:20} [{bar:30}] {bytes}/{total_bytes}  {binary_bytes_per_sec}  {eta} left";
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(total_bytes).with_style(style.progress_chars("=> "));
    bar.set_message("downloading");
    // The rate is that of what comes.
    bar.with_position(have_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(value: &str, revision: Option<&str>) -> Result<(String, Option<String>)> {
        let (repo, revision) = parse(value.as_ref(), revision)?;
        Ok((
            repo.to_string(),
            revision.map(|revision| revision.to_string()),
        ))
    }

    #[test]
    fn a_revision_stands_in_the_name_or_beside_it() {
        let expected = ("a/b".to_owned(), Some("refs/pr/1".to_owned()));
        assert_eq!(parsed("a/b@refs/pr/1", None).expect("parses"), expected);
        assert_eq!(parsed("a/b", Some("refs/pr/1")).expect("parses"), expected);
        assert_eq!(
            parsed("a/b@refs/pr/1", Some("refs/pr/1")).expect("parses"),
            expected
        );
        assert_eq!(parsed("a/b", None).expect("parses").1, None);
        assert!(parsed("a/b@v1", Some("v2")).is_err());
        assert!(parsed("a/b@", None).is_err());
        assert!(parsed("a", None).is_err());
    }

    #[test]
    fn a_slip_is_told_from_a_name_that_is_unlike_all() {
        for (slip, right) in [
            (
                "openai/clip-vit-base-path32",
                "openai/clip-vit-base-patch32",
            ),
            (
                "OpenAI/CLIP-vit-large-patch14",
                "openai/clip-vit-large-patch14",
            ),
            (
                "siglip2-base-patch16-224",
                "google/siglip2-base-patch16-224",
            ),
        ] {
            assert_eq!(meant(slip), format!("; did you mean {right}?"));
        }
        assert_eq!(meant("somebody/something-else"), "");
    }
}
