//! Where a network is computed.

use std::{
    fmt,
    str::FromStr,
    sync::{Mutex, PoisonError},
};

use candle_core::Device;

use crate::{BadChoice, ModelError, PrecisionChoice};

/// The device that computes a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Place {
    /// The CPU.
    #[default]
    Cpu,
    /// An NVIDIA GPU by its number, through candle, in f32. It needs a build with the feature `cuda`.
    Cuda(usize),
}

/// Devices that were opened: tensors of two openings of one GPU cannot meet.
static OPEN: Mutex<Vec<(usize, Device)>> = Mutex::new(Vec::new());

impl Place {
    /// The device, opened once per process.
    ///
    /// # Errors
    /// When it is not there, or this build cannot use it.
    pub fn open(self) -> Result<Device, ModelError> {
        let Self::Cuda(ordinal) = self else {
            return Ok(Device::Cpu);
        };
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, device)) = open.iter().find(|(known, _)| *known == ordinal) {
            return Ok(device.clone());
        }
        let device = self.start(ordinal)?;
        open.push((ordinal, device.clone()));
        Ok(device)
    }

    /// Checks whether this build can compute there. Whether the device is there is known once it is
    /// opened.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check_built(self) -> Result<(), ModelError> {
        match self {
            Self::Cuda(_) if !cfg!(feature = "cuda") => Err(ModelError::Device {
                place: self,
                reason: "this build knows the CPU only; build it with `--features cuda`".to_owned(),
            }),
            Self::Cpu | Self::Cuda(_) => Ok(()),
        }
    }

    #[cfg(feature = "cuda")]
    fn start(self, ordinal: usize) -> Result<Device, ModelError> {
        // The library behind it panics where the driver is not installed at all.
        let started = std::panic::catch_unwind(|| Device::new_cuda(ordinal));
        let failed = |reason: String| ModelError::Device {
            place: self,
            reason: format!("{reason}; `nvidia-smi` lists the GPUs that the driver sees"),
        };
        match started {
            Ok(device) => device.map_err(|e| failed(e.to_string())),
            Err(_) => Err(failed("the CUDA driver could not be loaded".to_owned())),
        }
    }

    #[cfg(not(feature = "cuda"))]
    fn start(self, _ordinal: usize) -> Result<Device, ModelError> {
        self.check_built().map(|()| Device::Cpu)
    }
}

impl FromStr for Place {
    type Err = BadChoice;

    fn from_str(text: &str) -> Result<Self, BadChoice> {
        let bad = || BadChoice {
            text: text.to_owned(),
            expected: "cpu, cuda or cuda:N",
        };
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", ordinal)) => ordinal.parse().map(Self::Cuda).map_err(|_| bad()),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.pad("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

/// How a model is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunOptions {
    /// At which precision.
    pub precision: PrecisionChoice,
    /// Where.
    pub place: Place,
}

impl From<PrecisionChoice> for RunOptions {
    fn from(precision: PrecisionChoice) -> Self {
        Self {
            precision,
            place: Place::Cpu,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_survive_their_text_form_and_others_are_refused() {
        for (text, place) in [
            ("cpu", Place::Cpu),
            ("cuda:0", Place::Cuda(0)),
            ("cuda:3", Place::Cuda(3)),
        ] {
            assert_eq!(text.parse(), Ok(place));
            assert_eq!(place.to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(Place::Cuda(0)));
        for text in ["", "CPU", "cpu:1", "cuda:", "cuda:-1", "metal"] {
            let error = text.parse::<Place>().expect_err(text).to_string();
            assert!(error.contains("cpu, cuda or cuda:N"), "{error}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_gpu_is_refused_by_a_build_that_knows_none() {
        let error = Place::Cuda(1).open().expect_err("is refused").to_string();
        assert!(
            error.contains("cuda:1") && error.contains("--features cuda"),
            "{error}"
        );
    }
}
