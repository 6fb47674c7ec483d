//! Embeddings from a file of `NumPy`.

use std::{io, path::Path};

use embedding::Embedding;

/// What a file starts with, before its version.
const MAGIC: &[u8] = b"\x93NUMPY";

/// Reads a `.npy` file of f32, little endian, `[n, dim]`, row by row. Rows are made unit.
///
/// # Errors
/// When the file cannot be read, holds anything else, or has a row without a direction; the error
/// names the file.
pub fn read_npy(path: &Path) -> io::Result<Vec<Embedding>> {
    let bytes = fs_err::read(path)?;
    parse(&bytes).map_err(|reason| {
        let what = format!("{}: {reason}", path.display());
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

fn parse(bytes: &[u8]) -> Result<Vec<Embedding>, String> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("it is no .npy file")?;
    let (version, rest) = rest
        .split_first_chunk::<2>()
        .ok_or("it ends in its header")?;
    let (length, rest) = if version[0] == 1 {
        let (length, rest) = rest.split_first_chunk().ok_or("it ends in its header")?;
        (usize::from(u16::from_le_bytes(*length)), rest)
    } else {
        let (length, rest) = rest.split_first_chunk().ok_or("it ends in its header")?;
        (u32::from_le_bytes(*length) as usize, rest)
    };
    let (header, numbers) = rest
        .split_at_checked(length)
        .ok_or("it ends in its header")?;
    let header = String::from_utf8_lossy(header);
    let expected = "expected '<f4', 'fortran_order': False and two dimensions";
    let is_plain = header.contains("'<f4'") && header.contains("'fortran_order': False");
    let shape = header
        .split_once('(')
        .and_then(|(_, rest)| rest.split_once(')'));
    let shape: Option<Vec<usize>> =
        shape.and_then(|(shape, _)| shape.split(',').map(|n| n.trim().parse().ok()).collect());
    let (true, Some([rows, dim])) = (is_plain, shape.as_deref()) else {
        return Err(format!("it is {}, {expected}", header.trim()));
    };
    if rows.checked_mul(*dim).and_then(|n| n.checked_mul(4)) != Some(numbers.len()) || *dim == 0 {
        return Err(format!(
            "it has {} bytes for {rows} rows of {dim} numbers",
            numbers.len()
        ));
    }
    let (numbers, _) = numbers.as_chunks();
    let numbers: Vec<f32> = numbers.iter().map(|x| f32::from_le_bytes(*x)).collect();
    let rows = numbers.chunks_exact(*dim).enumerate().map(|(i, row)| {
        Embedding::normalized(row.to_vec()).map_err(|error| format!("row {i}: {error}"))
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dtype: &str, shape: &str, numbers: &[f32]) -> Vec<u8> {
        let header =
            format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let length = (header.len() as u16).to_le_bytes();
        let numbers: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        [MAGIC, &[1, 0], &length, header.as_bytes(), &numbers].concat()
    }

    #[test]
    fn rows_come_back_unit_and_in_order() {
        let rows = parse(&file("<f4", "(2, 2)", &[3.0, 4.0, 0.0, -2.0])).expect("reads");
        let rows: Vec<&[f32]> = rows.iter().map(Embedding::as_slice).collect();
        assert_eq!(rows, [[0.6, 0.8], [0.0, -1.0]]);
    }

    #[test]
    fn anything_else_is_an_error_that_says_what_it_is() {
        let good = file("<f4", "(1, 2)", &[1.0, 0.0]);
        for (bytes, says) in [
            (b"PK".to_vec(), "no .npy file"),
            (good[..9].to_vec(), "ends in its header"),
            (good[..good.len() - 1].to_vec(), "7 bytes for 1 rows of 2"),
            (file("<f8", "(1, 2)", &[1.0; 4]), "'<f8'"),
            (file("<f4", "(2,)", &[1.0, 0.0]), "two dimensions"),
            (file("<f4", "(1, 2)", &[0.0, 0.0]), "row 0"),
        ] {
            let error = parse(&bytes).expect_err("is refused");
            assert!(error.contains(says), "{error}");
        }
    }
}
