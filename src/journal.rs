//! An append-only file of checksummed records that one process holds.
//!
//! What [`Journal::append`] has returned for is on the disk: it survives the process and the machine. A record that was
//! being written when either ended is not read back; those before it are. The file is held with a lock that ends with
//! the process, so a process that gets the lock knows that the writer is gone.
//!
//! A record is its length, the same with all bits turned, the CRC-32 of both and of what follows, all little-endian in
//! four bytes each, and then its bytes.

use crate::permissions::{forgeable, open_plain, require_private_folder};
use rustix::fs::FlockOperation;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

const HEADER: usize = 12;

/// What a journal's file is called, behind the dot.
const EXTENSION: &str = "journal";

/// Why nothing was appended. What was there before is as it was.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// It would be larger than it may be.
    #[error("it has {size} bytes of at most {max}, and {needed} more are needed")]
    Full {
        /// What it has.
        size: u64,
        /// What it may have.
        max: u64,
        /// What was to be added.
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
    /// Makes a new one in `dir`, which is made when it is missing (for this user only), with a first record. `max`:
    /// bytes.
    pub fn create(dir: &Path, max: u64, first: &[u8]) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        require_private_folder(dir)?;
        // Under a name that no process looks for until the file is locked and begun: an empty one would be taken for an
        // abandoned one.
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
        // The process that held it may have done with it between our look and our lock.
        let is_same =
            std::fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (found.dev(), found.ino()));
        Ok(is_same.then(|| Self { file, path: path.to_owned(), end: found.len(), max }))
    }

    /// The journals in a folder, held or not, in no order. A folder that is not there has none. One to which other
    /// users have access is refused: what stands in it may have been read, and may be theirs.
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

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes it has.
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
            // A part of it may stand there: it must not be taken for a record's beginning by the next one.
            let _ = self.file.set_len(self.end);
            return Err(error.into());
        }
        self.end += needed;
        Ok(())
    }

    /// Forgets everything behind the first `size` bytes.
    pub fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.file.set_len(size)?;
        self.file.sync_data()?;
        self.end = size;
        Ok(())
    }

    /// The records from a place on, which is 0 or what [`Records::at`] has said.
    #[must_use]
    pub fn records(&self, from: u64) -> Records<impl Read + '_> {
        Records::new(From { file: &self.file, at: from }, from)
    }

    /// Removes the file.
    pub fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }

    /// Leaves the file for people to look at, under a name under which it is not taken for a journal; returns that.
    pub fn put_aside(self) -> io::Result<PathBuf> {
        let aside = self.path.with_extension("damaged");
        std::fs::rename(&self.path, &aside)?;
        Ok(aside)
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

/// Reads a file from a place on without moving its cursor.
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

/// What comes next in a journal.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A record, whole.
    Record(Vec<u8>),
    /// There is no more.
    End,
    /// The last record is not whole: its writer ended in the middle of it, and never reported it as kept.
    Torn,
    /// Something is wrong in the middle: there are bytes behind it that cannot be told apart any more.
    Damaged,
}

/// The records of a journal, one by one.
#[derive(Debug)]
pub struct Records<R> {
    reader: R,
    at: u64,
}

impl<R: Read> Records<R> {
    /// From bytes that begin at `at`.
    pub fn new(reader: R, at: u64) -> Self {
        Self { reader, at }
    }

    /// Behind the last record that was read: bytes from the beginning.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next one. After anything but a record there is nothing more to be had.
    pub fn read_next(&mut self) -> io::Result<Next> {
        let mut header = Vec::with_capacity(HEADER);
        self.reader.by_ref().take(HEADER as u64).read_to_end(&mut header)?;
        let Some((lengths, sum)) = header.split_at_checked(8).filter(|_| header.len() == HEADER) else {
            return Ok(if header.is_empty() { Next::End } else { Next::Torn });
        };
        let number = |bytes: &[u8]| bytes.try_into().map(u32::from_le_bytes).unwrap_or_default();
        let (length, turned) = lengths.split_at(4);
        let length = number(length);
        if length != !number(turned) {
            return self.what_is_wrong();
        }
        // No room is made by a length alone: it may be wrong.
        let mut record = Vec::new();
        self.reader.by_ref().take(u64::from(length)).read_to_end(&mut record)?;
        if record.len() < length as usize {
            return Ok(Next::Torn);
        }
        if checksum(lengths, &record) != number(sum) {
            return self.what_is_wrong();
        }
        self.at += HEADER as u64 + u64::from(length);
        Ok(Next::Record(record))
    }

    /// A record that is not right was not written to its end, when it is the last one.
    fn what_is_wrong(&mut self) -> io::Result<Next> {
        let mut more = [0; 1];
        Ok(if self.reader.read(&mut more)? == 0 { Next::Torn } else { Next::Damaged })
    }
}

#[cfg(test)]
mod tests;
