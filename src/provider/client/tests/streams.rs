//! Answers that come as a stream of events.

use super::*;
use crate::provider::checks::spoken;
use crate::provider::{
    DIALECTS, Dialect, azure_openai, bedrock, cohere, completions, gemini, ollama, openai_responses,
};
use serde_json::json;

const OPENAIS: &str = concat!(
    ": keep-alive\n\n",
    r#"data: {"id":"x","model":"the-model","choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"}}]}"#,
    "\n\n",
    r#"data: {"choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":"stop"}]}"#,
    "\n\n",
    r#"data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#,
    "\n\ndata: [DONE]\n\n",
);

const ANTHROPICS: &str = concat!(
    "event: message_start\n",
    r#"data: {"type":"message_start","message":{"id":"x","type":"message","model":"the-model","content":[],"usage":{"input_tokens":3,"output_tokens":1}}}"#,
    "\n\nevent: content_block_start\n",
    r#"data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
    "\n\nevent: ping\n",
    r#"data: {"type":"ping"}"#,
    "\n\nevent: content_block_delta\n",
    r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}"#,
    "\n\nevent: message_delta\n",
    r#"data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}"#,
    "\n\nevent: message_stop\n",
    r#"data: {"type":"message_stop"}"#,
    "\n\n",
);

const GEMINIS: &str = concat!(
    r#"data: {"candidates":[{"content":{"parts":[{"text":"Hel"}],"role":"model"}}],"usageMetadata":{"promptTokenCount":3},"modelVersion":"the-model","responseId":"x"}"#,
    "\r\n\r\n",
    r#"data: {"candidates":[{"content":{"parts":[{"text":"lo"}],"role":"model"},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":2,"totalTokenCount":5}}"#,
    "\r\n\r\n",
);

const OLLAMAS: &str = concat!(
    r#"{"model":"the-model","id":"x","message":{"role":"assistant","content":"Hel"},"done":false}"#,
    "\n",
    r#"{"model":"the-model","message":{"role":"assistant","content":"lo"},"done":false}"#,
    "\n",
    r#"{"model":"the-model","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":3,"eval_count":2}"#,
    "\n",
);

const COHERES: &str = concat!(
    "event: message-start\n",
    r#"data: {"type":"message-start","id":"x","delta":{"message":{"role":"assistant","content":[]}}}"#,
    "\n\nevent: content-start\n",
    r#"data: {"type":"content-start","index":0,"delta":{"message":{"content":{"type":"text","text":""}}}}"#,
    "\n\nevent: content-delta\n",
    r#"data: {"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"Hello"}}}}"#,
    "\n\nevent: content-end\n",
    r#"data: {"type":"content-end","index":0}"#,
    "\n\nevent: message-end\n",
    r#"data: {"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{"billed_units":{"input_tokens":3,"output_tokens":2}}}}"#,
    "\n\ndata: [DONE]\n\n",
);

const RESPONSES: &str = concat!(
    "event: response.created\n",
    r#"data: {"type":"response.created","sequence_number":0,"response":{"id":"x","status":"in_progress","output":[]}}"#,
    "\n\nevent: response.output_text.delta\n",
    r#"data: {"type":"response.output_text.delta","sequence_number":1,"delta":"Hello"}"#,
    "\n\nevent: response.completed\n",
    r#"data: {"type":"response.completed","sequence_number":2,"response":{"id":"x","model":"the-model","status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"Hello"}]}],"usage":{"input_tokens":3,"output_tokens":2,"total_tokens":5}}}"#,
    "\n\n",
);

const COMPLETIONS: &str = concat!(
    r#"data: {"id":"x","model":"the-model","choices":[{"index":0,"text":"Hel","finish_reason":null}]}"#,
    "\n\n",
    r#"data: {"choices":[{"index":0,"text":"lo","finish_reason":"stop"}]}"#,
    "\n\n",
    r#"data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#,
    "\n\ndata: [DONE]\n\n",
);

/// A dialect, a stream of it, and the first line of its requests with a text that they contain.
const TEXTS: &[(&Dialect, &str, &str, &str)] = &[
    (
        &openai::DIALECT,
        OPENAIS,
        "POST /v1/chat/completions HTTP/1.1",
        r#""stream":true,"stream_options":{"include_usage":true}"#,
    ),
    (&anthropic::DIALECT, ANTHROPICS, "POST /v1/messages HTTP/1.1", r#""stream":true"#),
    (&gemini::DIALECT, GEMINIS, "POST /v1/models/the-model:streamGenerateContent?alt=sse HTTP/1.1", ""),
    (&ollama::DIALECT, OLLAMAS, "POST /v1/api/chat HTTP/1.1", r#""stream":true"#),
    (&cohere::DIALECT, COHERES, "POST /v1/chat HTTP/1.1", r#""stream":true"#),
    (
        &azure_openai::DIALECT,
        OPENAIS,
        "POST /v1/chat/completions HTTP/1.1",
        r#""stream":true,"stream_options":{"include_usage":true}"#,
    ),
    (&completions::DIALECT, COMPLETIONS, "POST /v1/completions HTTP/1.1", r#""stream":true"#),
    (&openai_responses::DIALECT, RESPONSES, "POST /v1/responses HTTP/1.1", r#""stream":true"#),
];

/// A stream of each dialect: those that are texts, and Bedrock's, which is none.
fn streams() -> Vec<(&'static Dialect, Vec<u8>, &'static str, &'static str)> {
    let texts =
        TEXTS.iter().map(|(dialect, text, line, members)| (*dialect, text.as_bytes().to_vec(), *line, *members));
    let delta = |text: &str| json!({"contentBlockIndex": 0, "delta": {"text": text}, "p": "abc"});
    let events = [
        ("messageStart", json!({"role": "assistant"})),
        ("contentBlockDelta", delta("Hel")),
        ("contentBlockDelta", delta("lo")),
        ("contentBlockStop", json!({"contentBlockIndex": 0})),
        ("messageStop", json!({"stopReason": "end_turn"})),
        ("metadata", json!({"usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}, "p": "a"})),
    ];
    let frames = events.iter().flat_map(|(name, payload)| bedrock::frames::written("event", name, payload)).collect();
    let bedrock: (&Dialect, _, _, _) =
        (&bedrock::DIALECT, frames, "POST /v1/model/the-model/converse-stream HTTP/1.1", "");
    texts.chain([bedrock]).collect()
}

async fn stream(dialect: &'static Dialect, script: Vec<Step>) -> (CallReport, String) {
    within(&PATIENT, dialect, script).await
}

async fn within(timeouts: &Timeouts, dialect: &'static Dialect, script: Vec<Step>) -> (CallReport, String) {
    let server = Server::start(script).await;
    let endpoint = Endpoint { dialect, ..endpoint(&server.url) };
    let report = stream_from(endpoint, timeouts, &[]).await;
    (report, server.heard().remove(0))
}

async fn stream_from(endpoint: Endpoint, timeouts: &Timeouts, mends: &[Mend]) -> CallReport {
    let provider = Provider::new(endpoint).unwrap();
    let request = request(vec![message(Role::User, "Hello")]);
    let capabilities = Capabilities::default();
    let call = Call { delivery: Delivery::Stream, mends, ..asked(&request, &capabilities) };
    provider.call(0, &call, timeouts, &OnceLock::new()).await.unwrap()
}

/// The beginning of a stream of events in chunks, and these events.
fn begun(events: &str) -> Vec<Step> {
    let mut script = chunked(events, 10_000);
    script.pop();
    script
}

/// A stream in chunks of this size, without an end of its length.
fn chunked(text: impl AsRef<[u8]>, size: usize) -> Vec<Step> {
    let mut script =
        vec![send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")];
    script.extend(
        text.as_ref()
            .chunks(size)
            .flat_map(|piece| [send(format!("{:x}\r\n", piece.len())), send(piece), send("\r\n")]),
    );
    script.push(send("0\r\n\r\n"));
    script
}

#[tokio::test]
async fn every_dialect_asks_for_a_stream_and_reads_the_same_answer_from_it() {
    let streams = streams();
    assert_eq!(streams.len(), DIALECTS.len());
    for (dialect, text, line, members) in streams {
        for size in [7, 10_000] {
            let (report, heard) = stream(dialect, chunked(&text, size)).await;
            let answer = report.result.unwrap_or_else(|failure| panic!("{dialect:?}: {failure:?}"));
            assert_eq!(answer.text.as_deref(), Some("Hello"), "{dialect:?}");
            // Cohere and Bedrock do not say which model answered, and Bedrock has its id in a header.
            let model = answer.model.as_deref().unwrap_or("the-model");
            assert_eq!((answer.id.as_deref().unwrap_or("x"), model), ("x", "the-model"), "{dialect:?}");
            assert_eq!(answer.finish, crate::domain::Finish::Complete, "{dialect:?}");
            assert_eq!((answer.usage.input, answer.usage.output), (3, 2), "{dialect:?}");
            assert!(answer.beside.notes.is_empty(), "{dialect:?}: {:?}", answer.beside.notes);
            assert!(heard.starts_with(line) && heard.contains(members), "{dialect:?}: {heard}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_cut_off_is_a_broken_connection() {
    for (dialect, text, ..) in streams() {
        let half = &text[..text.len() / 2];
        let failure = stream(dialect, chunked(half, 10_000)).await.0.result.unwrap_err();
        let found = (failure.class, failure.scope, failure.status);
        assert_eq!(found, (ErrorClass::Network, Scope::Network, Some(200)), "{dialect:?}: {}", failure.message);
    }
}

#[tokio::test]
async fn an_error_within_a_stream_is_what_it_says() {
    let begun = |text: &'static str| text.split_inclusive("\n\n").next().unwrap_or_default();
    for (dialect, text, class) in [
        (
            &openai::DIALECT,
            format!("{}data: {{\"error\":{{\"message\":\"m\",\"code\":\"insufficient_quota\"}}}}\n\n", begun(OPENAIS)),
            ErrorClass::QuotaExhausted,
        ),
        (
            &openai::DIALECT,
            "event: error\ndata: {\"error\":{\"message\":\"m\",\"code\":\"rate_limit_exceeded\"}}\n\n".to_owned(),
            ErrorClass::RateLimit,
        ),
        (
            &anthropic::DIALECT,
            format!(
                "{}event: error\ndata: \
                 {{\"type\":\"error\",\"error\":{{\"type\":\"overloaded_error\",\"message\":\"m\"}}}}\n\n",
                begun(ANTHROPICS)
            ),
            ErrorClass::Overloaded,
        ),
        (
            &gemini::DIALECT,
            "data: {\"error\":{\"code\":503,\"message\":\"m\",\"status\":\"UNAVAILABLE\"}}\n\n".to_owned(),
            ErrorClass::Overloaded,
        ),
        (
            &ollama::DIALECT,
            "{\"message\":{\"content\":\"Hel\"},\"done\":false}\n{\"error\":\"an error was encountered while running \
             the model: out of memory\"}\n"
                .to_owned(),
            ErrorClass::Overloaded,
        ),
    ] {
        // Also when the connection breaks behind it.
        let mut broken = chunked(&text, 10_000);
        broken.pop();
        for script in [chunked(&text, 10_000), broken] {
            let failure = stream(dialect, script).await.0.result.unwrap_err();
            assert_eq!(failure.class, class, "{dialect:?}: {text}");
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_stream_or_refuses_is_understood_all_the_same() {
    let (report, _) = stream(&openai::DIALECT, vec![reply(200, "", ANSWER)]).await;
    assert_eq!(report.result.unwrap().text.as_deref(), Some("Hi"));
    let refusal = r#"{"error":{"message":"m","code":"rate_limit_exceeded"}}"#;
    let (report, _) = stream(&openai::DIALECT, vec![reply(429, "retry-after: 7\r\n", refusal)]).await;
    let failure = report.result.unwrap_err();
    assert_eq!((failure.class, failure.wait), (ErrorClass::RateLimit, Some(Duration::from_secs(7))));
}

#[tokio::test]
async fn what_had_come_of_a_stream_is_told_wherever_it_breaks_off() {
    let headers = HeaderMap::new();
    for (dialect, text, ..) in streams() {
        let adapter = spoken(dialect.name, None, "http://localhost", &QuirkSettings::default());
        let mut longest = String::new();
        for end in 0..text.len() {
            let cut = WireReply { delivery: Delivery::Stream, ..WireReply::new(200, &headers, &text[..end]) };
            if adapter.decode(&cut).is_ok() {
                break;
            }
            let partial = adapter.decode(&WireReply { is_partial: true, ..cut }).ok();
            let words = partial.and_then(|partial| partial.text).unwrap_or_default();
            assert!("Hello".starts_with(&words) && words.len() >= longest.len(), "{dialect:?} at {end}: {words:?}");
            longest = words;
        }
        assert!(longest.starts_with("Hel"), "{dialect:?}: {longest:?}");
    }
}

#[tokio::test]
async fn a_broken_stream_comes_with_its_words_and_a_whole_one_with_its_answer_alone() {
    let first = OPENAIS.split_inclusive("\n\n").take(2).collect::<String>();
    let error = "data: {\"error\":{\"message\":\"m\",\"code\":\"server_error\"}}\n\n";
    for script in [
        // Cut by the network, with a clean end, and by an error.
        begun(&first),
        chunked(&first, 10_000),
        chunked(first.clone() + error, 10_000),
    ] {
        let (report, _) = stream(&openai::DIALECT, script).await;
        assert!(report.result.is_err() && report.is_streamed);
        assert_eq!(report.partial.unwrap().text.as_deref(), Some("Hel"));
    }
    let (report, _) = stream(&openai::DIALECT, chunked(OPENAIS, 7)).await;
    assert!(report.result.is_ok() && report.is_streamed && report.partial.is_none());
    // What does not come as a stream has no words.
    let (report, _) = stream(&openai::DIALECT, vec![reply(500, "", "Hello")]).await;
    assert!(report.result.is_err() && report.partial.is_none());
}

#[tokio::test]
async fn a_stream_that_stalls_is_given_up_after_the_idle_time_however_it_is_kept_alive() {
    const COMMENT: &str = "a\r\n: alive!\n\n\r\n";
    const PING: &str = "24\r\nevent: ping\ndata: {\"type\": \"ping\"}\n\n\r\n";
    const EVENT: &str = "f\r\ndata: {\"a\":1}\n\n\r\n";
    let idle = Timeouts { idle: SHORT, ..PATIENT };
    let first = OPENAIS.split_inclusive("\n\n").take(2).collect::<String>();
    for last in [Step::Hang, Step::Drip(COMMENT), Step::Drip(PING)] {
        let script = [begun(&first), vec![last]].concat();
        let (report, _) = within(&idle, &openai::DIALECT, script).await;
        let failure = report.result.unwrap_err();
        assert_eq!((failure.class, failure.scope, failure.status), (ErrorClass::Timeout, Scope::Model, Some(200)));
        assert_eq!(failure.message, "the answer stalled");
        assert_eq!(report.partial.unwrap().text.as_deref(), Some("Hel"));
        assert!(report.first_byte_ms.is_some_and(|first| first <= report.total_ms));
    }
    // Events that come again and again are no stall.
    let hurried = Timeouts { idle: SHORT, total: SHORT * 4, ..PATIENT };
    let script = [begun(&first), vec![Step::Drip(EVENT)]].concat();
    let (report, _) = within(&hurried, &openai::DIALECT, script).await;
    assert_eq!(report.result.unwrap_err().message, "the answer did not end in time");
}

#[tokio::test]
async fn a_stream_begins_with_its_first_event() {
    const COMMENT: &str = "a\r\n: alive!\n\n\r\n";
    let first_byte = Timeouts { first_byte: SHORT, ..PATIENT };
    let (report, _) =
        within(&first_byte, &openai::DIALECT, [begun(": queued\n\n"), vec![Step::Drip(COMMENT)]].concat()).await;
    let failure = report.result.unwrap_err();
    assert_eq!((failure.class, failure.message.as_str()), (ErrorClass::Timeout, "no event of the stream came in time"));
    assert_eq!((report.status, report.first_byte_ms), (Some(200), None));
    // The time between two events does not count before the first.
    let idle = Timeouts { idle: Duration::ZERO, first_byte: SHORT, ..PATIENT };
    let (report, _) = within(&idle, &openai::DIALECT, [begun(": queued\n\n"), vec![Step::Hang]].concat()).await;
    assert_eq!(report.result.unwrap_err().message, "no event of the stream came in time");
}

#[tokio::test]
async fn an_event_that_cannot_be_read_leaves_a_hole_in_the_answer_and_a_word_does_not() {
    let with = |event: &str| OPENAIS.replacen("\n\n", &format!("\n\n{event}\n\n"), 2);
    for word in ["data: ping", "data: [heartbeat]", "data:", "event: ping\ndata: {\"type\":\"ping\"}", "id: 7"] {
        let (report, _) = stream(&openai::DIALECT, chunked(with(word), 10_000)).await;
        assert_eq!(report.result.unwrap().text.as_deref(), Some("Hello"), "{word}");
    }
    for garbage in ["data: {\"choices\":[{\"del\u{1}", "data: \u{fffd}\u{fffd}\u{fffd}", "\u{fffd}\u{fffd}: {}"] {
        let (report, _) = stream(&openai::DIALECT, chunked(with(garbage), 10_000)).await;
        let failure = report.result.unwrap_err();
        assert_eq!(failure.class, ErrorClass::ServerError, "{garbage}");
        assert!(failure.message.contains("an event that cannot be read"), "{}", failure.message);
    }
}

#[tokio::test]
async fn the_tokens_of_a_stream_are_not_asked_for_where_that_is_refused() {
    const ASKS: &str = "stream_options";
    let server = Server::start(chunked(OPENAIS, 10_000)).await;
    let quirks = QuirkSettings { stream_usage: Some(false), ..QuirkSettings::default() };
    let refuses = Mend::Drop { member: ASKS, lasting: true };
    stream_from(Endpoint { quirks, ..endpoint(&server.url) }, &PATIENT, &[]).await.result.unwrap();
    let report = stream_from(endpoint(&server.url), &PATIENT, &[refuses]).await;
    assert_eq!((report.result.is_ok(), report.dropped), (true, vec![ASKS.to_owned()]));
    for heard in server.heard() {
        assert!(heard.contains("\"stream\":true") && !heard.contains(ASKS), "{heard}");
    }
    let refusal = r#"{"error":{"message":"Unrecognized request argument supplied: stream_options","param":null}}"#;
    let (report, _) = stream(&openai::DIALECT, vec![reply(400, "", refusal)]).await;
    let mend = report.result.unwrap_err().mend;
    assert_eq!(mend.as_deref(), Some(&Mend::Drop { member: ASKS, lasting: true }));
}

#[tokio::test]
async fn a_call_that_is_asked_for_without_a_stream_is_none() {
    let server = Server::start(vec![reply(200, "", ANSWER)]).await;
    let mends = [Mend::Drop { member: "stream", lasting: true }];
    let report = stream_from(endpoint(&server.url), &PATIENT, &mends).await;
    assert!(report.result.is_ok() && !report.is_streamed, "{report:?}");
    assert_eq!(report.dropped, ["stream"]);
    assert!(!server.heard()[0].contains("stream"), "{}", server.heard()[0]);
}
