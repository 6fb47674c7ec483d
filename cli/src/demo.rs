//! `diptych demo`: the bundled gallery, indexed once and then served.

use std::{
    collections::HashMap,
    mem,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use embedding::{Encoded, Fingerprint, Modality};
use encoders::{Model, Pixels};
use engine::{Collection, Engine, Item, ItemId, Payload};
use serde::{Deserialize, Serialize};
use server::ServerConfig;

use crate::{
    args::{DemoArgs, Places},
    gallery::{self, Entry},
    home::{self, Home},
    output,
    pipeline::{self, BATCH},
    serve,
    settings::Settings,
    telemetry,
};

/// The collection that the gallery goes to.
const COLLECTION: &str = "demo";

/// What the pictures and their index take on disk, with room to spare.
const NEEDED_BYTES: u64 = 128 << 20;

/// Written when everything is in place, so that the next start need not look at every item.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    model: Fingerprint,
    gallery: String,
}

/// Indexes what is missing, then serves.
///
/// # Errors
/// When the port, the data folder or the model cannot be used.
pub fn run(places: &Places, args: &DemoArgs, settings: &Settings) -> Result<()> {
    let bind = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    if !args.no_serve {
        // Before the long work, not after it.
        server::check_port(bind)?;
    }
    let home = Home::new(places)?;
    let engine = home.open_or_create()?;
    let model = home::model(places)?;
    if args.rebuild {
        engine.delete(COLLECTION)?;
    }
    let entries = gallery::entries();
    fill(&home, &engine, &model, &entries)?;
    if args.no_serve {
        return Ok(());
    }
    let count = output::count(entries.len());
    drop(entries);
    let config = ServerConfig {
        bind,
        tls: None,
        ..serve::config(&home, settings)?
    };
    // Until the server has ended.
    let _exporting = telemetry::start(&settings.telemetry)?;
    serve::serve(config, engine, model, |address| {
        output::line(&invitation(&count, address))
    })
}

fn invitation(count: &str, address: SocketAddr) -> String {
    format!(
        "\nserving {count} pictures on http://{address}\n\n\
         three things to try:\n\
         1. open http://{address}/?collection={COLLECTION} and type: cactus\n\
         2. curl -s http://{address}/v1/collections/{COLLECTION}/search \
         -H 'content-type: application/json' -d '{{\"text\": \"rainbow\", \"k\": 3}}'\n\
         3. curl -s http://{address}/v1/classify \
         -H 'content-type: application/json' \
         -d '{{\"text\": \"a small cat\", \"labels\": [\"cat\", \"car\", \"pizza\"]}}'\n\n\
         Ctrl-C stops"
    )
}

/// Brings the collection and the pictures on disk to completion, from wherever they are.
fn fill(home: &Home, engine: &Engine, model: &Model, entries: &[Entry]) -> Result<()> {
    let start = Instant::now();
    let marker = Marker {
        model: model.spaces().fingerprint,
        gallery: hash(entries),
    };
    if engine.collection(COLLECTION).is_some() {
        // Says what to do when another model made it.
        home::collection(engine, COLLECTION, model)
            .context("to index the gallery again, run `diptych demo --rebuild`")?;
    }
    let collection = engine.create(COLLECTION, model.spaces())?;
    let folder = home.gallery();
    fs_err::create_dir_all(&folder).context("the gallery cannot be written")?;
    let marker_file = folder.join("complete.json");
    if is_complete(&collection, &folder, &marker_file, &marker, entries.len()) {
        return Ok(());
    }
    check_space(home.root())?;

    let present = present(&collection)?;
    let missing = |id: &str, hash: [u8; 32]| present.get(id) != Some(&hash);
    let names: Vec<&Entry> = entries
        .iter()
        .filter(|e| missing(&name_id(e), hash_of(e.name)))
        .collect();
    let pictures: Vec<&Entry> = entries
        .iter()
        .filter(|e| missing(&e.codepoints, hash_of(e.svg)) || !is_written(&folder, e))
        .collect();
    output::begin(&format!(
        "indexing {} pictures and {} names ...",
        output::count(pictures.len()),
        output::count(names.len()),
    ));
    index_names(&collection, model, &names)?;
    index_pictures(&collection, model, &folder, &pictures)?;
    fs_err::write(&marker_file, serde_json::to_vec(&marker)?)?;
    output::note(&format!(
        "indexed {} pictures and {} names in {:.1} s",
        output::count(pictures.len()),
        output::count(names.len()),
        start.elapsed().as_secs_f64(),
    ));
    Ok(())
}

/// Identity of the whole gallery and of how it is drawn.
fn hash(entries: &[Entry]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&gallery::SIDE.to_le_bytes());
    for entry in entries {
        for part in [&entry.codepoints, entry.name, entry.svg] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
    }
    hasher.finalize().to_hex().to_string()
}

fn is_complete(
    collection: &Arc<Collection>,
    folder: &Path,
    marker_file: &Path,
    marker: &Marker,
    entries: usize,
) -> bool {
    let bytes = fs_err::read(marker_file).unwrap_or_default();
    let written: Option<Marker> = serde_json::from_slice(&bytes).ok();
    let stats = collection.stats();
    let files = fs_err::read_dir(folder).map_or(0, Iterator::count);
    written.as_ref() == Some(marker)
        && stats.images >= entries
        && stats.texts >= entries
        && files > entries
}

fn check_space(folder: &Path) -> Result<()> {
    // Where the question is not answered, the writes themselves will tell.
    let Ok(free) = fs4::available_space(folder) else {
        return Ok(());
    };
    if free < NEEDED_BYTES {
        bail!(
            "{} has {} MiB free, the demo needs {} MiB: free some, or name another folder with --data",
            folder.display(),
            free >> 20,
            NEEDED_BYTES >> 20,
        );
    }
    Ok(())
}

/// Hash of what every item was made from.
fn present(collection: &Arc<Collection>) -> Result<HashMap<String, [u8; 32]>> {
    let mut present = HashMap::new();
    for meta in collection.metas()? {
        let meta = meta?;
        if let Some(hash) = meta.content_hash {
            present.insert(meta.id.into(), hash);
        }
    }
    Ok(present)
}

fn is_written(folder: &Path, entry: &Entry) -> bool {
    fs_err::metadata(folder.join(file_name(entry))).is_ok_and(|file| file.len() > 0)
}

fn index_names(collection: &Arc<Collection>, model: &Model, names: &[&Entry]) -> Result<()> {
    let bar = output::progress("encoding names", names.len());
    for batch in names.chunks(BATCH) {
        let texts: Vec<String> = batch.iter().map(|entry| entry.name.to_owned()).collect();
        let encoded = model.text().encode(&texts)?;
        let items = batch.iter().zip(encoded).map(|(entry, encoded)| {
            let text = Some(entry.name.to_owned());
            let content_hash = Some(hash_of(entry.name));
            Ok(Item {
                text,
                content_hash,
                ..item(name_id(entry), Modality::Text, encoded, entry)?
            })
        });
        keep(collection, items.collect::<Result<_>>()?)?;
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();
    Ok(())
}

fn index_pictures(
    collection: &Arc<Collection>,
    model: &Model,
    folder: &Path,
    pictures: &[&Entry],
) -> Result<()> {
    let bar = output::progress("encoding pictures", pictures.len());
    let draw = |entry: &&Entry| draw(entry, folder, model);
    let mut waiting = Vec::with_capacity(BATCH);
    let commit = |waiting: &mut Vec<Item>| -> Result<()> {
        bar.inc(waiting.len() as u64);
        keep(collection, mem::take(waiting))
    };
    pipeline::pictures(pictures, model, draw, |some| {
        for (row, encoded) in some {
            let entry = pictures[row];
            let source = folder.join(file_name(entry)).to_string_lossy().into_owned();
            let content_hash = Some(hash_of(entry.svg));
            let item = item(entry.codepoints.clone(), Modality::Image, encoded, entry)?;
            waiting.push(Item {
                source: Some(source),
                content_hash,
                ..item
            });
        }
        if waiting.len() < BATCH {
            return Ok(());
        }
        commit(&mut waiting)
    })?;
    commit(&mut waiting)?;
    bar.finish_and_clear();
    Ok(())
}

/// Writes the picture, whole or not at all, and prepares exactly what was written.
fn draw(entry: &Entry, folder: &Path, model: &Model) -> Result<Pixels> {
    let (png, pixels) = gallery::pixels(entry, model)?;
    let aside = folder.join(format!("{}.new", entry.codepoints));
    fs_err::write(&aside, png)?;
    fs_err::rename(aside, folder.join(file_name(entry)))?;
    Ok(pixels)
}

fn item(id: String, modality: Modality, encoded: Encoded, entry: &Entry) -> Result<Item> {
    let payload = Payload::from_iter([
        ("name".to_owned(), entry.name.into()),
        ("emoji".to_owned(), entry.emoji.into()),
    ]);
    let plain = Item::new(ItemId::new(id)?, modality, encoded.shared);
    Ok(Item {
        specific: encoded.specific,
        payload,
        ..plain
    })
}

fn keep(collection: &Arc<Collection>, items: Vec<Item>) -> Result<()> {
    let kept = collection.upsert(items);
    kept.map(drop).context("the items cannot be kept")
}

fn name_id(entry: &Entry) -> String {
    format!("{}-name", entry.codepoints)
}

fn file_name(entry: &Entry) -> String {
    format!("{}.png", entry.codepoints)
}

fn hash_of(text: &str) -> [u8; 32] {
    *blake3::hash(text.as_bytes()).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page shows the first collection there is unless its address names another.
    #[test]
    fn the_invitation_leads_to_the_gallery() {
        let said = invitation("1", SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
        assert!(
            said.contains("http://127.0.0.1:1/?collection=demo "),
            "{said}"
        );
    }
}
