//! Hostile AVIF files, made box by box around a good AV1 stream.

use std::{fs, path::Path};

use super::{cheaply, decoded, refused};

/// What the boxes say of the one item.
struct Boxes {
    sides: (u32, u32),
    /// How often the whole stream is named as a part of the item.
    parts: usize,
    /// More boxes behind the others.
    more: Vec<u8>,
}

const PLAIN: Boxes = Boxes {
    sides: (45, 31),
    parts: 1,
    more: Vec::new(),
};

fn named(name: [u8; 4], data: &[&[u8]]) -> Vec<u8> {
    let data = data.concat();
    let size = 8 + data.len() as u32;
    [&size.to_be_bytes()[..], &name, &data].concat()
}

fn file(boxes: &Boxes, stream: &[u8]) -> Vec<u8> {
    let start = named(*b"ftyp", &[b"avif\0\0\0\0avifmif1"]);
    let sides = [boxes.sides.0.to_be_bytes(), boxes.sides.1.to_be_bytes()];
    let meta = |at: u32| {
        let part = [at.to_be_bytes(), (stream.len() as u32).to_be_bytes()].concat();
        let parts = part.repeat(boxes.parts);
        let count = (boxes.parts as u16).to_be_bytes();
        let kind = named(*b"infe", &[b"\x02\0\0\0\0\x01\0\0av01\0"]);
        let ispe = named(*b"ispe", &[&[0; 4], sides.as_flattened()]);
        let list = named(*b"ipco", &[&ispe]);
        let given = named(*b"ipma", &[b"\0\0\0\0\0\0\0\x01\0\x01\x01\x01"]);
        let boxes = [
            named(*b"pitm", &[b"\0\0\0\0\0\x01"]),
            named(*b"iinf", &[b"\0\0\0\0\0\x01", &kind]),
            named(
                *b"iloc",
                &[b"\0\0\0\0\x44\0\0\x01\0\x01\0\0", &count, &parts],
            ),
            named(*b"iprp", &[&list, &given]),
            boxes.more.clone(),
        ];
        named(*b"meta", &[&[0; 4], &boxes.concat()])
    };
    let at = start.len() + meta(0).len() + 8;
    [start, meta(at as u32), named(*b"mdat", &[stream])].concat()
}

/// The files of `tests/reference/avif.py`.
pub fn read(name: &str) -> Vec<u8> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/data/avif");
    fs::read(data.join(name)).expect("it is committed")
}

/// The stream of a picture of 45 x 31.
fn stream() -> Vec<u8> {
    let bytes = read("420_8_full.avif");
    let at = bytes.windows(4).position(|name| name == b"mdat");
    bytes[at.expect("it has data") + 4..].to_vec()
}

#[test]
fn an_avif_costs_no_more_than_its_boxes_promise() {
    decoded("AVIF", &file(&PLAIN, &stream()), (45, 31));
    let of = |sides| Boxes { sides, ..PLAIN };
    refused(
        "AVIF of 50,000 x 50,000",
        &file(&of((50_000, 50_000)), &stream()),
        "the picture has 50000 x 50000 pixels, at most 100000000 in all are allowed",
    );
    refused(
        "AVIF of 4,294,967,295 x 1",
        &file(&of((u32::MAX, 1)), &stream()),
        "a side may have at most 65535",
    );
    refused(
        "AVIF of 10,000 x 10,000 around a small stream",
        &file(&of((10_000, 10_000)), &stream()),
        "the AV1 stream holds 45 x 31 pixels",
    );
    // Its AV1 stream has 10,000 x 10,000 pixels of one color.
    let large = read("large");
    let sides = large.windows(4).position(|name| name == b"ispe");
    let sides = sides.expect("it has sides") + 8;
    for small in [1_u32, 64, 9_999] {
        let mut bytes = large.clone();
        bytes[sides..sides + 4].copy_from_slice(&small.to_be_bytes());
        bytes[sides + 4..sides + 8].copy_from_slice(&small.to_be_bytes());
        let name = format!("AVIF of {small} x {small} around a large stream");
        refused(&name, &bytes, "AV1: ");
    }
}

#[test]
fn an_avif_of_many_frames_or_much_padding_is_refused() {
    let many = stream().repeat(1_000);
    let boxes = Boxes {
        sides: (3_000, 3_000),
        ..PLAIN
    };
    refused(
        "AVIF of 1,000 frames",
        &file(&boxes, &many),
        "the AV1 stream has 1000 frames, a still picture at most 4",
    );
    // A unit of padding whose size is written in five bytes.
    let size = 40 << 20;
    let padding = [
        &[15 << 3 | 2][..],
        &[0x80, 0x80, 0x80, 0x94, 0],
        &vec![0; size],
    ]
    .concat();
    refused(
        "AVIF with 40 MB of padding",
        &file(&PLAIN, &[stream(), padding].concat()),
        "more than its pixels can need",
    );
}

#[test]
fn boxes_of_an_avif_are_not_believed() {
    let parts = Boxes {
        parts: 65_535,
        ..PLAIN
    };
    refused(
        "AVIF of 65,535 parts that overlap",
        &file(&parts, &stream()),
        "a part of the file reaches beyond its end",
    );
    let many = |count: usize, one: &[u8]| Boxes {
        more: one.repeat(count),
        ..PLAIN
    };
    let bytes = file(&many(5 << 20, b"\0\0\0\x08free"), &stream());
    refused("AVIF with 40 MB of boxes", &bytes, "its meta box has");
    // Each says that it is an auxiliary picture of the first.
    let references = named(*b"auxl", &[b"\0\x01\0\x01\0\x01"]).repeat(70_000);
    let references = Boxes {
        more: named(*b"iref", &[&[0; 4], &references]),
        ..PLAIN
    };
    let bytes = file(&references, &stream());
    decoded("AVIF with 70,000 references", &bytes, (45, 31));
    let good = file(&PLAIN, &stream());
    for name in [
        b"meta", b"pitm", b"iinf", b"infe", b"iloc", b"iprp", b"ipco", b"ispe", b"ipma",
    ] {
        let at = good.windows(4).position(|bytes| bytes == name);
        let at = at.expect("it has this box");
        for size in [0, 1, 7, 9, 0x7fff_ffff, u32::MAX] {
            let mut bytes = good.clone();
            bytes[at - 4..at].copy_from_slice(&size.to_be_bytes());
            let _ = cheaply("AVIF with a box of another size", &bytes);
        }
        for byte in at + 4..at + 24 {
            let mut bytes = good.clone();
            bytes[byte] = 0xff;
            let _ = cheaply("AVIF with a large number", &bytes);
        }
    }
}
