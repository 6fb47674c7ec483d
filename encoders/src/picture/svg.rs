//! Drawings to pixels.

/// placeholder
pub struct SvgError;
/// placeholder
pub fn rasterize_svg() {}
