//! What is left of traces in a build without the feature `otel`: the functions of `spans`, empty.

#![allow(
    clippy::needless_pass_by_value,
    clippy::trivially_copy_pass_by_ref,
    clippy::unused_self,
    reason = "they are those of `spans`"
)]

use std::time::{Duration, Instant};

use actix_web::http::header::HeaderMap;

/// No trace.
#[derive(Clone, Copy, Default)]
pub(crate) struct Trace;

/// No end.
pub(crate) struct Ending;

impl Trace {
    pub(crate) fn begin(_: &'static str, _: &str, _: &HeaderMap) -> Self {
        Self
    }

    pub(crate) fn current() -> Self {
        Self
    }

    pub(crate) fn follow<F: Future>(self, future: F) -> F {
        future
    }

    pub(crate) fn scope<T>(self, work: impl FnOnce() -> T) -> T {
        work()
    }

    pub(crate) fn stage(
        &self,
        _: &'static str,
        _: Instant,
        _: Duration,
        _: &[(&'static str, usize)],
    ) {
    }

    pub(crate) fn answered(&self, _: &'static str, _: &str, _: u16) {}

    pub(crate) fn ending(self) -> Ending {
        Ending
    }
}
