//! Changes a body that was written for a target, as the target's refusals have asked.

use super::wire::{Delivery, WireRequest};
use crate::domain::Mend;
use crate::domain::raw_object::RawObject;

/// Applies the changes to the body, and notes each one in [`WireRequest::dropped`].
pub(super) fn apply(wire: &mut WireRequest, mends: &[Mend]) {
    if mends.is_empty() {
        return;
    }
    let Ok(text) = std::str::from_utf8(&wire.body) else { return };
    let Some(mut body) = RawObject::read(text) else { return };
    let mut notes = Vec::new();
    for mend in mends {
        notes.extend(match mend {
            Mend::Rename { from, to } => {
                (body.get(to).is_none() && body.rename(from, to)).then(|| format!("{from} as {to}"))
            }
            Mend::Drop { member, .. } => body.remove(member).then(|| (*member).to_owned()),
            Mend::Cap { tokens, .. } => cap(&mut body, wire.caps, *tokens),
        });
    }
    if notes.is_empty() {
        return;
    }
    if wire.delivery == Delivery::Stream && notes.iter().any(|note| note == "stream") {
        body.remove("stream_options");
        wire.delivery = Delivery::Whole;
    }
    wire.body = body.to_text().into_bytes();
    wire.dropped.extend(notes);
}

/// Lowers the cap, or sets one where there is none. A cap that lies deeper is only lowered.
fn cap(body: &mut RawObject<'_>, caps: &[&str], tokens: u64) -> Option<String> {
    let above = |text: &str| text.parse::<u64>().is_ok_and(|asked| asked > tokens);
    if let Some((outer, inner)) = caps.iter().find_map(|path| path.split_once('.')) {
        let text = body.get(outer)?.to_owned();
        let mut nested = RawObject::read(&text)?;
        nested.get(inner).filter(|text| above(text))?;
        nested.set(inner, &tokens);
        body.set_text(outer, &nested.to_text());
        return Some(format!("{inner} above {tokens}"));
    }
    let Some(name) = caps.iter().find(|name| body.given(name).is_some()) else {
        let name = caps.first()?;
        body.set(name, &tokens);
        return Some(format!("{name} set to {tokens}"));
    };
    body.get(name).filter(|text| above(text))?;
    body.set(name, &tokens);
    Some(format!("{name} above {tokens}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    fn mended(body: &str, mends: &[Mend]) -> (String, Vec<String>) {
        let caps: &[&str] = if body.contains("generationConfig") {
            &["generationConfig.maxOutputTokens"]
        } else {
            &["max_tokens", "max_completion_tokens"]
        };
        let mut wire = WireRequest::post("/x", caps, body.as_bytes().to_vec());
        apply(&mut wire, mends);
        (String::from_utf8(wire.body).unwrap(), wire.dropped)
    }

    #[test]
    fn each_change_is_made_and_noted() {
        let rename = Mend::Rename { from: "max_tokens", to: "max_completion_tokens" };
        let drop = Mend::Drop { member: "temperature", lasting: true };
        let cap = |tokens| Mend::Cap { tokens, lasting: true };
        for (body, mends, expected, note) in [
            (
                r#"{"max_tokens":5}"#,
                vec![rename.clone()],
                r#"{"max_completion_tokens":5}"#,
                "max_tokens as max_completion_tokens",
            ),
            (r#"{"a":1.50,"temperature":0.2}"#, vec![drop.clone()], r#"{"a":1.50}"#, "temperature"),
            (r#"{"max_tokens":9000}"#, vec![cap(8192)], r#"{"max_tokens":8192}"#, "max_tokens above 8192"),
            (r#"{"a":"b"}"#, vec![cap(30_104)], r#"{"a":"b","max_tokens":30104}"#, "max_tokens set to 30104"),
            (
                r#"{"generationConfig":{"maxOutputTokens":70000,"topK":1}}"#,
                vec![cap(65_536)],
                r#"{"generationConfig":{"maxOutputTokens":65536,"topK":1}}"#,
                "maxOutputTokens above 65536",
            ),
        ] {
            assert_eq!(mended(body, &mends), (expected.to_owned(), vec![note.to_owned()]), "{body}");
        }
    }

    #[test]
    fn what_changes_nothing_leaves_the_body_as_it_was() {
        let rename = Mend::Rename { from: "max_tokens", to: "max_completion_tokens" };
        for (body, mend) in [
            (r#"{ "temperature" : 1 }"#, rename.clone()),
            (r#"{"max_tokens":5,"max_completion_tokens":5}"#, rename),
            (r#"{"max_tokens":5}"#, Mend::Cap { tokens: 5, lasting: false }),
            (r#"{"generationConfig":{}}"#, Mend::Cap { tokens: 5, lasting: false }),
            ("[1]", Mend::Drop { member: "seed", lasting: true }),
        ] {
            assert_eq!(mended(body, &[mend]), (body.to_owned(), vec![]), "{body}");
        }
    }
}
