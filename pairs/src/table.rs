//! Rows of a CSV or TSV, and JSON lines.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use crate::{PairsError, Source, reader::List};

const IMAGE_OPTION: &str = "--image-column, or image_column in a configuration";
pub(crate) const CAPTION_OPTION: &str = "--caption-column, or caption_column in a configuration";

pub(crate) fn read_table(
    source: &Source,
    delimiter: u8,
    list: &mut List,
) -> Result<(), PairsError> {
    let path = &source.path;
    let damaged = |source: csv::Error| PairsError::Table {
        file: path.clone(),
        source,
    };
    let file = fs_err::File::open(path)?;
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .from_reader(file);
    let names: Vec<String> = reader
        .headers()
        .map_err(damaged)?
        .iter()
        .map(|name| name.trim().trim_start_matches('\u{feff}').to_owned())
        .collect();
    let find = |columns: &[&str], option: &'static str| {
        let mut found = columns
            .iter()
            .filter_map(|column| names.iter().position(|name| name == column));
        found.next().ok_or_else(|| PairsError::Column {
            place: path.display().to_string(),
            which: "column",
            column: columns.first().copied().unwrap_or_default().to_owned(),
            has: names.clone(),
            option,
        })
    };
    let image = find(&[&source.image_column], IMAGE_OPTION)?;
    let caption = find(&source.caption_columns(), CAPTION_OPTION)?;
    for record in reader.records() {
        let record = record.map_err(damaged)?;
        let line = record.position().map_or(0, csv::Position::line);
        let cell = |i: usize| record.get(i).unwrap_or_default().trim();
        let picture = picture(path, line, cell(image))?;
        let caption = words(path, line, cell(caption))?;
        list.add_file(picture, cell(image), caption);
    }
    Ok(())
}

pub(crate) fn read_lines(source: &Source, list: &mut List) -> Result<(), PairsError> {
    let path = &source.path;
    let reader = BufReader::new(fs_err::File::open(path)?);
    for (text, line) in reader.lines().zip(1..) {
        let text = text?;
        if text.trim().is_empty() {
            continue;
        }
        let row: Map<String, Value> =
            serde_json::from_str(&text).map_err(|source| PairsError::Line {
                file: path.clone(),
                line,
                source,
            })?;
        let place = || format!("{}, line {line}", path.display());
        let image = value(&row, &[&source.image_column], IMAGE_OPTION, place)?;
        let caption = value(&row, &source.caption_columns(), CAPTION_OPTION, place)?;
        let image = image.as_str().unwrap_or_default();
        let file = picture(path, line, image)?;
        let captions = strings(caption);
        if captions.is_empty() {
            words(path, line, "")?;
        }
        for caption in captions {
            list.add_file(file.clone(), image, words(path, line, caption)?);
        }
    }
    Ok(())
}

/// What one of `keys` holds.
fn value<'a>(
    row: &'a Map<String, Value>,
    keys: &[&str],
    option: &'static str,
    place: impl Fn() -> String,
) -> Result<&'a Value, PairsError> {
    let mut found = keys.iter().filter_map(|key| row.get(*key));
    found.next().ok_or_else(|| PairsError::Column {
        place: place(),
        which: "key",
        column: keys.first().copied().unwrap_or_default().to_owned(),
        has: row.keys().cloned().collect(),
        option,
    })
}

/// A caption or a list of captions; what is no text is an empty one.
pub(crate) fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(all) => all.iter().map(|v| v.as_str().unwrap_or_default()).collect(),
        one => vec![one.as_str().unwrap_or_default()],
    }
}

/// The path in a row, which is relative to the file.
fn picture(file: &Path, line: u64, cell: &str) -> Result<PathBuf, PairsError> {
    if cell.is_empty() {
        return Err(PairsError::Row {
            file: file.to_owned(),
            line,
            problem: "a caption without a picture",
        });
    }
    Ok(file.parent().unwrap_or(Path::new("")).join(cell))
}

fn words<'a>(file: &Path, line: u64, cell: &'a str) -> Result<&'a str, PairsError> {
    let cell = cell.trim();
    if cell.is_empty() {
        return Err(PairsError::Row {
            file: file.to_owned(),
            line,
            problem: "a picture without a caption",
        });
    }
    Ok(cell)
}

#[cfg(test)]
mod tests {
    use crate::{Captioned, Pairs, PairsError, Source, read};

    /// Pairs of a file with these contents, as `name: caption, caption`.
    fn read_as(
        name: &str,
        contents: &str,
        change: fn(&mut Source),
    ) -> Result<Vec<String>, PairsError> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(name);
        fs_err::write(&path, contents).expect("written");
        let mut source = Source::new(path);
        change(&mut source);
        read(&[source]).map(|pairs| described(&pairs))
    }

    fn described(pairs: &Pairs) -> Vec<String> {
        let one = |picture: &Captioned| {
            let name = picture.location.name();
            format!("{name}: {}", picture.captions.join(", "))
        };
        pairs.pictures.iter().map(one).collect()
    }

    fn as_it_is(_: &mut Source) {}

    #[test]
    fn rows_of_one_picture_are_its_captions() {
        let csv = "caption,image\n\"a \"\"big\"\" dog\",a.png\na cat,b.png\n a hound ,a.png\na cat,b.png\n";
        let read = read_as("x.csv", csv, as_it_is).expect("fine");
        assert_eq!(read, ["a.png: a \"big\" dog, a hound", "b.png: a cat"]);
        let tsv = "\u{feff}file\ttext\na.png\ta, b\n";
        let column = |source: &mut Source| source.image_column = "file".to_owned();
        let read = read_as("x.tsv", tsv, column).expect("fine");
        assert_eq!(read, ["a.png: a, b"]);
        let json = "{\"image\": \"a.png\", \"text\": [\"x\", \"y\"]}\n\n{\"image\": \"a.png\", \"text\": \"z\"}\n";
        assert_eq!(
            read_as("x.jsonl", json, as_it_is).expect("fine"),
            ["a.png: x, y, z"]
        );
    }

    #[test]
    fn what_is_missing_is_named_with_its_line() {
        let refused = |name, contents| {
            let error = read_as(name, contents, as_it_is).expect_err("is refused");
            error.to_string()
        };
        assert!(refused("x.csv", "img,caption\n").contains("no column \"image\", it has img"));
        assert!(refused("x.csv", "image,title\na,b\n").contains("--caption-column"));
        assert!(
            refused("x.csv", "image,text\n,b\n").contains("line 2: a caption without a picture")
        );
        assert!(
            refused("x.csv", "image,text\na,\n").contains("line 2: a picture without a caption")
        );
        assert!(refused("x.csv", "image,text\na\n").contains("x.csv"));
        assert!(refused("x.csv", "image,text\n").contains("no picture with a caption"));
        assert!(refused("x.jsonl", "{\"image\": 3, \"text\": \"a\"}\n").contains("line 1"));
        assert!(refused("x.jsonl", "{\"image\": \"a\", \"text\": []}\n").contains("line 1"));
        assert!(refused("x.jsonl", "[]\n").contains("JSON object"));
        assert!(refused("x.dat", "").contains("expected a folder"));
    }

    #[test]
    fn two_sources_of_one_picture_are_one_picture() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        fs_err::write(at("a.png"), "x").expect("written");
        fs_err::write(at("a.txt"), "one\ntwo\n").expect("written");
        fs_err::write(at("x.csv"), "image,text\na.png,two\n./a.png,three\n").expect("written");
        let pairs = read(&[Source::new(dir.path()), Source::new(at("x.csv"))]).expect("fine");
        assert_eq!(described(&pairs), ["a.png: one, two, three"]);
        assert_eq!(&*pairs.pictures[0].id, "a.png");
    }
}
