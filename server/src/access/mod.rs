//! Who asks, whether they may, and how often.

mod rate;
mod table;

use std::{
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use actix_web::{
    HttpMessage as _, HttpRequest,
    dev::ServiceRequest,
    http::header::{AUTHORIZATION, HeaderMap, HeaderValue},
};
use parking_lot::{Mutex, RwLock};

use self::rate::{Rates, Who};
pub(crate) use self::table::Need;
use crate::{
    config::Limits,
    keys::{self, Key, KeyError, KeyFile, Role},
    reply::ApiError,
    tower::network,
};

/// Where clients put a key who do not use `Authorization`.
const API_KEY: &str = "x-api-key";

/// How often the file of keys is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Refused attempts of one asker that are written down at once, before it is one a minute: nobody can
/// push the other lines out of the log.
const REFUSALS: u32 = 10;

/// Names a collection in the patterns of routes.
const COLLECTION: &str = "{collection}";

/// What decides who may do what.
pub(crate) struct Access {
    file: Option<KeyFile>,
    loaded: RwLock<Loaded>,
    looked: Mutex<Instant>,
    rates: Rates,
    refusals: Rates,
}

#[derive(Default)]
struct Loaded {
    stamp: Option<Stamp>,
    keys: Vec<Arc<Key>>,
    /// Whether there have been keys since the start: then none is no longer an invitation.
    closed: bool,
}

/// What tells that a file is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

/// What a request may do.
#[derive(Clone)]
pub(crate) enum Grant {
    /// Everything, since nobody is asked for a key.
    Everyone,
    /// What this key may.
    Key(Arc<Key>),
    /// What is open to all.
    Nobody,
}

/// What a request is about.
pub(crate) struct Asked {
    /// The path that routes are chosen by, which is decoded in part.
    path: String,
    /// The pattern of its route.
    pattern: Option<String>,
    need: Need,
    is_safe: bool,
}

impl Asked {
    pub(crate) fn of(request: &ServiceRequest) -> Self {
        let path = request.match_info().unprocessed().to_owned();
        let pattern = request.resource_map().match_pattern(&path);
        Self {
            need: table::need(request.method(), pattern.as_deref()),
            is_safe: request.method().is_safe(),
            path,
            pattern,
        }
    }
}

impl Grant {
    /// What was found out when the request came.
    pub(crate) fn of(request: &HttpRequest) -> Self {
        let found = request.extensions().get::<Self>().cloned();
        found.unwrap_or(Self::Nobody)
    }

    /// Whether a collection may be seen, if it is there.
    pub(crate) fn sees(&self, collection: &str) -> bool {
        match self {
            Self::Everyone => true,
            Self::Key(key) => key.sees(collection),
            Self::Nobody => false,
        }
    }

    /// Refuses a collection that is not to be seen, whether it is there or not.
    ///
    /// # Errors
    /// When it is not to be seen.
    pub(crate) fn check(&self, collection: &str) -> Result<(), ApiError> {
        if self.sees(collection) {
            return Ok(());
        }
        let (key, only) = match self {
            Self::Key(key) => (key.name.as_str(), key.collections.as_deref()),
            _ => ("", None),
        };
        Err(ApiError::Forbidden {
            message: format!(
                "the key {key:?} is not for collection {collection:?}, but for {}",
                only.unwrap_or_default().join(", ")
            ),
        })
    }

    /// Whose requests are counted.
    fn who(&self, address: Option<IpAddr>) -> Who {
        match self {
            Self::Key(key) => Who::Key(Arc::clone(key)),
            Self::Everyone | Self::Nobody => Who::Address(address),
        }
    }

    /// The name of the key.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Key(key) => Some(&key.name),
            Self::Everyone | Self::Nobody => None,
        }
    }
}

impl Access {
    /// Reads the keys.
    ///
    /// # Errors
    /// When they are there and cannot be read.
    pub(crate) fn new(file: Option<&Path>, limits: &Limits) -> Result<Self, KeyError> {
        let this = Self {
            file: file.map(|path| KeyFile::new(path.to_owned())),
            loaded: RwLock::default(),
            looked: Mutex::new(Instant::now()),
            rates: Rates::new(limits.requests_per_s, limits.request_burst),
            refusals: Rates::each_minute(REFUSALS),
        };
        this.load()?;
        Ok(this)
    }

    /// Finds out who asks, and refuses what they may not, or may not so often.
    ///
    /// # Errors
    /// When the request is refused.
    pub(crate) fn admit(&self, request: &ServiceRequest) -> Result<Asked, ApiError> {
        self.look();
        let asked = Asked::of(request);
        let need = asked.need;
        let address = request.peer_addr().map(|peer| network(peer.ip()));
        let grant = match self.grant(request.headers()) {
            Ok(grant) => grant,
            Err(refused) if need != Need::Open => {
                self.rates.take(&Who::Address(address))?;
                return Err(refused);
            }
            Err(_) => Grant::Nobody,
        };
        if need != Need::Open {
            self.rates.take(&grant.who(address))?;
        }
        let collection = collection(asked.pattern.as_deref(), &asked.path);
        let refused = check(&grant, need, collection);
        request.extensions_mut().insert(grant);
        refused?;
        Ok(asked)
    }

    /// Whether an answer is written down: to every action of administrators, and to attempts to change
    /// anything for which the key is not enough, unless there have been many.
    pub(crate) fn is_written_down(
        &self,
        asked: &Asked,
        (grant, address): (&Grant, Option<IpAddr>),
        status: u16,
    ) -> bool {
        if asked.is_safe || asked.pattern.is_none() {
            return false;
        }
        match asked.need {
            Need::Role(Role::Write | Role::Admin) if matches!(status, 401 | 403) => {
                let who = grant.who(address.map(network));
                self.refusals.take(&who).is_ok()
            }
            need => need == Need::Role(Role::Admin),
        }
    }

    fn grant(&self, headers: &HeaderMap) -> Result<Grant, ApiError> {
        let loaded = self.loaded.read();
        if !loaded.closed {
            return Ok(Grant::Everyone);
        }
        let Some(secret) = secret(headers)? else {
            return Err(ApiError::Unauthorized {
                message: "this server asks for a key: send `Authorization: Bearer KEY`",
            });
        };
        match keys::find(&loaded.keys, secret) {
            Some(key) => Ok(Grant::Key(Arc::clone(key))),
            None => Err(ApiError::Unauthorized {
                message: "this is no key of this server, or not any more",
            }),
        }
    }

    /// Reads the keys again if they may have changed. Those that cannot be read change nothing.
    fn look(&self) {
        let Some(mut looked) = self.looked.try_lock().filter(|at| at.elapsed() >= LOOK) else {
            return;
        };
        *looked = Instant::now();
        if let Err(error) = self.load() {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "the API keys stay as they were");
        }
    }

    fn load(&self) -> Result<(), KeyError> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let stamp = stamp(file.path());
        if stamp == self.loaded.read().stamp {
            return Ok(());
        }
        let keys: Vec<_> = file.read()?.into_iter().map(Arc::new).collect();
        let mut loaded = self.loaded.write();
        let closed = loaded.closed || !keys.is_empty();
        if loaded.stamp.is_some() || loaded.closed {
            tracing::info!(keys = keys.len(), "the API keys have changed");
        }
        *loaded = Loaded {
            stamp,
            keys,
            closed,
        };
        Ok(())
    }
}

/// Refuses what a grant is not enough for.
fn check(grant: &Grant, need: Need, collection: Option<&str>) -> Result<(), ApiError> {
    let (Need::Role(role), Grant::Key(key)) = (need, grant) else {
        return Ok(());
    };
    if key.role < role {
        let (name, has, needs) = (&key.name, key.role.name(), role.name());
        return Err(ApiError::Forbidden {
            message: format!("the key {name:?} has the role {has}, this needs {needs}"),
        });
    }
    collection.map_or(Ok(()), |collection| grant.check(collection))
}

/// The collection that a path names.
fn collection<'a>(pattern: Option<&str>, path: &'a str) -> Option<&'a str> {
    let place = pattern?.split('/').position(|part| part == COLLECTION)?;
    path.split('/').nth(place)
}

/// The key that a request brings.
fn secret(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let mut all = Vec::new();
    for value in headers.get_all(AUTHORIZATION) {
        all.push(bearer(value).ok_or(ApiError::Unauthorized {
            message: "the header `Authorization` is not `Bearer KEY`",
        })?);
    }
    let named = headers.get_all(API_KEY);
    all.extend(named.filter_map(|value| value.to_str().ok()));
    // Which of them counts, others on the way may see differently.
    if all.iter().any(|secret| Some(secret) != all.first()) {
        return Err(ApiError::Unauthorized {
            message: "the request brings keys that differ: send one, in `Authorization` or in `x-api-key`",
        });
    }
    Ok(all.first().copied())
}

/// The key in `Bearer KEY`.
fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, secret) = value.to_str().ok()?.split_once(' ')?;
    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
    is_bearer.then(|| secret.trim())
}

fn stamp(path: &Path) -> Option<Stamp> {
    let about = std::fs::metadata(path).ok()?;
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(&about);
    #[cfg(not(unix))]
    let inode = 0;
    Some(Stamp {
        modified: about.modified().ok(),
        bytes: about.len(),
        inode,
    })
}

/// The address of who asks, as it is.
pub(crate) fn address(request: &ServiceRequest) -> Option<IpAddr> {
    request.peer_addr().map(|peer| peer.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_collection_of_a_path_is_found_by_its_pattern() {
        let of = |pattern, path| collection(Some(pattern), path);
        let item = "/v1/collections/{collection}/items/{id}";
        assert_eq!(of(item, "/v1/collections/a/items/b"), Some("a"));
        assert_eq!(of("/v1/collections", "/v1/collections"), None);
        assert_eq!(collection(None, "/v1/collections/a"), None);
    }

    fn read_all(all: &[(&str, &str)]) -> Result<Option<String>, ApiError> {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            let name = actix_web::http::header::HeaderName::try_from(*name).expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        secret(&headers).map(|found| found.map(str::to_owned))
    }

    #[test]
    fn a_key_is_read_from_both_headers() {
        let read = |name: &str, value: &str| read_all(&[(name, value)]);
        assert_eq!(
            read("authorization", "Bearer k").ok(),
            Some(Some("k".into()))
        );
        assert_eq!(
            read("authorization", "bearer  k ").ok(),
            Some(Some("k".into()))
        );
        assert_eq!(read("x-api-key", "k").ok(), Some(Some("k".into())));
        assert!(read("authorization", "Basic k").is_err());
        assert!(read("authorization", "k").is_err());
        assert_eq!(read("x-other", "k").ok(), Some(None));
    }

    #[test]
    fn keys_that_differ_are_refused_and_the_same_one_twice_is_not() {
        let bearer = |key| ("authorization", key);
        let named = |key| ("x-api-key", key);
        for (all, is_fine) in [
            ([bearer("Bearer k"), named("k")], true),
            ([bearer("Bearer k"), named("l")], false),
            ([bearer("Bearer k"), bearer("bearer l")], false),
            ([bearer("Bearer k"), bearer("Basic k")], false),
            ([named("k"), named("l")], false),
        ] {
            assert_eq!(read_all(&all).is_ok(), is_fine, "{all:?}");
        }
    }
}
