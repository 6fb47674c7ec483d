//! How much memory a step takes, before it takes it.
//!
//! Counted are the numbers that the operations of a block keep for their way back; what the way back itself
//! adds for a moment is taken as a share of that. So it is an estimate.

use std::{fmt, path::Path};

use encoders::nn::{ImageConfig, NetworkConfig, TransformerConfig};

use crate::{TrainingError, loader::Batch, parameters::Parameters};

/// What the way back adds to what was kept on the way forward.
const WAY_BACK: f64 = 1.3;

/// Batches that wait or are made while a step runs.
const WAITING: u64 = 4;

const FLOAT: u64 = 4;

/// Bytes that a run takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Weights, their gradients, moments and averages.
    pub weights: u64,
    /// What one pass keeps for its way back.
    pub pass: u64,
    /// Pixels of the batches that wait.
    pub pixels: u64,
}

impl Estimate {
    /// Of steps on batches such as `batch`, in `parts` passes.
    pub fn of(
        network: &NetworkConfig,
        parameters: &Parameters,
        batch: &Batch,
        parts: usize,
    ) -> Self {
        let elements = |all: &mut dyn Iterator<Item = usize>| all.sum::<usize>() as u64 * FLOAT;
        let all = elements(&mut parameters.all().map(|(_, var)| var.elem_count()));
        let moving = elements(&mut parameters.trainable().map(|(_, var)| var.elem_count()));
        let averages = parameters.averages().values();
        let averages = elements(&mut averages.map(candle_core::Tensor::elem_count));
        let views = std::iter::once(&batch.first).chain(&batch.second);
        let (mut values, mut tokens, mut pictures) = (0, 0, 0);
        for view in views {
            values += view.pixels.len() as u64;
            pictures += view.tokens.len();
            let longest = view.tokens.iter().map(Vec::len).max().unwrap_or_default();
            tokens = tokens.max(longest);
        }
        let each = of_image(network) + of_block_stack(&network.text.transformer, tokens, true);
        let in_a_pass = pictures.div_ceil(parts) as f64;
        Self {
            // A gradient and two moments, and for a moment new moments and a new value.
            weights: all + 4 * moving + averages,
            pass: (each * in_a_pass * WAY_BACK) as u64 * FLOAT,
            pixels: values * FLOAT * WAITING,
        }
    }

    /// All together.
    pub fn total(&self) -> u64 {
        self.weights + self.pass + self.pixels
    }

    /// Refuses what is more than `free` bytes.
    ///
    /// # Errors
    /// When it is; the message says what to lower.
    pub fn check(&self, free: u64) -> Result<(), TrainingError> {
        if self.total() <= free {
            return Ok(());
        }
        let lower = if self.weights > free {
            "the weights alone do not fit: take a smaller model, or model.lora"
        } else {
            "raise optimizer.accumulate, which changes no result, or lower optimizer.batch"
        };
        Err(TrainingError::Memory {
            estimate: *self,
            free,
            lower,
        })
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (weights and moments {}, a pass {}, waiting pixels {})",
            amount(self.total()),
            amount(self.weights),
            amount(self.pass),
            amount(self.pixels)
        )
    }
}

/// Bytes in words.
pub fn amount(bytes: u64) -> String {
    const MIB: f64 = 1_048_576.0;
    let mib = bytes as f64 / MIB;
    if mib < 1024.0 {
        format!("{mib:.0} MiB")
    } else {
        format!("{:.1} GiB", mib / 1024.0)
    }
}

/// Bytes that a process may still take, where the system says so: what is free, and what a limit on its
/// group leaves.
pub fn free() -> Option<u64> {
    let read = |file: &str| std::fs::read_to_string(Path::new(file)).ok();
    let available = read("/proc/meminfo").and_then(|text| available(&text))?;
    let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
    let of_group = number("/sys/fs/cgroup/memory.max")
        .zip(number("/sys/fs/cgroup/memory.current"))
        .map(|(most, taken)| most.saturating_sub(taken));
    Some(of_group.map_or(available, |of_group| of_group.min(available)))
}

/// Most bytes that this process has had in memory so far, where the system says so.
pub fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    entry(&status, "VmHWM:")
}

/// `MemAvailable` of a `/proc/meminfo`, in bytes.
fn available(meminfo: &str) -> Option<u64> {
    entry(meminfo, "MemAvailable:")
}

/// The line of such a file that begins so, in bytes.
fn entry(file: &str, name: &str) -> Option<u64> {
    let line = file.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Numbers that an image tower keeps of one picture.
fn of_image(network: &NetworkConfig) -> f64 {
    match &network.image {
        ImageConfig::Vit(vit) => {
            let tokens = vit.grid().pow(2) + usize::from(vit.class_token);
            of_block_stack(&vit.transformer, tokens, false)
        }
        ImageConfig::Residual(residual) => {
            // What was convolved, what normalization makes of it, and what memory that comes and goes leaves in pieces.
            const OF_A_CONVOLUTION: usize = 3;
            let mut side = residual.image_size;
            let mut kept = 0;
            for channels in &residual.stem {
                side = side.div_ceil(2);
                kept += OF_A_CONVOLUTION * channels * side * side;
            }
            for (stage, channels) in residual.stages.iter().enumerate() {
                if stage > 0 {
                    side = side.div_ceil(2);
                }
                // Two of them in a block, and one beside the first block of a stage.
                let convolutions = 2 * residual.blocks + 1;
                kept += OF_A_CONVOLUTION * convolutions * channels * side * side;
            }
            kept as f64
        }
    }
}

/// Numbers that a stack of blocks keeps of one sequence: outputs of two normalizations (2 widths), of three
/// maps with biases (6), their heads in order (4), the mixture (2), a map (2), two sums (2), a map (2); five
/// tables of attention, one more where there is a mask; and of the inner layer a map, its bias and its
/// activation.
fn of_block_stack(config: &TransformerConfig, tokens: usize, mask: bool) -> f64 {
    let (t, width, inner) = (tokens as f64, config.width as f64, config.mlp_width as f64);
    let tables = (5.0 + f64::from(u8::from(mask))) * config.heads as f64 * t * t;
    config.layers as f64 * (t * (20.0 * width + 3.0 * inner) + tables)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use encoders::nn::{Form, Network};

    use super::*;
    use crate::{config::RunConfig, loader::View};

    fn estimate(n: usize, parts: usize) -> Estimate {
        let recipe = include_str!("testing/plain.toml");
        let config: RunConfig = toml::from_str(recipe).expect("parses");
        let network = config.model.network(4096, 4095).expect("sizes");
        let mut parameters = Parameters::seeded(1, Device::Cpu);
        let form = Form::Differentiable {
            batch_statistics: true,
        };
        Network::new(&mut parameters, &network, form).expect("builds");
        let batch = Batch {
            items: (0..n).collect(),
            first: View {
                pixels: vec![0.0; n * 3 * 64 * 64],
                tokens: vec![vec![1; 12]; n],
            },
            second: None,
            positives: Vec::new(),
            text_positives: Vec::new(),
            skipped: Vec::new(),
        };
        Estimate::of(&network, &parameters, &batch, parts)
    }

    #[test]
    fn more_passes_take_less_and_a_larger_batch_takes_more() {
        let (one, four, twice) = (estimate(64, 1), estimate(64, 4), estimate(128, 1));
        assert_eq!(one.weights, four.weights);
        assert!(four.pass * 7 < one.pass * 2, "{four} against {one}");
        assert!(twice.pass > one.pass * 19 / 10 && twice.pixels == 2 * one.pixels);
        // The built-in model has four million weights; each is kept five times.
        assert!((60 << 20..120 << 20).contains(&one.weights), "{one}");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_both_amounts_and_what_to_lower() {
        let one = estimate(64, 1);
        one.check(one.total()).expect("it fits");
        let message = one
            .check(one.total() - 1)
            .expect_err("is refused")
            .to_string();
        assert!(message.contains(&amount(one.total())), "{message}");
        assert!(message.contains("raise optimizer.accumulate"), "{message}");
        let message = one.check(1 << 20).expect_err("is refused").to_string();
        assert!(
            message.contains("1 MiB are free") && message.contains("lora"),
            "{message}"
        );
    }

    #[test]
    fn what_is_free_is_read_in_bytes() {
        let meminfo = "MemTotal:       24000000 kB\nMemAvailable:   11000000 kB\n";
        assert_eq!(available(meminfo), Some(11_000_000 * 1024));
        assert_eq!(available("MemTotal: 3 kB"), None);
        assert_eq!(amount(3 << 29), "1.5 GiB");
    }
}
