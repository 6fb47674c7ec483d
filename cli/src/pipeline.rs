//! Preparing many inputs on all cores while one thread consumes them, in bounded memory.

use std::{
    mem,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::sync_channel,
    },
    thread,
};

use anyhow::Result;

/// How many inputs go to a tower at once.
pub const BATCH: usize = 32;

/// Prepared inputs that may wait, per worker.
const WAITING: usize = 16;

/// Calls `prepare` on every input, on all cores, and `consume` with each input's index and what
/// came of it, on this thread and in the order in which they are ready.
///
/// # Errors
/// The first error of `consume`; the workers stop then.
pub fn for_each<I: Sync, O: Send>(
    inputs: &[I],
    prepare: impl Fn(&I) -> O + Sync,
    mut consume: impl FnMut(usize, O) -> Result<()>,
) -> Result<()> {
    let workers = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(inputs.len());
    let (sender, receiver) = sync_channel(WAITING * workers.max(1));
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..workers {
            let sender = sender.clone();
            scope.spawn(|| {
                let sender = sender;
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(input) = inputs.get(i) else { break };
                    if sender.send((i, prepare(input))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        // Owned here, so that an early return closes the channel and the workers end.
        let receiver = receiver;
        receiver
            .iter()
            .try_for_each(|(i, prepared)| consume(i, prepared))
    })
}

/// As [`for_each`], with [`BATCH`] prepared inputs at a time (fewer in the last batch): their
/// indexes, and what came of each.
///
/// # Errors
/// The first error of `prepare` or `consume`; the workers stop then.
pub fn in_batches<I: Sync, O: Send>(
    inputs: &[I],
    prepare: impl Fn(&I) -> Result<O> + Sync,
    mut consume: impl FnMut(Vec<usize>, Vec<O>) -> Result<()>,
) -> Result<()> {
    let mut batch = (Vec::new(), Vec::new());
    for_each(inputs, prepare, |i, prepared| {
        batch.0.push(i);
        batch.1.push(prepared?);
        if batch.0.len() < BATCH {
            return Ok(());
        }
        let (indexes, prepared) = mem::take(&mut batch);
        consume(indexes, prepared)
    })?;
    if batch.0.is_empty() {
        Ok(())
    } else {
        consume(batch.0, batch.1)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn every_input_arrives_once_with_its_index() {
        let inputs: Vec<usize> = (0..1000).collect();
        let mut seen = vec![0; inputs.len()];
        let consume = |i: usize, squared: usize| {
            assert_eq!(squared, i * i);
            seen[i] += 1;
            Ok(())
        };
        for_each(&inputs, |n| n * n, consume).expect("nothing fails");
        assert!(seen.iter().all(|n| *n == 1));
        for_each(&[], |n: &usize| *n, |_, _| bail!("called")).expect("nothing to do");
    }

    #[test]
    fn batches_hold_every_input_once() {
        let inputs: Vec<usize> = (0..=2 * BATCH).collect();
        let mut seen = Vec::new();
        let consume = |indexes: Vec<usize>, prepared: Vec<usize>| {
            assert!(indexes.len() <= BATCH && prepared == indexes);
            seen.extend(indexes);
            Ok(())
        };
        in_batches(&inputs, |n| Ok(*n), consume).expect("nothing fails");
        seen.sort_unstable();
        assert_eq!(seen, inputs);
        assert!(in_batches(&[1], |_| bail!("bad"), |_, _: Vec<()>| Ok(())).is_err());
    }

    #[test]
    fn an_error_stops_the_workers() {
        let prepared = AtomicUsize::new(0);
        let prepare = |_: &u32| prepared.fetch_add(1, Ordering::Relaxed);
        let result = for_each(&vec![0; 100_000], prepare, |_, _| bail!("full"));
        assert_eq!(result.expect_err("fails").to_string(), "full");
        assert!(prepared.into_inner() < 100_000, "the workers went on");
    }
}
