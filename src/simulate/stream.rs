//! Answers as streams of events, in the framings that providers have, and what can go wrong on the way.

use bytes::Bytes;
use serde_json::Value;

/// Characters of a text that one event carries: six tokens.
const PIECE: usize = 24;

/// An answer as a stream.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Its `content-type`.
    pub content_type: &'static str,
    /// The events in their framing, in the order in which they go out.
    pub events: Vec<Bytes>,
    /// The place of the first event that says that the answer has ended.
    pub end: usize,
}

impl Stream {
    /// A stream of server-sent events.
    pub fn of_events() -> Self {
        Self { content_type: "text/event-stream", events: Vec::new(), end: 0 }
    }

    /// Adds an event without a name.
    pub fn data(&mut self, data: impl AsRef<[u8]>) {
        self.events.push(event("", data.as_ref()));
    }

    /// Adds an event whose name is the `type` in its data.
    pub fn named(&mut self, data: &Value) {
        let name = data["type"].as_str().unwrap_or_default();
        self.events.push(event(name, data.to_string().as_bytes()));
    }

    /// The events from here on say that the answer has ended.
    pub fn ends_here(&mut self) {
        self.end = self.events.len();
    }

    /// The first half of the answer: never its end.
    pub fn half(&self) -> usize {
        self.end.div_ceil(2)
    }

    /// Breaks off after this event, and loses the rest.
    pub fn cut(&mut self, after: usize) {
        self.events.truncate(after);
    }

    /// Loses the rest and says that something went wrong.
    pub fn fail(&mut self, error: Bytes) {
        self.cut(self.half());
        self.events.push(error);
    }

    /// Turns the inside of an event in the middle into bytes that are no text.
    pub fn spoil(&mut self) {
        let middle = self.half();
        let Some(event) = self.events.get_mut(middle) else { return };
        let mut bytes = event.to_vec();
        let (from, to) = (bytes.len() / 4, bytes.len() * 3 / 4);
        bytes[from..to].fill(0xff);
        *event = bytes.into();
    }
}

/// One server-sent event.
pub(crate) fn event(name: &str, data: &[u8]) -> Bytes {
    let mut event = Vec::with_capacity(name.len() + data.len() + 20);
    if !name.is_empty() {
        event.extend_from_slice(format!("event: {name}\n").as_bytes());
    }
    event.extend_from_slice(b"data: ");
    event.extend_from_slice(data);
    event.extend_from_slice(b"\n\n");
    event.into()
}

/// A line of a stream that is an object on each line.
pub(crate) fn line(object: &Value) -> Bytes {
    format!("{object}\n").into()
}

/// The pieces of a text; none of an empty one.
pub(crate) fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.char_indices().nth(PIECE).map_or(rest.len(), |(end, _)| end);
        let (piece, after) = rest.split_at(end);
        pieces.push(piece);
        rest = after;
    }
    pieces
}

/// The type of a header whose value is text.
const TEXT: u8 = 7;
/// The bytes of a message that are neither headers nor payload.
const AROUND: usize = 16;

/// A message of AWS's binary framing: headers and a payload, each with a checksum behind it.
pub(crate) fn frame(kind: &str, name: &str, payload: &Value) -> Bytes {
    let of_name = if kind == "event" { ":event-type" } else { ":exception-type" };
    let mut headers = Vec::new();
    for (key, value) in [(of_name, name), (":content-type", "application/json"), (":message-type", kind)] {
        headers.push(u8::try_from(key.len()).unwrap_or(u8::MAX));
        headers.extend_from_slice(key.as_bytes());
        headers.push(TEXT);
        headers.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let payload = payload.to_string();
    let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = Vec::with_capacity(AROUND + headers.len() + payload.len());
    frame.extend_from_slice(&number(AROUND + headers.len() + payload.len()));
    frame.extend_from_slice(&number(headers.len()));
    frame.extend_from_slice(&checksum(&frame).to_be_bytes());
    frame.extend_from_slice(&headers);
    frame.extend_from_slice(payload.as_bytes());
    frame.extend_from_slice(&checksum(&frame).to_be_bytes());
    frame.into()
}

/// CRC-32, as zip has it.
fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ if sum & 1 == 1 { 0xEDB8_8320 } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_the_text_again() {
        for text in ["", "a", "Paris", &"The größte Städt \u{1f600} ".repeat(9)] {
            assert_eq!(pieces(text).concat(), text);
            assert!(pieces(text).iter().all(|piece| (1..=PIECE).contains(&piece.chars().count())), "{text}");
        }
    }

    #[test]
    fn the_checksum_is_that_of_zip() {
        assert_eq!((checksum(b"123456789"), checksum(b"")), (0xCBF4_3926, 0));
    }
}
