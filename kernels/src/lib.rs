//! Products of rows with packed columns, and functions of single rows, compiled for each instruction set.
//!
//! It knows no network, no tensor and no thread. Columns are packed by who calls, as [`Product`] says; [`Level`] has
//! the functions, those that this CPU runs by [`Level::all`].
#![allow(unsafe_code)]
// Kernels name the instructions they are made of.
#![allow(clippy::wildcard_imports)]
// Pointer arithmetic on aligned buffers, in words.
#![allow(
    clippy::cast_ptr_alignment,
    clippy::inline_always,
    clippy::missing_safety_doc
)]

mod activation;
mod kinds;
mod lanes;
mod level;
mod math;
mod matmul;
mod precision;
mod rows;

pub use activation::Activation;
pub use level::{Level, Narrow};
pub use matmul::{BLOCK_TILES, Finish, MatMul, Product, WHOLE, split};
pub use precision::Precision;
pub use rows::{LEAST, largest_half};
