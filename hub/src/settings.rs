//! Where the hub and the cache are, by the variables that other programs of the hub follow, too.

use std::{
    env,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use fs_err as fs;
use ureq::http::Uri;

use crate::HubError;

const PUBLIC_ENDPOINT: &str = "https://huggingface.co";

/// Which hub is asked, who asks, and where the files go.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The hub.
    pub endpoint: Endpoint,
    /// The folder that holds all repositories, which other programs share.
    pub cache: PathBuf,
    /// Who asks.
    pub token: Option<Token>,
    /// Whether no connection may be opened.
    pub offline: bool,
}

impl Settings {
    /// By the environment: `HF_ENDPOINT`; `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`; `HF_TOKEN`, or
    /// else the file at `HF_TOKEN_PATH`, or else that in `HF_HOME`.
    ///
    /// # Errors
    /// When the endpoint is no URL, or no folder for the cache is known.
    pub fn from_env(offline: bool) -> Result<Self, HubError> {
        Self::from_variables(offline, |name| env::var_os(name))
    }

    fn from_variables(
        offline: bool,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, HubError> {
        // An empty variable names nothing.
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let words = |name: &str| {
            let value = variable(name)?.to_string_lossy().trim().to_owned();
            Some(value).filter(|value| !value.is_empty())
        };
        let path = |name: &str| variable(name).map(PathBuf::from);
        let home = path("HF_HOME")
            .or_else(|| Some(path("XDG_CACHE_HOME")?.join("huggingface")))
            .or_else(|| {
                Some(
                    path("HOME")
                        .or_else(|| path("USERPROFILE"))?
                        .join(".cache/huggingface"),
                )
            });
        let cache = path("HF_HUB_CACHE").or_else(|| Some(home.as_ref()?.join("hub")));
        let token_file = path("HF_TOKEN_PATH").or_else(|| Some(home.as_ref()?.join("token")));
        let token = match words("HF_TOKEN") {
            Some(secret) => Some(Token {
                secret,
                from: "HF_TOKEN".to_owned(),
            }),
            None => token_file.as_deref().and_then(Token::read),
        };
        let endpoint = words("HF_ENDPOINT").unwrap_or_else(|| PUBLIC_ENDPOINT.to_owned());
        Ok(Self {
            endpoint: Endpoint::new(&endpoint)?,
            cache: std::path::absolute(cache.ok_or(HubError::NoCacheFolder)?)?,
            token,
            offline,
        })
    }
}

/// URL of a hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    url: String,
    origin: String,
}

impl Endpoint {
    /// Takes `http://` and `https://`, with or without a path.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn new(value: &str) -> Result<Self, HubError> {
        let bad = || HubError::BadEndpoint {
            value: value.to_owned(),
        };
        let url = value.trim_end_matches('/');
        let origin = origin(url).ok_or_else(bad)?;
        if url.contains(['?', '#']) {
            return Err(bad());
        }
        let url = url.to_owned();
        Ok(Self { url, origin })
    }

    /// The URL, without a slash at the end.
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// Scheme, host and port, which may get the token.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// Scheme, host and port of an http(s) URL.
pub(crate) fn origin(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str().filter(|s| ["http", "https"].contains(s))?;
    let authority = uri.authority()?;
    // What stands before an `@` is a password, and may be a trick.
    let is_plain = !authority.host().is_empty() && !authority.as_str().contains('@');
    is_plain.then(|| format!("{scheme}://{authority}"))
}

/// A secret that says who asks; it is never printed.
#[derive(Clone)]
pub struct Token {
    secret: String,
    from: String,
}

impl Token {
    fn read(file: &Path) -> Option<Self> {
        let secret = fs::read_to_string(file).ok()?.trim().to_owned();
        let from = file.display().to_string();
        (!secret.is_empty()).then_some(Self { secret, from })
    }

    /// What a request carries.
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.secret)
    }

    /// The variable or file that it came from.
    pub fn from(&self) -> &str {
        &self.from
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token from {}", self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, HubError> {
        Settings::from_variables(false, |name| {
            let found = variables.iter().find(|(known, _)| *known == name)?;
            Some(found.1.into())
        })
    }

    #[test]
    fn the_nearest_variable_names_the_cache() {
        let mut variables = vec![("HOME", "/h")];
        for (more, cache) in [
            ((""), "/h/.cache/huggingface/hub"),
            (("XDG_CACHE_HOME"), "/x/huggingface/hub"),
            (("HF_HOME"), "/x/hub"),
            (("HF_HUB_CACHE"), "/x"),
        ] {
            variables.push((more, "/x"));
            let settings = settings(&variables).expect("usable");
            assert_eq!(settings.cache, PathBuf::from(cache), "{more}");
        }
        assert!(matches!(
            settings(&[("HF_HOME", "")]),
            Err(HubError::NoCacheFolder)
        ));
    }

    #[test]
    fn a_token_comes_from_the_variable_or_else_the_file_and_is_not_shown() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().to_str().expect("UTF-8");
        assert!(
            settings(&[("HF_HOME", path)])
                .expect("usable")
                .token
                .is_none()
        );
        fs::write(home.path().join("token"), "of-the-file\n").expect("written");
        let token = settings(&[("HF_HOME", path)])
            .expect("usable")
            .token
            .expect("one");
        assert_eq!(token.header(), "Bearer of-the-file");
        let both = [("HF_HOME", path), ("HF_TOKEN", " of-the-variable ")];
        let token = settings(&both).expect("usable").token.expect("one");
        assert_eq!(token.header(), "Bearer of-the-variable");
        assert!(!format!("{token:?}").contains("of-the"), "{token:?}");
    }

    #[test]
    fn an_endpoint_is_a_url() {
        for (value, origin) in [
            ("https://huggingface.co/", "https://huggingface.co"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("https://mirror.example/api/hub", "https://mirror.example"),
        ] {
            let endpoint = Endpoint::new(value).expect(value);
            assert_eq!(endpoint.origin(), origin);
            assert_eq!(endpoint.as_str(), value.trim_end_matches('/'));
        }
        for bad in [
            "huggingface.co",
            "ftp://a",
            "https://",
            "https://a b",
            "https://u:p@a",
            "https://a/?q",
        ] {
            assert!(Endpoint::new(bad).is_err(), "{bad}");
        }
    }
}
