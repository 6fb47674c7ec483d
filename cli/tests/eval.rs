//! `diptych eval` on a user's data, from outside.

use encoders::{RgbaPicture, rasterize_svg};
use serde_json::Value;
use twemoji_assets::svg::SvgTwemojiAsset;

use crate::world::{World, text};

mod world;

/// Drawings of some things, five of each. The folder of the hearts is named in a file.
const THINGS: [(&str, [&str; 5]); 6] = [
    (
        "cat_face",
        [
            "\u{1f63a}",
            "\u{1f638}",
            "\u{1f639}",
            "\u{1f63b}",
            "\u{1f63c}",
        ],
    ),
    (
        "h1",
        [
            "\u{1f49b}",
            "\u{1f49a}",
            "\u{1f499}",
            "\u{1f49c}",
            "\u{1f5a4}",
        ],
    ),
    (
        "car",
        [
            "\u{1f697}",
            "\u{1f699}",
            "\u{1f695}",
            "\u{1f693}",
            "\u{1f68c}",
        ],
    ),
    (
        "clock",
        [
            "\u{1f550}",
            "\u{1f551}",
            "\u{1f552}",
            "\u{1f553}",
            "\u{1f554}",
        ],
    ),
    (
        "moon",
        [
            "\u{1f311}",
            "\u{1f312}",
            "\u{1f313}",
            "\u{1f314}",
            "\u{1f315}",
        ],
    ),
    (
        "square",
        [
            "\u{1f7e5}",
            "\u{1f7e7}",
            "\u{1f7e8}",
            "\u{1f7e9}",
            "\u{1f7e6}",
        ],
    ),
];
/// A name that a page must not take for markup.
const HEART: &str = "heart <b>&\"";

fn drawing(emoji: &str) -> Vec<u8> {
    let asset = SvgTwemojiAsset::from_emoji(emoji).expect("is in the gallery");
    let drawn = rasterize_svg(asset.data.0, 64).expect("can be drawn");
    let on_white = drawn.as_rgba().chunks_exact(4).flat_map(|p| {
        let over = |value: u8| value.saturating_add(255 - p[3]);
        [over(p[0]), over(p[1]), over(p[2]), 255]
    });
    let picture = RgbaPicture::new(64, 64, on_white.collect()).expect("the right size");
    picture.to_png()
}

/// Class folders in `things/`, one broken picture among them.
fn things(world: &World) -> String {
    for (name, drawings) in THINGS {
        let folder = world.path("things").join(name);
        fs_err::create_dir_all(&folder).expect("made");
        for (i, emoji) in drawings.iter().enumerate() {
            fs_err::write(folder.join(format!("{i}.png")), drawing(emoji)).expect("written");
        }
    }
    let things = world.path("things");
    fs_err::write(things.join("car/broken.png"), "no picture").expect("written");
    let names = serde_json::json!({ "h1": HEART });
    fs_err::write(things.join("classes.json"), names.to_string()).expect("written");
    text(&things).to_owned()
}

/// A figure of a report, which lies in its interval.
fn figure(report: &Value, name: &str) -> f64 {
    let figure = &report["metrics"][name];
    let [value, low, high] = ["value", "low", "high"].map(|key| {
        figure[key]
            .as_f64()
            .unwrap_or_else(|| panic!("{name} in {report}"))
    });
    assert!(low <= value && value <= high, "{name}: {figure}");
    value
}

fn count(report: &Value, key: &str) -> usize {
    report[key].as_array().map_or(0, Vec::len)
}

#[test]
fn zero_shot_tells_drawings_apart_and_shows_them() {
    let world = World::new();
    let folder = things(&world);
    let page = world.path("page.html");
    let report = world.json(&["eval", "zero-shot", &folder, "--html", text(&page)]);
    assert_eq!(report["task"], "zero-shot");
    assert_eq!(
        (report["pictures"].as_u64(), count(&report, "classes")),
        (Some(30), 6)
    );
    assert!(figure(&report, "acc1") > 0.5, "{report}");
    assert!(figure(&report, "acc5") >= figure(&report, "acc1"));
    // All classes have five pictures.
    let difference = figure(&report, "mean_per_class_recall") - figure(&report, "acc1");
    assert!(difference.abs() < 1e-9);
    assert_eq!(count(&report, "failed"), 1);
    let failed = &report["failed"][0];
    assert!(
        failed["path"]
            .as_str()
            .is_some_and(|path| path.ends_with("broken.png")),
        "{failed}"
    );
    assert!(
        failed["reason"]
            .as_str()
            .is_some_and(|reason| !reason.contains("broken.png")),
        "{failed}"
    );
    let labels: Vec<_> = report["classes"]
        .as_array()
        .expect("a list")
        .iter()
        .collect();
    assert!(
        labels.iter().any(|class| class["label"] == HEART),
        "{report}"
    );
    assert!(
        labels.iter().any(|class| class["label"] == "cat face"),
        "{report}"
    );

    let html = fs_err::read_to_string(&page).expect("written");
    assert!(html.contains("heart &lt;b&gt;&amp;&quot;") && !html.contains("heart <b>"));
    assert!(html.contains("<img alt=\"0.png\" src=\"data:image/png;base64,"));
    assert!(html.contains("Surest and right") && html.contains("broken.png"));
    assert!(
        !html.contains("://") && !html.contains("<script"),
        "nothing is loaded"
    );

    let clip = world.json(&[
        "eval",
        "zero-shot",
        &folder,
        "--templates",
        "clip",
        "--limit",
        "12",
    ]);
    assert_eq!(
        (count(&clip, "templates"), clip["limit"].as_u64()),
        (80, Some(12))
    );
    assert!(clip["pictures"].as_u64().is_some_and(|n| n <= 12));
    let again = world.json(&[
        "eval",
        "zero-shot",
        &folder,
        "--templates",
        "clip",
        "--limit",
        "12",
    ]);
    assert_eq!(clip, again, "the seed chooses");
}

#[test]
fn probes_learn_what_names_do_not_tell() {
    let world = World::new();
    let folder = things(&world);
    for aspect in ["shared", "specific", "both"] {
        let report = world.json(&["eval", "linear-probe", &folder, "--aspect", aspect]);
        assert_eq!(
            report["split"],
            serde_json::json!({"by": "seeded", "train": 24, "test": 6})
        );
        assert!(figure(&report, "acc1") > 0.6, "{aspect}: {report}");
        assert_eq!(
            (count(&report, "failed"), report["aspect"].as_str()),
            (1, Some(aspect))
        );
        assert!(report["converged"] == true && count(&report["choice"], "candidates") > 3);
    }
    let few = ["eval", "few-shot", &folder, "--draws", "3", "--seed", "4"];
    let report = world.json(&few);
    let ks: Vec<_> = report["shots"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|s| s["k"].as_u64())
        .collect();
    assert_eq!(ks, [Some(1), Some(2), Some(4)]);
    assert_eq!(report["skipped"], serde_json::json!([8, 16]));
    assert_eq!(count(&report["shots"][0], "accuracies"), 3);
    assert!(figure(&report, "acc1_4_shot") > 0.6, "{report}");
    assert_eq!(report, world.json(&few), "the seed decides");

    // The same pictures, split by folders.
    for (part, range) in [("train", 0..4), ("test", 4..5)] {
        for (name, drawings) in THINGS {
            let to = world.path("split").join(part).join(name);
            fs_err::create_dir_all(&to).expect("made");
            for i in range.clone() {
                fs_err::write(to.join(format!("{i}.png")), drawing(drawings[i])).expect("written");
            }
        }
    }
    let split = world.path("split");
    let report = world.json(&["eval", "linear-probe", text(&split), "--c", "10"]);
    assert_eq!(
        report["split"],
        serde_json::json!({"by": "folders", "train": 24, "test": 6})
    );
    assert_eq!(
        (report["c"].as_f64(), &report["choice"]),
        (Some(10.0), &Value::Null)
    );
    fs_err::create_dir_all(split.join("test/new")).expect("made");
    fs_err::write(split.join("test/new/a.png"), drawing("\u{1f355}")).expect("written");
    let ran = world.run(&["eval", "linear-probe", text(&split)]);
    assert!(
        ran.code == Some(1) && ran.stderr.contains("\"new\" is in test and not in train"),
        "{ran:?}"
    );
}

#[test]
fn captions_in_a_table_in_lines_and_in_a_folder_give_the_same_figures() {
    let world = World::new();
    let folder = world.path("pairs");
    fs_err::create_dir_all(&folder).expect("made");
    let (mut csv, mut lines) = ("image,caption\n".to_owned(), String::new());
    let captions = [
        ("\u{1f355}", "pizza", "a slice, of pizza"),
        ("\u{1f436}", "dog face", "the face of a dog"),
        ("\u{1f697}", "automobile", "red car"),
        ("\u{1f332}", "evergreen tree", "a <i>green</i> tree"),
        ("\u{2602}", "umbrella", "rain"),
    ];
    for (i, (emoji, one, other)) in captions.into_iter().enumerate() {
        fs_err::write(folder.join(format!("{i}.png")), drawing(emoji)).expect("written");
        fs_err::write(folder.join(format!("{i}.txt")), format!("{one}\n{other}\n"))
            .expect("written");
        csv.extend([format!("{i}.png,{one}\n"), format!("{i}.png,\"{other}\"\n")]);
        let row = serde_json::json!({"image": format!("{i}.png"), "text": [one, other]});
        lines.extend([row.to_string(), "\n".to_owned()]);
    }
    csv += "missing.png,nothing\n";
    fs_err::write(folder.join("all.csv"), csv).expect("written");
    fs_err::write(folder.join("all.jsonl"), lines).expect("written");
    let page = world.path("page.html");
    let table = folder.join("all.csv");
    let table = world.json(&["eval", "retrieval", text(&table), "--html", text(&page)]);
    assert_eq!(
        (table["pictures"].as_u64(), table["captions"].as_u64()),
        (Some(5), Some(10))
    );
    assert_eq!(count(&table, "failed"), 1);
    for way in ["image", "text"] {
        let recall = |k: usize| figure(&table, &format!("{way}_retrieval_recall@{k}"));
        assert!(
            recall(1) > 0.3 && recall(1) <= recall(5) && recall(5) <= recall(10),
            "{table}"
        );
        assert!((recall(10) - 1.0).abs() < 1e-9 || way == "text");
        assert!(figure(&table, &format!("{way}_retrieval_median_rank")) >= 1.0);
        assert!(figure(&table, &format!("{way}_retrieval_mrr")) > 0.3);
    }
    let html = fs_err::read_to_string(&page).expect("written");
    assert!(html.contains("a &lt;i&gt;green&lt;/i&gt; tree") && html.contains("missing.png"));
    let mut shard = tar::Builder::new(fs_err::File::create(folder.join("0.tar")).expect("made"));
    for i in 0..captions.len() {
        for name in [format!("{i}.png"), format!("{i}.txt")] {
            let added = shard.append_path_with_name(folder.join(&name), &name);
            added.expect("a member");
        }
    }
    shard.finish().expect("written");
    for other in [folder.join("all.jsonl"), folder.join("*.tar"), folder] {
        let other = world.json(&["eval", "retrieval", text(&other)]);
        assert_eq!(other["metrics"], table["metrics"]);
        assert_eq!(count(&other, "failed"), 0);
    }
}

#[test]
fn an_index_is_compared_with_the_truth() {
    let world = World::new();
    for i in 0..20 {
        world.picture(&format!("{i}.png"), i);
    }
    world.index(&[]);
    let page = world.path("page.html");
    let report = world.json(&[
        "eval",
        "index",
        "default",
        "--limit",
        "8",
        "--html",
        text(&page),
    ]);
    let lane = &report["lanes"][0];
    assert_eq!(
        (lane["name"].as_str(), lane["queries"].as_u64()),
        (Some("image"), Some(8))
    );
    assert_eq!(
        (lane["items"].as_u64(), lane["graph_rows"].as_u64()),
        (Some(20), Some(0))
    );
    // So few are compared exactly.
    assert!((figure(&report, "image_recall@10") - 1.0).abs() < 1e-9);
    assert!((figure(&report, "specific_image_recall@10") - 1.0).abs() < 1e-9);
    assert!(
        report["metrics"]["text_recall@10"].is_null(),
        "there are no texts"
    );
    assert!(
        lane["approximate"]["median_ms"]
            .as_f64()
            .is_some_and(|ms| ms > 0.0)
    );
    assert!(
        fs_err::read_to_string(&page)
            .expect("written")
            .contains("specific_image")
    );
    let ran = world.run(&["eval", "index", "other"]);
    assert!(
        ran.code == Some(1) && ran.stderr.contains("there is default"),
        "{ran:?}"
    );
}

#[test]
fn what_cannot_be_measured_is_refused_in_words() {
    let world = World::new();
    let folder = world.path("empty");
    fs_err::create_dir_all(folder.join("one")).expect("made");
    let table = world.path("x.csv");
    fs_err::write(&table, "file,caption\na.png,a\n").expect("written");
    let unread = world.path("unread.csv");
    fs_err::write(&unread, "image,caption\na.png,a\n").expect("written");
    let (empty, table, unread) = (text(&folder), text(&table), text(&unread));
    let nowhere = world.path("no/page.html");
    for (arguments, reason) in [
        (
            &["zero-shot", empty][..],
            "1 class folders, expected at least 2",
        ),
        (&["few-shot", empty], "1 class folders, expected at least 2"),
        (&["linear-probe", "no/such"], "no/such is no folder"),
        (&["retrieval", empty], "no picture with a caption"),
        (
            &["retrieval", table],
            "no column \"image\", it has file, caption",
        ),
        (&["retrieval", unread], "none of the 1 pictures can be read"),
        (&["retrieval", unread, "--html", text(&nowhere)], "--html"),
        (&["index", "default"], "diptych index"),
    ] {
        let ran = world.run(&[&["eval"], arguments].concat());
        assert_eq!(ran.code, Some(1), "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains(reason), "{arguments:?}: {}", ran.stderr);
    }
}
