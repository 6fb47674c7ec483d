//! `diptych snapshot`: made, restored, checked.

use std::{
    ops::ControlFlow,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use engine::{Done, SnapshotInfo, SnapshotOptions, SnapshotReport};
use indicatif::{HumanBytes, ProgressBar};
use serde::Serialize;

use crate::{
    args::{Places, SnapshotCommand, SnapshotCreateArgs, SnapshotRestoreArgs, SnapshotVerifyArgs},
    home::{self, Home},
    output,
};

#[derive(Debug, Serialize)]
struct Made<'a> {
    snapshot: &'a Path,
    #[serde(flatten)]
    report: SnapshotReport,
}

#[derive(Debug, Serialize)]
struct Read<'a> {
    snapshot: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    restored_as: Option<&'a str>,
    #[serde(flatten)]
    info: SnapshotInfo,
}

/// Does what was asked and prints what came of it.
///
/// # Errors
/// When the snapshot, the collection or the data folder cannot be used.
pub fn run(places: &Places, command: &SnapshotCommand) -> Result<()> {
    match command {
        SnapshotCommand::Create(args) => create(places, args),
        SnapshotCommand::Restore(args) => restore(places, args),
        SnapshotCommand::Verify(args) => verify(args),
    }
}

fn create(places: &Places, args: &SnapshotCreateArgs) -> Result<()> {
    let engine = Home::new(places)?.open_existing()?;
    let collection = home::find(&engine, &args.collection)?;
    let options = SnapshotOptions {
        base: args.base.clone(),
        skip_damaged: args.skip_damaged,
        made_at_ms: now_ms(),
    };
    let bar = output::progress("writing", collection.stats().items);
    let report = collection.snapshot(&args.to, &options, &told(&bar));
    bar.finish_and_clear();
    let report = report.context("no snapshot was made")?;
    let snapshot = args.to.as_path();
    if args.json {
        return Ok(output::json(&Made { snapshot, report })?);
    }
    let SnapshotReport { info, new_bytes } = report;
    note_skipped(&info);
    output::line(&format!(
        "{}, {} of them new: {}",
        summary(&info),
        HumanBytes(new_bytes),
        snapshot.display()
    ))?;
    Ok(())
}

fn restore(places: &Places, args: &SnapshotRestoreArgs) -> Result<()> {
    let info = engine::read_snapshot(&args.from).context("nothing was restored")?;
    let engine = Home::new(places)?.open_or_create()?;
    let bar = output::progress("restoring", info.items as usize);
    let restored = engine.restore(&args.from, &args.collection, &told(&bar));
    bar.finish_and_clear();
    restored.context("nothing was restored")?;
    let read = Read {
        snapshot: &args.from,
        restored_as: Some(&args.collection),
        info,
    };
    read.print(args.json, &format!("restored as {}", args.collection))
}

fn verify(args: &SnapshotVerifyArgs) -> Result<()> {
    let of = engine::read_snapshot(&args.from)?.items;
    let bar = output::progress("checking", of as usize);
    let info = engine::verify_snapshot(&args.from, &told(&bar));
    bar.finish_and_clear();
    let read = Read {
        snapshot: &args.from,
        restored_as: None,
        info: info?,
    };
    read.print(args.json, "every byte is as it was written")
}

impl Read<'_> {
    fn print(&self, json: bool, what: &str) -> Result<()> {
        if json {
            return Ok(output::json(self)?);
        }
        note_skipped(&self.info);
        Ok(output::line(&format!("{}: {what}", summary(&self.info)))?)
    }
}

fn told(bar: &ProgressBar) -> impl Fn(Done) -> ControlFlow<()> + '_ {
    |done| {
        bar.set_length(done.of);
        bar.set_position(done.items);
        ControlFlow::Continue(())
    }
}

fn summary(info: &SnapshotInfo) -> String {
    let heads = match info.heads {
        0 => String::new(),
        1 => ", 1 head".to_owned(),
        heads => format!(", {heads} heads"),
    };
    format!(
        "{}: {} items{heads}, {}",
        info.collection,
        output::count(info.items as usize),
        HumanBytes(info.bytes)
    )
}

fn note_skipped(info: &SnapshotInfo) {
    if info.skipped_items > 0 {
        let first: Vec<String> = info.skipped.iter().map(|id| output::clean(id)).collect();
        output::note(&format!(
            "{} damaged items are not in it: {}",
            info.skipped_items,
            first.join(", ")
        ));
    }
    if !info.skipped_heads.is_empty() {
        let heads: Vec<String> = info
            .skipped_heads
            .iter()
            .map(|of| output::clean(of))
            .collect();
        output::note(&format!(
            "these damaged heads are not in it: {}",
            heads.join("; ")
        ));
    }
}

/// Milliseconds since 1970; a clock before that says nothing.
fn now_ms() -> Option<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(now.as_millis()).ok()
}
