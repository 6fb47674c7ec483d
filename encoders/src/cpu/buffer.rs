//! Aligned memory for packed columns and rows.

use super::dense::Element;

/// One cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Zeroed bytes, aligned to cache lines, with one line more than was asked for.
pub(crate) struct Buffer {
    lines: Vec<Line>,
}

impl Buffer {
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            lines: vec![Line([0; 64]); bytes.div_ceil(64) + 1],
        }
    }

    /// Makes it at least as large; what it held is lost when it grows.
    pub(super) fn reserve(&mut self, bytes: usize) {
        if self.bytes() < bytes {
            *self = Self::new(bytes);
        }
    }

    /// Its first `n` words; it grows where it has fewer.
    pub(super) fn words(&mut self, n: usize) -> &mut [u32] {
        self.reserve(4 * n);
        // SAFETY: there are that many words, initialized and aligned, and they are borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr().cast(), n) }
    }

    /// Its first `n` elements; it grows where it has fewer.
    pub(crate) fn elements<E: Element>(&mut self, n: usize) -> &mut [E] {
        self.reserve(size_of::<E>() * n);
        // SAFETY: as above; elements are floats or the bits of others, of which none is invalid.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr().cast(), n) }
    }

    /// How much was asked for, rounded up to lines.
    pub(super) fn bytes(&self) -> usize {
        (self.lines.len() - 1) * 64
    }

    pub(super) fn as_ptr(&self) -> *const u8 {
        self.lines.as_ptr().cast()
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.lines.as_mut_ptr().cast()
    }
}

/// A pointer whose targets are written by several threads, each its own part.
#[derive(Clone, Copy)]
pub(super) struct Shared(pub *mut u8);

// SAFETY: who shares it keeps the parts disjoint.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// The bytes from `offset` on. A method, so that closures borrow the whole, which is `Sync`.
    pub(super) fn at(&self, offset: usize) -> *mut u8 {
        self.0.wrapping_add(offset)
    }
}
