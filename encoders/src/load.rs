//! From the files of a model to its two halves, at the precision that was asked for and that passes.

use std::path::{Path, PathBuf};

use embedding::{Modality, Scoring};
use kernels::Level;
use memmap2::Mmap;

use crate::{
    Card, ModelError, Place, Precision, PrecisionChoice, PreprocessConfig, RunOptions, builtin,
    cpu::Plan,
    folder::{Description, Files, FolderSource, Layout, Measured, SmallFiles},
    halves::{ImageHalf, TextHalf},
    nn::{ImageConfig, TransformerConfig, network::logits},
    probes::Deviation,
    run::least_cosine,
    towers::Backend,
    weights::map_file,
};

/// What is measured of kernels holds for this version of them: the last number goes up when what they compute
/// changes between two releases.
pub(crate) const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "-2");

/// More than there ever are.
pub(crate) const ALL_PROBES: usize = usize::MAX;

/// Probes of the check at every start.
const QUICK_PROBES: usize = 2;

/// Least cosine to the probes at which a precision is chosen without being asked for.
const AUTO_LEAST_COSINE: f32 = 0.999_9;

/// Weights of a transformer below which another precision than f32 is not worth its error: they stay
/// in the caches of the CPU.
const SMALL: usize = 8_000_000;

/// The files of a model, read and checked but for the weights.
pub(crate) struct Loader<'a> {
    layout: Layout,
    /// Files, sorted by name.
    weights: Vec<(PathBuf, Weights<'a>)>,
    /// What is named where a tensor is in none of them.
    named: PathBuf,
    pub description: Description,
}

enum Weights<'a> {
    Mapped(Mmap),
    Borrowed(&'a [u8]),
}

impl Weights<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Borrowed(bytes) => bytes,
        }
    }
}

/// How a tower runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chosen {
    pub backend: Backend,
    /// How far its embeddings of the probes are from the stored ones, where there are any.
    pub deviation: Option<Deviation>,
}

impl Loader<'static> {
    /// Of the built-in model.
    pub(crate) fn builtin() -> Result<Self, ModelError> {
        Self::of_files(&builtin::files())
    }
}

impl<'a> Loader<'a> {
    /// Of files in memory.
    pub(crate) fn of_files(files: &Files<'a>) -> Result<Self, ModelError> {
        let weights = files.weights.iter();
        let weights = weights.map(|(name, b)| (files.folder.join(name), Weights::Borrowed(b)));
        Ok(Self {
            layout: files.layout,
            named: files.folder.join(files.layout.weights()),
            description: files.describe()?,
            weights: weights.collect(),
        })
    }
}

impl Loader<'_> {
    /// Of a folder, called `name` where its card does not say; its weights are mapped.
    pub(crate) fn of(folder: &Path, name: &str, small: &SmallFiles) -> Result<Self, ModelError> {
        let mapped = small.weights.parts.iter().map(|part| {
            let file = folder.join(part);
            let map = map_file(&file)?;
            Ok((file, Weights::Mapped(map)))
        });
        let mapped: Vec<(PathBuf, Weights<'_>)> = mapped.collect::<Result<_, ModelError>>()?;
        let names = small.weights.parts.iter().map(String::as_str);
        let files = Files {
            folder: folder.to_owned(),
            name,
            layout: small.layout,
            config: &small.config,
            preprocessor_form: small.preprocessor_form,
            preprocessor: &small.preprocessor,
            tokenizer: &small.tokenizer,
            tokenizer_config: small.tokenizer_config.as_deref(),
            weights: names.zip(mapped.iter().map(|(_, w)| w.bytes())).collect(),
            card: small.card.as_deref(),
            readme: small.readme.as_deref(),
        };
        Ok(Self {
            layout: small.layout,
            named: folder.join(&small.weights.named),
            description: files.describe()?,
            weights: mapped,
        })
    }

    /// The card of the folder, or what stands in for one.
    pub(crate) fn card(&self) -> &Card {
        &self.description.card
    }

    /// What the image tower wants to see.
    pub(crate) fn preprocess(&self) -> &PreprocessConfig {
        &self.description.preprocess
    }

    /// Whether the image tower has a packed form.
    pub(crate) fn image_is_packed(&self) -> bool {
        matches!(self.description.network.image, ImageConfig::Vit(_))
    }

    /// The tensors.
    pub(crate) fn source(&self) -> Result<FolderSource<'_>, ModelError> {
        let files = self.weights.iter();
        let files = files.map(|(file, weights)| (file.clone(), weights.bytes()));
        FolderSource::new(self.layout, files, &self.named)
    }

    /// How cosines become probabilities.
    pub(crate) fn scoring(&self) -> Result<Scoring, ModelError> {
        const SCALE: &str = "logit_scale";
        let mut source = self.source()?;
        let (scale, bias) = logits(&mut source, &self.description.network)?;
        let logit_scale = scale.to_scalar::<f32>()?.exp();
        let scoring = match bias {
            None => Scoring::Softmax { logit_scale },
            Some(bias) => Scoring::Sigmoid {
                logit_scale,
                logit_bias: bias.to_scalar::<f32>()?,
            },
        };
        if scoring.is_usable() {
            return Ok(scoring);
        }
        Err(ModelError::Tensor {
            file: source.files().file_of(SCALE).to_owned(),
            name: SCALE.to_owned(),
            problem: format!("gives {scoring}, expected finite numbers"),
        })
    }

    /// The text half, on some backend.
    pub(crate) fn text(&self, backend: Backend) -> Result<TextHalf, ModelError> {
        let Description {
            network, tokenizer, ..
        } = &self.description;
        TextHalf::new(&mut self.source()?, network, tokenizer.clone(), backend)
    }

    /// The image half, on some backend.
    pub(crate) fn image(&self, backend: Backend) -> Result<ImageHalf, ModelError> {
        let Description {
            network,
            preprocess,
            ..
        } = &self.description;
        ImageHalf::new(&mut self.source()?, network, preprocess, backend)
    }

    /// The text half, at the precision that is asked for, if its probes allow.
    pub(crate) fn chosen_text(
        &self,
        options: RunOptions,
    ) -> Result<(TextHalf, Chosen), ModelError> {
        let candidates = self.candidates(options, Modality::Text)?;
        let probes = self.card().probes.as_ref();
        choose(
            Modality::Text,
            options.precision,
            &candidates,
            |backend| self.text(backend),
            |half| {
                let probed = probes.map(|probes| probes.of_texts(half, QUICK_PROBES));
                probed.transpose()
            },
        )
    }

    /// The image half, at the precision that is asked for, if its probes allow.
    pub(crate) fn chosen_image(
        &self,
        options: RunOptions,
    ) -> Result<(ImageHalf, Chosen), ModelError> {
        let candidates = self.candidates(options, Modality::Image)?;
        let probes = self.card().probes.as_ref();
        choose(
            Modality::Image,
            options.precision,
            &candidates,
            |backend| self.image(backend),
            |half| {
                let probed = probes.map(|p| p.of_pictures(half, self.preprocess(), QUICK_PROBES));
                probed.transpose()
            },
        )
    }

    /// The weights of a tower's transformer; `None` for one that has no packed form.
    fn transformer(&self, tower: Modality) -> Option<&TransformerConfig> {
        let network = &self.description.network;
        match (tower, &network.image) {
            (Modality::Text, _) => Some(&network.text.transformer),
            (Modality::Image, ImageConfig::Vit(config)) => Some(&config.transformer),
            (Modality::Image, ImageConfig::Residual(_)) => None,
        }
    }

    /// Whether another precision than f32 is worth having for a tower.
    fn is_large_in(&self, tower: Modality) -> bool {
        let transformer = self.transformer(tower);
        transformer.is_some_and(|transformer| transformer.weights() >= SMALL)
    }

    /// The same for one of the towers.
    pub(crate) fn is_large(&self) -> bool {
        Modality::ALL
            .into_iter()
            .any(|tower| self.is_large_in(tower))
    }

    /// What may be chosen on this CPU without being asked for, besides f32.
    pub(crate) fn measurable(&self) -> Vec<(Modality, Plan)> {
        let level = Level::best();
        let large = Modality::ALL
            .into_iter()
            .filter(|tower| self.is_large_in(*tower));
        let plans = |tower| {
            let narrow = level.by_speed.iter().filter(|p| **p != Precision::F32);
            narrow.map(move |&precision| (tower, Plan { level, precision }))
        };
        large.flat_map(plans).collect()
    }

    /// Those of them that the card says nothing of.
    pub(crate) fn unmeasured(&self) -> Vec<(Modality, Plan)> {
        let mut plans = self.measurable();
        plans.retain(|(tower, plan)| found(&self.card().measured, *tower, *plan).is_none());
        plans
    }

    /// The ways to run a tower, the best first.
    fn candidates(&self, options: RunOptions, tower: Modality) -> Result<Vec<Backend>, ModelError> {
        let (choice, place) = (options.precision, options.place);
        if place != Place::Cpu {
            return match choice {
                PrecisionChoice::Auto | PrecisionChoice::Only(Precision::F32) => {
                    Ok(vec![Backend::Candle(place)])
                }
                PrecisionChoice::Only(precision) => Err(ModelError::Device {
                    place,
                    reason: format!("it computes in f32, and {precision} was asked for"),
                }),
            };
        }
        if self.transformer(tower).is_none() {
            return Ok(vec![Backend::REFERENCE]);
        }
        let level = Level::best();
        let small = !self.is_large_in(tower);
        let precisions = match choice {
            PrecisionChoice::Only(precision) => vec![precision],
            PrecisionChoice::Auto if small || self.card().probes.is_none() => vec![Precision::F32],
            PrecisionChoice::Auto => {
                let mut precisions = level.by_speed.to_vec();
                // Packing a tower only to see it fail once more takes longer than all the rest.
                precisions.retain(|&precision| {
                    let measured = found(&self.card().measured, tower, Plan { level, precision });
                    measured.is_none_or(|of| of.least_cosine >= AUTO_LEAST_COSINE)
                });
                precisions
            }
        };
        let packed = |precision| Backend::Packed(Plan { level, precision });
        Ok(precisions.into_iter().map(packed).collect())
    }
}

/// What was measured of a tower with these kernels.
pub(crate) fn found(measured: &[Measured], tower: Modality, plan: Plan) -> Option<&Measured> {
    measured.iter().find(|of| {
        of.version == VERSION
            && of.kernels == plan.level.name
            && (of.tower, of.precision) == (tower, plan.precision)
    })
}

/// The first candidate that passes; an error that says by how much where the last one does not.
fn choose<T>(
    tower: Modality,
    choice: PrecisionChoice,
    candidates: &[Backend],
    build: impl Fn(Backend) -> Result<T, ModelError>,
    probe: impl Fn(&T) -> Result<Option<Deviation>, ModelError>,
) -> Result<(T, Chosen), ModelError> {
    let mut failed = None;
    for (i, backend) in candidates.iter().enumerate() {
        let half = build(*backend)?;
        let must_work = i + 1 == candidates.len() || choice != PrecisionChoice::Auto;
        let deviation = match probe(&half) {
            // The next one may do what this one cannot at all.
            Err(ModelError::Probing(_)) if !must_work => Some(Deviation::WORST),
            probed => probed?,
        };
        let needed = if must_work {
            least_cosine(backend.precision())
        } else {
            AUTO_LEAST_COSINE
        };
        let backend = *backend;
        match deviation {
            Some(deviation) if deviation.least_cosine < needed => {
                failed = Some((backend, deviation, needed));
            }
            _ => return Ok((half, Chosen { backend, deviation })),
        }
    }
    let (backend, deviation, needed) =
        failed.unwrap_or((Backend::REFERENCE, Deviation::WORST, 1.0));
    Err(ModelError::SelfCheck {
        tower,
        precision: backend.precision(),
        kernels: backend.kernels(),
        cosine: deviation.least_cosine,
        needed,
    })
}
