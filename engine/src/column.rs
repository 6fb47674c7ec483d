//! A list of numbers, in memory or in a mapped file.

#![allow(unsafe_code, reason = "numbers are read where the file is mapped")]

use std::{fmt, io, ops::Deref, ptr::NonNull, sync::Arc};

use bytemuck::Pod;
use fs_err::File;
use memmap2::{Mmap, MmapMut};

/// Size of a large page on most machines.
const LARGE_PAGE_BYTES: usize = 2 << 20;

/// Numbers that are read as a slice.
pub(crate) enum Column<T: Pod> {
    /// In memory.
    Owned(Vec<T>),
    /// In a file; the system brings in what is read, and takes it back when it needs memory.
    Mapped(Mapped<T>),
}

/// Part of a mapped file.
pub(crate) struct Mapped<T> {
    /// Start and length in the map, checked once.
    start: NonNull<T>,
    len: usize,
    /// Keeps the map where it is.
    map: Arc<Mmap>,
}

// SAFETY: the numbers are only read, and the map that holds them may be shared between threads.
unsafe impl<T: Pod + Sync> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T: Pod + Sync> Sync for Mapped<T> {}

impl<T: Pod> Column<T> {
    /// The numbers at these bytes of a map; `None` where they do not lie inside it, or not as this
    /// type lies in memory.
    pub(crate) fn mapped(map: &Arc<Mmap>, start: usize, bytes: usize) -> Option<Self> {
        let bytes = map.get(start..start.checked_add(bytes)?)?;
        let numbers: &[T] = bytemuck::try_cast_slice(bytes).ok()?;
        Some(Self::Mapped(Mapped {
            start: NonNull::from(numbers).cast(),
            len: numbers.len(),
            map: Arc::clone(map),
        }))
    }

    /// A copy in memory of its own, in large pages where the system has them: what is read all over
    /// the place would otherwise wait as long for page tables as for itself.
    pub(crate) fn settled(&self) -> Self {
        let bytes: &[u8] = bytemuck::cast_slice(self);
        let copy = || -> io::Result<Mmap> {
            let mut memory = MmapMut::map_anon(bytes.len())?;
            #[cfg(target_os = "linux")]
            if let Err(error) = memory.advise(memmap2::Advice::HugePage) {
                tracing::debug!("no large pages: {error}");
            }
            memory.copy_from_slice(bytes);
            memory.make_read_only()
        };
        // Small ones share pages with others, and where there is no such memory a list will do.
        let settled = (bytes.len() >= LARGE_PAGE_BYTES).then(copy);
        let settled = settled.and_then(Result::ok).map(Arc::new);
        settled
            .and_then(|memory| Self::mapped(&memory, 0, bytes.len()))
            .unwrap_or_else(|| Self::Owned(self.to_vec()))
    }

    /// The numbers in memory, to be changed; copies what is mapped.
    pub(crate) fn to_mut(&mut self) -> &mut Vec<T> {
        if let Self::Mapped(_) = self {
            *self = Self::Owned(self.to_vec());
        }
        match self {
            Self::Owned(numbers) => numbers,
            Self::Mapped(_) => unreachable!("it was copied"),
        }
    }
}

impl<T: Pod> Deref for Column<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match self {
            Self::Owned(numbers) => numbers,
            // SAFETY: start and length were taken from a slice of this type inside the map, which
            // is held here, never written to by us, and never moves.
            Self::Mapped(part) => unsafe {
                std::slice::from_raw_parts(part.start.as_ptr(), part.len)
            },
        }
    }
}

impl<T: Pod> Clone for Column<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Owned(numbers) => Self::Owned(numbers.clone()),
            Self::Mapped(part) => Self::Mapped(Mapped {
                start: part.start,
                len: part.len,
                map: Arc::clone(&part.map),
            }),
        }
    }
}

impl<T: Pod> Default for Column<T> {
    fn default() -> Self {
        Self::Owned(Vec::new())
    }
}

impl<T: Pod> From<Vec<T>> for Column<T> {
    fn from(numbers: Vec<T>) -> Self {
        Self::Owned(numbers)
    }
}

impl<T: Pod + PartialEq> PartialEq for Column<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Pod + Eq> Eq for Column<T> {}

impl<T: Pod + fmt::Debug> fmt::Debug for Column<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Maps a file. Whoever changes or cuts it while it is mapped brings the process down, so files
/// of ours are only ever replaced by renaming another one over them.
pub(crate) fn map(file: &File) -> io::Result<Arc<Mmap>> {
    // SAFETY: our own files are never written to once they have their name (see above).
    Ok(Arc::new(unsafe { Mmap::map(file.file())? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settled_numbers_are_the_same_however_many() {
        for len in [0, 10, LARGE_PAGE_BYTES / 4 + 1, LARGE_PAGE_BYTES] {
            let numbers: Column<u32> = (0..len as u32).collect::<Vec<_>>().into();
            assert!(numbers.settled() == numbers, "{len} numbers");
        }
    }

    #[test]
    fn mapped_numbers_are_those_of_the_file_and_bad_places_are_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("numbers");
        let numbers: Vec<u32> = (0..100).collect();
        fs_err::write(&path, bytemuck::cast_slice::<u32, u8>(&numbers)).expect("writes");
        let map = map(&File::open(&path).expect("opens")).expect("maps");
        let column = Column::<u32>::mapped(&map, 8, 40).expect("lies inside");
        assert_eq!(&*column, &numbers[2..12]);
        let mut copy = column.clone();
        copy.to_mut().push(7);
        assert_eq!((copy.len(), column.len()), (11, 10));
        drop(map);
        assert_eq!(&*column, &numbers[2..12], "the column keeps the map");
        let map = super::map(&File::open(&path).expect("opens")).expect("maps");
        for (start, bytes) in [(2, 8), (0, 6), (396, 8), (usize::MAX, 8)] {
            assert!(
                Column::<u32>::mapped(&map, start, bytes).is_none(),
                "{start} {bytes}"
            );
        }
    }
}
