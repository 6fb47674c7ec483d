//! The load under which the crash test kills the engine, and how the writer tells what it does.
//!
//! The writer prints one line before each operation and one after it. What was told to have ended
//! must be there after a kill; what had begun may be there as a whole, or not at all.

use std::{collections::BTreeMap, fmt, num::NonZeroUsize, str::FromStr};

use embedding::{Encoder, HashEncoder, Modality, Spaces};
use engine::{EngineConfig, HnswParams, Item, ItemId};

/// Name of the collection.
pub const COLLECTION: &str = "load";
/// Ids of each writer; writers write at the same time, each on ids of its own.
pub const IDS: u32 = 150;
/// Dim of every embedding.
const DIM: usize = 32;

/// Settings under which indexes are built all the time.
pub fn config() -> EngineConfig {
    EngineConfig {
        seal_rows: 48,
        graph_rows: 48,
        shards: NonZeroUsize::new(2),
        hnsw: HnswParams {
            m: 12,
            ef_construction: 64,
            ef_search: 32,
            ..HnswParams::default()
        },
        index_memory_bytes: None,
        store_cache_bytes: 16 << 20,
        ..EngineConfig::default()
    }
}

/// The spaces of the collection.
pub fn spaces() -> Spaces {
    Encoder::<&str>::spaces(&HashEncoder::new(Modality::Text, DIM)).clone()
}

/// Id of a writer's item.
pub fn id(writer: u32, number: u32) -> ItemId {
    ItemId::new(format!("{writer}-{number:04}")).expect("plain characters")
}

/// The item that has this id and version; everything in it follows from them.
pub fn item(writer: u32, number: u32, version: u64) -> Item {
    let id = id(writer, number);
    // Some items change their modality with their version.
    let modality = if number.is_multiple_of(3) && version.is_multiple_of(2) {
        Modality::Text
    } else {
        Modality::Image
    };
    let encoder = HashEncoder::new(modality, DIM);
    let content = format!("{id} {version}");
    let encoded = encoder.encode(&[&content]).expect("bytes encode").remove(0);
    let mut item = Item::new(id, modality, encoded.shared);
    item.specific = encoded.specific;
    item.payload.insert("version".into(), version.into());
    item.text = (modality == Modality::Text).then_some(content);
    item
}

/// What a writer does in one call: for each number a new version, or `None` to delete it. Either
/// all of them have a version or none has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Who.
    pub writer: u32,
    /// What.
    pub changes: BTreeMap<u32, Option<u64>>,
}

/// A line of the writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// The collection is open.
    Ready,
    /// An operation is about to be called.
    Begin(Operation),
    /// The last operation of this writer has returned.
    End(u32),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::End(writer) => write!(f, "end {writer}"),
            Self::Begin(Operation { writer, changes }) => {
                write!(f, "begin {writer}")?;
                changes
                    .iter()
                    .try_for_each(|(number, version)| match version {
                        Some(version) => write!(f, " {number}={version}"),
                        None => write!(f, " {number}=-"),
                    })
            }
        }
    }
}

/// The line was cut by the kill, or is none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoLine;

impl FromStr for Line {
    type Err = NoLine;

    fn from_str(line: &str) -> Result<Self, NoLine> {
        let mut words = line.split(' ');
        let word = words.next();
        let mut writer = || words.next().and_then(|w| w.parse().ok()).ok_or(NoLine);
        match word {
            Some("ready") => Ok(Self::Ready),
            Some("end") => Ok(Self::End(writer()?)),
            Some("begin") => {
                let writer = writer()?;
                let change = |word: &str| {
                    let (number, version) = word.split_once('=').ok_or(NoLine)?;
                    let version = match version {
                        "-" => None,
                        version => Some(version.parse().map_err(|_| NoLine)?),
                    };
                    Ok((number.parse().map_err(|_| NoLine)?, version))
                };
                let changes = words.map(change).collect::<Result<_, _>>()?;
                Ok(Self::Begin(Operation { writer, changes }))
            }
            _ => Err(NoLine),
        }
    }
}

/// A small generator of random numbers (splitmix64, Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}
