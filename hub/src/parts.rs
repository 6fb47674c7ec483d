//! The list of the files that hold weights in several parts: what transformers writes beside
//! `model-00001-of-00002.safetensors` and so on. The only content that is looked into here, since
//! nothing else says which files belong together.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::{
    HubError,
    name::{Commit, RepoName},
};

/// Longest list that is read, in bytes.
pub(crate) const MOST_BYTES: u64 = 4 << 20;

/// Refuses a list of more than [`MOST_BYTES`].
pub(crate) fn check_size(
    size: u64,
    repo: &RepoName,
    commit: &Commit,
    name: &str,
) -> Result<(), HubError> {
    if size <= MOST_BYTES {
        return Ok(());
    }
    Err(HubError::BadIndex {
        repo: repo.clone(),
        commit: commit.clone(),
        index: name.to_owned(),
        problem: format!("has {size} bytes, at most {MOST_BYTES} are read"),
    })
}

/// The key that is of use: the name of a file for that of each tensor.
#[derive(Deserialize)]
struct List {
    weight_map: BTreeMap<String, String>,
}

/// The names of all files that a list names; or what is wrong with it.
pub(crate) fn listed(contents: &[u8]) -> Result<BTreeSet<String>, String> {
    let list: List =
        serde_json::from_slice(contents).map_err(|error| format!("is not usable: {error}"))?;
    let names: BTreeSet<String> = list.weight_map.into_values().collect();
    if names.is_empty() {
        return Err("names no files".to_owned());
    }
    match names.iter().find(|name| !is_part(name)) {
        Some(name) => Err(format!(
            "names {name:?}, expected safetensors files beside it"
        )),
        None => Ok(names),
    }
}

/// Names become parts of paths and of URLs, so that nothing that could lead elsewhere is one.
fn is_part(name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    name.ends_with(".safetensors") && !name.starts_with('.') && name.chars().all(is_letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_files_beside_it_and_nothing_else() {
        let of = |map: &str| listed(format!("{{\"weight_map\": {map}}}").as_bytes());
        let names = of(r#"{"b": "y.safetensors", "a": "x.safetensors", "c": "y.safetensors"}"#);
        let names: Vec<String> = names.expect("a list").into_iter().collect();
        assert_eq!(names, ["x.safetensors", "y.safetensors"]);
        for name in [
            "",
            "../x.safetensors",
            "a/x.safetensors",
            "/x.safetensors",
            "..safetensors",
            "x?.safetensors",
            "config.json",
        ] {
            let problem = of(&format!("{{\"a\": {name:?}}}")).expect_err(name);
            assert!(problem.contains(&format!("{name:?}")), "{problem}");
        }
        assert_eq!(of("{}").expect_err("empty"), "names no files");
        for bad in [&b"{}"[..], b"[]", b"", b"{\"weight_map\": {\"a\": 1}}"] {
            let problem = listed(bad).expect_err("no list");
            assert!(problem.starts_with("is not usable"), "{problem}");
        }
    }
}
