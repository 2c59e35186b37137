//! Reports faulty lines: the first ones in full, the others as a count.

use super::table::wrapped;
use crate::domain::counted::counted;
use crate::input::{HeldBy, LineError};
use crate::printable;
use std::io::{self, Write};

/// Faults that are reported in full.
const MOST: u64 = 100;

/// The faulty lines of one file.
pub(super) struct Faults<'a> {
    file: String,
    unit: HeldBy,
    writer: &'a mut (dyn Write + Send),
    count: u64,
}

impl<'a> Faults<'a> {
    pub(super) fn new(file: String, unit: HeldBy, writer: &'a mut (dyn Write + Send)) -> Self {
        Self { file, unit, writer, count: 0 }
    }

    /// The file's name in messages.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// The number of faulty lines.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// `12 of 20 lines are faulty`, where so many others are in order.
    pub(super) fn share(&self, in_order: u64) -> String {
        let all = self.count.saturating_add(in_order);
        let (one, many) = self.unit.words();
        format!("{} of {} faulty", self.count, counted(all, &format!("{one} is"), &format!("{many} are")))
    }

    /// `FILE:LINE: FIELD: REASON`
    pub(super) fn report(&mut self, fault: &LineError) -> io::Result<()> {
        self.count += 1;
        if self.count <= MOST { self.tell(&format!("{}:{fault}", self.file)) } else { Ok(()) }
    }

    /// `FILE: warning: …`
    pub(super) fn warn(&mut self, sentence: &str) -> io::Result<()> {
        self.tell(&format!("{}: warning: {sentence}", self.file))
    }

    /// On a terminal in lines that fit it; elsewhere a fault is a line, for programs that read them.
    fn tell(&mut self, line: &str) -> io::Result<()> {
        let screen = printable::stderr_width().map_or(usize::MAX, |columns| columns.saturating_sub(2));
        writeln!(self.writer, "{}", wrapped(line, screen).join("\n  "))
    }

    /// Reports how many were not shown.
    pub(super) fn end(&mut self) -> io::Result<()> {
        match self.count.checked_sub(MOST) {
            Some(more @ 1..) => writeln!(self.writer, "{}: {more} more faulty {}", self.file, self.unit.words().1),
            _ => Ok(()),
        }
    }
}
