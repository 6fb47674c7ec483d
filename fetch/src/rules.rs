//! Which addresses may be asked for.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use url::{Host, Url};

use crate::{FetchError, public::is_public};

/// What the operator allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Hosts: a name, `*.` before a name for all that are below it, or `*` for every name.
    pub allow: Vec<String>,
    /// Networks that may be asked although they are not public.
    pub allow_private: Vec<IpNet>,
    /// Ports beside those of the schemes.
    pub ports: Vec<u16>,
    /// The most bytes of a file.
    pub bytes: u64,
    /// How long all of it may take.
    pub limit: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            allow_private: Vec::new(),
            ports: Vec::new(),
            bytes: 32 << 20,
            limit: Duration::from_secs(10),
        }
    }
}

/// An entry of the list of hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Any,
    Below(String),
    Only(Host),
}

/// The rules, read.
#[derive(Debug)]
pub(crate) struct Checked {
    entries: Vec<Entry>,
    pub(crate) rules: Rules,
}

/// An address that may be asked for, if its host leads to where it may.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

impl Checked {
    /// # Errors
    /// When an entry names no host.
    pub(crate) fn new(rules: Rules) -> Result<Self, FetchError> {
        let entries = rules.allow.iter().map(|entry| read(entry));
        Ok(Self {
            entries: entries.collect::<Result<_, _>>()?,
            rules,
        })
    }

    /// Everything that can be said before a name is resolved. There is one reader of addresses: what
    /// is checked here is what is asked for.
    pub(crate) fn target(&self, url: &Url) -> Result<Target, FetchError> {
        let bad = |reason: &str| FetchError::BadUrl {
            reason: reason.to_owned(),
        };
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad("its scheme is neither http nor https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("it has a user name or a password"));
        }
        let host = url.host().ok_or_else(|| bad("it has no host"))?.to_owned();
        let port = url.port_or_known_default();
        let port = port.ok_or_else(|| bad("it has no port"))?;
        if !self.allows(&host) {
            let host = host.to_string();
            return Err(FetchError::NotAllowed { host });
        }
        // A port that is written out is none of the scheme's: those are left out when one is read.
        if url.port().is_some() && !self.rules.ports.contains(&port) {
            return Err(FetchError::Port { port });
        }
        Ok(Target { host, port })
    }

    /// Whether this address of an allowed host may be asked.
    pub(crate) fn may_connect(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let private = &self.rules.allow_private;
        is_public(address) || private.iter().any(|network| network.contains(&address))
    }

    fn allows(&self, host: &Host) -> bool {
        self.entries.iter().any(|entry| match (entry, host) {
            (Entry::Any, host) => matches!(host, Host::Domain(_)),
            (Entry::Only(only), host) => only == host,
            (Entry::Below(end), Host::Domain(name)) => name
                .strip_suffix(end.as_str())
                .is_some_and(|start| !start.is_empty()),
            (Entry::Below(_), _) => false,
        })
    }
}

/// Names are compared as browsers write them: in lower case, and those beyond ASCII in Punycode.
fn read(entry: &str) -> Result<Entry, FetchError> {
    let bad = || FetchError::BadEntry {
        entry: entry.to_owned(),
    };
    if entry == "*" {
        return Ok(Entry::Any);
    }
    let (below, name) = match entry.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, entry),
    };
    let host = Host::parse(name).map_err(|_| bad())?;
    if name.contains('*') {
        return Err(bad());
    }
    match (below, host) {
        (false, host) => Ok(Entry::Only(host)),
        (true, Host::Domain(name)) => Ok(Entry::Below(format!(".{name}"))),
        (true, _) => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(allow: &[&str], url: &str) -> Result<Target, FetchError> {
        let allow = allow.iter().map(|entry| (*entry).to_owned()).collect();
        let rules = Rules {
            allow,
            ..Rules::default()
        };
        let url = Url::parse(url).map_err(|error| FetchError::BadUrl {
            reason: error.to_string(),
        })?;
        Checked::new(rules)?.target(&url)
    }

    #[test]
    fn a_host_is_on_the_list_in_every_spelling_of_its_name() {
        let allow = ["Images.example.com", "*.example.org", "b\u{fc}cher.example"];
        for url in [
            "https://images.example.com/a.jpg",
            "https://IMAGES.EXAMPLE.COM/a.jpg",
            "http://images.example.com:80/a.jpg",
            "https://images.example.com:443/",
            "https://a.example.org/",
            "https://b.a.example.org/",
            "https://xn--bcher-kva.example/",
            "https://B\u{dc}CHER.example/",
            "https://im%61ges.example.com/",
        ] {
            assert!(target(&allow, url).is_ok(), "{url}");
        }
    }

    #[test]
    fn what_only_looks_like_a_listed_host_is_not_one() {
        let allow = ["images.example.com", "*.example.org"];
        for url in [
            "https://example.com/",
            "https://example.org/",
            "https://evilexample.org/",
            "https://images.example.com.evil.example/",
            "https://images.example.com./",
            "https://a.example.org./",
            "https://images.example.com@127.0.0.1/",
            "https://images.example.com:a@127.0.0.1/",
            "https://user@images.example.com/",
            "https://127.0.0.1#@images.example.com/",
            "https://127.0.0.1\\@images.example.com/",
            "https://127.0.0.1/images.example.com",
            "https://images.example.com:8443/",
            "https://images.example.com:22/",
            "http://images.example.com:443/",
            "ftp://images.example.com/",
            "file:///etc/passwd",
            "gopher://images.example.com/",
            "data:image/png;base64,AAAA",
            "//images.example.com/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[fe80::1%25eth0]/",
            "https://[::1",
            "https://images\u{3002}example\u{3002}com.evil.example/",
            "https://im\u{430}ges.example.com/",
        ] {
            assert!(target(&allow, url).is_err(), "{url}");
        }
    }

    #[test]
    fn numbers_in_every_base_are_addresses_and_no_names() {
        for url in [
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://127.0.0.1./",
            "http://\u{ff11}\u{ff12}\u{ff17}.0.0.1/",
        ] {
            // Not on a list of all names, and known for what they are.
            assert!(target(&["*"], url).is_err(), "{url}");
            let listed = target(&["127.0.0.1"], url).map(|target| target.host);
            let loopback: Host = Host::Ipv4([127, 0, 0, 1].into());
            assert!(listed.is_ok_and(|host| host == loopback), "{url}");
        }
        assert!(
            !Checked::new(Rules::default()).is_ok_and(|c| c.may_connect([127, 0, 0, 1].into()))
        );
    }

    #[test]
    fn networks_that_are_opened_are_open_in_their_mapped_form_and_no_others() {
        let rules = Rules {
            allow_private: vec!["127.0.0.0/8".parse().expect("a network")],
            ..Rules::default()
        };
        let checked = Checked::new(rules).expect("fits");
        let may = |text: &str| checked.may_connect(text.parse().expect("an address"));
        assert!(may("127.0.0.1") && may("::ffff:127.9.9.9") && may("1.1.1.1"));
        assert!(!may("10.0.0.1") && !may("::1") && !may("169.254.169.254"));
    }

    #[test]
    fn an_entry_that_names_no_host_is_refused() {
        for entry in [
            "",
            "*.",
            "https://a.example",
            "a b",
            "*.127.0.0.1",
            "a/b",
            "*.*.example",
        ] {
            let rules = Rules {
                allow: vec![entry.into()],
                ..Rules::default()
            };
            let refused = Checked::new(rules);
            assert!(
                matches!(refused, Err(FetchError::BadEntry { .. })),
                "{entry}"
            );
        }
    }
}
