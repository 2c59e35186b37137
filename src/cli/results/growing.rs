//! A file that grows by whole lines, and that the same command goes on with.

use crate::cli::failure::CommandFailure;
use crate::cli::out_file::{plain_target, unwritten};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead as _, BufReader, ErrorKind, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The file. It has its own name from the beginning, and at any moment only whole lines: one that a crash has torn is
/// removed when the file is opened again.
#[derive(Debug)]
pub(super) struct GrowingFile {
    path: PathBuf,
    file: File,
}

impl GrowingFile {
    /// Opens a file, and gives each of its lines to `line`, which says whether a row ends with it: cells of a table may
    /// have line breaks. With `force` a file that exists is begun anew. A torn end is removed only if it begins as
    /// `begins` says.
    ///
    /// # Errors
    /// [`CommandFailure`] when another command writes it, or when `line` does not know a line.
    pub(super) fn open(
        target: &Path,
        force: bool,
        begins: Begins<'_>,
        mut line: impl FnMut(&str) -> Result<bool, String>,
    ) -> anyhow::Result<Self> {
        let path = plain_target(target)?;
        let of_path = |error| unwritten(&path, error);
        if std::fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
            let file = OpenOptions::new().write(true).open(&path).map_err(of_path)?;
            return Ok(Self { path, file });
        }
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(of_path)?;
        // Where nothing can be locked, two commands may write it at once.
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            let words = format!("another command is writing {}", path.display());
            return Err(CommandFailure::usage(words).into());
        }
        if force {
            file.set_len(0).map_err(of_path)?;
        }
        let whole = whole_lines(&file, begins, &mut line).map_err(|fault| match fault {
            Fault::Io(error) => of_path(error),
            Fault::Line(number, what) => CommandFailure::usage(format!(
                "{}, line {number}: {what}; nothing was written. Choose another -o; --force begins the file anew",
                path.display()
            ))
            .into(),
        })?;
        file.set_len(whole).map_err(of_path)?;
        file.seek(SeekFrom::Start(whole)).map_err(of_path)?;
        Ok(Self { path, file })
    }

    /// Adds whole lines.
    pub(super) fn add(&mut self, lines: &[u8]) -> anyhow::Result<()> {
        self.file.write_all(lines).map_err(|error| unwritten(&self.path, error))
    }

    /// Makes sure that all lines are on disk.
    pub(super) fn sync(&self) -> anyhow::Result<()> {
        match self.file.sync_data() {
            // A pipe is not on a disk.
            Err(error) if error.kind() != ErrorKind::InvalidInput => Err(unwritten(&self.path, error)),
            _ => Ok(()),
        }
    }
}

/// How lines begin: the first, and each of the others. Nothing: in any way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begins<'a> {
    pub first: &'a str,
    pub others: &'a str,
}

impl<'a> Begins<'a> {
    /// All in the same way.
    pub(super) fn all(begin: &'a str) -> Self {
        Self { first: begin, others: begin }
    }
}

/// The message about a line that is not one of such an export.
pub(super) const NOT_OURS: &str = "is no line of this export";

enum Fault {
    Io(std::io::Error),
    Line(u64, String),
}

/// The length of all whole lines together.
fn whole_lines(
    file: &File,
    begins: Begins<'_>,
    line: &mut impl FnMut(&str) -> Result<bool, String>,
) -> Result<u64, Fault> {
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let (mut whole, mut all, mut number) = (0, 0, 0);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let read = reader.read_until(b'\n', &mut bytes).map_err(Fault::Io)?;
        number += 1;
        let Some(text) = bytes.strip_suffix(b"\n") else {
            let begin = if all == 0 { begins.first } else { begins.others };
            let shared = bytes.len().min(begin.len());
            // Not one row of it is known: then it is something else.
            let is_other = all > 0 && whole == 0;
            let is_ours = !is_other && bytes.get(..shared) == begin.as_bytes().get(..shared);
            return if is_ours { Ok(whole) } else { Err(Fault::Line(number, NOT_OURS.to_owned())) };
        };
        let text = std::str::from_utf8(text).map_err(|_| Fault::Line(number, NOT_OURS.to_owned()))?;
        let ends = line(text).map_err(|what| Fault::Line(number, what))?;
        all += u64::try_from(read).unwrap_or(0);
        if ends {
            whole = all;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_torn_line_is_removed_and_whole_ones_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        fs::write(&path, "one\ntwo\nthr").unwrap();
        let mut told = Vec::new();
        let mut file = GrowingFile::open(&path, false, Begins::all("three"), |line| {
            told.push(line.to_owned());
            Ok(true)
        })
        .unwrap();
        assert_eq!(told, ["one", "two"]);
        let open = |force, begin: &str, known: bool| {
            let line = |_: &str| if known { Ok(true) } else { Err("is strange".to_owned()) };
            GrowingFile::open(&path, force, Begins::all(begin), line).map_err(|error| error.to_string())
        };
        let again = open(false, "three", true).unwrap_err();
        assert!(again.contains("another command is writing"), "{again}");
        file.add(b"three\n").unwrap();
        file.sync().unwrap();
        let left = || fs::read_to_string(&path).unwrap();
        assert_eq!(left(), "one\ntwo\nthree\n");
        drop(file);
        let refused = open(false, "three", false).unwrap_err();
        assert!(refused.contains("line 1: is strange; nothing was written"), "{refused}");
        assert_eq!(left(), "one\ntwo\nthree\n");
        drop(open(true, "three", false).unwrap());
        assert_eq!(left(), "");
    }

    #[test]
    fn a_text_that_is_not_ours_is_not_taken_for_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.txt");
        fs::write(&path, "dear diary").unwrap();
        let refused = GrowingFile::open(&path, false, Begins::all("{\"id\":"), |_| Ok(true)).unwrap_err().to_string();
        assert!(refused.contains("line 1: is no line of this export"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "dear diary");
    }

    #[test]
    fn a_row_of_several_lines_is_whole_or_removed_and_other_texts_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.csv");
        let open = || {
            let mut quotes = 0;
            let begins = Begins { first: "a,b", others: "" };
            GrowingFile::open(&path, false, begins, |line| {
                quotes += line.matches('"').count();
                Ok(quotes % 2 == 0)
            })
            .map_err(|error| error.to_string())
        };
        fs::write(&path, "a,b\n1,\"x\ny\"\n2,\"to\nrn").unwrap();
        drop(open().unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "a,b\n1,\"x\ny\"\n");
        for other in ["\"a diary\nof mine\n", "dear diary"] {
            fs::write(&path, other).unwrap();
            assert!(open().unwrap_err().contains("is no line of this export"), "{other}");
            assert_eq!(fs::read_to_string(&path).unwrap(), other);
        }
    }
}
