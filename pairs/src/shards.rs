//! Shards in the form of `WebDataset`: tar files whose members of one name, up to its first dot, belong
//! together: a picture, and its captions as `.txt` (each line is one) or in a field of `.json`.
//!
//! A shard is walked once, from head to head; pictures are read later by their place.

use std::{
    collections::HashMap,
    io::{Read, Seek},
    path::Path,
    sync::Arc,
};

use serde_json::{Map, Value};

use crate::{
    Captioned, Location, PairsError, READ, Source,
    reader::{List, captions},
    table::strings,
};

/// Longest `.txt` or `.json` that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// The members of one name.
#[derive(Default)]
struct Sample {
    picture: Option<(Box<str>, u64, u64)>,
    captions: Vec<String>,
    /// What is wrong with what would be its captions.
    problem: Option<String>,
}

pub(crate) fn read(path: &Path, source: &Source, list: &mut List) -> Result<(), PairsError> {
    let shard: Arc<Path> = fs_err::canonicalize(path)?.into();
    let file = fs_err::File::open(path)?;
    let length = file.metadata()?.len();
    let mut samples = Samples::default();
    // What is whole before the damage is used.
    if let Err(error) = walk(file, length, source, &mut samples) {
        list.skip(&path.display(), format!("ends early: {error}"));
    }
    let stem = path.file_name().unwrap_or_default().to_string_lossy();
    for (key, sample) in samples.order.into_iter().zip(samples.all) {
        let at = || format!("{}, {key}", path.display());
        match sample {
            Sample {
                picture: Some((name, offset, bytes)),
                captions,
                ..
            } if !captions.is_empty() => list.add_member(Captioned {
                location: Location::Member {
                    shard: Arc::clone(&shard),
                    name,
                    offset,
                    bytes,
                },
                id: format!("{stem}/{key}").into(),
                captions,
            }),
            Sample { picture: None, .. } => list.skip(&at(), "a caption without a picture"),
            Sample { problem, .. } => {
                let none = "a picture without a caption: there is no .txt and no .json of its name";
                list.skip(&at(), problem.unwrap_or_else(|| none.to_owned()));
            }
        }
    }
    Ok(())
}

#[derive(Default)]
struct Samples {
    places: HashMap<String, usize>,
    order: Vec<String>,
    all: Vec<Sample>,
}

impl Samples {
    fn of(&mut self, key: &str) -> &mut Sample {
        let known = self.places.get(key).copied();
        let place = known.unwrap_or_else(|| {
            self.places.insert(key.to_owned(), self.all.len());
            self.order.push(key.to_owned());
            self.all.push(Sample::default());
            self.all.len() - 1
        });
        &mut self.all[place]
    }
}

fn walk(
    file: impl Read + Seek,
    length: u64,
    source: &Source,
    samples: &mut Samples,
) -> std::io::Result<()> {
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek()? {
        let mut entry = entry?;
        // Links and sparse files have no contents of their own in one piece.
        if entry.header().entry_type() != tar::EntryType::Regular {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let Some((key, ending)) = split(&name) else {
            continue;
        };
        let ending = ending.to_ascii_lowercase();
        let (offset, bytes) = (entry.raw_file_position(), entry.size());
        if offset.checked_add(bytes).is_none_or(|end| end > length) {
            let problem = format!("{name} should end behind the end of the file");
            return Err(std::io::Error::other(problem));
        }
        let is_picture = READ.contains(&ending.as_str());
        if is_picture {
            let sample = samples.of(key);
            // Of several pictures of one name the first counts.
            sample
                .picture
                .get_or_insert((name.as_str().into(), offset, bytes));
            continue;
        }
        if ending != "txt" && ending != "json" {
            continue;
        }
        let sample = samples.of(key);
        if bytes > LONGEST {
            let problem = format!("{name} has {bytes} bytes, at most {LONGEST} are allowed");
            sample.problem = Some(problem);
            continue;
        }
        let mut text = Vec::with_capacity(bytes as usize);
        entry.read_to_end(&mut text)?;
        let found = words(&text, ending == "json", source);
        match found {
            Ok(found) => {
                for caption in found {
                    if !sample.captions.contains(&caption) {
                        sample.captions.push(caption);
                    }
                }
            }
            Err(problem) => sample.problem = Some(format!("{name} {problem}")),
        }
    }
    Ok(())
}

/// What members have in common and what tells them apart: a name up to and behind its first dot.
fn split(name: &str) -> Option<(&str, &str)> {
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = start + name[start..].find('.')?;
    // Hidden files, and those that macOS adds, begin with a dot.
    (dot > start).then(|| (&name[..dot], &name[dot + 1..]))
}

/// Captions in a text or in an object; what is wrong where there is none.
fn words(contents: &[u8], json: bool, source: &Source) -> Result<Vec<String>, String> {
    let text = std::str::from_utf8(contents).map_err(|e| format!("is not UTF-8: {e}"))?;
    let found: Vec<String> = if json {
        let row: Map<String, Value> =
            serde_json::from_str(text).map_err(|e| format!("is no JSON object: {e}"))?;
        let keys = source.caption_columns();
        let value = keys.iter().find_map(|key| row.get(*key));
        let value = value.ok_or_else(|| format!("has no {:?}", keys.join("\" or \"")))?;
        let all = strings(value).into_iter().map(str::trim);
        all.filter(|c| !c.is_empty()).map(str::to_owned).collect()
    } else {
        captions(text).map(str::to_owned).collect()
    };
    if found.is_empty() {
        return Err("has no caption in it".to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Pairs, read};

    /// A tar file of members.
    fn shard(path: &Path, members: &[(&str, &[u8])]) {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, contents) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(contents.len() as u64);
            header.set_mode(0o644);
            builder
                .append_data(&mut header, name, *contents)
                .expect("a member");
        }
        fs_err::write(path, builder.into_inner().expect("whole")).expect("written");
    }

    fn described(pairs: &Pairs) -> Vec<String> {
        let one = |p: &Captioned| {
            let bytes = p.location.read(100).expect("is there");
            let bytes = String::from_utf8_lossy(&bytes).into_owned();
            format!("{}: {} = {bytes}", p.id, p.captions.join(", "))
        };
        pairs.pictures.iter().map(one).collect()
    }

    #[test]
    fn members_of_one_name_belong_together_and_are_read_by_their_place() {
        let dir = tempfile::tempdir().expect("a folder");
        let long = format!("{}/c.jpeg", "folder".repeat(30));
        let long_text = long.replace("jpeg", "txt");
        shard(
            &dir.path().join("0.tar"),
            &[
                ("a.jpg", b"first"),
                ("a.json", br#"{"caption": ["x", "y"], "url": "u"}"#),
                ("a.txt", b"x\n\nz\n"),
                ("d/b.seg.png", b"mask"),
                ("d/b.txt", b"words"),
                ("d/b.PNG", b"second"),
                (&long, b"third"),
                (&long_text, b"far"),
                ("e.txt", b"alone"),
                ("f.png", b"mute"),
                ("g.png", b"no json"),
                ("g.json", b"[]"),
                ("._h.png", b"of macOS"),
            ],
        );
        shard(
            &dir.path().join("1.tar"),
            &[("a.txt", b"other"), ("a.webp", b"fourth")],
        );
        let pairs = read(&[Source::new(dir.path().join("{0..1}.tar"))]).expect("reads");
        let far = long.strip_suffix(".jpeg").expect("made so");
        assert_eq!(
            described(&pairs),
            [
                "0.tar/a: x, y, z = first",
                "0.tar/d/b: words = second",
                &format!("0.tar/{far}: far = third"),
                "1.tar/a: other = fourth",
            ]
        );
        let reasons: Vec<&str> = pairs.skipped.iter().map(|s| s.reason.as_str()).collect();
        assert_eq!(reasons.len(), 3, "{reasons:?}");
        assert!(reasons[0].starts_with("a caption without"), "{reasons:?}");
        assert!(reasons[1].starts_with("a picture without"), "{reasons:?}");
        assert!(
            reasons[2].starts_with("g.json is no JSON object"),
            "{reasons:?}"
        );
    }

    #[test]
    fn the_field_of_captions_can_be_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.tar");
        shard(
            &path,
            &[("a.jpg", b"x"), ("a.json", br#"{"alt": "a dog"}"#)],
        );
        let mut source = Source::new(path);
        let refused = read(&[source.clone()]).expect_err("is refused").to_string();
        assert!(refused.contains("a.json has no \"caption"), "{refused}");
        source.caption_column = Some("alt".to_owned());
        let pairs = read(&[source]).expect("reads");
        assert_eq!(pairs.pictures[0].captions, ["a dog"]);
    }

    #[test]
    fn what_is_whole_in_a_shard_that_ends_early_is_used_and_the_rest_is_said() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.tar");
        let big = vec![b'x'; 2000];
        shard(
            &path,
            &[
                ("a.jpg", b"x"),
                ("a.txt", b"a"),
                ("b.txt", b"b"),
                ("b.jpg", &big),
            ],
        );
        let bytes = fs_err::read(&path).expect("written");
        // 2,000 bytes that fill up four blocks, and the two that end a file.
        fs_err::write(&path, &bytes[..bytes.len() - 1024 - 600]).expect("written");
        let pairs = read(&[Source::new(&path)]).expect("reads");
        assert_eq!(pairs.pictures.len(), 1);
        let first = &pairs.skipped[0];
        assert!(first.reason.contains("b.jpg should end"), "{first:?}");

        fs_err::write(&path, "this is no archive at all".repeat(100)).expect("written");
        let refused = read(&[Source::new(&path)])
            .expect_err("is refused")
            .to_string();
        assert!(refused.contains("ends early"), "{refused}");
        let packed = read(&[Source::new("x.tar.gz")]).expect_err("is refused");
        assert!(packed.to_string().contains("compressed"), "{packed}");
    }
}
