//! Variation of pictures: position, part, ground, color, sharpness.

use encoders::RgbaPicture;
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
    let frame = Frame::draw(side, may_mirror, config, random);
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
    if config.blur_share > 0.0 && random.random_bool(f64::from(config.blur_share)) {
        let deviation = random.random_range(BLUR[0]..=BLUR[1]) * side as f32;
        blur(&mut pixels, side, deviation);
    }
    if random.random_bool(f64::from(config.erase_share)) {
        erase(&mut pixels, side, random);
    }
    pixels
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

    /// A rectangle of a random share of the area, of a random shape, anywhere (Szegedy et al. 2015,
    /// "Going deeper with convolutions", section 6).
    fn draw([least, most]: [f32; 2], random: &mut impl Rng) -> Self {
        /// Draws that may be too long for the picture before a window has its shape.
        const TRIES: usize = 10;
        let longest = (4.0_f32 / 3.0).ln();
        let mut size = [random.random_range(least..=most).sqrt(); 2];
        for _ in 0..TRIES {
            let area: f32 = random.random_range(least..=most);
            let shape = random.random_range(-longest..=longest).exp();
            let drawn = [(area * shape).sqrt(), (area / shape).sqrt()];
            if drawn.iter().all(|side| *side <= 1.0) {
                size = drawn;
                break;
            }
        }
        let center = size.map(|side| side / 2.0 + (1.0 - side) * random.random_range(0.0..=1.0));
        Self { center, size }
    }
}

impl Frame {
    fn draw(side: usize, may_mirror: bool, config: &AugmentConfig, random: &mut impl Rng) -> Self {
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
                .map_or(Window::ALL, |shares| Window::draw(shares, random)),
        }
    }

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
mod tests {
    use encoders::{Filter, Normalization, Picture, PreprocessConfig};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn without_variation_a_picture_is_itself_on_white() {
        let (red, clear) = ([255, 0, 0, 255], [9, 9, 9, 0]);
        let rgba = [red, clear, clear, red].concat();
        let picture = RgbaPicture::new(2, 2, rgba).expect("sizes fit");
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let pixels = augment(&picture, 2, false, &AugmentConfig::STILL, &mut random);
        let expected = [
            [1.0, 1.0, 1.0, 1.0],
            [-1.0, 1.0, 1.0, -1.0],
            [-1.0, 1.0, 1.0, -1.0],
        ]
        .concat();
        for (a, b) in pixels.iter().zip(expected) {
            assert!((a - b).abs() < 1e-5, "{pixels:?}");
        }
    }

    /// Wide pictures once kept their shape in training and were squashed when served.
    #[test]
    fn a_wide_picture_is_squashed_as_it_is_when_served() {
        let rgb: Vec<u8> = (0..4 * 2 * 3).map(|i| (i * 53 % 256) as u8).collect();
        let rgba = rgb.as_chunks::<3>().0.iter();
        let rgba = rgba.flat_map(|&[r, g, b]| [r, g, b, 255]).collect();
        let picture = RgbaPicture::new(4, 2, rgba).expect("sizes fit");
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let side = 8;
        let trained = augment(&picture, side, false, &AugmentConfig::STILL, &mut random);
        let served = PreprocessConfig::squash(
            std::num::NonZeroU32::new(8).expect("not 0"),
            Filter::Bilinear,
            Normalization::HALF,
        );
        let served = served.prepare(&Picture::new(4, 2, rgb).expect("sizes fit"));
        let served = served.as_slice();
        for (i, (a, b)) in trained.iter().zip(served).enumerate() {
            // At its rim a picture in training blends with the ground.
            let (x, y) = (i % side, i / side % side);
            if (1..7).contains(&x) && (2..6).contains(&y) {
                assert!((a - b).abs() < 1.0 / 127.0, "{x}, {y}: {a} against {b}");
            }
        }
    }

    #[test]
    fn every_variation_stays_in_range_and_equal_seeds_give_equal_pixels() {
        let rgba = (0..72 * 72 * 4).map(|i| (i * 7 % 256) as u8).collect();
        let picture = RgbaPicture::new(72, 72, rgba).expect("sizes fit");
        let wild = AugmentConfig {
            rotation: 45.0,
            scale: [0.5, 1.5],
            shift: 0.3,
            white_share: 0.5,
            color: 0.8,
            gray_share: 0.2,
            erase_share: 0.5,
            mirror_share: 0.5,
            crop: None,
            blur_share: 0.0,
        };
        let wilder = AugmentConfig {
            crop: Some([0.1, 1.0]),
            blur_share: 0.9,
            ..wild.clone()
        };
        for seed in 0..50 {
            let config = if seed % 2 == 0 { &wild } else { &wilder };
            let draw = || {
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                augment(&picture, 64, true, config, &mut random)
            };
            let pixels = draw();
            assert!(
                pixels.iter().all(|x| (-1.0..=1.0).contains(x)),
                "seed {seed}"
            );
            assert_eq!(pixels, draw(), "seed {seed}");
        }
    }

    /// A ramp whose red says the column and whose green says the row.
    fn ramp(side: u32) -> RgbaPicture {
        let level = |at: u32| (at * 255 / (side - 1)) as u8;
        let rgba = (0..side * side).flat_map(|i| [level(i % side), level(i / side), 0, 255]);
        RgbaPicture::new(side, side, rgba.collect()).expect("sizes fit")
    }

    #[test]
    fn a_crop_shows_a_part_of_the_asked_area_and_never_the_ground() {
        let (picture, side) = (ramp(64), 32);
        let config = AugmentConfig {
            crop: Some([0.25, 0.25]),
            ..AugmentConfig::STILL
        };
        let mut corners = Vec::new();
        for seed in 0..40 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let pixels = augment(&picture, side, false, &config, &mut random);
            let at = |plane: usize, x: usize, y: usize| pixels[(plane * side + y) * side + x];
            let last = side - 1;
            let width = (at(0, last, 0) - at(0, 0, 0)) / 2.0;
            let height = (at(1, 0, last) - at(1, 0, 0)) / 2.0;
            // From center to center of the outermost pixels: a 32nd less than the whole.
            let area = width * height * (32.0_f32 / 31.0).powi(2);
            assert!((area - 0.25).abs() < 0.02, "seed {seed}: {area}");
            let shape = width / height;
            assert!((0.72..1.38).contains(&shape), "seed {seed}: {shape}");
            // Blue is 0 in all of the picture, and the ground is white.
            let blue = &pixels[2 * side * side..];
            assert!(blue.iter().all(|b| *b < -0.999), "seed {seed}");
            corners.push(at(0, 0, 0));
        }
        let spread = corners
            .iter()
            .fold(0.0_f32, |most, x| most.max(*x - corners[0]));
        assert!(spread > 0.2, "crops lie anywhere: {spread}");
    }

    #[test]
    fn a_blur_keeps_the_sum_and_spreads_a_point_as_a_normal_distribution() {
        let side = 21;
        let mut pixels = vec![0.0; 3 * side * side];
        let middle = 10 * side + 10;
        pixels[middle] = 1.0;
        blur(&mut pixels, side, 1.5);
        let sum: f32 = pixels.iter().sum();
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
        let ratio = pixels[middle + 2] / pixels[middle];
        assert!((ratio - (-0.5_f32 * (2.0 / 1.5_f32).powi(2)).exp()).abs() < 1e-4);
        assert!((pixels[middle + 2 * side] - pixels[middle + 2]).abs() < 1e-7);
        let mut flat = vec![0.5; 3 * side * side];
        blur(&mut flat, side, 0.6);
        assert!(
            flat.iter().all(|x| (x - 0.5).abs() < 1e-6),
            "rims are repeated"
        );
    }
}
