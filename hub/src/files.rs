//! Which files of a repository a model needs.

use std::collections::BTreeSet;

use crate::{
    HubError,
    name::{Commit, RepoName},
};

/// Weights in several parts; the value is what lists them.
const PARTS: [&str; 2] = [
    "model.safetensors.index.json",
    "open_clip_model.safetensors.index.json",
];
/// Endings of weights that are not read.
const OTHER_WEIGHTS: [&str; 6] = [".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx"];
/// Taken along where they are there: license and languages, the card, and what may change the ids of a
/// text.
const OPTIONAL: [&str; 3] = ["README.md", "diptych.json", "tokenizer_config.json"];

/// One way in which a model lies in a repository, the preferred one first.
struct Form {
    /// One of each is needed, the earlier the better.
    small: &'static [&'static [&'static str]],
    weights: &'static str,
}

const FORMS: [Form; 2] = [
    Form {
        small: &[
            &["config.json"],
            &["preprocessor_config.json", "processor_config.json"],
            &["tokenizer.json"],
        ],
        weights: "model.safetensors",
    },
    Form {
        small: &[&["open_clip_config.json"], &["tokenizer.json"]],
        weights: "open_clip_model.safetensors",
    },
];

impl Form {
    /// What is to be fetched of the small files, or else what is missing.
    fn small(&self, names: &BTreeSet<String>) -> Result<Vec<&'static str>, Vec<&'static str>> {
        let of =
            |choices: &&'static [&'static str]| choices.iter().find(|name| names.contains(**name));
        let missing = self.small.iter().filter(|choices| of(choices).is_none());
        let missing: Vec<_> = missing
            .filter_map(|choices| choices.first().copied())
            .collect();
        if missing.is_empty() {
            Ok(self
                .small
                .iter()
                .filter_map(|choices| of(choices).copied())
                .collect())
        } else {
            Err(missing)
        }
    }
}

/// The files of the first form that is complete. The weights come last, so that a folder that has
/// them has everything.
///
/// # Errors
/// When none is complete; the error says what is missing.
pub(crate) fn needed(
    repo: &RepoName,
    commit: &Commit,
    names: &BTreeSet<String>,
) -> Result<Vec<&'static str>, HubError> {
    for form in &FORMS {
        if names.contains(form.weights)
            && let Ok(mut files) = form.small(names)
        {
            files.extend(OPTIONAL.iter().filter(|name| names.contains(**name)));
            files.push(form.weights);
            return Ok(files);
        }
    }
    let (repo, commit) = (repo.clone(), commit.clone());
    if let Some(form) = FORMS.iter().find(|form| names.contains(form.weights)) {
        let missing = form.small(names).err().unwrap_or_default();
        return Err(HubError::MissingFiles {
            repo,
            commit,
            missing: missing.join(", "),
        });
    }
    if let Some(index) = PARTS.iter().find(|index| names.contains(**index)) {
        return Err(HubError::Parts {
            repo,
            commit,
            index,
        });
    }
    let is_weights = |name: &&String| OTHER_WEIGHTS.iter().any(|end| name.ends_with(end));
    let found: Vec<_> = names.iter().filter(is_weights).cloned().collect();
    Err(HubError::NoWeights {
        repo,
        commit,
        found,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Result<Vec<&'static str>, HubError> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        needed(
            &"a/b".parse().expect("a name"),
            &"0".repeat(40).parse().expect("a commit"),
            &names,
        )
    }

    #[test]
    fn the_transformers_form_is_preferred_where_it_is_complete() {
        let open = [
            "open_clip_config.json",
            "open_clip_model.safetensors",
            "tokenizer.json",
        ];
        let hub = [
            "config.json",
            "preprocessor_config.json",
            "README.md",
            "model.safetensors",
        ];
        let expected = [
            "config.json",
            "preprocessor_config.json",
            "tokenizer.json",
            "README.md",
            "model.safetensors",
        ];
        assert_eq!(of(&[&open[..], &hub].concat()).expect("complete"), expected);
        let expected = [
            "open_clip_config.json",
            "tokenizer.json",
            "open_clip_model.safetensors",
        ];
        assert_eq!(
            of(&[&open[..], &hub[..2]].concat()).expect("complete"),
            expected
        );
        assert_eq!(of(&open).expect("complete"), expected);
    }

    #[test]
    fn the_processor_stands_in_for_the_preprocessor_and_more_comes_along_before_the_weights() {
        let names = [
            "config.json",
            "processor_config.json",
            "tokenizer.json",
            "model.safetensors",
            "tokenizer_config.json",
            "diptych.json",
        ];
        let expected = [
            "config.json",
            "processor_config.json",
            "tokenizer.json",
            "diptych.json",
            "tokenizer_config.json",
            "model.safetensors",
        ];
        assert_eq!(of(&names).expect("complete"), expected);
    }

    #[test]
    fn what_is_missing_is_named() {
        let small = ["config.json", "preprocessor_config.json", "tokenizer.json"];
        let with = |more: &[&str]| {
            of(&[&small[..], more].concat())
                .expect_err("incomplete")
                .to_string()
        };
        assert!(with(&["pytorch_model.bin"]).contains("pytorch_model.bin"));
        assert!(with(&["model.safetensors.index.json"]).contains("in several parts"));
        assert!(with(&[]).contains("model.safetensors"));
        let problem = of(&["config.json", "model.safetensors"])
            .expect_err("incomplete")
            .to_string();
        assert!(
            problem.contains("preprocessor_config.json, tokenizer.json"),
            "{problem}"
        );
    }
}
