//! Pictures that keep their transparency.

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::PictureError;

/// Pixels with straight alpha: `[height, width, 4]` bytes, red first, rows from the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RgbaPicture {
    width: u32,
    height: u32,
    rgba: Vec<u8>,
}

impl RgbaPicture {
    /// A picture of these pixels.
    ///
    /// # Errors
    /// When a side is 0 or `rgba` does not hold exactly `height * width * 4` bytes.
    pub fn new(width: u32, height: u32, rgba: Vec<u8>) -> Result<Self, PictureError> {
        let expected = u128::from(width) * u128::from(height) * 4;
        if expected == 0 || rgba.len() as u128 != expected {
            return Err(PictureError::WrongRgbaSize {
                got: rgba.len(),
                height,
                width,
            });
        }
        Ok(Self {
            width,
            height,
            rgba,
        })
    }

    /// Pixels in a row, at least 1.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Number of rows, at least 1.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The pixels: `[height, width, 4]`, straight alpha.
    pub fn as_rgba(&self) -> &[u8] {
        &self.rgba
    }

    /// The pixels: `[height, width, 4]`, straight alpha.
    pub fn into_vec(self) -> Vec<u8> {
        self.rgba
    }

    /// The picture as a PNG file; the same pixels always give the same bytes.
    pub fn to_png(&self) -> Vec<u8> {
        let mut png = Vec::new();
        PngEncoder::new(&mut png)
            .write_image(
                &self.rgba,
                self.width,
                self.height,
                ExtendedColorType::Rgba8,
            )
            .expect("memory takes every byte, and the constructor checked the size");
        png
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_of_another_size_is_refused() {
        assert!(RgbaPicture::new(2, 3, vec![0; 24]).is_ok());
        for (width, height, bytes) in [
            (2, 3, 23),
            (3, 3, 24),
            (0, 3, 0),
            (3, 0, 0),
            (u32::MAX, u32::MAX, 4),
        ] {
            let result = RgbaPicture::new(width, height, vec![0; bytes]);
            assert!(
                matches!(result, Err(PictureError::WrongRgbaSize { .. })),
                "{width} x {height}"
            );
        }
    }

    #[test]
    fn a_png_gives_the_same_pixels_back() {
        let pixels: Vec<u8> = (0..5 * 3 * 4)
            .map(|index| (index * 37 % 256) as u8)
            .collect();
        let picture = RgbaPicture::new(5, 3, pixels.clone()).expect("the right size");
        let decoded = image::load_from_memory(&picture.to_png()).expect("a good PNG");
        assert_eq!((decoded.width(), decoded.height()), (5, 3));
        assert_eq!(decoded.into_rgba8().into_raw(), pixels);
    }
}
