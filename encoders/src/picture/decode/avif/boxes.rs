//! Reading ISO boxes: a size, a name, data.

use super::AvifError;

/// The name of a box and its data.
type Named<'a> = ([u8; 4], &'a [u8]);

/// Bytes that are still to be read.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], AvifError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(AvifError::Cut)?;
        self.0 = rest;
        Ok(taken)
    }

    /// A number of up to eight bytes, the highest first.
    pub(super) fn wide(&mut self, bytes: usize) -> Result<u64, AvifError> {
        let bytes = self.take(bytes)?;
        if bytes.len() > size_of::<u64>() {
            return Err(AvifError::Cut);
        }
        Ok(bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
    }

    /// A number of up to four bytes, the highest first.
    pub(super) fn number(&mut self, bytes: usize) -> Result<u32, AvifError> {
        u32::try_from(self.wide(bytes)?).map_err(|_| AvifError::Cut)
    }

    pub(super) fn name(&mut self) -> Result<[u8; 4], AvifError> {
        let name = self.take(4)?.first_chunk();
        name.copied().ok_or(AvifError::Cut)
    }

    /// The next box and its data; nothing at the end.
    pub(super) fn next_box(&mut self) -> Result<Option<Named<'a>>, AvifError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let size = self.number(4)?;
        let name = self.name()?;
        let size = match size {
            0 => self.0.len() as u64,
            1 => self.wide(8)?.checked_sub(16).ok_or(AvifError::Cut)?,
            _ => u64::from(size).checked_sub(8).ok_or(AvifError::Cut)?,
        };
        let size = usize::try_from(size).map_err(|_| AvifError::Cut)?;
        Ok(Some((name, self.take(size)?)))
    }
}

/// The data of the first box of this name.
pub(super) fn find(boxes: &[u8], wanted: [u8; 4]) -> Result<Option<&[u8]>, AvifError> {
    let mut reader = Reader(boxes);
    while let Some((name, data)) = reader.next_box()? {
        if name == wanted {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// The version of a box that has one, and what follows its flags.
pub(super) fn full(data: &[u8]) -> Result<(u8, Reader<'_>), AvifError> {
    let mut reader = Reader(data);
    let version = reader.number(1)? as u8;
    reader.take(3)?;
    Ok((version, reader))
}

/// How many bytes a number of an item or of items has.
pub(super) fn id_bytes(is_wide: bool) -> usize {
    if is_wide { 4 } else { 2 }
}

/// The properties that an `ipma` box gives to an item: whether essential, and the place, from 1.
pub(super) fn associations(data: &[u8], id: u32) -> Result<Vec<(bool, usize)>, AvifError> {
    let (version, mut reader) = full(data)?;
    let wide = data.get(3).is_some_and(|flags| flags & 1 == 1);
    let mut found = Vec::new();
    for _ in 0..reader.number(4)? {
        let of = reader.number(id_bytes(version > 0))?;
        for _ in 0..reader.number(1)? {
            let value = reader.number(if wide { 2 } else { 1 })?;
            let essential = if wide { 1 << 15 } else { 1 << 7 };
            if of == id {
                found.push((value & essential != 0, (value & (essential - 1)) as usize));
            }
        }
    }
    Ok(found)
}
