//! The calibration in the store.

use embedding::Fingerprint;

use super::calibration::Calibration;
use crate::{
    EngineError, catalog,
    record::{checked, with_checksum},
    store::{Batch, Store},
};

/// Reads the calibration of a collection. One that is damaged, or of another model, is none: it
/// costs a fit, and no search.
pub(crate) fn read(
    store: &dyn Store,
    (name, number): (&str, u32),
    fingerprint: Fingerprint,
) -> Result<Calibration, EngineError> {
    let key = catalog::calibration_key(number);
    let Some(value) = store.get(&key)? else {
        return Ok(Calibration::default());
    };
    let read = || -> Result<Calibration, String> {
        let body = checked(&key, &value)?;
        let calibration: Calibration =
            serde_json::from_slice(body).map_err(|error| error.to_string())?;
        calibration.check(fingerprint)?;
        Ok(calibration)
    };
    Ok(read().unwrap_or_else(|reason| {
        tracing::warn!("the calibration of collection {name} is not usable: {reason}");
        Calibration::default()
    }))
}

/// Writes the calibration of a collection; durable on return.
pub(crate) fn write(
    store: &dyn Store,
    number: u32,
    calibration: &Calibration,
) -> Result<(), EngineError> {
    let body = serde_json::to_vec(calibration).expect("a calibration is plain JSON");
    let key = catalog::calibration_key(number);
    let mut batch = Batch::default();
    batch.put(key.clone(), with_checksum(&key, body));
    Ok(store.commit(batch)?)
}
