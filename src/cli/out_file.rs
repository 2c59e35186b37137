//! Files that are there in full or not at all.

use super::failure::Failure;
use anyhow::Context as _;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A file that is being written under another name beside its own; removed again unless it is finished.
#[derive(Debug)]
pub struct OutFile {
    target: PathBuf,
    /// `None` when the target is no plain file (`/dev/null`, a named pipe) and is written directly.
    part: Option<PathBuf>,
    writer: BufWriter<File>,
}

impl OutFile {
    /// Begins a file. One that exists is replaced only with `force`.
    pub fn create(target: &Path, force: bool) -> anyhow::Result<Self> {
        let writing = || format!("writing {}", target.display());
        match fs::metadata(target) {
            Ok(found) if found.is_dir() => {
                return Err(Failure::usage(format!("{} is a folder", target.display())).into());
            }
            Ok(found) if !found.is_file() => {
                let file = File::options().write(true).open(target).with_context(writing)?;
                return Ok(Self { target: target.to_owned(), part: None, writer: BufWriter::new(file) });
            }
            Ok(_) if !force => {
                let message = format!("{} exists already; --force replaces it", target.display());
                return Err(Failure::usage(message).into());
            }
            Ok(_) | Err(_) => {}
        }
        let mut name = OsString::from(target);
        name.push(format!(".part-{}", std::process::id()));
        let part = PathBuf::from(name);
        let file = File::create(&part).with_context(writing)?;
        Ok(Self { target: target.to_owned(), part: Some(part), writer: BufWriter::with_capacity(1 << 16, file) })
    }

    /// Makes it appear under its own name.
    pub fn finish(mut self) -> anyhow::Result<()> {
        let finished = self.writer.flush().and_then(|()| match &self.part {
            None => Ok(()),
            Some(part) => {
                self.writer.get_ref().sync_all()?;
                fs::rename(part, &self.target)
            }
        });
        finished.with_context(|| format!("writing {}", self.target.display()))?;
        self.part = None;
        Ok(())
    }
}

impl Write for OutFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Drop for OutFile {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            // Nobody knows of it; that it stays is a blemish.
            let _ = fs::remove_file(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_when_it_is_finished_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let files = || fs::read_dir(dir.path()).unwrap().count();
        let mut file = OutFile::create(&path, false).unwrap();
        file.write_all(b"one").unwrap();
        assert!(!path.exists());
        drop(file);
        assert_eq!(files(), 0);
        let mut file = OutFile::create(&path, false).unwrap();
        file.write_all(b"two").unwrap();
        file.finish().unwrap();
        assert_eq!((fs::read(&path).unwrap().as_slice(), files()), (&b"two"[..], 1));
    }

    #[test]
    fn what_exists_is_replaced_only_by_force() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        fs::write(&path, "old").unwrap();
        assert!(OutFile::create(&path, false).unwrap_err().to_string().contains("--force"));
        OutFile::create(&path, true).unwrap().finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
        assert!(OutFile::create(dir.path(), true).is_err());
        OutFile::create(Path::new("/dev/null"), false).unwrap().finish().unwrap();
    }
}
