//! Server-sent events as WHATWG defines them: the framing of the dialects' streams.

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use std::borrow::Cow;
use tokio::time::Instant;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Its name; empty where the server gives none.
    pub name: String,
    /// Its data: the lines joined with line feeds.
    pub data: String,
}

/// Takes a stream in pieces of any size, and returns the events that are complete.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// The beginning of a line whose end has not arrived.
    line: Vec<u8>,
    /// Whether the last byte was a carriage return, to which a line feed may still belong.
    after_return: bool,
    /// Whether a first line was taken: a byte order mark may stand in front of it.
    has_begun: bool,
    /// Whether a line has come that no server writes.
    is_garbled: bool,
    /// The events before that.
    before_garbage: usize,
    name: String,
    data: Option<String>,
}

impl Decoder {
    /// Takes the next piece. An event without its closing empty line is not returned.
    pub fn take(&mut self, piece: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        let mut rest = piece;
        while let Some((&first, after)) = rest.split_first() {
            if std::mem::take(&mut self.after_return) && first == b'\n' {
                rest = after;
                continue;
            }
            let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.line.extend_from_slice(rest);
                break;
            };
            let (line, after) = rest.split_at(end);
            self.after_return = after.first() == Some(&b'\r');
            rest = after.get(1..).unwrap_or_default();
            self.line.extend_from_slice(line);
            let line = std::mem::take(&mut self.line);
            self.is_garbled |= is_garbage(&line);
            let event = self.end_line(&String::from_utf8_lossy(&line));
            if !self.is_garbled {
                self.before_garbage += usize::from(event.is_some());
            }
            events.extend(event);
        }
        events
    }

    /// Processes one line; an empty line ends the event.
    fn end_line(&mut self, line: &str) -> Option<Event> {
        let line = if std::mem::replace(&mut self.has_begun, true) {
            line
        } else {
            line.strip_prefix('\u{feff}').unwrap_or(line)
        };
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            return self.data.take().map(|data| Event { name, data });
        }
        // A comment is a line whose field has no name.
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => {
                // The line may have gone over into the next ones.
                self.is_garbled |= !value.is_ascii();
                value.clone_into(&mut self.name);
            }
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            // A comment; `id` and `retry` are for clients that connect again.
            "" | "id" | "retry" => {}
            // The standard has clients pass over other fields. Bytes that name none may have been an event.
            field => {
                self.is_garbled |= !field.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
            }
        }
        None
    }

    /// The bytes of the event that is not whole yet.
    fn pending(&self) -> usize {
        self.line.len().saturating_add(self.data.as_ref().map_or(0, String::len))
    }
}

/// Whether a stretch of these bytes is no text, and not only half a character, which hides nothing: what follows may
/// look right by chance, and lack what stood there.
pub(super) fn is_garbage(bytes: &[u8]) -> bool {
    matches!(String::from_utf8_lossy(bytes), Cow::Owned(text) if text.contains("\u{fffd}\u{fffd}\u{fffd}\u{fffd}"))
}

/// The events of a whole stream, and how many of them came before a line that no server writes; `None`: it has none.
pub(super) fn read(body: &[u8]) -> (Vec<Event>, Option<usize>) {
    let mut decoder = Decoder::default();
    let events = decoder.take(body);
    (events, decoder.is_garbled.then_some(decoder.before_garbage))
}

/// An event of so many bytes is a sign of an answer before it is whole.
const LARGE: usize = 4 << 10;

/// Counts the events of a stream that say something, while it arrives. Comments and pings keep a connection alive; they
/// come from servers and gateways whose model has stalled, too.
#[derive(Debug, Default)]
pub(super) struct StreamPulse {
    decoder: Decoder,
    first: Option<Instant>,
}

impl StreamPulse {
    /// For an answer with this head; `None`: it is no stream of events.
    pub fn of(status: u16, headers: &HeaderMap) -> Option<Self> {
        let kind = headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes().to_ascii_lowercase());
        let is_stream = (200..300).contains(&status) && kind.is_some_and(|kind| kind.starts_with(b"text/event-stream"));
        is_stream.then(Self::default)
    }

    /// Takes the next piece, which arrived `now`. Returns whether it is a sign of an answer.
    pub fn takes(&mut self, piece: &[u8], now: Instant) -> bool {
        let events = self.decoder.take(piece);
        let is_sign = events.iter().any(says_something) || self.decoder.pending() >= LARGE;
        if is_sign {
            self.first.get_or_insert(now);
        }
        is_sign
    }

    /// When the first such event came.
    pub fn first(&self) -> Option<Instant> {
        self.first
    }
}

/// Whether an event is more than a sign of life: Anthropic's `ping`, a word of a gateway's.
fn says_something(event: &Event) -> bool {
    event.name != "ping" && !is_sign_of_life(&event.data)
}

/// Whether data is no piece of an answer, but a word or nothing (`ping`, `[heartbeat]`). Anything with a brace, a
/// quotation mark or bytes beyond ASCII may have been one.
pub(super) fn is_sign_of_life(data: &str) -> bool {
    data.len() <= 64
        && data.bytes().all(|byte| matches!(byte, b' '..=b'~') && !b"{}\"".contains(&byte))
        && data.trim() != "[DONE]"
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn events_are_read_as_the_standard_says() {
        for (stream, expected) in [
            ("data: a\n\n", vec![event("", "a")]),
            ("data:a\n\ndata:  b\n\n", vec![event("", "a"), event("", " b")]),
            ("event: x\ndata: a\n\n", vec![event("x", "a")]),
            ("data: a\nevent: x\nid: 1\nretry: 5\n\n", vec![event("x", "a")]),
            ("data: a\ndata: b\ndata\n\n", vec![event("", "a\nb\n")]),
            ("data: a\r\n\r\ndata: b\r\rdata: c\n\n", vec![event("", "a"), event("", "b"), event("", "c")]),
            (": keep-alive\n\n: OPENROUTER PROCESSING\n\ndata: a\n\n", vec![event("", "a")]),
            ("\n\n\ndata: a\n\n", vec![event("", "a")]),
            ("\u{feff}data: a\n\n", vec![event("", "a")]),
            // An event without data does not count, and its name is forgotten.
            ("event: ping\n\ndata: a\n\n", vec![event("", "a")]),
            ("data\n\n", vec![event("", "")]),
            ("data: {\"a\":\"x:y\"}\n\n", vec![event("", "{\"a\":\"x:y\"}")]),
            ("nothing: a\n\n", vec![]),
            // An event that no empty line ends was cut off, and is not taken.
            ("data: a\n\ndata: b\n", vec![event("", "a")]),
            ("data: a", vec![]),
            ("{\"choices\":[]}", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(read(stream.as_bytes()).0, expected, "{stream:?}");
        }
    }

    #[test]
    fn lines_that_no_server_writes_are_told_from_fields_that_mean_nothing() {
        for (stream, is_garbled) in [
            ("nothing: a\nx-y: 1\nretry: 5\n: a comment\n\n", false),
            ("data: a\n\u{fffd}\u{fffd}: b\n\n", true),
            ("event: content_\u{fffd}\u{fffd}\":\"Hel\"}\n\n", true),
            ("<html>\n", true),
            ("{\"a\": 1}\n", true),
        ] {
            assert_eq!(read(stream.as_bytes()).1.is_some(), is_garbled, "{stream:?}");
        }
    }

    #[test]
    fn a_stretch_of_bytes_that_are_no_text_is_garbage_and_half_a_character_is_none() {
        let lines: [(&[u8], bool); 4] = [
            (b"data: {\"de\xff\xff\xff\xff\xff\":0}\n\n", true),
            (b"data: {\"delta\":\"\xf0\x9f\x98\"}\n\n", false),
            ("data: \"\u{fffd}\u{fffd}\u{fffd}\u{fffd}\"\n\n".as_bytes(), false),
            (b"data: {}\n\n", false),
        ];
        for (stream, is_garbled) in lines {
            assert_eq!(read(stream).1.is_some(), is_garbled, "{}", String::from_utf8_lossy(stream));
        }
    }

    #[test]
    fn what_came_before_garbage_is_told() {
        let (events, before) = read(b"data: 1\n\ndata: {\"de\xff\xff\xff\xff\":0}\n\ndata: 3\n\n");
        assert_eq!((events.len(), before), (3, Some(1)));
    }

    #[test]
    fn a_word_keeps_a_connection_alive_and_is_no_piece_of_an_answer() {
        for (data, is_sign) in [
            ("", true),
            ("ping", true),
            ("[heartbeat]", true),
            (": OPENROUTER PROCESSING", true),
            ("[DONE]", false),
            ("{", false),
            ("\"", false),
            ("\u{fffd}", false),
            (&"x".repeat(65), false),
        ] {
            assert_eq!(is_sign_of_life(data), is_sign, "{data:?}");
        }
    }

    #[test]
    fn only_events_that_say_something_are_a_pulse() {
        let now = Instant::now();
        let mut pulse = StreamPulse::default();
        for silence in
            [": alive\n\n", "event: ping\ndata: {\"type\": \"ping\"}\n\n", "data: ping\n\n", "data: {\"a\"", ": 1}"]
        {
            assert!(!pulse.takes(silence.as_bytes(), now), "{silence:?}");
        }
        assert_eq!(pulse.first(), None);
        assert!(pulse.takes(b"\n\n", now));
        // A large event takes its time.
        assert!(
            pulse.takes("data: {".as_bytes().iter().chain(&[b'x'; LARGE]).copied().collect::<Vec<_>>().as_slice(), now)
        );
        assert_eq!(pulse.first(), Some(now));
        let of = |status, kind: &'static str| {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, reqwest::header::HeaderValue::from_static(kind))]);
            StreamPulse::of(status, &headers).is_some()
        };
        assert!(of(200, "Text/Event-Stream; charset=utf-8"));
        assert!(!of(200, "application/json") && !of(429, "text/event-stream"));
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_make_the_same_events(
            lines in prop::collection::vec(
                prop::sample::select(&["data: é\u{1f600}", "data: x", "event: y", ": z", "", "", "data:",
                    "\u{feff}"][..]), 0..20,
            ),
            ends in prop::collection::vec(prop::sample::select(&["\n", "\r", "\r\n"][..]), 20),
            sizes in prop::collection::vec(1..7_usize, 200),
        ) {
            let stream: String = lines.iter().zip(&ends).flat_map(|(line, end)| [*line, *end]).collect();
            let whole = read(stream.as_bytes()).0;
            let mut decoder = Decoder::default();
            let (mut rest, mut events) = (stream.as_bytes(), Vec::new());
            for size in sizes {
                let (piece, after) = rest.split_at(size.min(rest.len()));
                events.extend(decoder.take(piece));
                rest = after;
            }
            events.extend(decoder.take(rest));
            prop_assert_eq!(events, whole);
        }

        #[test]
        fn any_bytes_are_events_or_none(bytes in any::<Vec<u8>>()) {
            for event in read(&bytes).0 {
                prop_assert!(event.data.len() <= bytes.len().saturating_mul(3));
            }
        }
    }
}
