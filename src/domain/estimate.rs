//! Estimates of a request's needs, before anything was counted.
//!
//! No tokenizer runs here: every vendor has its own, and a guess is enough to order rungs, to reserve quota and to hold
//! back money. The provider's report corrects the estimate afterwards.

use super::price::{Price, Tariff};
use super::request::{Inputs, Tool, ToolChoice};
use super::{Capabilities, ChatRequest, ContentPart, Job, Message, NanoUsd, ResponseFormat, Usage, UsageSource};
use serde_json::Value;

/// Tokens of an answer whose request sets no cap: the guess that costs are compared with.
pub const USUAL_OUTPUT_TOKENS: i64 = 500;

/// The most tokens of an answer when neither the request nor the model sets a cap: no model of the catalogue writes
/// more. A context window that is known to be smaller counts in its place.
pub const UNKNOWN_OUTPUT_CAP: i64 = 131_072;

/// Tokens of an image. Providers bill from 85 to some 1,600 by size, which is unknown for an image behind an address.
const IMAGE_TOKENS: i64 = 1_000;
/// Tokens of an image in OpenAI's low detail.
const LOW_DETAIL_TOKENS: i64 = 85;
/// Tokens of a message's role and separators.
const MESSAGE_TOKENS: i64 = 4;
/// Tokens of the beginning of the answer.
const PRIMING_TOKENS: i64 = 3;
/// Tokens of the frame around a tool's definition or a call.
const TOOL_TOKENS: i64 = 8;

/// Estimated tokens of the prompt: messages, images, tools and the demanded schema, or the inputs. At least 1.
#[must_use]
pub fn input_tokens(request: &ChatRequest) -> i64 {
    if let Some(embed) = &request.embed {
        return input_sizes(&embed.inputs).fold(0, i64::saturating_add).max(1);
    }
    let messages = sum(request.messages.iter().map(message_tokens));
    sum([messages, tokens_of_tools(request), tokens_of_schema(request), PRIMING_TOKENS].into_iter())
}

/// A number of tokens of the prompt's texts that no tokenizer stays below by much: one for each word, and one for eight
/// letters of scripts without spaces. Tools, schemas and all that is no text are left out.
#[must_use]
pub fn fewest_tokens(request: &ChatRequest) -> i64 {
    let texts = request.messages.iter().flat_map(|message| &message.content).filter_map(|part| match part {
        ContentPart::Text(text) => Some(text.as_str()),
        ContentPart::Image { .. } | ContentPart::File { .. } | ContentPart::Audio { .. } | ContentPart::Other(_) => {
            None
        }
    });
    sum(texts.map(|text| {
        let (mut words, mut letters, mut is_within) = (0_i64, 0_i64, false);
        for c in text.chars() {
            let is_letter = c.is_alphanumeric();
            // From the kana on, scripts are written without spaces.
            let is_spaceless = is_letter && (('\u{0e00}'..='\u{0fff}').contains(&c) || c >= '\u{3040}');
            letters = letters.saturating_add(i64::from(is_spaceless));
            let begins = is_letter && !is_spaceless && !is_within;
            words = words.saturating_add(i64::from(begins));
            is_within = is_letter && !is_spaceless;
        }
        words.saturating_add(letters / 8)
    }))
}

/// Estimated tokens of what stands before the conversation: the tools, the demanded schema, and the first so many
/// messages.
#[must_use]
pub fn prefix_tokens(request: &ChatRequest, messages: usize) -> i64 {
    let messages = sum(request.messages.iter().take(messages).map(message_tokens));
    sum([messages, tokens_of_tools(request), tokens_of_schema(request)].into_iter())
}

fn tokens_of_tools(request: &ChatRequest) -> i64 {
    match request.tool_choice {
        Some(ToolChoice::None) => 0,
        Some(ToolChoice::Auto | ToolChoice::Required | ToolChoice::Function(_) | ToolChoice::Other(_)) | None => {
            sum(request.tools.iter().map(tool_tokens))
        }
    }
}

fn tokens_of_schema(request: &ChatRequest) -> i64 {
    match &request.response_format {
        Some(ResponseFormat::JsonSchema { schema, .. }) => json_tokens(schema),
        Some(ResponseFormat::Text | ResponseFormat::JsonObject | ResponseFormat::Other(_)) | None => 0,
    }
}

/// Estimated tokens of the longest input of a request for embeddings, for which a model has its window each.
#[must_use]
pub fn longest_input(inputs: &Inputs) -> i64 {
    input_sizes(inputs).max().unwrap_or(0)
}

fn input_sizes(inputs: &Inputs) -> Box<dyn Iterator<Item = i64> + '_> {
    match inputs {
        Inputs::Texts(texts) => Box::new(texts.iter().map(|text| text_tokens(text))),
        Inputs::Tokens(lists) => Box::new(lists.iter().map(|list| i64::try_from(list.len()).unwrap_or(i64::MAX))),
    }
}

/// Estimated tokens of a text.
///
/// English has some four letters to a token; figures and punctuation are split finer. Beyond ASCII the length in
/// UTF-8 tells enough: accented Latin, Greek, Cyrillic, Hebrew and Arabic (two bytes) have about two letters to a
/// token, Chinese, Japanese, Korean and Indic scripts (three bytes) about one, emoji and rare signs (four bytes) half a
/// letter.
#[must_use]
pub fn text_tokens(text: &str) -> i64 {
    // In twelfths of a token, by the first byte of each character.
    let twelfths = text.bytes().fold(0_i64, |total, byte| {
        total.saturating_add(match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b' ' => 3,
            b'0'..=b'9' => 4,
            0x00..=0x7f | 0xc0..=0xdf => 6,
            0xe0..=0xef => 12,
            0xf0..=0xff => 24,
            // The other bytes of a character, which its first byte has counted.
            0x80..=0xbf => 0,
        })
    });
    twelfths.saturating_add(11) / 12
}

/// Bytes of a file for one token: text in a PDF is compressed, and its pages are read as images, too.
const BYTES_OF_FILE: i64 = 10;

/// Bytes of a sound for one token: some 32 tokens a second, of which a compressed recording takes a few kilobytes.
const BYTES_OF_AUDIO: i64 = 100;

/// Estimated tokens of what comes along as base64, of which four characters are three bytes.
fn tokens_of_base64(text: &str, bytes_a_token: i64) -> i64 {
    i64::try_from(text.len() / 4 * 3).unwrap_or(i64::MAX) / bytes_a_token
}

fn message_tokens(message: &Message) -> i64 {
    let content = sum(message.content.iter().map(|part| match part {
        ContentPart::Text(text) => text_tokens(text),
        ContentPart::Image { detail, .. } if detail.as_deref() == Some("low") => LOW_DETAIL_TOKENS,
        ContentPart::File { url, .. } => IMAGE_TOKENS.max(tokens_of_base64(url, BYTES_OF_FILE)),
        ContentPart::Audio { data, .. } => IMAGE_TOKENS.max(tokens_of_base64(data, BYTES_OF_AUDIO)),
        // The size of what is not understood is known as little as that of an image.
        ContentPart::Image { .. } | ContentPart::Other(_) => IMAGE_TOKENS,
    }));
    let calls = sum(message
        .tool_calls
        .iter()
        .map(|call| TOOL_TOKENS.saturating_add(text_tokens(&call.name)).saturating_add(text_tokens(&call.arguments))));
    let name = message.name.as_deref().map_or(0, text_tokens);
    sum([content, calls, name, MESSAGE_TOKENS].into_iter())
}

fn tool_tokens(tool: &Tool) -> i64 {
    let description = tool.description.as_deref().map_or(0, text_tokens);
    let parameters = tool.parameters.as_ref().map_or(0, json_tokens);
    sum([text_tokens(&tool.name), description, parameters, TOOL_TOKENS].into_iter())
}

/// Tokens of a JSON value as text: a rough size for a request that is not parsed yet.
#[must_use]
pub fn json_tokens(value: &Value) -> i64 {
    text_tokens(&value.to_string())
}

fn sum(parts: impl Iterator<Item = i64>) -> i64 {
    parts.fold(0, i64::saturating_add)
}

/// What a request will probably cost by its estimated tokens of input and its output cap, or else
/// [`USUAL_OUTPUT_TOKENS`]. For comparing rungs.
#[must_use]
pub fn expected_cost(price: &Tariff, input_tokens: i64, cap: Option<i64>) -> NanoUsd {
    price.cost(&estimated(input_tokens, cap.unwrap_or(USUAL_OUTPUT_TOKENS)))
}

/// The most that one call for the job can cost: the amount that a budget holds back before the call.
///
/// The prompt is taken a quarter larger than estimated and at the dearest price of input (a cache write may cost more
/// than plain input); each answer at the smaller of the request's cap and the model's, or [`UNKNOWN_OUTPUT_CAP`]. Where
/// so long a prompt may have a dearer price, that counts. So it is a bound as far as the estimate is within a quarter,
/// and a model that ignores its cap can still cost more.
#[must_use]
pub fn worst_cost(price: &Tariff, capabilities: &Capabilities, job: &Job) -> NanoUsd {
    let input = job.input_tokens.max(0);
    let input = input.saturating_add(input / 4).saturating_add(1);
    dearest_cost(price, input, most_output_of_all(capabilities, job, job.max_output_tokens))
}

/// The most tokens of an answer: the smaller of the request's cap, where it is sent along, and the model's, or
/// [`UNKNOWN_OUTPUT_CAP`].
#[must_use]
pub fn most_output_tokens(capabilities: &Capabilities, cap: Option<i64>) -> i64 {
    let cap = cap.filter(|_| !capabilities.ignores_cap);
    let window = || capabilities.context_window.map_or(UNKNOWN_OUTPUT_CAP, |window| window.min(UNKNOWN_OUTPUT_CAP));
    [cap, capabilities.max_output_tokens].into_iter().flatten().min().unwrap_or_else(window)
}

/// The most tokens of all answers together that the job's request has the model write with this cap on each.
#[must_use]
pub fn most_output_of_all(capabilities: &Capabilities, job: &Job, cap: Option<i64>) -> i64 {
    let unsent = &capabilities.unsent_extras;
    // Without a cap the model's own counts, which no holder raises.
    let cap = cap.map(|cap| job.extras.cap(unsent).map_or(cap, |other| other.max(cap)));
    most_output_tokens(capabilities, cap).saturating_mul(job.extras.answers(unsent))
}

/// The most that a call with up to so many tokens costs, regardless of their classes.
#[must_use]
pub fn dearest_cost(price: &Tariff, input: i64, output: i64) -> NanoUsd {
    let of = |price: Price| {
        let dearest = Price { input: price.dearest_input(), output: price.dearest_output(), ..price };
        dearest.cost(&estimated(input, output))
    };
    price.up_to(input).map(of).max().unwrap_or_default()
}

fn estimated(input: i64, output: i64) -> Usage {
    Usage { input, output, source: UsageSource::Estimated, ..Usage::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::request::Extras;
    use crate::domain::{JobId, Timestamp};
    use serde_json::json;

    const PRICE: Price = Price {
        input: 1_000_000_000,
        output: 4_000_000_000,
        cached_input: Some(100_000_000),
        cache_write: Some(1_250_000_000),
        cache_write_1h: None,
        reasoning: None,
    };

    fn job(input_tokens: i64, max_output_tokens: Option<i64>) -> Job {
        let id = JobId(1);
        Job {
            id,
            ready_at: Timestamp(0),
            deadline: None,
            max_attempts: None,
            input_tokens,
            max_output_tokens,
            sticky: None,
            extras: Extras::default(),
        }
    }

    fn tokens_of(body: &Value) -> i64 {
        input_tokens(&ChatRequest::parse(body).unwrap())
    }

    #[test]
    fn scripts_differ_in_letters_per_token() {
        // Tenths of a letter to a token.
        for (text, tenths) in [
            ("The quick brown fox jumps over the lazy dog. It was not amused by the attention.", 35..=42),
            ("Наука умеет много гитик, и каждая из них по-своему хороша.", 18..=26),
            ("今天天气很好，我们去公园散步吧。", 9..=11),
            ("Der Fluß führt Hochwasser, die Schleuse bleibt geschlossen.", 32..=40),
            ("{\"a\":[1,2,3],\"b\":{\"c\":null}}", 18..=26),
        ] {
            let letters = i64::try_from(text.chars().count()).unwrap();
            let found = letters * 10 / text_tokens(text);
            assert!(tenths.contains(&found), "{text}: {found}");
        }
        assert_eq!(text_tokens(""), 0);
        assert_eq!(text_tokens("a"), 1);
    }

    #[test]
    fn everything_that_is_sent_is_counted() {
        let plain = json!({"messages": [{"role": "user", "content": "What is the weather in Oslo?"}]});
        let mut more = plain.clone();
        let mut last = tokens_of(&plain);
        for (member, value) in [
            ("tools", json!([{"function": {"name": "weather", "parameters": {"type": "object"}}}])),
            (
                "response_format",
                json!({"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}),
            ),
        ] {
            more[member] = value;
            let now = tokens_of(&more);
            assert!(now > last, "{member}");
            last = now;
        }
        more["tool_choice"] = json!("none");
        assert!(tokens_of(&more) < last);
    }

    #[test]
    fn an_image_counts_a_flat_amount_whatever_its_bytes() {
        let with = |url: &str, detail: &str| {
            let part = json!({"type": "image_url", "image_url": {"url": url, "detail": detail}});
            tokens_of(&json!({"messages": [{"role": "user", "content": [part]}]}))
        };
        let long = format!("data:image/png;base64,{}", "A".repeat(100_000));
        assert_eq!(with(&long, "high"), with("https://example.com/a.png", "auto"));
        assert!(with(&long, "low") < with(&long, "high"));
    }

    #[test]
    fn the_expected_cost_takes_the_cap_as_the_output() {
        assert_eq!(expected_cost(&PRICE.into(), 1_000, Some(100)), NanoUsd(1_000_000 + 400_000));
        assert_eq!(expected_cost(&PRICE.into(), 1_000, None), NanoUsd(1_000_000 + 2_000_000));
    }

    #[test]
    fn the_worst_cost_takes_the_smaller_cap_and_the_dearest_input() {
        let model = |max_output_tokens| Capabilities { max_output_tokens, ..Capabilities::default() };
        let input = 1_251 * 1_250;
        assert_eq!(worst_cost(&PRICE.into(), &model(Some(50)), &job(1_000, Some(100))), NanoUsd(input + 50 * 4_000));
        assert_eq!(worst_cost(&PRICE.into(), &model(None), &job(1_000, Some(100))), NanoUsd(input + 100 * 4_000));
        assert_eq!(
            worst_cost(&PRICE.into(), &model(None), &job(1_000, None)),
            NanoUsd(input + UNKNOWN_OUTPUT_CAP * 4_000)
        );
        // A cap that is not sent along caps nothing.
        let deaf = Capabilities { ignores_cap: true, ..model(Some(50)) };
        assert_eq!(worst_cost(&PRICE.into(), &deaf, &job(1_000, Some(10))), NanoUsd(input + 50 * 4_000));
        // A prompt that is written into a cache for an hour costs twice its plain price.
        let hour = Price { cache_write_1h: Some(2_000_000_000), ..PRICE };
        let written = NanoUsd(1_251 * 2_000 + 50 * 4_000);
        assert_eq!(worst_cost(&hour.into(), &model(Some(50)), &job(1_000, Some(100))), written);
        let small = Capabilities { context_window: Some(8_192), ..Capabilities::default() };
        assert_eq!(worst_cost(&PRICE.into(), &small, &job(1_000, None)), NanoUsd(input + 8_192 * 4_000));
    }

    proptest::proptest! {
        #[test]
        fn the_worst_cost_is_never_below_the_expected_one(
            input in proptest::num::i64::ANY,
            cap in proptest::option::of(proptest::num::i64::ANY),
        ) {
            let job = job(input, cap);
            proptest::prop_assert!(
                worst_cost(&PRICE.into(), &Capabilities::default(), &job)
                    >= expected_cost(&PRICE.into(), job.input_tokens, job.max_output_tokens)
            );
        }

        #[test]
        fn a_longer_text_never_has_fewer_tokens(text in ".*", more in ".*") {
            let longer = format!("{text}{more}");
            proptest::prop_assert!(text_tokens(&longer) >= text_tokens(&text));
        }
    }
}
