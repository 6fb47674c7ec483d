//! What a model wants to see: resize, crop, rescale, normalize.
//!
//! Equal to transformers' `CLIPImageProcessor` on Pillow, step by step; but only the pixels that
//! survive the crop are ever computed.

mod json;

use std::num::NonZeroU32;

use super::resize::{Filter, Window, resize_window};
use super::rgb::{Picture, Pixels};

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Rows.
    pub height: NonZeroU32,
    /// Pixels per row.
    pub width: NonZeroU32,
}

impl Size {
    /// As many rows as columns.
    pub fn square(side: NonZeroU32) -> Self {
        Self {
            height: side,
            width: side,
        }
    }
}

/// To which size a picture is brought first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResizeTo {
    /// The shorter side to this many pixels, the other in proportion, rounded down.
    ShortestEdge(NonZeroU32),
    /// Exactly this, whatever the proportions.
    Exact(Size),
}

/// A resize and its filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resize {
    /// The size afterwards.
    pub to: ResizeTo,
    /// How samples are weighted.
    pub filter: Filter,
}

/// Mean and standard deviation that each channel is brought from, red first, in rescaled units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalization {
    mean: [f64; 3],
    std: [f64; 3],
}

impl Normalization {
    /// What the original CLIP was trained with.
    pub const CLIP: Self = Self {
        mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
        std: [0.268_629_54, 0.261_302_58, 0.275_777_11],
    };
    /// From [0, 1] to [-1, 1].
    pub const HALF: Self = Self {
        mean: [0.5; 3],
        std: [0.5; 3],
    };

    /// `(x - mean) / std` per channel; `None` when a value is not finite or a deviation not
    /// positive.
    pub fn new(mean: [f64; 3], std: [f64; 3]) -> Option<Self> {
        let usable = mean.iter().all(|m| (*m as f32).is_finite())
            && std
                .iter()
                .all(|s| (*s as f32).is_finite() && *s as f32 > 0.0);
        usable.then_some(Self { mean, std })
    }
}

/// How pictures become [`Pixels`]: read from `preprocessor_config.json`, or made for a model that
/// is about to be trained.
#[derive(Debug, Clone, PartialEq)]
pub struct PreprocessConfig {
    resize: Option<Resize>,
    /// Centered; what lies outside of the picture is black.
    crop: Option<Size>,
    /// Factor on gray levels; `None` leaves them at 0 to 255.
    rescale: Option<f64>,
    normalization: Option<Normalization>,
    output: Size,
}

impl PreprocessConfig {
    /// As CLIP: the shorter side to `side`, then the central square of that side.
    pub fn shortest_edge(side: NonZeroU32, filter: Filter, normalization: Normalization) -> Self {
        Self {
            resize: Some(Resize {
                to: ResizeTo::ShortestEdge(side),
                filter,
            }),
            crop: Some(Size::square(side)),
            rescale: Some(1.0 / 255.0),
            normalization: Some(normalization),
            output: Size::square(side),
        }
    }

    /// As `SigLIP`: the whole picture squashed to a square of `side`.
    pub fn squash(side: NonZeroU32, filter: Filter, normalization: Normalization) -> Self {
        Self {
            resize: Some(Resize {
                to: ResizeTo::Exact(Size::square(side)),
                filter,
            }),
            crop: None,
            rescale: Some(1.0 / 255.0),
            normalization: Some(normalization),
            output: Size::square(side),
        }
    }

    /// Size of the pixels that [`PreprocessConfig::prepare`] makes.
    pub fn size(&self) -> Size {
        self.output
    }

    /// The value that each gray level becomes, per channel: `[3, 256]`, red first.
    ///
    /// For code that resizes and crops by its own rules, such as training augmentation.
    pub fn levels(&self) -> [[f32; 256]; 3] {
        let mut levels = [[0.0; 256]; 3];
        for (channel, row) in levels.iter_mut().enumerate() {
            for (gray, level) in row.iter_mut().enumerate() {
                // transformers rescales in f64, rounds to f32 and normalizes in f32.
                let value = self
                    .rescale
                    .map_or(gray as f32, |s| (gray as f64 * s) as f32);
                *level = self.normalization.as_ref().map_or(value, |n| {
                    (value - n.mean[channel] as f32) / n.std[channel] as f32
                });
            }
        }
        levels
    }

    /// The pixels of one picture, shape `[3, height, width]`.
    pub fn prepare(&self, picture: &Picture) -> Pixels {
        let (width, height, filter) = self.resized(picture);
        let (out_width, out_height) = (self.output.width.get(), self.output.height.get());
        let (left, top) = (offset(width, out_width), offset(height, out_height));
        // The part of the output that shows the picture; around it is padding.
        let window = Window {
            left: left.max(0) as u32,
            top: top.max(0) as u32,
            width: width.min(out_width),
            height: height.min(out_height),
        };
        let rgb = resize_window(picture, width, height, filter, window);
        let levels = self.levels();
        let (out_width, out_height) = (out_width as usize, out_height as usize);
        let plane = out_width * out_height;
        let mut values = Vec::with_capacity(3 * plane);
        for level in &levels {
            values.resize(values.len() + plane, level[0]);
        }
        let (pad_left, pad_top) = ((-left).max(0) as usize, (-top).max(0) as usize);
        let window_width = window.width as usize;
        for (y, row) in rgb.chunks_exact(3 * window_width).enumerate() {
            let start = (pad_top + y) * out_width + pad_left;
            for (channel, level) in levels.iter().enumerate() {
                let out = &mut values[channel * plane + start..][..window_width];
                for (value, pixel) in out.iter_mut().zip(row.as_chunks::<3>().0) {
                    *value = level[usize::from(pixel[channel])];
                }
            }
        }
        Pixels::new(values, out_height, out_width).expect("made to fill the size")
    }

    /// Size after the resize, and its filter.
    fn resized(&self, picture: &Picture) -> (u32, u32, Filter) {
        let (width, height) = (picture.width(), picture.height());
        // Without a resize the filter does not matter: both passes are left out.
        let Some(resize) = self.resize else {
            return (width, height, Filter::Box);
        };
        let (width, height) = match resize.to {
            ResizeTo::Exact(size) => (size.width.get(), size.height.get()),
            ResizeTo::ShortestEdge(edge) => {
                let long = |long: u32, short: u32| {
                    (u64::from(edge.get()) * u64::from(long) / u64::from(short)) as u32
                };
                if width <= height {
                    (edge.get(), long(height, width))
                } else {
                    (long(width, height), edge.get())
                }
            }
        };
        (width, height, resize.filter)
    }
}

/// Where a centered crop of `crop` starts within `side`; negative when it is larger.
fn offset(side: u32, crop: u32) -> i64 {
    (i64::from(side) - i64::from(crop)).div_euclid(2)
}

#[cfg(test)]
#[path = "preprocess/tests.rs"]
mod tests;
