//! Variation of pictures: position, part, ground, color, sharpness. And of photographs as they are served:
//! which part is seen.

// What makes a pixel is compiled into the loop over them, for its registers.
#![allow(clippy::inline_always)]

use encoders::{Picture, PreprocessConfig, RgbaPicture, wide};
use rand::{Rng, RngExt as _};

use crate::config::AugmentConfig;

/// Draws one variation of `picture` as pixels `[3, side, side]` in `[-1, 1]`.
pub fn augment(
    picture: &RgbaPicture,
    side: usize,
    may_mirror: bool,
    config: &AugmentConfig,
    random: &mut impl Rng,
) -> Vec<f32> {
    let frame = Frame::draw(side, picture, may_mirror, config, random);
    // A part of a picture has no ground around it.
    let edge = if config.crop.is_some() {
        Edge::Repeated
    } else {
        Edge::Transparent
    };
    let ground = draw_ground(config, random);
    let color = Color::draw(config, random);
    let plane = side * side;
    let mut pixels = vec![0.0; 3 * plane];
    wide(
        #[inline(always)]
        || {
            for y in 0..side {
                for x in 0..side {
                    let [r, g, b, alpha] = sample(picture, frame.source(x, y, picture), edge);
                    // Samples are premultiplied by alpha.
                    let rgb = [r, g, b];
                    let rgb = std::array::from_fn(|i| rgb[i] + (1.0 - alpha) * ground[i]);
                    for (i, value) in color.apply(rgb).into_iter().enumerate() {
                        pixels[i * plane + y * side + x] = value.clamp(0.0, 1.0) * 2.0 - 1.0;
                    }
                }
            }
        },
    );
    if config.blur_share > 0.0 && random.random_bool(f64::from(config.blur_share)) {
        let deviation = random.random_range(BLUR[0]..=BLUR[1]) * side as f32;
        blur(&mut pixels, side, deviation);
    }
    if random.random_bool(f64::from(config.erase_share)) {
        erase(&mut pixels, side, random);
    }
    pixels
}

/// Draws one variation of a photograph as `preprocess` shows it, `[3, height, width]`: a random part of it
/// where the configuration says so (Szegedy et al. 2015), mirrored or not. Without either it is what is
/// served.
pub fn photograph(
    picture: &Picture,
    preprocess: &PreprocessConfig,
    may_mirror: bool,
    config: &AugmentConfig,
    random: &mut impl Rng,
) -> Vec<f32> {
    let pixels = match config.crop.zip(preprocess.squashing()) {
        Some((areas, squashing)) => squashing.prepare(&random_part(picture, areas, random)),
        None => preprocess.prepare(picture),
    };
    let mut values = pixels.as_slice().to_vec();
    if may_mirror && random.random_bool(f64::from(config.mirror_share)) {
        values
            .chunks_exact_mut(pixels.width())
            .for_each(<[f32]>::reverse);
    }
    values
}

/// The part of a picture that a window shows, in whole pixels.
fn random_part(picture: &Picture, areas: [f32; 2], random: &mut impl Rng) -> Picture {
    let all = [picture.width(), picture.height()];
    let Window { center, size } = Window::draw(areas, all.map(|side| side as f32), random);
    let sides: [u32; 2] = std::array::from_fn(|i| {
        let most = all[i] as f32;
        (size[i] * most).round().clamp(1.0, most) as u32
    });
    let corner = std::array::from_fn(|i| {
        let first = center[i] * all[i] as f32 - sides[i] as f32 / 2.0;
        first.round().clamp(0.0, (all[i] - sides[i]) as f32) as u32
    });
    picture.part(corner, sides)
}

/// A similarity from pixels of the frame to those of the picture, squashed to a square as when it is
/// served.
struct Frame {
    cosine: f32,
    sine: f32,
    scale: f32,
    shift: [f32; 2],
    mirrored: bool,
    side: f32,
    window: Window,
}

/// The part of a picture that fills the frame before it is turned and moved, in shares of its width and
/// height.
struct Window {
    center: [f32; 2],
    size: [f32; 2],
}

impl Window {
    const ALL: Self = Self {
        center: [0.5; 2],
        size: [1.0; 2],
    };

    /// A random share of the area of a picture of these sides, anywhere in it; its width is 3/4 to 4/3 of
    /// its height (Szegedy et al. 2015, "Going deeper with convolutions", section 6). The largest one in
    /// the middle where ten draws do not fit.
    fn draw([least, most]: [f32; 2], [width, height]: [f32; 2], random: &mut impl Rng) -> Self {
        const TRIES: usize = 10;
        const LONGEST: f32 = 4.0 / 3.0;
        for _ in 0..TRIES {
            let area = width * height * random.random_range(least..=most);
            let shape = (LONGEST.ln() * random.random_range(-1.0_f32..=1.0)).exp();
            let size = [
                (area * shape).sqrt() / width,
                (area / shape).sqrt() / height,
            ];
            if size.iter().all(|side| *side <= 1.0) {
                let center =
                    size.map(|side| side / 2.0 + (1.0 - side) * random.random_range(0.0..=1.0));
                return Self { center, size };
            }
        }
        Self {
            center: [0.5; 2],
            size: [
                (height * LONGEST / width).min(1.0),
                (width * LONGEST / height).min(1.0),
            ],
        }
    }
}

impl Frame {
    fn draw(
        side: usize,
        of: &RgbaPicture,
        may_mirror: bool,
        config: &AugmentConfig,
        random: &mut impl Rng,
    ) -> Self {
        let sides = [of.width(), of.height()].map(|side| side as f32);
        let angle = config.rotation.to_radians() * random.random_range(-1.0_f32..=1.0);
        let shift = side as f32 * config.shift;
        Self {
            cosine: angle.cos(),
            sine: angle.sin(),
            scale: random.random_range(config.scale[0]..=config.scale[1]),
            shift: std::array::from_fn(|_| shift * random.random_range(-1.0_f32..=1.0)),
            mirrored: may_mirror && random.random_bool(f64::from(config.mirror_share)),
            side: side as f32,
            window: config
                .crop
                .map_or(Window::ALL, |shares| Window::draw(shares, sides, random)),
        }
    }

    #[inline(always)]
    fn source(&self, x: usize, y: usize, picture: &RgbaPicture) -> [f32; 2] {
        let half = self.side / 2.0;
        let (dx, dy) = (
            x as f32 + 0.5 - half - self.shift[0],
            y as f32 + 0.5 - half - self.shift[1],
        );
        let (width, height) = (picture.width() as f32, picture.height() as f32);
        let frame = self.side * self.scale;
        let Window { center, size } = &self.window;
        let u = (self.cosine * dx + self.sine * dy) * (size[0] * width / frame);
        let v = (self.cosine * dy - self.sine * dx) * (size[1] * height / frame);
        let u = if self.mirrored { -u } else { u };
        [u + center[0] * width - 0.5, v + center[1] * height - 0.5]
    }
}

/// What lies around a picture.
#[derive(Clone, Copy, PartialEq)]
enum Edge {
    /// Nothing.
    Transparent,
    /// Its outermost pixels again.
    Repeated,
}

/// Bilinear sample in `[0, 1]`, premultiplied by alpha.
#[inline(always)]
fn sample(picture: &RgbaPicture, [u, v]: [f32; 2], edge: Edge) -> [f32; 4] {
    let (width, height) = (picture.width() as isize, picture.height() as isize);
    let (left, top) = (u.floor(), v.floor());
    let (fu, fv) = (u - left, v - top);
    let mut sum = [0.0; 4];
    for (dy, wy) in [(0, 1.0 - fv), (1, fv)] {
        for (dx, wx) in [(0, 1.0 - fu), (1, fu)] {
            let (mut x, mut y) = (left as isize + dx, top as isize + dy);
            if edge == Edge::Repeated {
                (x, y) = (x.clamp(0, width - 1), y.clamp(0, height - 1));
            }
            if x < 0 || y < 0 || x >= width || y >= height {
                continue;
            }
            let at = 4 * (y * width + x) as usize;
            let texel = &picture.as_rgba()[at..at + 4];
            let weight = wx * wy * f32::from(texel[3]) / 255.0;
            for i in 0..3 {
                sum[i] += weight * f32::from(texel[i]) / 255.0;
            }
            sum[3] += weight;
        }
    }
    sum
}

/// White, a gray, or a pale or strong color.
fn draw_ground(config: &AugmentConfig, random: &mut impl Rng) -> [f32; 3] {
    if random.random_bool(f64::from(config.white_share)) {
        return [1.0; 3];
    }
    let gray = random.random_range(0.3_f32..=1.0);
    let strength = random.random_range(0.0_f32..=0.5);
    std::array::from_fn(|_| gray * (1.0 - strength) + strength * random.random_range(0.0_f32..=1.0))
}

/// Brightness, contrast and saturation.
struct Color {
    brightness: f32,
    contrast: f32,
    saturation: f32,
    /// Factors of the three channels: a slight cast.
    cast: [f32; 3],
}

/// Weights of the channels in a gray value (ITU-R BT.601).
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

impl Color {
    fn draw(config: &AugmentConfig, random: &mut impl Rng) -> Self {
        let c = config.color;
        let mut factor = |spread: f32| 1.0 + spread * random.random_range(-1.0_f32..=1.0);
        let (brightness, contrast, saturation) = (factor(c), factor(c), factor(1.5 * c));
        let cast = std::array::from_fn(|_| factor(0.3 * c));
        let gray = random.random_bool(f64::from(config.gray_share));
        Self {
            brightness,
            contrast,
            saturation: if gray { 0.0 } else { saturation },
            cast,
        }
    }

    #[inline(always)]
    fn apply(&self, rgb: [f32; 3]) -> [f32; 3] {
        let luma: f32 = rgb.iter().zip(LUMA).map(|(x, w)| x * w).sum();
        std::array::from_fn(|i| {
            let x = luma + self.saturation * (rgb[i] - luma);
            let x = 0.5 + self.contrast * (x - 0.5);
            x * self.brightness * self.cast[i]
        })
    }
}

/// Least and largest standard deviation of a blur, as shares of the side: .1 and 2 of 224 pixels in Chen
/// et al. 2020.
const BLUR: [f32; 2] = [0.1 / 224.0, 2.0 / 224.0];

/// Means with weights of a normal distribution, whose `deviation` is in pixels; the outermost pixels are
/// repeated.
fn blur(pixels: &mut [f32], side: usize, deviation: f32) {
    let reach = (3.0 * deviation).ceil() as isize;
    let weight = |i: isize| (-0.5 * (i as f32 / deviation).powi(2)).exp();
    let weights: Vec<f32> = (-reach..=reach).map(weight).collect();
    let sum: f32 = weights.iter().sum();
    let mut line = vec![0.0; side];
    for plane in pixels.chunks_exact_mut(side * side) {
        // Along rows, then along columns.
        for (start, step) in (0..side)
            .map(|y| (y * side, 1))
            .chain((0..side).map(|x| (x, side)))
        {
            for (i, value) in line.iter_mut().enumerate() {
                let near = (-reach..=reach).zip(&weights).map(|(by, weight)| {
                    let at = (i as isize + by).clamp(0, side as isize - 1) as usize;
                    weight * plane[start + at * step]
                });
                *value = near.sum::<f32>() / sum;
            }
            for (i, value) in line.iter().enumerate() {
                plane[start + i * step] = *value;
            }
        }
    }
}

/// Hides a rectangle of up to a sixth of the area behind one gray.
fn erase(pixels: &mut [f32], side: usize, random: &mut impl Rng) {
    let mut extent = || (side as f32 * random.random_range(0.1_f32..=0.4)) as usize;
    let (width, height) = (extent(), extent());
    let (left, top) = (
        random.random_range(0..=side - width),
        random.random_range(0..=side - height),
    );
    let value = random.random_range(-1.0_f32..=1.0);
    for plane in pixels.chunks_exact_mut(side * side) {
        for row in plane.chunks_exact_mut(side).skip(top).take(height) {
            row[left..left + width].fill(value);
        }
    }
}

#[cfg(test)]
mod tests;
