//! Where jobs are read from: a file or standard input, plain or compressed.

use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const BUFFER_BYTES: usize = 256 << 10;
/// How much of a source is looked at, at most, before it is read.
const BEGIN_BYTES: usize = 4 << 10;
/// The bytes by which a format is known, at most.
const LONGEST_MAGIC: usize = 4;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A file, or standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputSource {
    /// Standard input, written `-`.
    Stdin,
    File(PathBuf),
}

impl InputSource {
    /// `-` and nothing at all are standard input.
    #[must_use]
    pub fn new(path: Option<&Path>) -> Self {
        match path {
            None => Self::Stdin,
            Some(path) if path == Path::new("-") => Self::Stdin,
            Some(path) => Self::File(path.to_owned()),
        }
    }

    /// The name in messages.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Stdin => "stdin".to_owned(),
            Self::File(path) => {
                // Line breaks in it would begin a line of the message.
                let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
                path.display().to_string().chars().map(shown).collect()
            }
        }
    }

    /// The file's name without folder and endings (`.jsonl`, `.gz`); `None` for standard input and other pipes.
    #[must_use]
    pub fn stem(&self) -> Option<String> {
        let Self::File(path) = self else { return None };
        // A pipe such as /dev/stdin or <(…) has a name that says nothing of its content.
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return None;
        }
        let name = path.file_name()?.to_string_lossy();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        let stem = Path::new(name).file_stem()?.to_string_lossy();
        // It becomes the name of a batch, which people type again as they see it.
        let stem = stem.chars().map(|c| if c.is_control() { '_' } else { c }).collect::<String>();
        (!stem.is_empty()).then_some(stem)
    }

    /// Opens the source; decompresses gzip, which is recognised by its first two bytes.
    ///
    /// # Errors
    /// The source cannot be opened, or is a folder, or UTF-16.
    pub fn open(&self) -> io::Result<(Box<dyn BufRead + Send>, Progress)> {
        self.open_if(refuse_utf16)
    }

    /// Opens the source as [`open`](Self::open) does, with any text in it.
    ///
    /// # Errors
    /// The source cannot be opened, or is a folder.
    pub(super) fn open_bytes(&self) -> io::Result<(Box<dyn BufRead + Send>, Progress)> {
        self.open_if(|_| Ok(()))
    }

    fn open_if(&self, check: impl Fn(&[u8]) -> io::Result<()>) -> io::Result<(Box<dyn BufRead + Send>, Progress)> {
        let done = Arc::new(AtomicU64::new(0));
        let (raw, total): (Box<dyn Read + Send>, _) = match self {
            Self::Stdin => (Box::new(io::stdin()), None),
            Self::File(path) => {
                let (file, size) = open_file(path)?;
                (Box::new(file), size)
            }
        };
        let counted = Counted { inner: raw, done: Arc::clone(&done) };
        Ok((decompressed(counted, check)?, Progress { done, total }))
    }

    /// The ending of the file's name in small letters, without `.gz`.
    pub(super) fn ending(&self) -> Option<String> {
        let Self::File(path) = self else { return None };
        let name = path.file_name()?.to_string_lossy().to_lowercase();
        let (_, ending) = name.strip_suffix(".gz").unwrap_or(&name).rsplit_once('.')?;
        Some(ending.to_owned())
    }
}

/// Opens a file that is no folder; its size, if it has one.
pub(super) fn open_file(path: &Path) -> io::Result<(File, Option<u64>)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a folder, not a file"));
    }
    let size = metadata.is_file().then_some(metadata.len());
    Ok((file, size))
}

/// Refuses JSON that is spread over lines (an array, or one request that was printed for people), with one message in
/// place of one for each line.
pub(super) fn refuse_spread(reader: &mut impl BufRead) -> io::Result<()> {
    let begin = reader.fill_buf()?;
    let begin = begin.strip_prefix(b"\xef\xbb\xbf").unwrap_or(begin).trim_ascii_start();
    let ends = begin.iter().position(|byte| *byte == b'\n');
    let line = begin.get(..ends.unwrap_or(begin.len())).unwrap_or(begin).trim_ascii_end();
    let breaks_off = || serde_json::from_slice::<serde::de::IgnoredAny>(line).is_err_and(|error| error.is_eof());
    let is_spread = match line {
        // An array that is whole on its line is just a faulty line.
        [b'[', ..] => breaks_off(),
        b"{" => ends.is_some(),
        _ => false,
    };
    if !is_spread {
        return Ok(());
    }
    let what = if line.first() == Some(&b'[') { "an array" } else { "an object" };
    let elements = if line.first() == Some(&b'[') { ".[]" } else { "." };
    let reason = format!(
        "is {what} of JSON that goes on over several lines; expected JSON Lines: on each line one whole request. \
         `jq -c '{elements}' FILE` writes it so"
    );
    Err(io::Error::new(io::ErrorKind::InvalidData, reason))
}

/// How much of a source was read, in bytes as they are stored.
#[derive(Clone, Debug)]
pub struct Progress {
    pub(super) done: Arc<AtomicU64>,
    /// The size of the source; unknown for a pipe.
    pub total: Option<u64>,
}

impl Progress {
    /// Bytes read so far.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

struct Counted<R> {
    inner: R,
    done: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.done.fetch_add(u64::try_from(read).unwrap_or(0), Ordering::Relaxed);
        Ok(read)
    }
}

fn refuse_utf16(begin: &[u8]) -> io::Result<()> {
    if matches!(begin, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "is UTF-16; expected UTF-8"));
    }
    Ok(())
}

fn decompressed(
    mut raw: impl Read + Send + 'static,
    check: impl Fn(&[u8]) -> io::Result<()>,
) -> io::Result<Box<dyn BufRead + Send>> {
    let begin = beginning(&mut raw)?;
    check(&begin)?;
    let is_gzip = begin.starts_with(&GZIP_MAGIC);
    let whole = BufReader::with_capacity(BUFFER_BYTES, io::Cursor::new(begin).chain(raw));
    if !is_gzip {
        return Ok(Box::new(whole));
    }
    Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, Gunzip(MultiGzDecoder::new(whole)))))
}

/// The beginning of a source: its first line, or as much of it as is looked at. A pipe may give one byte at a time.
fn beginning(raw: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut begin = Vec::with_capacity(BEGIN_BYTES);
    loop {
        let wanted = u64::try_from(BEGIN_BYTES - begin.len()).unwrap_or(0);
        let mut some = [0; 512];
        let read = match raw.by_ref().take(wanted).read(&mut some) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        begin.extend_from_slice(some.get(..read).unwrap_or_default());
        if read == 0 || (begin.len() >= LONGEST_MAGIC && begin.contains(&b'\n')) {
            return Ok(begin);
        }
    }
}

/// Names gzip in the error of input that is cut short or damaged: the decoder's own words do not.
struct Gunzip<R>(MultiGzDecoder<R>);

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "the gzip file is truncated"),
            kind => io::Error::new(kind, format!("the gzip file is damaged: {error}")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn text_of(bytes: Vec<u8>) -> io::Result<String> {
        let mut text = String::new();
        decompressed(io::Cursor::new(bytes), refuse_utf16)?.read_to_string(&mut text)?;
        Ok(text)
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn gzip_is_known_by_its_content_and_may_have_several_members() {
        assert_eq!(text_of(b"plain".to_vec()).unwrap(), "plain");
        assert_eq!(text_of(b"p".to_vec()).unwrap(), "p");
        assert_eq!(text_of(Vec::new()).unwrap(), "");
        assert_eq!(text_of([gzip("one "), gzip("two")].concat()).unwrap(), "one two");
    }

    #[test]
    fn json_that_is_spread_over_lines_is_told_of_once() {
        let told = |text: &str| refuse_spread(&mut text.as_bytes()).map_err(|error| error.to_string());
        let array = "[\n  {\n    \"prompt\": \"a\"\n  }\n]\n";
        for text in [array, &format!("\u{feff}\r\n {array}"), "[{\"prompt\": \"a\"},\n {\"prompt\": \"b\"}]", "["] {
            let said = told(text).unwrap_err();
            assert!(said.contains("is an array of JSON") && said.contains("jq -c '.[]'"), "{text}: {said}");
        }
        let said = told("{\r\n  \"prompt\": \"a\"\n}\n").unwrap_err();
        assert!(said.contains("is an object of JSON") && said.contains("jq -c '.' FILE"), "{said}");
        // The faults of single lines, which others may follow.
        for text in ["", "\n", "[]\n", "[1]\n{\"prompt\":\"a\"}\n", "{\"prompt\":\n", "{}\n", "{", "[x\n"] {
            assert_eq!(told(text), Ok(()), "{text}");
        }
        let compressed = gzip(array);
        let mut reader = decompressed(io::Cursor::new(compressed), refuse_utf16).unwrap();
        assert!(refuse_spread(&mut reader).is_err());
    }

    #[test]
    fn what_is_cut_short_or_damaged_is_an_error_that_says_so() {
        let mut cut = gzip(&"some text ".repeat(1000));
        cut.truncate(cut.len() - 9);
        assert_eq!(text_of(cut).unwrap_err().to_string(), "the gzip file is truncated");
        let mut damaged = gzip(&"some text ".repeat(1000));
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0xff;
        assert!(text_of(damaged).unwrap_err().to_string().starts_with("the gzip file is"));
        assert_eq!(text_of(b"\xff\xfe{\0".to_vec()).unwrap_err().to_string(), "is UTF-16; expected UTF-8");
    }

    #[test]
    fn a_source_is_named_after_its_file() {
        for (path, stem) in [
            ("data/week.jsonl", Some("week")),
            ("week.jsonl.gz", Some("week")),
            ("week", Some("week")),
            ("a\nb.csv", Some("a_b")),
            ("-", None),
        ] {
            assert_eq!(InputSource::new(Some(Path::new(path))).stem().as_deref(), stem, "{path}");
        }
        assert_eq!(InputSource::new(None), InputSource::Stdin);
    }
}
