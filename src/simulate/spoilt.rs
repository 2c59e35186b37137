//! Answers that a model or its server spoils, although HTTP says yes: loops, reasoning and control tokens in the text,
//! invented turns, calls as text, the wrong language.

use super::answer;
use super::exchange::{Ask, Finish, JsonAsk};
use super::fault::FaultKind;
use super::prompt::count_tokens;
use serde_json::{Value, json};

/// Tokens of a loop where the call sets no cap.
const LOOP_TOKENS: u64 = 600;

/// The sentence of a loop.
const AGAIN: &str = "I will look at the gate once more. ";

/// What a model says to itself before its answer.
const THOUGHT: &str = "The user asks me something. Let me think about it.\nIt is plain enough.";

/// A text in a language that no request has asked for.
const RUSSIAN: &str = "Вода бежит через ворота и дальше по жёлобу к колесу, которое вращает камни, и камни мелют \
                       зерно, пока мельник не закроет шлюз и пруд не наполнится снова для следующего рабочего дня.";

/// The same text for all requests.
const STUCK: &str = "The mill pond was full this morning, so the miller opened the gate a little earlier than usual. \
                     By noon the stones had ground forty sacks of rye, and the water in the race stood so low that the \
                     wheel came to rest. He closed the gate and went home to wait for rain. It came in the night.";

/// The text in place of the `whole` answer and its end; `None`: the fault does nothing to the text. `tool` is the first
/// function that the call offers.
pub(super) fn spoilt(kind: FaultKind, whole: &str, ask: &Ask<'_>, tool: Option<&str>) -> Option<(String, Finish)> {
    let tool = tool.unwrap_or("look");
    let text = match kind {
        FaultKind::Loop => {
            let tokens = ask.max_output.unwrap_or(LOOP_TOKENS).min(4 * LOOP_TOKENS);
            let rounds = usize::try_from(tokens).unwrap_or(0) * 4 / AGAIN.len() + 1;
            return Some((AGAIN.repeat(rounds), Finish::Length));
        }
        FaultKind::Reasoning => return Some((String::new(), Finish::Length)),
        FaultKind::CutStop => answer::cut(whole, count_tokens(whole).div_ceil(2)).trim_end().to_owned(),
        FaultKind::Think => format!("<think>\n{THOUGHT}\n</think>\n\n{whole}"),
        FaultKind::ControlTokens => format!("{whole}[/INST] <|start_header_id|>assistant<|end_header_id|>\n\n{whole}"),
        FaultKind::RunOn => format!(
            "{whole}<|im_end|>\n<|im_start|>user\nAnd what then?<|im_end|>\n<|im_start|>assistant\nThen it rained."
        ),
        FaultKind::WrittenCall => format!(
            "<tool_call>\n{}\n</tool_call>",
            json!({ "name": tool, "arguments": { "question": "What is next?" } })
        ),
        FaultKind::OtherLanguage => RUSSIAN.to_owned(),
        FaultKind::EchoedSchema => match &ask.json {
            Some(JsonAsk::Schema(schema)) => schema.get().to_owned(),
            Some(JsonAsk::SchemaText(schema)) => schema.clone(),
            Some(JsonAsk::Object) | None => json!({ "type": "object", "properties": {} }).to_string(),
        },
        FaultKind::Stuck => STUCK.to_owned(),
        FaultKind::EmptyTurn => String::new(),
        _ => return None,
    };
    Some((text, Finish::Stop))
}

/// The name of the first function that a call offers, in whatever dialect.
pub(super) fn first_tool(body: &[u8]) -> Option<String> {
    const PLACES: [&str; 5] = [
        "/tools/0/function/name",
        "/tools/0/name",
        "/tools/0/functionDeclarations/0/name",
        "/tools/0/function_declarations/0/name",
        "/toolConfig/tools/0/toolSpec/name",
    ];
    let body: Value = serde_json::from_slice(body).ok()?;
    PLACES.iter().find_map(|place| body.pointer(place)?.as_str().map(str::to_owned))
}
