//! Pictures: decoding within a budget, RGB conversion, and what a model wants to see.

mod rgba;
mod svg;

pub use rgba::RgbaPicture;
pub use svg::{SvgError, rasterize_svg};
