//! The exporter: OTLP as protobuf over HTTP, by the client that models come with.
//!
//! Whoever ends a span puts it into a bounded queue, or drops it where that is full; one thread of the
//! exporter's own empties the queue and waits for the collector, so that no request ever does.

use std::{
    env,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use opentelemetry::{KeyValue, global};
use opentelemetry_proto::{
    tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    transform::{
        common::tonic::ResourceAttributesWithSchema,
        trace::tonic::group_spans_by_resource_and_scope,
    },
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter},
};
use prost::Message as _;
use ureq::{
    Agent,
    http::{HeaderMap, HeaderName, HeaderValue, Uri, header::CONTENT_TYPE},
};

use super::TelemetrySettings;

/// What collectors ask for to let somebody in, in the form `name=value,...` with `%20` for a space: a
/// secret, as OpenTelemetry calls it everywhere.
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";

/// How long a batch may take, all attempts together but for the last one, which may take as long.
const EXPORT: Duration = Duration::from_secs(5);

/// Before the second attempt; each later pause is twice as long.
const PAUSE: Duration = Duration::from_millis(200);

/// How long what is left may take to be exported at the end.
const FLUSH: Duration = Duration::from_secs(5);

/// What is read of an answer; a collector says little.
const MOST_ANSWER_BYTES: u64 = 64 << 10;

/// Answers after which OTLP has a batch sent again.
const PASSING: [u16; 4] = [429, 502, 503, 504];

/// Exports the spans of this process until it is dropped, which exports what is left.
pub struct Exporting(SdkTracerProvider);

/// Begins to export, if the settings name a collector. It need not be there.
///
/// # Errors
/// When the settings do not fit.
pub fn start(settings: &TelemetrySettings) -> Result<Option<Exporting>> {
    settings.validate()?;
    if settings.otlp_endpoint.is_empty() {
        return Ok(None);
    }
    let resource = Resource::builder()
        .with_service_name(settings.service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let share = Sampler::TraceIdRatioBased(settings.sample);
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(Exporter::new(&settings.otlp_endpoint)?)
        .with_sampler(Sampler::ParentBased(Box::new(share)))
        .with_resource(resource)
        .build();
    global::set_text_map_propagator(TraceContextPropagator::new());
    global::set_tracer_provider(provider.clone());
    Ok(Some(Exporting(provider)))
}

impl Drop for Exporting {
    fn drop(&mut self) {
        // The log has it where that takes too long.
        let _ = self.0.shutdown_with_timeout(FLUSH);
    }
}

/// Refuses what is no address of a collector, and headers that cannot be sent.
pub fn check(endpoint: &str) -> Result<()> {
    let key = "telemetry.otlp_endpoint";
    let expected = "expected an address such as \"http://127.0.0.1:4318\"";
    let uri: Uri = endpoint
        .parse()
        .map_err(|error| anyhow!("{key} is {endpoint:?}: {error}, {expected}"))?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if !is_http || authority.is_empty() || authority.contains('@') || uri.query().is_some() {
        bail!("{key} is {endpoint:?}, {expected}; a token goes into {HEADERS}");
    }
    headers().map(drop)
}

/// What goes with each batch.
fn headers() -> Result<HeaderMap> {
    let given = env::var(HEADERS).unwrap_or_default();
    let mut headers = parse_headers(&given)
        .with_context(|| format!("{HEADERS} is not in the form name=value,name=value"))?;
    let protobuf = HeaderValue::from_static("application/x-protobuf");
    headers.insert(CONTENT_TYPE, protobuf);
    Ok(headers)
}

/// `None` where a pair is none, or cannot be sent.
fn parse_headers(text: &str) -> Option<HeaderMap> {
    let pairs = text.split(',').map(str::trim);
    let pairs = pairs.filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        let mut value = HeaderValue::from_bytes(&decoded(value.trim())?).ok()?;
        value.set_sensitive(true);
        Some((name, value))
    });
    pairs.collect()
}

/// Bytes of a text in which `%` stands before two hexadecimal digits.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    Some(bytes)
}

/// Sends batches, and says once when spans begin to be lost, and once when no longer.
#[derive(Debug)]
struct Exporter {
    agent: Agent,
    endpoint: String,
    headers: HeaderMap,
    resource: ResourceAttributesWithSchema,
    /// Spans since a batch last arrived. Batches come one after another.
    lost: AtomicUsize,
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        match self.send(&body) {
            Ok(()) => {
                let lost = self.lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    tracing::warn!(lost, "traces are exported again");
                }
            }
            Err(error) => {
                if self.lost.fetch_add(spans, Ordering::Relaxed) == 0 {
                    let (endpoint, error) = (&self.endpoint, format!("{error:#}"));
                    tracing::warn!(endpoint, error, "traces are lost until this is mended");
                }
            }
        }
        // It is told already.
        Ok(())
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}

impl Exporter {
    fn new(endpoint: &str) -> Result<Self> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("diptych/", env!("CARGO_PKG_VERSION")))
            .timeout_global(Some(EXPORT));
        Ok(Self {
            agent: config.build().into(),
            endpoint: format!("{}/v1/traces", endpoint.trim_end_matches('/')),
            headers: headers()?,
            resource: ResourceAttributesWithSchema::default(),
            lost: AtomicUsize::new(0),
        })
    }

    /// Sends a batch; again and again for a while, where the collector was there before and may be soon.
    fn send(&self, body: &[u8]) -> Result<()> {
        let until = Instant::now() + EXPORT;
        let mut pause = PAUSE;
        loop {
            let (error, may_pass) = match self.send_once(body) {
                Ok(status) if (200..300).contains(&status) => return Ok(()),
                Ok(status) => {
                    let error = anyhow!("the collector answered {status}");
                    (error, PASSING.contains(&status))
                }
                Err(error) => (error, true),
            };
            let is_lost = self.lost.load(Ordering::Relaxed) > 0;
            if !may_pass || is_lost || Instant::now() + pause > until {
                return Err(error);
            }
            thread::sleep(pause);
            pause *= 2;
        }
    }

    /// The status of the answer.
    fn send_once(&self, body: &[u8]) -> Result<u16> {
        let mut request = self.agent.post(&self.endpoint);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let mut answer = request.send(body)?;
        let status = answer.status().as_u16();
        // Read to its end, so that the connection can be used again.
        let said = answer.body_mut().with_config().limit(MOST_ANSWER_BYTES);
        let said = said.read_to_vec()?;
        if let Ok(said) = ExportTraceServiceResponse::decode(&*said)
            && let Some(partly) = said.partial_success
            && partly.rejected_spans > 0
        {
            let (rejected, reason) = (partly.rejected_spans, partly.error_message);
            tracing::warn!(rejected, reason, "the collector takes some spans only");
        }
        Ok(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_pairs_whose_values_may_have_escapes() {
        let headers =
            parse_headers("x-token=a%20b%3d=, Authorization = Basic%20x ,").expect("fits");
        assert_eq!(headers["x-token"], "a b==");
        assert_eq!(headers["authorization"], "Basic x");
        assert!(
            !format!("{headers:?}").contains("Basic"),
            "a secret is not shown"
        );
        assert!(parse_headers("").is_some_and(|none| none.is_empty()));
        for wrong in ["x-token", "a b=c", "a=%2", "a=%zz", "a=%0a", "=b"] {
            assert!(parse_headers(wrong).is_none(), "{wrong}");
        }
    }
}
