//! The file whose place another one takes: whether everything in it is in the other one, and a name to keep it under.

use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

/// Whether every line of the earlier file is in the later one, in the same order: then nothing is lost with it.
///
/// An export that is written again is the same or has more lines. One that was edited has lines that the new one has
/// not; so has one whose jobs were retried meanwhile.
pub(super) fn is_within(earlier: &Path, later: &Path) -> io::Result<bool> {
    let (mut old, mut new) = (Lines::of(earlier)?, Lines::of(later)?);
    while let Some(line) = old.read()? {
        loop {
            match new.read()? {
                Some(other) if other == line => break,
                Some(_) => {}
                None => return Ok(false),
            }
        }
    }
    Ok(true)
}

/// Gives a file a second name beside its own, one that is free: `NAME.before`, or `NAME.before-2` and so on.
pub(super) fn keep(file: &Path) -> io::Result<PathBuf> {
    for number in 1..10_000 {
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(".before");
        if number > 1 {
            name.push(format!("-{number}"));
        }
        let kept = file.with_file_name(name);
        match fs::hard_link(file, &kept) {
            Ok(()) => return Ok(kept),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            // Not every file system has links.
            Err(_) => match File::options().write(true).create_new(true).open(&kept) {
                Ok(_) => {
                    let copied = fs::copy(file, &kept);
                    if copied.is_err() {
                        // Half a copy is of no use.
                        let _ = fs::remove_file(&kept);
                    }
                    return copied.map(|_| kept);
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            },
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// The lines of a file, each as its digest: a line may be longer than memory.
struct Lines(BufReader<File>);

impl Lines {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self(BufReader::with_capacity(1 << 16, File::open(path)?)))
    }

    fn read(&mut self) -> io::Result<Option<[u8; 32]>> {
        let (mut digest, mut is_empty) = (Sha256::new(), true);
        loop {
            let bytes = self.0.fill_buf()?;
            if bytes.is_empty() {
                return Ok((!is_empty).then(|| digest.finalize().into()));
            }
            is_empty = false;
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            digest.update(part);
            let read = end.map_or(part.len(), |end| end + 1);
            self.0.consume(read);
            if end.is_some() {
                return Ok(Some(digest.finalize().into()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_later_file_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        let long = "x".repeat(200_000);
        for (before, after, expected) in [
            ("", "", true),
            ("", "a\n", true),
            ("a\nb\n", "a\nb\n", true),
            ("a\nc", "a\nb\nc\n", true),
            ("a\na\n", "a\nb\n", false),
            ("b\na\n", "a\nb\n", false),
            ("a\nB\n", "a\nb\n", false),
            ("a\n\n", "a\n", false),
            (&format!("{long}\n{long}y\n"), &format!("{long}\nz\n{long}y\n"), true),
            (&format!("{long}y\n"), &format!("{long}\n"), false),
        ] {
            fs::write(&old, before).unwrap();
            fs::write(&new, after).unwrap();
            assert_eq!(is_within(&old, &new).unwrap(), expected, "{before:.9} in {after:.9}");
        }
    }

    #[test]
    fn a_file_is_kept_under_a_name_that_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.csv");
        for (text, name) in [("one", "out.csv.before"), ("two", "out.csv.before-2"), ("three", "out.csv.before-3")] {
            fs::write(&path, text).unwrap();
            assert_eq!(keep(&path).unwrap(), dir.path().join(name));
            // As a finished file takes its place: in one step, and not by writing into it.
            fs::remove_file(&path).unwrap();
            assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), text);
        }
    }
}
