//! Checks that span crates: see `tests/` beside this folder. There is nothing here.
