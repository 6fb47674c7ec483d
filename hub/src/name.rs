//! Names of models, revisions and commits. They become parts of paths and of URLs, so that nothing
//! that could lead elsewhere is one.

use std::{fmt, str::FromStr};

use crate::HubError;

/// What hubs allow.
const LONGEST_NAME: usize = 96;
/// Longer than any branch that is of use.
const LONGEST_REVISION: usize = 200;
/// Hexadecimal digits of a commit.
const COMMIT_DIGITS: usize = 40;

/// `owner/name` of a model on a hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoName(String);

impl RepoName {
    /// `owner/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepoName {
    type Err = HubError;

    fn from_str(value: &str) -> Result<Self, HubError> {
        let is_part = |part: &str| {
            !part.is_empty()
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
                && !part.starts_with(['-', '.'])
                && !part.ends_with(['-', '.'])
                && !part.contains("--")
                && !part.contains("..")
        };
        let parts = value.split_once('/');
        let is_name = parts.is_some_and(|(owner, name)| is_part(owner) && is_part(name));
        if is_name && value.len() <= LONGEST_NAME {
            Ok(Self(value.to_owned()))
        } else {
            Err(HubError::BadName {
                value: value.to_owned(),
            })
        }
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A branch, a tag, `refs/pr/N` or a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision(String);

impl Revision {
    /// The branch that is meant where none is named.
    pub(crate) fn main() -> Self {
        Self("main".to_owned())
    }

    /// The pull request with this number.
    pub(crate) fn pull_request(number: u64) -> Self {
        Self(format!("refs/pr/{number}"))
    }

    /// As it was named.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The commit, where the revision is one: it can never mean anything else.
    pub fn commit(&self) -> Option<Commit> {
        self.0.parse().ok()
    }
}

impl FromStr for Revision {
    type Err = HubError;

    fn from_str(value: &str) -> Result<Self, HubError> {
        let is_letter = |c: char| c.is_ascii_alphanumeric() || "-_.+=/".contains(c);
        let is_part = |part: &str| !part.is_empty() && !part.starts_with('.');
        let is_revision = value.len() <= LONGEST_REVISION
            && value.chars().all(is_letter)
            && value.split('/').all(is_part)
            && !value.contains("..");
        if is_revision {
            Ok(Self(value.to_owned()))
        } else {
            Err(HubError::BadRevision {
                value: value.to_owned(),
            })
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a revision was at one moment: 40 hexadecimal digits, which never mean anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit(String);

impl Commit {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As many digits as people need.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl FromStr for Commit {
    type Err = ();

    fn from_str(value: &str) -> Result<Self, ()> {
        let is_digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        let is_commit = value.len() == COMMIT_DIGITS && value.chars().all(is_digit);
        is_commit.then(|| Self(value.to_owned())).ok_or(())
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_an_owner_and_leads_nowhere_else() {
        for good in [
            "openai/clip-vit-base-patch32",
            "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
            "a/b_c.d",
        ] {
            assert_eq!(good.parse::<RepoName>().expect(good).as_str(), good);
        }
        let long = format!("a/{}", "b".repeat(LONGEST_NAME));
        for bad in [
            "", "clip", "/clip", "a/", "a/b/c", "../b", "a/..", "./b", "a b/c", "a/b?c", "a/b%2e",
            "a--b/c", &long,
        ] {
            assert!(bad.parse::<RepoName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_revision_stays_inside_its_folder() {
        for good in ["main", "v1.0", "refs/pr/15", "feature/x+y=z"] {
            assert!(good.parse::<Revision>().is_ok(), "{good:?}");
        }
        for bad in [
            "", "..", "a/../b", "/a", "a/", "a//b", ".git", "a b", "a?b", "a%2Fb", "a\\b",
        ] {
            assert!(bad.parse::<Revision>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_all_digits_of_a_commit_are_one() {
        let digits = "0123456789abcdef0123456789abcdef01234567";
        let revision: Revision = digits.parse().expect("a revision");
        assert_eq!(revision.commit().expect("a commit").as_str(), digits);
        for other in [&digits[1..], &digits.to_uppercase(), "main"] {
            let revision: Revision = other.parse().expect("a revision");
            assert_eq!(revision.commit(), None, "{other}");
        }
    }
}
