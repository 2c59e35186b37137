//! Where answers go: files that are there in full or not at all, or standard output.

use super::failure::Failure;
use super::output::OutputError;
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
    writer: BufWriter<Sink>,
}

#[derive(Debug)]
enum Sink {
    File(File),
    Stdout(io::Stdout),
}

/// Answers and failures in one stream could not be told from each other by those who read it.
///
/// # Errors
/// [`Failure`] when both are to go to standard output.
pub fn require_apart(answers: &Path, errors: Option<&Path>) -> Result<(), Failure> {
    match errors {
        Some(errors) if is_stdout(answers) && is_stdout(errors) => Err(Failure::usage(
            "the answers and the failures cannot both go to standard output: give -o or --errors a file",
        )),
        Some(errors) if errors == answers => {
            Err(Failure::usage(format!("-o and --errors are both {}: give each a file of its own", answers.display())))
        }
        _ => Ok(()),
    }
}

/// Whether these are standard output, by its usual name or as the system knows it.
#[must_use]
pub fn is_stdout(path: &Path) -> bool {
    ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|name| path == Path::new(name))
}

impl OutFile {
    /// Begins a file. One that exists is replaced only with `force`. `-` is standard output.
    pub fn create(target: &Path, force: bool) -> anyhow::Result<Self> {
        if is_stdout(target) {
            let writer = BufWriter::with_capacity(1 << 16, Sink::Stdout(io::stdout()));
            return Ok(Self { target: PathBuf::from("standard output"), part: None, writer });
        }
        let writing = || format!("writing {}", target.display());
        // A link stays one: what it leads to is replaced.
        let is_link = fs::symlink_metadata(target).is_ok_and(|found| found.is_symlink());
        let target = &if is_link { fs::canonicalize(target).with_context(writing)? } else { target.to_owned() };
        match fs::metadata(target) {
            Ok(found) if found.is_dir() => {
                return Err(Failure::usage(format!("{} is a folder", target.display())).into());
            }
            Ok(found) if !found.is_file() => {
                let file = File::options().write(true).open(target).with_context(writing)?;
                return Ok(Self { target: target.to_owned(), part: None, writer: BufWriter::new(Sink::File(file)) });
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
        let writer = BufWriter::with_capacity(1 << 16, Sink::File(file));
        Ok(Self { target: target.to_owned(), part: Some(part), writer })
    }

    /// Makes it appear under its own name.
    pub fn finish(mut self) -> anyhow::Result<()> {
        let finished = self.writer.flush().and_then(|()| match &self.part {
            None => Ok(()),
            Some(part) => {
                if let Sink::File(file) = self.writer.get_ref() {
                    file.sync_all()?;
                }
                fs::rename(part, &self.target)
            }
        });
        if matches!(self.writer.get_ref(), Sink::Stdout(_)) {
            finished.map_err(OutputError)?;
            return Ok(());
        }
        finished.with_context(|| format!("writing {}", self.target.display()))?;
        self.part = None;
        Ok(())
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stdout(stdout) => stdout.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Stdout(stdout) => stdout.flush(),
        }
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
    fn standard_output_is_no_file_and_a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
            assert!(is_stdout(Path::new(name)), "{name}");
            OutFile::create(Path::new(name), false).unwrap().finish().unwrap();
        }
        assert!(!is_stdout(Path::new("./-")) && !Path::new("-").exists());
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        OutFile::create(&link, true).unwrap().finish().unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
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
