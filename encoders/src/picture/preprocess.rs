//! What a model wants to see: resize, crop, rescale, normalize.
//!
//! Equal to transformers' image processors on Pillow and to `OpenCLIP`'s transforms, step by step; but
//! only the pixels that survive the crop are ever computed. The processors on torchvision (those
//! without `Pil` in their names) resize by rules of their own, which differ by a gray level here
//! and there.

mod json;
mod open_clip;

use std::{borrow::Cow, num::NonZeroU32};

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
    /// The longer side, measured by this size, to it, the other in proportion, rounded to the
    /// nearest: the picture fits inside. Ties go to even numbers, as in Python.
    Inside(Size),
    /// Exactly this, whatever the proportions.
    Exact(Size),
    /// As many whole patches as `max_patches` allows, nearly in proportion.
    Patches {
        /// Side of a square patch in pixels.
        patch: NonZeroU32,
        /// Most patches of a picture.
        max_patches: NonZeroU32,
    },
}

/// Where a picture lies that has an odd number of rows or columns more or less than the crop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Centering {
    /// One more is lost, or filled up, below and on the right (lost) or above and on the left
    /// (filled up): transformers.
    Floor,
    /// What is lost above and on the left is rounded to the even number, and more is filled up
    /// below and on the right: torchvision.
    Even,
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

/// What becomes of transparency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transparency {
    /// It is as if it were not there: the color that a file has below it is seen, often black. CLIP and
    /// `SigLIP` were trained like that.
    Ignored,
    /// The picture is seen as on a white page.
    White,
}

/// How pictures become [`Pixels`]: read from `preprocessor_config.json`, or made for a model that
/// is about to be trained.
#[derive(Debug, Clone, PartialEq)]
pub struct PreprocessConfig {
    transparency: Transparency,
    resize: Option<Resize>,
    /// Centered; what lies outside of the picture is filled up.
    crop: Option<Size>,
    centering: Centering,
    /// Gray level of what is filled up.
    fill: u8,
    /// Factor on gray levels; `None` leaves them at 0 to 255.
    rescale: Option<f64>,
    normalization: Option<Normalization>,
    /// `None` where each picture has a size of its own.
    output: Option<Size>,
}

impl PreprocessConfig {
    /// As CLIP: the shorter side to `side`, then the central square of that side.
    pub fn shortest_edge(side: NonZeroU32, filter: Filter, normalization: Normalization) -> Self {
        Self {
            transparency: Transparency::Ignored,
            resize: Some(Resize {
                to: ResizeTo::ShortestEdge(side),
                filter,
            }),
            crop: Some(Size::square(side)),
            centering: Centering::Floor,
            fill: 0,
            rescale: Some(1.0 / 255.0),
            normalization: Some(normalization),
            output: Some(Size::square(side)),
        }
    }

    /// As `SigLIP`: the whole picture squashed to a square of `side`.
    pub fn squash(side: NonZeroU32, filter: Filter, normalization: Normalization) -> Self {
        Self {
            transparency: Transparency::Ignored,
            resize: Some(Resize {
                to: ResizeTo::Exact(Size::square(side)),
                filter,
            }),
            crop: None,
            centering: Centering::Floor,
            fill: 0,
            rescale: Some(1.0 / 255.0),
            normalization: Some(normalization),
            output: Some(Size::square(side)),
        }
    }

    /// The same with transparent pictures seen as on a white page. Without it the color that a file has
    /// below its transparency is seen, as CLIP was trained.
    #[must_use]
    pub fn on_white(self) -> Self {
        Self {
            transparency: Transparency::White,
            ..self
        }
    }

    /// The same for parts that were cut out of pictures, as training does: all of a part is seen, squashed
    /// to the output size. `None` where that follows each picture.
    pub fn squashing(&self) -> Option<Self> {
        let output = self.output?;
        let filter = self.resize.map_or(Filter::Bicubic, |resize| resize.filter);
        Some(Self {
            resize: Some(Resize {
                to: ResizeTo::Exact(output),
                filter,
            }),
            crop: None,
            ..self.clone()
        })
    }

    /// Size of the pixels that [`PreprocessConfig::prepare`] makes; `None` where it follows each
    /// picture, in whole patches.
    pub fn size(&self) -> Option<Size> {
        self.output
    }

    /// Side of a patch in pixels and most patches of a picture, where pictures are resized to whole
    /// patches.
    pub fn patches(&self) -> Option<(usize, usize)> {
        match self.resize?.to {
            ResizeTo::Patches { patch, max_patches } => {
                Some((patch.get() as usize, max_patches.get() as usize))
            }
            _ => None,
        }
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

    /// The part of a picture that [`PreprocessConfig::prepare`] shows, at its own resolution: all of
    /// it, or the middle that a crop leaves, to the nearest pixel.
    ///
    /// For code that varies pictures before it prepares them, such as training augmentation.
    pub fn visible(&self, picture: Picture) -> Picture {
        let picture = match self.transparency {
            Transparency::Ignored => picture,
            // Only one that is transparent is copied.
            Transparency::White => match picture.on_white() {
                Cow::Owned(white) => white,
                Cow::Borrowed(_) => picture,
            },
        };
        let Some(output) = self.output else {
            return picture;
        };
        let (width, height, _) = self.resized(&picture);
        let (columns, full_width) = self.strip(picture.width(), width, output.width.get());
        let (rows, full_height) = self.strip(picture.height(), height, output.height.get());
        if full_width && full_height {
            return picture;
        }
        let corner = [columns.start, rows.start];
        picture.part(corner, [columns.len() as u32, rows.len() as u32])
    }

    /// Which part of a `side` is shown when it is `resized` and then cut to `shown`, and whether that is
    /// all of it.
    fn strip(&self, side: u32, resized: u32, shown: u32) -> (std::ops::Range<u32>, bool) {
        if shown >= resized {
            return (0..side, true);
        }
        let to_source = f64::from(side) / f64::from(resized);
        let length = ((f64::from(shown) * to_source).round() as u32).clamp(1, side);
        let offset = self.centering.offset(resized, shown).max(0) as f64;
        let start = ((offset * to_source).round() as u32).min(side - length);
        (start..start + length, false)
    }

    /// The pixels of one picture, shape `[3, height, width]`.
    pub fn prepare(&self, picture: &Picture) -> Pixels {
        let seen = match self.transparency {
            Transparency::Ignored => Cow::Borrowed(picture),
            Transparency::White => picture.on_white(),
        };
        let picture = &*seen;
        let (width, height, filter) = self.resized(picture);
        let (out_width, out_height) = match self.output {
            Some(size) => (size.width.get(), size.height.get()),
            None => (width, height),
        };
        let (left, top) = (
            self.centering.offset(width, out_width),
            self.centering.offset(height, out_height),
        );
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
            values.resize(values.len() + plane, level[usize::from(self.fill)]);
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
            ResizeTo::Inside(size) => inside(size, width, height),
            ResizeTo::Patches { patch, max_patches } => {
                whole_patches(patch.get(), max_patches.get(), width, height)
            }
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

impl Centering {
    /// Where a centered crop of `crop` starts within `side`; negative when it is larger.
    fn offset(self, side: u32, crop: u32) -> i64 {
        let over = i64::from(side) - i64::from(crop);
        match self {
            Self::Floor => over.div_euclid(2),
            Self::Even if over < 0 => over / 2,
            Self::Even => over / 2 + i64::from(over % 4 == 3),
        }
    }
}

/// Width and height of a picture made to fit inside of `size`, as `OpenCLIP` computes them.
fn inside(size: Size, width: u32, height: u32) -> (u32, u32) {
    let (width, height) = (f64::from(width), f64::from(height));
    let ratio = (height / f64::from(size.height.get())).max(width / f64::from(size.width.get()));
    // A thread would lose its short side altogether; there OpenCLIP fails.
    let side = |side: f64| ((side / ratio).round_ties_even() as u32).max(1);
    (side(width), side(height))
}

/// Width and height of a picture in whole patches, at most `max_patches` of them: the largest scale
/// of a binary search that ends as that of transformers' `Siglip2ImageProcessor` does.
fn whole_patches(patch: u32, max_patches: u32, width: u32, height: u32) -> (u32, u32) {
    const PRECISION: f64 = 1e-5;
    let (mut low, mut high) = (PRECISION / 10.0, 100.0);
    let count = |scale: f64, side: u32| {
        let patches = (f64::from(side) * scale / f64::from(patch)).ceil();
        patches.max(1.0)
    };
    while high - low >= PRECISION {
        let scale = f64::midpoint(low, high);
        if count(scale, width) * count(scale, height) <= f64::from(max_patches) {
            low = scale;
        } else {
            high = scale;
        }
    }
    let side = |side: u32| count(low, side) as u32 * patch;
    (side(width), side(height))
}

#[cfg(test)]
#[path = "preprocess/tests.rs"]
mod tests;
