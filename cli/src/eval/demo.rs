//! `diptych eval demo`: recall of a model on the bundled gallery.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};
use embedding::{Embedding, Encoded, Fingerprint};
use encoders::{Model, Pixels};
use engine::metrics::{image_retrieval_recall, recall_at_k, text_retrieval_recall};
use serde::Serialize;

use super::{
    hands::{self, ByHand},
    words::{self, ByWords},
};
use crate::{
    args::{EvalDemoArgs, Places},
    gallery::{self, Entry},
    home, inputs, output, pipeline,
};

/// Where recall is measured.
pub(super) const KS: [usize; 3] = [1, 5, 10];

/// Natural wordings of a name. No training of ours used any of them as a whole
/// sentence.
const CARRIERS: [&str; 3] = ["photo with {} in it", "show me {}", "{} please"];

/// Figures by name.
pub(super) type Figures = BTreeMap<String, f64>;

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    fingerprint: Fingerprint,
    pictures: Sizes,
    /// Names as queries, and pictures as queries, over all pictures.
    full: Figures,
    /// The same without skin-tone variants, neither as queries nor in the gallery.
    base: Figures,
    /// Names in natural wordings as queries, by wording.
    carriers: BTreeMap<&'static str, Pair>,
    carriers_mean: Pair,
    /// The mean over the wordings divided by the figure of plain names.
    carriers_ratio: Pair,
    /// Keywords, and names in other languages, as queries, without skin-tone variants.
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<ByWords>,
    /// Drawings by other hands as queries, by folder.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    drawings: BTreeMap<String, ByHand>,
}

#[derive(Debug, Serialize)]
struct Sizes {
    full: usize,
    base: usize,
}

#[derive(Debug, Serialize)]
struct Pair {
    full: Figures,
    base: Figures,
}

/// Measures and prints.
///
/// # Errors
/// When the model cannot be used.
pub fn run(places: &Places, args: &EvalDemoArgs) -> Result<()> {
    let model = home::model(places)?;
    let entries = gallery::entries();
    // From the very files that `demo` writes.
    let draw = |entry: &Entry| gallery::pixels(entry, &model).map(|(_, pixels)| pixels);
    let encoded = encode_pictures("encoding pictures", &entries, &model, draw)?;
    let drawings = hands::measure(&args.drawings, &entries, &encoded, &model)?;
    let pictures: Vec<Embedding> = encoded.into_iter().map(|one| one.shared).collect();
    let names = encode_names(&entries, "{}", &model)?;
    let full = Gallery::new(&entries, &pictures, |_| true);
    let base = Gallery::new(&entries, &pictures, |entry| !entry.skin_tone);
    let mut carriers = BTreeMap::new();
    for wording in CARRIERS {
        let names = encode_names(&entries, wording, &model)?;
        carriers.insert(
            wording,
            Pair {
                full: full.by_name(&names),
                base: base.by_name(&names),
            },
        );
    }
    let mut plain = Pair {
        full: full.by_name(&names),
        base: base.by_name(&names),
    };
    let carriers_mean = Pair {
        full: mean(carriers.values().map(|pair| &pair.full)),
        base: mean(carriers.values().map(|pair| &pair.base)),
    };
    let carriers_ratio = Pair {
        full: ratio(&carriers_mean.full, &plain.full),
        base: ratio(&carriers_mean.base, &plain.base),
    };
    plain.full.extend(full.by_picture(&names));
    plain.base.extend(base.by_picture(&names));
    let own: Vec<&Entry> = base.rows.iter().map(|row| &entries[*row]).collect();
    let words = args.words.as_deref();
    let words = words.map(|file| words::measure(file, &own, &base.pictures, &model));
    let spaces = model.spaces();
    let report = Report {
        model: spaces.model.clone(),
        fingerprint: spaces.fingerprint,
        pictures: Sizes {
            full: full.rows.len(),
            base: base.rows.len(),
        },
        full: plain.full,
        base: plain.base,
        carriers,
        carriers_mean,
        carriers_ratio,
        words: words.transpose()?,
        drawings,
    };
    if args.json {
        Ok(output::json(&report)?)
    } else {
        print(&report)
    }
}

/// Embeddings of pictures, in the order of `inputs`; `what` is told while it goes on.
pub(super) fn encode_pictures<I: Sync>(
    what: &'static str,
    inputs: &[I],
    model: &Model,
    prepare: impl Fn(&I) -> Result<Pixels> + Sync,
) -> Result<Vec<Encoded>> {
    let bar = output::progress(what, inputs.len());
    let mut embeddings: Vec<Option<Encoded>> = vec![None; inputs.len()];
    pipeline::pictures(inputs, model, prepare, |some| {
        bar.inc(some.len() as u64);
        for (row, encoded) in some {
            embeddings[row] = Some(encoded);
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    embeddings
        .into_iter()
        .collect::<Option<_>>()
        .context("a picture was not encoded")
}

/// Shared embeddings of the names in a wording, in the order of `entries`.
fn encode_names(entries: &[Entry], wording: &str, model: &Model) -> Result<Vec<Embedding>> {
    let bar = output::progress("encoding names", entries.len());
    let texts: Vec<String> = entries
        .iter()
        .map(|entry| wording.replace("{}", entry.name))
        .collect();
    let embeddings = inputs::shared_of_texts(&texts, model, |done| bar.inc(done as u64));
    bar.finish_and_clear();
    embeddings
}

/// Some of the pictures, and which of them are right for which name.
struct Gallery {
    /// Positions among all entries.
    rows: Vec<usize>,
    /// Their embeddings.
    pictures: Vec<Embedding>,
    /// For each of `rows`, the positions in `rows` that have its name: pictures that share a name
    /// are equally right for it.
    right: Vec<Vec<usize>>,
}

impl Gallery {
    fn new(entries: &[Entry], pictures: &[Embedding], is_in: impl Fn(&Entry) -> bool) -> Self {
        let rows: Vec<usize> = (0..entries.len())
            .filter(|row| is_in(&entries[*row]))
            .collect();
        let mut of_name: HashMap<&str, Vec<usize>> = HashMap::new();
        for (i, row) in rows.iter().enumerate() {
            of_name.entry(entries[*row].name).or_default().push(i);
        }
        let right = rows
            .iter()
            .map(|row| of_name[entries[*row].name].clone())
            .collect();
        let pictures = rows.iter().map(|row| pictures[*row].clone()).collect();
        Self {
            rows,
            pictures,
            right,
        }
    }

    /// Text to image.
    fn by_name(&self, names: &[Embedding]) -> Figures {
        let recall = recall_at_k(
            &self.own(names),
            &self.pictures,
            |i| self.right[i].clone(),
            &KS,
        );
        KS.iter()
            .map(|k| image_retrieval_recall(*k))
            .zip(recall)
            .collect()
    }

    /// Image to text.
    fn by_picture(&self, names: &[Embedding]) -> Figures {
        let recall = recall_at_k(
            &self.pictures,
            &self.own(names),
            |i| self.right[i].clone(),
            &KS,
        );
        KS.iter()
            .map(|k| text_retrieval_recall(*k))
            .zip(recall)
            .collect()
    }

    fn own(&self, names: &[Embedding]) -> Vec<Embedding> {
        self.rows.iter().map(|row| names[*row].clone()).collect()
    }
}

fn mean<'a>(all: impl Iterator<Item = &'a Figures>) -> Figures {
    let mut mean = Figures::new();
    for (name, figure) in all.flatten() {
        *mean.entry(name.clone()).or_default() += figure / CARRIERS.len() as f64;
    }
    mean
}

/// 0 where the plain figure is 0: nothing was kept, since there was nothing.
fn ratio(of: &Figures, to: &Figures) -> Figures {
    let ratio = |(name, figure): (&String, &f64)| {
        let plain = to.get(name).copied().unwrap_or_default();
        (name.clone(), if plain > 0.0 { figure / plain } else { 0.0 })
    };
    of.iter().map(ratio).collect()
}

fn print(report: &Report) -> Result<()> {
    let row = |gallery: &str, wording: &str, name: fn(usize) -> String, figures: &Figures| {
        let [a, b, c] = KS.map(|k| format!("{:.3}", figures.get(&name(k)).copied().unwrap_or(0.0)));
        [gallery.to_owned(), wording.to_owned(), a, b, c]
    };
    let mut rows = Vec::new();
    for (gallery, plain, part) in [
        (
            "full",
            &report.full,
            (|pair| &pair.full) as fn(&Pair) -> &Figures,
        ),
        ("base", &report.base, |pair| &pair.base),
    ] {
        rows.push(row(
            gallery,
            "name to picture",
            image_retrieval_recall,
            plain,
        ));
        rows.push(row(
            gallery,
            "picture to name",
            text_retrieval_recall,
            plain,
        ));
        for (wording, pair) in &report.carriers {
            rows.push(row(gallery, wording, image_retrieval_recall, part(pair)));
        }
        let (mean, ratio) = (part(&report.carriers_mean), part(&report.carriers_ratio));
        rows.push(row(
            gallery,
            "mean of the wordings",
            image_retrieval_recall,
            mean,
        ));
        rows.push(row(
            gallery,
            "- divided by plain names",
            image_retrieval_recall,
            ratio,
        ));
    }
    if let Some(words) = &report.words {
        let keywords = format!("{} keywords", words.keywords);
        let hits = &words.keyword_hit;
        rows.push(row("base", &keywords, words::keyword_hit, hits));
        for (language, figures) in &words.languages {
            let names = format!("names in {language}");
            rows.push(row("base", &names, image_retrieval_recall, figures));
        }
    }
    for (folder, hand) in &report.drawings {
        for (gallery, spaces) in [("full", &hand.full), ("base", &hand.base)] {
            let mut add = |space: &str, figures| {
                let what = format!("{folder}, {space}");
                rows.push(row(gallery, &what, hands::same_thing_recall, figures));
            };
            add("shared", &spaces.shared);
            if let Some(specific) = &spaces.specific {
                add("specific", specific);
            }
        }
    }
    let Sizes { full, base } = report.pictures;
    let model = &report.model;
    output::line(&format!(
        "{model}: {full} pictures (full), {base} without skin tones (base)"
    ))?;
    Ok(output::table(
        ["gallery", "queries", "recall@1", "recall@5", "recall@10"],
        &rows,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_that_share_a_name_are_equally_right_and_base_leaves_variants_out() {
        let entry = |name, skin_tone| Entry {
            codepoints: String::new(),
            emoji: "",
            name,
            svg: "",
            skin_tone,
        };
        let entries = [
            entry("a", false),
            entry("b", false),
            entry("a", false),
            entry("c", true),
        ];
        let unit = |i: usize| Embedding::normalized(vec![1.0, i as f32]).expect("has a direction");
        let pictures: Vec<Embedding> = (0..4).map(unit).collect();
        // Each name points at the other picture of its name, and b at a variant.
        let names = [unit(2), unit(3), unit(0), unit(3)];
        let base = Gallery::new(&entries, &pictures, |entry| !entry.skin_tone);
        assert_eq!(base.rows, [0, 1, 2]);
        assert!((base.by_name(&names)["image_retrieval_recall@1"] - 2.0 / 3.0).abs() < 1e-9);
        let full = Gallery::new(&entries, &pictures, |_| true);
        assert!((full.by_name(&names)["image_retrieval_recall@1"] - 3.0 / 4.0).abs() < 1e-9);
    }

    #[test]
    fn a_ratio_to_nothing_is_nothing() {
        let figures = |x| Figures::from([("r".to_owned(), x)]);
        assert_eq!(ratio(&figures(0.5), &figures(0.8)), figures(0.625));
        assert_eq!(ratio(&figures(0.5), &figures(0.0)), figures(0.0));
    }
}
