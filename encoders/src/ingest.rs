//! Many pictures through an image tower, from whatever they are read from, with every core busy.
//!
//! Each core has a worker that prepares a few inputs and encodes them, alone: no core waits for
//! another, and none has two things to do. What they have done is taken by the caller's thread
//! meanwhile.

use std::{
    num::NonZeroUsize,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread,
};

use embedding::{EncodeError, Encoded, Encoder};

use crate::Pixels;

/// Pictures that a worker encodes at once: enough for the tower's speed, few enough for its memory.
const PICTURES: usize = 8;

/// Inputs that a worker may have looked at before it tells.
const LOOKED_AT: usize = 64;

/// Reports that may wait, per worker. When they are taken too slowly, the workers wait, too.
const WAITING: usize = 4;

/// What came of one input.
#[derive(Debug)]
pub struct Done<T> {
    /// Place of the input.
    pub index: usize,
    /// What preparing it gave beside pixels.
    pub note: T,
    /// Its embeddings, if there were pixels.
    pub encoded: Option<Encoded>,
}

/// Calls `prepare` on every input and encodes the pixels that come of it, on all cores; calls
/// `take` with what is done, on this thread, in the order in which it is ready. Every input is
/// taken once. An input without pixels is only taken.
///
/// At most a few pictures per core are in memory at a time.
///
/// # Errors
/// The first error of `prepare`, of the tower or of `take`. The workers stop then, and what they
/// have at hand is lost.
pub fn encode_all<I: Sync, T: Send, E: From<EncodeError> + Send>(
    inputs: &[I],
    tower: &dyn Encoder<Pixels>,
    prepare: impl Fn(&I) -> Result<(T, Option<Pixels>), E> + Sync,
    mut take: impl FnMut(Vec<Done<T>>) -> Result<(), E>,
) -> Result<(), E> {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let workers = cores.min(inputs.len());
    let (sender, receiver) = sync_channel(WAITING * workers.max(1));
    let next = AtomicUsize::new(0);
    let work = |sender: &SyncSender<Result<Vec<Done<T>>, E>>| {
        while let Some(report) = few(inputs, &next, workers, tower, &prepare) {
            if sender.send(report).is_err() {
                break;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..workers {
            let (sender, work) = (sender.clone(), &work);
            scope.spawn(move || {
                // Where there are fewer inputs than cores, each may use the cores that are left.
                if workers < cores {
                    work(&sender);
                } else {
                    alone(|| work(&sender));
                }
            });
        }
        drop(sender);
        // Owned here, so that an early return closes the channel and the workers end.
        let receiver = receiver;
        receiver.iter().try_for_each(|report| take(report?))
    })
}

/// Runs `work` with all kernels on this thread.
fn alone(work: impl FnOnce() + Send) {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .use_current_thread();
    match pool.build() {
        Ok(pool) => pool.install(work),
        // It is slower to share all cores, and not wrong.
        Err(_) => work(),
    }
}

/// Prepares and encodes the next few inputs; nothing when there are none.
fn few<I, T, E: From<EncodeError>>(
    inputs: &[I],
    next: &AtomicUsize,
    workers: usize,
    tower: &dyn Encoder<Pixels>,
    prepare: impl Fn(&I) -> Result<(T, Option<Pixels>), E>,
) -> Option<Result<Vec<Done<T>>, E>> {
    let (mut done, mut pixels) = (Vec::new(), Vec::new());
    while done.len() < LOOKED_AT {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some(input) = inputs.get(index) else {
            break;
        };
        let (note, prepared) = match prepare(input) {
            Ok(prepared) => prepared,
            Err(error) => return Some(Err(error)),
        };
        // The embeddings come later.
        done.push((index, note, prepared.is_some()));
        pixels.extend(prepared);
        // Toward the end fewer at a time, so that all workers end together.
        let share = (inputs.len() - index).div_ceil(2 * workers);
        if pixels.len() >= share.min(PICTURES) {
            break;
        }
    }
    if done.is_empty() {
        return None;
    }
    let encoded = if pixels.is_empty() {
        Vec::new()
    } else {
        match tower.encode(&pixels) {
            Ok(encoded) => encoded,
            Err(error) => return Some(Err(error.into())),
        }
    };
    let mut encoded = encoded.into_iter();
    let done = done.into_iter().map(|(index, note, has_pixels)| Done {
        index,
        note,
        encoded: has_pixels.then(|| encoded.next()).flatten(),
    });
    Some(Ok(done.collect()))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Mutex};

    use super::*;
    use crate::Model;

    type Failure = Box<dyn std::error::Error + Send + Sync>;

    fn pixels(model: &Model, n: usize) -> Pixels {
        let picture = crate::Picture::new(3, 2, vec![n as u8; 18]).expect("it fills its shape");
        model.prepare(&picture)
    }

    #[test]
    fn every_input_is_taken_once_and_gets_its_own_embeddings() {
        let model = Model::builtin().expect("the built-in model loads");
        let tower = model.image();
        for count in [0, 1, 2, 37] {
            let inputs: Vec<usize> = (0..count).collect();
            let mut seen = BTreeMap::new();
            let prepare = |n: &usize| {
                let skipped = n % 5 == 3;
                Ok::<_, Failure>((*n * 10, (!skipped).then(|| pixels(&model, *n))))
            };
            encode_all(&inputs, tower.as_ref(), prepare, |done| {
                for one in done {
                    assert_eq!(one.note, one.index * 10);
                    assert_eq!(one.encoded.is_none(), one.index % 5 == 3);
                    assert!(seen.insert(one.index, one.encoded).is_none());
                }
                Ok(())
            })
            .expect("nothing fails");
            assert_eq!(seen.len(), count);
            for (index, encoded) in seen {
                let Some(encoded) = encoded else { continue };
                let by_itself = tower.encode(&[pixels(&model, index)]).expect("it encodes");
                let cosine: f32 = encoded
                    .shared
                    .as_slice()
                    .iter()
                    .zip(by_itself[0].shared.as_slice())
                    .map(|(a, b)| a * b)
                    .sum();
                assert!(cosine > 0.9999, "{index}: {cosine}");
            }
        }
    }

    #[test]
    fn an_error_of_any_part_stops_the_workers() {
        let model = Model::builtin().expect("the built-in model loads");
        let tower = model.image();
        let inputs = vec![0; 100_000];
        let prepared = AtomicUsize::new(0);
        let prepare = |n: &usize| {
            prepared.fetch_add(1, Ordering::Relaxed);
            Ok((*n, None))
        };
        let result: Result<(), Failure> =
            encode_all(&inputs, tower.as_ref(), prepare, |_| Err("full".into()));
        assert_eq!(result.expect_err("it fails").to_string(), "full");
        assert!(prepared.into_inner() < inputs.len(), "the workers went on");

        let taken = Mutex::new(0);
        let prepare = |_: &usize| Err::<((), _), _>(Failure::from("bad"));
        let result = encode_all(&inputs, tower.as_ref(), prepare, |_| {
            *taken.lock().expect("nobody panics") += 1;
            Ok(())
        });
        assert_eq!(result.expect_err("it fails").to_string(), "bad");
        assert_eq!(taken.into_inner().expect("nobody panics"), 0);
    }
}
