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
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    path::{Component, Path},
};

use crate::cut::{Cut, file};

/// A file or folder, whatever its name.
pub type Inode = usize;

/// The folder that was recorded.
pub const ROOT: Inode = 0;

/// A change, with the times at which it was called and had returned.
#[derive(Debug)]
pub struct Change<T> {
    /// What changes.
    pub what: T,
    /// When it was called.
    pub begin: usize,
    end: usize,
    /// When it was certain, if ever.
    pub certain: usize,
}

/// A change of a file.
#[derive(Debug)]
pub enum Data {
    /// These bytes at this place.
    Write { at: usize, bytes: Vec<u8> },
    /// This length.
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

/// Everything that happened to the files of a folder.
#[derive(Debug)]
pub struct Disk {
    nodes: Vec<Node>,
    /// When a sync had returned.
    pub syncs: BTreeSet<usize>,
    /// When anything was changed.
    pub changes: BTreeSet<usize>,
    /// When a file of an index got its name or lost it: around these a seal is half done.
    pub seals: BTreeSet<usize>,
}

impl Disk {
    /// Starts with what the folder holds, all of it certain.
    pub fn new(root: &Path) -> Self {
        let mut disk = Self {
            nodes: Vec::new(),
            syncs: BTreeSet::new(),
            changes: BTreeSet::new(),
            seals: BTreeSet::new(),
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
        if what.is_of_index() {
            self.seals.extend([begin, end]);
        }
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

    /// Puts into the empty folder `to` what a power cut may leave.
    pub fn rebuild(&self, cut: &Cut, to: &Path) {
        self.rebuild_folder(ROOT, to, cut);
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
    fn is_of_index(&self) -> bool {
        let (Self::Link(name, _) | Self::Unlink(name) | Self::Rename(_, name, _)) = self;
        Path::new(name)
            .extension()
            .is_some_and(|ending| ending == "idx")
    }

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
