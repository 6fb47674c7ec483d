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
    http::header::{AUTHORIZATION, HeaderMap},
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

/// Names a collection in the patterns of routes.
const COLLECTION: &str = "{collection}";

/// What decides who may do what.
pub(crate) struct Access {
    file: Option<KeyFile>,
    loaded: RwLock<Loaded>,
    looked: Mutex<Instant>,
    rates: Rates,
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

/// What a request was let in as.
pub(crate) struct Admitted {
    /// The pattern of its route.
    pub(crate) pattern: Option<String>,
    pub(crate) need: Need,
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
        };
        this.load()?;
        Ok(this)
    }

    /// Finds out who asks, and refuses what they may not, or may not so often.
    ///
    /// # Errors
    /// When the request is refused.
    pub(crate) fn admit(&self, request: &ServiceRequest) -> Result<Admitted, ApiError> {
        self.look();
        // The path that routes are chosen by, which is decoded in part.
        let path = request.match_info().unprocessed().to_owned();
        let pattern = request.resource_map().match_pattern(&path);
        let need = table::need(request.method(), pattern.as_deref());
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
            let who = match &grant {
                Grant::Key(key) => Who::Key(Arc::clone(key)),
                _ => Who::Address(address),
            };
            self.rates.take(&who)?;
        }
        let refused = check(&grant, need, collection(pattern.as_deref(), &path));
        request.extensions_mut().insert(grant);
        refused?;
        Ok(Admitted { pattern, need })
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
    let unread = ApiError::Unauthorized {
        message: "the header `Authorization` is not `Bearer KEY`",
    };
    if let Some(value) = headers.get(AUTHORIZATION) {
        let Some((scheme, secret)) = value.to_str().ok().and_then(|text| text.split_once(' '))
        else {
            return Err(unread);
        };
        return if scheme.eq_ignore_ascii_case("bearer") {
            Ok(Some(secret.trim()))
        } else {
            Err(unread)
        };
    }
    Ok(headers.get(API_KEY).and_then(|value| value.to_str().ok()))
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

/// Whether an action is one that is written down.
pub(crate) fn is_administrative(admitted: &Admitted, is_safe: bool) -> bool {
    admitted.need == Need::Role(Role::Admin) && !is_safe && admitted.pattern.is_some()
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

    #[test]
    fn a_key_is_read_from_both_headers() {
        let read = |name: &str, value: &str| {
            let mut headers = HeaderMap::new();
            let name = actix_web::http::header::HeaderName::try_from(name).expect("a name");
            headers.insert(name, value.parse().expect("a value"));
            secret(&headers).map(|found| found.map(str::to_owned))
        };
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
}
