//! A call of a function that a model wrote into its text instead of making it.

use crate::domain::ChatRequest;
use crate::domain::request::ToolChoice;
use serde_json::Value;
use std::collections::BTreeMap;

/// The marks by which models and their servers frame calls. One of them in a text, with the name of a function that was
/// offered behind it, is a call that the server did not read.
const MARKS: &[&str] = &[
    "<tool_call>",
    "<tool_calls>",
    "<TOOLCALL>",
    "<minimax:tool_call>",
    "<seed:tool_call>",
    "<longcat_tool_call>",
    "<steptml:invoke name=",
    "<\u{ff5c}DSML\u{ff5c}",
    "<|DSML|",
    "<start_function_call>",
    "<|tool_call>",
    "<|tool_call_start|>",
    "<|tools_prefix|>",
    "<|START_ACTION|>",
    "<|message_tool_calls|>",
    "to=functions.",
    "functools[",
    "```tool_code",
    "<function_call>",
    "<function_calls>",
    "<function=",
    "<invoke name=",
    "<|tool_call|>",
    "<|tool_calls_section_begin|>",
    "<|tool_call_begin|>",
    "<|python_tag|>",
    "<|action_start|>",
    "<\u{ff5c}tool\u{2581}calls\u{2581}begin\u{ff5c}>",
    "<\u{ff5c}tool\u{2581}call\u{2581}begin\u{ff5c}>",
    "[TOOL_CALLS]",
    "[TOOL_REQUEST]",
];

/// Marks that are no words of a text, whatever it is about: with one of them a text begins only if it is a call.
const STRONG: &[&str] = &["<tool_call>", "<|tool", "<|python_tag|>", "<\u{ff5c}tool", "<\u{ff5c}DSML", "[TOOL_CALLS]"];

/// A call is looked for in so many bytes of a text.
const LOOKED_AT: usize = 256 << 10;

/// The members in which a call as JSON has its arguments.
const ARGUMENTS: [&str; 3] = ["arguments", "parameters", "args"];

/// The function that a text calls in words; `None`: it calls none. `mentions` tells whether the request itself speaks
/// of a mark: then it may be asked for. `sent_names`: the request's own names by those under which they were sent.
pub(super) fn find<'a>(
    text: &str,
    request: &'a ChatRequest,
    sent_names: &BTreeMap<String, String>,
    mentions: &dyn Fn(&str) -> bool,
) -> Option<&'a str> {
    if request.tools.is_empty() || request.tool_choice == Some(ToolChoice::None) {
        return None;
    }
    let text = text.get(..text.floor_char_boundary(text.len().min(LOOKED_AT))).unwrap_or_default();
    let own_name = |own: &str| request.tools.iter().map(|tool| tool.name.as_str()).find(|offered| *offered == own);
    // Each as it may be written, and as the request has it.
    let offered = || {
        let own = request.tools.iter().map(|tool| (tool.name.as_str(), tool.name.as_str()));
        own.chain(sent_names.iter().filter_map(|(sent, own)| Some((sent.as_str(), own_name(own)?))))
    };
    for mark in MARKS {
        let Some(place) = text.find(mark).filter(|_| !mentions(mark)) else { continue };
        let behind = text.get(place + mark.len()..).unwrap_or_default();
        let named = offered().find(|(name, _)| behind.contains(name));
        if let Some((_, own)) = named {
            return Some(own);
        }
    }
    // Llama 4 and others write calls as Python does.
    let python = text.trim().strip_prefix('[').filter(|rest| rest.ends_with(")]"));
    if let Some(rest) = python
        && let Some((_, own)) =
            offered().find(|(name, _)| rest.strip_prefix(*name).is_some_and(|rest| rest.starts_with('(')))
    {
        return Some(own);
    }
    // A text that ends in a call: alone, in a fence, or behind a sentence.
    let text = text.trim().strip_suffix("```").unwrap_or(text).trim();
    let is_alone = |at: &usize| at.checked_sub(1).is_none_or(|before| text.as_bytes().get(before) == Some(&b'\n'));
    let begins = |sign: char| text.match_indices(sign).map(|(at, _)| at).find(is_alone);
    let start = [begins('{'), begins('[')].into_iter().flatten().min()?;
    let parsed: Value = serde_json::from_str(text.get(start..)?).ok()?;
    let call = match &parsed {
        Value::Array(calls) => calls.first()?,
        other => other,
    };
    let call = call.get("function").filter(|function| function.is_object()).unwrap_or(call);
    let has_arguments = ARGUMENTS.iter().any(|name| call.get(name).is_some());
    let name = call.get("name").and_then(Value::as_str).filter(|_| has_arguments)?;
    offered().find(|(written, _)| *written == name).map(|(_, own)| own)
}

/// The mark with which a text begins that is a call although no function was offered.
pub(super) fn unoffered(text: &str, request: &ChatRequest, mentions: &dyn Fn(&str) -> bool) -> Option<&'static str> {
    let is_offered = !request.tools.is_empty() || !request.other_tools.is_empty();
    let begins = |mark: &&&str| text.trim_start().starts_with(**mark) && !mentions(mark);
    STRONG.iter().filter(|_| !is_offered).find(begins).copied()
}
