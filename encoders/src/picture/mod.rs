//! Pictures: decoding within a budget, RGB conversion, and what a model wants to see.

mod svg;

pub use svg::{SvgError, rasterize_svg};
