//! Spans of OpenTelemetry. They are made by its own interface and not out of the log's: what the log
//! shows does not decide what is traced, and no line of it becomes longer.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant, SystemTime},
};

use actix_web::http::header::{HeaderMap, HeaderName};
use opentelemetry::{
    Context, KeyValue, Value,
    context::FutureExt as _,
    global,
    propagation::Extractor,
    trace::{Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _},
};

/// Says which program made a span.
const SCOPE: &str = "diptych";

/// The most stages of one request that have a span; an NDJSON stream has any number of them.
const MOST_STAGES: usize = 256;

/// The trace that something belongs to: none, where the request is not sampled.
#[derive(Clone, Default)]
pub(crate) struct Trace(Context);

/// Stages of a request that may still have a span.
struct Left(AtomicUsize);

/// Ends the span of a request when it is dropped.
pub(crate) struct Ending(Trace);

impl Trace {
    /// Begins the span of a request, in the trace that its client names.
    pub(crate) fn begin(method: &'static str, request_id: &str, headers: &HeaderMap) -> Self {
        let theirs = global::get_text_map_propagator(|propagator| {
            propagator.extract_with_context(&Context::new(), &Headers(headers))
        });
        // So OpenTelemetry calls a method that is not named.
        let named = if method == "OTHER" { "_OTHER" } else { method };
        let span = SpanBuilder::from_name(method)
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("http.request.method", named),
                KeyValue::new("request_id", request_id.to_owned()),
            ]);
        let span = global::tracer(SCOPE).build_with_context(span, &theirs);
        if !span.is_recording() {
            return Self::default();
        }
        let left = Left(AtomicUsize::new(MOST_STAGES));
        Self(theirs.with_value(left).with_span(span))
    }

    /// That of what is done now on this thread.
    pub(crate) fn current() -> Self {
        Self(Context::current())
    }

    /// Has all that a future does belong to it.
    pub(crate) fn follow<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        future.with_context(self.0)
    }

    /// Has all that is done on this thread meanwhile belong to it.
    pub(crate) fn scope<T>(self, work: impl FnOnce() -> T) -> T {
        let _attached = self.0.attach();
        work()
    }

    /// Adds a stage that began then and took so long.
    pub(crate) fn stage(
        &self,
        name: &'static str,
        started: Instant,
        took: Duration,
        numbers: &[(&'static str, usize)],
    ) {
        let one_less = |left: usize| left.checked_sub(1);
        let has_left = self.0.get().is_some_and(|Left(left)| {
            let (to, from) = (Ordering::Relaxed, Ordering::Relaxed);
            left.fetch_update(to, from, one_less).is_ok()
        });
        if !has_left {
            return;
        }
        let Some(began) = SystemTime::now().checked_sub(started.elapsed()) else {
            return;
        };
        let numbers = numbers.iter().map(|(key, value)| {
            let value = Value::I64(i64::try_from(*value).unwrap_or(i64::MAX));
            KeyValue::new(*key, value)
        });
        let span = SpanBuilder::from_name(name)
            .with_start_time(began)
            .with_attributes(numbers);
        let mut span = global::tracer(SCOPE).build_with_context(span, &self.0);
        span.end_with_timestamp(began + took);
    }

    /// Says what the request was and became. `route` is a pattern, or a word where none fits.
    pub(crate) fn answered(&self, method: &'static str, route: &str, status: u16) {
        let span = self.0.span();
        if !span.is_recording() {
            return;
        }
        if route.starts_with('/') {
            span.update_name(format!("{method} {route}"));
            span.set_attribute(KeyValue::new("http.route", route.to_owned()));
        }
        span.set_attribute(KeyValue::new(
            "http.response.status_code",
            i64::from(status),
        ));
        if status >= 500 {
            span.set_attribute(KeyValue::new("error.type", status.to_string()));
            span.set_status(Status::error(""));
        }
    }

    /// What ends the span, once all of the answer has been sent.
    pub(crate) fn ending(self) -> Ending {
        Ending(self)
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.0.span().end();
    }
}

/// Where a client says which trace it is in. What is said twice is not said.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let mut values = self.0.get_all(key);
        let (first, second) = (values.next(), values.next());
        first.filter(|_| second.is_none())?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}
