//! Which files of a repository a model needs.

use std::collections::BTreeSet;

use crate::{
    HubError,
    name::{Commit, RepoName},
    parts,
};

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
    /// What lists the files of the weights, where they are several.
    index: &'static str,
}

const FORMS: [Form; 2] = [
    Form {
        small: &[
            &["config.json"],
            &["preprocessor_config.json", "processor_config.json"],
            &["tokenizer.json"],
        ],
        weights: "model.safetensors",
        index: "model.safetensors.index.json",
    },
    Form {
        small: &[&["open_clip_config.json"], &["tokenizer.json"]],
        weights: "open_clip_model.safetensors",
        index: "open_clip_model.safetensors.index.json",
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

/// Whether a file that [`needed`] names holds weights. All others are small.
pub(crate) fn is_weights(name: &str) -> bool {
    name.ends_with(".safetensors")
}

/// The files of the first form that is complete, with weights in one file before weights in several. The
/// weights come last, so that a folder that has them has everything. `read` gives the contents of a
/// file.
///
/// # Errors
/// When none is complete; the error says what is missing. When a list of parts cannot be read or used.
pub(crate) fn needed(
    repo: &RepoName,
    commit: &Commit,
    names: &BTreeSet<String>,
    read: impl Fn(&str) -> Result<Vec<u8>, HubError>,
) -> Result<Vec<String>, HubError> {
    let has = |name: &str| names.contains(name);
    let with = |small: Vec<&str>, weights: Vec<String>| {
        let optional = OPTIONAL.iter().copied().filter(|name| has(name));
        let small = small.into_iter().chain(optional).map(str::to_owned);
        small.chain(weights).collect()
    };
    // Of the first form with weights.
    let mut lacking = None;
    for form in FORMS.iter().filter(|form| has(form.weights)) {
        match form.small(names) {
            Ok(small) => return Ok(with(small, vec![form.weights.to_owned()])),
            Err(missing) => _ = lacking.get_or_insert(missing.join(", ")),
        }
    }
    for form in FORMS.iter().filter(|form| has(form.index)) {
        let small = match form.small(names) {
            Ok(small) => small,
            Err(missing) => {
                lacking.get_or_insert(missing.join(", "));
                continue;
            }
        };
        let parts = parts::listed(&read(form.index)?).map_err(|problem| HubError::BadIndex {
            repo: repo.clone(),
            commit: commit.clone(),
            index: form.index.to_owned(),
            problem,
        })?;
        let missing: Vec<&str> = parts
            .iter()
            .map(String::as_str)
            .filter(|p| !has(p))
            .collect();
        if missing.is_empty() {
            let weights = [form.index.to_owned()].into_iter().chain(parts);
            return Ok(with(small, weights.collect()));
        }
        lacking.get_or_insert(missing.join(", "));
    }
    let (repo, commit) = (repo.clone(), commit.clone());
    if let Some(missing) = lacking {
        return Err(HubError::MissingFiles {
            repo,
            commit,
            missing,
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

    fn of(names: &[&str]) -> Result<Vec<String>, HubError> {
        listing(names, "")
    }

    /// Where every list of parts says `list`.
    fn listing(names: &[&str], list: &str) -> Result<Vec<String>, HubError> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        needed(
            &"a/b".parse().expect("a name"),
            &"0".repeat(40).parse().expect("a commit"),
            &names,
            |_| Ok(list.into()),
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
        assert!(with(&[]).contains("model.safetensors"));
        let problem = of(&["config.json", "model.safetensors"])
            .expect_err("incomplete")
            .to_string();
        assert!(
            problem.contains("preprocessor_config.json, tokenizer.json"),
            "{problem}"
        );
    }

    #[test]
    fn parts_are_taken_by_their_list_where_no_form_has_one_file() {
        const INDEX: &str = "model.safetensors.index.json";
        const PARTS: [&str; 2] = ["model-1.safetensors", "model-2.safetensors"];
        let list = |parts: [&str; 2]| {
            format!(
                r#"{{"weight_map": {{"a": "{}", "b": "{}"}}}}"#,
                parts[1], parts[0]
            )
        };
        let small = ["config.json", "preprocessor_config.json", "tokenizer.json"];
        let open = ["open_clip_config.json", "open_clip_model.safetensors"];
        let all = [
            &small[..],
            &[INDEX, "README.md"],
            &PARTS,
            &["model-3.safetensors"],
        ]
        .concat();
        let expected = [&small[..], &["README.md", INDEX], &PARTS].concat();
        assert_eq!(listing(&all, &list(PARTS)).expect("complete"), expected);
        let whole = [&all[..], &["model.safetensors"]].concat();
        let files = listing(&whole, "not read").expect("complete");
        assert_eq!(files.last().map(String::as_str), Some("model.safetensors"));
        let files = listing(&[&all[..], &open].concat(), "not read").expect("complete");
        assert_eq!(files.last().map(String::as_str), Some(open[1]));

        let refused =
            |names: &[&str], list: &str| listing(names, list).expect_err("incomplete").to_string();
        let problem = refused(&all[..5], &list(PARTS));
        assert!(
            problem.contains("lacks model-1.safetensors, model-2.safetensors:"),
            "{problem}"
        );
        let problem = refused(&all[1..], &list(PARTS));
        assert!(problem.contains("lacks config.json:"), "{problem}");
        let problem = refused(&all, &list(["../x.safetensors", PARTS[0]]));
        assert!(
            problem.contains(INDEX) && problem.contains("names \"../x.safetensors\""),
            "{problem}"
        );
    }
}
