//! HTTPS with a certificate from files, which are read again when that is asked for.

use std::{path::Path, sync::Arc};

use engine::{Engine, EngineConfig};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use server::{ServerConfig, ServerError, TlsFiles};
use ureq::{
    Agent,
    tls::{Certificate, RootCerts, TlsConfig},
};

fn write(folder: &Path) -> (TlsFiles, String) {
    let files = TlsFiles {
        certificate: folder.join("cert.pem"),
        key: folder.join("key.pem"),
    };
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).expect("is made");
    std::fs::write(&files.certificate, cert.pem()).expect("writes");
    std::fs::write(&files.key, signing_key.serialize_pem()).expect("writes");
    (files, cert.pem())
}

/// The status of the answer to one who trusts this certificate alone.
fn get(port: u16, trusted: &str) -> Option<u16> {
    let root = Certificate::from_pem(trusted.as_bytes()).expect("a certificate");
    let roots = RootCerts::new_with_certs(&[root]);
    let tls = TlsConfig::builder().root_certs(roots).build();
    let agent: Agent = Agent::config_builder().tls_config(tls).build().into();
    let reply = agent
        .get(format!("https://localhost:{port}/healthz"))
        .call();
    reply.ok().map(|reply| reply.status().as_u16())
}

fn config(files: TlsFiles) -> ServerConfig {
    ServerConfig {
        bind: ([127, 0, 0, 1], 0).into(),
        tls: Some(files),
        ..ServerConfig::default()
    }
}

#[test]
fn a_certificate_is_shown_and_read_again_without_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let (files, first) = write(folder.path());
    let engine = Arc::new(Engine::in_memory(EngineConfig::default()));
    let model = crate::harness::open_model();
    let running = server::start(config(files), engine, model).expect("starts");
    let port = running.addr().port();
    assert_eq!(get(port, &first), Some(200));
    let (files, second) = write(folder.path());
    assert_eq!(get(port, &second), None, "not read yet");
    running.reload().expect("is read");
    assert_eq!((get(port, &second), get(port, &first)), (Some(200), None));
    // What cannot be used leaves what there was.
    std::fs::write(&files.key, "nothing").expect("writes");
    assert!(matches!(running.reload(), Err(ServerError::Tls { .. })));
    assert_eq!(get(port, &second), Some(200));
}

#[test]
fn a_key_of_another_certificate_is_refused_before_anything_starts() {
    let folder = tempfile::tempdir().expect("a folder");
    let (files, _) = write(folder.path());
    assert!(config(files.clone()).validate().is_ok());
    let other = KeyPair::generate().expect("is made");
    std::fs::write(&files.key, other.serialize_pem()).expect("writes");
    let refused = config(files.clone()).validate().expect_err("do not fit");
    assert!(refused.to_string().contains("key.pem"), "{refused}");
    std::fs::remove_file(&files.certificate).expect("is there");
    let refused = config(files).validate().expect_err("is missing");
    assert!(refused.to_string().contains("cert.pem"), "{refused}");
}
