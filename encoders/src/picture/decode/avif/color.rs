//! Planes of luma and chroma to 8-bit colors, as Pillow does it: with libavif and, for most, with the
//! integers of libyuv. Chroma that is subsampled is interpolated linearly, its samples lying in the
//! middle of the pixels that they cover.

use re_rav1d::dav1d::{Picture, PixelLayout, PlanarImageComponent as Component, Plane};

use super::AvifError;

/// How samples become colors.
#[derive(Clone, Copy)]
pub(super) enum Matrix {
    /// The planes are green, blue and red.
    Identity,
    /// The weights of red and of blue in luma, and what libyuv stretches luma of the range of video by.
    Weights(f64, f64, f64),
}

impl Matrix {
    /// By its number in ITU-T H.273, table 4.
    pub(super) fn numbered(number: u16) -> Result<Self, AvifError> {
        Ok(match number {
            0 => Self::Identity,
            1 => Self::Weights(0.2126, 0.0722, 1.164),
            // Where nothing is said, libavif takes BT.601.
            2 | 5 | 6 => Self::Weights(0.299, 0.114, 1.164),
            9 => Self::Weights(0.2627, 0.0593, 255.0 / 219.0),
            _ => return Err(AvifError::Matrix(number)),
        })
    }
}

/// What libyuv multiplies samples with, in 64ths of those of 8 bits.
struct Factors {
    luma: i32,
    zero: i32,
    blue_to_blue: i32,
    blue_to_green: i32,
    red_to_green: i32,
    red_to_red: i32,
}

impl Factors {
    fn new([of_red, of_blue, of_video]: [f64; 3], is_full: bool) -> Self {
        /// libyuv has bytes for factors, so that blue may stay behind in the range of video.
        const MOST: i32 = 128;
        let (stretch, chroma, zero) = if is_full {
            (1.0, 64.0, 32)
        } else {
            (of_video, 64.0 * 255.0 / 224.0, 32 - 1192)
        };
        let [of_blue_to_blue, of_red_to_red] = [2.0 * (1.0 - of_blue), 2.0 * (1.0 - of_red)];
        let of_green = 1.0 - of_red - of_blue;
        let factor = |by: f64| ((chroma * by).round() as i32).min(MOST);
        Self {
            luma: (stretch * 64.0 * 65_536.0 / 257.0).round() as i32,
            zero,
            blue_to_blue: factor(of_blue_to_blue),
            blue_to_green: factor(of_blue_to_blue * of_blue / of_green),
            red_to_green: factor(of_red_to_red * of_red / of_green),
            red_to_red: factor(of_red_to_red),
        }
    }

    /// From luma of 16 bits and chroma of 8.
    fn rgb(&self, luma: i32, blue: i32, red: i32) -> [u8; 3] {
        let luma = ((i64::from(luma) * i64::from(self.luma)) >> 16) as i32 + self.zero;
        let (blue, red) = (blue - 128, red - 128);
        let green = luma - self.blue_to_green * blue - self.red_to_green * red;
        let rgb = [
            luma + self.red_to_red * red,
            green,
            luma + self.blue_to_blue * blue,
        ];
        rgb.map(|color| (color >> 6).clamp(0, 255) as u8)
    }
}

/// A decoded picture, and what its samples mean.
pub(super) struct Planes {
    layout: PixelLayout,
    luma: Samples,
    chroma: Option<[Samples; 2]>,
    bits: u32,
    is_full: bool,
}

/// Lower bits that are cut off before and after chroma is interpolated.
#[derive(Clone, Copy)]
struct Cut {
    before: u32,
    after: u32,
}

impl Planes {
    /// The planes of `picture`, whose range is full or that of video.
    pub(super) fn of(picture: &Picture, is_full: bool) -> Result<Self, AvifError> {
        let bits = picture.bits_per_component().ok_or(AvifError::NoPicture)?.0 as u32;
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let layout = picture.pixel_layout();
        let halved = match layout {
            PixelLayout::I420 => [true, true],
            PixelLayout::I422 => [true, false],
            PixelLayout::I400 | PixelLayout::I444 => [false, false],
        };
        let samples = |which, halved: [bool; 2]| Samples {
            plane: picture.plane(which),
            stride: picture.stride(which) as usize,
            sides: [
                if halved[0] { width.div_ceil(2) } else { width },
                if halved[1] {
                    height.div_ceil(2)
                } else {
                    height
                },
            ],
            width,
            halved,
            is_wide: bits > 8,
        };
        let chroma = [Component::U, Component::V];
        Ok(Self {
            layout,
            luma: samples(Component::Y, [false, false]),
            chroma: (layout != PixelLayout::I400)
                .then(|| chroma.map(|which| samples(which, halved))),
            bits,
            is_full,
        })
    }

    /// A sample of luma, or of a color, as 0 to 255.
    fn gray(&self, sample: i32) -> u8 {
        let more = self.bits - 8;
        let (zero, range) = if self.is_full {
            (0, (1 << self.bits) - 1)
        } else {
            (16 << more, 219 << more)
        };
        // This rounds, and clips.
        ((sample - zero) as f32 * (255.0 / range as f32) + 0.5) as u8
    }

    /// Calls `pixel` with the place of each pixel in the picture and its luma, 0 to 255.
    pub(super) fn each_luma(&self, mut pixel: impl FnMut(usize, u8)) -> Result<(), AvifError> {
        let [width, height] = self.luma.sides;
        let mut row = Vec::new();
        for y in 0..height {
            self.luma.row(y, 0, &mut row)?;
            for (x, sample) in row.iter().enumerate() {
                pixel(y * width + x, self.gray(*sample));
            }
        }
        Ok(())
    }

    /// Calls `pixel` with the place of each pixel in the picture and its red, green and blue, which
    /// are a little more exact beside alpha.
    pub(super) fn each_rgb(
        &self,
        matrix: Matrix,
        has_alpha: bool,
        mut pixel: impl FnMut(usize, [u8; 3]),
    ) -> Result<(), AvifError> {
        let Some([blue, red]) = &self.chroma else {
            return self.each_luma(|at, gray| pixel(at, [gray; 3]));
        };
        let factors = match matrix {
            Matrix::Identity if self.layout != PixelLayout::I444 => {
                return Err(AvifError::Matrix(0));
            }
            Matrix::Identity => None,
            Matrix::Weights(red, blue, video) => {
                Some(Factors::new([red, blue, video], self.is_full))
            }
        };
        let more = self.bits - 8;
        // Only for 10 bits with alpha does libavif have a function of libyuv that keeps the lower bits.
        let cut = match self.bits {
            _ if factors.is_none() => Cut {
                before: 0,
                after: 0,
            },
            10 if has_alpha => Cut {
                before: 0,
                after: more,
            },
            _ => Cut {
                before: more,
                after: 0,
            },
        };
        let [width, height] = self.luma.sides;
        let [mut lumas, mut blues, mut reds, mut spare] = [const { Vec::new() }; 4];
        for y in 0..height {
            self.luma.row(y, cut.before, &mut lumas)?;
            blue.interpolated(y, cut.before, &mut blues, &mut spare)?;
            red.interpolated(y, cut.before, &mut reds, &mut spare)?;
            let samples = lumas.iter().zip(&blues).zip(&reds).enumerate();
            if let Some(factors) = &factors {
                samples.for_each(|(x, ((luma, blue), red))| {
                    // Repeated in the lower bits, so that the largest stays the largest.
                    let luma = luma << (8 - cut.after) | luma >> (2 * cut.after);
                    let rgb = factors.rgb(luma, blue >> cut.after, red >> cut.after);
                    pixel(y * width + x, rgb);
                });
            } else {
                samples.for_each(|(x, ((green, blue), red))| {
                    let rgb = [red, green, blue].map(|sample| self.gray(*sample));
                    pixel(y * width + x, rgb);
                });
            }
        }
        Ok(())
    }
}

/// One plane.
struct Samples {
    plane: Plane,
    /// Bytes from row to row.
    stride: usize,
    /// Columns and rows.
    sides: [usize; 2],
    /// Columns of the picture.
    width: usize,
    /// Whether a sample covers two columns, and two rows.
    halved: [bool; 2],
    /// Whether a sample has two bytes.
    is_wide: bool,
}

impl Samples {
    /// A row without the lowest `shift` bits; below the last that again.
    fn row(&self, row: usize, shift: u32, into: &mut Vec<i32>) -> Result<(), AvifError> {
        let start = row.min(self.sides[1] - 1) * self.stride;
        let bytes = self.sides[0] * if self.is_wide { 2 } else { 1 };
        let bytes = self.plane.get(start..start + bytes);
        let bytes = bytes.ok_or(AvifError::NoPicture)?;
        into.clear();
        if self.is_wide {
            let samples = bytes.as_chunks().0.iter();
            into.extend(samples.map(|sample| i32::from(u16::from_ne_bytes(*sample) >> shift)));
        } else {
            into.extend(bytes.iter().map(|sample| i32::from(*sample)));
        }
        Ok(())
    }

    /// A sample for each pixel of a row.
    fn interpolated(
        &self,
        y: usize,
        shift: u32,
        into: &mut Vec<i32>,
        spare: &mut Vec<i32>,
    ) -> Result<(), AvifError> {
        let mut weight = 1;
        if self.halved[1] {
            let (near, far) = neighbors(y);
            self.row(near, shift, into)?;
            self.row(far, shift, spare)?;
            for (sample, far) in into.iter_mut().zip(&*spare) {
                *sample = 3 * *sample + far;
            }
            weight = 4;
        } else {
            self.row(y, shift, into)?;
        }
        if self.halved[0] {
            weight *= 4;
            std::mem::swap(into, spare);
            let last = self.sides[0] - 1;
            into.clear();
            into.extend((0..self.width).map(|x| {
                let (near, mut far) = neighbors(x);
                // As libyuv does, even where the last pixel has a neighbor.
                if x + 1 == self.width {
                    far = near;
                }
                (3 * spare[near.min(last)] + spare[far.min(last)] + weight / 2) / weight
            }));
        }
        Ok(())
    }
}

/// Of samples that cover two pixels each: the one over this pixel, and the next one beside it.
fn neighbors(pixel: usize) -> (usize, usize) {
    let near = pixel / 2;
    if pixel % 2 == 1 {
        (near, near + 1)
    } else {
        (near, near.saturating_sub(1))
    }
}
