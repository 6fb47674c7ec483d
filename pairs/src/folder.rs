//! A folder of pictures, with captions in `.txt` files beside them.

use std::{collections::BTreeSet, ffi::OsStr, path::Path};

use walkdir::WalkDir;

use crate::{
    is_named_like_a_picture, is_shown,
    reader::{List, captions, relative},
};

pub(crate) fn read(root: &Path, list: &mut List) {
    let (mut pictures, mut texts) = (Vec::new(), BTreeSet::new());
    let walk = WalkDir::new(root).follow_links(true).sort_by_file_name();
    for entry in walk.into_iter().filter_entry(is_shown) {
        match entry {
            Ok(entry) if !entry.file_type().is_file() => {}
            Ok(entry) if entry.path().extension() == Some(OsStr::new("txt")) => {
                texts.insert(entry.into_path());
            }
            Ok(entry) if is_named_like_a_picture(entry.path()) => pictures.push(entry.into_path()),
            Ok(_) => {}
            Err(error) => {
                let path = error.path().unwrap_or(root).display().to_string();
                list.skip(&path, error.to_string());
            }
        }
    }
    let mut alone = texts.clone();
    for picture in pictures {
        let text = picture.with_extension("txt");
        alone.remove(&text);
        if !texts.contains(&text) {
            let reason = "a picture without a caption: there is no .txt beside it";
            list.skip(&picture.display(), reason);
            continue;
        }
        match fs_err::read_to_string(&text) {
            Ok(words) if words.trim().is_empty() => {
                list.skip(&text.display(), "there is no caption in it");
            }
            Ok(words) => {
                let id = relative(&picture, root);
                captions(&words).for_each(|caption| list.add_file(picture.clone(), &id, caption));
            }
            Err(error) => list.skip(&text.display(), error.to_string()),
        }
    }
    for text in alone {
        list.skip(&text.display(), "a caption without a picture");
    }
}

#[cfg(test)]
mod tests {
    use crate::{Source, read};

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
        let pairs = read(&[Source::new(dir.path())]).expect("fine");
        assert_eq!(pairs.pictures.len(), 1);
        assert_eq!(&*pairs.pictures[0].id, "a.png");
        assert_eq!(pairs.pictures[0].captions, ["one", "two"]);
        let reasons: Vec<&str> = pairs.skipped.iter().map(|s| s.reason.as_str()).collect();
        assert_eq!(reasons.len(), 3, "{reasons:?}");
        assert!(reasons[0].contains("picture without a caption"));
        assert!(reasons[1].contains("no caption in it"), "{reasons:?}");
        assert!(
            reasons[2].contains("caption without a picture"),
            "{reasons:?}"
        );
    }
}
