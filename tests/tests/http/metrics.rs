//! What `/metrics` tells, and what `/readyz` sees.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use engine::{Engine, EngineConfig, store::MemoryStore};
use serde_json::json;

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
    assert!((0..50).any(|i| add(i) == 500), "the store is full");
    service.get("/readyz").refused(503, "unavailable");
    assert_eq!(service.get("/healthz").status, 200);
}
