//! The progress bar that stands on the terminal, and lines that are written above it: without knowing of each other,
//! the next line would go on where the bar ends.

use super::stderr_width;
use indicatif::ProgressBar;
use parking_lot::Mutex;
use rustix::process::getpgrp;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcgetpgrp, tcsetattr};
use std::io::{self, Write};
use unicode_width::UnicodeWidthStr as _;

/// The bar of this process.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// A bar that is shown until this is dropped; then it is cleared.
#[derive(Debug)]
#[must_use = "dropping it clears the bar"]
pub struct Shown(ProgressBar, Option<NoEcho>);

impl Shown {
    /// Shows a bar. Lines that are logged meanwhile go above it.
    pub fn new(bar: ProgressBar) -> Self {
        *BAR.lock() = Some(bar.clone());
        let no_echo = if bar.is_hidden() { None } else { NoEcho::of_stderr() };
        Self(bar, no_echo)
    }

    /// The bar.
    #[must_use]
    pub fn bar(&self) -> &ProgressBar {
        &self.0
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        *BAR.lock() = None;
        self.0.finish_and_clear();
        drop(self.1.take());
    }
}

/// The terminal does not show `^C` until this is dropped: it would stand behind the bar, beyond the edge of the screen,
/// and the line that it begins would keep a part of the bar from being cleared.
#[derive(Debug)]
struct NoEcho;

impl NoEcho {
    /// `None`: the terminal shows no control characters anyway, or is not this process's.
    fn of_stderr() -> Option<Self> {
        Self::set(|modes| {
            let shows = modes.contains(LocalModes::ECHOCTL);
            modes.remove(LocalModes::ECHOCTL);
            shows
        })
        .then_some(Self)
    }

    /// Changes the modes of the terminal, where that is wanted; returns whether it did. A process in the background
    /// would be stopped by it, so that one leaves the terminal as it is.
    fn set(change: impl FnOnce(&mut LocalModes) -> bool) -> bool {
        #[expect(clippy::disallowed_methods, reason = "nothing is written to it")]
        let terminal = io::stderr();
        if tcgetpgrp(&terminal).ok() != Some(getpgrp()) {
            return false;
        }
        let Ok(mut modes) = tcgetattr(&terminal) else { return false };
        change(&mut modes.local_modes) && tcsetattr(&terminal, OptionalActions::Now, &modes).is_ok()
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        Self::set(|modes| {
            modes.insert(LocalModes::ECHOCTL);
            true
        });
    }
}

/// Writes something while no bar stands there.
fn above<T>(write: impl FnOnce() -> T) -> T {
    let bar = BAR.lock();
    match bar.as_ref() {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Standard error for log lines, each of which is written at once. `is_folded`: on a terminal they are broken between
/// words.
#[must_use]
pub fn stderr_above(is_folded: bool) -> AboveBar<io::Stderr> {
    let columns = if is_folded { stderr_width() } else { None };
    #[expect(clippy::disallowed_methods, reason = "the log writes its own notation")]
    AboveBar { writer: io::stderr(), columns }
}

/// A writer whose lines go above the bar.
#[derive(Debug)]
pub struct AboveBar<W> {
    writer: W,
    /// The width of the terminal, where lines are broken between words.
    columns: Option<usize>,
}

impl<W: Write> Write for AboveBar<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        above(|| self.writer.write(bytes))
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.columns.zip(std::str::from_utf8(bytes).ok()) {
            Some((columns, lines)) => {
                let lines: String = lines.split_inclusive('\n').map(|line| folded(line, columns)).collect();
                above(|| self.writer.write_all(lines.as_bytes()))
            }
            None => above(|| self.writer.write_all(bytes)),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// The line broken between words, so that each part fits on the screen. Colours take no room.
fn folded(line: &str, columns: usize) -> String {
    let (mut folded, mut used) = (String::with_capacity(line.len()), 0);
    for word in line.split_inclusive(' ') {
        let shown = word.trim_end();
        // A colour begins with an escape and ends with an m.
        let mut parts = shown.split('\u{1b}');
        let width = parts.next().unwrap_or_default().width()
            + parts.map(|part| part.split_once('m').map_or(part, |(_, text)| text).width()).sum::<usize>();
        if used > INDENT.len() && used + width > columns {
            folded.truncate(folded.trim_end().len());
            folded.push('\n');
            folded.push_str(INDENT);
            used = INDENT.len();
        }
        folded.push_str(word);
        used += width + (word.len() - shown.len());
    }
    folded
}

/// What stands before each further part of a line.
const INDENT: &str = "  ";

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::{ProgressDrawTarget, TermLike};
    use std::sync::Arc;

    /// A terminal that remembers the calls made to it.
    #[derive(Clone, Debug, Default)]
    struct Seen(Arc<Mutex<Vec<String>>>);

    impl Seen {
        fn note(&self, what: &str) {
            self.0.lock().push(what.to_owned());
        }
    }

    impl TermLike for Seen {
        fn width(&self) -> u16 {
            80
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.note(text);
            Ok(())
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.note(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            self.note("(cleared)");
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Write for Seen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.note(&String::from_utf8_lossy(bytes));
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_written_where_no_bar_stands_and_the_bar_comes_after_it() {
        let seen = Seen::default();
        let bar = ProgressBar::with_draw_target(Some(10), ProgressDrawTarget::term_like(Box::new(seen.clone())));
        bar.set_style(indicatif::ProgressStyle::with_template("bar {pos}").unwrap());
        let shown = Shown::new(bar);
        shown.bar().set_position(3);
        shown.bar().tick();
        let mut log = AboveBar { writer: seen.clone(), columns: None };
        log.write_all(b"a line\n").unwrap();
        drop(shown);
        log.write_all(b"another line\n").unwrap();
        let seen = seen.0.lock().clone();
        let place = |what: &str| seen.iter().position(|seen| seen.contains(what)).unwrap();
        let line = place("a line");
        assert!(seen[..line].iter().any(|seen| seen.contains("bar 3")), "{seen:?}");
        assert_eq!(seen[line - 1], "(cleared)", "{seen:?}");
        let after = &seen[line + 1..place("another line")];
        assert!(after.iter().any(|seen| seen.contains("bar 3")) && after.iter().any(|seen| seen == "(cleared)"));
    }

    #[test]
    fn a_line_is_broken_between_words_and_colours_take_no_room() {
        let seen = Seen::default();
        let mut log = AboveBar { writer: seen.clone(), columns: Some(20) };
        let red = "\u{1b}[33m WARN\u{1b}[0m";
        log.write_all(format!("{red} the model is unknown target=a/m\nshort\n").as_bytes()).unwrap();
        log.write_all("a/name-that-is-wider-than-the-screen 一二三 四五六 七八九\n".as_bytes()).unwrap();
        let written = seen.0.lock().concat();
        assert_eq!(
            written,
            format!(
                "{red} the model is\n  unknown target=a/m\nshort\na/name-that-is-wider-than-the-screen\n  一二三 \
                 四五六\n  七八九\n"
            )
        );
    }
}
