//! What happens around every request: an id, a line in the log, metrics, headers, and a guard.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use actix_web::{
    Error,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    error::InternalError,
    http::{
        Method,
        header::{self, HeaderMap, HeaderName, HeaderValue},
        uri::Authority,
    },
    middleware::Next,
    web::Data,
};
use futures_util::FutureExt as _;
use tokio::time::timeout;
use tracing::Instrument as _;

use crate::{
    Action,
    access::{self, Asked, Grant},
    doors::Dialect,
    reply::ApiError,
    state::{AppState, block},
    trace::Trace,
    watch::{Held, Watched},
};

/// Names one request in the log, in the answer, and in the log of whoever asked.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id that is taken over from a client.
const MAX_ID_BYTES: usize = 128;

/// Said with every answer. The page loads nothing from elsewhere, and nobody may frame it.
const HEADERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// Paths that are answered while the server stops.
const ALWAYS: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Methods that are named in metrics; a client could send any word.
const METHODS: [Method; 6] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::HEAD,
];

/// Runs around every request.
pub(crate) async fn observe<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let id = request_id(request.headers());
    // All that is logged about the request says which it was.
    let span = tracing::info_span!("request", request_id = %id);
    let trace = Trace::begin(known(request.method()), &id, request.headers());
    let answer = observe_one(request, next, id).instrument(span);
    trace.follow(answer).await
}

async fn observe_one<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
    id: String,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let started = Instant::now();
    let state = request.app_data::<Data<AppState>>().cloned();
    let (method, path) = (request.method().clone(), request.path().to_owned());
    let (dialect, address) = (Dialect::of(&path), access::address(&request));
    let guarded = state.as_deref().map(|state| guard(state, &request));
    let grant = Grant::of(request.request());
    // Until the body of the answer has been sent.
    let busy = request.conn_data::<Arc<Watched>>().map(Watched::busy);
    let (refused, asked) = match guarded.transpose() {
        Ok(asked) => (None, asked),
        // What somebody has tried without the right key may be written down, too.
        Err(refused @ (ApiError::Unauthorized { .. } | ApiError::Forbidden { .. })) => {
            (Some(refused), Some(Asked::of(&request)))
        }
        Err(refused) => (Some(refused), None),
    };
    let limit_ms = state.as_deref().map_or(u64::MAX, |s| s.limits.request_ms);
    let answer = match refused {
        // An answer like any other, so that a page of another origin may read it where it may.
        Some(refused) => Ok(request.error_response(refused).map_into_boxed_body()),
        None => answer_in_time(request, &next, limit_ms).await,
    };
    let (answer, status, route) = match answer {
        Ok(mut answer) => {
            dress(answer.headers_mut(), &id);
            let answer = dialect.translate(answer);
            let ending = Trace::current().ending();
            let answer = answer.map_body(|_, body| BoxBody::new(Held::new(body, busy, ending)));
            let route = answer
                .request()
                .match_pattern()
                .unwrap_or_else(|| "other".to_owned());
            let status = answer.status().as_u16();
            (Ok(answer), status, route)
        }
        Err(error) => {
            let mut answer = dialect.answer(&error);
            dress(answer.headers_mut(), &id);
            let status = answer.status().as_u16();
            let error = InternalError::from_response(error.to_string(), answer);
            (Err(error.into()), status, "refused".to_owned())
        }
    };
    let took = started.elapsed();
    let known = known(&method);
    Trace::current().answered(known, &route, status);
    if let Some(state) = state {
        state.metrics.request(known, &route, status, took);
        let who = (&grant, address);
        if asked.is_some_and(|asked| state.access.is_written_down(&asked, who, status)) {
            let action = format!("{known} {route}");
            write_down(&state, &grant, address, (&action, &path), (status, &id)).await;
        }
    }
    let (key, took_ms) = (grant.name(), took.as_secs_f64() * 1e3);
    tracing::info!(method = %method, path, status, key, took_ms, "request");
    answer
}

/// The method, if it is one that is named.
fn known(method: &Method) -> &'static str {
    let mut known = METHODS.iter();
    known
        .find(|known| *known == method)
        .map_or("OTHER", Method::as_str)
}

/// What the routes answer, unless that takes too long or ends in a panic.
async fn answer_in_time<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: &Next<B>,
    limit_ms: u64,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let answer = AssertUnwindSafe(next.call(request)).catch_unwind();
    match timeout(Duration::from_millis(limit_ms), answer).await {
        Err(_) => Err(ApiError::Overdue { limit_ms }.into()),
        Ok(Err(_)) => Err(ApiError::Internal {
            doing: "answering (a panic)",
            source: None,
        }
        .into()),
        Ok(Ok(answer)) => answer.map(ServiceResponse::map_into_boxed_body),
    }
}

/// Writes an action, or a refused attempt, down.
async fn write_down(
    state: &Data<AppState>,
    grant: &Grant,
    address: Option<IpAddr>,
    (action, target): (&str, &str),
    (status, id): (u16, &str),
) {
    if state.audit.is_none() {
        return;
    }
    let (state, grant) = (state.clone(), grant.clone());
    let address = address.map(|address| address.to_string());
    let [action, target, id] = [action, target, id].map(str::to_owned);
    let written = block("writing the audit log", move || {
        let action = Action {
            key: grant.name(),
            address: address.as_deref(),
            action: &action,
            target: &target,
            outcome: &status.to_string(),
            request_id: Some(&id),
        };
        let written = state.audit.as_ref().map(|audit| audit.write(action));
        written
            .transpose()
            .map_err(|error| ApiError::internal("writing the audit log", error))
    });
    // It is done and cannot be undone; what is left is to tell the operator.
    if let Err(error) = written.await {
        error.to_json();
    }
}

/// Refuses what must not reach a route.
fn guard(state: &AppState, request: &ServiceRequest) -> Result<Asked, ApiError> {
    if state.stopping.load(Ordering::Acquire) && !ALWAYS.contains(&request.path()) {
        return Err(ApiError::Unavailable {
            reason: "the server is stopping",
        });
    }
    if !state.any_host {
        check_host(request.headers(), &state.hosts)?;
    }
    check_path(request.uri().path())?;
    // A page of another site may send forms here without being allowed to; its browser says where
    // it comes from.
    let text = |name| {
        request
            .headers()
            .get(name)
            .and_then(|v: &HeaderValue| v.to_str().ok())
    };
    if let Some(origin) = text(header::ORIGIN).filter(|_| !request.method().is_safe()) {
        let theirs = origin.split_once("://").map_or(origin, |(_, host)| host);
        let is_allowed = state.cors.iter().any(|allowed| allowed == origin);
        if Some(theirs) != text(header::HOST) && !is_allowed {
            return Err(ApiError::CrossOrigin {
                origin: origin.to_owned(),
            });
        }
    }
    state.access.admit(request)
}

/// Refuses hosts that are neither an IP address nor `localhost`, nor one of ours. A page may have its own name lead
/// to this machine once it is loaded, and its browser then lets it read every answer; such a
/// request still says that name. What the server is bound to is an address, so it is allowed.
fn check_host(headers: &HeaderMap, ours: &[String]) -> Result<(), ApiError> {
    let mut hosts = headers.get_all(header::HOST).peekable();
    let foreign = |host: &[u8]| {
        Err(ApiError::ForeignHost {
            host: String::from_utf8_lossy(host).into_owned(),
        })
    };
    if hosts.peek().is_none() {
        return foreign(b"");
    }
    for host in hosts {
        let name = Authority::try_from(host.as_bytes());
        let known = name.is_ok_and(|name| {
            let name = name.host().trim_matches(['[', ']']);
            name.eq_ignore_ascii_case("localhost")
                || name.parse::<IpAddr>().is_ok()
                || ours.iter().any(|own| name.eq_ignore_ascii_case(own))
        });
        if !known {
            return foreign(host.as_bytes());
        }
    }
    Ok(())
}

/// Refuses paths that do not stand for text. What is no UTF-8 would be read as if it were, and the
/// request would be about another item than the one that was meant.
fn check_path(path: &str) -> Result<(), ApiError> {
    let refused = || {
        let message = "in the path, % stands before two hexadecimal digits of a byte of UTF-8";
        ApiError::invalid("path", message)
    };
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let high = digit(bytes.next()).ok_or_else(refused)?;
                let low = digit(bytes.next()).ok_or_else(refused)?;
                (16 * high + low) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).map(drop).map_err(|_| refused())
}

/// Adds what every answer has.
fn dress(headers: &mut HeaderMap, id: &str) {
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
}

/// The client's id when it is harmless in a log, otherwise a new one.
fn request_id(headers: &HeaderMap) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let harmless = |id: &&str| {
        (1..=MAX_ID_BYTES).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let given = headers
        .get(REQUEST_ID)
        .and_then(|v| v.to_str().ok())
        .filter(harmless);
    given.map_or_else(
        || {
            let n = COUNTER.fetch_add(1, Ordering::Relaxed);
            format!("{:016x}", RandomState::new().hash_one(n))
        },
        str::to_owned,
    )
}
