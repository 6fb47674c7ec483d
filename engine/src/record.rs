//! How an item lies in the store.
//!
//! ```text
//! format u8 = 3 | modality u8 | flags u8 | 0 u8 | stamp of embeddings u64 | ordinal u32
//! version of the item u64 | shared dim u32 | specific dim u32
//! shared f32 x dim | specific f32 x dim | content hash [32] | length u32, source | length u32, text
//! payload as JSON, up to the checksum | checksum [16]
//! ```
//!
//! All numbers are little-endian. What a flag says is absent takes no bytes. The checksum is the
//! start of BLAKE3 over the key and everything before it, so neither a flipped bit nor a record
//! under another key passes for an item.

use bytemuck::{Pod, Zeroable};
use embedding::{Embedding, Modality};

use crate::{Item, ItemId, ItemMeta, Payload};

const FORMAT: u8 = 3;
const CHECKSUM_BYTES: usize = 16;
/// Where the ordinal is.
const ORDINAL_AT: usize = 12;
const HAS_SPECIFIC: u8 = 1;
const HAS_HASH: u8 = 2;
const HAS_SOURCE: u8 = 4;
const HAS_TEXT: u8 = 8;

/// Identity of an item's row: rows with equal stamps have equal numbers and belong to one ordinal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Stamp {
    /// Hash of the embeddings. As bytes, so that a stamp takes twelve of them.
    pub(crate) embeddings: [u8; 8],
    /// Stands for the item in bitmaps.
    pub(crate) ordinal: u32,
}

impl Stamp {
    pub(crate) fn of(item: &Item, ordinal: u32) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[modality_byte(item.modality)]);
        for embedding in [Some(&item.shared), item.specific.as_ref()] {
            let row = embedding.map_or(&[][..], Embedding::as_slice);
            hasher.update(&(row.len() as u32).to_le_bytes());
            for chunk in row.chunks(64) {
                let mut bytes = [0; 256];
                for (to, x) in bytes.chunks_exact_mut(4).zip(chunk) {
                    to.copy_from_slice(&x.to_le_bytes());
                }
                hasher.update(&bytes[..4 * chunk.len()]);
            }
        }
        let hash = hasher.finalize();
        Self {
            embeddings: *hash.as_bytes().first_chunk().expect("a hash has 32 bytes"),
            ordinal,
        }
    }
}

/// Adds the checksum to a value that will lie under `key`.
pub(crate) fn with_checksum(key: &[u8], mut body: Vec<u8>) -> Vec<u8> {
    let sum = checksum(key, &body);
    body.extend(sum);
    body
}

/// The value without its checksum.
pub(crate) fn checked<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], &'static str> {
    let (body, sum) = value
        .split_last_chunk()
        .ok_or("it is shorter than its checksum")?;
    if checksum(key, body) == *sum {
        Ok(body)
    } else {
        Err("its checksum does not fit")
    }
}

fn checksum(key: &[u8], body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(body);
    *hasher
        .finalize()
        .as_bytes()
        .first_chunk()
        .expect("a hash has 32 bytes")
}

fn modality_byte(modality: Modality) -> u8 {
    match modality {
        Modality::Text => 0,
        Modality::Image => 1,
    }
}

/// The record of an item that will lie under `key`.
pub(crate) fn encode(key: &[u8], item: &Item, stamp: Stamp, version: u64) -> Vec<u8> {
    let flag = |present: bool, flag: u8| if present { flag } else { 0 };
    let flags = flag(item.specific.is_some(), HAS_SPECIFIC)
        | flag(item.content_hash.is_some(), HAS_HASH)
        | flag(item.source.is_some(), HAS_SOURCE)
        | flag(item.text.is_some(), HAS_TEXT);
    let specific_dim = item.specific.as_ref().map_or(0, Embedding::dim);
    let mut out = Vec::with_capacity(4 * (item.shared.dim() + specific_dim) + 256);
    out.extend([FORMAT, modality_byte(item.modality), flags, 0]);
    out.extend(stamp.embeddings);
    out.extend(stamp.ordinal.to_le_bytes());
    out.extend(version.to_le_bytes());
    out.extend((item.shared.dim() as u32).to_le_bytes());
    out.extend((specific_dim as u32).to_le_bytes());
    for embedding in [Some(&item.shared), item.specific.as_ref()]
        .into_iter()
        .flatten()
    {
        out.extend(embedding.as_slice().iter().flat_map(|x| x.to_le_bytes()));
    }
    out.extend(item.content_hash.iter().flatten());
    for words in [&item.source, &item.text].into_iter().flatten() {
        out.extend((words.len() as u32).to_le_bytes());
        out.extend(words.as_bytes());
    }
    serde_json::to_writer(&mut out, &item.payload).expect("a JSON object writes to memory");
    with_checksum(key, out)
}

/// Gives a record, without its checksum, another ordinal.
pub(crate) fn set_ordinal(body: &mut [u8], ordinal: u32) {
    if let Some(place) = body
        .get_mut(ORDINAL_AT..)
        .and_then(|rest| rest.first_chunk_mut())
    {
        *place = ordinal.to_le_bytes();
    }
}

/// A record, checked and taken apart, not yet copied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    pub(crate) modality: Modality,
    pub(crate) stamp: Stamp,
    /// Of the item, see [`crate::versions`].
    pub(crate) version: u64,
    shared: &'a [u8],
    specific: Option<&'a [u8]>,
    content_hash: Option<[u8; 32]>,
    source: Option<&'a str>,
    text: Option<&'a str>,
    payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// Takes the value under `key` apart.
    pub(crate) fn read(key: &[u8], value: &'a [u8]) -> Result<Self, String> {
        Self::of(checked(key, value)?)
    }

    /// Takes a record apart whose checksum was right, and is not there any more.
    pub(crate) fn of(body: &'a [u8]) -> Result<Self, String> {
        if body.first() != Some(&FORMAT) {
            return Err(format!("format {:?}, expected {FORMAT}", body.first()));
        }
        Self::parse(body).ok_or_else(|| "its parts do not fit together".to_owned())
    }

    fn parse(body: &'a [u8]) -> Option<Self> {
        let ([_, modality, flags, _], rest) = body.split_first_chunk()?;
        let modality = match modality {
            0 => Modality::Text,
            1 => Modality::Image,
            _ => return None,
        };
        let (embeddings, rest) = rest.split_first_chunk()?;
        let (ordinal, rest) = rest.split_first_chunk()?;
        let (version, rest) = rest.split_first_chunk()?;
        let (shared_dim, rest) = rest.split_first_chunk()?;
        let (specific_dim, rest) = rest.split_first_chunk()?;
        let row_bytes = |dim: &[u8; 4]| (u32::from_le_bytes(*dim) as usize).checked_mul(4);
        let (shared, rest) = rest.split_at_checked(row_bytes(shared_dim)?)?;
        let (specific, rest) = rest.split_at_checked(row_bytes(specific_dim)?)?;
        let (content_hash, rest) = if flags & HAS_HASH == 0 {
            (None, rest)
        } else {
            let (hash, rest) = rest.split_first_chunk()?;
            (Some(*hash), rest)
        };
        let words = |present: u8, rest: &'a [u8]| {
            if flags & present == 0 {
                return Some((None, rest));
            }
            let (length, rest) = rest.split_first_chunk()?;
            let (words, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            Some((Some(std::str::from_utf8(words).ok()?), rest))
        };
        let (source, rest) = words(HAS_SOURCE, rest)?;
        let (text, payload) = words(HAS_TEXT, rest)?;
        Some(Self {
            modality,
            stamp: Stamp {
                embeddings: *embeddings,
                ordinal: u32::from_le_bytes(*ordinal),
            },
            version: u64::from_le_bytes(*version),
            shared,
            specific: (flags & HAS_SPECIFIC != 0).then_some(specific),
            content_hash,
            source,
            text,
            payload,
        })
    }

    /// Dim of the shared embedding.
    pub(crate) fn shared_dim(&self) -> usize {
        self.shared.len() / 4
    }

    /// Dim of the specific embedding, where there is one.
    pub(crate) fn specific_dim(&self) -> Option<usize> {
        self.specific.map(|bytes| bytes.len() / 4)
    }

    /// The shared embedding.
    pub(crate) fn shared(&self) -> Result<Embedding, String> {
        embedding(self.shared)
    }

    /// The specific embedding, which must be there.
    pub(crate) fn specific(&self) -> Result<Embedding, String> {
        embedding(self.specific.ok_or("it has no specific embedding")?)
    }

    /// What the user stored with it.
    pub(crate) fn payload(&self) -> Result<Payload, String> {
        serde_json::from_slice(self.payload).map_err(|error| error.to_string())
    }

    /// Bytes of the payload and the text.
    pub(crate) fn words_bytes(&self) -> usize {
        self.payload.len() + self.text.map_or(0, str::len)
    }

    /// Everything but the embeddings.
    pub(crate) fn meta(&self, id: ItemId) -> Result<ItemMeta, String> {
        Ok(ItemMeta {
            id,
            version: self.version,
            modality: self.modality,
            payload: self.payload()?,
            source: self.source.map(str::to_owned),
            content_hash: self.content_hash,
            text: self.text.map(str::to_owned),
        })
    }

    /// The whole item.
    pub(crate) fn item(&self, id: ItemId) -> Result<Item, String> {
        let ItemMeta {
            id,
            version: _,
            modality,
            payload,
            source,
            content_hash,
            text,
        } = self.meta(id)?;
        let (shared, specific) = (self.shared()?, self.specific.map(embedding).transpose()?);
        Ok(Item {
            id,
            modality,
            shared,
            specific,
            payload,
            source,
            content_hash,
            text,
        })
    }
}

fn embedding(bytes: &[u8]) -> Result<Embedding, String> {
    let (numbers, _) = bytes.as_chunks();
    let row = numbers.iter().map(|x| f32::from_le_bytes(*x)).collect();
    Embedding::new(row).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item() -> Item {
        let shared = Embedding::normalized(vec![1.0, -2.0, 3.0]).expect("has a direction");
        let mut item = Item::new(ItemId::new("a").expect("an id"), Modality::Image, shared);
        // Two fractions that a fast but careless parser of decimals rounds to their neighbors.
        let numbers =
            serde_json::json!([1, "x", null, 31.245_270_191_439_438, 121.487_919_511_619_45]);
        item.payload.insert("k".into(), numbers);
        item
    }

    #[test]
    fn an_item_comes_back_bit_for_bit_with_and_without_its_parts() {
        for present in 0..16_u8 {
            let mut item = item();
            item.specific = (present & 1 != 0).then(|| item.shared.clone());
            item.content_hash = (present & 2 != 0).then_some([9; 32]);
            item.source = (present & 4 != 0).then(|| "/photos/\u{e9}.jpg".into());
            item.text = (present & 8 != 0).then(String::new);
            let stamp = Stamp::of(&item, 7);
            let version = u64::MAX - u64::from(present);
            let bytes = encode(b"key", &item, stamp, version);
            let record = Record::read(b"key", &bytes).expect("reads back");
            assert_eq!((record.stamp, record.version), (stamp, version));
            assert_eq!(record.item(item.id.clone()), Ok(item));
        }
    }

    #[test]
    fn another_ordinal_changes_nothing_else() {
        let (item, key) = (item(), b"key");
        let bytes = encode(key, &item, Stamp::of(&item, 7), 9);
        let mut body = checked(key, &bytes).expect("is good").to_vec();
        set_ordinal(&mut body, 0x0102_0304);
        let expected = encode(key, &item, Stamp::of(&item, 0x0102_0304), 9);
        assert_eq!(with_checksum(key, body), expected);
        set_ordinal(&mut [0; 3], 1);
    }

    #[test]
    fn a_flipped_bit_a_cut_or_another_key_is_noticed() {
        let bytes = encode(b"key", &item(), Stamp::of(&item(), 1), 9);
        for i in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[i] ^= 1 << (i % 8);
            assert!(
                Record::read(b"key", &flipped).is_err(),
                "bit flipped in byte {i}"
            );
            assert!(
                Record::read(b"key", &bytes[..i]).is_err(),
                "cut after byte {i}"
            );
        }
        assert!(Record::read(b"kez", &bytes).is_err());
    }

    #[test]
    fn the_stamp_follows_the_embeddings_and_not_the_payload() {
        let (a, mut b) = (item(), item());
        b.payload.clear();
        assert_eq!(Stamp::of(&a, 0), Stamp::of(&b, 0));
        assert_ne!(Stamp::of(&a, 0), Stamp::of(&b, 1));
        b.modality = Modality::Text;
        assert_ne!(Stamp::of(&a, 0), Stamp::of(&b, 0));
        b = item();
        b.specific = Some(b.shared.clone());
        assert_ne!(Stamp::of(&a, 0), Stamp::of(&b, 0));
    }
}
