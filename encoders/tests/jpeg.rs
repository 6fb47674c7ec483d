//! JPEG files of many kinds decode to the very samples of Pillow, which `tests/reference/jpeg.py`
//! wrote down.

use std::{fs, path::Path};

use encoders::{DecodeLimits, decode};
use safetensors::SafeTensors;

#[test]
fn every_sample_is_that_of_pillow() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/data/jpeg");
    let file = fs::read(folder.join("decoded.safetensors")).expect("it is committed");
    let decoded = SafeTensors::deserialize(&file).expect("it is safetensors");
    assert!(decoded.len() > 30, "the reference has lost its cases");
    for (name, theirs) in decoded.iter() {
        let bytes = fs::read(folder.join(format!("{name}.jpg"))).expect("it is committed");
        let ours = decode(&bytes, &DecodeLimits::default()).expect(name);
        let sides = [ours.height() as usize, ours.width() as usize, 3];
        assert_eq!(sides, theirs.shape(), "{name}");
        let different = ours
            .as_rgb()
            .iter()
            .zip(theirs.data())
            .position(|(a, b)| a != b);
        assert_eq!(different, None, "{name}: a sample is another");
    }
}
