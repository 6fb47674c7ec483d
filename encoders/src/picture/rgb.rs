//! Decoded pictures and what a tower takes.

use std::{borrow::Cow, fmt};

use crate::PictureError;

/// An RGB picture, 8 bits per channel, upright. It remembers where its file was transparent.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
    /// How opaque each pixel is, `[height, width]`; `None` where all are.
    alpha: Option<Vec<u8>>,
}

impl Picture {
    /// A picture from `rgb`, shape `[height, width, 3]`, gray levels 0 to 255.
    ///
    /// # Errors
    /// When a side is zero or the buffer has another size.
    pub fn new(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self, PictureError> {
        let (w, h) = (width as usize, height as usize);
        let expected = w.checked_mul(h).and_then(|n| n.checked_mul(3));
        if w == 0 || h == 0 || expected != Some(rgb.len()) {
            return Err(PictureError::WrongSize {
                got: rgb.len(),
                height: h,
                width: w,
            });
        }
        Ok(Self {
            width,
            height,
            rgb,
            alpha: None,
        })
    }

    /// The same, as opaque as `alpha` says, shape `[height, width]`, 255 where nothing shines through.
    ///
    /// # Errors
    /// When the buffer has another size.
    pub(crate) fn with_alpha(self, alpha: Vec<u8>) -> Result<Self, PictureError> {
        if 3 * alpha.len() != self.rgb.len() {
            return Err(PictureError::WrongSize {
                got: 3 * alpha.len(),
                height: self.height as usize,
                width: self.width as usize,
            });
        }
        let is_opaque = alpha.iter().all(|alpha| *alpha == 255);
        Ok(Self {
            alpha: (!is_opaque).then_some(alpha),
            ..self
        })
    }

    /// Pixels per row, at least 1.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows, at least 1.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Gray levels, shape `[height, width, 3]`; of transparent pixels whatever the file has.
    pub fn as_rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// As it looks on a white page.
    pub fn on_white(&self) -> Cow<'_, Self> {
        let Some(alpha) = &self.alpha else {
            return Cow::Borrowed(self);
        };
        let pixels = self.rgb.as_chunks::<3>().0.iter().zip(alpha);
        let blend = |gray: u8, alpha: u8| {
            let (gray, alpha) = (u32::from(gray), u32::from(alpha));
            ((gray * alpha + 255 * (255 - alpha) + 127) / 255) as u8
        };
        Cow::Owned(Self {
            rgb: pixels
                .flat_map(|(pixel, alpha)| pixel.map(|gray| blend(gray, *alpha)))
                .collect(),
            alpha: None,
            ..*self
        })
    }

    /// The part that begins `[left, top]` pixels from the corner and has these sides, `[width, height]`.
    ///
    /// # Panics
    /// When it is empty or reaches beyond the picture.
    #[must_use]
    pub fn part(&self, [left, top]: [u32; 2], [width, height]: [u32; 2]) -> Self {
        let cut = |plane: &[u8], channels: u32| -> Vec<u8> {
            let at = |column: u32| (channels * column) as usize;
            let rows = plane.chunks_exact(at(self.width));
            let rows = rows.skip(top as usize).take(height as usize);
            let columns = at(left)..at(left + width);
            rows.flat_map(|row| &row[columns.clone()])
                .copied()
                .collect()
        };
        let part = Self::new(width, height, cut(&self.rgb, 3));
        Self {
            alpha: self.alpha.as_ref().map(|alpha| cut(alpha, 1)),
            ..part.expect("a part that lies inside")
        }
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({} x {})", self.width, self.height)
    }
}

/// What an image tower takes: shape `[3, height, width]`, red first, rescaled and normalized as
/// the model's preprocessing says.
#[derive(Clone, PartialEq)]
pub struct Pixels {
    height: usize,
    width: usize,
    values: Vec<f32>,
}

impl Pixels {
    /// Pixels from `values`, shape `[3, height, width]`.
    ///
    /// # Errors
    /// When a side is zero or the buffer has another size.
    pub fn new(values: Vec<f32>, height: usize, width: usize) -> Result<Self, PictureError> {
        let expected = height.checked_mul(width).and_then(|n| n.checked_mul(3));
        if height == 0 || width == 0 || expected != Some(values.len()) {
            return Err(PictureError::WrongSize {
                got: values.len(),
                height,
                width,
            });
        }
        Ok(Self {
            height,
            width,
            values,
        })
    }

    /// Always 3: red, green, blue.
    pub fn channels(&self) -> usize {
        3
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Values per row of one channel.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The values, shape `[3, height, width]`.
    pub fn as_slice(&self) -> &[f32] {
        &self.values
    }
}

impl fmt::Debug for Pixels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pixels([3, {}, {}])", self.height, self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_transparent_is_white_on_a_page_and_its_parts_are_too() {
        let rgb: Vec<u8> = (0..4 * 2 * 3).map(|i| 10 * i).collect();
        let opaque = Picture::new(4, 2, rgb.clone()).expect("it fills its shape");
        assert_eq!(opaque.on_white().as_rgb(), rgb);
        let same = opaque.clone().with_alpha(vec![255; 8]).expect("as many");
        assert_eq!(same, opaque);
        assert!(opaque.clone().with_alpha(vec![255; 7]).is_err());

        let alpha = vec![255, 0, 51, 255, 255, 255, 255, 0];
        let clear = opaque.with_alpha(alpha).expect("as many");
        assert_eq!(clear.as_rgb(), rgb);
        let shown = clear.on_white().into_owned();
        assert_eq!(shown.as_rgb()[..3], rgb[..3]);
        assert_eq!(shown.as_rgb()[3..6], [255; 3]);
        // A fifth of 60, 70 and 80, and four fifths of white.
        assert_eq!(shown.as_rgb()[6..9], [216, 218, 220]);
        assert_eq!(shown.as_rgb()[21..], [255; 3]);
        let part = clear.part([1, 0], [3, 2]);
        assert_eq!((part.width(), part.height()), (3, 2));
        assert_eq!(*part.on_white(), shown.part([1, 0], [3, 2]));
        assert_eq!(part.as_rgb()[..9], rgb[3..12]);
    }

    #[test]
    fn buffers_must_fill_their_shape() {
        assert!(Picture::new(2, 3, vec![0; 18]).is_ok());
        assert!(Picture::new(2, 3, vec![0; 17]).is_err());
        assert!(Picture::new(0, 3, vec![]).is_err());
        assert!(Picture::new(u32::MAX, u32::MAX, vec![]).is_err());
        assert!(Pixels::new(vec![0.0; 18], 3, 2).is_ok());
        let error = Pixels::new(vec![0.0; 19], 3, 2).expect_err("one value too many");
        assert_eq!(error.to_string(), "19 values do not fill shape [3, 3, 2]");
        assert!(Pixels::new(vec![], 0, 2).is_err());
        assert!(Pixels::new(vec![], usize::MAX, 2).is_err());
    }
}
