//! What a disk may hold after a power cut, rebuilt from a recorded run.
//!
//! The model is more hostile than any one file system:
//!
//! - A write or a truncation is certainly on disk only when an `fsync` or `fdatasync` of its file,
//!   entered after it had returned, has returned. `sync_file_range` promises nothing.
//! - Of what was written since, any part may be there, in any order. The unit is a sector of 512
//!   bytes, which is there as it was after one of the writes to it, never older than one that is
//!   certain. A write that is there and lies beyond one that is not leaves zeros between.
//! - A name (of a file or folder that was made, renamed or removed) is certain only after an
//!   `fsync` of its folder. Before, each change of a folder may be there or not, also a later one
//!   without an earlier one; a rename is there as a whole or not at all.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsString,
    fs,
    path::{Component, Path},
};

use embedding::mix;

const SECTOR: usize = 512;

/// A file or folder, whatever its name.
pub type Inode = usize;

/// The folder that was recorded.
pub const ROOT: Inode = 0;

/// A change, with the times at which it was called and had returned.
#[derive(Debug)]
struct Change<T> {
    what: T,
    begin: usize,
    end: usize,
    /// When it was certain, if ever.
    certain: usize,
}

#[derive(Debug)]
enum Data {
    Write { at: usize, bytes: Vec<u8> },
    Truncate(usize),
}

#[derive(Debug)]
enum Naming {
    Link(OsString, Inode),
    Unlink(OsString),
    Rename(OsString, OsString, Inode),
}

#[derive(Debug)]
enum Node {
    File {
        base: Vec<u8>,
        changes: Vec<Change<Data>>,
    },
    Folder {
        base: BTreeMap<OsString, Inode>,
        changes: Vec<Change<Naming>>,
        /// Its names as the running process sees them.
        live: BTreeMap<OsString, Inode>,
    },
}

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

/// Everything that happened to the files of a folder.
#[derive(Debug)]
pub struct Disk {
    nodes: Vec<Node>,
    /// When a sync had returned.
    pub syncs: BTreeSet<usize>,
    /// When anything was changed.
    pub changes: BTreeSet<usize>,
}

impl Disk {
    /// Starts with what the folder holds, all of it certain.
    pub fn new(root: &Path) -> Self {
        let mut disk = Self {
            nodes: Vec::new(),
            syncs: BTreeSet::new(),
            changes: BTreeSet::new(),
        };
        disk.take_up(root);
        disk
    }

    fn take_up(&mut self, path: &Path) -> Inode {
        let inode = self.nodes.len();
        if path.is_file() {
            let base = fs::read(path).expect("a file reads");
            self.nodes.push(Node::File {
                base,
                changes: Vec::new(),
            });
            return inode;
        }
        self.nodes.push(folder(BTreeMap::new()));
        let mut names = BTreeMap::new();
        for entry in fs::read_dir(path).expect("a folder reads") {
            let entry = entry.expect("a folder reads");
            names.insert(entry.file_name(), self.take_up(&entry.path()));
        }
        self.nodes[inode] = folder(names);
        inode
    }

    /// What the running process sees under a path inside the folder.
    pub fn find(&self, from: Inode, path: &Path) -> Option<Inode> {
        path.components().try_fold(from, |at, part| match part {
            Component::CurDir => Some(at),
            Component::Normal(name) => self.names(at).get(name).copied(),
            _ => panic!("{} leaves its folder", path.display()),
        })
    }

    fn names(&self, inode: Inode) -> &BTreeMap<OsString, Inode> {
        match &self.nodes[inode] {
            Node::Folder { live, .. } => live,
            Node::File { .. } => panic!("a file is no folder"),
        }
    }

    /// A new file or folder under a path whose folder is there.
    pub fn create(&mut self, from: Inode, path: &Path, file: bool, time: (usize, usize)) -> Inode {
        let inode = self.nodes.len();
        self.nodes.push(if file {
            Node::File {
                base: Vec::new(),
                changes: Vec::new(),
            }
        } else {
            folder(BTreeMap::new())
        });
        let (parent, name) = self.parent(from, path);
        self.name(parent, Naming::Link(name, inode), time);
        inode
    }

    /// Removes a name.
    pub fn unlink(&mut self, from: Inode, path: &Path, time: (usize, usize)) {
        let (parent, name) = self.parent(from, path);
        self.name(parent, Naming::Unlink(name), time);
    }

    /// Renames within a folder.
    pub fn rename(&mut self, old: &Path, new: &Path, time: (usize, usize)) {
        let inode = self.find(ROOT, old).expect("what is renamed is there");
        let ((from, old), (to, new)) = (self.parent(ROOT, old), self.parent(ROOT, new));
        assert_eq!(from, to, "a rename between folders is more than one change");
        self.name(from, Naming::Rename(old, new, inode), time);
    }

    fn parent(&self, from: Inode, path: &Path) -> (Inode, OsString) {
        let parent = path.parent().expect("the folder itself is never changed");
        let parent = self.find(from, parent).expect("the folder is there");
        let name = path.file_name().expect("a plain name").to_owned();
        (parent, name)
    }

    fn name(&mut self, parent: Inode, what: Naming, (begin, end): (usize, usize)) {
        let Node::Folder { changes, live, .. } = &mut self.nodes[parent] else {
            panic!("a file is no folder");
        };
        what.apply(live);
        changes.push(Change {
            what,
            begin,
            end,
            certain: usize::MAX,
        });
        self.changes.insert(begin);
    }

    /// Bytes are written.
    pub fn write(&mut self, inode: Inode, at: usize, bytes: Vec<u8>, time: (usize, usize)) {
        self.data(inode, Data::Write { at, bytes }, time);
    }

    /// A file is cut or grown.
    pub fn truncate(&mut self, inode: Inode, length: usize, time: (usize, usize)) {
        self.data(inode, Data::Truncate(length), time);
    }

    fn data(&mut self, inode: Inode, what: Data, (begin, end): (usize, usize)) {
        let Node::File { changes, .. } = &mut self.nodes[inode] else {
            panic!("a folder has no bytes");
        };
        changes.push(Change {
            what,
            begin,
            end,
            certain: usize::MAX,
        });
        self.changes.insert(begin);
    }

    /// A file or folder was synced.
    pub fn sync(&mut self, inode: Inode, (begin, end): (usize, usize)) {
        match &mut self.nodes[inode] {
            Node::File { changes, .. } => mark(changes, begin, end),
            Node::Folder { changes, .. } => mark(changes, begin, end),
        }
        self.syncs.insert(end);
    }

    /// Puts into the empty folder `to` what a cut right after `time` may leave.
    pub fn rebuild(&self, time: usize, fate: Fate, seed: u64, to: &Path) {
        self.rebuild_folder(ROOT, to, &Cut { time, fate, seed });
    }

    fn rebuild_folder(&self, inode: Inode, to: &Path, cut: &Cut) {
        let Node::Folder { base, changes, .. } = &self.nodes[inode] else {
            panic!("a file is no folder");
        };
        let mut names = base.clone();
        let mut choice = cut.choice(inode, changes, cut.names());
        for (i, change) in changes.iter().enumerate() {
            if choice.keeps(i, change, cut.time) {
                change.what.apply(&mut names);
            }
        }
        for (name, inode) in names {
            let path = to.join(name);
            match &self.nodes[inode] {
                Node::File { base, changes } => {
                    let bytes = file(inode, base, changes, cut);
                    fs::write(path, bytes).expect("a file is written");
                }
                Node::Folder { .. } => {
                    fs::create_dir(&path).expect("a folder is made");
                    self.rebuild_folder(inode, &path, cut);
                }
            }
        }
    }
}

fn folder(names: BTreeMap<OsString, Inode>) -> Node {
    Node::Folder {
        live: names.clone(),
        base: names,
        changes: Vec::new(),
    }
}

fn mark<T>(changes: &mut [Change<T>], begin: usize, end: usize) {
    for change in changes.iter_mut().filter(|change| change.end < begin) {
        change.certain = change.certain.min(end);
    }
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<OsString, Inode>) {
        match self {
            Self::Link(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
            Self::Rename(old, new, inode) => {
                names.remove(old);
                names.insert(new.clone(), *inode);
            }
        }
    }
}

/// A power cut.
struct Cut {
    time: usize,
    fate: Fate,
    seed: u64,
}

impl Cut {
    fn names(&self) -> Fate {
        match self.fate {
            Fate::Split if self.seed.is_multiple_of(2) => Fate::Dropped,
            Fate::Split => Fate::Torn,
            Fate::Sectors => Fate::Some,
            fate => fate,
        }
    }

    fn bytes(&self) -> Fate {
        match self.fate {
            Fate::Split if self.seed.is_multiple_of(2) => Fate::Torn,
            Fate::Split => Fate::Dropped,
            fate => fate,
        }
    }

    /// Decides for the changes of one file or folder.
    fn choice<T>(&self, inode: Inode, changes: &[Change<T>], fate: Fate) -> Choice {
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

struct Choice {
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

    fn keeps<T>(&mut self, i: usize, change: &Change<T>, time: usize) -> bool {
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
fn file(inode: Inode, base: &[u8], changes: &[Change<Data>], cut: &Cut) -> Vec<u8> {
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
