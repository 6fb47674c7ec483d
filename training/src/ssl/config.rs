//! What a run is told, as one TOML file.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    TrainingError,
    config::{
        AugmentConfig, ImageSection, OptimizerConfig,
        check::{self, AT_LEAST_1, Rule, SPREAD},
    },
};

/// Everything that decides the result of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SslConfig {
    /// Seed of every random choice.
    pub seed: u64,
    /// Pictures without labels.
    pub data: FoldersConfig,
    /// Which image tower.
    #[serde(default)]
    pub model: TowerSection,
    /// What is minimized.
    #[serde(default)]
    pub contrast: BankSection,
    /// Steps and learning rates.
    pub optimizer: OptimizerConfig,
    /// How pictures are varied; [`AugmentConfig::STRONG`] where nothing is said.
    #[serde(default = "strong")]
    pub augment: AugmentConfig,
    /// Labeled pictures to measure with.
    #[serde(default)]
    pub probe: Option<ProbeConfig>,
}

fn strong() -> AugmentConfig {
    AugmentConfig::STRONG
}

/// Pictures without labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoldersConfig {
    /// Folders, searched with all folders in them.
    pub folders: Vec<PathBuf>,
    /// Memory for small copies of pictures, in MiB, those of the probe included; what does not fit is
    /// read and decoded each time that it is needed.
    #[serde(default = "default_memory")]
    pub memory_mib: usize,
}

fn default_memory() -> usize {
    1024
}

/// Which image tower.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TowerSection {
    /// Name of the adapted model; that of the model that it comes from and `-adapted` where nothing is said.
    pub name: Option<String>,
    /// The model folder that it comes from; the built-in model where neither this nor `image` is given.
    pub from: Option<PathBuf>,
    /// Sizes of a tower that is trained from nothing, in place of `from`.
    pub image: Option<ImageSection>,
}

/// Contrast with a bank of keys. The defaults of sizes, momentum and temperature are those with which He et
/// al. (2020) train on CIFAR-10 in the notebook beside their code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BankSection {
    /// Elements of a key.
    pub dim: usize,
    /// Keys in the bank, a multiple of `optimizer.batch`.
    pub queue: usize,
    /// Share of the old in the encoder of keys at each step.
    pub momentum: f64,
    /// What cosines are divided by.
    pub temperature: f64,
    /// Number of keys, those most like it, that each query is contrasted with; all where nothing is said.
    pub hard_negatives: Option<NonZeroUsize>,
    /// Weight of one minus the cosine between the shared embeddings of a picture before and after, which
    /// keeps the tower in the space of its texts; 0 lets go.
    pub anchor: f64,
}

impl Default for BankSection {
    fn default() -> Self {
        Self {
            dim: 128,
            queue: 4096,
            momentum: 0.99,
            temperature: 0.1,
            hard_negatives: None,
            anchor: 0.0,
        }
    }
}

/// Labeled pictures to measure with: a folder for each class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeConfig {
    /// Holds one folder for each class, whose name is that of the class.
    pub folder: PathBuf,
    /// Pictures of each class that the heads learn from.
    pub shots: usize,
    /// Pictures of each class that they are tested on, at most.
    pub tests: usize,
}

impl SslConfig {
    /// Reads and checks a file. Paths in it are relative to the working folder.
    ///
    /// # Errors
    /// When the file cannot be read or a value is out of range; the message names its key.
    pub fn read(file: &Path) -> Result<Self, TrainingError> {
        let config: Self = crate::config::parse(file)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), TrainingError> {
        let (model, contrast) = (&self.model, &self.contrast);
        let from_nothing = model.image.is_some();
        let anchored = contrast.anchor > 0.0;
        let own: [Rule; 10] = [
            (
                "data.folders",
                !self.data.folders.is_empty(),
                "a list of at least one folder",
            ),
            (
                "model.from",
                model.from.is_none() || !from_nothing,
                "left out where model.image says the sizes of a new tower",
            ),
            ("contrast.dim", contrast.dim > 0, AT_LEAST_1),
            (
                "contrast.queue",
                contrast.queue > 0 && contrast.queue.is_multiple_of(self.optimizer.batch.max(1)),
                "a multiple of optimizer.batch, above 0",
            ),
            (
                "contrast.momentum",
                (0.0..1.0).contains(&contrast.momentum),
                "at least 0 and below 1",
            ),
            (
                "contrast.temperature",
                contrast.temperature.is_finite() && contrast.temperature > 0.0,
                "a number above 0",
            ),
            (
                "contrast.hard_negatives",
                contrast
                    .hard_negatives
                    .is_none_or(|n| n.get() <= contrast.queue),
                "at most contrast.queue",
            ),
            ("contrast.anchor", check::is_spread(contrast.anchor), SPREAD),
            (
                "contrast.anchor",
                !(anchored && from_nothing),
                "0 for a tower that is trained from nothing: there is no space to keep it in",
            ),
            (
                "probe",
                self.probe
                    .as_ref()
                    .is_none_or(|p| p.shots > 0 && p.tests > 0),
                "given with shots and tests of at least 1",
            ),
        ];
        let rules = check::optimizer(&self.optimizer).into_iter().chain(own);
        let image = model.image.iter().flat_map(check::image);
        check::all_hold(rules.chain(image).chain(check::augment(&self.augment)))
    }

    /// What must be equal for a run to go on: everything but how often it reports and how much memory it
    /// may use; and the model that it came from.
    pub(super) fn describe(&self, fingerprint: &str) -> String {
        let mut config = self.clone();
        config.optimizer.checkpoint_every = 1;
        config.optimizer.evaluate_every = 1;
        config.data.memory_mib = 0;
        let config = serde_json::to_string_pretty(&config).unwrap_or_default();
        format!("{config}\nfrom {fingerprint}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "seed = 1\n[data]\nfolders = [\"pictures\"]\n[contrast]\nqueue = 512\n\
                         [optimizer]\nbatch = 64\nsteps = 100\nwarmup_steps = 10\n\
                         learning_rate = 1e-3\nweight_decay = 0.1\nclip = 1.0\n\
                         checkpoint_every = 50\nevaluate_every = 50\n";

    fn refused(toml: &str) -> String {
        let config: SslConfig = toml::from_str(toml).expect("parses");
        config.check().expect_err(toml).to_string()
    }

    #[test]
    fn few_keys_are_enough_and_the_rest_has_defaults() {
        let config: SslConfig = toml::from_str(SMALL).expect("parses");
        config.check().expect("will do");
        assert_eq!(config.augment, AugmentConfig::STRONG);
        assert_eq!((config.contrast.dim, config.data.memory_mib), (128, 1024));
        assert!(config.model.from.is_none() && config.probe.is_none());
    }

    #[test]
    fn a_value_that_would_stop_or_spoil_the_run_is_refused_by_its_key() {
        for (key, old, new) in [
            ("data.folders", "[\"pictures\"]", "[]"),
            ("contrast.queue", "queue = 512", "queue = 100"),
            ("contrast.queue", "queue = 512", "queue = 0"),
            ("contrast.dim", "queue = 512", "queue = 512\ndim = 0"),
            (
                "contrast.momentum",
                "queue = 512",
                "queue = 512\nmomentum = 1.0",
            ),
            (
                "contrast.temperature",
                "queue = 512",
                "queue = 512\ntemperature = 0.0",
            ),
            (
                "contrast.hard_negatives",
                "queue = 512",
                "queue = 512\nhard_negatives = 513",
            ),
            (
                "contrast.anchor",
                "queue = 512",
                "queue = 512\nanchor = -1.0",
            ),
            ("optimizer.batch", "batch = 64", "batch = 1"),
            ("optimizer.steps", "steps = 100", "steps = 10"),
            (
                "probe",
                "seed = 1",
                "seed = 1\nprobe = { folder = \"x\", shots = 0, tests = 1 }",
            ),
            (
                "model.from",
                "seed = 1",
                "seed = 1\nmodel = { from = \"x\", image = { kind = \"vit\", image_size = 8, \
                 patch_size = 4, width = 8, layers = 1, heads = 1 } }",
            ),
            (
                "model.image.heads",
                "seed = 1",
                "seed = 1\nmodel = { image = { kind = \"vit\", image_size = 8, \
                 patch_size = 4, width = 8, layers = 1, heads = 3 } }",
            ),
        ] {
            assert!(SMALL.contains(old), "{old}");
            let message = refused(&SMALL.replace(old, new));
            assert!(message.contains(&format!("`{key}`")), "{new}: {message}");
        }
        let toml = SMALL
            .replace("queue = 512", "queue = 512\nanchor = 1.0")
            .replace(
                "seed = 1",
                "seed = 1\nmodel = { image = { kind = \"vit\", image_size = 8, patch_size = 4, \
             width = 8, layers = 1, heads = 1 } }",
            );
        assert!(refused(&toml).contains("no space to keep it in"));
    }

    #[test]
    fn the_recipe_will_do() {
        let recipe = include_str!("../../recipes/ssl.toml");
        let config: SslConfig = toml::from_str(recipe).expect("parses");
        config.check().expect("will do");
    }

    #[test]
    fn a_run_goes_on_under_other_reporting_and_no_other_change() {
        let config: SslConfig = toml::from_str(SMALL).expect("parses");
        let mut other = config.clone();
        other.optimizer.checkpoint_every = 7;
        other.data.memory_mib = 7;
        assert_eq!(config.describe("a"), other.describe("a"));
        assert_ne!(config.describe("a"), config.describe("b"));
        other.contrast.anchor = 0.5;
        assert_ne!(config.describe("a"), other.describe("a"));
    }
}
