//! Asking for a file.

use std::{
    io::{self, Read as _},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use ureq::{
    Agent, Body,
    config::Config,
    http::{Response, Uri, header},
    unversioned::{
        resolver::{ResolvedSocketAddrs, Resolver},
        transport::{DefaultConnector, NextTimeout},
    },
};
use url::{Host, Url};

use crate::{
    FetchError, Resolve, Rules, SystemResolver,
    rules::{Checked, Target},
};

/// Redirects that are followed.
const MOST_REDIRECTS: usize = 3;

/// Addresses of one name that are tried.
const MOST_ADDRESSES: usize = 8;

/// Bytes of an address.
const MOST_URL_BYTES: usize = 4_096;

/// Fetches files from hosts that were named, and from nowhere else.
#[derive(Debug)]
pub struct Fetcher {
    checked: Checked,
    names: Arc<dyn Resolve>,
}

impl Fetcher {
    /// With names as the system resolves them.
    ///
    /// # Errors
    /// When an entry of the list of hosts names none.
    pub fn new(rules: Rules) -> Result<Self, FetchError> {
        Self::with_resolver(rules, Arc::new(SystemResolver))
    }

    /// With names as `names` resolves them.
    ///
    /// # Errors
    /// When an entry of the list of hosts names none.
    pub fn with_resolver(rules: Rules, names: Arc<dyn Resolve>) -> Result<Self, FetchError> {
        Ok(Self {
            checked: Checked::new(rules)?,
            names,
        })
    }

    /// The bytes of a file. Blocks.
    ///
    /// # Errors
    /// When the address may not be asked for, nothing comes in time, or too much.
    pub fn get(&self, address: &str) -> Result<Vec<u8>, FetchError> {
        let bad = |reason: String| FetchError::BadUrl { reason };
        if address.len() > MOST_URL_BYTES {
            return Err(bad(format!("it has more than {MOST_URL_BYTES} bytes")));
        }
        let until = Instant::now() + self.checked.rules.limit;
        let mut url = Url::parse(address).map_err(|error| bad(error.to_string()))?;
        for _ in 0..=MOST_REDIRECTS {
            let target = self.checked.target(&url)?;
            let host = target.host.to_string();
            let response = self.ask(&url, &target, until)?;
            let status = response.status().as_u16();
            match (status, response.headers().get(header::LOCATION)) {
                (301 | 302 | 303 | 307 | 308, Some(to)) => {
                    let to = to.to_str().map_err(|error| bad(error.to_string()))?;
                    url = url.join(to).map_err(|error| bad(error.to_string()))?;
                }
                (200, _) => return self.read(host, response, until),
                (status, _) => return Err(FetchError::Status { host, status }),
            }
        }
        Err(FetchError::Redirects {
            most: MOST_REDIRECTS,
        })
    }

    /// Asks the addresses that were looked at, over a connection of its own.
    fn ask(
        &self,
        url: &Url,
        target: &Target,
        until: Instant,
    ) -> Result<Response<Body>, FetchError> {
        let pinned = Pinned {
            host: target.host.to_string(),
            addresses: self.addresses(target, until)?,
        };
        let host = pinned.host.clone();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // A proxy would look at nothing.
            .proxy(None)
            .user_agent(concat!("diptych/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .max_idle_connections(0)
            .timeout_global(Some(self.left(until)?))
            .build();
        let agent = Agent::with_parts(config, DefaultConnector::default(), pinned);
        let asked = agent.get(url.as_str()).call();
        asked.map_err(|source| self.failed(host, source))
    }

    /// The addresses of a host, of which each may be asked.
    fn addresses(&self, target: &Target, until: Instant) -> Result<Vec<SocketAddr>, FetchError> {
        let host = || target.host.to_string();
        let found: Vec<IpAddr> = match &target.host {
            Host::Ipv4(address) => vec![(*address).into()],
            Host::Ipv6(address) => vec![(*address).into()],
            Host::Domain(name) => {
                let found = self.names.resolve(name, self.left(until)?);
                found.map_err(|error| match error.kind() {
                    io::ErrorKind::TimedOut => self.too_slow(),
                    _ => FetchError::Unresolved { host: host() },
                })?
            }
        };
        if found.is_empty() {
            return Err(FetchError::Unresolved { host: host() });
        }
        // One that is not public is enough: who has named it means no good.
        if !found
            .iter()
            .all(|address| self.checked.may_connect(*address))
        {
            return Err(FetchError::NotPublic { host: host() });
        }
        let all = found.into_iter().take(MOST_ADDRESSES);
        Ok(all.map(|ip| SocketAddr::new(ip, target.port)).collect())
    }

    fn read(
        &self,
        host: String,
        mut response: Response<Body>,
        until: Instant,
    ) -> Result<Vec<u8>, FetchError> {
        let limit = self.checked.rules.bytes;
        let encoding = response.headers().get(header::CONTENT_ENCODING);
        if let Some(encoding) = encoding.filter(|encoding| *encoding != "identity") {
            let encoding = String::from_utf8_lossy(encoding.as_bytes()).into_owned();
            return Err(FetchError::Encoded { host, encoding });
        }
        if response
            .body()
            .content_length()
            .is_some_and(|bytes| bytes > limit)
        {
            return Err(FetchError::TooLarge { limit });
        }
        let mut bytes = Vec::new();
        let reader = response.body_mut().as_reader();
        reader
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| {
                if Instant::now() >= until {
                    self.too_slow()
                } else {
                    self.failed(host, ureq::Error::Io(error))
                }
            })?;
        if bytes.len() as u64 > limit {
            return Err(FetchError::TooLarge { limit });
        }
        Ok(bytes)
    }

    fn left(&self, until: Instant) -> Result<Duration, FetchError> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(self.too_slow());
        }
        Ok(left)
    }

    fn failed(&self, host: String, source: ureq::Error) -> FetchError {
        let is_late = match &source {
            ureq::Error::Timeout(_) => true,
            ureq::Error::Io(error) => error.kind() == io::ErrorKind::TimedOut,
            _ => false,
        };
        if is_late {
            return self.too_slow();
        }
        FetchError::Failed {
            host,
            source: Box::new(source),
        }
    }

    fn too_slow(&self) -> FetchError {
        FetchError::TooSlow {
            limit: self.checked.rules.limit,
        }
    }
}

/// Knows one host, and the addresses of it that were looked at. Nothing else is connected to.
#[derive(Debug)]
struct Pinned {
    host: String,
    addresses: Vec<SocketAddr>,
}

impl Resolver for Pinned {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        // Two readers of addresses must not disagree about who is meant.
        if uri.host() != Some(self.host.as_str()) {
            return Err(ureq::Error::HostNotFound);
        }
        let mut found = self.empty();
        for address in &self.addresses {
            found.push(*address);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
