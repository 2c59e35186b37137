//! Changes a body that was written for a target as the target's refusals have asked.

use super::adapter::WireRequest;
use crate::domain::Mend;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The members of an object as they are spelled.
type Members = BTreeMap<String, Box<RawValue>>;

/// The names of output caps at the top of a body.
const CAPS: &[&str] = &["max_tokens", "max_completion_tokens", "max_output_tokens"];

/// Gemini's cap and the object that it is in.
const NESTED_CAP: (&str, &str) = ("generationConfig", "maxOutputTokens");

/// Applies what changes the body, and notes each change in [`WireRequest::dropped`].
pub(super) fn apply(wire: &mut WireRequest, mends: &[Mend]) {
    if mends.is_empty() {
        return;
    }
    let Ok(mut members) = serde_json::from_slice::<Members>(&wire.body) else { return };
    let mut notes = Vec::new();
    for mend in mends {
        notes.extend(match mend {
            Mend::Rename { from, to } => rename(&mut members, from, to),
            Mend::Drop { member } => members.remove(*member).map(|_| (*member).to_owned()),
            Mend::Cap { tokens, .. } => cap(&mut members, *tokens),
        });
    }
    if notes.is_empty() {
        return;
    }
    if let Ok(body) = serde_json::to_vec(&members) {
        wire.body = body;
        wire.dropped.extend(notes);
    }
}

fn rename(members: &mut Members, from: &str, to: &str) -> Option<String> {
    if members.contains_key(to) {
        return None;
    }
    let value = members.remove(from)?;
    members.insert(to.to_owned(), value);
    Some(format!("{from} (sent as {to})"))
}

/// Lowers the cap, or sets one where there is none.
fn cap(members: &mut Members, tokens: u64) -> Option<String> {
    let above = |value: &RawValue| value.get().parse::<u64>().is_ok_and(|asked| asked > tokens);
    let written = || RawValue::from_string(tokens.to_string()).ok();
    let (outer, inner) = NESTED_CAP;
    if let Some(mut nested) = members.get(outer).and_then(|value| serde_json::from_str::<Members>(value.get()).ok()) {
        nested.get(inner).filter(|value| above(value))?;
        nested.insert(inner.to_owned(), written()?);
        members.insert(outer.to_owned(), serde_json::value::to_raw_value(&nested).ok()?);
        return Some(format!("{inner} (lowered to {tokens})"));
    }
    let Some(name) = CAPS.iter().find(|name| members.contains_key(**name)) else {
        members.insert(CAPS.first().map(|name| (*name).to_owned())?, written()?);
        return Some(format!("{} (set to {tokens})", CAPS.first()?));
    };
    members.get(*name).filter(|value| above(value))?;
    members.insert((*name).to_owned(), written()?);
    Some(format!("{name} (lowered to {tokens})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderMap;

    fn mended(body: &str, mends: &[Mend]) -> (String, Vec<String>) {
        let body = body.as_bytes().to_vec();
        let mut wire = WireRequest { path: "/x".to_owned(), headers: HeaderMap::new(), body, dropped: Vec::new() };
        apply(&mut wire, mends);
        (String::from_utf8(wire.body).unwrap(), wire.dropped)
    }

    #[test]
    fn each_change_is_made_and_noted() {
        let rename = Mend::Rename { from: "max_tokens", to: "max_completion_tokens" };
        let drop = Mend::Drop { member: "temperature" };
        let cap = |tokens| Mend::Cap { tokens, lasting: true };
        for (body, mends, expected, note) in [
            (
                r#"{"max_tokens":5}"#,
                vec![rename.clone()],
                r#"{"max_completion_tokens":5}"#,
                "max_tokens (sent as max_completion_tokens)",
            ),
            (r#"{"a":1.50,"temperature":0.2}"#, vec![drop.clone()], r#"{"a":1.50}"#, "temperature"),
            (r#"{"max_tokens":9000}"#, vec![cap(8192)], r#"{"max_tokens":8192}"#, "max_tokens (lowered to 8192)"),
            (r#"{"a":"b"}"#, vec![cap(30_104)], r#"{"a":"b","max_tokens":30104}"#, "max_tokens (set to 30104)"),
            (
                r#"{"generationConfig":{"maxOutputTokens":70000,"topK":1}}"#,
                vec![cap(65_536)],
                r#"{"generationConfig":{"maxOutputTokens":65536,"topK":1}}"#,
                "maxOutputTokens (lowered to 65536)",
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
            ("[1]", Mend::Drop { member: "seed" }),
        ] {
            assert_eq!(mended(body, &[mend]), (body.to_owned(), vec![]), "{body}");
        }
    }
}
