//! What becomes of changes that are not certain when the power is cut.

use std::collections::{BTreeSet, HashMap};

use embedding::mix;

use crate::disk::{Change, Data, Inode};

/// What a disk writes as a whole.
const SECTOR: usize = 512;

/// What may happen to the changes that are not certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// None of them is there.
    Dropped,
    /// All of them are there.
    Kept,
    /// The earlier ones are there, up to a seeded one, of which some first sectors are.
    Torn,
    /// Data as by `Torn`, names as by `Dropped`; the other way round for every other seed.
    Split,
    /// Each of them is there or not.
    Some,
    /// Each sector of each of them is there or not.
    Sectors,
}

impl Fate {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Dropped,
        Self::Kept,
        Self::Torn,
        Self::Split,
        Self::Some,
        Self::Sectors,
    ];
}

/// A power cut.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// It happens right after this time.
    pub time: usize,
    /// What becomes of what is not certain.
    pub fate: Fate,
    /// Seed of the choices.
    pub seed: u64,
}

impl Cut {
    /// What becomes of names.
    pub fn names(&self) -> Fate {
        match self.fate {
            Fate::Split if self.seed.is_multiple_of(2) => Fate::Dropped,
            Fate::Split => Fate::Torn,
            Fate::Sectors => Fate::Some,
            fate => fate,
        }
    }

    /// What becomes of bytes.
    fn bytes(&self) -> Fate {
        match self.fate {
            Fate::Split if self.seed.is_multiple_of(2) => Fate::Torn,
            Fate::Split => Fate::Dropped,
            fate => fate,
        }
    }

    /// Decides for the changes of one file or folder.
    pub fn choice<T>(&self, inode: Inode, changes: &[Change<T>], fate: Fate) -> Choice {
        let state = mix(self.seed ^ mix(inode as u64));
        let open = changes.iter().enumerate();
        let open = open.filter(|(_, c)| c.begin <= self.time && c.certain > self.time);
        let open: Vec<usize> = open.map(|(i, _)| i).collect();
        let torn = match open.len() {
            0 => usize::MAX,
            n => open[(mix(state) % n as u64) as usize],
        };
        Choice { state, fate, torn }
    }
}

/// Decides for each change of one file or folder.
pub struct Choice {
    state: u64,
    fate: Fate,
    /// The change that is torn, where that is the fate.
    torn: usize,
}

impl Choice {
    fn next(&mut self, below: u64) -> u64 {
        self.state = mix(self.state);
        self.state % below
    }

    /// Whether a change is there.
    pub fn keeps<T>(&mut self, i: usize, change: &Change<T>, time: usize) -> bool {
        if change.begin > time {
            return false;
        }
        if change.certain <= time {
            return true;
        }
        match self.fate {
            Fate::Dropped => false,
            Fate::Kept => true,
            Fate::Torn | Fate::Split => i < self.torn,
            Fate::Some | Fate::Sectors => self.next(2) == 0,
        }
    }
}

/// The bytes of a file after a cut.
pub fn file(inode: Inode, base: &[u8], changes: &[Change<Data>], cut: &Cut) -> Vec<u8> {
    let fate = cut.bytes();
    let mut choice = cut.choice(inode, changes, fate);
    // The sectors of each write that are there; `None` for all of them.
    let mut kept: Vec<(bool, Option<BTreeSet<usize>>)> = Vec::with_capacity(changes.len());
    for (i, change) in changes.iter().enumerate() {
        let certain = change.certain <= cut.time;
        let Data::Write { at, bytes } = &change.what else {
            kept.push((choice.keeps(i, change, cut.time), None));
            continue;
        };
        let sectors = sectors(*at, bytes.len());
        if fate == Fate::Sectors && !certain && change.begin <= cut.time {
            let some: BTreeSet<usize> = sectors.filter(|_| choice.next(2) == 0).collect();
            kept.push((!some.is_empty(), Some(some)));
        } else if fate == Fate::Torn && i == choice.torn {
            let count = choice.next(sectors.len() as u64) as usize;
            let some: BTreeSet<usize> = sectors.take(count).collect();
            kept.push((!some.is_empty(), Some(some)));
        } else {
            kept.push((choice.keeps(i, change, cut.time), None));
        }
    }
    // The last write that is there, by sector: the sector also holds what came before it.
    let mut last: HashMap<usize, usize> = HashMap::new();
    for (i, (change, (is_kept, some))) in changes.iter().zip(&kept).enumerate() {
        if let (Data::Write { at, bytes }, true) = (&change.what, is_kept) {
            let there = |sector: &usize| some.as_ref().is_none_or(|some| some.contains(sector));
            last.extend(
                sectors(*at, bytes.len())
                    .filter(there)
                    .map(|sector| (sector, i)),
            );
        }
    }
    let mut out = base.to_vec();
    for (i, (change, (is_kept, some))) in changes.iter().zip(&kept).enumerate() {
        match &change.what {
            Data::Truncate(length) if *is_kept => out.resize(*length, 0),
            Data::Write { at, bytes } if *is_kept && some.is_none() => {
                put(&mut out, *at, bytes);
            }
            Data::Write { at, bytes } if change.begin <= cut.time => {
                for sector in sectors(*at, bytes.len()) {
                    if last.get(&sector).is_some_and(|last| *last >= i) {
                        let start = (sector * SECTOR).max(*at);
                        let end = ((sector + 1) * SECTOR).min(at + bytes.len());
                        put(&mut out, start, &bytes[start - at..end - at]);
                    }
                }
            }
            Data::Truncate(_) | Data::Write { .. } => {}
        }
    }
    out
}

fn sectors(at: usize, length: usize) -> std::ops::Range<usize> {
    at / SECTOR..(at + length).div_ceil(SECTOR)
}

fn put(out: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if out.len() < end {
        out.resize(end, 0);
    }
    out[at..end].copy_from_slice(bytes);
}
