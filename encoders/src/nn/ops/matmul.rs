//! A safe face on the `gemm` crate for row-major f32 matrices.
#![allow(unsafe_code)]

use gemm::Parallelism;

/// The shapes of one product.
#[derive(Debug, Clone, Copy)]
pub struct MatMul {
    /// Rows of the product.
    pub m: usize,
    /// Columns of the product.
    pub n: usize,
    /// Length of the sums.
    pub k: usize,
    /// Whether `a` is stored transposed.
    pub transpose_a: bool,
    /// Whether `b` is stored transposed.
    pub transpose_b: bool,
    /// Whether the product is added to what `out` holds.
    pub accumulate: bool,
}

/// `out = a b`, or `out += a b` where `accumulate` is set; on the calling thread.
///
/// `out` is `[m, n]`; `a` is `[m, k]`, or `[k, m]` where `transpose_a` is set; `b` is `[k, n]`, or
/// `[n, k]` where `transpose_b` is set; all row-major.
///
/// # Panics
/// When a slice does not have as many elements as its shape says.
pub fn matmul_f32(spec: MatMul, out: &mut [f32], a: &[f32], b: &[f32]) {
    let MatMul {
        m,
        n,
        k,
        transpose_a,
        transpose_b,
        accumulate,
    } = spec;
    assert_eq!(out.len(), m * n, "out is [m, n]");
    assert_eq!(a.len(), m * k, "a is [m, k]");
    assert_eq!(b.len(), k * n, "b is [k, n]");
    let (a_row, a_column) = if transpose_a { (1, m) } else { (k, 1) };
    let (b_row, b_column) = if transpose_b { (1, k) } else { (n, 1) };
    // SAFETY: the asserts above guarantee that every `row * row_stride + column * column_stride`
    // of the three matrices lies inside its slice, and `out` is exclusively borrowed.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            accumulate,
            a.as_ptr(),
            a_column as isize,
            a_row as isize,
            b.as_ptr(),
            b_column as isize,
            b_row as isize,
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

    #[test]
    fn every_combination_of_transposes_equals_the_sum_by_hand() {
        let (m, n, k) = (5, 3, 7);
        let a: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.7).sin()).collect();
        let b: Vec<f32> = (0..k * n).map(|i| (i as f32 * 0.3).cos()).collect();
        let at = |i: usize, p: usize, t: bool| if t { a[p * m + i] } else { a[i * k + p] };
        let bt = |p: usize, j: usize, t: bool| if t { b[j * k + p] } else { b[p * n + j] };
        for bits in 0..8 {
            let (transpose_a, transpose_b, accumulate) = (bits & 1 > 0, bits & 2 > 0, bits & 4 > 0);
            let mut out = vec![1.0; m * n];
            let spec = MatMul {
                m,
                n,
                k,
                transpose_a,
                transpose_b,
                accumulate,
            };
            matmul_f32(spec, &mut out, &a, &b);
            for i in 0..m {
                for j in 0..n {
                    let mut sum = if accumulate { 1.0 } else { 0.0 };
                    for p in 0..k {
                        sum += at(i, p, transpose_a) * bt(p, j, transpose_b);
                    }
                    assert!((out[i * n + j] - sum).abs() < 1e-5, "{spec:?} at {i}, {j}");
                }
            }
        }
    }
}
