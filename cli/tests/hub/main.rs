//! Models by name, from outside: the binary against a hub on the loopback address.
//!
//! Over 400 lines: one world, and every way in which a hub can answer or fail.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    server::{Asked, COMMIT, Hub, NAME, WEIGHTS},
    world::{Ran, World, diptych, text},
};

mod parts;
mod server;
#[path = "../world/mod.rs"]
mod world;

const NEEDED: [&str; 4] = [
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    WEIGHTS,
];
const OTHER: &str = "2222222222222222222222222222222222222222";

fn checkpoint() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/data/quick_gelu_legacy_eos")
}

/// A hub, and a place for its files.
struct Place {
    world: World,
    hub: Hub,
}

impl Place {
    fn new() -> Self {
        Self {
            world: World::new(),
            hub: Hub::start(&checkpoint()),
        }
    }

    fn cache(&self) -> PathBuf {
        self.world
            .path("hf/hub")
            .join(format!("models--{}", NAME.replace('/', "--")))
    }

    /// The binary as it sees this hub.
    fn started(&self) -> Command {
        let mut command = diptych(&self.world.path("data"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().to_ascii_uppercase();
            if name.starts_with("HF_") || name.ends_with("_PROXY") {
                command
                    .env_remove(&name)
                    .env_remove(name.to_ascii_lowercase());
            }
        }
        command
            .env("HF_ENDPOINT", &self.hub.url)
            .env("HF_HOME", self.world.path("hf"));
        command
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.started();
        command
            .args(["embed", "--text", "a red bicycle", "--json"])
            .args(arguments);
        command
    }

    fn embed(&self, arguments: &[&str]) -> Ran {
        ran(&mut self.command(arguments))
    }

    fn by_name(&self) -> Ran {
        self.embed(&["--model", NAME])
    }

    /// How much of the weights is here.
    fn incomplete(&self) -> Option<u64> {
        let files = fs_err::read_dir(self.cache().join("blobs")).expect("read");
        let mut files = files.map(|entry| entry.expect("an entry").path());
        let file = files.find(|path| path.extension().is_some_and(|end| end == "incomplete"))?;
        Some(fs_err::metadata(file).expect("there").len())
    }
}

fn ran(command: &mut Command) -> Ran {
    let output = command.output().expect("the binary runs");
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// The answer of a run that went well.
fn answer(ran: &Ran) -> Value {
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    serde_json::from_str(&ran.stdout).expect("JSON")
}

/// Checks that a run failed and said all of this.
fn refused(ran: &Ran, words: &[&str]) {
    assert_eq!(ran.code, Some(1), "{ran:?}");
    for word in words {
        assert!(
            ran.stderr.contains(word),
            "{word:?} is not in: {}",
            ran.stderr
        );
    }
}

fn size() -> u64 {
    fs_err::metadata(checkpoint().join(WEIGHTS))
        .expect("there")
        .len()
}

/// Requests for contents of files.
fn contents(asked: &[Asked]) -> Vec<&Asked> {
    let of_file = |asked: &&Asked| {
        asked.line.starts_with("GET") && !asked.line.starts_with("GET /api/models")
    };
    asked.iter().filter(of_file).collect()
}

#[test]
fn a_model_of_the_hub_embeds_as_its_folder_does_and_only_what_it_needs_is_fetched() {
    let place = Place::new();
    place
        .hub
        .put(COMMIT, "tokenizer_config.json", b"{}".to_vec());
    let by_name = place.by_name();
    assert!(by_name.stderr.contains(COMMIT), "{}", by_name.stderr);
    let by_name = answer(&by_name);
    assert_eq!(by_name["model"], NAME);
    let folder = checkpoint();
    let asked = place.hub.asked();
    let by_folder = answer(&place.embed(&["--model", text(&folder)]));
    assert_eq!(place.hub.asked().len(), 0, "a folder needs no hub");
    assert_eq!(by_name["items"], by_folder["items"]);
    assert_eq!(by_name["fingerprint"], by_folder["fingerprint"]);
    for asked in &asked {
        let mut needed = NEEDED.iter().chain(&["tokenizer_config.json", "README.md"]);
        let is_needed = needed.any(|name| asked.line.contains(&format!("{COMMIT}/{name}")));
        assert!(
            is_needed || asked.line.ends_with("/revision/main"),
            "{asked:?}"
        );
    }
    for name in NEEDED {
        let link = place.cache().join("snapshots").join(COMMIT).join(name);
        let (here, there) = (fs_err::read(link), fs_err::read(folder.join(name)));
        assert!(here.expect("read") == there.expect("read"), "{name}");
    }
    let reference = fs_err::read_to_string(place.cache().join("refs/main"));
    assert_eq!(reference.expect("read"), COMMIT);
}

#[test]
fn a_second_start_asks_for_the_revision_only_and_offline_for_nothing() {
    let place = Place::new();
    let first = answer(&place.by_name());
    place.hub.asked();

    let written = || {
        let found = fs_err::metadata(place.cache().join("refs/main")).expect("there");
        found.modified().expect("a time")
    };
    let before = written();
    let again = place.by_name();
    assert_eq!((&answer(&again), again.stderr.as_str()), (&first, ""));
    assert_eq!(written(), before, "the cache may be for reading only");
    let lines: Vec<_> = place
        .hub
        .asked()
        .into_iter()
        .map(|asked| asked.line)
        .collect();
    assert_eq!(lines, [format!("GET /api/models/{NAME}/revision/main")]);

    let pinned = format!("{NAME}@{COMMIT}");
    let offline = ran(place.command(&["--model", NAME]).env("HF_HUB_OFFLINE", "1"));
    let ways = [
        place.embed(&["--model", NAME, "--offline"]),
        offline,
        place.embed(&["--model", &pinned]),
        place.embed(&["--model", NAME, "--revision", COMMIT]),
    ];
    for ran in &ways {
        assert_eq!((&answer(ran), ran.stderr.as_str()), (&first, ""));
    }
    assert_eq!(place.hub.asked().len(), 0);
}

#[test]
fn a_cut_connection_is_taken_up_where_it_broke() {
    let place = Place::new();
    place.hub.state().cuts.extend([1000, 2000]);
    let ran = place.by_name();
    assert_eq!(answer(&ran)["model"], NAME);
    assert!(ran.stderr.contains("going on"), "{}", ran.stderr);
    let asked = place.hub.asked().into_iter().filter(|asked| asked.by_store);
    let ranges: Vec<_> = asked.map(|asked| asked.range).collect();
    let range = |from: u64| Some(format!("bytes={from}-"));
    assert_eq!(ranges, [None, range(1000), range(3000)]);
}

#[test]
fn the_next_start_goes_on_where_an_interrupted_one_stopped() {
    let place = Place::new();
    place.hub.state().cuts.push_back(5000);
    place.hub.state().store_is_down = true;
    refused(
        &place.by_name(),
        &[
            WEIGHTS,
            "interrupted at 5000 of",
            &size().to_string(),
            "next start",
        ],
    );
    assert_eq!(place.incomplete(), Some(5000));
    place.hub.asked();

    place.hub.state().store_is_down = false;
    assert_eq!(answer(&place.by_name())["model"], NAME);
    let asked = place.hub.asked();
    let contents = contents(&asked);
    assert!(
        contents.iter().all(|asked| asked.line.contains(WEIGHTS)),
        "{contents:?}"
    );
    let of_store = contents.iter().find(|asked| asked.by_store).expect("asked");
    assert_eq!(of_store.range.as_deref(), Some("bytes=5000-"));
    assert_eq!(place.incomplete(), None);
}

#[test]
fn a_store_that_knows_no_ranges_sends_all_again() {
    let place = Place::new();
    place.hub.state().cuts.push_back(5000);
    place.hub.state().ignores_ranges = true;
    let folder = checkpoint();
    let expected = answer(&place.embed(&["--model", text(&folder)]));
    assert_eq!(answer(&place.by_name())["items"], expected["items"]);
    let asked = place.hub.asked();
    assert_eq!(
        asked.iter().filter(|asked| asked.by_store).count(),
        2,
        "{asked:?}"
    );
}

/// A hub whose size was larger than the file was asked for the rest, which there is not, then for all
/// again, and so on without an end.
#[test]
fn a_hub_that_is_wrong_about_a_size_is_not_asked_for_ever() {
    for wrong in [size() - 10, size() + 10] {
        let place = Place::new();
        place.hub.state().claimed_size = Some(wrong);
        refused(
            &place.by_name(),
            &[WEIGHTS, "interrupted", &wrong.to_string()],
        );
        let asked = place.hub.asked();
        let of_store = asked.iter().filter(|asked| asked.by_store).count();
        assert!(of_store < 10, "{asked:?}");
    }
}

#[test]
fn a_wrong_checksum_removes_the_file() {
    for name in [WEIGHTS, "config.json"] {
        let place = Place::new();
        place.hub.state().corrupt = Some(name);
        refused(
            &place.by_name(),
            &[name, "checksum", "removed", &place.hub.url],
        );
        assert_eq!(place.incomplete(), None);
        assert!(
            !place
                .cache()
                .join("snapshots")
                .join(COMMIT)
                .join(name)
                .exists(),
            "{name}"
        );
        place.hub.state().corrupt = None;
        assert_eq!(answer(&place.by_name())["model"], NAME);
    }
}

#[test]
fn a_part_that_does_not_fit_is_noticed() {
    // The beginning that an earlier start left was damaged: what came later cannot mend it.
    let place = Place::new();
    place.hub.state().cuts.push_back(5000);
    place.hub.state().store_is_down = true;
    refused(&place.by_name(), &["interrupted"]);
    let blobs = fs_err::read_dir(place.cache().join("blobs")).expect("read");
    let mut paths = blobs.map(|entry| entry.expect("an entry").path());
    let part = paths.find(|path| path.extension().is_some_and(|end| end == "incomplete"));
    fs_err::write(part.expect("a part"), [0; 5000]).expect("written");
    place.hub.state().store_is_down = false;
    refused(&place.by_name(), &["checksum"]);
    assert_eq!(answer(&place.by_name())["model"], NAME);
}

#[test]
fn a_gated_model_needs_the_right_token_which_only_the_hub_gets() {
    let place = Place::new();
    place.hub.state().only_for = Some("right".to_owned());
    let page = format!("{}/{NAME}", place.hub.url);
    refused(&place.by_name(), &["gated", &page, "HF_TOKEN", "no token"]);
    let wrong = ran(place.command(&["--model", NAME]).env("HF_TOKEN", "wrong"));
    refused(
        &wrong,
        &["gated", &page, "token from HF_TOKEN is not enough"],
    );
    assert!(!wrong.stderr.contains("wrong"), "{}", wrong.stderr);
    let expired = ran(place.command(&["--model", NAME]).env("HF_TOKEN", "expired"));
    refused(
        &expired,
        &["refused the token from HF_TOKEN", "public models need none"],
    );

    fs_err::create_dir_all(place.world.path("hf")).expect("made");
    fs_err::write(place.world.path("hf/token"), "right\n").expect("written");
    place.hub.asked();
    assert_eq!(answer(&place.by_name())["model"], NAME);
    let asked = place.hub.asked();
    assert!(asked.iter().any(|asked| asked.by_store), "{asked:?}");
    for asked in asked {
        let expected = (!asked.by_store).then(|| "Bearer right".to_owned());
        assert_eq!(asked.authorization, expected, "{asked:?}");
    }
}

#[test]
fn a_wrong_name_is_told_with_what_may_have_been_meant() {
    let place = Place::new();
    let wrong = "openai/clip-vit-base-path32";
    let right = "did you mean openai/clip-vit-base-patch32?";
    let folder = format!("no folder {wrong} here");
    let model = format!("no model {wrong} at {}", place.hub.url);
    refused(&place.embed(&["--model", wrong]), &[&folder, &model, right]);
    // huggingface.co does not say to unknown people what there is not.
    place.hub.state().hides = true;
    refused(
        &place.embed(&["--model", wrong]),
        &[&folder, "check the name", "HF_TOKEN", right],
    );
    let known = ran(place.command(&["--model", wrong]).env("HF_TOKEN", "some"));
    refused(&known, &[&folder, &model, right]);

    place.hub.asked();
    refused(
        &place.embed(&["--model", "clip-vit-base-patch32"]),
        &["no folder", "owner/name", right],
    );
    refused(
        &place.embed(&["--model", "./models/clip"]),
        &["no folder ./models/clip here"],
    );
    let file = checkpoint().join(WEIGHTS);
    refused(&place.embed(&["--model", text(&file)]), &["is a file"]);
    let folder = checkpoint();
    refused(
        &place.embed(&["--model", text(&folder), "--revision", "main"]),
        &["is a folder"],
    );
    refused(
        &place.embed(&["--revision", "main"]),
        &["--model OWNER/NAME"],
    );
    assert_eq!(place.hub.asked().len(), 0, "no name, no question");
}

#[test]
fn a_folder_goes_before_a_model_of_the_same_name() {
    let place = Place::new();
    let folder = place.world.path(NAME);
    fs_err::create_dir_all(&folder).expect("made");
    for name in NEEDED {
        fs_err::copy(checkpoint().join(name), folder.join(name)).expect("copied");
    }
    let mut command = place.command(&["--model", NAME]);
    let answer = answer(&ran(command.current_dir(place.world.path(""))));
    assert_eq!(answer["model"], "tiny-clip");
    assert_eq!(place.hub.asked().len(), 0);
}

#[test]
fn without_a_network_what_is_here_is_used_with_a_warning() {
    let place = Place::new();
    // A port where nobody listens any more.
    let closed = TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("bound");
    let closed = format!("http://{closed}");
    let without = |place: &Place| {
        ran(place
            .command(&["--model", NAME])
            .env("HF_ENDPOINT", &closed))
    };
    refused(
        &without(&place),
        &[&closed, "cannot be reached", "--offline", "folder"],
    );
    refused(
        &place.embed(&["--model", NAME, "--offline"]),
        &[
            NAME,
            "main",
            text(&place.world.path("hf/hub")),
            "run once without --offline",
        ],
    );

    let first = answer(&place.by_name());
    let unchecked = without(&place);
    assert_eq!(answer(&unchecked), first);
    for word in ["warning", "could not be asked", &COMMIT[..12]] {
        assert!(unchecked.stderr.contains(word), "{}", unchecked.stderr);
    }
    place.hub.state().broken = Some(503);
    let broken = place.by_name();
    assert_eq!(answer(&broken), first);
    assert!(broken.stderr.contains("HTTP 503"), "{}", broken.stderr);
    refused(
        &place.embed(&["--model", NAME, "--revision", OTHER]),
        &["HTTP 503"],
    );
}

#[test]
fn a_branch_that_has_moved_is_fetched_and_the_old_commit_stays() {
    let place = Place::new();
    let first = answer(&place.by_name());
    place.hub.copy(COMMIT, OTHER);
    let card = r#"{"name": "renamed"}"#;
    place.hub.put(OTHER, "diptych.json", card.into());
    place
        .hub
        .state()
        .revisions
        .insert("main".to_owned(), OTHER.to_owned());
    place.hub.asked();
    let moved = place.by_name();
    assert!(
        moved.stderr.contains(&format!("--revision {COMMIT}")),
        "{}",
        moved.stderr
    );
    assert_eq!(answer(&moved)["model"], "renamed");
    let asked = place.hub.asked();
    let contents = contents(&asked);
    assert!(
        contents
            .iter()
            .all(|asked| asked.line.ends_with("diptych.json")),
        "{contents:?}"
    );
    assert_eq!(
        answer(&place.embed(&["--model", NAME, "--revision", COMMIT])),
        first
    );

    place
        .hub
        .state()
        .revisions
        .insert("refs/tags/v1".to_owned(), COMMIT.to_owned());
    let tag = format!("{NAME}@refs/tags/v1");
    assert_eq!(answer(&place.embed(&["--model", &tag])), first);
    let unknown = place.embed(&["--model", NAME, "--revision", "v2"]);
    refused(
        &unknown,
        &[
            "no revision v2",
            &format!("{}/{NAME}/tree/main", place.hub.url),
        ],
    );
}

#[test]
fn weights_that_are_not_read_are_named_unless_the_hub_has_converted_them() {
    let place = Place::new();
    place.hub.copy(COMMIT, OTHER);
    place
        .hub
        .state()
        .files
        .remove(&(COMMIT.to_owned(), WEIGHTS.to_owned()));
    let lacks = ["pytorch_model.bin", "save_pretrained", "--model converted"];
    refused(&place.by_name(), &lacks);

    let pull_requests =
        ["refs/pr/15", "refs/pr/66"].map(|name| (name.to_owned(), OTHER.to_owned()));
    place.hub.state().revisions.extend(pull_requests);
    // Anybody can open a pull request, and one for an older commit has older weights.
    place.hub.state().conversions = vec![(66, "somebody", COMMIT), (15, "SFconvertbot", OTHER)];
    refused(&place.by_name(), &lacks);
    place.hub.state().conversions = vec![(15, "SFconvertbot", OTHER), (66, "SFconvertbot", COMMIT)];
    refused(
        &place.embed(&["--model", NAME, "--revision", "main"]),
        &lacks,
    );
    let converted = place.by_name();
    for word in ["refs/pr/66", OTHER] {
        assert!(converted.stderr.contains(word), "{}", converted.stderr);
    }
    let first = answer(&converted);
    assert_eq!(answer(&place.by_name()), first);
    assert_eq!(answer(&place.embed(&["--model", NAME, "--offline"])), first);
}

#[test]
fn the_weights_of_a_model_that_is_not_supported_are_not_downloaded() {
    let place = Place::new();
    let config = r#"{"model_type": "blip", "architectures": ["BlipModel"]}"#;
    place.hub.put(COMMIT, "config.json", config.into());
    let words = ["weights were not downloaded", "\"blip\"", "\"siglip\""];
    for _ in 0..2 {
        refused(&place.by_name(), &words);
        let asked = place.hub.asked();
        let of_weights = |asked: &&Asked| asked.line.contains(WEIGHTS);
        let asked: Vec<_> = contents(&asked).into_iter().filter(of_weights).collect();
        assert!(asked.is_empty(), "{asked:?}");
    }
}

#[test]
fn two_starts_at_once_download_a_file_once() {
    let place = Place::new();
    place.hub.state().is_slow = true;
    let start = || {
        let mut command = place.command(&["--model", NAME]);
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs")
    };
    let both = [start(), start(), start()].map(|child| {
        let output = child.wait_with_output().expect("ends");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        (output.stdout, stderr)
    });
    assert!(both.iter().all(|(answer, _)| *answer == both[0].0));
    assert!(
        both.iter()
            .any(|(_, stderr)| stderr.contains("another process downloads")),
        "{both:?}"
    );
    let asked = place.hub.asked();
    let of_store = contents(&asked)
        .into_iter()
        .filter(|asked| asked.by_store)
        .count();
    assert_eq!(of_store, 1, "{asked:?}");
}

#[test]
fn a_disk_that_is_too_small_is_told_before_anything_is_downloaded() {
    let place = Place::new();
    place.hub.state().claimed_size = Some(1 << 60);
    refused(&place.by_name(), &["1152921504606", "free", "HF_HOME"]);
    assert_eq!(contents(&place.hub.asked()).len(), 0);
}

#[test]
fn an_endpoint_that_is_no_url_or_no_hub_is_named() {
    let place = Place::new();
    let at = |endpoint: &str| {
        ran(place
            .command(&["--model", NAME])
            .env("HF_ENDPOINT", endpoint))
    };
    refused(
        &at("huggingface.co"),
        &["HF_ENDPOINT", "\"huggingface.co\"", "https://"],
    );
    place.hub.state().broken = Some(200);
    refused(&place.by_name(), &["JSON", "HF_ENDPOINT"]);
    place.hub.state().broken = Some(418);
    refused(&place.by_name(), &["HTTP 418"]);
}

#[test]
fn what_the_readme_of_a_repository_states_is_shown() {
    let place = Place::new();
    let mut command = place.started();
    let shown = answer(&ran(
        command.args(["model", "info", "--json", "--model", NAME])
    ));
    assert_eq!(shown["license"], "apache-2.0");
    assert_eq!(shown["languages"], serde_json::json!(["en", "tlh"]));
}
