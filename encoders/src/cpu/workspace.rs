//! The memory of a pass.

use parking_lot::Mutex;

use super::{attention::Scratch, buffer::Buffer};

/// The rows of one pass, and everything that is computed from them. Reused, so that no pass
/// allocates.
pub(super) struct Workspace {
    /// Tokens, `[rows, width]` of f32.
    pub x: Buffer,
    /// Narrow rows, inputs of the products; also outputs of attention. Rows begin where those of f32
    /// would, so that they can be narrowed in place.
    pub narrow: Buffer,
    pub joined: Buffer,
    pub hidden: Buffer,
    /// Patches of a picture, before they are tokens.
    pub patches: Buffer,
    /// Steps of narrow rows of whole numbers.
    pub steps: Vec<f32>,
    pub scratches: Mutex<Vec<Scratch>>,
    pub strides: Strides,
    pub width: usize,
}

/// Bytes from a row to the next.
#[derive(Clone, Copy)]
pub(super) struct Strides {
    pub x: usize,
    pub joined: usize,
    pub hidden: usize,
}

/// A line more than the elements take, so that rows do not all fall into the same cache sets.
pub(super) fn stride(elements: usize) -> usize {
    (4 * elements).next_multiple_of(64) + 64
}

impl Workspace {
    /// The first element of a row of tokens.
    pub(super) fn row(&mut self, row: usize) -> *mut f32 {
        self.x
            .as_mut_ptr()
            .wrapping_add(row * self.strides.x)
            .cast()
    }

    /// One row of tokens, `[width]`.
    ///
    /// # Panics
    /// When there are fewer.
    pub(super) fn token(&mut self, row: usize) -> &mut [f32] {
        assert!(
            (row + 1) * self.strides.x <= self.x.bytes(),
            "a row beyond the last"
        );
        // SAFETY: the row lies inside, and no other reference to it lives.
        unsafe { std::slice::from_raw_parts_mut(self.row(row), self.width) }
    }

    /// At least as many bytes for patches.
    pub(super) fn patches(&mut self, bytes: usize) -> &mut Buffer {
        self.patches.reserve(bytes);
        &mut self.patches
    }

    /// Bytes from a row of tokens to the next.
    pub(super) fn row_stride(&self) -> usize {
        self.strides.x
    }
}
