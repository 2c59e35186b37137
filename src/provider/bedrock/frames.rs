//! The framing of Bedrock's streams (`application/vnd.amazon.eventstream`): messages of headers and a payload, each
//! with two checksums.

use crate::provider::stream_error::Piece;
use serde_json::{Map, Value, json};

/// The bytes before the headers: two lengths and their checksum.
const PRELUDE: usize = 12;
/// The bytes that are neither headers nor payload.
const AROUND: usize = 16;
/// The type of a header whose value is text.
const TEXT: u8 = 7;

/// One message.
#[derive(Debug, Default, PartialEq)]
struct Frame {
    /// `event`, `exception` or `error`.
    kind: String,
    /// The name of the event or the exception, or the code of the error.
    name: String,
    /// The words of an error.
    message: String,
    payload: Value,
}

/// Whether a body begins like a stream of such messages.
pub(super) fn is_one(body: &[u8]) -> bool {
    length_of(body).is_some()
}

/// The length of the first message, if its prelude is whole and right.
fn length_of(bytes: &[u8]) -> Option<(usize, usize)> {
    let number = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (total, headers, sum) = (number(0)?, number(4)?, number(8)?);
    let (total, headers) = (usize::try_from(total).ok()?, usize::try_from(headers).ok()?);
    (sum == crc32(&bytes[..8]) && total >= headers.checked_add(AROUND)?).then_some((total, headers))
}

/// The messages of a body up to the first that is not whole.
fn read(mut body: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some((total, headers)) = length_of(body) {
        let Some((frame, rest)) = body.split_at_checked(total) else { break };
        let (content, sum) = frame.split_at(total - 4);
        if sum != crc32(content).to_be_bytes() {
            break;
        }
        let mut read = Frame::default();
        let (heads, payload) = content[PRELUDE..].split_at(headers);
        read_headers(heads, &mut read);
        read.payload = serde_json::from_slice(payload).unwrap_or_default();
        frames.push(read);
        body = rest;
    }
    frames
}

/// Headers that are texts. The service sends no others; one of another type ends the reading.
fn read_headers(mut bytes: &[u8], frame: &mut Frame) {
    while let Some((&length, rest)) = bytes.split_first() {
        let Some((name, rest)) = rest.split_at_checked(usize::from(length)) else { return };
        let [kind, high, low, rest @ ..] = rest else { return };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((value, rest)) = rest.split_at_checked(length).filter(|_| *kind == TEXT) else { return };
        let value = String::from_utf8_lossy(value).into_owned();
        match name {
            b":message-type" => frame.kind = value,
            b":event-type" | b":exception-type" | b":error-code" => frame.name = value,
            b":error-message" => frame.message = value,
            _ => {}
        }
        bytes = rest;
    }
}

/// The checksum of Ethernet and zip.
fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0xEDB8_8320 } else { sum >> 1 };
        }
    }
    !sum
}

/// The payloads of a stream with the names of their events.
pub(super) fn pieces(body: &[u8]) -> Vec<Piece> {
    read(body).into_iter().map(|frame| Piece { name: frame.name, value: frame.payload }).collect()
}

/// Puts a stream together: an answer as it comes whole, or an error; `None` when the stream was cut before its end.
/// `is_partial`: what has come of the answer, without its end or an error.
pub(super) fn join(body: &[u8], is_partial: bool) -> Option<Value> {
    let mut blocks: Vec<Map<String, Value>> = Vec::new();
    let mut whole = Map::new();
    for frame in read(body) {
        let Frame { kind, name, message, mut payload } = frame;
        if kind == "exception" || kind == "error" {
            if is_partial {
                break;
            }
            let said = payload.get("message").or_else(|| payload.get("Message")).and_then(Value::as_str);
            let said = said.map_or(message, str::to_owned);
            // `throttlingException` is `ThrottlingException` elsewhere.
            let mut letters = name.chars();
            let name: String =
                letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect();
            return Some(json!({ "error": { "code": name, "message": said } }));
        }
        match name.as_str() {
            "contentBlockStart" => {
                if let (Some(block), Some(Value::Object(start))) =
                    (block(&mut blocks, &payload), payload.get_mut("start").map(Value::take))
                {
                    block.extend(start);
                }
            }
            "contentBlockDelta" => {
                if let (Some(block), Some(Value::Object(delta))) =
                    (block(&mut blocks, &payload), payload.get_mut("delta").map(Value::take))
                {
                    go_on(block, delta);
                }
            }
            "messageStop" | "metadata" => {
                if let Value::Object(mut members) = payload {
                    // Padding against those who count bytes.
                    members.remove("p");
                    whole.extend(members);
                }
            }
            _ => {}
        }
    }
    (is_partial || whole.contains_key("stopReason")).then(|| {
        whole.insert("output".to_owned(), json!({ "message": { "role": "assistant", "content": blocks } }));
        Value::Object(whole)
    })
}

/// The block that an event is about. There are no more of them than a thousand.
fn block<'a>(blocks: &'a mut Vec<Map<String, Value>>, payload: &Value) -> Option<&'a mut Map<String, Value>> {
    let index = usize::try_from(payload.get("contentBlockIndex")?.as_u64()?).ok().filter(|index| *index < 1_000)?;
    while blocks.len() <= index {
        blocks.push(Map::new());
    }
    blocks.get_mut(index)
}

/// Adds a piece: texts go on, members member by member. The arguments of a call come as pieces of a text.
fn go_on(to: &mut Map<String, Value>, piece: Map<String, Value>) {
    for (key, piece) in piece {
        match (to.get_mut(&key), piece) {
            (Some(Value::String(text)), Value::String(more)) => text.push_str(&more),
            (Some(Value::Object(members)), Value::Object(more)) => go_on(members, more),
            (_, piece) => drop(to.insert(key, piece)),
        }
    }
}

/// A message, as the service writes one.
#[cfg(test)]
pub(in crate::provider) fn written(kind: &str, name: &str, payload: &Value) -> Vec<u8> {
    let mut headers = Vec::new();
    let names = [(":message-type", kind), (if kind == "event" { ":event-type" } else { ":exception-type" }, name)];
    for (name, value) in names {
        headers.push(u8::try_from(name.len()).unwrap());
        headers.extend(name.as_bytes());
        headers.push(TEXT);
        headers.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        headers.extend(value.as_bytes());
    }
    let payload = payload.to_string();
    let mut frame = Vec::new();
    frame.extend(u32::try_from(headers.len() + payload.len() + AROUND).unwrap().to_be_bytes());
    frame.extend(u32::try_from(headers.len()).unwrap().to_be_bytes());
    frame.extend(crc32(&frame).to_be_bytes());
    frame.extend(headers);
    frame.extend(payload.as_bytes());
    frame.extend(crc32(&frame).to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_zip() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn messages_are_read_until_one_is_not_whole_or_wrong() {
        let one = written("event", "messageStart", &json!({"role": "assistant"}));
        let two = written("event", "messageStop", &json!({"stopReason": "end_turn"}));
        let both = [one.clone(), two.clone()].concat();
        let names = |body: &[u8]| read(body).into_iter().map(|frame| frame.name).collect::<Vec<_>>();
        assert_eq!(names(&both), ["messageStart", "messageStop"]);
        for end in one.len()..both.len() {
            assert_eq!(names(&both[..end]), ["messageStart"], "{end}");
        }
        let mut wrong = both.clone();
        wrong[one.len() + 20] ^= 1;
        assert_eq!(names(&wrong), ["messageStart"]);
        assert!(is_one(&both) && !is_one(b"{\"message\":\"no\"}") && !is_one(b""));
    }
}
