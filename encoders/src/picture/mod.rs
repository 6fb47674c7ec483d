//! Pictures: decoding within a budget, RGB conversion, and what a model wants to see.

mod convert;
mod decode;
mod jpeg;
mod preprocess;
mod resize;
mod rgb;
mod rgba;
mod svg;

pub use decode::{DecodeLimits, decode, decode_rgba};
pub use preprocess::{Normalization, PreprocessConfig, Resize, ResizeTo, Size};
pub use resize::Filter;
pub use rgb::{Picture, Pixels};
pub use rgba::RgbaPicture;
pub use svg::{SvgError, rasterize_svg};
