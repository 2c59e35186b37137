//! The progress bar that stands on the terminal, and lines that are written above it: without knowing of each other,
//! the next line would go on where the bar ends.

use indicatif::ProgressBar;
use parking_lot::Mutex;
use std::io::{self, Write};

/// The bar of this process.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// A bar that is shown until this is dropped; then it is cleared.
#[derive(Debug)]
#[must_use = "dropping it clears the bar"]
pub struct Shown(ProgressBar);

impl Shown {
    /// Shows a bar. Lines that are logged meanwhile go above it.
    pub fn new(bar: ProgressBar) -> Self {
        *BAR.lock() = Some(bar.clone());
        Self(bar)
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

/// Standard error for log lines, each of which is written at once.
#[must_use]
pub fn stderr_above() -> AboveBar<io::Stderr> {
    #[expect(clippy::disallowed_methods, reason = "the log writes its own notation")]
    AboveBar(io::stderr())
}

/// A writer whose lines go above the bar.
#[derive(Debug)]
pub struct AboveBar<W>(W);

impl<W: Write> Write for AboveBar<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        above(|| self.0.write(bytes))
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        above(|| self.0.write_all(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

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
        AboveBar(seen.clone()).write_all(b"a line\n").unwrap();
        drop(shown);
        AboveBar(seen.clone()).write_all(b"another line\n").unwrap();
        let seen = seen.0.lock().clone();
        let place = |what: &str| seen.iter().position(|seen| seen.contains(what)).unwrap();
        let line = place("a line");
        assert!(seen[..line].iter().any(|seen| seen.contains("bar 3")), "{seen:?}");
        assert_eq!(seen[line - 1], "(cleared)", "{seen:?}");
        let after = &seen[line + 1..place("another line")];
        assert!(after.iter().any(|seen| seen.contains("bar 3")) && after.iter().any(|seen| seen == "(cleared)"));
    }
}
