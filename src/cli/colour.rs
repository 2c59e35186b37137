//! Colours, by what a text means: all of them are chosen and written here. They underline a word and never replace
//! it, so that nothing is lost without them.

use super::output::for_stderr;
use crate::printable::{self, Printable};
use crate::view::tone::Tone;
use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Color, Style};
use std::io::{self, BufWriter, Write};

/// When colours are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Colours {
    /// On a terminal, unless NO_COLOR or CLICOLOR=0 is set.
    #[default]
    Auto,
    /// Also elsewhere.
    Always,
    /// Nowhere.
    Never,
}

/// Decides it for the whole process.
pub(super) fn choose(when: Colours) {
    let choice = match when {
        Colours::Auto => ColorChoice::Auto,
        Colours::Always => ColorChoice::Always,
        Colours::Never => ColorChoice::Never,
    };
    choice.write_global();
}

/// Whether standard output takes colours.
pub(super) fn on_stdout() -> bool {
    AutoStream::choice(&printable::stdout()) != ColorChoice::Never
}

/// Whether standard error takes colours.
pub(super) fn on_stderr() -> bool {
    printable::stderr_has(|stderr| AutoStream::choice(stderr) != ColorChoice::Never)
}

const fn style(tone: Tone) -> Style {
    let colour = match tone {
        Tone::Good => AnsiColor::Green,
        Tone::Bad => AnsiColor::Red,
        Tone::Warning => AnsiColor::Yellow,
        Tone::Over => return Style::new().dimmed(),
    };
    Style::new().fg_color(Some(Color::Ansi(colour)))
}

/// A text in its colour, for a progress bar, which writes what it is given. The text must have no hidden characters.
pub(super) fn painted(tone: Tone, text: &str) -> String {
    let style = style(tone);
    format!("{style}{text}{style:#}")
}

/// Writes sentences for people on standard error whose first word, up to its colon, is in the colour of what they mean.
pub(super) fn headed(tone: Tone, text: &str) -> io::Result<()> {
    let text = for_stderr(text);
    let (head, rest) = text.split_at(text.find(':').map_or(0, |colon| colon + 1));
    let mut stderr = printable::stderr();
    if on_stderr() {
        stderr.write_styled(style(tone).bold(), head)?;
        writeln!(stderr, "{rest}")
    } else {
        writeln!(stderr, "{text}")
    }
}

/// An output that can show colours, or leaves them out.
pub(super) trait Canvas: Write {
    /// Writes a text, in the colour of its meaning if that can be shown.
    fn paint(&mut self, tone: Tone, text: &str) -> io::Result<()> {
        let _ = tone;
        self.write_all(text.as_bytes())
    }
}

impl Canvas for Box<dyn Write + Send> {}

/// A screen on which texts have colours.
pub(super) struct Coloured<W: Write>(pub Printable<BufWriter<W>>);

impl<W: Write> Write for Coloured<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write> Canvas for Coloured<W> {
    fn paint(&mut self, tone: Tone, text: &str) -> io::Result<()> {
        self.0.write_styled(style(tone), text)
    }
}

/// Texts, each with its meaning. Printed as it is, it is plain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Toned(Vec<(Option<Tone>, String)>);

impl Toned {
    /// Adds a text.
    pub(super) fn push(&mut self, tone: Option<Tone>, text: &str) {
        match self.0.last_mut() {
            Some((last, before)) if *last == tone => before.push_str(text),
            _ => self.0.push((tone, text.to_owned())),
        }
    }

    /// Writes all of it.
    pub(super) fn write(&self, canvas: &mut dyn Canvas) -> io::Result<()> {
        self.0.iter().try_for_each(|(tone, text)| match tone {
            Some(tone) => canvas.paint(*tone, text),
            None => canvas.write_all(text.as_bytes()),
        })
    }
}

impl std::fmt::Display for Toned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|(_, text)| f.write_str(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::printable::Notation;

    #[test]
    fn a_text_in_colour_cannot_end_it_or_begin_another() {
        let mut bytes = Vec::new();
        let mut screen = Coloured(Printable::new(BufWriter::new(&mut bytes), Notation::Text));
        let mut toned = Toned::default();
        toned.push(None, " a  ");
        toned.push(Some(Tone::Bad), "fail");
        toned.push(Some(Tone::Bad), "ed\u{1b}[0m");
        toned.write(&mut screen).unwrap();
        drop(screen);
        assert_eq!(String::from_utf8(bytes).unwrap(), " a  \u{1b}[31mfailed\\u{1b}[0m\u{1b}[0m");
        let mut plain: Box<dyn Write + Send> = Box::new(Vec::new());
        plain.paint(Tone::Good, "ok").unwrap();
        assert_eq!(toned.to_string(), " a  failed\u{1b}[0m");
        assert_eq!(painted(Tone::Warning, "paused"), "\u{1b}[33mpaused\u{1b}[0m");
    }
}
