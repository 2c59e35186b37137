//! The files for answers, which are there in full or not at all, or standard output.

mod earlier;

use super::failure::{CommandFailure, is_closed};
use super::output::OutputError;
use crate::part_file::{self, ALONE, BadTarget, begin_part, folder_of};
use crate::printable::{self, Notation, Printable};
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, IsTerminal as _, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A file that is being written under another name beside its own, and removed again unless it is finished.
///
/// Write errors are reported by [`finish`](Self::finish): so one of two files can succeed without the other.
#[derive(Debug)]
pub struct OutFile {
    target: PathBuf,
    /// The temporary file; `None` when the target is not a plain file (`/dev/null`, a named pipe) and is written
    /// directly.
    part: Option<PathBuf>,
    /// The fate of a file that has its name.
    earlier: Earlier,
    /// Why the rest was not written.
    lost: Option<io::Error>,
    writer: BufWriter<Sink>,
}

/// The fate of a file of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Earlier {
    /// It stays, and the command fails.
    Stays,
    /// The new one takes its place.
    Goes,
    /// The new one takes its place, and it is kept under another name if something is in it that the new one has not.
    IsKept,
}

#[derive(Debug)]
enum Sink {
    File(File),
    Stdout(io::Stdout),
    Terminal(Printable<io::Stdout>),
}

/// Checks that the files are different. Readers could not tell answers from failures in one stream, and the input must
/// not be overwritten while it is read.
///
/// # Errors
/// [`CommandFailure`] when two of them are the same file, under any name.
pub fn require_apart(answers: &Path, errors: Option<&Path>, input: Option<&Path>) -> Result<(), CommandFailure> {
    if let Some(errors) = errors {
        if is_stdout(answers) && is_stdout(errors) {
            return Err(CommandFailure::usage(
                "the answers and the failures cannot both go to standard output: give -o or --errors a file",
            ));
        }
        if errors == answers || are_same(errors, answers) {
            let errors = errors.display();
            return Err(CommandFailure::usage(format!(
                "-o and --errors are both {errors}: give each a file of its own"
            )));
        }
    }
    let Some(input) = input else { return Ok(()) };
    for (option, output) in [("-o", Some(answers)), ("--errors", errors)] {
        if let Some(output) = output.filter(|output| are_same(input, output)) {
            return Err(CommandFailure::usage(format!(
                "{option} {} is the file that is read: its requests would be lost; give the output a file of its own",
                output.display()
            )));
        }
    }
    Ok(())
}

/// The file that a path leads to.
#[derive(PartialEq, Eq)]
enum Identity {
    Existing(u64, u64),
    ToCome(PathBuf),
}

fn are_same(one: &Path, other: &Path) -> bool {
    let of = |path: &Path, stream: &str| identity(if path == Path::new("-") { Path::new(stream) } else { path });
    matches!((of(one, "/dev/stdin"), of(other, "/dev/stdout")), (Some(one), Some(other)) if one == other)
}

/// The identity of a plain file. `None` for anything else: a terminal may be read and written.
fn identity(path: &Path) -> Option<Identity> {
    if let Ok(found) = fs::metadata(path) {
        return found.is_file().then(|| Identity::Existing(found.dev(), found.ino()));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Some(Identity::ToCome(fs::canonicalize(folder).ok()?.join(path.file_name()?)))
}

/// Whether these are standard output, by its usual name or as the system knows it.
#[must_use]
pub fn is_stdout(path: &Path) -> bool {
    ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|name| path == Path::new(name))
}

impl OutFile {
    /// Begins a file. An existing one is replaced only with `force`. `-` is standard output.
    ///
    /// # Errors
    /// [`CommandFailure`] when it cannot be written there, or exists.
    pub fn create(target: &Path, force: bool) -> anyhow::Result<Self> {
        Self::begin(target, if force { Earlier::Goes } else { Earlier::Stays })
    }

    /// Begins a file. `-` is standard output.
    ///
    /// # Errors
    /// [`CommandFailure`] when it cannot be written there, or exists and stays.
    pub fn begin(target: &Path, earlier: Earlier) -> anyhow::Result<Self> {
        if is_stdout(target) {
            let stdout = printable::stdout();
            // Lines of JSON, which keep their meaning when a user copies them from there.
            let sink = if stdout.is_terminal() {
                Sink::Terminal(Printable::new(stdout, Notation::Json))
            } else {
                Sink::Stdout(stdout)
            };
            return Ok(Self::of(Path::new("standard output"), None, earlier, sink));
        }
        let target = &plain_target(target)?;
        let unwritten = |error| unwritten(target, error);
        match fs::metadata(target) {
            Ok(found) if !found.is_file() => {
                let file = File::options().write(true).open(target).map_err(unwritten)?;
                return Ok(Self::of(target, None, earlier, Sink::File(file)));
            }
            Ok(_) if earlier == Earlier::Stays => {
                let message = format!("{} exists already; --force replaces it", target.display());
                return Err(CommandFailure::usage(message).into());
            }
            Ok(_) | Err(_) => {}
        }
        let (part, file) = begin_part(target, ALONE).map_err(|error| match error.kind() {
            ErrorKind::NotFound => no_folder(target).into(),
            // Without the name of the part, which is of no use to a user.
            kind => unwritten(io::Error::from(kind)),
        })?;
        // An existing file keeps its mode, since that was chosen; a new one is this user's alone.
        if let Ok(found) = fs::metadata(target) {
            file.set_permissions(found.permissions()).map_err(unwritten)?;
        }
        Ok(Self::of(target, Some(part), earlier, Sink::File(file)))
    }

    fn of(target: &Path, part: Option<PathBuf>, earlier: Earlier, sink: Sink) -> Self {
        let writer = BufWriter::with_capacity(1 << 16, sink);
        Self { target: target.to_owned(), part, earlier, lost: None, writer }
    }

    /// Makes the file appear under its own name. Returns the name under which an earlier one was kept, where it was.
    ///
    /// # Errors
    /// When it could not be written, or when another file has taken its name meanwhile and must not be replaced.
    pub fn finish(mut self) -> anyhow::Result<Option<PathBuf>> {
        let written = match self.lost.take() {
            Some(error) => Err(error),
            None => self.writer.flush(),
        };
        let file = match self.writer.get_ref() {
            Sink::Stdout(_) | Sink::Terminal(_) => {
                return written.map(|()| None).map_err(|error| OutputError(error).into());
            }
            Sink::File(file) => file,
        };
        let published = written.and_then(|()| {
            let Some(part) = &self.part else { return Ok(None) };
            file.sync_all()?;
            publish(part, &self.target, self.earlier)
        });
        let kept = match published {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => anyhow::bail!(
                "{} has come into being meanwhile, and was left as it is: another command has written it. Write to \
                 another file; --force replaces it",
                self.target.display()
            ),
            published => published.map_err(|error| unwritten(&self.target, error))?,
        };
        self.part = None;
        Ok(kept)
    }

    /// Finishes several files, of which one may fail without the others. Returns remarks on earlier files that were
    /// kept.
    ///
    /// # Errors
    /// The error of one that failed.
    pub fn finish_all(files: impl IntoIterator<Item = Self>) -> anyhow::Result<Vec<String>> {
        let (mut ended, mut remarks) = (Ok(()), Vec::new());
        for file in files {
            let target = file.target.display().to_string();
            match file.finish() {
                Ok(Some(kept)) => remarks.push(format!(
                    "{target} had lines that the new file has not (they were edited, their jobs tried again, or their \
                     rows left out): as it was, it is kept as {}",
                    kept.display()
                )),
                // A reader that went away is the lesser error.
                Err(error) if ended.as_ref().map_or_else(is_closed, |()| true) => ended = Err(error),
                Ok(None) | Err(_) => {}
            }
        }
        ended.map(|()| remarks)
    }
}

/// Why a file is not written, and what to do about it.
pub(super) fn unwritten(target: &Path, error: io::Error) -> anyhow::Error {
    let target = target.display();
    match part_file::hindrance(error.kind()) {
        Some(what) => anyhow::anyhow!("writing {target}: {what}"),
        None => anyhow::Error::from(error).context(format!("writing {target}")),
    }
}

/// The file that is written when this one is named. A link remains: the file that it leads to is written.
///
/// # Errors
/// [`CommandFailure`] when it is a folder, or a link that other users could have made.
pub(super) fn plain_target(target: &Path) -> anyhow::Result<PathBuf> {
    part_file::plain_target(target).map_err(|fault| match fault {
        BadTarget::Refused(message) => CommandFailure::usage(message).into(),
        BadTarget::Io(error) => anyhow::Error::from(error).context(format!("writing {}", target.display())),
    })
}

/// Checks that the folder of a file is there.
///
/// # Errors
/// [`CommandFailure`] when it is not.
pub fn require_folder(target: &Path) -> Result<(), CommandFailure> {
    if is_stdout(target) || folder_of(target).is_dir() { Ok(()) } else { Err(no_folder(target)) }
}

fn no_folder(target: &Path) -> CommandFailure {
    CommandFailure::usage(format!("there is no folder {} for {}", folder_of(target).display(), target.display()))
}

/// Gives a finished file its name in one atomic step, so that the second of two commands with one target gets an error.
/// Returns the name under which an earlier file was kept.
fn publish(part: &Path, target: &Path, earlier: Earlier) -> io::Result<Option<PathBuf>> {
    match earlier {
        Earlier::Goes => return fs::rename(part, target).map(|()| None),
        Earlier::IsKept if fs::metadata(target).is_ok() => {
            let kept = if earlier::is_within(target, part)? { None } else { Some(earlier::keep(target)?) };
            return fs::rename(part, target).map(|()| kept);
        }
        Earlier::IsKept | Earlier::Stays => {}
    }
    match fs::hard_link(part, target) {
        Ok(()) => {
            // The file is there; that it has a second name is a blemish.
            let _ = fs::remove_file(part);
            Ok(None)
        }
        Err(_) if fs::symlink_metadata(target).is_ok() => Err(ErrorKind::AlreadyExists.into()),
        // Not every file system has links.
        Err(_) => fs::rename(part, target).map(|()| None),
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stdout(stdout) => stdout.write(bytes),
            Self::Terminal(terminal) => terminal.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Stdout(stdout) => stdout.flush(),
            Self::Terminal(terminal) => terminal.flush(),
        }
    }
}

impl Write for OutFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.lost.is_none() {
            self.lost = self.writer.write_all(bytes).err();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.lost.is_none() {
            self.lost = self.writer.flush().err();
        }
        Ok(())
    }
}

impl Drop for OutFile {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            // No reader knows this name; a file that stays is a blemish.
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
    fn a_folder_that_is_missing_is_named_and_no_unfinished_file() {
        let dir = tempfile::tempdir().unwrap();
        let told = OutFile::create(&dir.path().join("none/out.jsonl"), false).unwrap_err().to_string();
        let folder = dir.path().join("none");
        assert_eq!(told, format!("there is no folder {} for {}", folder.display(), folder.join("out.jsonl").display()));
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
    fn a_file_that_came_meanwhile_is_replaced_only_by_force() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        for (force, left) in [(false, "theirs"), (true, "ours")] {
            let _ = fs::remove_file(&path);
            let mut file = OutFile::create(&path, force).unwrap();
            file.write_all(b"ours").unwrap();
            // Another command of the same process, begun and finished meanwhile.
            let mut other = OutFile::create(&path, false).unwrap();
            other.write_all(b"theirs").unwrap();
            other.finish().unwrap();
            let told = file.finish().map_err(|error| error.to_string());
            assert_eq!(told.as_ref().is_err_and(|told| told.contains("was left as it is")), !force, "{told:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), left);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no part is left");
        }
    }

    #[test]
    fn a_file_that_is_replaced_keeps_its_mode() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        OutFile::create(&path, true).unwrap().finish().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
    }

    #[test]
    fn a_file_that_cannot_be_written_does_not_keep_the_other_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let (mut full, mut file) =
            (OutFile::create(Path::new("/dev/full"), false).unwrap(), OutFile::create(&path, false).unwrap());
        for _ in 0..100_000 {
            full.write_all(b"more").unwrap();
        }
        file.write_all(b"all").unwrap();
        let error = OutFile::finish_all([full, file]).unwrap_err().to_string();
        assert!(error.contains("/dev/full"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "all");
    }

    #[test]
    fn what_is_read_is_not_written_over_by_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("in"), "").unwrap();
        fs::hard_link(at("in"), at("hard")).unwrap();
        std::os::unix::fs::symlink(at("in"), at("soft")).unwrap();
        let out = at("out");
        for name in ["in", "hard", "soft", "sub/../in"] {
            let told = require_apart(&at(name), None, Some(&at("in"))).unwrap_err().to_string();
            assert!(told.contains("is the file that is read"), "{told}");
            assert!(require_apart(&out, Some(&at(name)), Some(&at("in"))).is_err(), "{name}");
        }
        assert!(require_apart(&out, Some(&at("sub/../out")), None).is_err(), "neither is there yet");
        for (errors, input) in [(None, None), (Some(at("errors")), Some(at("in")))] {
            require_apart(&out, errors.as_deref(), input.as_deref()).unwrap();
        }
        let null = Path::new("/dev/null");
        require_apart(null, None, Some(null)).unwrap();
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
