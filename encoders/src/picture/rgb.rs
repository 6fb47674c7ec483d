//! Decoded pictures and what a tower takes.

use std::fmt;

use crate::PictureError;

/// An RGB picture, 8 bits per channel, upright.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
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
        Ok(Self { width, height, rgb })
    }

    /// Pixels per row, at least 1.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows, at least 1.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Gray levels, shape `[height, width, 3]`.
    pub fn as_rgb(&self) -> &[u8] {
        &self.rgb
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
