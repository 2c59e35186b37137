//! An append-only file of checksummed records, held by one process.
//!
//! When [`Journal::append`] returns, the records are on the disk: they survive the process and the machine. A record
//! that was being written when either ended is not read back; the records before it are. The file is held with a lock
//! that ends with the process, so a process that gets the lock knows that the writer is gone.
//!
//! A record is its length, the same with all bits inverted, the CRC-32 of both and of the bytes that follow, all
//! little-endian in four bytes each, and then its bytes.

use crate::permissions::{forgeable, open_plain, require_private_folder};
use rustix::fs::FlockOperation;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

const HEADER: usize = 12;

/// The extension of a journal's file.
const EXTENSION: &str = "journal";

/// Why nothing was appended. The earlier records are unchanged.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The file would exceed its maximum size.
    #[error("it has {size} bytes of at most {max}, and {needed} more are needed")]
    Full {
        /// The size of the file, in bytes.
        size: u64,
        /// The most that it may have, in bytes.
        max: u64,
        /// The size of the records to append, in bytes.
        needed: u64,
    },
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A journal that this process holds.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    end: u64,
    max: u64,
}

impl Journal {
    /// Makes a new journal with a first record in `dir`, and the folder too if it is missing (for this user only).
    /// `max`: bytes.
    pub fn create(dir: &Path, max: u64, first: &[u8]) -> io::Result<Self> {
        // The folders above it may have other uses: the private Postgres runs as another user where root starts it.
        if let Some(above) = dir.parent() {
            std::fs::create_dir_all(above)?;
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        require_private_folder(dir)?;
        // The file has a name that no process looks for until it is locked and begun: an empty one would be taken for
        // an abandoned one.
        let file = tempfile::Builder::new().prefix("").suffix(".new").tempfile_in(dir)?;
        rustix::fs::flock(file.as_file(), FlockOperation::NonBlockingLockExclusive)?;
        let path = file.path().with_extension(EXTENSION);
        let file = file.persist_noclobber(&path).map_err(|error| error.error)?;
        let mut journal = Self { file, path, end: 0, max };
        journal.append(&[first]).map_err(|error| match error {
            AppendError::Io(error) => error,
            AppendError::Full { .. } => io::Error::new(io::ErrorKind::InvalidInput, error),
        })?;
        File::open(dir)?.sync_all()?;
        Ok(journal)
    }

    /// Takes over a journal whose process is gone. `None`: a process holds it, or the file is gone. `max`: bytes.
    pub fn adopt(path: &Path, max: u64) -> io::Result<Option<Self>> {
        let file = match open_plain(path, OpenOptions::new().read(true).write(true)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let found = file.metadata()?;
        if let Some(exposed) = forgeable(path, &found) {
            return Err(exposed.into());
        }
        // The process that held the journal may have finished with it between our look and our lock.
        let is_same =
            std::fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (found.dev(), found.ino()));
        Ok(is_same.then(|| Self { file, path: path.to_owned(), end: found.len(), max }))
    }

    /// The journals in a folder, held or not, in no order. A folder that does not exist has none. One to which other
    /// users have access is refused: its files may have been read, and may be theirs.
    pub fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
        require_private_folder(dir)?;
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension() == Some(OsStr::new(EXTENSION)) {
                found.push(path);
            }
        }
        Ok(found)
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The size of the file, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.end
    }

    /// Adds records, all or none, and returns when they are on the disk.
    pub fn append<T: AsRef<[u8]>>(&mut self, records: &[T]) -> Result<(), AppendError> {
        let mut bytes = Vec::with_capacity(records.iter().map(|record| HEADER + record.as_ref().len()).sum());
        for record in records {
            write_record(&mut bytes, record.as_ref())?;
        }
        let needed = bytes.len() as u64;
        if self.end.saturating_add(needed) > self.max {
            return Err(AppendError::Full { size: self.end, max: self.max, needed });
        }
        let written = self.file.write_all_at(&bytes, self.end).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // A part of it may have been written: the next record must not take that for its beginning.
            let _ = self.file.set_len(self.end);
            return Err(error.into());
        }
        self.end += needed;
        Ok(())
    }

    /// Drops everything after the first `size` bytes.
    pub fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.file.set_len(size)?;
        self.file.sync_data()?;
        self.end = size;
        Ok(())
    }

    /// The records from a position on, which is 0 or a result of [`Records::at`].
    #[must_use]
    pub fn records(&self, from: u64) -> Records<impl Read + '_> {
        Records::new(From { file: &self.file, at: from }, from)
    }

    /// Removes the file.
    pub fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }

    /// Leaves the file for people to look at, under a name that is not taken for a journal; returns its new path.
    pub fn put_aside(self) -> io::Result<PathBuf> {
        let aside = self.path.with_extension("damaged");
        std::fs::rename(&self.path, &aside)?;
        Ok(aside)
    }
}

impl Drop for Journal {
    /// Gives the lock up at once. Closing the file does so only when no copy of it is open, and a process that another
    /// thread is starting has copies of all files for a moment.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

fn write_record(bytes: &mut Vec<u8>, record: &[u8]) -> io::Result<()> {
    let length = u32::try_from(record.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let lengths = [length.to_le_bytes(), (!length).to_le_bytes()].concat();
    bytes.extend_from_slice(&lengths);
    bytes.extend_from_slice(&checksum(&lengths, record).to_le_bytes());
    bytes.extend_from_slice(record);
    Ok(())
}

fn checksum(lengths: &[u8], record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(lengths);
    hasher.update(record);
    hasher.finalize()
}

/// Reads a file from a position on without moving its cursor.
struct From<'a> {
    file: &'a File,
    at: u64,
}

impl Read for From<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// The next item of a journal.
#[derive(Debug, PartialEq, Eq)]
pub enum NextItem {
    /// A record, whole.
    Record(Vec<u8>),
    /// There are no more records.
    End,
    /// The last record is incomplete: its writer ended in the middle of it, and never reported it as kept.
    Torn,
    /// A record in the middle is damaged: the bytes after it can no longer be told apart.
    Damaged,
}

/// The records of a journal, one by one.
#[derive(Debug)]
pub struct Records<R> {
    reader: R,
    at: u64,
}

impl<R: Read> Records<R> {
    /// Records from bytes that begin at position `at`.
    pub fn new(reader: R, at: u64) -> Self {
        Self { reader, at }
    }

    /// The position after the last record that was read: bytes from the beginning.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next item. After anything but a record there are no more.
    pub fn read_next(&mut self) -> io::Result<NextItem> {
        let mut header = Vec::with_capacity(HEADER);
        self.reader.by_ref().take(HEADER as u64).read_to_end(&mut header)?;
        let Some((lengths, sum)) = header.split_at_checked(8).filter(|_| header.len() == HEADER) else {
            return Ok(if header.is_empty() { NextItem::End } else { NextItem::Torn });
        };
        let number = |bytes: &[u8]| bytes.try_into().map(u32::from_le_bytes).unwrap_or_default();
        let (length, turned) = lengths.split_at(4);
        let length = number(length);
        if length != !number(turned) {
            return self.what_is_wrong();
        }
        // A length alone makes no room: it may be wrong.
        let mut record = Vec::new();
        self.reader.by_ref().take(u64::from(length)).read_to_end(&mut record)?;
        if record.len() < length as usize {
            return Ok(NextItem::Torn);
        }
        if checksum(lengths, &record) != number(sum) {
            return self.what_is_wrong();
        }
        self.at += HEADER as u64 + u64::from(length);
        Ok(NextItem::Record(record))
    }

    /// The fault of a bad record: if it is the last one, it was not written to its end.
    fn what_is_wrong(&mut self) -> io::Result<NextItem> {
        let mut more = [0; 1];
        Ok(if self.reader.read(&mut more)? == 0 { NextItem::Torn } else { NextItem::Damaged })
    }
}

#[cfg(test)]
mod tests;
