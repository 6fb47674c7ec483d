//! Finding the pictures below some paths.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use pairs::{NOT_READ, READ, Skipped, is_shown};
use walkdir::WalkDir;

use crate::output;

/// First bytes of the formats that are read, for files without an ending.
const MAGIC: [&[u8]; 7] = [
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF8",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"RIFF",
];

/// Something that was not indexed, and why.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Failure {
    /// The file or folder.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Failure {
    /// `path` cannot be used because of `error`.
    pub fn new(path: &impl ToString, error: &(dyn std::error::Error + 'static)) -> Self {
        Self {
            path: path.to_string(),
            reason: output::chain(error),
        }
    }
}

impl From<Skipped> for Failure {
    fn from(Skipped { path, reason }: Skipped) -> Self {
        Self { path, reason }
    }
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The paths that were given and where links below them lead, canonical: what lies inside is
    /// what was walked.
    pub roots: Vec<PathBuf>,
    /// Where links below the given paths would lead, if it were still there.
    pub lost: Vec<PathBuf>,
    /// Pictures by canonical path, in order, each once.
    pub files: Vec<PathBuf>,
    /// Folders that cannot be read and pictures of formats that are not.
    pub failures: Vec<Failure>,
}

/// Walks files and folders. Links are followed, but never in a circle; hidden files and folders
/// are left out unless they are named themselves.
///
/// # Errors
/// When one of `paths` itself cannot be reached.
pub fn find(paths: &[PathBuf]) -> Result<Found> {
    let mut found = Found::default();
    let mut files = BTreeSet::new();
    for path in paths {
        let root = fs_err::canonicalize(path).context("there is nothing to index")?;
        // A file that was named is read whatever its ending.
        if root.is_file() {
            files.insert(root.clone());
            found.roots.push(root);
            continue;
        }
        for entry in WalkDir::new(&root)
            .follow_links(true)
            .into_iter()
            .filter_entry(is_shown)
        {
            match entry {
                Ok(entry) => {
                    let (path, is_link) = (entry.path(), entry.path_is_symlink());
                    let walked = if entry.file_type().is_file() {
                        consider(path, &mut files, &mut found.failures)
                    } else if is_link {
                        fs_err::canonicalize(path).ok()
                    } else {
                        None
                    };
                    // Nothing else says that what is behind a link belongs to this root.
                    found.roots.extend(walked.filter(|_| is_link));
                }
                Err(error) if error.loop_ancestor().is_some() => {}
                Err(error) => {
                    let path = error.path().unwrap_or(&root).to_owned();
                    found.lost.extend(lost_target(&path));
                    found.failures.push(Failure::new(&path.display(), &error));
                }
            }
        }
        found.roots.push(root);
    }
    found.files = files.into_iter().collect();
    Ok(found)
}

/// Where a link leads whose target is gone; `None` for anything else, and where even the folder of
/// the target is gone.
fn lost_target(link: &Path) -> Option<PathBuf> {
    let target = link.parent()?.join(fs_err::read_link(link).ok()?);
    let folder = fs_err::canonicalize(target.parent()?).ok()?;
    Some(folder.join(target.file_name()?))
}

/// Takes a picture, and gives back its canonical path.
fn consider(
    path: &Path,
    files: &mut BTreeSet<PathBuf>,
    failures: &mut Vec<Failure>,
) -> Option<PathBuf> {
    let ending = path.extension().map(OsStr::to_ascii_lowercase);
    let is_one_of = |endings: &[&str]| {
        ending
            .as_ref()
            .is_some_and(|e| endings.iter().any(|x| e == x))
    };
    if is_one_of(&NOT_READ) {
        let reason = "pictures of this format are not read".to_owned();
        failures.push(Failure {
            path: path.display().to_string(),
            reason,
        });
    } else if is_one_of(&READ) || (ending.is_none() && starts_like_a_picture(path)) {
        // Links may lead to the same file twice.
        match fs_err::canonicalize(path) {
            Ok(path) => {
                files.insert(path.clone());
                return Some(path);
            }
            Err(error) => failures.push(Failure::new(&path.display(), &error)),
        }
    }
    None
}

fn starts_like_a_picture(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = fs_err::File::open(path).and_then(|file| file.take(8).read_to_end(&mut start));
    read.is_ok() && MAGIC.iter().any(|magic| start.starts_with(magic))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        for file in files {
            let path = dir.path().join(file);
            fs_err::create_dir_all(path.parent().expect("has one")).expect("made");
            fs_err::write(path, b"GIF89a").expect("written");
        }
        dir
    }

    fn names(dir: &Path, found: &Found) -> Vec<String> {
        let root = fs_err::canonicalize(dir).expect("exists");
        let name = |path: &PathBuf| {
            path.strip_prefix(&root)
                .expect("below")
                .display()
                .to_string()
        };
        found.files.iter().map(name).collect()
    }

    #[test]
    fn pictures_are_told_by_their_ending_and_without_one_by_their_start() {
        let dir = world(&["b/x.JPG", "a.png", "bare", "notes.txt", "live.heic"]);
        fs_err::write(dir.path().join("README"), "GIMP is a program").expect("written");
        let found = find(&[dir.path().to_owned()]).expect("found");
        assert_eq!(names(dir.path(), &found), ["a.png", "b/x.JPG", "bare"]);
        assert_eq!(found.failures.len(), 1);
        assert!(found.failures[0].path.ends_with("live.heic"));
    }

    #[test]
    fn hidden_files_are_left_out_unless_they_are_named() {
        let dir = world(&[".cache/a.png", "b/.c.png", "d.png"]);
        let hidden = dir.path().join("b/.c.png");
        let found = find(&[dir.path().to_owned()]).expect("found");
        assert_eq!(names(dir.path(), &found), ["d.png"]);
        let found = find(&[dir.path().to_owned(), hidden]).expect("found");
        assert_eq!(names(dir.path(), &found), ["b/.c.png", "d.png"]);
    }

    #[test]
    fn a_path_that_does_not_exist_is_an_error_that_names_it() {
        let missing = PathBuf::from("no/such/folder");
        let error = find(&[missing]).expect_err("is missing");
        assert!(format!("{error:#}").contains("no/such/folder"), "{error:#}");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_but_not_in_circles_and_nothing_is_found_twice() {
        use std::os::unix::fs::symlink;

        let dir = world(&["a/x.png"]);
        symlink(dir.path(), dir.path().join("a/up")).expect("linked");
        symlink(dir.path().join("a/x.png"), dir.path().join("y.png")).expect("linked");
        let outside = world(&["z.png"]);
        symlink(outside.path(), dir.path().join("other")).expect("linked");
        fs_err::write(outside.path().join("notes.txt"), "words").expect("written");
        symlink(outside.path().join("notes.txt"), dir.path().join("notes")).expect("linked");
        let found = find(&[dir.path().to_owned(), dir.path().join("a")]).expect("found");
        assert_eq!(found.files.len(), 2, "{found:?}");
        assert_eq!(found.failures, []);
        assert!(found.lost.is_empty(), "{found:?}");

        let canonical = |path: &Path| fs_err::canonicalize(path).expect("exists");
        let (inside, outside) = (canonical(dir.path()), canonical(outside.path()));
        let roots: BTreeSet<PathBuf> = found.roots.into_iter().collect();
        let expected = [
            inside.clone(),
            inside.join("a"),
            inside.join("a/x.png"),
            outside.clone(),
        ];
        assert_eq!(roots, expected.into(), "what links lead to is remembered");

        fs_err::remove_file(outside.join("z.png")).expect("removed");
        symlink(outside.join("z.png"), inside.join("z.png")).expect("linked");
        let found = find(&[inside]).expect("found");
        assert_eq!(found.lost, [outside.join("z.png")]);
        assert_eq!(found.failures.len(), 1, "{found:?}");
    }
}
