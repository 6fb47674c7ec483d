//! Pictures and their captions, out of a table, of JSON lines, or of a folder.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsStr,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use walkdir::WalkDir;

use crate::{
    args::EvalRetrievalArgs,
    walk::{self, Failure},
};

/// What the column with captions is called, where nobody says.
const CAPTION_COLUMNS: [&str; 2] = ["caption", "text"];

/// A picture and what it shows, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captioned {
    /// Its file.
    pub path: PathBuf,
    /// At least one, each once.
    pub captions: Vec<String>,
}

/// All pairs, each picture once, in the order in which they came.
#[derive(Debug, Default)]
pub struct Pairs {
    /// The pictures.
    pub pictures: Vec<Captioned>,
    /// What cannot be a pair.
    pub failed: Vec<Failure>,
    places: HashMap<PathBuf, usize>,
}

/// Reads all pairs. Pictures are not opened.
///
/// # Errors
/// When the file or folder cannot be read, a column is missing, a row lacks its picture or its
/// caption, or there is no pair at all.
pub fn read(args: &EvalRetrievalArgs) -> Result<Pairs> {
    let path = &args.path;
    let ending = path.extension().map(OsStr::to_ascii_lowercase);
    let pairs = match ending.as_deref().and_then(OsStr::to_str) {
        _ if path.is_dir() => folder(path),
        Some("csv") => table(args, b',')?,
        Some("tsv") => table(args, b'\t')?,
        Some("jsonl" | "ndjson") => lines(args)?,
        _ => bail!(
            "{}: expected a folder, or a file that ends in .csv, .tsv or .jsonl",
            path.display()
        ),
    };
    if pairs.pictures.is_empty() {
        bail!("{} has no picture with a caption", path.display());
    }
    Ok(pairs)
}

impl Pairs {
    fn add(&mut self, path: PathBuf, caption: &str) {
        // One picture, however it is written down. What is not there is noticed when it is read.
        let path = fs_err::canonicalize(&path).unwrap_or(path);
        let place = *self.places.entry(path.clone()).or_insert_with(|| {
            self.pictures.push(Captioned {
                path,
                captions: Vec::new(),
            });
            self.pictures.len() - 1
        });
        let captions = &mut self.pictures[place].captions;
        if !captions.iter().any(|known| known == caption) {
            captions.push(caption.to_owned());
        }
    }
}

fn table(args: &EvalRetrievalArgs, delimiter: u8) -> Result<Pairs> {
    let path = &args.path;
    let file = fs_err::File::open(path)?;
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .from_reader(file);
    let headers = reader
        .headers()
        .with_context(|| path.display().to_string())?;
    let names: Vec<String> = headers
        .iter()
        .map(|name| name.trim().trim_start_matches('\u{feff}').to_owned())
        .collect();
    let find = |column: &str| names.iter().position(|name| name == column);
    let missing = |column: &str, option: &str| {
        let (path, has) = (path.display(), names.join(", "));
        format!("{path} has no column {column:?}, it has {has}: name one with {option}")
    };
    let image = find(&args.image_column);
    let image = image.with_context(|| missing(&args.image_column, "--image-column"))?;
    let caption = match &args.caption_column {
        Some(column) => find(column),
        None => CAPTION_COLUMNS.iter().find_map(|column| find(column)),
    };
    let wanted = args.caption_column.as_deref().unwrap_or(CAPTION_COLUMNS[0]);
    let caption = caption.with_context(|| missing(wanted, "--caption-column"))?;
    let mut pairs = Pairs::default();
    for record in reader.records() {
        let record = record.with_context(|| path.display().to_string())?;
        let line = record.position().map_or(0, csv::Position::line);
        let cell = |i: usize| record.get(i).unwrap_or_default().trim();
        pairs.add(
            picture(path, line, cell(image))?,
            words(path, line, cell(caption))?,
        );
    }
    Ok(pairs)
}

fn lines(args: &EvalRetrievalArgs) -> Result<Pairs> {
    let path = &args.path;
    let reader = BufReader::new(fs_err::File::open(path)?);
    let mut pairs = Pairs::default();
    for (text, line) in reader.lines().zip(1..) {
        let text = text?;
        if text.trim().is_empty() {
            continue;
        }
        let row: Map<String, Value> = serde_json::from_str(&text)
            .with_context(|| format!("{}, line {line}: expected a JSON object", path.display()))?;
        let key = |key: &str, option: &str| {
            let has: Vec<&str> = row.keys().map(String::as_str).collect();
            let (path, has) = (path.display(), has.join(", "));
            format!("{path}, line {line} has no {key:?}, it has {has}: name one with {option}")
        };
        let image = row.get(&args.image_column);
        let image = image.with_context(|| key(&args.image_column, "--image-column"))?;
        let caption = match &args.caption_column {
            Some(column) => row.get(column),
            None => CAPTION_COLUMNS.iter().find_map(|column| row.get(*column)),
        };
        let wanted = args.caption_column.as_deref().unwrap_or(CAPTION_COLUMNS[0]);
        let caption = caption.with_context(|| key(wanted, "--caption-column"))?;
        let image = picture(path, line, image.as_str().unwrap_or_default())?;
        let captions = match caption {
            Value::Array(captions) => captions.as_slice(),
            one => std::slice::from_ref(one),
        };
        if captions.is_empty() {
            words(path, line, "")?;
        }
        for caption in captions {
            let caption = words(path, line, caption.as_str().unwrap_or_default())?;
            pairs.add(image.clone(), caption);
        }
    }
    Ok(pairs)
}

/// The path in a row, which is relative to the file.
fn picture(file: &Path, line: u64, cell: &str) -> Result<PathBuf> {
    if cell.is_empty() {
        bail!(
            "{}, line {line}: a caption without a picture",
            file.display()
        );
    }
    Ok(file.parent().unwrap_or(Path::new("")).join(cell))
}

fn words<'a>(file: &Path, line: u64, cell: &'a str) -> Result<&'a str> {
    let cell = cell.trim();
    if cell.is_empty() {
        bail!(
            "{}, line {line}: a picture without a caption",
            file.display()
        );
    }
    Ok(cell)
}

fn folder(root: &Path) -> Pairs {
    let mut pairs = Pairs::default();
    let mut failed = Vec::new();
    let mut fail = |path: &Path, reason: &str| {
        failed.push(Failure {
            path: path.display().to_string(),
            reason: reason.to_owned(),
        });
    };
    let (mut pictures, mut texts) = (Vec::new(), BTreeSet::new());
    let walk = WalkDir::new(root).follow_links(true).sort_by_file_name();
    for entry in walk.into_iter().filter_entry(walk::is_shown) {
        match entry {
            Ok(entry) if !entry.file_type().is_file() => {}
            Ok(entry) if entry.path().extension() == Some(OsStr::new("txt")) => {
                texts.insert(entry.into_path());
            }
            Ok(entry) if walk::is_named_like_a_picture(entry.path()) => {
                pictures.push(entry.into_path());
            }
            Ok(_) => {}
            Err(error) => fail(error.path().unwrap_or(root), &error.to_string()),
        }
    }
    let mut alone = texts.clone();
    for picture in pictures {
        let text = picture.with_extension("txt");
        alone.remove(&text);
        if !texts.contains(&text) {
            fail(
                &picture,
                "a picture without a caption: there is no .txt beside it",
            );
            continue;
        }
        match fs_err::read_to_string(&text) {
            Ok(words) if words.trim().is_empty() => fail(&text, "there is no caption in it"),
            Ok(words) => {
                let captions = words.lines().map(str::trim).filter(|line| !line.is_empty());
                captions.for_each(|caption| pairs.add(picture.clone(), caption));
            }
            Err(error) => fail(&text, &error.to_string()),
        }
    }
    for text in alone {
        fail(&text, "a caption without a picture");
    }
    pairs.failed = failed;
    pairs
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command, EvalCommand};

    /// Pairs of a file with these contents, as `name: caption, caption`.
    fn read_as(name: &str, contents: &str, more: &[&str]) -> Result<Vec<String>> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(name);
        fs_err::write(&path, contents).expect("written");
        read_at(&path, more).map(|pairs| described(&pairs))
    }

    fn read_at(path: &Path, more: &[&str]) -> Result<Pairs> {
        let path = path.to_str().expect("UTF-8");
        let command = ["diptych", "eval", "retrieval", path];
        let cli = Cli::try_parse_from(command.iter().chain(more)).expect("parses");
        match cli.command {
            Command::Eval(EvalCommand::Retrieval(args)) => read(&args),
            other => panic!("{other:?}"),
        }
    }

    fn described(pairs: &Pairs) -> Vec<String> {
        let one = |picture: &Captioned| {
            let name = picture.path.file_name().expect("has one").to_string_lossy();
            format!("{name}: {}", picture.captions.join(", "))
        };
        pairs.pictures.iter().map(one).collect()
    }

    #[test]
    fn rows_of_one_picture_are_its_captions() {
        let csv = "caption,image\n\"a \"\"big\"\" dog\",a.png\na cat,b.png\n a hound ,a.png\na cat,b.png\n";
        let read = read_as("x.csv", csv, &[]).expect("fine");
        assert_eq!(read, ["a.png: a \"big\" dog, a hound", "b.png: a cat"]);
        let tsv = "\u{feff}file\ttext\na.png\ta, b\n";
        let read = read_as("x.tsv", tsv, &["--image-column", "file"]).expect("fine");
        assert_eq!(read, ["a.png: a, b"]);
        let json = "{\"image\": \"a.png\", \"text\": [\"x\", \"y\"]}\n\n{\"image\": \"a.png\", \"text\": \"z\"}\n";
        assert_eq!(
            read_as("x.jsonl", json, &[]).expect("fine"),
            ["a.png: x, y, z"]
        );
    }

    #[test]
    fn what_is_missing_is_named_with_its_line() {
        let refused = |name, contents, more: &[&str]| {
            let error = read_as(name, contents, more).expect_err("is refused");
            format!("{error:#}")
        };
        assert!(refused("x.csv", "img,caption\n", &[]).contains("no column \"image\", it has img"));
        assert!(refused("x.csv", "image,title\na,b\n", &[]).contains("--caption-column"));
        assert!(
            refused("x.csv", "image,text\n,b\n", &[])
                .contains("line 2: a caption without a picture")
        );
        assert!(
            refused("x.csv", "image,text\na,\n", &[])
                .contains("line 2: a picture without a caption")
        );
        assert!(refused("x.csv", "image,text\na\n", &[]).contains("x.csv"));
        assert!(refused("x.csv", "image,text\n", &[]).contains("no picture with a caption"));
        assert!(refused("x.jsonl", "{\"image\": 3, \"text\": \"a\"}\n", &[]).contains("line 1"));
        assert!(refused("x.jsonl", "{\"image\": \"a\", \"text\": []}\n", &[]).contains("line 1"));
        assert!(refused("x.jsonl", "[]\n", &[]).contains("JSON object"));
        assert!(refused("x.dat", "", &[]).contains("expected a folder"));
    }

    #[test]
    fn a_folder_pairs_files_of_one_name_and_lists_the_others() {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, contents) in [
            ("a.png", "x"),
            ("a.txt", "one\n\ntwo\n"),
            ("b.png", "x"),
            ("c.txt", "alone"),
            ("d.jpg", "x"),
            ("d.txt", " \n"),
        ] {
            fs_err::write(dir.path().join(name), contents).expect("written");
        }
        let pairs = read_at(dir.path(), &[]).expect("fine");
        assert_eq!(described(&pairs), ["a.png: one, two"]);
        let failed: Vec<&str> = pairs.failed.iter().map(|f| f.reason.as_str()).collect();
        assert_eq!(failed.len(), 3, "{failed:?}");
        assert!(
            failed[0].contains("picture without a caption"),
            "{failed:?}"
        );
        assert!(failed[1].contains("no caption in it"), "{failed:?}");
        assert!(
            failed[2].contains("caption without a picture"),
            "{failed:?}"
        );
    }
}
