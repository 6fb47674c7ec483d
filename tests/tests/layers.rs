//! The arrows between crates point down, as ARCHITECTURE.md draws them, and heavy crates stay
//! where they belong.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

/// Crates of this workspace that each may use.
const ARROWS: [(&str, &[&str]); 11] = [
    ("embedding", &[]),
    ("engine", &["embedding"]),
    ("kernels", &[]),
    ("encoders", &["embedding", "kernels"]),
    ("exchange", &["embedding", "engine"]),
    ("fetch", &[]),
    ("hub", &[]),
    ("pairs", &[]),
    ("training", &["embedding", "encoders", "engine", "pairs"]),
    ("server", &["embedding", "encoders", "engine", "fetch"]),
    (
        "diptych",
        &[
            "embedding",
            "encoders",
            "engine",
            "exchange",
            "hub",
            "pairs",
            "server",
        ],
    ),
];

/// What must not be reached through any number of crates. A trailing `*` stands for any ending.
const UNREACHABLE: [(&str, &[&str]); 11] = [
    (
        "embedding",
        &["rayon*", "tokio", "serde_json", "candle*", "image"],
    ),
    (
        "engine",
        &[
            "candle*",
            "tokenizers",
            "safetensors",
            "image",
            "tokio",
            "actix*",
            "clap",
            "arrow*",
            "parquet",
        ],
    ),
    ("kernels", &["candle*", "rayon*", "image", "serde_json"]),
    (
        "exchange",
        &["encoders", "candle*", "image", "tokio", "actix*", "clap"],
    ),
    (
        "encoders",
        &[
            "engine", "sled", "hnsw_rs", "tokio", "actix*", "clap", "hub", "ureq*", "rustls*",
        ],
    ),
    (
        "fetch",
        &["embedding", "image", "tokio", "hyper", "reqwest", "clap"],
    ),
    (
        "hub",
        &[
            "embedding",
            "candle*",
            "tokenizers",
            "image",
            "tokio",
            "hyper",
            "reqwest",
            "clap",
            "indicatif",
        ],
    ),
    (
        "pairs",
        &["embedding", "candle*", "image", "tokio", "clap", "rayon*"],
    ),
    (
        "training",
        &["server", "diptych", "tokio", "actix*", "hub", "ureq*"],
    ),
    (
        "server",
        &[
            "training", "diptych", "clap", "arrow*", "parquet", "hub", "openssl*",
        ],
    ),
    ("diptych", &["training"]),
];

/// Crates from outside that only some of ours may name. Tests and benches may name anything but
/// `training`.
const ALONE: [(&str, &[&str]); 16] = [
    ("actix-web", &["server"]),
    ("candle-core", &["encoders", "training"]),
    ("candle-nn", &["encoders", "training"]),
    ("clap", &["diptych", "training"]),
    ("hnsw_rs", &["engine"]),
    ("image", &["encoders"]),
    ("indicatif", &["diptych", "training"]),
    ("opentelemetry", &["diptych", "server"]),
    ("opentelemetry_sdk", &["diptych"]),
    ("parquet", &["exchange"]),
    ("rayon", &["engine", "encoders", "training", "server"]),
    ("safetensors", &["encoders", "training"]),
    ("sled", &["engine"]),
    ("tokenizers", &["encoders", "training"]),
    ("tokio", &["server"]),
    ("ureq", &["diptych", "fetch", "hub"]),
];

#[test]
fn no_arrow_between_our_crates_points_up() {
    let manifests = manifests();
    for (name, allowed) in ARROWS {
        for dependency in &manifests[name] {
            let ours = manifests.contains_key(dependency);
            assert!(
                !ours || allowed.contains(&dependency.as_str()),
                "{name} uses {dependency}, it may use {allowed:?}",
            );
        }
    }
    for name in ["tests", "benches"] {
        assert!(
            !manifests[name].contains("training"),
            "{name} uses training"
        );
    }
    let drawn = ARROWS.len() + 2;
    assert_eq!(
        manifests.len(),
        drawn,
        "every crate of the workspace has its arrows here"
    );
}

#[test]
fn heavy_crates_are_named_only_where_they_belong() {
    let manifests = manifests();
    for (name, dependencies) in &manifests {
        if ["tests", "benches"].contains(&name.as_str()) {
            continue;
        }
        for (heavy, owners) in ALONE {
            assert!(
                !dependencies.contains(heavy) || owners.contains(&name.as_str()),
                "{name} names {heavy}, which belongs to {owners:?}",
            );
        }
    }
}

#[test]
fn nothing_is_reached_through_others_that_must_not_be() {
    for (name, forbidden) in UNREACHABLE {
        let reached = reached(name);
        assert!(
            reached.contains(name),
            "cargo tree shows {name} itself: {reached:?}"
        );
        for forbidden in forbidden {
            let hit = reached.iter().find(|reached| matches(forbidden, reached));
            assert_eq!(hit, None, "{name} reaches {forbidden}");
        }
    }
}

#[test]
fn the_words_need_hardly_anything() {
    let reached = reached("embedding");
    let roots = [
        "embedding",
        "thiserror",
        "thiserror-impl",
        "serde",
        "serde_core",
        "serde_derive",
    ];
    let macros = ["proc-macro2", "quote", "syn", "unicode-ident"];
    let more: Vec<_> = reached
        .iter()
        .filter(|name| !roots.contains(&name.as_str()) && !macros.contains(&name.as_str()))
        .collect();
    assert!(more.is_empty(), "embedding reaches {more:?}");
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern
        .strip_suffix('*')
        .map_or(name == pattern, |start| name.starts_with(start))
}

/// Direct dependencies of each of our crates that end up in what users run, by crate.
fn manifests() -> BTreeMap<String, BTreeSet<String>> {
    let output = cargo(&[
        "metadata",
        "--offline",
        "--no-deps",
        "--format-version",
        "1",
    ]);
    let metadata: serde_json::Value = serde_json::from_str(&output).expect("cargo writes JSON");
    let text = |value: &serde_json::Value| value.as_str().expect("a string").to_owned();
    let list = |value: &serde_json::Value| value.as_array().expect("a list").clone();
    let is_used = |d: &serde_json::Value| d["kind"] != "dev";
    list(&metadata["packages"])
        .iter()
        .map(|package| {
            let all = package["name"] == "tests" || package["name"] == "benches";
            let dependencies = list(&package["dependencies"]);
            let used = dependencies.iter().filter(|d| all || is_used(d));
            (
                text(&package["name"]),
                used.map(|d| text(&d["name"])).collect(),
            )
        })
        .collect()
}

/// Names of all crates that end up in what is built from `package`.
fn reached(package: &str) -> BTreeSet<String> {
    let arguments = [
        "tree",
        "--offline",
        "--package",
        package,
        "--edges",
        "normal,build",
        "--prefix",
        "none",
    ];
    let output = cargo(&arguments);
    output
        .lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace");
    let output = Command::new(cargo)
        .args(arguments)
        .current_dir(root)
        .output()
        .expect("runs");
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?}: {problem}");
    String::from_utf8(output.stdout).expect("UTF-8")
}
