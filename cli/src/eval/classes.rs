//! Pictures in folders, one for each class.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context, Result, bail};
use engine::Draws;
use pairs::Location;

use crate::walk::{self, Failure};

/// The file with names of classes that is looked for.
const NAMES: &str = "classes.json";
/// What the choice of a subset is told from other choices by.
const SUBSET: u64 = 1;

/// Pictures and their classes.
#[derive(Debug)]
pub struct Classes {
    /// Names of the classes, in the order of their folders.
    pub labels: Vec<String>,
    /// The pictures.
    pub files: Vec<Location>,
    /// The class of each picture.
    pub of: Vec<usize>,
    /// What cannot be read.
    pub failed: Vec<Failure>,
}

/// Finds the class folders in a folder, and the pictures below each. `names` says which file names
/// the classes; without it [`NAMES`] in the folder does, or the folders themselves do.
///
/// # Errors
/// When there are less than two class folders, none of them has a picture, or two have one name.
pub fn find(folder: &Path, names: Option<&Path>) -> Result<Classes> {
    if !folder.is_dir() {
        bail!(
            "{} is no folder: expected one with a folder for each class",
            folder.display()
        );
    }
    let own = folder.join(NAMES);
    let names = match names {
        Some(path) => read_names(path)?,
        None if own.is_file() => read_names(&own)?,
        None => BTreeMap::new(),
    };
    let mut folders = BTreeSet::new();
    let mut failed = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        let Some(name) = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
        else {
            continue;
        };
        if path.is_dir() && !name.starts_with('.') {
            folders.insert((name, path));
        } else if pairs::is_named_like_a_picture(&path) {
            failed.push(Failure {
                path: path.display().to_string(),
                reason: "lies in no class folder".to_owned(),
            });
        }
    }
    if folders.len() < 2 {
        let (count, folder) = (folders.len(), folder.display());
        bail!("{folder} has {count} class folders, expected at least 2: a folder of pictures each");
    }
    let mut classes = Classes {
        labels: Vec::new(),
        files: Vec::new(),
        of: Vec::new(),
        failed,
    };
    for (name, path) in folders {
        let label = names.get(&name).cloned();
        let label = label.unwrap_or_else(|| name.replace('_', " ").trim().to_owned());
        if label.is_empty() || classes.labels.contains(&label) {
            bail!("the folder {name:?} is the class {label:?}, expected a name of its own");
        }
        let found = walk::find(&[path])?;
        classes
            .of
            .extend(found.files.iter().map(|_| classes.labels.len()));
        classes
            .files
            .extend(found.files.into_iter().map(Location::File));
        classes.failed.extend(found.failures);
        classes.labels.push(label);
    }
    if classes.files.is_empty() {
        bail!(
            "there is no picture in the class folders of {}",
            folder.display()
        );
    }
    Ok(classes)
}

impl Classes {
    /// Keeps so many pictures at most.
    pub fn limit(&mut self, limit: Option<std::num::NonZeroUsize>, seed: u64) {
        let kept = subset(limit, self.files.len(), seed);
        self.files = kept.iter().map(|i| self.files[*i].clone()).collect();
        self.of = kept.iter().map(|i| self.of[*i]).collect();
    }
}

/// So many of all numbers below `of` at most, as the seed says.
pub fn subset(limit: Option<std::num::NonZeroUsize>, of: usize, seed: u64) -> Vec<usize> {
    match limit {
        Some(limit) => Draws::new(&[seed, SUBSET]).subset(limit.get(), of),
        None => (0..of).collect(),
    }
}

fn read_names(path: &Path) -> Result<BTreeMap<String, String>> {
    let json = fs_err::read_to_string(path).context("the names of classes cannot be read")?;
    serde_json::from_str(&json).with_context(|| {
        let path = path.display();
        format!("{path}: expected names of classes by folder, {{\"folder\": \"name\"}}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        for file in files {
            let path = dir.path().join(file);
            fs_err::create_dir_all(path.parent().expect("has one")).expect("made");
            fs_err::write(path, "x").expect("written");
        }
        dir
    }

    #[test]
    fn folders_name_their_classes_unless_a_file_does() {
        let dir = world(&[
            "tabby_cat/a.png",
            "n02/b/c.jpg",
            ".hidden/d.png",
            "loose.png",
            "x.txt",
        ]);
        let names = dir.path().join(NAMES);
        fs_err::write(&names, r#"{"n02": "dog", "n03": "car"}"#).expect("written");
        let classes = find(dir.path(), None).expect("found");
        assert_eq!(classes.labels, ["dog", "tabby cat"]);
        assert_eq!(classes.of, [0, 1]);
        assert_eq!(classes.failed.len(), 1, "{classes:?}");
        assert!(classes.failed[0].path.ends_with("loose.png"));

        fs_err::write(&names, r#"{"n02": "tabby cat"}"#).expect("written");
        let refused = find(dir.path(), None).expect_err("twice");
        assert!(refused.to_string().contains("tabby_cat"), "{refused}");
        fs_err::write(&names, "[]").expect("written");
        assert!(find(dir.path(), None).is_err());
    }

    #[test]
    fn less_than_two_classes_or_no_picture_is_refused() {
        let message = |files: &[&str]| {
            let dir = world(files);
            find(dir.path(), None).expect_err("is refused").to_string()
        };
        assert!(message(&[]).contains("0 class folders"));
        assert!(message(&["a/x.png"]).contains("1 class folders"));
        assert!(message(&["a/x.txt", "b/y.txt"]).contains("no picture"));
    }

    #[test]
    fn a_limit_keeps_pictures_with_their_classes() {
        let dir = world(&["a/1.png", "a/2.png", "b/3.png", "b/4.png", "b/5.png"]);
        let mut classes = find(dir.path(), None).expect("found");
        classes.limit(std::num::NonZeroUsize::new(3), 7);
        assert_eq!(classes.files.len(), 3);
        for (file, class) in classes.files.iter().zip(&classes.of) {
            let folder = ["/a/", "/b/"][*class];
            assert!(file.to_string().contains(folder), "{file}");
        }
    }
}
