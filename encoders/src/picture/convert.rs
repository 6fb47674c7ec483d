//! Color conversion as Pillow's `convert("RGB")` does it.

use image::ColorType;

/// Samples of any 8 or 16-bit color type to `[h, w, 3]`; `None` for floating point.
pub(super) fn to_rgb(color: ColorType, mut data: Vec<u8>) -> Option<Vec<u8>> {
    Some(match color {
        ColorType::Rgb8 => data,
        ColorType::Rgba8 => {
            // In place: a second buffer would double what a large picture costs.
            let pixels = data.len() / 4;
            for i in 0..pixels {
                data.copy_within(4 * i..4 * i + 3, 3 * i);
            }
            data.truncate(3 * pixels);
            data
        }
        ColorType::L8 => gather(&data, |[l]: &[u8; 1]| [*l; 3]),
        ColorType::La8 => gather(&data, |[l, _]: &[u8; 2]| [*l; 3]),
        ColorType::L16 => gather(&data, |l: &[u8; 2]| [clipped(*l); 3]),
        ColorType::La16 => gather(&data, |[a, b, ..]: &[u8; 4]| [high(*a, *b); 3]),
        ColorType::Rgb16 => gather(&data, rgb16::<6>),
        ColorType::Rgba16 => gather(&data, rgb16::<8>),
        _ => return None,
    })
}

/// How opaque each pixel is, `[h, w]`; `None` where the color type does not say.
pub(super) fn alpha(color: ColorType, data: &[u8]) -> Option<Vec<u8>> {
    Some(match color {
        ColorType::Rgba8 => gather(data, |p: &[u8; 4]| [p[3]]),
        ColorType::La8 => gather(data, |[_, a]: &[u8; 2]| [*a]),
        ColorType::La16 => gather(data, |[_, _, a, b]: &[u8; 4]| [high(*a, *b)]),
        ColorType::Rgba16 => gather(data, |p: &[u8; 8]| [high(p[6], p[7])]),
        _ => return None,
    })
}

/// Samples of any 8 or 16-bit color type to `[h, w, 4]`; `None` for floating point.
pub(super) fn to_rgba(color: ColorType, data: &[u8]) -> Option<Vec<u8>> {
    if color == ColorType::Rgba8 {
        return Some(data.to_vec());
    }
    let alpha = alpha(color, data).unwrap_or_default();
    let rgb = to_rgb(color, data.to_vec())?;
    let alpha = alpha.into_iter().chain(std::iter::repeat(255));
    Some(
        rgb.as_chunks::<3>()
            .0
            .iter()
            .zip(alpha)
            .flat_map(|([r, g, b], a)| [*r, *g, *b, a])
            .collect(),
    )
}

/// Applies `pixel` to every `N` bytes.
fn gather<const N: usize, const M: usize>(
    data: &[u8],
    pixel: impl Fn(&[u8; N]) -> [u8; M],
) -> Vec<u8> {
    data.as_chunks::<N>().0.iter().flat_map(pixel).collect()
}

/// Pillow reads 16-bit gray as integers and clips them on the way to 8 bits; it does not scale.
fn clipped(sample: [u8; 2]) -> u8 {
    u16::from_ne_bytes(sample).min(255) as u8
}

/// Pillow keeps the high byte of 16-bit color.
fn high(a: u8, b: u8) -> u8 {
    (u16::from_ne_bytes([a, b]) >> 8) as u8
}

/// The high bytes of the first three 16-bit samples.
fn rgb16<const N: usize>(pixel: &[u8; N]) -> [u8; 3] {
    [
        high(pixel[0], pixel[1]),
        high(pixel[2], pixel[3]),
        high(pixel[4], pixel[5]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide(samples: &[u16]) -> Vec<u8> {
        samples.iter().flat_map(|s| s.to_ne_bytes()).collect()
    }

    #[test]
    fn gray_is_replicated_and_alpha_dropped() {
        assert_eq!(
            to_rgb(ColorType::L8, vec![7, 9]),
            Some(vec![7, 7, 7, 9, 9, 9])
        );
        assert_eq!(to_rgb(ColorType::La8, vec![7, 0]), Some(vec![7, 7, 7]));
        let rgba = vec![1, 2, 3, 0, 4, 5, 6, 128];
        assert_eq!(to_rgb(ColorType::Rgba8, rgba), Some(vec![1, 2, 3, 4, 5, 6]));
    }

    #[test]
    fn sixteen_bit_gray_is_clipped_and_color_keeps_its_high_byte() {
        let gray = to_rgb(ColorType::L16, wide(&[127, 255, 256, 65_535]));
        assert_eq!(
            gray,
            Some([127, 255, 255, 255].iter().flat_map(|v| [*v; 3]).collect())
        );
        let color = wide(&[255, 256, 65_535, 0x1234]);
        assert_eq!(
            to_rgb(ColorType::Rgba16, color.clone()),
            Some(vec![0, 1, 255])
        );
        assert_eq!(
            to_rgba(ColorType::Rgba16, &color),
            Some(vec![0, 1, 255, 0x12])
        );
        assert_eq!(
            to_rgb(ColorType::Rgb16, wide(&[0x1234, 0, 0x8000])),
            Some(vec![0x12, 0, 128])
        );
        assert_eq!(
            to_rgb(ColorType::La16, wide(&[0x1234, 0])),
            Some(vec![0x12; 3])
        );
    }

    #[test]
    fn what_has_no_alpha_is_opaque() {
        assert_eq!(to_rgba(ColorType::L8, &[5]), Some(vec![5, 5, 5, 255]));
        assert_eq!(to_rgba(ColorType::La8, &[5, 6]), Some(vec![5, 5, 5, 6]));
        assert_eq!(
            to_rgba(ColorType::Rgb8, &[1, 2, 3]),
            Some(vec![1, 2, 3, 255])
        );
        assert_eq!(to_rgba(ColorType::Rgb32F, &[0; 12]), None);
    }
}
