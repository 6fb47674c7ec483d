//! Matrices in files of `NumPy`: `.npy`, little endian, row by row.

use std::{
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use fs_err::File;
use half::f16;
use thiserror::Error;

#[cfg(test)]
mod tests;

/// What a file starts with, before its version.
const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Longest header that is read; those of matrices have 118 bytes.
const MAX_HEADER_BYTES: usize = 1 << 16;
/// Bytes before the numbers in files that are written.
const HEAD_BYTES: usize = 128;
/// What a file is read and written by.
const BUFFER_BYTES: usize = 1 << 20;

/// Why a `.npy` file cannot be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NpyError {
    /// The file could not be read or written.
    #[error("a file could not be used")]
    Io(#[from] io::Error),
    /// It is not what was expected.
    #[error("{}: {reason}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What it is, and what was expected.
        reason: String,
    },
}

/// How many bits a number of a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 16, as clip-retrieval writes.
    Half,
    /// 32.
    Single,
    /// 64; such files are read only.
    Double,
}

impl Precision {
    fn bytes(self) -> usize {
        match self {
            Self::Half => 2,
            Self::Single => 4,
            Self::Double => 8,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Half => "<f2",
            Self::Single => "<f4",
            Self::Double => "<f8",
        }
    }
}

/// Reads a matrix `[rows, dim]`, one row at a time: an iterator of rows. Its whole size is compared
/// with the file's before anything is allocated.
#[derive(Debug)]
pub struct NpyReader {
    path: PathBuf,
    file: BufReader<File>,
    rows: u64,
    dim: usize,
    precision: Precision,
    /// Rows that are still to come.
    left: u64,
}

impl NpyReader {
    /// Reads the header.
    ///
    /// # Errors
    /// When the file cannot be read, is none of `NumPy`'s, holds anything but a matrix of floats in
    /// little endian and C order, or is longer or shorter than its header says.
    pub fn open(path: &Path) -> Result<Self, NpyError> {
        let unfit = |reason: String| NpyError::Unfit {
            path: path.to_owned(),
            reason,
        };
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
        let mut read = |bytes: &mut [u8]| match file.read_exact(bytes) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(unfit("it is no .npy file, or ends in its header".into()))
            }
            read => Ok(read?),
        };
        let mut start = [0; 8];
        read(&mut start)?;
        let (magic, version) = start.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(unfit("it is no .npy file".into()));
        }
        let header_bytes = match version[0] {
            1 => {
                let mut bytes = [0; 2];
                read(&mut bytes)?;
                usize::from(u16::from_le_bytes(bytes))
            }
            2 | 3 => {
                let mut bytes = [0; 4];
                read(&mut bytes)?;
                u32::from_le_bytes(bytes) as usize
            }
            version => {
                let what = format!("it has version {version} of .npy, expected 1, 2 or 3");
                return Err(unfit(what));
            }
        };
        if header_bytes > MAX_HEADER_BYTES {
            let what =
                format!("its header has {header_bytes} bytes, expected {MAX_HEADER_BYTES} at most");
            return Err(unfit(what));
        }
        let mut header = vec![0; header_bytes];
        read(&mut header)?;
        let header = String::from_utf8_lossy(&header);
        let (precision, rows, dim) = Header::parse(&header)
            .and_then(|header| header.matrix())
            .ok_or_else(|| {
                unfit(format!(
                    "it is {}, expected '<f2', '<f4' or '<f8', 'fortran_order': False and a shape \
                     of two dimensions",
                    header.trim()
                ))
            })?;
        let numbers = length.saturating_sub(file.stream_position()?);
        let row_bytes = (dim as u64).checked_mul(precision.bytes() as u64);
        if row_bytes.and_then(|bytes| bytes.checked_mul(rows)) != Some(numbers)
            || (dim == 0 && rows > 0)
        {
            let name = precision.name();
            return Err(unfit(format!(
                "it has {numbers} bytes for {rows} rows of {dim} numbers ({name})"
            )));
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            rows,
            dim,
            precision,
            left: rows,
        })
    }

    /// Rows of the whole file.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Numbers of a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn row(&mut self) -> Result<Vec<f32>, NpyError> {
        // As long as the file has rows, this is no more than its size.
        let mut bytes = vec![0; self.dim * self.precision.bytes()];
        self.file.read_exact(&mut bytes)?;
        Ok(match self.precision {
            Precision::Half => floats(&bytes, |x| f16::from_le_bytes(x).to_f32()),
            Precision::Single => floats(&bytes, f32::from_le_bytes),
            Precision::Double => floats(&bytes, |x| f64::from_le_bytes(x) as f32),
        })
    }
}

fn floats<const N: usize>(bytes: &[u8], float: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|x| float(*x)).collect()
}

impl Iterator for NpyReader {
    type Item = Result<Vec<f32>, NpyError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let row = self.row();
        if row.is_err() {
            self.left = 0;
        }
        Some(row)
    }
}

/// What a header says: a literal of Python.
struct Header<'a> {
    descr: &'a str,
    fortran_order: bool,
    shape: Vec<u64>,
}

impl<'a> Header<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        while !rest.is_empty() {
            let (key, after) = quoted(rest)?;
            let value = after.trim_start().strip_prefix(':')?.trim_start();
            let after = match key {
                "descr" => {
                    let (name, after) = quoted(value)?;
                    descr = Some(name);
                    after
                }
                "fortran_order" => {
                    let is_true = value.strip_prefix("True");
                    fortran_order = Some(is_true.is_some());
                    is_true.or_else(|| value.strip_prefix("False"))?
                }
                "shape" => {
                    let (inside, after) = value.strip_prefix('(')?.split_once(')')?;
                    let inside = inside.trim().trim_end_matches(',');
                    let numbers = inside.split(',').map(|n| n.trim().parse().ok());
                    shape = Some(numbers.collect::<Option<_>>()?);
                    after
                }
                _ => return None,
            };
            rest = after.trim_start();
            if !rest.is_empty() {
                rest = rest.strip_prefix(',')?.trim_start();
            }
        }
        Some(Self {
            descr: descr?,
            fortran_order: fortran_order?,
            shape: shape?,
        })
    }

    /// Rows and dim of a matrix that can be read.
    fn matrix(&self) -> Option<(Precision, u64, usize)> {
        let all = [Precision::Half, Precision::Single, Precision::Double];
        let precision = all.into_iter().find(|p| p.name() == self.descr)?;
        let [rows, dim] = self.shape[..] else {
            return None;
        };
        (!self.fortran_order).then_some((precision, rows, usize::try_from(dim).ok()?))
    }
}

/// A string of Python without escapes, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote)
}

/// Writes a matrix row by row, of which nobody needs to know before how many rows it will have.
#[derive(Debug)]
pub struct NpyWriter {
    file: BufWriter<File>,
    dim: usize,
    precision: Precision,
    rows: u64,
}

impl NpyWriter {
    /// Starts a file, in place of what was there. Double precision is written as single.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(path: &Path, dim: usize, precision: Precision) -> Result<Self, NpyError> {
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, File::create(path)?);
        file.write_all(&[0; HEAD_BYTES])?;
        let precision = match precision {
            Precision::Half => Precision::Half,
            Precision::Single | Precision::Double => Precision::Single,
        };
        Ok(Self {
            file,
            dim,
            precision,
            rows: 0,
        })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// When the file cannot be written.
    ///
    /// # Panics
    /// When the row has not `dim` numbers.
    pub fn push(&mut self, row: &[f32]) -> Result<(), NpyError> {
        assert_eq!(row.len(), self.dim, "every row has the same dim");
        for x in row {
            match self.precision {
                Precision::Half => self.file.write_all(&f16::from_f32(*x).to_le_bytes())?,
                _ => self.file.write_all(&x.to_le_bytes())?,
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Writes the header, and waits until all of it is on disk.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(mut self) -> Result<(), NpyError> {
        let name = self.precision.name();
        let header = format!(
            "{{'descr': '{name}', 'fortran_order': False, 'shape': ({}, {}), }}",
            self.rows, self.dim
        );
        let text_bytes = HEAD_BYTES - MAGIC.len() - 4;
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.extend(MAGIC);
        head.extend([1, 0]);
        head.extend((text_bytes as u16).to_le_bytes());
        // Two numbers of 20 digits fit.
        head.extend(format!("{header:<width$}\n", width = text_bytes - 1).into_bytes());
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&head)?;
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        Ok(())
    }
}
