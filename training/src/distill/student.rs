//! What a student's weights begin with.

use candle_core::Tensor;
use encoders::{
    ModelError, SentenceFolder, SentenceSource,
    nn::{Form, Init, SentenceConfig, SentenceTower, Source},
};

use super::config::{Start, StudentConfig};
use crate::{objective::attention::LayerMap, parameters::Parameters};

/// Table of the embeddings of word pieces.
const WORDS: &str = "embeddings.word_embeddings.weight";
/// Table of the embeddings of positions, of which the teacher may have more.
const POSITIONS: &str = "embeddings.position_embeddings.weight";
/// Before the number of a layer.
const LAYER: &str = "encoder.layer.";

/// Makes the tower of `sizes` of new parameters, as `config` says.
pub(super) fn begin(
    config: &StudentConfig,
    sizes: &SentenceConfig,
    teacher: &SentenceFolder,
    parameters: &mut Parameters,
    form: Form,
) -> Result<SentenceTower, ModelError> {
    let pairs = LayerMap::Uniform.pairs(config.layers, teacher.config.transformer.layers);
    let mut source = Beginning {
        teacher: match config.start {
            Start::Teacher => Some(teacher.source()?),
            Start::Random => None,
        },
        layers: pairs.into_iter().map(|(_, teacher)| teacher).collect(),
        learn_words: config.learn_words,
        parameters,
    };
    SentenceTower::new(&mut source, sizes, form)
}

/// Makes parameters, and sets those that the teacher has in the same shape to its values.
struct Beginning<'a> {
    parameters: &'a mut Parameters,
    teacher: Option<SentenceSource<'a>>,
    /// The teacher's layer of each of the student's.
    layers: Vec<usize>,
    learn_words: bool,
}

impl Beginning<'_> {
    /// The name of the teacher's counterpart.
    fn counterpart(&self, name: &str) -> Option<String> {
        let Some((number, part)) = name.strip_prefix(LAYER).and_then(|n| n.split_once('.')) else {
            return Some(name.to_owned());
        };
        let layer = self.layers.get(number.parse::<usize>().ok()?)?;
        Some(format!("{LAYER}{layer}.{part}"))
    }

    /// The teacher's values for a tensor, where it has any.
    fn known(&mut self, name: &str, shape: &[usize]) -> Result<Option<Tensor>, ModelError> {
        let counterpart = self.counterpart(name);
        let (Some(teacher), Some(theirs)) = (&mut self.teacher, counterpart) else {
            return Ok(None);
        };
        let Some(stored) = teacher.shape(&theirs) else {
            return Ok(None);
        };
        let init = Init::Constant(0.0);
        if stored == shape {
            return teacher.tensor(&theirs, shape, init).map(Some);
        }
        match (&stored[..], shape) {
            ([more, theirs_width], [rows, width])
                if name == POSITIONS && more >= rows && theirs_width == width =>
            {
                let all = teacher.tensor(&theirs, &stored, init)?;
                Ok(Some(all.narrow(0, 0, *rows)?.contiguous()?))
            }
            _ => Ok(None),
        }
    }
}

impl Source for Beginning<'_> {
    fn tensor(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Tensor, ModelError> {
        let tensor = self.parameters.tensor(name, shape, init)?;
        if let Some(known) = self.known(name, shape)? {
            self.parameters
                .set(name, &known)
                .map_err(|error| ModelError::Network(candle_core::Error::wrap(error)))?;
        }
        if name == WORDS && !self.learn_words {
            return Ok(tensor.detach());
        }
        Ok(tensor)
    }
}
