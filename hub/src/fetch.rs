//! From a name to a folder.

use std::path::{Path, PathBuf};

use crate::{
    HubError, Settings,
    cache::Cache,
    download::{Download, Step, Wanted},
    files,
    name::{Commit, RepoName, Revision},
    parts,
    wire::{Listing, Wire},
};

/// A model that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder with its files.
    pub folder: PathBuf,
    /// Its name.
    pub repo: RepoName,
    /// What the files are.
    pub commit: Commit,
}

/// What a caller may want to show.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The hub did not say what the revision is now; what it was the last time is used.
    Unchecked {
        /// That.
        commit: &'a Commit,
        /// The hub.
        endpoint: &'a str,
        /// Why.
        reason: &'a str,
    },
    /// The revision is no longer what it was, and the new files are fetched.
    Moved {
        /// The revision.
        revision: &'a Revision,
        /// What it was.
        from: &'a Commit,
        /// What it is.
        to: &'a Commit,
    },
    /// The model has no weights that are read, but the hub has converted them in this pull request.
    Converted {
        /// The pull request, as a revision.
        revision: &'a Revision,
    },
    /// Files will be downloaded.
    Begins {
        /// What they are.
        commit: &'a Commit,
        /// Their size together.
        total_bytes: u64,
        /// Of it, what is here already.
        have_bytes: u64,
    },
    /// Another process downloads this file.
    Waits {
        /// The file.
        file: &'a str,
    },
    /// The connection broke, and the download goes on.
    GoesOn {
        /// The file.
        file: &'a str,
        /// From where.
        at_bytes: u64,
    },
    /// This many bytes of all files are here.
    Has {
        /// Of `total_bytes`.
        bytes: u64,
    },
    /// All files are here.
    Ends,
}

/// Makes a model be here: finds out what the revision (`main` if none is named) is, and downloads
/// what is missing of it. `watch` hears what happens. `check` is given the folder when all is in it but the
/// weights, and may refuse what they would be loaded for.
///
/// Without a connection what was here the last time is used; a commit that is here is used without a
/// question. Where `main` has no safetensors and no revision was named, the conversion by the hub
/// itself is used.
///
/// # Errors
/// When the model, the revision or a file of it is not to be had; see [`HubError`].
pub fn fetch(
    settings: &Settings,
    repo: &RepoName,
    revision: Option<&Revision>,
    check: &dyn Fn(&Path) -> Result<(), String>,
    watch: &mut dyn FnMut(Event<'_>),
) -> Result<Snapshot, HubError> {
    let cache = Cache::new(&settings.cache, repo);
    let named = revision.cloned().unwrap_or_else(Revision::main);
    let snapshot = |commit: Commit| Snapshot {
        folder: cache.snapshot(&commit),
        repo: repo.clone(),
        commit,
    };
    let here = || {
        let commit = named.commit().or_else(|| cache.reference(&named));
        let commit = commit.filter(|commit| cache.is_complete(commit));
        commit.or_else(|| cache.pull_request().filter(|_| revision.is_none()))
    };
    let here = here();
    if settings.offline || named.commit().is_some() {
        match here {
            Some(commit) => return Ok(snapshot(commit)),
            None if settings.offline => {
                return Err(HubError::NotCached {
                    repo: repo.clone(),
                    revision: named,
                    cache: settings.cache.clone(),
                });
            }
            None => {}
        }
    }
    let wire = Wire::new(settings, repo);
    let source = Source {
        settings,
        repo,
        wire: &wire,
        cache: &cache,
    };
    let found = match source.find(&named, revision.is_none()) {
        Ok(found) => found,
        Err(HubError::Unreachable { endpoint, reason }) => {
            let Some(commit) = here else {
                return Err(HubError::Unreachable { endpoint, reason });
            };
            watch(Event::Unchecked {
                commit: &commit,
                endpoint: &endpoint,
                reason: &reason,
            });
            return Ok(snapshot(commit));
        }
        Err(error) => return Err(error),
    };
    if found.revision != named {
        watch(Event::Converted {
            revision: &found.revision,
        });
    }
    if let Some(from) = here.filter(|from| *from != found.commit) {
        watch(Event::Moved {
            revision: &found.revision,
            from: &from,
            to: &found.commit,
        });
    }
    source.download(&found, check, watch)?;
    // The cache may be for reading only.
    let is_kept = cache.reference(&found.revision).as_ref() == Some(&found.commit);
    if found.revision.commit().is_none() && !is_kept {
        cache.set_reference(&found.revision, &found.commit)?;
    }
    Ok(snapshot(found.commit))
}

/// What the hub has for a name.
struct Found {
    revision: Revision,
    commit: Commit,
    files: Vec<String>,
}

/// A model on a hub, and where its files go.
struct Source<'a> {
    settings: &'a Settings,
    repo: &'a RepoName,
    wire: &'a Wire<'a>,
    cache: &'a Cache,
}

impl Source<'_> {
    fn find(&self, named: &Revision, may_be_converted: bool) -> Result<Found, HubError> {
        let Listing { commit, names } = self.wire.listing(named)?;
        let list = |name: &str| self.list(&commit, name);
        let problem = match files::needed(self.repo, &commit, &names, list) {
            Ok(files) => {
                return Ok(Found {
                    revision: named.clone(),
                    commit,
                    files,
                });
            }
            Err(problem) => problem,
        };
        if !may_be_converted || !matches!(problem, HubError::NoWeights { .. }) {
            return Err(problem);
        }
        // Not every hub has discussions; what is known already says more than their absence.
        let Ok(Some(revision)) = self.wire.conversion(&commit) else {
            return Err(problem);
        };
        let Listing { commit, names } = self.wire.listing(&revision)?;
        let list = |name: &str| self.list(&commit, name);
        let files = files::needed(self.repo, &commit, &names, list)?;
        Ok(Found {
            revision,
            commit,
            files,
        })
    }

    fn download_of<'a>(&'a self, commit: &'a Commit) -> Download<'a> {
        Download {
            settings: self.settings,
            wire: self.wire,
            cache: self.cache,
            commit,
        }
    }

    /// The contents of a list of parts, which goes to the cache before the sizes of all other files
    /// are known: a content that was not checked is of no use.
    fn list(&self, commit: &Commit, name: &str) -> Result<Vec<u8>, HubError> {
        if !self.cache.has(commit, name) {
            let about = self.wire.about(commit, name)?;
            parts::check_size(about.size, self.repo, commit, name)?;
            let wanted = Wanted {
                name: name.to_owned(),
                about,
            };
            self.cache.create()?;
            self.download_of(commit).run(&wanted, &mut |_| ())?;
        }
        self.cache.list(commit, name)
    }

    fn download(
        &self,
        found: &Found,
        check: &dyn Fn(&Path) -> Result<(), String>,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), HubError> {
        let (cache, commit) = (self.cache, &found.commit);
        let files = found.files.iter().filter(|name| !cache.has(commit, name));
        let wanted = files.map(|name| {
            Ok(Wanted {
                name: name.clone(),
                about: self.wire.about(commit, name)?,
            })
        });
        let wanted: Vec<Wanted> = wanted.collect::<Result<_, HubError>>()?;
        if wanted.is_empty() {
            return Ok(());
        }
        cache.create()?;
        let download = self.download_of(commit);
        let total_bytes = wanted.iter().map(|wanted| wanted.about.size).sum();
        let needed_bytes = wanted.iter().map(|wanted| download.missing(wanted)).sum();
        let free_bytes = fs4::available_space(cache.folder())?;
        if needed_bytes > free_bytes {
            let folder = cache.folder().to_owned();
            return Err(HubError::NoRoom {
                folder,
                needed_bytes,
                free_bytes,
            });
        }
        let have_bytes = u64::saturating_sub(total_bytes, needed_bytes);
        watch(Event::Begins {
            commit,
            total_bytes,
            have_bytes,
        });
        let mut before = 0;
        let mut checked = false;
        for wanted in &wanted {
            if files::is_weights(&wanted.name) && !checked {
                check(&cache.snapshot(commit)).map_err(|reason| HubError::Unusable {
                    repo: self.repo.clone(),
                    commit: commit.clone(),
                    reason,
                })?;
                checked = true;
            }
            let file = wanted.name.as_str();
            download.run(wanted, &mut |step| match step {
                Step::Waits => watch(Event::Waits { file }),
                Step::GoesOn(at_bytes) => watch(Event::GoesOn { file, at_bytes }),
                Step::Has(bytes) => watch(Event::Has {
                    bytes: before + bytes,
                }),
            })?;
            before += wanted.about.size;
        }
        watch(Event::Ends);
        Ok(())
    }
}
