//! Traces: a span for each request and, below it, one for each stage of its work, which begins and ends when the
//! metrics say so. In a build with the feature `otel` they go to whatever OpenTelemetry provider the
//! process has (`opentelemetry::global`); without it, nothing is left of this but empty functions.

#[cfg(not(feature = "otel"))]
mod none;
#[cfg(feature = "otel")]
mod spans;

#[cfg(not(feature = "otel"))]
pub(crate) use self::none::{Ending, Trace};
#[cfg(feature = "otel")]
pub(crate) use self::spans::{Ending, Trace};

/// Work that belongs to what is done now, wherever it is run: to its trace, and to its span in the log.
pub(crate) fn carried<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let (span, trace) = (tracing::Span::current(), Trace::current());
    move || span.in_scope(|| trace.scope(work))
}
