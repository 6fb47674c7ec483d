//! The boxes of an AVIF file: where its still picture lies, and what is said about it (ISO/IEC
//! 14496-12, 23008-12 and the AVIF specification). Nothing here allocates by what a file says.

use super::AvifError;
use super::boxes::{Reader, associations, find, full, id_bytes};

/// A larger list of items than any still picture needs.
pub(super) const MAX_META_BYTES: usize = 1 << 20;
/// Auxiliary pictures (alpha, depth, gain) of one picture that are looked at.
const MAX_AUXILIARY: usize = 16;
/// What the type of an auxiliary picture that holds alpha begins with, both spellings.
const ALPHA: [&[u8]; 2] = [
    b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0",
    b"urn:mpeg:hevc:2015:auxid:1\0",
];
/// Properties that may be essential for a picture and are used, or change no sample.
const KNOWN: [&[u8; 4]; 11] = [
    b"ispe", b"pixi", b"colr", b"av1C", b"irot", b"imir", b"auxC", b"pasp", b"clap", b"clli",
    b"mdcv",
];

/// The still picture of a file.
pub(super) struct Container<'a> {
    pub(super) color: Item<'a>,
    pub(super) alpha: Option<Item<'a>>,
    /// Whether the colors have been multiplied with alpha.
    pub(super) premultiplied: bool,
}

/// One coded picture.
pub(super) struct Item<'a> {
    pub(super) width: u32,
    pub(super) height: u32,
    /// Quarter turns, counterclockwise.
    pub(super) turns: u8,
    /// After the turns, columns (1) or rows (0) are put in reverse order.
    pub(super) mirror: Option<u8>,
    /// Number of the matrix and whether the range is full, where the file says so.
    pub(super) nclx: Option<(u16, bool)>,
    is_alpha: bool,
    /// The parts of the AV1 stream.
    pub(super) extents: Vec<&'a [u8]>,
}

impl<'a> Container<'a> {
    /// Finds the primary item of `file` and its alpha.
    pub(super) fn read(file: &'a [u8]) -> Result<Self, AvifError> {
        let meta = find(file, *b"meta")?.ok_or(AvifError::Missing("meta"))?;
        if meta.len() > MAX_META_BYTES {
            return Err(AvifError::LargeMeta(meta.len()));
        }
        let meta = Meta {
            file,
            boxes: full(meta)?.1.0,
        };
        let primary = meta.primary()?;
        let color = meta.item(primary)?;
        let mut alpha = None;
        for id in meta.referring(*b"auxl", primary)? {
            // Of auxiliary pictures that are not alpha nothing needs to be understood.
            match meta.item(id) {
                Ok(item) if item.is_alpha => {
                    alpha = Some((id, item));
                    break;
                }
                _ => {}
            }
        }
        let premultiplied = match &alpha {
            Some((id, _)) => meta.referring(*b"prem", *id)?.contains(&primary),
            None => false,
        };
        Ok(Self {
            color,
            alpha: alpha.map(|(_, item)| item),
            premultiplied,
        })
    }
}

/// The box that lists items, and the file around it.
struct Meta<'a> {
    file: &'a [u8],
    boxes: &'a [u8],
}

impl<'a> Meta<'a> {
    fn required(&self, name: &'static str) -> Result<(u8, Reader<'a>), AvifError> {
        let mut wanted = [0; 4];
        wanted.copy_from_slice(name.as_bytes());
        full(find(self.boxes, wanted)?.ok_or(AvifError::Missing(name))?)
    }

    fn primary(&self) -> Result<u32, AvifError> {
        let (version, mut reader) = self.required("pitm")?;
        reader.number(id_bytes(version > 0))
    }

    /// Items that refer to `to`, the first few.
    fn referring(&self, kind: [u8; 4], to: u32) -> Result<Vec<u32>, AvifError> {
        let mut found = Vec::new();
        let Some(references) = find(self.boxes, *b"iref")? else {
            return Ok(found);
        };
        let (version, mut references) = full(references)?;
        let bytes = id_bytes(version > 0);
        while let Some((name, data)) = references.next_box()? {
            let mut reader = Reader(data);
            let from = reader.number(bytes)?;
            if name != kind {
                continue;
            }
            for _ in 0..reader.number(2)? {
                if reader.number(bytes)? == to && found.len() < MAX_AUXILIARY {
                    found.push(from);
                }
            }
        }
        Ok(found)
    }

    /// All that is said about an item of AV1.
    fn item(&self, id: u32) -> Result<Item<'a>, AvifError> {
        let kind = self.kind(id)?;
        if &kind != b"av01" {
            return Err(AvifError::Kind(kind.escape_ascii().to_string()));
        }
        let mut item = Item {
            width: 0,
            height: 0,
            turns: 0,
            mirror: None,
            nclx: None,
            is_alpha: false,
            extents: self.extents(id)?,
        };
        let properties = find(self.boxes, *b"iprp")?.ok_or(AvifError::Missing("iprp"))?;
        let list = find(properties, *b"ipco")?.ok_or(AvifError::Missing("ipco"))?;
        let mut all = Vec::new();
        let mut reader = Reader(list);
        while let Some(property) = reader.next_box()? {
            all.push(property);
        }
        let mut rest = Reader(properties);
        while let Some((name, data)) = rest.next_box()? {
            if &name == b"ipma" {
                for (essential, number) in associations(data, id)? {
                    // Counted from one; zero is none.
                    if let Some((name, data)) = number.checked_sub(1).and_then(|at| all.get(at)) {
                        item.set(*name, data, essential)?;
                    }
                }
            }
        }
        if item.width == 0 || item.height == 0 {
            return Err(AvifError::Missing("ispe"));
        }
        Ok(item)
    }

    fn kind(&self, id: u32) -> Result<[u8; 4], AvifError> {
        let (version, mut reader) = self.required("iinf")?;
        reader.number(id_bytes(version > 0))?;
        while let Some((name, data)) = reader.next_box()? {
            if &name != b"infe" {
                continue;
            }
            let (version, mut entry) = full(data)?;
            // Older versions name no type.
            if version >= 2 && entry.number(id_bytes(version > 2))? == id {
                entry.take(2)?;
                return entry.name();
            }
        }
        Err(AvifError::Missing("infe"))
    }

    /// The parts of an item.
    fn extents(&self, id: u32) -> Result<Vec<&'a [u8]>, AvifError> {
        let (version, mut reader) = self.required("iloc")?;
        let [sizes, more] = [reader.number(1)?, reader.number(1)?];
        let [offset, length, base] = [sizes >> 4, sizes & 15, more >> 4].map(|size| size as usize);
        let index = if version > 0 { more as usize & 15 } else { 0 };
        for _ in 0..reader.number(id_bytes(version > 1))? {
            let found = reader.number(id_bytes(version > 1))? == id;
            let method = if version > 0 {
                reader.number(2)? & 15
            } else {
                0
            };
            reader.take(2)?;
            let base = reader.wide(base)?;
            let count = reader.number(2)? as usize;
            let mut entries = Reader(reader.take(count * (index + offset + length))?);
            if !found {
                continue;
            }
            let within = match method {
                0 => self.file,
                1 => find(self.boxes, *b"idat")?.ok_or(AvifError::Missing("idat"))?,
                _ => return Err(AvifError::Missing("place of the picture")),
            };
            let mut extents = Vec::new();
            let mut left = within.len();
            for _ in 0..count {
                entries.take(index)?;
                let start = base.saturating_add(entries.wide(offset)?);
                let end = start.saturating_add(entries.wide(length)?);
                let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
                let part = range.and_then(|(start, end)| within.get(start..end));
                let part = part.filter(|part| !part.is_empty()).ok_or(AvifError::Cut)?;
                // Parts that overlap could be together much longer than the file.
                left = left.checked_sub(part.len()).ok_or(AvifError::Cut)?;
                extents.push(part);
            }
            return Ok(extents);
        }
        Err(AvifError::Missing("place of the picture"))
    }
}

impl Item<'_> {
    fn set(&mut self, name: [u8; 4], data: &[u8], essential: bool) -> Result<(), AvifError> {
        let mut reader = Reader(data);
        match &name {
            b"ispe" => {
                let mut reader = full(data)?.1;
                (self.width, self.height) = (reader.number(4)?, reader.number(4)?);
            }
            b"irot" => self.turns = reader.number(1)? as u8 & 3,
            b"imir" => self.mirror = Some(reader.number(1)? as u8 & 1),
            b"auxC" => {
                let kind = full(data)?.1.0;
                self.is_alpha = ALPHA.iter().any(|alpha| kind.starts_with(alpha));
            }
            b"colr" if data.starts_with(b"nclx") => {
                reader.take(8)?;
                self.nclx = Some((reader.number(2)? as u16, reader.number(1)? >> 7 == 1));
            }
            _ if essential && !KNOWN.contains(&&name) => {
                return Err(AvifError::Property(name.escape_ascii().to_string()));
            }
            _ => {}
        }
        Ok(())
    }
}
