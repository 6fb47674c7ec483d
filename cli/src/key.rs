//! `diptych key`: who may ask a server for what.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use serde_json::json;
use server::{Action, Audit, Key, KeyFile, NewKey};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    args::{KeyAddArgs, KeyCommand, KeyListArgs, KeyRemoveArgs, Places},
    home::Home,
    output,
    settings::Settings,
};

/// Makes, lists or removes keys. A server that runs notices by itself.
///
/// # Errors
/// When the keys of the data folder cannot be read or changed.
pub fn run(places: &Places, command: &KeyCommand, settings: &Settings) -> Result<()> {
    let home = Home::new(places)?;
    let file = KeyFile::new(home.keys());
    let limits = &settings.limits;
    let audit = Audit::new(home.audit(), limits.audit_bytes, limits.audit_files);
    match command {
        KeyCommand::Add(args) => add(&file, &audit, args),
        KeyCommand::List(args) => list(&file, args),
        KeyCommand::Remove(args) => remove(&file, &audit, args),
    }
}

fn add(file: &KeyFile, audit: &Audit, args: &KeyAddArgs) -> Result<()> {
    let only = Some(args.collections.clone()).filter(|names| !names.is_empty());
    let secret = file.add(NewKey {
        name: args.name.clone(),
        role: args.role.into(),
        collections: only,
    })?;
    write_down(audit, "key add", &args.name)?;
    if args.json {
        return Ok(output::json(&json!({ "name": args.name, "key": secret }))?);
    }
    output::note("the key is shown this once; keep it, or remove it and make another:");
    Ok(output::line(&secret)?)
}

fn list(file: &KeyFile, args: &KeyListArgs) -> Result<()> {
    let keys = file.read()?;
    if args.json {
        let one = |key: &Key| {
            json!({
                "name": key.name,
                "role": key.role,
                "collections": key.collections,
                "created_at_ms": key.created_at_ms,
            })
        };
        let keys: Vec<_> = keys.iter().map(one).collect();
        return Ok(output::json(&json!({ "keys": keys }))?);
    }
    let row = |key: &Key| {
        let collections = key.collections.as_ref().map(|names| names.join(", "));
        [
            key.name.clone(),
            key.role.name().to_owned(),
            collections.unwrap_or_else(|| "all".into()),
            date(key.created_at_ms),
        ]
    };
    let rows: Vec<_> = keys.iter().map(row).collect();
    Ok(output::table(
        ["name", "role", "collections", "made"],
        &rows,
    )?)
}

fn remove(file: &KeyFile, audit: &Audit, args: &KeyRemoveArgs) -> Result<()> {
    file.remove(&args.name)?;
    write_down(audit, "key remove", &args.name)?;
    if file.read()?.is_empty() {
        output::note(
            "no key is left: a server that runs lets nobody in until there is one, a new start asks for none",
        );
    }
    Ok(())
}

fn write_down(audit: &Audit, action: &str, target: &str) -> Result<()> {
    Ok(audit.write(Action {
        key: None,
        address: None,
        action,
        target,
        outcome: "done",
        request_id: None,
    })?)
}

fn date(ms: u64) -> String {
    let time = OffsetDateTime::from(UNIX_EPOCH + Duration::from_millis(ms));
    let seconds = time.replace_millisecond(0).unwrap_or(time);
    seconds.format(&Rfc3339).unwrap_or_default()
}
