//! The kinds of products: how the words of two packed operands become sums.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon;

use std::marker::PhantomData;

use super::lanes::Lanes;

/// One kind of product on one instruction set. A word is four bytes: one float, two bfloat16, two 16-bit
/// numbers, or four bytes, of which those of the columns are signed and those of the rows shifted by
/// [`Lanes::SHIFT`].
///
/// # Safety
/// As for [`Lanes`]; `columns` reads one word for each lane.
pub(super) trait Kind {
    type L: Lanes;
    type Row: Copy;
    type Columns: Copy;
    type Sum: Copy;
    /// Whether columns of bytes must be small in pairs: see [`Lanes::BYTE_PAIRS`].
    const BYTE_PAIRS: bool = false;

    unsafe fn zero() -> Self::Sum;
    unsafe fn row(word: *const u8) -> Self::Row;
    unsafe fn columns(words: *const u8) -> Self::Columns;
    unsafe fn mul_add(sum: Self::Sum, row: Self::Row, columns: Self::Columns) -> Self::Sum;
    unsafe fn total(sum: Self::Sum) -> <Self::L as Lanes>::V;
}

/// Floats.
pub(super) struct F32<L>(PhantomData<L>);

impl<L: Lanes> Kind for F32<L> {
    type L = L;
    type Row = L::V;
    type Columns = L::V;
    type Sum = L::V;

    #[inline(always)]
    unsafe fn zero() -> Self::Sum {
        unsafe { L::splat(0.0) }
    }
    #[inline(always)]
    unsafe fn row(word: *const u8) -> Self::Row {
        unsafe { L::splat(word.cast::<f32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn columns(words: *const u8) -> Self::Columns {
        unsafe { L::load(words.cast()) }
    }
    #[inline(always)]
    unsafe fn mul_add(sum: Self::Sum, row: Self::Row, columns: Self::Columns) -> Self::Sum {
        unsafe { L::mul_add(row, columns, sum) }
    }
    #[inline(always)]
    unsafe fn total(sum: Self::Sum) -> L::V {
        sum
    }
}

/// bfloat16 by way of floats: half the memory, the speed of floats.
pub(super) struct Bf16<L>(PhantomData<L>);

impl<L: Lanes> Kind for Bf16<L> {
    type L = L;
    type Row = [L::V; 2];
    type Columns = [L::V; 2];
    type Sum = L::V;

    #[inline(always)]
    unsafe fn zero() -> Self::Sum {
        unsafe { L::splat(0.0) }
    }
    #[inline(always)]
    unsafe fn row(word: *const u8) -> Self::Row {
        unsafe {
            let word = word.cast::<u32>().read_unaligned();
            let second = f32::from_bits(word & 0xffff_0000);
            [L::splat(f32::from_bits(word << 16)), L::splat(second)]
        }
    }
    #[inline(always)]
    unsafe fn columns(words: *const u8) -> Self::Columns {
        unsafe { [L::bf16_first(words), L::bf16_second(words)] }
    }
    #[inline(always)]
    unsafe fn mul_add(sum: Self::Sum, row: Self::Row, columns: Self::Columns) -> Self::Sum {
        unsafe { L::mul_add(row[1], columns[1], L::mul_add(row[0], columns[0], sum)) }
    }
    #[inline(always)]
    unsafe fn total(sum: Self::Sum) -> L::V {
        sum
    }
}

/// How the words of whole numbers are multiplied.
///
/// # Safety
/// As for [`Lanes`].
pub(super) trait Dot<L: Lanes> {
    /// As [`Kind::BYTE_PAIRS`].
    const BYTE_PAIRS: bool = false;

    /// `sum` plus all products of two words.
    unsafe fn mul_add(sum: L::I, row: L::I, columns: L::I) -> L::I;
}

/// Pairs of 16-bit numbers, so small that no sum of their products overflows 32 bits.
pub(super) struct Halves;

impl<L: Lanes> Dot<L> for Halves {
    #[inline(always)]
    unsafe fn mul_add(sum: L::I, row: L::I, columns: L::I) -> L::I {
        unsafe { L::mul_add_pairs(sum, row, columns) }
    }
}

/// Four bytes, without an instruction of their own.
pub(super) struct Bytes;

impl<L: Lanes> Dot<L> for Bytes {
    const BYTE_PAIRS: bool = L::BYTE_PAIRS;

    #[inline(always)]
    unsafe fn mul_add(sum: L::I, row: L::I, columns: L::I) -> L::I {
        unsafe { L::mul_add_bytes(sum, row, columns) }
    }
}

/// Whole numbers, summed in 32 bits.
pub(super) struct Whole<L, D>(PhantomData<(L, D)>);

impl<L: Lanes, D: Dot<L>> Kind for Whole<L, D> {
    type L = L;
    type Row = L::I;
    type Columns = L::I;
    type Sum = L::I;
    const BYTE_PAIRS: bool = D::BYTE_PAIRS;

    #[inline(always)]
    unsafe fn zero() -> Self::Sum {
        unsafe { L::zero_i() }
    }
    #[inline(always)]
    unsafe fn row(word: *const u8) -> Self::Row {
        unsafe { L::splat_i(word.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn columns(words: *const u8) -> Self::Columns {
        unsafe { L::load_i(words) }
    }
    #[inline(always)]
    unsafe fn mul_add(sum: Self::Sum, row: Self::Row, columns: Self::Columns) -> Self::Sum {
        unsafe { D::mul_add(sum, row, columns) }
    }
    #[inline(always)]
    unsafe fn total(sum: Self::Sum) -> L::V {
        unsafe { L::to_float(sum) }
    }
}
