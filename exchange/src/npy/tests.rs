//! What is read, what is refused, and that nothing is allocated for what a header merely claims.

use tempfile::TempDir;

use super::*;

fn file(version: u8, header: &str, numbers: &[u8]) -> Vec<u8> {
    let length = header.len();
    let length = match version {
        1 => (length as u16).to_le_bytes().to_vec(),
        _ => (length as u32).to_le_bytes().to_vec(),
    };
    [
        MAGIC,
        &[version, 0][..],
        &length,
        header.as_bytes(),
        numbers,
    ]
    .concat()
}

fn header(descr: &str, shape: &str) -> String {
    format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n")
}

fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn read(bytes: &[u8]) -> Result<Vec<Vec<f32>>, NpyError> {
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("a.npy");
    fs_err::write(&path, bytes).expect("is written");
    NpyReader::open(&path)?.collect()
}

#[test]
fn rows_of_every_version_and_precision_come_back_in_order() {
    let numbers = [0.5, -2.0, 1.0, 0.25];
    let rows = vec![vec![0.5, -2.0], vec![1.0, 0.25]];
    for version in [1, 2, 3] {
        let file = file(version, &header("<f4", "(2, 2)"), &bytes(&numbers));
        assert_eq!(read(&file).expect("reads"), rows, "version {version}");
    }
    let half: Vec<u8> = numbers
        .iter()
        .flat_map(|x| f16::from_f32(*x).to_le_bytes())
        .collect();
    assert_eq!(
        read(&file(1, &header("<f2", "(2, 2)"), &half)).expect("reads"),
        rows
    );
    let double: Vec<u8> = numbers
        .iter()
        .flat_map(|x| f64::from(*x).to_le_bytes())
        .collect();
    assert_eq!(
        read(&file(1, &header("<f8", "(2, 2)"), &double)).expect("reads"),
        rows
    );
    let none = read(&file(1, &header("<f4", "(0, 512)"), &[])).expect("reads");
    assert!(none.is_empty());
}

#[test]
fn what_is_written_is_read_again() {
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("a.npy");
    for precision in [Precision::Half, Precision::Single] {
        let mut writer = NpyWriter::create(&path, 3, precision).expect("starts");
        for row in [[1.0, 0.5, -0.25], [0.0, 2.0, 4.0]] {
            writer.push(&row).expect("is written");
        }
        writer.finish().expect("is written");
        let reader = NpyReader::open(&path).expect("opens");
        assert_eq!((reader.rows(), reader.dim()), (2, 3));
        let rows: Vec<Vec<f32>> = reader.collect::<Result<_, _>>().expect("reads");
        assert_eq!(rows, [[1.0, 0.5, -0.25], [0.0, 2.0, 4.0]]);
    }
}

/// A header is not believed: these would be petabytes, or overflow.
#[test]
fn a_shape_that_the_file_does_not_fill_is_an_error_before_it_is_allocated() {
    let huge = u64::MAX;
    for shape in [
        "(1125899906842624, 512)".to_owned(),
        format!("({huge}, {huge})"),
        format!("(1, {huge})"),
        "(4611686018427387904, 4)".into(),
        "(3, 2)".into(),
        "(1, 2)".into(),
        "(1, 0)".into(),
    ] {
        let error = read(&file(1, &header("<f4", &shape), &bytes(&[1.0; 4])));
        let error = error.expect_err(&shape).to_string();
        assert!(error.contains("16 bytes for"), "{error}");
    }
    let mut long = file(2, "", &[]);
    long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let error = read(&long).expect_err("is refused").to_string();
    assert!(
        error.contains("4294967295 bytes, expected 65536 at most"),
        "{error}"
    );
}

#[test]
fn anything_but_a_matrix_of_little_endian_floats_is_an_error_that_says_what_it_is() {
    let numbers = bytes(&[1.0; 4]);
    for (descr, shape, says) in [
        (">f4", "(2, 2)", "'>f4'"),
        ("<i4", "(2, 2)", "'<i4'"),
        ("|u1", "(2, 8)", "'|u1'"),
        ("<c8", "(1, 2)", "'<c8'"),
        ("<f4", "(4,)", "(4,)"),
        ("<f4", "(1, 2, 2)", "two dimensions"),
        ("<f4", "()", "two dimensions"),
        ("<f4", "(-2, 2)", "(-2, 2)"),
        ("<f4", "(99999999999999999999999, 2)", "two dimensions"),
    ] {
        let error = read(&file(1, &header(descr, shape), &numbers));
        let error = error.expect_err(descr).to_string();
        assert!(error.contains(says), "{error}");
    }
    let fortran = header("<f4", "(2, 2)").replace("False", "True");
    let error = read(&file(1, &fortran, &numbers))
        .expect_err("is refused")
        .to_string();
    assert!(error.contains("'fortran_order': True"), "{error}");
    for text in [
        "",
        "{",
        "{}",
        "[1]",
        "{'descr': [('a', '<f4')]}",
        "{'\u{e9}",
        "'",
    ] {
        assert!(read(&file(1, text, &numbers)).is_err(), "{text}");
    }
    let error = read(&file(4, &header("<f4", "(2, 2)"), &numbers)).expect_err("is refused");
    assert!(error.to_string().contains("version 4"), "{error}");
    assert!(
        read(b"PK\x03\x04 and more")
            .expect_err("is refused")
            .to_string()
            .contains("no .npy")
    );
}

#[test]
fn a_file_that_is_cut_anywhere_is_an_error_and_a_flipped_head_never_a_panic() {
    let good = file(1, &header("<f4", "(2, 2)"), &bytes(&[1.0; 4]));
    for end in 0..good.len() {
        assert!(read(&good[..end]).is_err(), "cut after {end}");
    }
    for bit in 0..8 * (good.len() - 16) {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        // Some of them are harmless: a space that becomes another character after the literal is
        // not, a minor version is.
        let _ = read(&flipped);
    }
}
