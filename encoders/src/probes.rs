//! Inputs whose embeddings are known, to tell whether a model still computes what it should.

use std::io::Cursor;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use embedding::{Embedding, EncodeError, Encoded};
use image::{ImageFormat, RgbImage};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    DecodeLimits, ModelError, PictureError, PreprocessConfig, decode,
    halves::{ImageHalf, TextHalf},
};

/// Texts of probes: plain words, punctuation, other scripts.
const TEXTS: [&str; 3] = [
    "a photo of a red bicycle leaning against a wall",
    "Two dogs, one cat & 2,048 birds!",
    "caf\u{e9} \u{5bcc}\u{58eb}\u{5c71} \u{43a}\u{43e}\u{448}\u{43a}\u{430}",
];

/// Width and height of the pictures of probes: wide and tall, as a square cannot see a wrong crop.
const PICTURES: [(u32, u32); 2] = [(112, 64), (60, 96)];

/// What the reference network makes of some inputs, in f32.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probes {
    texts: Vec<Probe<String>>,
    pictures: Vec<Probe<Bytes>>,
}

/// An input and its embeddings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Probe<I> {
    input: I,
    shared: Floats,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    specific: Option<Floats>,
}

/// The bytes of a picture file, as base64.
#[derive(Debug, Clone, PartialEq)]
struct Bytes(Vec<u8>);

/// The elements of an embedding, as base64 of little-endian f32.
#[derive(Debug, Clone, PartialEq)]
struct Floats(Vec<f32>);

/// How far embeddings are from the stored ones.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Deviation {
    /// Least cosine of an embedding, shared or specific, to the stored one.
    pub least_cosine: f32,
    /// Largest difference of an element.
    pub max_abs: f32,
}

impl Deviation {
    /// Of a tower that gives nothing.
    pub(crate) const WORST: Self = Self {
        least_cosine: 0.0,
        max_abs: 1.0,
    };
}

impl Probes {
    /// Runs the inputs through both halves of the reference network.
    pub(crate) fn make(
        text: &TextHalf,
        image: &ImageHalf,
        preprocess: &PreprocessConfig,
    ) -> Result<Self, ModelError> {
        let inputs = TEXTS.map(str::to_owned);
        let encoded = text.encode(&inputs)?;
        let texts = inputs.into_iter().zip(encoded).map(Probe::new).collect();
        let mut pictures = Vec::new();
        for (width, height) in PICTURES {
            let bytes = drawing(width, height)?;
            let pixels = [preprocess.prepare(&decode(&bytes, &DecodeLimits::default())?)];
            let encoded = image.encode(&pixels)?;
            let probes = encoded
                .into_iter()
                .map(|e| Probe::new((Bytes(bytes.clone()), e)));
            pictures.extend(probes);
        }
        Ok(Self { texts, pictures })
    }

    /// How far the texts' embeddings are from the stored ones; the first `most` of them.
    pub(crate) fn of_texts(&self, text: &TextHalf, most: usize) -> Result<Deviation, ModelError> {
        let probes = &self.texts[..most.min(self.texts.len())];
        let inputs: Vec<String> = probes.iter().map(|probe| probe.input.clone()).collect();
        deviation(probes, &text.encode(&inputs)?)
    }

    /// The same for pictures.
    pub(crate) fn of_pictures(
        &self,
        image: &ImageHalf,
        preprocess: &PreprocessConfig,
        most: usize,
    ) -> Result<Deviation, ModelError> {
        let probes = &self.pictures[..most.min(self.pictures.len())];
        let mut pixels = Vec::new();
        for probe in probes {
            let picture = decode(&probe.input.0, &DecodeLimits::default())?;
            pixels.push(preprocess.prepare(&picture));
        }
        deviation(probes, &image.encode(&pixels)?)
    }
}

impl<I> Probe<I> {
    fn new((input, encoded): (I, Encoded)) -> Self {
        let floats = |e: Embedding| Floats(e.as_slice().to_vec());
        Self {
            input,
            shared: floats(encoded.shared),
            specific: encoded.specific.map(floats),
        }
    }
}

fn deviation<I>(probes: &[Probe<I>], encoded: &[Encoded]) -> Result<Deviation, ModelError> {
    let mut worst = Deviation {
        least_cosine: 1.0,
        max_abs: 0.0,
    };
    if probes.is_empty() {
        return Err(ModelError::BadProbes {
            problem: "there are none for one of the towers".to_owned(),
        });
    }
    for (probe, encoded) in probes.iter().zip(encoded) {
        let pairs = [
            (Some(&probe.shared), Some(&encoded.shared)),
            (probe.specific.as_ref(), encoded.specific.as_ref()),
        ];
        for pair in pairs {
            match pair {
                (Some(Floats(stored)), Some(ours)) if stored.len() == ours.dim() => {
                    let pairs = || stored.iter().zip(ours.as_slice());
                    let dot: f64 = pairs().map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    let apart = pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    worst.least_cosine = worst.least_cosine.min(dot as f32);
                    worst.max_abs = worst.max_abs.max(apart);
                }
                (None, None) => {}
                _ => {
                    return Err(ModelError::BadProbes {
                        problem: "the stored embeddings have other dims than those of the model"
                            .to_owned(),
                    });
                }
            }
        }
    }
    Ok(worst)
}

/// A PNG with soft colors, an edge and a disc, so that resizing and color conversion show.
fn drawing(width: u32, height: u32) -> Result<Vec<u8>, ModelError> {
    let picture = RgbImage::from_fn(width, height, |x, y| {
        let (u, v) = (
            f64::from(x) / f64::from(width),
            f64::from(y) / f64::from(height),
        );
        let inside = (u - 0.6).powi(2) + (v - 0.4).powi(2) < 0.05;
        let level = |f: f64| (f.clamp(0.0, 1.0) * 255.0) as u8;
        if inside {
            return image::Rgb([230, 60, 40]);
        }
        let stripe = if (x / 8 + y / 12) % 2 == 0 { 0.25 } else { 0.0 };
        image::Rgb([
            level(0.2 + 0.5 * u),
            level(v),
            level(0.9 - 0.6 * u + stripe),
        ])
    });
    let mut bytes = Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, ImageFormat::Png)
        .map_err(|source| PictureError::Undecodable {
            format: "PNG",
            source: source.into(),
        })?;
    Ok(bytes.into_inner())
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(D::Error::custom)
    }
}

impl Serialize for Floats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|x| x.to_le_bytes()).collect();
        Bytes(bytes).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Floats {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Bytes(bytes) = Bytes::deserialize(deserializer)?;
        let (floats, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() || floats.is_empty() {
            return Err(D::Error::custom("expected base64 of 32-bit floats"));
        }
        Ok(Self(
            floats.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        ))
    }
}

impl From<EncodeError> for ModelError {
    fn from(source: EncodeError) -> Self {
        Self::Probing(source.into())
    }
}

impl From<PictureError> for ModelError {
    fn from(source: PictureError) -> Self {
        Self::Probing(source.into())
    }
}
