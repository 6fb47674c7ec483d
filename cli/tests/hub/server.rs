//! A small hub on the loopback address: what the binary asks of huggingface.co, with a store of
//! large files at another origin, and faults on request.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::Duration,
};

use serde_json::json;
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// What a request was.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Whether the store of large files got it, not the hub.
    pub by_store: bool,
    /// `"GET /path"`.
    pub line: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

/// Everything that the hub has, and what it does wrong.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fault of its own")]
pub struct State {
    pub asked: Vec<Asked>,
    /// Commit by name of a branch, tag or pull request.
    pub revisions: BTreeMap<String, String>,
    /// Content by commit and name.
    pub files: BTreeMap<(String, String), Vec<u8>>,
    /// Who may read files.
    pub only_for: Option<String>,
    /// Number, author and base of the pull requests with converted weights, the newest first.
    pub conversions: Vec<(u64, &'static str, &'static str)>,
    /// Whether unknown people are told nothing.
    pub hides: bool,
    /// For one answer of the store each: bytes after which the connection is cut.
    pub cuts: VecDeque<usize>,
    /// Whether the store cuts every connection at once after that.
    pub store_is_down: bool,
    /// Whether all but the first half of a large file is sent late.
    pub is_slow: bool,
    pub ignores_ranges: bool,
    /// A file whose bytes are not what the hub says.
    pub corrupt: Option<&'static str>,
    /// A size that is said in place of the true one.
    pub claimed_size: Option<u64>,
    /// A status for everything.
    pub broken: Option<u16>,
}

/// The running hub; it ends with the test.
pub struct Hub {
    pub url: String,
    state: Arc<Mutex<State>>,
}

/// The model that it has.
pub const NAME: &str = "openai/tiny-clip";
pub const COMMIT: &str = "1111111111111111111111111111111111111111";
pub const WEIGHTS: &str = "model.safetensors";

/// From this size on a file lies in the store.
const LARGE: usize = 50_000;

impl Hub {
    /// Serves the files of a folder, beside some that no model needs.
    pub fn start(folder: &Path) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let store = listen(&state, None);
        let url = listen(&state, Some(store));
        let hub = Self { url, state };
        for entry in fs_err::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path
                .file_name()
                .expect("a name")
                .to_str()
                .expect("UTF-8")
                .to_owned();
            let content = fs_err::read(&path).expect("read");
            hub.state().files.insert((COMMIT.to_owned(), name), content);
        }
        hub.put(COMMIT, "pytorch_model.bin", b"not needed".to_vec());
        let readme = "---\nlicense: apache-2.0\nlanguage:\n- en\n- tlh\n---\n# A model\n";
        hub.put(COMMIT, "README.md", readme.into());
        hub.state()
            .revisions
            .insert("main".to_owned(), COMMIT.to_owned());
        hub
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    pub fn put(&self, commit: &str, name: &str, content: Vec<u8>) {
        let key = (commit.to_owned(), name.to_owned());
        self.state().files.insert(key, content);
    }

    /// Makes a commit with the files of another.
    pub fn copy(&self, from: &str, to: &str) {
        let mut state = self.state();
        let files: Vec<_> = state
            .files
            .iter()
            .filter(|((commit, _), _)| commit == from)
            .collect();
        let copies: Vec<_> = files
            .into_iter()
            .map(|((_, name), content)| ((to.to_owned(), name.clone()), content.clone()))
            .collect();
        state.files.extend(copies);
    }

    /// The requests since the last call.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state().asked)
    }
}

/// Serves on a free port; without a store, as the store.
fn listen(state: &Arc<Mutex<State>>, store: Option<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let state = Arc::clone(state);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (state, store) = (Arc::clone(&state), store.clone());
            // A client that goes away is no failure of the hub.
            thread::spawn(move || drop(answer(stream, &state, store.as_deref())));
        }
    });
    url
}

struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn new(status: u16, body: Vec<u8>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body,
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn problem(status: u16, code: &str) -> Self {
        Self::new(status, Vec::new()).with("X-Error-Code", code)
    }
}

fn answer(stream: TcpStream, state: &Mutex<State>, store: Option<&str>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).take(1 << 16).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let (mut range, mut authorization) = (None, None);
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "range" => range = Some(value.to_owned()),
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    let line = first.trim_end_matches(" HTTP/1.1").to_owned();
    let by_store = store.is_none();
    let asked = Asked {
        by_store,
        line,
        range,
        authorization,
    };
    let (reply, cut, is_slow) = {
        let mut state = state.lock().expect("not poisoned");
        state.asked.push(asked.clone());
        let reply = match store {
            Some(store) => of_hub(&state, &asked, store),
            None => of_store(&state, &asked),
        };
        let cut = by_store.then(|| state.cuts.pop_front()).flatten();
        if by_store && cut.is_none() && state.store_is_down {
            return Ok(());
        }
        (reply, cut, by_store && state.is_slow)
    };
    send(stream, &asked, &reply, cut, is_slow)
}

fn send(
    mut stream: TcpStream,
    asked: &Asked,
    reply: &Reply,
    cut: Option<usize>,
    is_slow: bool,
) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {} Whatever\r\nConnection: close\r\n",
        reply.status
    )?;
    write!(stream, "Content-Length: {}\r\n", reply.body.len())?;
    for (name, value) in &reply.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    write!(stream, "\r\n")?;
    if asked.line.starts_with("HEAD") {
        return Ok(());
    }
    let body = &reply.body[..cut.unwrap_or(reply.body.len()).min(reply.body.len())];
    let (early, late) = body.split_at(body.len() / 2);
    stream.write_all(early)?;
    if is_slow {
        stream.flush()?;
        thread::sleep(Duration::from_millis(700));
    }
    stream.write_all(late)
}

fn of_hub(state: &State, asked: &Asked, store: &str) -> Reply {
    if let Some(status) = state.broken {
        return Reply::new(status, Vec::new());
    }
    if asked.authorization.as_deref() == Some("Bearer expired") {
        let message = "Invalid credentials in Authorization header";
        return Reply::problem(401, "RepoNotFound").with("X-Error-Message", message);
    }
    let path = asked.line.split(' ').nth(1).unwrap_or_default();
    let unknown = || Reply::problem(404, "RepoNotFound");
    if let Some(rest) = path.strip_prefix(&format!("/api/models/{NAME}/")) {
        return of_api(state, rest);
    }
    let (rest, is_moved) = match path.strip_prefix("/api/resolve-cache") {
        Some(rest) => (rest, true),
        None => (path, false),
    };
    let file = rest
        .strip_prefix(&format!("/{NAME}/resolve/"))
        .and_then(|rest| rest.split_once('/'));
    let Some((commit, name)) = file else {
        return if state.hides && asked.authorization.is_none() {
            Reply::problem(401, "RepoNotFound").with("X-Error-Message", "Repository not found")
        } else {
            unknown()
        };
    };
    if let Some(token) = &state.only_for
        && asked.authorization.as_deref() != Some(&format!("Bearer {token}"))
    {
        let status = if asked.authorization.is_some() {
            403
        } else {
            401
        };
        return Reply::problem(status, "GatedRepo");
    }
    let Some(content) = state.files.get(&(commit.to_owned(), name.to_owned())) else {
        return Reply::problem(404, "EntryNotFound");
    };
    let mut sent = content.clone();
    if state.corrupt == Some(name) {
        sent[0] ^= 1;
    }
    if content.len() >= LARGE {
        let size = state.claimed_size.unwrap_or(content.len() as u64);
        return Reply::new(302, Vec::new())
            .with("ETag", "\"of-the-redirect\"")
            .with("X-Repo-Commit", commit)
            .with(
                "X-Linked-Etag",
                format!("\"{}\"", hex(&Sha256::digest(content))),
            )
            .with("X-Linked-Size", size.to_string())
            .with("Location", format!("{store}/{commit}/{name}?signed"));
    }
    // As huggingface.co does with files that git keeps.
    if name == "tokenizer.json" && !is_moved {
        return Reply::new(307, Vec::new()).with("Location", format!("/api/resolve-cache{path}"));
    }
    let mut hash = Sha1::new();
    hash.update(format!("blob {}\0", content.len()));
    hash.update(content);
    Reply::new(200, sent)
        .with("ETag", format!("\"{}\"", hex(&hash.finalize())))
        .with("X-Repo-Commit", commit)
}

fn of_api(state: &State, rest: &str) -> Reply {
    if rest.starts_with("discussions?") {
        let list = state.conversions.iter().map(|(number, author, _)| {
            json!({
                "num": number, "title": "Adding `safetensors` variant of this model", "status": "open",
                "isPullRequest": true, "author": {"name": author, "type": "user"},
            })
        });
        let list: Vec<_> = list.collect();
        let body = json!({"discussions": list, "count": list.len(), "start": 0});
        return Reply::new(200, body.to_string().into_bytes());
    }
    if let Some(of) = rest.strip_prefix("commits/refs%2Fpr%2F") {
        let found = state
            .conversions
            .iter()
            .find(|(number, ..)| number.to_string() == of);
        let (_, _, base) = found.expect("a pull request that was listed");
        let body = json!([{"id": state.revisions[&format!("refs/pr/{of}")]}, {"id": base}]);
        return Reply::new(200, body.to_string().into_bytes());
    }
    let revision = rest
        .strip_prefix("revision/")
        .unwrap_or_default()
        .replace("%2F", "/");
    let is_commit = state.files.keys().any(|(commit, _)| *commit == revision);
    let commit = state
        .revisions
        .get(&revision)
        .or(is_commit.then_some(&revision));
    let Some(commit) = commit else {
        return Reply::problem(404, "RevisionNotFound");
    };
    let names = state.files.keys().filter(|(of, _)| of == commit);
    let siblings: Vec<_> = names.map(|(_, name)| json!({"rfilename": name})).collect();
    let body = json!({"id": NAME, "sha": commit, "private": false, "siblings": siblings});
    Reply::new(200, body.to_string().into_bytes())
}

fn of_store(state: &State, asked: &Asked) -> Reply {
    let path = asked.line.split(' ').nth(1).unwrap_or_default();
    let path = path.trim_start_matches('/').trim_end_matches("?signed");
    let (commit, name) = path.split_once('/').expect("the hub made it");
    let mut content = state.files[&(commit.to_owned(), name.to_owned())].clone();
    if state.corrupt == Some(name) {
        content[0] ^= 1;
    }
    let from = asked.range.as_ref().filter(|_| !state.ignores_ranges);
    let Some(from) = from else {
        return Reply::new(200, content);
    };
    let from = from.trim_start_matches("bytes=").trim_end_matches('-');
    let from: usize = from.parse().expect("a number");
    if from >= content.len() {
        return Reply::new(416, Vec::new());
    }
    let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
    Reply::new(206, content.split_off(from)).with("Content-Range", range)
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes everything");
    }
    text
}
