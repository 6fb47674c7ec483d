//! Collections: made, listed, deleted.

use embedding::Fingerprint;
use serde_json::json;

use crate::harness::{Service, spaces};

#[test]
fn a_collection_is_made_once_described_listed_and_deleted() {
    let service = Service::start();
    assert_eq!(
        service.get("/v1/collections").json(),
        json!({ "collections": [] })
    );
    assert_eq!(service.put("/v1/collections/photos-1").status, 201);
    assert_eq!(
        service.put("/v1/collections/photos-1").status,
        200,
        "a second PUT finds it"
    );
    let one = service.get("/v1/collections/photos-1").json();
    assert_eq!(
        (&one["name"], &one["stats"]["items"]),
        (&json!("photos-1"), &json!(0))
    );
    assert_eq!(one["spaces"]["model"], "hash-32");
    assert_eq!(
        service.get("/v1/collections").json()["collections"],
        json!([one])
    );
    assert_eq!(service.delete("/v1/collections/photos-1").status, 204);
    let gone = service.delete("/v1/collections/photos-1");
    gone.refused(404, "collection_not_found");
    service
        .get("/v1/collections/photos-1")
        .refused(404, "collection_not_found");
}

#[test]
fn a_name_that_could_be_a_path_is_refused() {
    let service = Service::start();
    for name in ["Photos", "a.b", "%2e%2e", "..%2fup", &"a".repeat(65)] {
        let reply = service.put(&format!("/v1/collections/{name}"));
        assert_eq!(reply.refused(400, "invalid_field"), "collection", "{name}");
    }
}

#[test]
fn a_collection_of_another_model_is_refused_with_what_to_do() {
    let service = Service::start();
    let other = embedding::Spaces {
        fingerprint: Fingerprint([9; 16]),
        ..spaces()
    };
    service.engine.create("c", &other).expect("is made");
    let put = service.put("/v1/collections/c");
    put.refused(409, "another_model");
    let add = service.post("/v1/collections/c/items", &json!({ "text": "a" }));
    add.refused(409, "another_model");
    assert!(add.text().contains("another collection"), "{}", add.text());
    let search = service.post("/v1/collections/c/search", &json!({ "text": "a" }));
    search.refused(409, "another_model");
    let way_out = "POST /v1/collections/c/reencode";
    assert!(search.text().contains(way_out), "{}", search.text());
    assert_eq!(
        service.get("/v1/collections/c").status,
        200,
        "it can be looked at"
    );
    assert_eq!(
        service.delete("/v1/collections/c").status,
        204,
        "and deleted"
    );
}
