//! Adapts an image tower to pictures without labels, by contrast of two variations of each with a bank of
//! earlier keys (He et al. 2020).
//!
//! Reading order: [`SslConfig`] is what a run is told, [`SslRun`] the run; `pictures` finds and keeps what
//! it learns from, `views` varies them, `tower` is what is trained, `judge` measures it.

mod card;
mod config;
mod judge;
mod origin;
mod pictures;
mod run;
mod tower;
mod views;

pub use config::{BankSection, FoldersConfig, ProbeConfig, SslConfig, TowerSection};
pub use judge::{Measured, Probed, table};
pub use pictures::Skipped;
pub use run::{SslReport, SslRun};
