//! Pairs of pictures and captions that a run is trained and evaluated on: where they are, not what they
//! show. Pictures are read when a batch needs them (see [`batches`]).

pub mod batches;
pub mod validate;

use embedding::mix;
use encoders::{DecodeLimits, Picture};
use pairs::{Captioned, Skipped};

use crate::{
    TrainingError,
    config::{DataConfig, Validation},
};

/// Pairs, divided.
#[derive(Debug, Default)]
pub struct PairSet {
    /// What is trained on, in the order of the sources.
    pub training: Vec<Captioned>,
    /// What is evaluated on.
    pub validation: Vec<Captioned>,
    /// What cannot be a pair.
    pub skipped: Vec<Skipped>,
}

impl PairSet {
    /// Reads the sources of a configuration; no picture is opened.
    ///
    /// # Errors
    /// When a source cannot be read or has no pair, or the share leaves nothing to evaluate on.
    pub fn read(config: &DataConfig) -> Result<Self, TrainingError> {
        let pairs::Pairs {
            pictures,
            mut skipped,
        } = pairs::read(&config.pairs)?;
        let all = pictures.len();
        let (training, validation) = match &config.validation {
            None => (pictures, Vec::new()),
            Some(Validation::Share(share)) => {
                let (validation, training): (Vec<_>, Vec<_>) =
                    pictures.into_iter().partition(|p| place(&p.id) < *share);
                if validation.is_empty() {
                    return Err(TrainingError::NoValidation { share: *share, all });
                }
                (training, validation)
            }
            Some(Validation::Sources(sources)) => {
                let other = pairs::read(sources)?;
                skipped.extend(other.skipped);
                (pictures, other.pictures)
            }
        };
        Ok(Self {
            training,
            validation,
            skipped,
        })
    }
}

/// Where between 0 and 1 an id falls: the same for a picture wherever it lies and whatever is around it.
fn place(id: &str) -> f64 {
    let hash = id.bytes().fold(0, |state, b| mix(state ^ u64::from(b)));
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

/// Reads and decodes a picture within the usual budgets.
fn decode(pair: &Captioned) -> Result<Picture, Skipped> {
    let limits = DecodeLimits::default();
    let skipped = |error: &dyn std::error::Error| {
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            reason = format!("{reason}: {error}");
            cause = error.source();
        }
        Skipped {
            path: pair.location.to_string(),
            reason,
        }
    };
    let bytes = pair.location.read(limits.max_bytes);
    let bytes = bytes.map_err(|error| skipped(&error))?;
    encoders::decode(&bytes, &limits).map_err(|error| skipped(&error))
}

#[cfg(test)]
mod tests {
    use fs_err as fs;
    use pairs::Source;

    use super::*;

    #[test]
    fn a_share_is_split_off_by_ids_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let read = |name: &str, order: &mut dyn Iterator<Item = usize>| {
            let folder = dir.path().join(name);
            fs::create_dir_all(&folder).expect("a folder");
            let rows = order.map(|i| format!("{i}.png,picture {i}\n"));
            let table = format!("image,caption\n{}", rows.collect::<String>());
            fs::write(folder.join("all.csv"), table).expect("written");
            let config = DataConfig {
                pairs: vec![Source::new(folder.join("all.csv"))],
                validation: Some(Validation::Share(0.2)),
                ..DataConfig::default()
            };
            let set = PairSet::read(&config).expect("reads");
            let ids = |all: &[Captioned]| {
                let mut ids: Vec<_> = all.iter().map(|p| p.id.to_string()).collect();
                ids.sort();
                ids
            };
            (ids(&set.training), ids(&set.validation))
        };
        let (training, validation) = read("a", &mut (0..1000));
        assert!((150..250).contains(&validation.len()), "{validation:?}");
        assert_eq!(training.len() + validation.len(), 1000);
        // Elsewhere, in another order, with more beside them: who was held out still is.
        let (_, more) = read("b", &mut (0..1200).rev());
        assert!(validation.iter().all(|id| more.contains(id)));
    }

    #[test]
    fn a_share_of_too_little_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let table = dir.path().join("all.csv");
        fs::write(&table, "image,caption\na.png,a\n").expect("written");
        let config = DataConfig {
            pairs: vec![Source::new(table)],
            validation: Some(Validation::Share(1e-9)),
            ..DataConfig::default()
        };
        let message = PairSet::read(&config).expect_err("is refused").to_string();
        assert!(message.contains("leaves none of the 1 pairs"), "{message}");
    }
}
