//! Model files from a Hugging Face hub, by name, through the cache folder that other programs share.
//!
//! The one place of this project that opens a connection. It is **not** where a model is read: it
//! knows the names of the files that one has, and nothing of what is in them, but for the list of the
//! files that hold weights in several parts.
//!
//! [`fetch`] resolves a revision to a commit, downloads what is missing of that commit, checks it
//! against the checksum that the hub states, and answers with a folder. A download that was
//! interrupted goes on where it stopped, also in another process; of several processes that want
//! one file, one downloads it and the others wait.
//!
//! ```no_run
//! let settings = hub::Settings::from_env(false)?;
//! let repo = "openai/clip-vit-base-patch32".parse()?;
//! let snapshot = hub::fetch(&settings, &repo, None, &|_| Ok(()), &mut |_| ())?;
//! println!("{} is in {}", snapshot.commit, snapshot.folder.display());
//! # Ok::<(), hub::HubError>(())
//! ```

mod cache;
mod checksum;
mod download;
mod error;
mod fetch;
mod files;
mod name;
mod parts;
mod settings;
mod wire;

pub use error::HubError;
pub use fetch::{Event, Snapshot, fetch};
pub use name::{Commit, RepoName, Revision};
pub use settings::{Endpoint, Settings, Token};
