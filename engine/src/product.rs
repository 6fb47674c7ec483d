//! Products of matrices in double precision, on one thread.

#![allow(unsafe_code, reason = "the library takes pointers and strides")]

use gemm::{Parallelism, gemm};

/// Numbers of a matrix and how they lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a> {
    numbers: &'a [f64],
    rows: usize,
    columns: usize,
    /// Numbers from a row to the next, and from a column to the next.
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// Row by row, as many rows as there are.
    pub(crate) fn of_rows(numbers: &'a [f64], columns: usize) -> Self {
        Self {
            numbers,
            rows: numbers.len() / columns,
            columns,
            strides: [columns, 1],
        }
    }

    /// Some of its columns, from `first` on.
    pub(crate) fn columns(self, first: usize, columns: usize) -> Self {
        assert!(first + columns <= self.columns, "columns that it has");
        let from = (first * self.strides[1]).min(self.numbers.len());
        Self {
            numbers: &self.numbers[from..],
            columns,
            ..self
        }
    }

    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            strides: [self.strides[1], self.strides[0]],
            ..self
        }
    }

    /// The last number and those before it are there.
    fn check(self) {
        let last = |count: usize, stride: usize| count.saturating_sub(1) * stride;
        let last = last(self.rows, self.strides[0]) + last(self.columns, self.strides[1]);
        let is_empty = self.rows * self.columns == 0;
        assert!(
            is_empty || last < self.numbers.len(),
            "all numbers of a matrix"
        );
    }
}

/// Adds a product to `to`, `[a.rows, b.columns]`, row by row. The order of summation depends on the sizes and the
/// machine, not on how many threads call this.
pub(crate) fn add_product(a: Matrix<'_>, b: Matrix<'_>, to: &mut [f64]) {
    a.check();
    b.check();
    assert_eq!(a.columns, b.rows, "matrices that can be multiplied");
    assert_eq!(to.len(), a.rows * b.columns, "room for the product");
    let signed = |stride: usize| stride as isize;
    // SAFETY: `check` and the assertions hold all that is read and written within the three slices, and `to` is
    // borrowed alone.
    unsafe {
        gemm(
            a.rows,
            b.columns,
            a.columns,
            to.as_mut_ptr(),
            1,
            signed(b.columns),
            true,
            a.numbers.as_ptr(),
            signed(a.strides[1]),
            signed(a.strides[0]),
            b.numbers.as_ptr(),
            signed(b.strides[1]),
            signed(b.strides[0]),
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: usize) -> Vec<f64> {
        let number = |i: usize| ((i * 7919 + seed * 104_729) % 1000) as f64 / 500.0 - 1.0;
        (0..count).map(number).collect()
    }

    #[test]
    fn products_are_those_of_the_definition() {
        for (rows, columns, inner) in [
            (1, 1, 1),
            (3, 2, 5),
            (64, 100, 31),
            (17, 40, 129),
            (5, 1, 64),
        ] {
            let a = numbers(rows * inner, 1);
            // `b` is inside of a wider matrix, and turned.
            let (first, wide) = (3, columns + 5);
            let b = numbers(inner * wide, 2);
            let turned = numbers(columns * inner, 3);
            let start = numbers(rows * columns, 4);
            let expected = |at: &dyn Fn(usize, usize) -> f64, i: usize| {
                let (row, column) = (i / columns, i % columns);
                (0..inner)
                    .map(|k| a[row * inner + k] * at(k, column))
                    .sum::<f64>()
            };
            let whole = Matrix::of_rows(&a, inner);
            let part = Matrix::of_rows(&b, wide).columns(first, columns);
            let mut to = start.clone();
            add_product(whole, part, &mut to);
            for (i, to) in to.iter().enumerate() {
                let expected = start[i] + expected(&|k, column| b[k * wide + first + column], i);
                assert!(
                    (to - expected).abs() < 1e-10,
                    "{rows} x {columns} x {inner}, {i}"
                );
            }
            let turned_back = Matrix::of_rows(&turned, inner).transposed();
            to.fill(0.0);
            add_product(whole, turned_back, &mut to);
            for (i, to) in to.iter().enumerate() {
                let expected = expected(&|k, column| turned[column * inner + k], i);
                assert!(
                    (to - expected).abs() < 1e-10,
                    "{rows} x {columns} x {inner}, {i}"
                );
            }
        }
    }
}
