//! Pictures that compress about as photographs do.

use crate::Random;

/// Side of a square with one brightness, in pixels.
const PATCH: usize = 40;

/// Gray levels `[height, width, 3]` of a picture with smooth gradients, edges and grain.
pub fn photo_like(width: usize, height: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let across = width.div_ceil(PATCH);
    let patches: Vec<[f32; 3]> = (0..across * height.div_ceil(PATCH))
        .map(|_| [0; 3].map(|_: u8| 60.0 * random.normal()))
        .collect();
    let mut levels = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let patch = patches[y / PATCH * across + x / PATCH];
            let slope = 90.0 * (x as f32 / width as f32 + y as f32 / height as f32);
            let grain = 4.0 * random.normal();
            levels.extend(patch.map(|p| (p + slope + grain + 40.0).clamp(0.0, 255.0) as u8));
        }
    }
    levels
}
