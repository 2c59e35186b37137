//! The text of an invoice: its encoding, and the delimiter between its cells.

use super::{InvoiceError, whole_file};
use std::io::Read;

/// The largest file that is read, in bytes, once it is unpacked.
const MOST_BYTES: u64 = 256 << 20;

/// A whole file, as text.
pub(super) struct Text {
    pub(super) whole: String,
    pub(super) delimiter: u8,
}

impl Text {
    /// Reads all of it.
    ///
    /// # Errors
    /// It cannot be read, is too large, or is no text of a table.
    pub(super) fn read(file: impl Read) -> Result<Self, InvoiceError> {
        let mut bytes = Vec::new();
        let read = file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| whole_file(error.to_string()))?;
        if u64::try_from(read).is_ok_and(|read| read > MOST_BYTES) {
            let most = MOST_BYTES >> 20;
            return Err(whole_file(format!("is larger than {most} MiB; export fewer days at a time")));
        }
        let first = bytes.iter().copied().find(|byte| !byte.is_ascii_whitespace());
        let is = match bytes.as_slice() {
            [b'P', b'K', ..] => Some("a spreadsheet or an archive; save it as CSV"),
            [b'%', b'P', b'D', b'F', ..] => Some("a PDF document; take the vendor's export as CSV"),
            _ if matches!(first, Some(b'{' | b'[')) => Some("JSON; expected CSV with a header"),
            _ => None,
        };
        if let Some(is) = is {
            return Err(whole_file(format!("is {is}")));
        }
        let whole = decoded(bytes)?;
        let delimiter = delimiter_of(&whole);
        Ok(Self { whole, delimiter })
    }
}

/// UTF-8, or UTF-16 as spreadsheets export it, which is told by its first bytes.
fn decoded(bytes: Vec<u8>) -> Result<String, InvoiceError> {
    let wide = |unit: fn([u8; 2]) -> u16, bytes: &[u8]| {
        let (units, rest) = bytes.as_chunks::<2>();
        let units: Vec<u16> = units.iter().copied().map(unit).collect();
        match String::from_utf16(&units) {
            Ok(text) if rest.is_empty() => Ok(text),
            _ => Err(whole_file("is damaged UTF-16, or only a part of a file")),
        }
    };
    match bytes.as_slice() {
        [0xff, 0xfe, rest @ ..] => wide(u16::from_le_bytes, rest),
        [0xfe, 0xff, rest @ ..] => wide(u16::from_be_bytes, rest),
        [letter, 0, next, 0, ..] if *letter > 0 && *next > 0 => wide(u16::from_le_bytes, &bytes),
        [0, letter, 0, next, ..] if *letter > 0 && *next > 0 => wide(u16::from_be_bytes, &bytes),
        _ => match String::from_utf8(bytes) {
            Ok(text) => Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)),
            Err(error) => {
                let begin = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
                let line = u64::try_from(begin.split(|byte| *byte == b'\n').count()).unwrap_or(1);
                let reason = "is no text in UTF-8; `iconv -f WINDOWS-1252 -t UTF-8 FILE` rewrites what some \
                              spreadsheets write";
                Err(InvoiceError { line, reason: reason.to_owned() })
            }
        },
    }
}

/// The delimiter that is most frequent between the names of the columns.
fn delimiter_of(text: &str) -> u8 {
    let header = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let mut counts = [(b',', 0_usize), (b';', 0), (b'\t', 0)];
    let mut is_quoted = false;
    for byte in header.bytes() {
        is_quoted ^= byte == b'"';
        if let Some((_, count)) = counts.iter_mut().find(|(delimiter, _)| *delimiter == byte && !is_quoted) {
            *count += 1;
        }
    }
    // Of equals the first.
    counts.iter().rev().max_by_key(|(_, count)| *count).map_or(b',', |(delimiter, _)| *delimiter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(unit).collect()
    }

    #[test]
    fn each_encoding_of_spreadsheets_is_read() {
        let expected = "Tag;Kosten\r\n2026-08-05;1\r\n";
        for bytes in [
            expected.as_bytes().to_vec(),
            format!("\u{feff}{expected}").into_bytes(),
            wide(&format!("\u{feff}{expected}"), u16::to_le_bytes),
            wide(&format!("\u{feff}{expected}"), u16::to_be_bytes),
            wide(expected, u16::to_le_bytes),
            wide(expected, u16::to_be_bytes),
        ] {
            let text = Text::read(bytes.as_slice()).unwrap();
            assert_eq!((text.whole.as_str(), text.delimiter), (expected, b';'), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_between_the_names_of_columns_is_between_all_cells() {
        for (header, delimiter) in [
            ("a,b", b','),
            ("a;b", b';'),
            ("a\tb", b'\t'),
            ("\"a,b,c\";d;e", b';'),
            ("\n\na;b\nx,y,z", b';'),
            ("a", b','),
            ("", b','),
        ] {
            assert_eq!(delimiter_of(header), delimiter, "{header:?}");
        }
    }

    #[test]
    fn what_is_no_table_is_refused_with_the_way_out() {
        for (bytes, line, words) in [
            (&b"PK\x03\x04"[..], 0, "save it as CSV"),
            (b"%PDF-1.7", 0, "take the vendor's export as CSV"),
            (b" [{\"a\": 1}]", 0, "is JSON; expected CSV"),
            (b"\xff\xfea\0b", 0, "damaged UTF-16"),
            (b"Tag,Preis\n2026-08-05,1 \x80\n", 2, "iconv -f WINDOWS-1252 -t UTF-8 FILE"),
        ] {
            let error = Text::read(bytes).err().unwrap();
            assert!(error.line == line && error.reason.contains(words), "{error}");
        }
    }
}
