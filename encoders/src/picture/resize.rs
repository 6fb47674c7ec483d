//! Resizing that is bit-equal to Pillow's `Image.resize`.
//!
//! Two passes with the picture rounded to 8 bits in between; coefficients in fixed point with 22
//! fractional bits; the filter widened by the scale when shrinking. Rows come first, except where
//! Pillow 13 begins with the columns; Pillow 12 never does, and then differs by a gray level here
//! and there. Only the asked window of the resized picture is computed, and of the source only
//! the rows it needs.

mod filter;
mod passes;

use std::ops::Range;

pub use filter::Filter;

use self::passes::{PRECISION_BITS, pass_x, pass_y};
use super::rgb::Picture;
use crate::PictureError;

/// A part of the resized picture, in its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) left: u32,
    pub(super) top: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Picture {
    /// The picture at another size, bit-equal to Pillow's; it is not transparent any more.
    ///
    /// # Errors
    /// When a side is zero.
    pub fn resize(&self, width: u32, height: u32, filter: Filter) -> Result<Self, PictureError> {
        let window = Window {
            left: 0,
            top: 0,
            width,
            height,
        };
        if width == 0 || height == 0 {
            return Self::new(width, height, Vec::new());
        }
        Self::new(
            width,
            height,
            resize_window(self, width, height, filter, window),
        )
    }
}

/// The `window` of `picture` resized to `width` x `height`, both at least 1: shape
/// `[window.height, window.width, 3]`. The window lies inside the resized picture.
pub(super) fn resize_window(
    picture: &Picture,
    width: u32,
    height: u32,
    filter: Filter,
    window: Window,
) -> Vec<u8> {
    let columns = window.left..window.left + window.width;
    let rows = window.top..window.top + window.height;
    if filter == Filter::Nearest {
        return nearest(picture, width, height, columns, rows);
    }
    // As in Pillow, a pass that would keep the size is left out.
    let horizontal = (width != picture.width())
        .then(|| Coefficients::new(picture.width(), width, filter, columns.clone()));
    let vertical = (height != picture.height())
        .then(|| Coefficients::new(picture.height(), height, filter, rows.clone()));
    let needed_rows = match &vertical {
        Some(coefficients) => coefficients.reach(),
        None => rows.start as usize..rows.end as usize,
    };
    let stride = 3 * picture.width() as usize;
    let source = &picture.as_rgb()[needed_rows.start * stride..needed_rows.end * stride];
    match (&horizontal, &vertical) {
        (None, None) => cut(source, stride, columns),
        (Some(x), None) => pass_x(source, stride, 0, x),
        (None, Some(y)) => pass_y(
            &cut(source, stride, columns),
            3 * window.width as usize,
            needed_rows.start,
            y,
        ),
        (Some(x), Some(y)) if vertical_first(picture, width, height) => {
            let needed = x.reach();
            let stride_cut = 3 * needed.len();
            let cut = cut(source, stride, needed.start as u32..needed.end as u32);
            let low = pass_y(&cut, stride_cut, needed_rows.start, y);
            pass_x(&low, stride_cut, needed.start, x)
        }
        (Some(x), Some(y)) => {
            let narrow = pass_x(source, stride, 0, x);
            pass_y(&narrow, 3 * window.width as usize, needed_rows.start, y)
        }
    }
}

/// Whether Pillow 13 begins with the columns: where the height loses more than twice what the
/// width loses. Found by comparing outputs, over all combinations of growing and shrinking.
fn vertical_first(picture: &Picture, width: u32, height: u32) -> bool {
    let lost = |from: u32, to: u32| i64::from(from) - i64::from(to);
    let (columns, rows) = (lost(picture.width(), width), lost(picture.height(), height));
    rows > 0 && rows > 2 * columns
}

/// The `columns` of rows of `stride` bytes.
fn cut(source: &[u8], stride: usize, columns: Range<u32>) -> Vec<u8> {
    let bytes = 3 * columns.start as usize..3 * columns.end as usize;
    let mut out = Vec::with_capacity(source.len() / stride * bytes.len());
    for row in source.chunks_exact(stride) {
        out.extend_from_slice(&row[bytes.clone()]);
    }
    out
}

/// Which samples make each output sample, and how much of each.
struct Coefficients {
    /// First source sample and number of weights, one per output sample.
    bounds: Vec<(usize, usize)>,
    /// Weights in fixed point, `stride` per output sample.
    weights: Vec<i32>,
    stride: usize,
}

impl Coefficients {
    fn new(from: u32, to: u32, filter: Filter, outputs: Range<u32>) -> Self {
        let scale = f64::from(from) / f64::from(to);
        let widened = scale.max(1.0);
        let support = filter.support() * widened;
        let inverse = 1.0 / widened;
        let stride = support.ceil() as usize * 2 + 1;
        let mut bounds = Vec::with_capacity(outputs.len());
        let mut weights = vec![0; stride * outputs.len()];
        let mut exact = Vec::with_capacity(stride);
        for (output, row) in outputs.zip(weights.chunks_exact_mut(stride)) {
            let center = (f64::from(output) + 0.5) * scale;
            // `as` saturates below zero and drops the fraction, as Pillow's casts and clips do.
            let first = (center - support + 0.5) as usize;
            let last = ((center + support + 0.5) as usize).min(from as usize);
            exact.clear();
            exact.extend((first..last).map(|i| filter.weight((i as f64 - center + 0.5) * inverse)));
            let sum: f64 = exact.iter().sum();
            for (fixed, weight) in row.iter_mut().zip(&exact) {
                let weight = if sum == 0.0 { *weight } else { weight / sum };
                let scaled = weight * f64::from(1 << PRECISION_BITS);
                *fixed = (scaled + if weight < 0.0 { -0.5 } else { 0.5 }) as i32;
            }
            bounds.push((first, exact.len()));
        }
        Self {
            bounds,
            weights,
            stride,
        }
    }

    /// First source sample and weights of each output sample.
    fn rows(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let weights = self.weights.chunks_exact(self.stride);
        self.bounds
            .iter()
            .zip(weights)
            .map(|((first, n), row)| (*first, &row[..*n]))
    }

    /// The source samples that any output sample uses.
    fn reach(&self) -> Range<usize> {
        let start = self
            .bounds
            .iter()
            .map(|(first, _)| *first)
            .min()
            .unwrap_or(0);
        let end = self
            .bounds
            .iter()
            .map(|(first, n)| first + n)
            .max()
            .unwrap_or(0);
        start..end
    }
}

fn nearest(
    picture: &Picture,
    width: u32,
    height: u32,
    columns: Range<u32>,
    rows: Range<u32>,
) -> Vec<u8> {
    let (from_columns, from_rows) = (
        positions(picture.width(), width, columns),
        positions(picture.height(), height, rows),
    );
    let pixels = picture.as_rgb().as_chunks::<3>().0;
    let mut out = Vec::with_capacity(3 * from_columns.len() * from_rows.len());
    for y in from_rows {
        let row = &pixels[y * picture.width() as usize..];
        for x in &from_columns {
            out.extend_from_slice(&row[*x]);
        }
    }
    out
}

/// The source sample of each output sample. Pillow adds the scale up step by step, and so does
/// this: its rounding decides which sample is met.
fn positions(from: u32, to: u32, outputs: Range<u32>) -> Vec<usize> {
    let scale = f64::from(from) / f64::from(to);
    let mut at = scale * 0.5;
    let mut found = Vec::with_capacity(outputs.len());
    for output in 0..outputs.end {
        if output >= outputs.start {
            found.push((at as usize).min(from as usize - 1));
        }
        at += scale;
    }
    found
}

#[cfg(test)]
#[path = "resize/tests.rs"]
mod tests;
