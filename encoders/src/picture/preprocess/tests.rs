use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::ModelError;

const FILE: &str = "model/preprocessor_config.json";

fn parse(keys: &Value) -> Result<PreprocessConfig, ModelError> {
    PreprocessConfig::from_json(keys.to_string().as_bytes(), Path::new(FILE))
}

/// What `CLIPImageProcessor` writes, at a small size.
fn clip() -> Value {
    json!({
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": true, "size": {"shortest_edge": 8}, "resample": 3,
        "do_center_crop": true, "crop_size": {"height": 8, "width": 8},
        "do_rescale": true, "rescale_factor": 0.003_921_568_627_450_98,
        "do_normalize": true,
        "image_mean": [0.481_454_66, 0.457_827_5, 0.408_210_73],
        "image_std": [0.268_629_54, 0.261_302_58, 0.275_777_11],
        "do_convert_rgb": true,
    })
}

fn side(side: u32) -> NonZeroU32 {
    NonZeroU32::new(side).expect("not zero")
}

fn gray(width: u32, height: u32) -> Picture {
    let rgb = (0..height * width)
        .flat_map(|i| [(i * 3) as u8; 3])
        .collect();
    Picture::new(width, height, rgb).expect("made to fill the size")
}

#[test]
fn the_old_and_the_new_form_mean_the_same() {
    let new = parse(&clip()).expect("a CLIP file");
    let mut old = clip();
    let keys = old.as_object_mut().expect("an object");
    keys.remove("image_processor_type");
    for key in ["do_rescale", "rescale_factor", "do_convert_rgb"] {
        keys.remove(key);
    }
    old["feature_extractor_type"] = json!("CLIPFeatureExtractor");
    old["size"] = json!(8);
    old["crop_size"] = json!(8);
    assert_eq!(parse(&old).expect("a file of 2021"), new);
    let mut fast = clip();
    fast["image_processor_type"] = json!("CLIPImageProcessorFast");
    fast["size"] = json!({"shortest_edge": 8, "height": null, "width": null});
    fast["data_format"] = json!("channels_first");
    fast["do_pad"] = json!(false);
    fast["device"] = json!(null);
    assert_eq!(parse(&fast).expect("a file of a fast processor"), new);
    assert_eq!(
        new,
        PreprocessConfig::shortest_edge(side(8), Filter::Bicubic, Normalization::CLIP)
    );
}

#[test]
fn what_is_missing_is_named_with_its_file() {
    for key in [
        "do_resize",
        "size",
        "resample",
        "do_center_crop",
        "crop_size",
        "do_normalize",
    ]
    .into_iter()
    .chain(["image_mean", "image_std", "image_processor_type"])
    {
        let mut keys = clip();
        keys.as_object_mut().expect("an object").remove(key);
        let error = parse(&keys).expect_err(key).to_string();
        assert!(
            error.starts_with(&format!("{FILE}: key `{key}` is missing")),
            "{error}"
        );
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    for (key, value) in [
        ("resample", json!(6)),
        ("resample", json!("bicubic")),
        ("size", json!({"longest_edge": 8})),
        ("size", json!({"shortest_edge": 8, "longest_edge": 9})),
        ("size", json!({"height": 8})),
        ("size", json!(0)),
        ("crop_size", json!({"shortest_edge": 8})),
        ("crop_size", json!(1_000_000)),
        ("do_resize", json!("yes")),
        ("do_center_crop", json!(false)),
        ("do_convert_rgb", json!(false)),
        ("rescale_factor", json!(0)),
        ("image_mean", json!([0.5, 0.5])),
        ("image_std", json!([0.5, 0.0, 0.5])),
        ("image_processor_type", json!("BlipImageProcessor")),
        ("do_pad", json!(true)),
        ("new_step", json!(3)),
    ] {
        let mut keys = clip();
        keys[key] = value.clone();
        let error = parse(&keys).expect_err(key).to_string();
        assert!(
            error.starts_with(&format!("{FILE}: key `{key}` is {value}")),
            "{error}"
        );
    }
    let error = PreprocessConfig::from_json(b"{", Path::new(FILE)).expect_err("cut");
    assert_eq!(error.to_string(), format!("{FILE} is not valid JSON"));
}

#[test]
fn a_siglip_file_squashes() {
    let config = parse(&json!({
        "image_processor_type": "SiglipImageProcessor",
        "do_resize": true, "size": {"height": 8, "width": 8}, "resample": 3,
        "do_rescale": true, "rescale_factor": 1.0 / 255.0,
        "do_normalize": true, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    }));
    let expected = PreprocessConfig::squash(side(8), Filter::Bicubic, Normalization::HALF);
    assert_eq!(config.expect("a SigLIP file"), expected);
}

#[test]
fn a_naflex_file_keeps_proportions_in_whole_patches() {
    let keys = json!({
        "image_processor_type": "Siglip2ImageProcessor", "patch_size": 16, "max_num_patches": 256,
        "do_resize": true, "resample": 2, "do_rescale": true, "rescale_factor": 1.0 / 255.0,
        "do_normalize": true, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    });
    let config = parse(&keys).expect("a file of SigLIP 2");
    assert_eq!((config.size(), config.patches()), (None, Some((16, 256))));
    // Found with transformers.
    for ((width, height), expected) in [
        ((640, 480), (288, 224)),
        ((480, 640), (224, 288)),
        ((10, 10), (256, 256)),
        ((5000, 7), (4096, 16)),
        ((1, 1), (112, 112)),
    ] {
        assert_eq!(
            whole_patches(16, 256, width, height),
            expected,
            "{width} x {height}"
        );
    }
    let written = config.to_json().expect("transformers knows it");
    let read = PreprocessConfig::from_json(written.as_bytes(), Path::new(FILE));
    assert_eq!(read.expect("our own file"), config);
    let mut wrong = keys.clone();
    wrong["max_num_patches"] = json!(1 << 30);
    let error = parse(&wrong)
        .expect_err("more than fits into memory")
        .to_string();
    assert!(
        error.contains("key `max_num_patches` is 1073741824"),
        "{error}"
    );
}

/// `torchvision` rounds half of an odd rest to the even number, and pads below and on the right.
#[test]
fn a_center_is_where_each_library_sees_it() {
    for (over, floor, even) in [
        (0, 0, 0),
        (1, 0, 0),
        (2, 1, 1),
        (3, 1, 2),
        (5, 2, 2),
        (7, 3, 4),
    ] {
        assert_eq!(Centering::Floor.offset(10 + over, 10), floor, "{over}");
        assert_eq!(Centering::Even.offset(10 + over, 10), even, "{over}");
    }
    for (under, floor, even) in [(1, -1, 0), (2, -1, -1), (3, -2, -1)] {
        assert_eq!(Centering::Floor.offset(10, 10 + under), floor, "{under}");
        assert_eq!(Centering::Even.offset(10, 10 + under), even, "{under}");
    }
}

#[test]
fn what_is_written_is_read_back() {
    for config in [
        PreprocessConfig::shortest_edge(side(32), Filter::Bicubic, Normalization::CLIP),
        PreprocessConfig::squash(side(24), Filter::Bilinear, Normalization::HALF),
    ] {
        let written = config.to_json().expect("transformers knows it");
        let read = PreprocessConfig::from_json(written.as_bytes(), Path::new(FILE));
        assert_eq!(read.expect("our own file"), config);
    }
}

#[test]
fn preparing_equals_resizing_cropping_and_normalizing() {
    let config = PreprocessConfig::shortest_edge(side(8), Filter::Bicubic, Normalization::CLIP);
    for (width, height) in [(61, 23), (23, 61), (8, 8), (8, 31), (5, 3), (1, 400)] {
        let picture = gray(width, height);
        let (short, long) = (width.min(height), width.max(height));
        let long = 8 * long / short;
        let (w, h) = if width <= height {
            (8, long)
        } else {
            (long, 8)
        };
        let whole = picture
            .resize(w, h, Filter::Bicubic)
            .expect("sides above zero");
        let (left, top) = ((w - 8) / 2, (h - 8) / 2);
        let pixels = config.prepare(&picture);
        assert_eq!(
            (pixels.channels(), pixels.height(), pixels.width()),
            (3, 8, 8)
        );
        for (i, value) in pixels.as_slice().iter().enumerate() {
            let (c, y, x) = (i / 64, (i / 8 % 8) as u32, (i % 8) as u32);
            let level = whole.as_rgb()[((top + y) * w + left + x) as usize * 3 + c];
            let n = Normalization::CLIP;
            let expected = (f64::from(level) / 255.0 - n.mean[c]) / n.std[c];
            assert!(
                (f64::from(*value) - expected).abs() < 1e-6,
                "{width} x {height} at {i}"
            );
        }
    }
}

/// transformers centers a picture that is smaller than the crop and pads with black, the odd row
/// and column first; the padding is normalized like the rest.
#[test]
fn a_picture_smaller_than_the_crop_is_padded() {
    let mut keys = clip();
    keys["do_resize"] = json!(false);
    keys["do_normalize"] = json!(false);
    keys["do_rescale"] = json!(false);
    keys["crop_size"] = json!({"height": 3, "width": 4});
    let config = parse(&keys).expect("a usable file");
    let picture = Picture::new(1, 2, vec![9, 9, 9, 7, 7, 7]).expect("made to fill the size");
    let plane = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0, 0.0, 0.0, 0.0, 7.0, 0.0];
    let pixels = config.prepare(&picture);
    assert_eq!(pixels.as_slice(), [plane; 3].concat());
    // Wider than the crop in one direction only.
    let picture = Picture::new(7, 1, (0..21).map(|i| i / 3).collect()).expect("it fills the size");
    let plane = [0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0];
    assert_eq!(config.prepare(&picture).as_slice(), [plane; 3].concat());
}

#[test]
fn the_visible_part_is_what_preparing_shows() {
    let rgb = (0..40 * 20 * 3).map(|i| (i / 3 % 40 * 6) as u8).collect();
    let wide = Picture::new(40, 20, rgb).expect("sizes fit");
    let squash = PreprocessConfig::squash(side(8), Filter::Bicubic, Normalization::HALF);
    assert!(squash.visible(wide.clone()) == wide);
    let middle = PreprocessConfig::shortest_edge(side(10), Filter::Bicubic, Normalization::HALF);
    let visible = middle.visible(wide.clone());
    assert_eq!((visible.width(), visible.height()), (20, 20));
    assert_eq!(visible.as_rgb()[0], 60, "ten of forty columns are cut away");
    let (of_all, of_part) = (middle.prepare(&wide), middle.prepare(&visible));
    for (i, (a, b)) in of_all.as_slice().iter().zip(of_part.as_slice()).enumerate() {
        // Beyond its rim a resize sees what is cut away.
        if (1..9).contains(&(i % 10)) {
            assert!((a - b).abs() < 0.02, "{i}: {a} against {b}");
        }
    }
}

/// A black drawing on a transparent ground is black as a whole where transparency is not looked at.
#[test]
fn transparency_is_white_only_where_the_file_says_so() {
    let drawing = Picture::new(2, 1, vec![0; 6]).expect("made to fill the size");
    let drawing = drawing.with_alpha(vec![255, 0]).expect("as many");
    let side = NonZeroU32::new(2).expect("not zero");
    let config = PreprocessConfig::squash(side, Filter::Box, Normalization::HALF);
    let first_row = |config: &PreprocessConfig| config.prepare(&drawing).as_slice()[..2].to_vec();
    assert_eq!(first_row(&config), [-1.0, -1.0]);
    let written = config.to_json().expect("transformers knows it");
    assert!(!written.contains("transparency"), "{written}");

    let config = config.on_white();
    assert_eq!(first_row(&config), [-1.0, 1.0]);
    assert_eq!(config.visible(drawing.clone()).as_rgb()[3..], [255; 3]);
    let written = config.to_json().expect("transformers reads over it");
    let read = |json: &str| PreprocessConfig::from_json(json.as_bytes(), Path::new(FILE));
    assert_eq!(read(&written).expect("reads it back"), config);
    let refused = read(&written.replace("\"white\"", "\"black\"")).expect_err("no such ground");
    assert!(refused.to_string().contains("transparency"), "{refused}");
}
