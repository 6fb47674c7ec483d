//! Rows of codes side by side, each in whole cache lines.

use crate::column::Column;

/// Rows are padded to whole cache lines; the padding is 0 and adds nothing to a product.
const LINE_BYTES: usize = 64;

/// Rows of codes in -127 to 127, `[len, stride]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CodeRows {
    stride: usize,
    data: Column<i8>,
}

impl CodeRows {
    /// Takes `[len, stride]` codes for rows of `dim` numbers; `None` when they are no whole rows.
    pub(crate) fn new(dim: usize, data: Column<i8>) -> Option<Self> {
        let stride = stride(dim);
        (dim > 0 && data.len().is_multiple_of(stride)).then_some(Self { stride, data })
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.data.len() / self.stride
    }

    /// Bytes of a row.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// All codes.
    pub(crate) fn data(&self) -> &[i8] {
        &self.data
    }

    /// Row `i`.
    #[inline(always)]
    pub(crate) fn row(&self, i: u32) -> &[i8] {
        &self.data[i as usize * self.stride..][..self.stride]
    }

    /// Rows in this order.
    pub(crate) fn arranged(&self, order: impl ExactSizeIterator<Item = u32>) -> Self {
        let mut data = Vec::with_capacity(order.len() * self.stride);
        order.for_each(|i| data.extend_from_slice(self.row(i)));
        Self {
            stride: self.stride,
            data: data.into(),
        }
    }

    /// The same in memory of their own.
    pub(crate) fn settled(&self) -> Self {
        Self {
            stride: self.stride,
            data: self.data.settled(),
        }
    }
}

/// `dim` rounded up to whole cache lines.
pub(crate) fn stride(dim: usize) -> usize {
    dim.next_multiple_of(LINE_BYTES)
}
