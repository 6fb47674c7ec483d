//! The page, pictures, and what stands around every answer.

use std::fs;

use embedding::{Embedding, Modality};
use engine::{Item, ItemId};
use serde_json::json;

use crate::harness::{DIM, Service, png, png_base64};

#[test]
fn the_page_and_its_files_are_served_and_load_nothing_from_elsewhere() {
    let service = Service::start();
    let files = [
        ("/", "text/html"),
        ("/page/app.js", "text/javascript"),
        ("/page/query.js", "text/javascript"),
        ("/page/style.css", "text/css"),
    ];
    for (path, kind) in files {
        let reply = service.get(path);
        assert_eq!(reply.status, 200);
        assert!(reply.header("content-type").starts_with(kind));
        assert!(
            reply
                .header("content-security-policy")
                .starts_with("default-src 'none'")
        );
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        for elsewhere in ["http://", "https://", "//cdn", "innerHTML"] {
            assert!(!reply.text().contains(elsewhere), "{path} has {elsewhere}");
        }
    }
    for none in ["/page/none.js", "/page/..%2findex.html"] {
        service.get(none).refused(404, "route_not_found");
    }
}

#[test]
fn status_model_and_metrics_are_told() {
    let service = Service::with_collection();
    service.add(&json!({ "text": "a" }));
    assert_eq!(service.get("/healthz").json()["status"], "ok");
    assert_eq!(service.get("/readyz").json()["status"], "ready");
    assert_eq!(service.get("/v1/model").json(), json!({ "name": "hash" }));
    let metrics = service.get("/metrics");
    assert!(
        metrics
            .header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    let text = metrics.text();
    for line in [
        "diptych_items{collection=\"c\",modality=\"text\"} 1",
        "diptych_queue_inputs{tower=\"image\"} 0",
        "diptych_http_requests_total{method=\"PUT\",route=\"/v1/collections/{collection}\",\
         status=\"201\"} 1",
    ] {
        assert!(
            text.lines().any(|l| l == line),
            "{line} is missing in {text}"
        );
    }
}

#[test]
fn a_request_keeps_its_harmless_id_and_gets_one_otherwise() {
    let service = Service::start();
    assert_eq!(
        service
            .get_as("/healthz", "abc-1.2_3")
            .header("x-request-id"),
        "abc-1.2_3"
    );
    let replaced = service.get_as("/nothing", "a b\"c");
    assert_eq!(replaced.header("x-request-id").len(), 16);
    let (one, two) = (service.get("/healthz"), service.get("/healthz"));
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
}

#[test]
fn only_pictures_inside_a_media_root_are_shown() {
    let root = tempfile::tempdir().expect("a folder");
    let outside = tempfile::tempdir().expect("a folder");
    let inside = root.path().join("in.png");
    fs::write(&inside, png(1, 4)).expect("is written");
    fs::write(root.path().join("note.png"), "<svg onload=alert(1)>").expect("is written");
    fs::write(outside.path().join("out.png"), png(2, 4)).expect("is written");
    #[cfg(unix)]
    std::os::unix::fs::symlink(outside.path().join("out.png"), root.path().join("link.png"))
        .expect("is linked");
    let service = Service::with(|config| config.media_roots = vec![root.path().to_owned()]);
    service.put("/v1/collections/c");
    let outside = outside.path().join("out.png").display().to_string();
    let sources = [
        ("absolute", inside.display().to_string(), 200),
        ("relative", "in.png".to_owned(), 200),
        ("outside", outside, 404),
        ("up", "../../../../etc/passwd".to_owned(), 404),
        ("no-picture", "note.png".to_owned(), 404),
        ("gone", "gone.png".to_owned(), 404),
        ("link", "link.png".to_owned(), 404),
    ];
    let collection = service.engine.collection("c").expect("is there");
    let row = (0..DIM).map(|i| i as f32 + 1.0).collect();
    let embedding = Embedding::normalized(row).expect("a row");
    for (id, source, _) in &sources {
        let id = ItemId::new(*id).expect("a fine id");
        let mut item = Item::new(id, Modality::Image, embedding.clone());
        item.specific = Some(embedding.clone());
        item.source = Some(source.clone());
        collection.upsert(vec![item]).expect("is kept");
    }
    for (id, _, status) in &sources {
        let reply = service.get(&format!("/v1/collections/c/items/{id}/image"));
        assert_eq!(reply.status, *status, "{id}");
        if *status == 200 {
            assert_eq!(
                (reply.header("content-type"), &*reply.body),
                ("image/png", &*png(1, 4))
            );
        } else {
            reply.refused(404, "picture_not_found");
        }
    }
    let found = service.search(&json!({ "text": "a" })).to_string();
    assert!(
        !found.contains("in.png\""),
        "no path of this machine is told: {found}"
    );
}

/// `index` reads larger files than a request may send, and TIFF, which no browser shows.
#[test]
fn every_picture_that_can_be_indexed_is_shown() {
    let root = tempfile::tempdir().expect("a folder");
    let tiff = "/reference/data/pictures/tall.tiff";
    let tiff = format!("{}{tiff}", env!("CARGO_MANIFEST_DIR"));
    fs::copy(tiff, root.path().join("a.tiff")).expect("is copied");
    let mut large = png(1, 4);
    large.resize(40 << 20, 0);
    fs::write(root.path().join("large.png"), &large).expect("is written");
    let service = Service::with(|config| config.media_roots = vec![root.path().to_owned()]);
    service.put("/v1/collections/c");
    for name in ["a.tiff", "large.png"] {
        let embedding = Embedding::normalized(vec![1.0; DIM]).expect("a row");
        let id = ItemId::new(name).expect("a fine id");
        let mut item = Item::new(id, Modality::Image, embedding.clone());
        item.specific = Some(embedding);
        item.source = Some(name.to_owned());
        let collection = service.engine.collection("c").expect("is there");
        collection.upsert(vec![item]).expect("is kept");
    }
    for (name, bytes) in [("a%2Etiff", 100), ("large%2Epng", large.len())] {
        let reply = service.get(&format!("/v1/collections/c/items/{name}/image"));
        assert_eq!(
            (reply.status, reply.header("content-type")),
            (200, "image/png"),
            "{name}"
        );
        assert!(reply.body.starts_with(b"\x89PNG") && reply.body.len() >= bytes);
    }
}

#[test]
fn an_uploaded_picture_is_shown_small_until_it_is_deleted() {
    let folder = tempfile::tempdir().expect("a folder");
    let service = Service::with(|config| config.thumbnails = Some(folder.path().to_owned()));
    service.put("/v1/collections/c");
    let ids = service.add(&json!([
        { "id": "../up/large", "image": crate::harness::base64(&png(9, 400)) },
        { "image": png_base64(1) },
        { "text": "a" },
    ]));
    let found = service.search(&json!({ "text": "a" }));
    for hit in found["hits"].as_array().expect("hits") {
        let reply = service.get(hit["image_url"].as_str().expect("a picture"));
        assert_eq!(
            (reply.status, reply.header("content-type")),
            (200, "image/png")
        );
        assert!(reply.body.starts_with(b"\x89PNG"));
    }
    let kept = |n: usize| {
        let files = fs::read_dir(folder.path().join("c")).map_or(0, Iterator::count);
        assert_eq!(files, n);
    };
    kept(2);
    assert_eq!(
        service
            .delete(&format!("/v1/collections/c/items/{}", ids[1]))
            .status,
        204
    );
    kept(1);
    service.add(&json!({ "id": "../up/large", "text": "now a text" }));
    kept(0);
    service.add(&json!({ "image": png_base64(5) }));
    service.delete("/v1/collections/c");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    let plain = Service::with_collection();
    plain.add(&json!({ "id": "p", "image": png_base64(1) }));
    assert!(
        plain.search(&json!({ "text": "a" }))["hits"][0]
            .get("image_url")
            .is_none()
    );
    plain
        .get("/v1/collections/c/items/p/image")
        .refused(404, "picture_not_found");
}

/// Stickers and logos have black below their transparency.
#[test]
fn a_transparent_picture_is_shown_on_white() {
    let folder = tempfile::tempdir().expect("a folder");
    let service = Service::with(|config| config.thumbnails = Some(folder.path().to_owned()));
    service.put("/v1/collections/c");
    let mut sent = Vec::new();
    let mut encoder = png::Encoder::new(&mut sent, 2, 1);
    encoder.set_color(png::ColorType::Rgba);
    let mut writer = encoder.write_header().expect("a fine header");
    let pixels = [200, 10, 20, 255, 0, 0, 0, 0];
    writer.write_image_data(&pixels).expect("fine data");
    writer.finish().expect("a fine end");
    service.add(&json!({ "id": "sticker", "image": crate::harness::base64(&sent) }));
    let shown = service.get("/v1/collections/c/items/sticker/image");
    let mut reader = png::Decoder::new(std::io::Cursor::new(&shown.body[..])).read_info();
    let reader = reader.as_mut().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("is small")];
    reader.next_frame(&mut pixels).expect("pixels");
    assert_eq!(pixels, [200, 10, 20, 255, 255, 255]);
}
