//! What `/metrics` tells, and what `/readyz` sees.

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use engine::{Engine, EngineConfig, store::MemoryStore};
use serde_json::{Value, json};

use crate::harness::{Service, png_base64};

/// The value of a series.
fn value(metrics: &str, series: &str) -> Option<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series));
    line?.trim().parse().ok()
}

#[test]
fn every_step_of_the_work_is_timed() {
    let service = Service::with_collection();
    service.add(&json!([{ "text": "a" }, { "image": png_base64(3) }]));
    service.search(&json!({ "image": png_base64(4) }));
    let metrics = service.get("/metrics").text();
    let count = |stage: &str| {
        let series = format!("diptych_stage_seconds_count{{stage=\"{stage}\"}}");
        value(&metrics, &series)
    };
    assert_eq!(count("decode"), Some(2.0), "{metrics}");
    assert_eq!((count("search"), count("store")), (Some(1.0), Some(1.0)));
    let passes = "diptych_pass_seconds_count{tower=\"image\"}";
    assert!(value(&metrics, passes).is_some_and(|count| count >= 1.0));
    let tail = "diptych_rows{collection=\"c\",state=\"tail\"}";
    assert_eq!(value(&metrics, tail), Some(2.0), "{metrics}");
    let dropped = "diptych_audited_searches{collection=\"c\",outcome=\"dropped\"}";
    assert_eq!(value(&metrics, dropped), Some(0.0));
    assert_eq!(value(&metrics, "diptych_ready"), Some(1.0));
    if cfg!(target_os = "linux") {
        let resident = value(&metrics, "diptych_resident_bytes").expect("is told");
        assert!((1e6..1e11).contains(&resident), "{resident}");
    }
}

#[test]
fn with_the_defaults_a_stuck_tower_is_seen_within_ten_seconds() {
    let service = Service::with_collection();
    service.gate.shut();
    let (seen, ready) = thread::scope(|scope| {
        let service = &service;
        scope.spawn(move || service.post("/v1/collections/c/search", &json!({ "text": "a" })));
        let started = Instant::now();
        while service.get("/readyz").status == 200 && started.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(50));
        }
        let seen = started.elapsed();
        let ready = value(&service.get("/metrics").text(), "diptych_ready");
        service.gate.open();
        (seen, ready)
    });
    let range = Duration::from_secs(9)..Duration::from_secs(12);
    assert!(range.contains(&seen), "{seen:?}");
    assert_eq!(ready, Some(0.0));
}

#[test]
fn a_store_that_takes_no_more_writes_is_seen() {
    let store = Box::new(MemoryStore::stopping_after(20_000));
    let engine = Engine::with_store(store, None, EngineConfig::default());
    let service = Service::on(Arc::new(engine.expect("opens")), |_| {});
    assert_eq!(service.put("/v1/collections/c").status, 201);
    assert_eq!(service.get("/readyz").status, 200);
    let add = |i: usize| {
        let item = json!({ "text": format!("{i}"), "payload": { "a": "b".repeat(1_000) } });
        service.post("/v1/collections/c/items", &item).status
    };
    assert!((0..50).any(|i| add(i) == 503), "the store stops");
    service.get("/readyz").refused(503, "unavailable");
    assert_eq!(service.get("/healthz").status, 200);
}

/// A server of a data folder whose shards are sealed early.
fn on_disk(dir: &Path) -> Service {
    let config = EngineConfig {
        seal_rows: 50,
        graph_rows: 50,
        shards: NonZeroUsize::new(1),
        ..EngineConfig::default()
    };
    Service::on(Arc::new(Engine::open(dir, config).expect("opens")), |_| {})
}

/// Ends a server, and gives its data folder free.
fn end(mut service: Service) {
    let stopped = service.running.take().expect("runs").stop();
    assert!(stopped.is_ok(), "{stopped:?}");
    // The threads that spoke HTTP let go of it as they end, which nobody waits for.
    let (mut engine, since) = (service.engine, Instant::now());
    let alone = loop {
        engine = match Arc::try_unwrap(engine) {
            Ok(engine) => break engine,
            Err(shared) => shared,
        };
        let waited = since.elapsed();
        assert!(waited < Duration::from_mins(1), "somebody keeps the engine");
        thread::sleep(Duration::from_millis(10));
    };
    alone.close();
}

/// All files below a folder that hold rows of a shard.
fn shards(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("lists") {
        let path = entry.expect("lists").path();
        if path.is_dir() {
            found.extend(shards(&path));
        } else if path.to_string_lossy().contains("-shared-") {
            found.push(path);
        }
    }
    found
}

/// A shard needs no file to serve: rows whose file is damaged are read from the store. So the server is
/// ready from its start, answers as before, and builds the file again.
#[test]
fn a_shard_whose_file_is_damaged_answers_as_before_and_is_built_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let service = on_disk(dir.path());
    assert_eq!(service.put("/v1/collections/c").status, 201);
    let items: Vec<Value> = (0..200)
        .map(|i| json!({ "id": format!("{i}"), "text": format!("thing {i}") }))
        .collect();
    service.add(&json!(items));
    let hits = |service: &Service| -> Vec<(Value, Value)> {
        let one = |i: usize| {
            let query = json!({ "text": format!("thing {i}"), "target": "text", "exact": true });
            let found = service.search(&query);
            let hits = found["hits"].as_array().expect("hits").clone();
            let hits = hits.into_iter();
            hits.map(|hit| (hit["id"].clone(), hit["score"].clone()))
                .collect::<Vec<_>>()
        };
        (0..20).flat_map(one).collect()
    };
    service
        .engine
        .collection("c")
        .expect("is there")
        .seal()
        .expect("seals");
    let before = hits(&service);
    end(service);
    for damage in ["cut", "flipped"] {
        let files = shards(dir.path());
        assert!(!files.is_empty());
        for file in &files {
            let mut bytes = fs::read(file).expect("reads");
            if damage == "cut" {
                bytes.truncate(bytes.len() / 2);
            } else {
                // In every block that is checked, and in the head of the file.
                bytes.iter_mut().step_by(97).for_each(|byte| *byte ^= 16);
            }
            fs::write(file, bytes).expect("writes");
        }
        let service = on_disk(dir.path());
        assert_eq!(service.get("/readyz").status, 200, "{damage}");
        assert_eq!(hits(&service), before, "{damage}");
        let sealed = "diptych_rows{collection=\"c\",state=\"sealed\"}";
        let since = Instant::now();
        loop {
            let metrics = service.get("/metrics").text();
            if value(&metrics, sealed) == Some(200.0) {
                break;
            }
            assert!(
                since.elapsed() < Duration::from_mins(1),
                "{damage}: {metrics}"
            );
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(hits(&service), before, "{damage}");
        assert_eq!(service.get("/readyz").status, 200, "{damage}");
        end(service);
        assert_ne!(shards(dir.path()), files, "{damage}: they are new files");
    }
}
