//! Patterns of shards: `{a,b}` and `{000..099}` as shells expand them, and `*` and `?` in the name of the
//! file.

use std::path::{Path, PathBuf};

use crate::PairsError;

/// More shards than anybody has: a slip of the keyboard.
const MOST: usize = 100_000;

/// The files that a pattern names: those of braces in their order, of which each must exist, and those of
/// `*` and `?` by name.
pub(crate) fn expand(pattern: &Path) -> Result<Vec<PathBuf>, PairsError> {
    // Whatever a file is called, its own name means it.
    if pattern.exists() {
        return Ok(vec![pattern.to_owned()]);
    }
    let bad = |problem: String| PairsError::Pattern {
        pattern: pattern.display().to_string(),
        problem,
    };
    let text = pattern
        .to_str()
        .ok_or_else(|| bad("is not UTF-8".to_owned()))?;
    let mut found = Vec::new();
    for path in braces(text).map_err(bad)? {
        let path = PathBuf::from(path);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.contains(['*', '?']) {
            // The error of a file that is not there names it.
            fs_err::metadata(&path)?;
            found.push(path);
            continue;
        }
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        let mut matched = Vec::new();
        for entry in fs_err::read_dir(folder.unwrap_or(Path::new(".")))? {
            let entry = entry?;
            let is_named = entry.file_name();
            if matches(name.as_bytes(), is_named.as_encoded_bytes()) {
                matched.push(folder.map_or_else(|| is_named.clone().into(), |f| f.join(&is_named)));
            }
        }
        if matched.is_empty() {
            return Err(bad(format!("there is no file {}", path.display())));
        }
        matched.sort();
        found.extend(matched);
    }
    Ok(found)
}

/// All texts that a text with braces stands for.
fn braces(text: &str) -> Result<Vec<String>, String> {
    let Some(open) = text.find('{') else {
        return Ok(vec![text.to_owned()]);
    };
    let Some(length) = text[open..].find('}') else {
        return Err("a { without its }".to_owned());
    };
    let (before, inner) = (&text[..open], &text[open + 1..open + length]);
    let rest = braces(&text[open + length + 1..])?;
    let parts = match inner.split_once("..") {
        Some((first, last)) => range(first, last)?,
        None => inner.split(',').map(str::to_owned).collect(),
    };
    if parts.len().saturating_mul(rest.len()) > MOST {
        return Err(format!("stands for more than {MOST} files"));
    }
    let each = parts.iter().flat_map(|part| {
        let one = |rest: &String| format!("{before}{part}{rest}");
        rest.iter().map(one).collect::<Vec<_>>()
    });
    Ok(each.collect())
}

/// The numbers of `{first..last}`, with the leading zeros of the first.
fn range(first: &str, last: &str) -> Result<Vec<String>, String> {
    let number = |text: &str| {
        let all_digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number = all_digits.then(|| text.parse::<usize>().ok()).flatten();
        number.ok_or_else(|| format!("expected {{000..099}}, got {{{first}..{last}}}"))
    };
    let (from, to, width) = (number(first)?, number(last)?, first.len());
    if from > to {
        return Err(format!("{first} comes after {last}"));
    }
    if to - from >= MOST {
        return Err(format!("stands for more than {MOST} files"));
    }
    Ok((from..=to).map(|n| format!("{n:0width$}")).collect())
}

/// Whether a name is what a pattern of `*` (anything) and `?` (one byte) describes.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // The last star and where it began to be tried.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match (pattern.get(p), star) {
            (Some(b'*'), _) => {
                star = Some((p, n));
                p += 1;
            }
            (Some(c), _) if *c == b'?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            (_, Some((at, tried))) => {
                star = Some((at, tried + 1));
                p = at + 1;
                n = tried + 1;
            }
            (_, None) => return false,
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_expand_as_in_a_shell() {
        let expanded = braces("a/{x,y}-{08..10}.tar").expect("a pattern");
        let all = ["x-08", "x-09", "x-10", "y-08", "y-09", "y-10"];
        assert_eq!(expanded, all.map(|name| format!("a/{name}.tar")));
        assert_eq!(braces("plain.tar").expect("no pattern"), ["plain.tar"]);
        for (wrong, says) in [
            ("{1..", "without its }"),
            ("{a..c}", "expected {000..099}"),
            ("{9..1}", "comes after"),
            ("{0..100000}", "more than"),
            ("{0..999}{0..999}", "more than"),
        ] {
            let problem = braces(wrong).expect_err(wrong);
            assert!(problem.contains(says), "{problem}");
        }
    }

    #[test]
    fn stars_and_question_marks_match_as_in_a_shell() {
        for (pattern, name, fits) in [
            ("*.tar", "a.tar", true),
            ("*.tar", "a.tar.gz", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("00?.tar", "007.tar", true),
            ("00?.tar", "00.tar", false),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), name.as_bytes()),
                fits,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn what_a_pattern_names_must_be_there() {
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["1.tar", "0.tar", "x{1}.tar"] {
            fs_err::write(dir.path().join(name), "").expect("written");
        }
        let names = |pattern: &str| {
            let found = expand(&dir.path().join(pattern))?;
            let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_owned();
            Ok::<Vec<_>, PairsError>(found.iter().map(name).collect())
        };
        assert_eq!(names("{0..1}.tar").expect("both"), ["0.tar", "1.tar"]);
        assert_eq!(names("?.tar").expect("both"), ["0.tar", "1.tar"]);
        assert_eq!(names("x{1}.tar").expect("itself"), ["x{1}.tar"]);
        let missing = names("{0..2}.tar").expect_err("one is missing").to_string();
        assert!(missing.contains("2.tar"), "{missing}");
        let none = names("y*.tar").expect_err("none").to_string();
        assert!(none.contains("there is no file"), "{none}");
    }
}
