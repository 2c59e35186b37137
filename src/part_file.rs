//! Files that are there in full or not at all: they are written under another name beside their own, which they get
//! when they are finished.

use crate::permissions::{forgeable, open_plain};
use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The text between the name of a target and the part that distinguishes its unfinished files.
const PART: &str = ".part-";

/// The rights of a new file that is its user's alone.
pub const ALONE: u32 = 0o600;

/// The rights of a new file that the users may read whom the process's umask allows it.
pub const AS_UMASK_SAYS: u32 = 0o666;

/// Why a file is not written under a name.
#[derive(Debug, thiserror::Error)]
pub enum BadTarget {
    /// The name leads where nothing should be written.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The file that is written when this one is named. A link remains: the file that it leads to is written.
///
/// # Errors
/// It is a folder, or a link that other users could have made.
pub fn plain_target(target: &Path) -> Result<PathBuf, BadTarget> {
    let link = fs::symlink_metadata(target).ok().filter(fs::Metadata::is_symlink);
    if let Some(exposed) = link.as_ref().and_then(|found| forgeable(target, found)) {
        let message = format!("{} is a link, and it {}: nothing is written there", target.display(), exposed.problem());
        return Err(BadTarget::Refused(message));
    }
    let target = if link.is_some() { fs::canonicalize(target)? } else { target.to_owned() };
    if fs::metadata(&target).is_ok_and(|found| found.is_dir()) {
        return Err(BadTarget::Refused(format!("{} is a folder", target.display())));
    }
    Ok(target)
}

/// What keeps a file from being written, and what to do about it; `None`: the system's words have to do.
#[must_use]
pub fn hindrance(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::StorageFull => "the disk is full: make room there, or choose another file",
        ErrorKind::QuotaExceeded => "this user's share of the disk is used up: make room there, or choose another file",
        ErrorKind::ReadOnlyFilesystem => "the disk there is read-only: choose another file",
        ErrorKind::PermissionDenied => {
            "this user may not write there: choose another file, or correct the rights of its folder"
        }
        ErrorKind::FileTooLarge => {
            "it would become larger than this process may make a file (`ulimit -f` tells how large), or than the disk \
             takes: raise that limit, or choose another file"
        }
        _ => return None,
    })
}

/// The folder of a file.
#[must_use]
pub fn folder_of(target: &Path) -> &Path {
    target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a new file beside the target with these rights, less the umask, locked for as long as it is open. Its name is
/// unpredictable, and an existing file is neither used nor followed.
///
/// # Errors
/// The folder is not there, or does not take it.
pub fn begin_part(target: &Path, rights: u32) -> io::Result<(PathBuf, File)> {
    sweep(target);
    let mut begin = target.file_name().unwrap_or_default().to_owned();
    begin.push(PART);
    begin.push(format!("{}-", std::process::id()));
    for _ in 0..100 {
        let (file, part) = tempfile::Builder::new()
            .prefix(&begin)
            .rand_bytes(12)
            .permissions(Permissions::from_mode(rights))
            .tempfile_in(folder_of(target))?
            .keep()
            .map_err(|error| error.error)?;
        // Where nothing can be locked, nothing is swept either.
        let _ = file.try_lock();
        let (ours, there) = (file.metadata()?, fs::symlink_metadata(&part));
        // Otherwise another process has swept the file away just before it was locked.
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
            return Ok((part, file));
        }
    }
    Err(ErrorKind::ResourceBusy.into())
}

/// Removes unfinished files of this target that killed processes of this user have left behind: no process holds their
/// locks any more.
fn sweep(target: &Path) {
    let Some(name) = target.file_name() else { return };
    let begin = format!("{}{PART}", name.to_string_lossy());
    let me = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(folder_of(target)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_part = name.to_string_lossy().strip_prefix(&begin).is_some_and(is_tail_of_part);
        if is_part
            && let Ok(file) = open_plain(&entry.path(), File::options().write(true))
            && file.metadata().is_ok_and(|found| found.uid() == me)
            && file.try_lock().is_ok()
        {
            // One that stays is a blemish.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A process id and a random part or, from earlier versions, a process id and a number.
fn is_tail_of_part(tail: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match tail.split_once('-') {
        None => is_number(tail),
        Some((process, rest)) => {
            let is_chance = rest.len() == 12 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric());
            is_number(process) && (is_number(rest) || is_chance)
        }
    }
}

/// Writes a file that takes the place of an earlier one, so that readers see it in full, or as it was before. It is
/// flushed to the disk, and so is its name. `is_wanted` is asked last, just before the file gets its name: a disk may
/// have held it up until its tick waits no more, or until a newer one is there.
///
/// # Errors
/// The name leads to something else than a file, the file cannot be written, or it is not wanted any more. Nothing is
/// left of it then.
pub fn write_in_full(
    target: &Path,
    rights: u32,
    is_wanted: impl FnOnce() -> bool,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), BadTarget> {
    let target = &plain_target(target)?;
    let earlier = fs::metadata(target).ok();
    if earlier.as_ref().is_some_and(|found| !found.is_file()) {
        return Err(BadTarget::Refused(format!("{} is no plain file", target.display())));
    }
    let (part, file) = begin_part(target, rights)?;
    let published = publish(&part, target, &file, earlier.as_ref(), is_wanted, write);
    if published.is_err() {
        // No reader knows this name; a file that stays is a blemish.
        let _ = fs::remove_file(&part);
    }
    published.map_err(BadTarget::Io)
}

fn publish(
    part: &Path,
    target: &Path,
    file: &File,
    earlier: Option<&fs::Metadata>,
    is_wanted: impl FnOnce() -> bool,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    // The mode of an earlier one was chosen.
    if let Some(found) = earlier {
        file.set_permissions(found.permissions())?;
    }
    let mut writer = BufWriter::new(file);
    write(&mut writer)?;
    writer.flush()?;
    file.sync_all()?;
    if !is_wanted() {
        return Err(io::Error::new(ErrorKind::TimedOut, "its tick waits for it no more"));
    }
    fs::rename(part, target)?;
    // So that the name, too, outlives a loss of power.
    File::open(folder_of(target))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_a_killed_process_left_is_swept_and_what_is_being_written_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        for name in ["out.jsonl.part-1", "out.jsonl.part-2-3", "out.jsonl.part-of-mine", "other.jsonl.part-1"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let (first, second) = (begin_part(&path, ALONE).unwrap(), begin_part(&path, ALONE).unwrap());
        let names = names(dir.path());
        let ours = format!("out.jsonl.part-{}-", std::process::id());
        assert_eq!((names.len(), names[0].as_str()), (4, "other.jsonl.part-1"), "{names:?}");
        assert_eq!(names[3], "out.jsonl.part-of-mine", "{names:?}");
        assert!(names[1..3].iter().all(|name| name.starts_with(&ours)), "{names:?}");
        drop((first, second));
    }

    #[test]
    fn a_file_takes_the_place_of_an_earlier_one_with_its_mode_and_a_link_remains() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("a.csv"), dir.path().join("link.csv"));
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write_in_full(&link, ALONE, || true, |file| file.write_all(b"new")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(names(dir.path()), ["a.csv", "link.csv"]);
    }

    #[test]
    fn where_nothing_can_be_written_the_earlier_one_is_left_and_the_reason_told() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a.csv"), "old").unwrap();
        fs::create_dir(at("folder.csv")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(at("pipe.csv")).status().unwrap().success());
        let full = |name: &str| write_in_full(&at(name), ALONE, || true, |_| Err(ErrorKind::StorageFull.into()));
        let told = |name: &str| full(name).unwrap_err();
        assert!(matches!(told("a.csv"), BadTarget::Io(error) if error.kind() == ErrorKind::StorageFull));
        assert!(matches!(told("none/a.csv"), BadTarget::Io(error) if error.kind() == ErrorKind::NotFound));
        for (name, expected) in [("folder.csv", "is a folder"), ("pipe.csv", "is no plain file")] {
            assert!(told(name).to_string().ends_with(expected), "{name}: {}", told(name));
        }
        assert_eq!(fs::read_to_string(at("a.csv")).unwrap(), "old");
        assert_eq!(names(dir.path()), ["a.csv", "folder.csv", "pipe.csv"]);
    }

    #[test]
    fn a_link_that_another_user_made_is_not_followed() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (victim, link) = (dir.path().join("victim.csv"), dir.path().join("a.csv"));
        fs::write(&victim, "theirs").unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(65_534), None).unwrap();
        let told = write_in_full(&link, ALONE, || true, |file| file.write_all(b"ours")).unwrap_err().to_string();
        assert!(told.contains("is a link, and it belongs to the user with the number 65534"), "{told}");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "theirs");
    }
}
