//! The page of the demo in a real browser: words are typed, the right picture comes first, and
//! there is something to see.
//!
//! It has a `main` of its own, because the usual one cannot say at run time that a test was
//! skipped: without a browser, neither passed nor failed is true.

use std::{path::Path, process::ExitCode, time::Duration};

use crate::{chromium::Chromium, world::Serving};

mod chromium;
#[path = "../world/mod.rs"]
mod world;

const NAME: &str = "the_page_shows_the_right_picture_first";

/// What is typed, and the code point of the only picture with that name.
const QUERY: (&str, &str) = ("cactus", "1f335");

/// Fewest colors in a screenshot that shows pictures; a blank page has a handful.
const FEWEST_COLORS: usize = 200;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|a| a == "--list") {
        out(&format!("{NAME}: test"));
        return ExitCode::SUCCESS;
    }
    // Anything that is no option filters by name, as the usual harness does.
    let filter = arguments.iter().find(|a| !a.starts_with('-'));
    if filter.is_some_and(|filter| !NAME.contains(filter.as_str())) {
        out("\nrunning 0 tests\n\ntest result: ok. 0 passed; 0 failed; 1 filtered out\n");
        return ExitCode::SUCCESS;
    }
    out("\nrunning 1 test");
    let Some(program) = Chromium::find() else {
        out(&format!(
            "test {NAME} ... skipped: no Chromium on the path, nor in $CHROMIUM"
        ));
        out("\ntest result: ok. 0 passed; 0 failed; 1 skipped\n");
        return ExitCode::SUCCESS;
    };
    // A failure panics and ends the process with another code.
    the_page_shows_the_right_picture_first(&program);
    out(&format!(
        "test {NAME} ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 skipped\n"
    ));
    ExitCode::SUCCESS
}

fn the_page_shows_the_right_picture_first(program: &Path) {
    let dir = tempfile::tempdir().expect("a folder");
    let data = world::demo_folder();
    let ran = world::run(&data, &["demo", "--no-serve"]);
    if ran.code != Some(0) {
        // Another model has left it; anything else is not repaired by forgetting it.
        assert!(ran.stderr.contains("--rebuild"), "{}", ran.stderr);
        fs_err::remove_dir_all(&data).expect("removed");
    }
    let serving = Serving::start(&data, &["demo", "--port", "0"]);
    let mut page = Chromium::start(program, &dir.path().join("profile"));
    page.resize(1200, 800);
    page.open(&serving.url);
    page.wait_for("document.activeElement?.matches('input[type=search]')");
    page.wait_for("document.querySelector('#status').textContent.includes('pictures')");

    page.type_and_enter(QUERY.0);
    page.wait_for("document.querySelectorAll('#hits li').length >= 10");
    page.wait_for("!document.querySelector('#hits').hasAttribute('aria-busy')");
    let source = page.evaluate("document.querySelector('#hits li img').src");
    let source = source.as_str().expect("an address").to_owned();
    let names =
        page.evaluate("[...document.querySelectorAll('#hits .name')].map(n => n.innerText)");
    assert!(
        source.contains(&format!("/{}/", QUERY.1)),
        "{source} is first; in order: {names}"
    );
    page.wait_for("document.querySelector('#hits li img').naturalWidth > 0");

    // Pictures fade in.
    std::thread::sleep(Duration::from_millis(500));
    let colors = colors(&page.screenshot());
    assert!(
        colors >= FEWEST_COLORS,
        "the screenshot has {colors} colors: it is blank"
    );

    page.resize(390, 844);
    page.wait_for("innerWidth === 390");
    let root = "document.documentElement";
    let fits = page.evaluate(&format!("{root}.scrollWidth <= {root}.clientWidth"));
    assert_eq!(fits, true, "nothing sticks out at the width of a phone");
    assert_eq!(
        page.evaluate("document.querySelectorAll('#hits li').length >= 10"),
        true
    );
    the_newest_question_wins(&mut page);
}

/// Searches and pictures that became ready late once overwrote what was asked after them, and a box
/// that was cleared during a search left its hits pale for ever.
fn the_newest_question_wins(page: &mut Chromium) {
    // Every search takes its time, and so does one picture.
    page.evaluate(
        "window.soon = (ms) => new Promise((done) => setTimeout(done, ms)); \
         window.direct = window.fetch; \
         window.fetch = async (...all) => { \
           const reply = await direct(...all); await soon(400); all[1]?.signal?.throwIfAborted(); \
           return reply; }; \
         window.createImageBitmap = async (file) => { \
           if (file.name === 'slow') await soon(400); throw new Error('not made smaller'); }; \
         window.ask = (text) => { page.text.value = text; searchText(); }; \
         window.give = (name, type) => { searchPicture(new File(['x'], name, { type })); }; 0",
    );
    let busy = "document.querySelector('#hits').matches('.stale, [aria-busy]')";
    let title = "document.querySelector('#note-title').textContent";
    let rest = || std::thread::sleep(Duration::from_millis(1200));

    page.evaluate("ask('cat')");
    assert_eq!(page.evaluate(busy), true, "a search runs");
    page.evaluate("ask('')");
    rest();
    assert_eq!(
        page.evaluate(busy),
        false,
        "the cleared box waits for nothing"
    );

    page.evaluate("ask('cat')");
    page.evaluate("give('words', 'text/plain')");
    rest();
    assert_eq!(page.evaluate(title), "That is not a picture");
    assert_eq!(page.evaluate(busy), false);

    page.evaluate("give('slow', 'image/png'); give('fast', 'image/png')");
    rest();
    let label = "document.querySelector('#query-label').textContent";
    assert_eq!(page.evaluate(label), "fast", "the newer picture is asked");

    page.evaluate("note('x'.repeat(500), 'y'.repeat(500))");
    let root = "document.documentElement";
    let fits = page.evaluate(&format!("{root}.scrollWidth <= {root}.clientWidth"));
    assert_eq!(fits, true, "a long word is broken at the width of a phone");
}

/// Number of different colors.
fn colors(png: &[u8]) -> usize {
    let picture = image::load_from_memory(png).expect("a PNG").into_rgb8();
    let colors: std::collections::HashSet<[u8; 3]> = picture.pixels().map(|p| p.0).collect();
    colors.len()
}

/// A line of the report.
#[allow(clippy::print_stdout, reason = "this is the harness")]
fn out(line: &str) {
    println!("{line}");
}
