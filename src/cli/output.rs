//! The destination of a command's output, and its shape.

use super::GlobalArgs;
use super::colour::{self, Canvas, Coloured};
use super::table;
use crate::printable::{self, Notation, Printable, on_one_line};
use crate::view::table::Table;
use crate::view::tone::Tone;
use crate::view::{self, fields};
use serde::Serialize;
use std::fmt;
use std::io::{self, BufWriter, IsTerminal as _, Write};

/// The shape of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people: aligned columns with totals.
    Table,
    /// For `cut` and `awk`: a line of names, then a line per row, with tabs between.
    Plain,
    /// An array of objects, or one object; money is an exact decimal number of dollars.
    Json,
    /// With a line of names.
    Csv,
}

/// Standard output could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub struct OutputError(pub io::Error);

/// The output of a command. There is one per command, and no other code writes to standard output.
pub struct Output {
    format: Format,
    is_terminal: bool,
    is_quiet: bool,
    /// How many columns the screen has; `None`: there is none.
    screen: Option<usize>,
    /// Whether people want all columns.
    is_wide: bool,
    writer: Box<dyn Canvas + Send>,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("format", &self.format).finish_non_exhaustive()
    }
}

impl Output {
    /// Standard output, in the shape that was asked for.
    #[must_use]
    pub fn new(global: &GlobalArgs) -> Self {
        let stdout = printable::stdout();
        let is_terminal = stdout.is_terminal();
        let usual = if is_terminal { Format::Table } else { Format::Plain };
        let format = global.format.unwrap_or(usual);
        let notation = if format == Format::Json { Notation::Json } else { Notation::Text };
        let printable = Printable::new(BufWriter::new(stdout), notation);
        let writer: Box<dyn Canvas + Send> = if format == Format::Table && colour::on_stdout() {
            Box::new(Coloured(printable))
        } else {
            Box::new(plain(printable))
        };
        Self {
            format,
            is_terminal,
            is_quiet: global.quiet,
            screen: printable::stdout_width(),
            is_wide: global.wide,
            writer,
        }
    }

    /// Output for progress beside data that goes elsewhere: on standard error, unless that is to be quiet. It does not
    /// fail when no process reads it.
    #[must_use]
    pub fn for_progress(global: &GlobalArgs) -> Self {
        let is_terminal = printable::stderr_is_terminal();
        let usual = if is_terminal { Format::Table } else { Format::Plain };
        let writer: Box<dyn Write + Send> = if global.quiet {
            Box::new(io::sink())
        } else {
            Box::new(Dispensable(BufWriter::new(printable::stderr())))
        };
        Self {
            format: global.format.unwrap_or(usual),
            is_terminal,
            is_quiet: global.quiet,
            screen: printable::stderr_width(),
            is_wide: global.wide,
            writer: Box::new(writer),
        }
    }

    /// The requested shape.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether only errors are reported.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.is_quiet
    }

    /// Whether a person is looking at the output.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// The writer for exports in lines of JSON or in CSV, which stay exact; `is_json` says which of the two. On a
    /// terminal, hidden characters appear as visible escapes.
    pub fn export(&mut self, is_json: bool) -> Result<&mut (dyn Write + Send), OutputError> {
        self.finish()?;
        self.writer = Box::new(export_to(self.is_terminal, is_json));
        Ok(&mut *self.writer)
    }

    /// The writer for data that is written unchanged.
    pub fn writer(&mut self) -> &mut (dyn Write + Send) {
        &mut *self.writer
    }

    /// Writes sentences for people: on a screen, broken between words and indented by as many blanks as the text.
    pub fn told(&mut self, text: impl fmt::Display) -> Result<(), OutputError> {
        self.told_as(None, text)
    }

    /// The same in the colour of what it means.
    pub fn told_as(&mut self, tone: Option<Tone>, text: impl fmt::Display) -> Result<(), OutputError> {
        let text = text.to_string();
        let words = text.trim_start_matches(' ');
        let indent = " ".repeat(text.len() - words.len());
        let room = match self.screen.filter(|_| self.format == Format::Table) {
            Some(screen) => screen.saturating_sub(indent.len() + 2),
            None => usize::MAX,
        };
        for (index, line) in table::wrapped(&on_one_line(words), room).iter().enumerate() {
            let further = if index == 0 { "" } else { "  " };
            write!(self.writer, "{indent}{further}").map_err(OutputError)?;
            match tone {
                Some(tone) => self.writer.paint(tone, line),
                None => self.writer.write_all(line.as_bytes()),
            }
            .and_then(|()| writeln!(self.writer))
            .map_err(OutputError)?;
        }
        Ok(())
    }

    /// Writes all values of a table's rows, a line for each where people read them.
    pub fn record(&mut self, table: &Table) -> Result<(), OutputError> {
        match self.format {
            Format::Table => self.toned(&table::for_reading(table, self.screen)),
            Format::Plain | Format::Json | Format::Csv => self.table(table),
        }
    }

    /// Writes one line of text, perhaps with empty lines before it. Line breaks in names do not start another line.
    pub fn line(&mut self, text: impl fmt::Display) -> Result<(), OutputError> {
        let text = text.to_string();
        let line = text.trim_start_matches('\n');
        let empty = &text[..text.len() - line.len()];
        writeln!(self.writer, "{empty}{}", on_one_line(line)).map_err(OutputError)
    }

    /// Writes several lines; each text stays on a line of its own.
    pub fn lines(&mut self, text: impl fmt::Display) -> Result<(), OutputError> {
        writeln!(self.writer, "{text}").map_err(OutputError)
    }

    /// Writes a view as one JSON document over several lines.
    pub fn json(&mut self, view: &(impl Serialize + ?Sized)) -> Result<(), OutputError> {
        let document = view::document(view).map_err(|error| OutputError(error.into()))?;
        self.pretty(&document)
    }

    /// Writes a view as one JSON document on one line, and flushes it: for streams of documents.
    pub fn json_line(&mut self, view: &(impl Serialize + ?Sized)) -> Result<(), OutputError> {
        let document = view::document(view).map_err(|error| OutputError(error.into()))?;
        serde_json::to_writer(&mut self.writer, &document).map_err(|error| OutputError(error.into()))?;
        self.line("")?;
        self.finish()
    }

    /// Writes a table in the requested shape.
    pub fn table(&mut self, table: &Table) -> Result<(), OutputError> {
        match self.format {
            Format::Table => self.toned(&table::for_terminal(table, self.screen, self.is_wide)),
            Format::Plain => fields::write_plain(table, &mut self.writer).map_err(OutputError),
            Format::Json => self.pretty(table),
            Format::Csv => fields::write_csv(table, &mut self.writer).map_err(OutputError),
        }
    }

    fn toned(&mut self, lines: &colour::Toned) -> Result<(), OutputError> {
        lines.write(&mut *self.writer).and_then(|()| writeln!(self.writer)).map_err(OutputError)
    }

    fn pretty(&mut self, value: &impl Serialize) -> Result<(), OutputError> {
        serde_json::to_writer_pretty(&mut self.writer, value).map_err(|error| OutputError(error.into()))?;
        self.line("")
    }

    /// Warns about something that is probably wrong, on standard error.
    pub fn warn(&self, text: impl fmt::Display) {
        self.note(format_args!("warning: {text}"));
    }

    /// Tells the user something, on standard error, unless that is to be quiet.
    pub fn note(&self, text: impl fmt::Display) {
        if self.is_quiet {
            return;
        }
        let text = text.to_string();
        // Without a standard error the user cannot be told.
        let _ = if text.starts_with("warning: ") {
            colour::headed(Tone::Warning, &text)
        } else {
            writeln!(printable::stderr(), "{}", for_stderr(&text))
        };
    }

    /// Writes out everything that is held back. A command that ends without this may lose an error.
    pub fn finish(&mut self) -> Result<(), OutputError> {
        self.writer.flush().map_err(OutputError)
    }
}

/// Sentences for standard error: on a screen, broken between words. Commands in backquotes stay whole, and lines that
/// are commands stay as they are.
pub(super) fn for_stderr(text: &str) -> String {
    printable::stderr_width().map_or_else(|| text.to_owned(), |screen| broken(text, screen))
}

fn broken(text: &str, screen: usize) -> String {
    const HELD: char = '\u{1}';
    let each = text.split('\n').map(|line| {
        // A command that is to be typed stays on its line.
        if line.starts_with("  sluice ") {
            return line.to_owned();
        }
        let words = line.trim_start_matches(' ');
        let indent = " ".repeat(line.len() - words.len());
        let parts = words.split('`').enumerate();
        let held = parts.map(|(place, part)| if place % 2 == 1 { part.replace(' ', "\u{1}") } else { part.to_owned() });
        let words = held.collect::<Vec<_>>().join("`");
        let room = screen.saturating_sub(indent.len() + 2);
        let lines = table::wrapped(&words, room).join(&format!("\n{indent}  "));
        format!("{indent}{}", lines.replace(HELD, " "))
    });
    each.collect::<Vec<_>>().join("\n")
}

/// A screen without colours.
fn plain(writer: impl Write + Send + 'static) -> Box<dyn Write + Send> {
    Box::new(writer)
}

/// Standard output for an export.
#[must_use]
pub fn export_to(is_terminal: bool, is_json: bool) -> Box<dyn Write + Send> {
    let stdout = printable::stdout();
    if is_terminal {
        let notation = if is_json { Notation::Json } else { Notation::Text };
        Box::new(BufWriter::new(Printable::new(stdout, notation)))
    } else {
        Box::new(BufWriter::new(stdout))
    }
}

/// A writer for dispensable text. When it cannot be written (a closed terminal, a full disk, a reader that is gone),
/// the user cannot be told, and the work goes on.
#[derive(Debug)]
pub struct Dispensable<W>(pub W);

impl<W: Write> Write for Dispensable<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dispensable_is_lost_without_a_word() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::StorageFull.into())
            }
        }
        let mut writer = Dispensable(Gone);
        writeln!(writer, "3 of 4 jobs").unwrap();
        writer.flush().unwrap();
    }

    #[test]
    fn sentences_are_broken_between_words_and_commands_are_not() {
        let text = "warning: 1 of 3 jobs has no answer; `sluice batch jobs b --state failed` lists them\n\
                    \x20 sluice as it is, as it is";
        let shown = "warning: 1 of 3 jobs\n  has no answer;\n  `sluice batch jobs b --state failed`\n  lists them\n\
                     \x20 sluice as it is, as it is";
        assert_eq!(broken(text, 22), shown);
        assert_eq!(broken(text, 200), text);
    }

    #[test]
    fn no_name_begins_a_line_of_its_own() {
        struct Shared(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
        impl Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let shown = std::sync::Arc::default();
        let writer = Box::new(plain(Shared(std::sync::Arc::clone(&shown))));
        let mut output =
            Output { format: Format::Table, is_terminal: true, is_quiet: false, screen: None, is_wide: false, writer };
        output.line("\nbatch b\nerror: forged\r\u{202e}").unwrap();
        let mut table = Table::new(["batch"]);
        table.row(["b\nerror: forged".into()]);
        output.table(&table).unwrap();
        let shown = String::from_utf8(shown.lock().unwrap().clone()).unwrap();
        assert!(shown.starts_with("\nbatch b\\nerror: forged\\r\\u{202e}\n"), "{shown}");
        assert!(!shown.lines().any(|line| line.trim_start().starts_with("error")), "{shown}");
    }
}
