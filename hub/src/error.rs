//! Why a model could not be had, and what to do about it.

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::name::{Commit, RepoName, Revision};

/// Why a model could not be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HubError {
    /// `HF_ENDPOINT` is no URL.
    #[error("HF_ENDPOINT is {value:?}, expected a URL such as https://huggingface.co")]
    BadEndpoint {
        /// What it is.
        value: String,
    },
    /// Not the name of a model.
    #[error(
        "{value:?} is no name of a model, expected owner/name in letters, digits, `-`, `_` and `.`"
    )]
    BadName {
        /// What it is.
        value: String,
    },
    /// Not a name of a revision.
    #[error(
        "{value:?} is no revision, expected a branch, a tag, refs/pr/N or a commit of 40 digits"
    )]
    BadRevision {
        /// What it is.
        value: String,
    },
    /// No variable says where files can go.
    #[error("no home folder is known: set HF_HOME to a folder for downloads")]
    NoCacheFolder,
    /// The hub knows no such model.
    #[error("there is no model {repo} at {endpoint}")]
    NoModel {
        /// The model.
        repo: RepoName,
        /// The hub.
        endpoint: String,
    },
    /// The hub does not say whether there is such a model to whom it does not know.
    #[error(
        "{endpoint} shows no model {repo} (HTTP 401): check the name; if the model is private or gated, \
         set HF_TOKEN to a token from {endpoint}/settings/tokens"
    )]
    NotShown {
        /// The model.
        repo: RepoName,
        /// The hub.
        endpoint: String,
    },
    /// The model has no such revision.
    #[error(
        "{repo} has no revision {revision} at {endpoint}; its branches and tags: {endpoint}/{repo}/tree/main"
    )]
    NoRevision {
        /// The model.
        repo: RepoName,
        /// The revision.
        revision: Revision,
        /// The hub.
        endpoint: String,
    },
    /// Its owner gives it to those who accept a licence.
    #[error(
        "{repo} is gated: accept its licence at {endpoint}/{repo}, then set HF_TOKEN to a token of the same \
         account ({endpoint}/settings/tokens); {token}"
    )]
    Gated {
        /// The model.
        repo: RepoName,
        /// The hub.
        endpoint: String,
        /// Which token the hub got.
        token: String,
    },
    /// The hub refused the token.
    #[error(
        "{endpoint} refused the token from {from} (HTTP {status}): make a new one at \
         {endpoint}/settings/tokens, or remove it; public models need none"
    )]
    BadToken {
        /// The hub.
        endpoint: String,
        /// Where the token came from.
        from: String,
        /// What the hub answered.
        status: u16,
    },
    /// The hub did not answer, or has trouble of its own.
    #[error(
        "{endpoint} cannot be reached ({reason}): check the network; with --offline a copy in the cache is \
         used, and --model takes a folder"
    )]
    Unreachable {
        /// The hub.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// The hub answered something that is of no use.
    #[error("{url} answered {problem}, which a Hugging Face hub does not; is HF_ENDPOINT right?")]
    BadAnswer {
        /// What was asked.
        url: String,
        /// What came.
        problem: String,
    },
    /// No connection may be opened, and the model is not here.
    #[error(
        "{repo} at {revision} is not (completely) in the cache {}, and offline nothing is downloaded: run once without \
         --offline and HF_HUB_OFFLINE, or name a folder with --model", cache.display()
    )]
    NotCached {
        /// The model.
        repo: RepoName,
        /// The revision.
        revision: Revision,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// No weights in a form that is read.
    #[error(
        "{repo} at {commit} has no model.safetensors and no open_clip_model.safetensors, only [{}]; {}",
        found.join(", "), conversion(repo, found)
    )]
    NoWeights {
        /// The model.
        repo: RepoName,
        /// What was looked at.
        commit: Commit,
        /// Weights in other forms.
        found: Vec<String>,
    },
    /// Weights in several files, and no usable list of them.
    #[error(
        "{index} of {repo} at {commit}, which lists the files of its weights, {problem}; transformers joins \
         them: save_pretrained(\"joined\", max_shard_size=\"100GB\"), then --model joined"
    )]
    BadIndex {
        /// The model.
        repo: RepoName,
        /// What was looked at.
        commit: Commit,
        /// The file that lists the parts.
        index: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Weights, but not all that belongs to them.
    #[error(
        "{repo} at {commit} lacks {missing}: it is no model for pictures and texts, or not stored as transformers does"
    )]
    MissingFiles {
        /// The model.
        repo: RepoName,
        /// What was looked at.
        commit: Commit,
        /// Names of files.
        missing: String,
    },
    /// The small files say that the model cannot be used.
    #[error("{repo} at {commit} cannot be used, and its weights were not downloaded: {reason}")]
    Unusable {
        /// The model.
        repo: RepoName,
        /// What was looked at.
        commit: Commit,
        /// Why.
        reason: String,
    },
    /// The disk is too small.
    #[error(
        "{needed_bytes} bytes are to be downloaded, but {} has only {free_bytes} free: make room, or set HF_HOME \
         to a folder on another disk", folder.display()
    )]
    NoRoom {
        /// Where the files go.
        folder: PathBuf,
        /// What is missing.
        needed_bytes: u64,
        /// What there is.
        free_bytes: u64,
    },
    /// The disk became full.
    #[error(
        "the disk of {} is full: make room, or set HF_HOME to a folder on another disk; the next start goes on \
         where this one stopped", folder.display()
    )]
    DiskFull {
        /// Where the files go.
        folder: PathBuf,
    },
    /// The connection broke again and again.
    #[error(
        "the download of {file} was interrupted at {have_bytes} of {size_bytes} bytes ({reason}); the next start \
         goes on there"
    )]
    Interrupted {
        /// The file.
        file: String,
        /// What is kept.
        have_bytes: u64,
        /// All of it.
        size_bytes: u64,
        /// Why.
        reason: String,
    },
    /// The content is another than the hub said.
    #[error(
        "{file} arrived with the checksum {found}, expected {expected}: it was removed; try again, and if it \
         happens again, something between here and {endpoint} changes files"
    )]
    WrongChecksum {
        /// The file.
        file: String,
        /// What the hub said.
        expected: String,
        /// What came.
        found: String,
        /// The hub.
        endpoint: String,
    },
    /// A file of the cache cannot be read or written; the message names it.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// How weights in other forms become such that are read.
fn conversion(repo: &RepoName, found: &[String]) -> String {
    const OPEN_CLIP: &str = "open_clip_pytorch_model.bin";
    let whole = |name: &str| found.iter().any(|found| found == name);
    if whole(OPEN_CLIP) && !whole("pytorch_model.bin") {
        return format!(
            "weights of OpenCLIP are converted by:\n  hf download {repo} --local-dir converted\n  python -c 'import torch; \
             from safetensors.torch import save_file; w = torch.load(\"converted/{OPEN_CLIP}\", weights_only=True); \
             save_file({{k: v.clone().contiguous() for k, v in w.items()}}, \
             \"converted/open_clip_model.safetensors\")'\nthen name the folder: --model converted"
        );
    }
    // As sentence-transformers has it.
    let below = found
        .iter()
        .filter_map(|name| name.strip_suffix("/pytorch_model.bin"))
        .find(|_| !whole("pytorch_model.bin"))
        .map(|folder| format!(", subfolder=\"{folder}\""))
        .unwrap_or_default();
    format!(
        "weights of transformers are converted by:\n  python -c 'from transformers import AutoModel, AutoProcessor; \
         n, d = \"{repo}\", \"converted\"; AutoModel.from_pretrained(n{below}).save_pretrained(d); \
         AutoProcessor.from_pretrained(n{below}).save_pretrained(d)'\nthen name the folder: --model converted"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_done_about_other_weights_depends_on_which_there_are() {
        let repo = "a/b".parse().expect("a name");
        let of = |found: &[&str]| {
            let found: Vec<_> = found.iter().map(|name| (*name).to_owned()).collect();
            conversion(&repo, &found)
        };
        let plain = of(&["pytorch_model.bin"]);
        assert!(
            plain.contains("AutoModel.from_pretrained(n).save"),
            "{plain}"
        );
        assert_eq!(
            of(&["open_clip_pytorch_model.bin", "pytorch_model.bin"]),
            plain
        );
        let own = of(&["open_clip_pytorch_model.bin"]);
        assert!(
            own.contains("hf download a/b") && own.contains("save_file({k: v"),
            "{own}"
        );
        assert_eq!(of(&["onnx/model.onnx", "pytorch_model.bin"]), plain);
        assert_eq!(of(&["onnx/model.onnx"]), plain);
        let below = of(&["0_CLIPModel/pytorch_model.bin"]);
        assert!(
            below.contains("from_pretrained(n, subfolder=\"0_CLIPModel\").save"),
            "{below}"
        );
    }
}
