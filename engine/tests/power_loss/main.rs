//! Power cuts: a process that writes to the engine is recorded with `strace`, what a disk may hold
//! after a cut is rebuilt for hundreds of moments of the recording, and each of these folders must
//! open and hold what was acknowledged. `disk.rs` says what a disk may do.
//!
//! `DIPTYCH_POWER_CUTS` sets how many cuts are tried, `DIPTYCH_POWER_SEED` the seed of all choices.

use std::{
    panic::{self, AssertUnwindSafe, catch_unwind},
    path::Path,
    process::ExitCode,
    sync::mpsc,
    thread,
    time::Duration,
};

use embedding::mix;
use parking_lot::Mutex;

use crate::{
    check::Expected,
    cut::{Cut, Fate},
    load::Amount,
    recording::{Recording, WRITER},
};

mod check;
mod cut;
mod disk;
mod load;
mod recording;
#[path = "../skips/mod.rs"]
mod skips;
mod syscalls;

const SEED: u64 = 20_261_121;
const CUTS: usize = 400;
/// Every so manieth cut comes right after a sync, every so manieth around the naming of an index
/// file, before or after the store takes it for the good one; the others come anywhere.
const AT_SYNCS: usize = 2;
const AT_SEALS: usize = 5;
/// Longest time that a rebuilt folder may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// Longest time that a recorded process may take.
const RECORDING_PATIENCE: Duration = Duration::from_mins(4);
/// What the first process writes, and what one writes to a folder that a cut left.
const FIRST: Amount = Amount {
    runs: 3,
    operations: 50,
};
const AFTER_A_CUT: Amount = Amount {
    runs: 1,
    operations: 15,
};
/// How many processes start in a folder that a cut left.
const SECOND_RECORDINGS: u64 = 3;
/// Most failures that are told in full.
const TOLD: usize = 10;

fn main() -> ExitCode {
    if let Ok(told) = std::env::var(WRITER) {
        return be_the_writer(&told);
    }
    skips::run(&[(
        "whatever_was_acknowledged_survives_a_power_cut_at_any_moment",
        whatever_was_acknowledged_survives_a_power_cut_at_any_moment,
    )])
}

fn be_the_writer(told: &str) -> ExitCode {
    let mut words = told.splitn(4, ' ');
    let mut number = || words.next()?.parse().ok();
    let (Some(seed), Some(runs), Some(operations)) = (number(), number(), number()) else {
        return ExitCode::FAILURE;
    };
    let dir = words.next().unwrap_or_default();
    thread::spawn(|| {
        thread::sleep(RECORDING_PATIENCE);
        std::process::abort();
    });
    load::write(Path::new(dir), seed, Amount { runs, operations });
    ExitCode::SUCCESS
}

fn whatever_was_acknowledged_survives_a_power_cut_at_any_moment() -> Result<(), String> {
    recording::possible()?;
    let seed = setting("DIPTYCH_POWER_SEED").unwrap_or(SEED);
    let cuts = setting("DIPTYCH_POWER_CUTS").map_or(CUTS, |cuts| cuts as usize);
    let dir = tempfile::tempdir().expect("a temporary folder");
    let recorded = recording::record(dir.path(), seed, FIRST);
    assert!(
        recorded.disk.syncs.len() > 50,
        "only {} syncs: nothing was recorded",
        recorded.disk.syncs.len()
    );
    let expected = Expected::nothing();
    let mut failures = try_cuts(&recorded, &expected, cuts * 5 / 8, seed);
    for second in 0..SECOND_RECORDINGS {
        let seed = mix(seed ^ mix(second));
        let dir = tempfile::tempdir().expect("a temporary folder");
        let time = mix(seed) as usize % recorded.end;
        let fate = Fate::Torn;
        recorded.disk.rebuild(&Cut { time, fate, seed }, dir.path());
        let expected = expected.at(&recorded.lines, time);
        let recorded = recording::record(dir.path(), seed, AFTER_A_CUT);
        failures.extend(try_cuts(&recorded, &expected, cuts / 8, seed));
    }
    let told: Vec<&str> = failures.iter().take(TOLD).map(String::as_str).collect();
    assert!(
        failures.is_empty(),
        "seed {seed}: {} of {cuts} cuts lost something:\n{}",
        failures.len(),
        told.join("\n")
    );
    Ok(())
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| {
        let number = value.parse();
        number.unwrap_or_else(|_| panic!("{name} is {value}, expected a number"))
    })
}

/// Tries `count` power cuts and gives what went wrong.
fn try_cuts(recorded: &Recording, expected: &Expected, count: usize, seed: u64) -> Vec<String> {
    let syncs: Vec<usize> = recorded.disk.syncs.iter().copied().collect();
    let changes: Vec<usize> = recorded.disk.changes.iter().copied().collect();
    let seals: Vec<usize> = recorded.disk.seals.iter().copied().collect();
    assert!(!seals.is_empty(), "nothing was sealed");
    let all: Vec<Cut> = (0..count)
        .map(|i| {
            let seed = mix(seed ^ mix(i as u64));
            // Spread over the whole recording, so that every phase of it has its cuts.
            let times = if i % AT_SEALS == 0 {
                &seals
            } else if i % AT_SYNCS == 0 {
                &syncs
            } else {
                &changes
            };
            let time = times[i * times.len() / count];
            let fate = Fate::ALL[seed as usize % Fate::ALL.len()];
            Cut { time, fate, seed }
        })
        .collect();
    let all = Mutex::new(all.into_iter());
    let failures = Mutex::new(Vec::new());
    // A failure is told once, by us.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, Into::into) {
            scope.spawn(|| {
                loop {
                    let Some(cut) = all.lock().next() else {
                        return;
                    };
                    if let Err(what) = try_cut(recorded, expected, cut) {
                        failures.lock().push(format!("{cut:?}: {what}"));
                    }
                }
            });
        }
    });
    panic::set_hook(hook);
    failures.into_inner()
}

fn try_cut(recorded: &Recording, expected: &Expected, cut: Cut) -> Result<(), String> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    recorded.disk.rebuild(&cut, dir.path());
    let expected = expected.at(&recorded.lines, cut.time);
    let (done, is_done) = mpsc::channel();
    let path = dir.path().to_owned();
    // Of its own, so that one that hangs is a failure like others.
    thread::spawn(move || {
        let checked = catch_unwind(AssertUnwindSafe(|| check::check(&path, &expected)));
        let checked = checked.map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            text.unwrap_or_else(|| "it panicked".into())
        });
        // Nobody listens any more when it took too long.
        let _ = done.send(checked);
    });
    let result = is_done.recv_timeout(PATIENCE);
    let result = result.unwrap_or_else(|_| Err(format!("it took longer than {PATIENCE:?}")));
    if result.is_err() && std::env::var_os("DIPTYCH_KEEP").is_some() {
        let kept = dir.keep();
        // The engine has changed the folder: this is how it was.
        let before = kept.with_extension("before");
        std::fs::create_dir(&before).expect("a folder is made");
        recorded.disk.rebuild(&cut, &before);
        return result.map_err(|what| format!("{what}; kept in {}", before.display()));
    }
    result
}
