//! A database file that stays unchanged until the program knows that it can read it.
//!
//! redb repairs a file when it opens it, and marks it as open. A file that is damaged, or was written by a newer
//! version, must not be changed.

use std::{
    collections::VecDeque,
    fs::OpenOptions,
    io,
    ops::Bound,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use redb::{BackendError, DatabaseError, StorageBackend, backends::FileBackend};

/// A delayed operation on the file.
#[derive(Debug)]
enum Operation {
    Write(u64, Box<[u8]>),
    Resize(u64),
    Sync,
}

/// The file: a storage backend of the database, and a handle that releases the delayed operations. Clones share one
/// file.
#[derive(Clone, Debug)]
pub(crate) struct DeferredFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: FileBackend,
    /// The delayed operations in order; `None` after the release.
    waiting: Mutex<Option<VecDeque<Operation>>>,
}

impl DeferredFile {
    /// Opens an existing file. Its writes are delayed until [`DeferredFile::release`].
    pub(crate) fn open(path: &Path) -> Result<Self, DatabaseError> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Self(Arc::new(Inner { file: FileBackend::new(file)?, waiting: Mutex::new(Some(VecDeque::new())) })))
    }

    /// Performs the delayed operations in order, so that a crash leaves a state that the database can repair. Later
    /// writes go to the file directly.
    ///
    /// # Errors
    /// An operation failed. It and all later ones remain delayed.
    pub(crate) fn release(&self) -> io::Result<()> {
        let mut waiting = self.waiting();
        let Some(operations) = waiting.as_mut() else { return Ok(()) };
        while let Some(operation) = operations.front() {
            match operation {
                Operation::Write(offset, data) => self.0.file.write(*offset, data)?,
                Operation::Resize(length) => self.0.file.set_len(*length)?,
                Operation::Sync => self.0.file.sync_data()?,
            }
            operations.pop_front();
        }
        *waiting = None;
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, Option<VecDeque<Operation>>> {
        // A panic cannot leave a half-made change: each operation is added as a whole.
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The length of the file after the operations, and the number of its first bytes that no operation cut off.
fn lengths(file: u64, waiting: &VecDeque<Operation>) -> (u64, u64) {
    waiting.iter().fold((file, file), |(length, whole), operation| match operation {
        Operation::Write(offset, data) => (length.max(offset + data.len() as u64), whole),
        Operation::Resize(length) => (*length, whole.min(*length)),
        Operation::Sync => (length, whole),
    })
}

/// Applies `operation` to `out`, the bytes of the file from `offset` on.
fn apply(operation: &Operation, offset: u64, out: &mut [u8]) {
    let end = offset + out.len() as u64;
    let (from, to, data) = match operation {
        Operation::Write(at, data) => (*at, at + data.len() as u64, Some(data)),
        Operation::Resize(length) => (*length, u64::MAX, None),
        Operation::Sync => return,
    };
    let (first, last) = (from.max(offset), to.min(end));
    if first >= last {
        return;
    }
    let part = &mut out[(first - offset) as usize..(last - offset) as usize];
    match data {
        Some(data) => part.copy_from_slice(&data[(first - from) as usize..(last - from) as usize]),
        None => part.fill(0),
    }
}

impl StorageBackend for DeferredFile {
    fn len(&self) -> io::Result<u64> {
        let length = self.0.file.len()?;
        Ok(self.waiting().as_ref().map_or(length, |waiting| lengths(length, waiting).0))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let waiting = self.waiting();
        let Some(waiting) = waiting.as_ref() else { return self.0.file.read(offset, out) };
        let (length, whole) = lengths(self.0.file.len()?, waiting);
        if offset + out.len() as u64 > length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let there = (whole.saturating_sub(offset) as usize).min(out.len());
        self.0.file.read(offset, &mut out[..there])?;
        out[there..].fill(0);
        for operation in waiting {
            apply(operation, offset, out);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        match self.waiting().as_mut() {
            Some(waiting) => waiting.push_back(Operation::Resize(len)),
            None => self.0.file.set_len(len)?,
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.waiting().as_mut() {
            Some(waiting) => waiting.push_back(Operation::Sync),
            None => self.0.file.sync_data()?,
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match self.waiting().as_mut() {
            Some(waiting) => waiting.push_back(Operation::Write(offset, data.into())),
            None => self.0.file.write(offset, data)?,
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.0.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Before the release the file is unchanged, and the database reads its own writes. After the release the file
    /// contains them.
    #[test]
    fn writes_wait_and_are_read_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        fs::write(&path, b"abcdefgh").expect("writable");
        let file = DeferredFile::open(&path).expect("it is there");
        let read = || {
            let mut bytes = vec![0; file.len().expect("a length") as usize];
            file.read(0, &mut bytes).expect("as long as it is");
            bytes
        };
        file.write(2, b"XY").expect("kept");
        file.set_len(5).expect("kept");
        file.set_len(7).expect("kept");
        assert_eq!(read(), b"abXYe\0\0");
        file.sync_data().expect("kept");
        file.write(6, b"123").expect("kept");
        assert_eq!(read(), b"abXYe\x00123");
        assert!(file.read(8, &mut [0; 2]).is_err());
        let mut middle = [0; 3];
        file.read(1, &mut middle).expect("inside");
        assert_eq!((&middle, fs::read(&path).expect("readable")), (b"bXY", b"abcdefgh".to_vec()));
        file.release().expect("writable");
        assert_eq!((read(), fs::read(&path).expect("readable")), (b"abXYe\x00123".to_vec(), b"abXYe\x00123".to_vec()));
        file.write(0, b"A").expect("written");
        assert_eq!(fs::read(&path).expect("readable")[0], b'A');
    }
}
