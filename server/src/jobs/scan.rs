//! The items of a collection, some at a time, read and worked on by a thread that lets everything else go
//! first.

use std::sync::Arc;

use engine::{Collection, EngineError, Filter, Item, ItemId};
use tokio::sync::mpsc::{Receiver, channel};

use crate::{pools, reply::ApiError};

/// Items of a step.
const STEP: usize = 128;
/// Steps that wait to be written.
const WAITING: usize = 2;

/// What came of some items, and the last of them. Items that cannot be read are named.
pub(super) struct Step<T> {
    pub(super) each: Vec<T>,
    pub(super) damaged: Vec<(String, ApiError)>,
    pub(super) last: ItemId,
}

/// Reads the items after `after` that pass the filter, and makes something of each.
pub(super) fn steps<T: Send + 'static>(
    collection: Arc<Collection>,
    filter: Option<Filter>,
    after: Option<ItemId>,
    make: impl FnMut(Item, u64) -> T + Send + 'static,
) -> Result<Receiver<Result<Step<T>, ApiError>>, ApiError> {
    let (send, receive) = channel(WAITING);
    let reader = Reader {
        collection,
        make,
        send: send.clone(),
    };
    let run = move || {
        if let Err(error) = reader.read(filter.as_ref(), after.as_ref()) {
            // Whoever asked may be gone.
            let _ = send.blocking_send(Err(ApiError::engine("reading items", error)));
        }
    };
    pools::aside("job-read", run).map_err(|e| ApiError::internal("starting a thread", e))?;
    Ok(receive)
}

struct Reader<T, M> {
    collection: Arc<Collection>,
    make: M,
    send: tokio::sync::mpsc::Sender<Result<Step<T>, ApiError>>,
}

impl<T, M: FnMut(Item, u64) -> T> Reader<T, M> {
    fn read(mut self, filter: Option<&Filter>, after: Option<&ItemId>) -> Result<(), EngineError> {
        let (mut each, mut damaged, mut last) = (Vec::new(), Vec::new(), None);
        for item in self.collection.items_passing(filter, after.cloned())? {
            match item {
                Ok((item, version)) => {
                    last = Some(item.id.clone());
                    each.push((self.make)(item, version));
                }
                Err(EngineError::DamagedItem {
                    id,
                    collection,
                    reason,
                }) => {
                    let at = ItemId::new(id.clone()).ok();
                    last = at.or(last);
                    let message = EngineError::DamagedItem {
                        id: id.clone(),
                        collection,
                        reason,
                    };
                    let error = ApiError::Damaged {
                        code: "damaged_item",
                        message: message.to_string(),
                    };
                    damaged.push((id, error));
                }
                Err(error) => return Err(error),
            }
            if each.len() + damaged.len() >= STEP
                && let Some(last) = last.take()
            {
                let step = Step {
                    each: std::mem::take(&mut each),
                    damaged: std::mem::take(&mut damaged),
                    last,
                };
                if self.send.blocking_send(Ok(step)).is_err() {
                    return Ok(());
                }
            }
        }
        if let Some(last) = last {
            let step = Step {
                each,
                damaged,
                last,
            };
            // Whoever asked may be gone.
            let _ = self.send.blocking_send(Ok(step));
        }
        Ok(())
    }
}
