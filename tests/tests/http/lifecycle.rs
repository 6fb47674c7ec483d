//! Starting, and stopping without losing what was accepted.

use std::{net::TcpListener, sync::Arc, thread, time::Duration};

use engine::{Engine, EngineConfig};
use serde_json::json;
use server::{ServerConfig, ServerError};

use crate::harness::Service;

#[test]
fn a_graceful_stop_finishes_what_was_accepted() {
    let mut service = Service::with_collection();
    service.gate.shut();
    let running = service.running.take().expect("runs");
    let addr = running.addr();
    let (status, stopped) = thread::scope(|scope| {
        let item = json!({ "id": "a", "text": "a" });
        let service = &service;
        let add = scope.spawn(move || service.post("/v1/collections/c/items", &item).status);
        thread::sleep(Duration::from_millis(300));
        let stop = scope.spawn(move || running.stop());
        thread::sleep(Duration::from_millis(300));
        assert!(!stop.is_finished(), "the stop waits for the request");
        service.gate.open();
        (
            add.join().expect("no panic"),
            stop.join().expect("no panic"),
        )
    });
    assert_eq!(status, 200);
    assert!(stopped.is_ok(), "{stopped:?}");
    let kept = service
        .engine
        .collection("c")
        .expect("is there")
        .stats()
        .items;
    assert_eq!(kept, 1, "what was acknowledged was kept");
    assert!(TcpListener::bind(addr).is_ok(), "the port is free again");
}

#[test]
fn a_busy_port_is_told_with_what_to_do() {
    let busy = TcpListener::bind("127.0.0.1:0").expect("binds");
    let bind = busy.local_addr().expect("an address");
    let config = ServerConfig {
        bind,
        ..ServerConfig::default()
    };
    let error = start(config).expect_err("the port is taken");
    assert!(matches!(error, ServerError::PortInUse { addr } if addr == bind));
    assert!(error.to_string().contains("--port"), "{error}");
}

#[test]
fn an_open_address_is_refused_unless_allowed() {
    let open = ServerConfig {
        bind: ([0, 0, 0, 0], 0).into(),
        ..ServerConfig::default()
    };
    let error = start(open.clone()).expect_err("others could reach it");
    assert!(matches!(error, ServerError::NotLoopback { .. }), "{error}");
    assert!(
        start(ServerConfig {
            insecure: true,
            ..open
        })
        .is_ok()
    );
}

fn start(config: ServerConfig) -> Result<(), ServerError> {
    let engine = Arc::new(Engine::in_memory(EngineConfig::default()));
    server::start(config, engine, crate::harness::open_model())?.stop()
}
