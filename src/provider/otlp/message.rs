//! Spans in the wire format of OTLP: a message of Protocol Buffers.
//!
//! What is needed of that format is three kinds of fields, so it is written here rather than by a generator and its
//! libraries. The test compares the bytes with those that OpenTelemetry's own library writes.

use crate::domain::trace::{AttributeValue, Span, SpanKind};

/// What a message says of the program that sends it.
#[derive(Clone, Debug)]
pub(super) struct Sender<'a> {
    /// `service.name`.
    pub service: &'a str,
    pub version: &'a str,
    /// `host.name`.
    pub host: &'a str,
    pub process: u32,
}

/// The status of a span that has failed.
const FAILED: u64 = 2;

/// Flags of a span: it is sampled, and whether its parent is of another program is known.
const SAMPLED: u32 = 0x001 | 0x100;

/// A further flag: its parent is of another program.
const OF_ANOTHER: u32 = 0x200;

/// A message that is being written.
#[derive(Default)]
struct Wire(Vec<u8>);

impl Wire {
    fn varint(&mut self, mut number: u64) {
        while number > 0x7f {
            #[expect(clippy::cast_possible_truncation, reason = "the lowest seven bits")]
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(u8::try_from(number).unwrap_or(0));
    }

    fn key(&mut self, field: u32, kind: u32) {
        self.varint(u64::from((field << 3) | kind));
    }

    fn whole(&mut self, field: u32, number: u64) {
        self.key(field, 0);
        self.varint(number);
    }

    fn eight(&mut self, field: u32, bytes: [u8; 8]) {
        self.key(field, 1);
        self.0.extend_from_slice(&bytes);
    }

    fn four(&mut self, field: u32, bytes: [u8; 4]) {
        self.key(field, 5);
        self.0.extend_from_slice(&bytes);
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.key(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn part(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        let mut part = Self::default();
        write(&mut part);
        self.bytes(field, &part.0);
    }

    fn value(&mut self, value: &AttributeValue) {
        match value {
            AttributeValue::Text(text) => self.bytes(1, text.as_bytes()),
            AttributeValue::Flag(is_so) => self.whole(2, u64::from(*is_so)),
            AttributeValue::Whole(number) => self.whole(3, number.cast_unsigned()),
            AttributeValue::Number(number) => self.eight(4, number.to_le_bytes()),
            AttributeValue::Texts(texts) => self.part(5, |list| {
                for text in texts {
                    list.part(1, |one| one.bytes(1, text.as_bytes()));
                }
            }),
        }
    }

    fn attribute(&mut self, field: u32, name: &str, value: &AttributeValue) {
        self.part(field, |pair| {
            pair.bytes(1, name.as_bytes());
            pair.part(2, |part| part.value(value));
        });
    }

    fn span(&mut self, span: &Span) {
        self.bytes(1, &span.trace.0);
        self.bytes(2, &span.id.0);
        if let Some(parent) = span.parent {
            self.bytes(4, &parent.0);
        }
        self.bytes(5, span.name.as_bytes());
        let kind = match span.kind {
            SpanKind::Client => 3,
            SpanKind::Consumer => 5,
        };
        self.whole(6, kind);
        let nanos = |at: crate::domain::Timestamp| u64::try_from(at.0).unwrap_or(0).saturating_mul(1_000_000);
        self.eight(7, nanos(span.started).to_le_bytes());
        self.eight(8, nanos(span.ended).to_le_bytes());
        for (name, value) in &span.attributes {
            self.attribute(9, name, value);
        }
        if span.has_failed {
            self.part(15, |status| status.whole(3, FAILED));
        }
        let flags = if span.is_of_caller { SAMPLED | OF_ANOTHER } else { SAMPLED };
        self.four(16, flags.to_le_bytes());
    }
}

/// An `ExportTraceServiceRequest` of these spans.
pub(super) fn written(spans: &[Span], sender: &Sender<'_>) -> Vec<u8> {
    let mut message = Wire::default();
    message.part(1, |all| {
        all.part(1, |resource| {
            let mut text = |name: &str, text: &str| {
                resource.attribute(1, name, &AttributeValue::Text(text.to_owned()));
            };
            text("service.name", sender.service);
            text("service.version", sender.version);
            text("host.name", sender.host);
            resource.attribute(1, "process.pid", &AttributeValue::Whole(i64::from(sender.process)));
        });
        all.part(2, |of_scope| {
            of_scope.part(1, |scope| {
                scope.bytes(1, b"sluice");
                scope.bytes(2, sender.version.as_bytes());
            });
            for span in spans {
                of_scope.part(2, |part| part.span(span));
            }
        });
    });
    message.0
}

/// How many spans were refused, and why, by an `ExportTraceServiceResponse`. What cannot be read says nothing.
pub(super) fn refused(answer: &[u8]) -> (u64, String) {
    let mut refused = (0, String::new());
    let Some(Field::Bytes(partial)) = fields(answer).find(|(number, _)| *number == 1).map(|(_, field)| field) else {
        return refused;
    };
    for (number, field) in fields(partial) {
        match (number, field) {
            (1, Field::Whole(spans)) => refused.0 = spans,
            (2, Field::Bytes(words)) => refused.1 = String::from_utf8_lossy(words).into_owned(),
            _ => {}
        }
    }
    refused
}

/// A field of a message that came.
enum Field<'a> {
    Whole(u64),
    Bytes(&'a [u8]),
    Other,
}

/// The fields of a message, up to the first that cannot be read.
fn fields(mut rest: &[u8]) -> impl Iterator<Item = (u64, Field<'_>)> {
    std::iter::from_fn(move || {
        let key = varint(&mut rest)?;
        let field = match key & 7 {
            0 => Field::Whole(varint(&mut rest)?),
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                let (bytes, after) = rest.split_at_checked(length)?;
                rest = after;
                Field::Bytes(bytes)
            }
            kind @ (1 | 5) => {
                rest = rest.get(if kind == 1 { 8 } else { 4 }..)?;
                Field::Other
            }
            _ => return None,
        };
        Some((key >> 3, field))
    })
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for place in 0..10 {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;
    use crate::domain::trace::{SpanId, TraceId};
    use proptest::prelude::*;
    use std::fmt::Write as _;

    fn spans() -> Vec<Span> {
        let root = Span {
            trace: TraceId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]),
            id: SpanId([0xf0, 1, 2, 3, 4, 5, 6, 7]),
            parent: None,
            is_of_caller: false,
            kind: SpanKind::Consumer,
            name: "job d\u{e9}faut".to_owned(),
            started: Timestamp(1_790_000_000_123),
            ended: Timestamp(1_790_000_001_456),
            has_failed: false,
            attributes: vec![
                ("sluice.job", AttributeValue::Whole(300)),
                ("sluice.negative", AttributeValue::Whole(-1)),
                ("sluice.cost_dollars", AttributeValue::Number(0.25)),
                ("sluice.from_cache", AttributeValue::Flag(true)),
            ],
        };
        let call = Span {
            id: SpanId([0xf1; 8]),
            parent: Some(root.id),
            is_of_caller: true,
            kind: SpanKind::Client,
            name: "chat m".to_owned(),
            has_failed: true,
            attributes: vec![
                ("gen_ai.operation.name", AttributeValue::Text("chat".to_owned())),
                ("gen_ai.response.finish_reasons", AttributeValue::Texts(vec!["stop".to_owned(), "x".repeat(130)])),
            ],
            ..root.clone()
        };
        vec![root, call]
    }

    fn sender() -> Sender<'static> {
        Sender { service: "sluice", version: "1.2.3", host: "h", process: 4_711 }
    }

    /// Written by `opentelemetry-proto` 1.x for Python, for the same spans.
    const BY_OPENTELEMETRY: &str = include_str!("message.hex");

    #[test]
    fn the_bytes_are_those_of_the_library() {
        let written = written(&spans(), &sender()).iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        });
        let by_library: String = BY_OPENTELEMETRY.split_whitespace().collect();
        assert_eq!(written, by_library);
    }

    #[test]
    fn what_a_collector_refuses_is_read_and_rubbish_says_nothing() {
        let partial = |spans: u64, words: &str| {
            let mut answer = Wire::default();
            answer.four(7, [1, 2, 3, 4]);
            answer.part(1, |partial| {
                partial.whole(1, spans);
                partial.bytes(2, words.as_bytes());
            });
            answer.0
        };
        assert_eq!(refused(&partial(300, "too old")), (300, "too old".to_owned()));
        for rubbish in [&b""[..], b"{}", b"ok", &[0x0a, 0xff], &[0xff; 12], &[0x0a, 3, 8, 0x80, 0x80]] {
            assert_eq!(refused(rubbish), (0, String::new()), "{rubbish:?}");
        }
    }

    proptest! {
        #[test]
        fn every_number_comes_back_and_no_answer_is_too_strange(number: u64, answer: Vec<u8>) {
            let mut wire = Wire::default();
            wire.varint(number);
            prop_assert_eq!(varint(&mut wire.0.as_slice()), Some(number));
            let _ = refused(&answer);
        }
    }
}
