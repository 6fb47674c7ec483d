//! Checks that span crates: see `tests/` beside this folder. Here is only what a test shares with
//! the process that it starts.

pub mod load;
