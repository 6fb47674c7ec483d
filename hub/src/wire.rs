//! HTTP as hubs speak it.

use std::{collections::BTreeSet, time::Duration};

use serde::Deserialize;
use ureq::{
    Agent, Body,
    http::{Response, StatusCode, header},
};

use crate::{
    HubError, Settings,
    checksum::Etag,
    name::{Commit, RepoName, Revision},
    settings::origin,
};

const CONNECT: Duration = Duration::from_secs(10);
/// Until an answer begins, and between two of its pieces.
const SILENCE: Duration = Duration::from_secs(30);
const MOST_REDIRECTS: usize = 10;
/// Longest answer that is kept in memory.
const MOST_ANSWER: u64 = 32 << 20;
/// Who opens pull requests with converted weights on the public hub.
const CONVERTER: &str = "SFconvertbot";
/// More than any model has.
const MOST_CONVERSIONS: usize = 10;
const CONVERSION: &str = "Adding `safetensors` variant of this model";

/// A hub, and who asks it about which model.
pub(crate) struct Wire<'a> {
    agent: Agent,
    settings: &'a Settings,
    repo: &'a RepoName,
}

/// What a repository holds.
pub(crate) struct Listing {
    pub commit: Commit,
    pub names: BTreeSet<String>,
}

/// What the hub says about a file.
pub(crate) struct About {
    pub etag: Etag,
    pub size: u64,
}

#[derive(Clone, Copy)]
enum Method {
    Head,
    Get,
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

#[derive(Deserialize)]
struct Discussions {
    discussions: Vec<Discussion>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Discussion {
    num: u64,
    title: String,
    status: String,
    is_pull_request: bool,
    /// Nobody, once they have left.
    author: Option<Author>,
}

#[derive(Deserialize)]
struct Author {
    name: String,
}

/// An entry of a history, the newest first.
#[derive(Deserialize)]
struct Entry {
    id: String,
}

impl<'a> Wire<'a> {
    pub(crate) fn new(settings: &'a Settings, repo: &'a RepoName) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("diptych/", env!("CARGO_PKG_VERSION")))
            // Sizes are those of the files.
            .accept_encoding("identity")
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE));
        Self {
            agent: config.build().into(),
            settings,
            repo,
        }
    }

    /// What the revision is, and which files it has.
    pub(crate) fn listing(&self, revision: &Revision) -> Result<Listing, HubError> {
        let url = self.api(&format!("/revision/{}", escaped(revision.as_str())));
        let info: Info = self.json(&url, revision)?;
        let commit = info.sha.parse().map_err(|()| HubError::BadAnswer {
            url,
            problem: format!("the commit {:?}", info.sha),
        })?;
        let names = info.siblings.into_iter().map(|s| s.rfilename).collect();
        Ok(Listing { commit, names })
    }

    /// The pull request in which the hub itself has converted the weights of this commit. One by
    /// anybody else may hold anything, and one for an older commit other weights.
    pub(crate) fn conversion(&self, of: &Commit) -> Result<Option<Revision>, HubError> {
        let query = format!("/discussions?p=0&type=pull_request&status=open&author={CONVERTER}");
        let all: Discussions = self.json(&self.api(&query), &Revision::main())?;
        let conversions = all.discussions.into_iter().filter(|d| {
            let by = d.author.as_ref().map(|author| author.name.as_str());
            d.is_pull_request
                && d.status == "open"
                && d.title == CONVERSION
                && by == Some(CONVERTER)
        });
        for conversion in conversions.take(MOST_CONVERSIONS) {
            let revision = Revision::pull_request(conversion.num);
            let url = self.api(&format!("/commits/{}", escaped(revision.as_str())));
            let history: Vec<Entry> = self.json(&url, &revision)?;
            if history
                .get(1)
                .is_some_and(|before| before.id == of.as_str())
            {
                return Ok(Some(revision));
            }
        }
        Ok(None)
    }

    /// Size and checksum of a file.
    pub(crate) fn about(&self, commit: &Commit, name: &str) -> Result<About, HubError> {
        let url = self.file(commit, name);
        let response = self.send(Method::Head, &url, None)?;
        let status = response.status();
        if !status.is_success() && !status.is_redirection() {
            return Err(self.refusal(&url, &response, &Revision::main()));
        }
        let text = |name: &str| response.headers().get(name)?.to_str().ok();
        // A file that lies elsewhere has both; the second is about the redirect.
        let size = text("x-linked-size").or_else(|| text("content-length"));
        let size = size.and_then(|size| size.parse().ok());
        let etag = text("x-linked-etag")
            .or_else(|| text("etag"))
            .and_then(Etag::new);
        let bad = |what: &str| HubError::BadAnswer {
            url: url.clone(),
            problem: format!("without {what}"),
        };
        Ok(About {
            etag: etag.ok_or_else(|| bad("a usable ETag"))?,
            size: size.ok_or_else(|| bad("a size"))?,
        })
    }

    /// A file from a byte on. Every status but 200, 206 and 416 is an error.
    pub(crate) fn read(
        &self,
        commit: &Commit,
        name: &str,
        from: u64,
    ) -> Result<Response<Body>, HubError> {
        let url = self.file(commit, name);
        let response = self.send(Method::Get, &url, (from > 0).then_some(from))?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                Ok(response)
            }
            _ => Err(self.refusal(&url, &response, &Revision::main())),
        }
    }

    fn api(&self, rest: &str) -> String {
        format!("{}/api/models/{}{rest}", self.settings.endpoint, self.repo)
    }

    fn file(&self, commit: &Commit, name: &str) -> String {
        format!(
            "{}/{}/resolve/{commit}/{name}",
            self.settings.endpoint, self.repo
        )
    }

    fn json<T: for<'de> Deserialize<'de>>(
        &self,
        url: &str,
        revision: &Revision,
    ) -> Result<T, HubError> {
        let mut response = self.send(Method::Get, url, None)?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(url, &response, revision));
        }
        let body = response
            .body_mut()
            .with_config()
            .limit(MOST_ANSWER)
            .read_to_vec();
        let body = body.map_err(|error| self.unreachable(&error))?;
        serde_json::from_slice(&body).map_err(|error| HubError::BadAnswer {
            url: url.to_owned(),
            problem: format!("no usable JSON ({error})"),
        })
    }

    /// Sends a request and follows redirects; of a `HEAD` only those that stay on the hub, which alone
    /// knows the checksum. Nobody but the hub gets the token.
    fn send(
        &self,
        method: Method,
        url: &str,
        from: Option<u64>,
    ) -> Result<Response<Body>, HubError> {
        let mut at = url.to_owned();
        for _ in 0..=MOST_REDIRECTS {
            let mut request = match method {
                Method::Head => self.agent.head(&at),
                Method::Get => self.agent.get(&at),
            };
            if let Some(from) = from {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            let here = origin(&at);
            if let Some(token) = &self.settings.token
                && here.as_deref() == Some(self.settings.endpoint.origin())
            {
                request = request.header(header::AUTHORIZATION, token.header());
            }
            let response = request.call().map_err(|error| self.unreachable(&error))?;
            let target = response.headers().get(header::LOCATION);
            let target = target.filter(|_| response.status().is_redirection());
            let Some(target) = target.and_then(|target| target.to_str().ok()) else {
                return Ok(response);
            };
            at = if target.starts_with('/') && !target.starts_with("//") {
                format!("{}{target}", here.unwrap_or_default())
            } else if matches!(method, Method::Head) {
                return Ok(response);
            } else if origin(target).is_some() {
                target.to_owned()
            } else {
                break;
            };
        }
        Err(HubError::BadAnswer {
            url: url.to_owned(),
            problem: "redirects that lead nowhere".to_owned(),
        })
    }

    fn unreachable(&self, error: &ureq::Error) -> HubError {
        HubError::Unreachable {
            endpoint: self.settings.endpoint.to_string(),
            reason: error.to_string(),
        }
    }

    fn refusal(&self, url: &str, response: &Response<Body>, revision: &Revision) -> HubError {
        let text = |name: &str| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        let (code, message) = (
            text("x-error-code"),
            text("x-error-message").unwrap_or_default(),
        );
        let (repo, endpoint) = (self.repo.clone(), self.settings.endpoint.to_string());
        let token = self.settings.token.as_ref();
        let status = response.status().as_u16();
        match (status, code) {
            (_, Some("GatedRepo")) => {
                let token = token.map_or_else(
                    || "there is no token now".to_owned(),
                    |token| format!("the token from {} is not enough", token.from()),
                );
                HubError::Gated {
                    repo,
                    endpoint,
                    token,
                }
            }
            (_, Some("RevisionNotFound")) => HubError::NoRevision {
                repo,
                revision: revision.clone(),
                endpoint,
            },
            (401, _) if message.starts_with("Invalid") && token.is_some() => HubError::BadToken {
                endpoint,
                from: token
                    .map(|token| token.from().to_owned())
                    .unwrap_or_default(),
                status,
            },
            (401, _) if token.is_none() => HubError::NotShown { repo, endpoint },
            (_, Some("RepoNotFound")) | (401 | 404, _) => HubError::NoModel { repo, endpoint },
            (403, _) => match token {
                Some(token) => HubError::BadToken {
                    endpoint,
                    from: token.from().to_owned(),
                    status,
                },
                None => HubError::Gated {
                    repo,
                    endpoint,
                    token: "there is no token now".to_owned(),
                },
            },
            (429 | 500..=599, _) => HubError::Unreachable {
                endpoint,
                reason: format!("HTTP {status}"),
            },
            _ => HubError::BadAnswer {
                url: url.to_owned(),
                problem: format!("HTTP {status}"),
            },
        }
    }
}

/// A revision as one part of a path.
fn escaped(revision: &str) -> String {
    revision.replace('/', "%2F").replace('+', "%2B")
}
