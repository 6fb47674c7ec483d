use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::*;

/// Names that lead where a test says, one answer after another; the last one stays.
#[derive(Debug, Default)]
struct Names(Mutex<HashMap<String, Vec<Vec<IpAddr>>>>);

impl Names {
    fn with(names: &[(&str, &[&[&str]])]) -> Arc<Self> {
        let read = |texts: &&[&str]| {
            texts
                .iter()
                .map(|t| t.parse().expect("an address"))
                .collect()
        };
        let all = names.iter().map(|(name, answers)| {
            let answers = answers.iter().map(read).collect();
            ((*name).to_owned(), answers)
        });
        Arc::new(Self(Mutex::new(all.collect())))
    }
}

impl Resolve for Names {
    fn resolve(&self, host: &str, _: Duration) -> io::Result<Vec<IpAddr>> {
        let mut names = self.0.lock().expect("no panic");
        let answers = names.get_mut(host).ok_or(io::ErrorKind::NotFound)?;
        Ok(if answers.len() > 1 {
            answers.remove(0)
        } else {
            answers[0].clone()
        })
    }
}

/// A server on the loopback address that answers as a test says.
struct Site {
    port: u16,
    asked: Arc<AtomicUsize>,
}

impl Site {
    fn new(answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = listener.local_addr().expect("an address").port();
        let asked = Arc::new(AtomicUsize::new(0));
        let (count, answer) = (Arc::clone(&asked), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a client");
                count.fetch_add(1, Ordering::SeqCst);
                let answer = Arc::clone(&answer);
                thread::spawn(move || {
                    let mut lines = BufReader::new(stream.try_clone().expect("clones")).lines();
                    let first = lines.next().and_then(Result::ok).unwrap_or_default();
                    while lines
                        .next()
                        .and_then(Result::ok)
                        .is_some_and(|l| !l.is_empty())
                    {}
                    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
                    answer(&path, &mut stream);
                });
            }
        });
        Self { port, asked }
    }

    fn text(text: &'static str) -> Self {
        Self::new(move |_, stream| drop(stream.write_all(text.as_bytes())))
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";

/// What is fetched by these rules where loopback is open on the port of `site`.
fn fetch(
    site: &Site,
    names: &Arc<Names>,
    url: &str,
    change: impl FnOnce(&mut Rules),
) -> Result<Vec<u8>, FetchError> {
    let mut rules = Rules {
        allow: vec!["*".into()],
        allow_private: vec!["127.0.0.0/8".parse().expect("a network")],
        ports: vec![site.port],
        bytes: 1_000,
        limit: Duration::from_secs(2),
    };
    change(&mut rules);
    let names: Arc<dyn Resolve> = Arc::clone(names) as _;
    let fetcher = Fetcher::with_resolver(rules, names).expect("fits");
    fetcher.get(&url.replace("PORT", &site.port.to_string()))
}

#[test]
fn a_file_of_a_listed_host_is_fetched() {
    let (site, names) = (
        Site::text(OK),
        Names::with(&[("a.test", &[&["127.0.0.1"]])]),
    );
    let bytes = fetch(&site, &names, "http://a.test:PORT/x.png", |_| {}).expect("is there");
    assert_eq!(bytes, b"hello");
    let refused = fetch(&site, &names, "http://a.test:PORT/", |r| {
        r.allow = vec!["b.test".into()];
    });
    assert!(
        matches!(refused, Err(FetchError::NotAllowed { .. })),
        "{refused:?}"
    );
    assert_eq!(site.asked(), 1, "who is not on the list is not even asked");
}

#[test]
fn a_name_that_leads_to_a_private_address_leads_nowhere() {
    let site = Site::text(OK);
    let names = Names::with(&[
        ("a.test", &[&["127.0.0.1"]]),
        ("mixed.test", &[&["93.184.216.34", "10.0.0.7"]]),
        ("mapped.test", &[&["::ffff:127.0.0.1"]]),
        ("local.test", &[&["fd00::1"]]),
    ]);
    for name in ["a.test", "mixed.test", "mapped.test", "local.test"] {
        let url = format!("http://{name}:PORT/");
        let refused = fetch(&site, &names, &url, |rules| rules.allow_private.clear());
        assert!(
            matches!(refused, Err(FetchError::NotPublic { .. })),
            "{name}: {refused:?}"
        );
    }
    let refused = fetch(&site, &names, "http://127.1:PORT/", |rules| {
        rules.allow = vec!["127.0.0.1".into()];
        rules.allow_private.clear();
    });
    assert!(
        matches!(refused, Err(FetchError::NotPublic { .. })),
        "{refused:?}"
    );
    let nowhere = fetch(&site, &names, "http://nowhere.test:PORT/", |_| {});
    assert!(
        matches!(nowhere, Err(FetchError::Unresolved { .. })),
        "{nowhere:?}"
    );
    assert_eq!(site.asked(), 0);
}

/// The second answer of the name is another one. It is asked for once, and the connection goes to
/// what was looked at: here to a port of loopback where somebody listens.
#[test]
fn a_name_is_resolved_once_and_the_connection_goes_to_what_was_looked_at() {
    let site = Site::text(OK);
    let names = Names::with(&[("a.test", &[&["127.0.0.1"], &["10.0.0.1"]])]);
    let bytes = fetch(&site, &names, "http://a.test:PORT/", |_| {}).expect("is there");
    assert_eq!(bytes, b"hello");
    // A second fetch looks again, and finds what has become of it.
    let refused = fetch(&site, &names, "http://a.test:PORT/", |_| {});
    assert!(
        matches!(refused, Err(FetchError::NotPublic { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_redirect_is_looked_at_as_if_it_had_been_asked_for() {
    let site = Site::new(|path, stream| {
        let to = path.trim_start_matches("/?");
        let head = format!(
            "HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        drop(stream.write_all(if to == "/end" {
            OK.as_bytes()
        } else {
            head.as_bytes()
        }));
    });
    let names = Names::with(&[
        ("a.test", &[&["127.0.0.1"]]),
        ("inner.test", &[&["10.0.0.1"]]),
        ("turns.test", &[&["127.0.0.1"], &["169.254.169.254"]]),
    ]);
    let to = |to: &str| fetch(&site, &names, &format!("http://a.test:PORT/?{to}"), |_| {});
    assert_eq!(to("/end").expect("is followed"), b"hello");
    let private = to("http://inner.test/");
    assert!(
        matches!(private, Err(FetchError::NotPublic { .. })),
        "{private:?}"
    );
    let number = to("http://127.0.0.1/");
    assert!(
        matches!(number, Err(FetchError::NotAllowed { .. })),
        "{number:?}"
    );
    let port = to("http://a.test:1/");
    assert!(
        matches!(port, Err(FetchError::Port { port: 1 })),
        "{port:?}"
    );
    let scheme = to("file:///etc/passwd");
    assert!(
        matches!(scheme, Err(FetchError::BadUrl { .. })),
        "{scheme:?}"
    );
    let user = to("http://b:c@a.test/");
    assert!(matches!(user, Err(FetchError::BadUrl { .. })), "{user:?}");
    let asked = site.asked();
    let forever = to("?loop");
    assert!(
        matches!(forever, Err(FetchError::Redirects { .. })),
        "{forever:?}"
    );
    assert_eq!(site.asked() - asked, 1 + MOST_REDIRECTS);
    // The same name again, which leads elsewhere by now.
    let turned = fetch(&site, &names, "http://turns.test:PORT/?/next", |_| {});
    assert!(
        matches!(turned, Err(FetchError::NotPublic { .. })),
        "{turned:?}"
    );
}

#[test]
fn what_is_slow_or_without_end_is_cut_off() {
    let names = Names::with(&[("a.test", &[&["127.0.0.1"]])]);
    let get = |site: &Site| {
        let started = Instant::now();
        let got = fetch(site, &names, "http://a.test:PORT/", |r| {
            r.limit = Duration::from_millis(500);
        });
        assert!(started.elapsed() < Duration::from_secs(5), "{got:?}");
        got
    };
    let silent = Site::new(|_, _| thread::sleep(Duration::from_secs(8)));
    assert!(matches!(get(&silent), Err(FetchError::TooSlow { .. })));
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n";
    let slow = Site::new(move |_, stream| {
        drop(stream.write_all(format!("{head}content-length: 100\r\n\r\n").as_bytes()));
        while stream.write_all(b"a").is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    });
    assert!(matches!(get(&slow), Err(FetchError::TooSlow { .. })));
    let endless = Site::new(move |_, stream| {
        drop(stream.write_all(format!("{head}\r\n").as_bytes()));
        while stream.write_all(&[7; 1 << 12]).is_ok() {}
    });
    assert!(matches!(
        get(&endless),
        Err(FetchError::TooLarge { limit: 1_000 })
    ));
    let large = Site::new(move |_, stream| {
        drop(stream.write_all(format!("{head}content-length: 1001\r\n\r\n").as_bytes()));
        thread::sleep(Duration::from_secs(8));
    });
    assert!(matches!(
        get(&large),
        Err(FetchError::TooLarge { limit: 1_000 })
    ));
    let heads = Site::new(move |_, stream| {
        drop(stream.write_all(head.as_bytes()));
        while stream.write_all(b"x-more: more\r\n").is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
    });
    assert!(get(&heads).is_err());
}

#[test]
fn what_is_packed_is_not_unpacked() {
    let names = Names::with(&[("a.test", &[&["127.0.0.1"]])]);
    let packed = Site::text(
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello",
    );
    let refused = fetch(&packed, &names, "http://a.test:PORT/", |_| {});
    assert!(
        matches!(refused, Err(FetchError::Encoded { .. })),
        "{refused:?}"
    );
    let missing =
        Site::text("HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello");
    let refused = fetch(&missing, &names, "http://a.test:PORT/", |_| {});
    assert!(
        matches!(refused, Err(FetchError::Status { status: 404, .. })),
        "{refused:?}"
    );
}
