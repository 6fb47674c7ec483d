//! The weights of Pillow's filters.

use std::f64::consts::PI;

/// How samples are weighted, with Pillow's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// 0: the nearest sample.
    Nearest = 0,
    /// 1: a sinc windowed to three lobes.
    Lanczos = 1,
    /// 2: a triangle.
    Bilinear = 2,
    /// 3: Keys' cubic with a = -0.5.
    Bicubic = 3,
    /// 4: the mean.
    Box = 4,
    /// 5: a raised cosine.
    Hamming = 5,
}

impl Filter {
    /// The filter with Pillow's number `code`.
    pub fn from_code(code: u64) -> Option<Self> {
        use Filter::{Bicubic, Bilinear, Box, Hamming, Lanczos, Nearest};
        [Nearest, Lanczos, Bilinear, Bicubic, Box, Hamming]
            .into_iter()
            .find(|f| *f as u64 == code)
    }

    /// Distance in source samples beyond which the weight is zero.
    pub(super) fn support(self) -> f64 {
        match self {
            Self::Nearest => 0.0,
            Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    pub(super) fn weight(self, x: f64) -> f64 {
        match self {
            Self::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Hamming => match x.abs() * PI {
                0.0 => 1.0,
                y if y >= PI => 0.0,
                y => y.sin() / y * (0.54 + 0.46 * y.cos()),
            },
            Self::Bicubic => bicubic(x.abs()),
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Lanczos | Self::Nearest => 0.0,
        }
    }
}

/// Keys (1981), equation 4, with a = -0.5, in Pillow's order of operations.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        1.0
    } else {
        (x * PI).sin() / (x * PI)
    }
}
