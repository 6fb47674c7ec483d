//! Components to gray or RGB, as libjpeg converts them and Pillow converts CMYK.

use super::Meaning;
use super::frame::{Component, Frame};
use super::upsample::Upsampler;

/// Fractional bits of the factors.
const BITS: u32 = 16;
const HALF: i32 = 1 << (BITS - 1);

/// All components of `frame` in full size: `[height, width, 1 or 3]`.
pub(super) fn join(frame: &Frame, meaning: Meaning) -> Vec<u8> {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has the instructions that the function is compiled for.
        #[allow(unsafe_code)]
        return unsafe { join_avx2(frame, meaning) };
    }
    join_any(frame, meaning)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn join_avx2(frame: &Frame, meaning: Meaning) -> Vec<u8> {
    join_any(frame, meaning)
}

#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "compiled once per set of instructions"
)]
fn join_any(frame: &Frame, meaning: Meaning) -> Vec<u8> {
    let width = frame.width;
    if meaning == Meaning::Gray {
        let plane = &frame.components[0];
        let rows = plane
            .plane
            .chunks_exact(8 * plane.blocks_across)
            .take(frame.height);
        return rows.flat_map(|row| &row[..width]).copied().collect();
    }
    let largest = |side: fn(&Component) -> usize| frame.components.iter().map(side).max();
    let (h, v) = (largest(|c| c.h).unwrap_or(1), largest(|c| c.v).unwrap_or(1));
    // Upsampling may give a whole sample more than there are columns.
    let room = width + h;
    let mut upsamplers = Vec::new();
    let mut full = Vec::new();
    for component in &frame.components {
        upsamplers.push(Upsampler::new(component, h / component.h, v / component.v));
        full.push(vec![0; room]);
    }
    let mut colors = [vec![0; width], vec![0; width], vec![0; width]];
    let mut out = vec![0; 3 * width * frame.height];
    for (y, out) in out.chunks_exact_mut(3 * width).enumerate() {
        let mut rows: [&[u8]; 4] = [&[]; 4];
        for (((row, component), upsampler), full) in rows
            .iter_mut()
            .zip(&frame.components)
            .zip(&mut upsamplers)
            .zip(&mut full)
        {
            *row = &upsampler.row(&component.plane, 8 * component.blocks_across, y, full)[..width];
        }
        let [first, second, third, fourth] = rows;
        match meaning {
            Meaning::Ycc | Meaning::Ycck => ycc_to_rgb(&mut colors, first, second, third),
            _ => {
                for (color, row) in colors.iter_mut().zip(rows) {
                    color.copy_from_slice(row);
                }
            }
        }
        let [r, g, b] = &colors;
        let pixels = out.as_chunks_mut::<3>().0.iter_mut();
        let colors = r.iter().zip(g).zip(b).map(|((r, g), b)| [*r, *g, *b]);
        match meaning {
            Meaning::Cmyk => {
                for ((out, color), key) in pixels.zip(colors).zip(fourth) {
                    *out = color.map(|ink| inked(255 - ink, *key));
                }
            }
            // These are RGB of the inks turned over.
            Meaning::Ycck => {
                for ((out, color), key) in pixels.zip(colors).zip(fourth) {
                    *out = color.map(|rgb| inked(rgb, *key));
                }
            }
            _ => pixels.zip(colors).for_each(|(out, color)| *out = color),
        }
    }
    out
}

/// What `ink` leaves of `light`; Pillow's rounding.
fn inked(ink: u8, light: u8) -> u8 {
    let product = u32::from(ink) * u32::from(light) + 128;
    light - (((product >> 8) + product) >> 8) as u8
}

/// JFIF's conversion: ITU-R BT.601 with all of 0 to 255.
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "compiled once per set of instructions"
)]
fn ycc_to_rgb(colors: &mut [Vec<u8>; 3], y: &[u8], cb: &[u8], cr: &[u8]) {
    let [r, g, b] = colors;
    let samples = y.iter().zip(cb).zip(cr);
    let outs = r.iter_mut().zip(g).zip(b);
    for (((r, g), b), ((y, cb), cr)) in outs.zip(samples) {
        let (y, cb, cr) = (i32::from(*y), i32::from(*cb) - 128, i32::from(*cr) - 128);
        // 1.402, .34414, .71414 and 1.772.
        *r = (y + ((91_881 * cr + HALF) >> BITS)).clamp(0, 255) as u8;
        *g = (y + ((-22_554 * cb - 46_802 * cr + HALF) >> BITS)).clamp(0, 255) as u8;
        *b = (y + ((116_130 * cb + HALF) >> BITS)).clamp(0, 255) as u8;
    }
}
