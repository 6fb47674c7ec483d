//! Writes to a collection until it is killed, and says so on its standard output.
//!
//! Arguments: the data directory, a number that seeds its choices and starts its versions, and how
//! many threads write.

use std::{
    error::Error,
    io::{self, Write},
    path::Path,
    sync::Arc,
    thread,
};

use engine::{Collection, Engine};
use tests::load::{COLLECTION, IDS, Line, Operation, Random, config, id, item, spaces};

/// Versions of one run; far more than it gets to.
const VERSIONS_PER_RUN: u64 = 1_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(dir), Some(run), Some(writers)) = (args.next(), args.next(), args.next()) else {
        return Err("expected a data directory, a number, and how many threads".into());
    };
    let run: u64 = run.parse()?;
    let writers: u32 = writers.parse()?;
    let engine = Engine::open(Path::new(&dir), config())?;
    let collection = engine.create(COLLECTION, &spaces())?;
    tell(&Line::Ready)?;
    let writers = (0..writers).map(|writer| {
        let collection = collection.clone();
        thread::spawn(move || write(&collection, writer, run).map_err(|error| error.to_string()))
    });
    let writers: Vec<_> = writers.collect();
    for writer in writers {
        writer.join().map_err(|_| "a writer panicked")??;
    }
    Ok(())
}

fn write(collection: &Arc<Collection>, writer: u32, run: u64) -> Result<(), Box<dyn Error>> {
    let mut random = Random(run * 1000 + u64::from(writer));
    for version in run * VERSIONS_PER_RUN.. {
        let delete = random.below(4) == 0;
        let numbers = (0..=random.below(12)).map(|_| random.below(u64::from(IDS)) as u32);
        let changes = numbers.map(|n| (n, (!delete).then_some(version))).collect();
        let operation = Operation { writer, changes };
        tell(&Line::Begin(operation.clone()))?;
        if delete {
            let ids: Vec<_> = operation.changes.keys().map(|n| id(writer, *n)).collect();
            collection.delete(&ids)?;
        } else {
            let items = operation.changes.keys().map(|n| item(writer, *n, version));
            collection.upsert(items.collect())?;
        }
        tell(&Line::End(writer))?;
    }
    Ok(())
}

/// One write per line, so that a kill cuts at most the last one.
fn tell(line: &Line) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes())?;
    out.flush()
}
