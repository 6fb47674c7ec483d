//! Who may do what: the one table of routes and roles. What is not listed is for administrators, so
//! that a new route is closed until somebody has thought about it.

use actix_web::http::Method;

use crate::keys::Role;

/// What a request has to bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing: it tells nothing of what is kept.
    Open,
    /// A key of this role or a higher one.
    Role(Role),
}

const OPEN: Need = Need::Open;
const READ: Need = Need::Role(Role::Read);
const WRITE: Need = Need::Role(Role::Write);
const ADMIN: Need = Need::Role(Role::Admin);

/// Methods, patterns as routes are registered with, and what each needs. HEAD is as GET.
#[rustfmt::skip]
const TABLE: &[(&str, &str, Need)] = &[
    ("GET", "/", OPEN),
    ("GET", "/page/{file}", OPEN),
    ("GET", "/healthz", OPEN),
    ("GET", "/readyz", OPEN),
    ("GET", "/health", OPEN),
    ("GET", "/openapi.json", OPEN),
    ("GET", "/docs", OPEN),
    ("GET", "/docs/{file}", OPEN),

    ("GET", "/metrics", READ),
    ("GET", "/info", READ),
    ("GET", "/v1/model", READ),
    ("GET", "/v1/models", READ),
    ("GET", "/v1/models/{model:.+}", READ),
    ("POST", "/v1/classify", READ),
    ("POST", "/v1/embeddings", READ),
    ("POST", "/embed", READ),
    ("POST", "/zero-shot-image-classification", READ),
    ("POST", "/knn-service", READ),
    ("GET", "/v1/collections", READ),
    ("GET", "/v1/collections/{collection}", READ),
    ("POST", "/v1/collections/{collection}/search", READ),
    ("GET", "/v1/collections/{collection}/items", READ),
    ("GET", "/v1/collections/{collection}/items/{id}", READ),
    ("GET", "/v1/collections/{collection}/items/{id}/image", READ),
    ("GET", "/v1/collections/{collection}/map", READ),
    ("POST", "/v1/collections/{collection}/explain", READ),
    ("GET", "/v1/collections/{collection}/heads", READ),
    ("GET", "/v1/collections/{collection}/heads/{head}", READ),
    ("GET", "/v1/collections/{collection}/heads/{head}/versions", READ),
    ("GET", "/v1/collections/{collection}/heads/{head}/export", READ),
    ("POST", "/v1/collections/{collection}/heads/{head}/predict", READ),
    ("POST", "/v1/collections/{collection}/heads/{head}/suggest", READ),
    ("GET", "/v1/jobs", READ),
    ("GET", "/v1/jobs/{id}", READ),

    ("POST", "/v1/collections/{collection}/items", WRITE),
    ("PATCH", "/v1/collections/{collection}/items/{id}", WRITE),
    ("DELETE", "/v1/collections/{collection}/items/{id}", WRITE),
    ("POST", "/v1/collections/{collection}/calibrate", WRITE),
    ("PUT", "/v1/collections/{collection}/heads/{head}", WRITE),
    ("DELETE", "/v1/collections/{collection}/heads/{head}", WRITE),
    ("POST", "/v1/collections/{collection}/heads/{head}/rollback", WRITE),
    ("PUT", "/v1/collections/{collection}/heads/{head}/import", WRITE),
    ("POST", "/v1/collections/{collection}/heads/{head}/apply", WRITE),
    ("POST", "/v1/collections/{collection}/import", WRITE),
    ("DELETE", "/v1/jobs/{id}", WRITE),

    ("PUT", "/v1/collections/{collection}", ADMIN),
    ("DELETE", "/v1/collections/{collection}", ADMIN),
    ("POST", "/v1/collections/{collection}/reencode", ADMIN),
    ("GET", "/v1/collections/{collection}/snapshots", ADMIN),
    ("POST", "/v1/collections/{collection}/snapshots", ADMIN),
    ("GET", "/v1/collections/{collection}/snapshots/{snapshot}", ADMIN),
    ("DELETE", "/v1/collections/{collection}/snapshots/{snapshot}", ADMIN),
    ("POST", "/v1/collections/{collection}/snapshots/{snapshot}/restore", ADMIN),
];

/// What a request needs; `pattern` is that of its route, if it has one.
pub(super) fn need(method: &Method, pattern: Option<&str>) -> Need {
    let method = if method == Method::HEAD {
        "GET"
    } else {
        method.as_str()
    };
    let row = |(of, route, _): &&(&str, &str, Need)| *of == method && Some(*route) == pattern;
    TABLE.iter().find(row).map_or(ADMIN, |(.., need)| *need)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes;

    /// All routes that are registered, as `GET /path`.
    fn registered() -> Vec<String> {
        let all = routes::all();
        let mut all: Vec<_> = all
            .iter()
            .map(|entry| format!("{} {}", entry.method, entry.pattern))
            .collect();
        all.sort();
        all
    }

    #[test]
    fn every_route_is_listed_and_nothing_else() {
        let mut listed: Vec<_> = TABLE
            .iter()
            .map(|(method, path, _)| format!("{method} {path}"))
            .collect();
        listed.sort();
        assert_eq!(registered(), listed);
    }

    #[test]
    fn what_is_not_listed_is_for_administrators() {
        let need = |method: Method, path: &str| need(&method, Some(path));
        assert_eq!(need(Method::GET, "/v1/secrets"), ADMIN);
        assert_eq!(need(Method::POST, "/healthz"), ADMIN);
        assert_eq!(super::need(&Method::GET, None), ADMIN);
        assert_eq!(need(Method::HEAD, "/healthz"), OPEN);
    }

    /// Whatever changes something needs more than the role that reads.
    #[test]
    fn nothing_that_puts_or_deletes_is_open_or_for_readers() {
        for (method, path, need) in TABLE {
            let changes = matches!(*method, "PUT" | "PATCH" | "DELETE");
            assert!(
                !changes || matches!(need, Need::Role(Role::Write | Role::Admin)),
                "{method} {path}"
            );
        }
    }
}
