//! Lines that come from an asynchronous task, for a reader on a thread of its own.

use std::io::{self, Read};
use tokio::sync::mpsc;

/// The other end of a channel of bytes. Reading waits; it must not be done on a thread that drives tasks.
pub(super) struct Lines {
    incoming: mpsc::Receiver<Vec<u8>>,
    line: Vec<u8>,
    read: usize,
}

impl Lines {
    pub(super) fn new(incoming: mpsc::Receiver<Vec<u8>>) -> Self {
        Self { incoming, line: Vec::new(), read: 0 }
    }
}

impl Read for Lines {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.read >= self.line.len() {
            let Some(line) = self.incoming.blocking_recv() else { return Ok(0) };
            (self.line, self.read) = (line, 0);
        }
        let left = self.line.get(self.read..).unwrap_or_default();
        let bytes = left.len().min(into.len());
        if let (Some(into), Some(from)) = (into.get_mut(..bytes), left.get(..bytes)) {
            into.copy_from_slice(from);
        }
        self.read += bytes;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_read_in_order_to_the_end() {
        let (send, lines) = mpsc::channel(8);
        for line in ["one\n", "", "two is longer\n"] {
            send.blocking_send(line.as_bytes().to_vec()).unwrap();
        }
        drop(send);
        let mut lines = Lines::new(lines);
        let mut small = [0; 3];
        let mut read = Vec::new();
        loop {
            match lines.read(&mut small).unwrap() {
                // An empty line of the sender would look like the end.
                0 if read.len() == 4 => {}
                0 => break,
                bytes => read.extend_from_slice(&small[..bytes]),
            }
        }
        assert_eq!(String::from_utf8(read).unwrap(), "one\ntwo is longer\n");
    }
}
