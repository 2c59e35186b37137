//! What the simulator limits beyond a plain quota, and what it keeps to itself.

use super::clients::clients;
use super::{Reply, await_until, call, message, ok, send, start, with};
use crate::support::clock;
use serde_json::json;
use sluice::simulate::chance::Spread;
use sluice::simulate::wait::WaitFormat;
use sluice::simulate::{Growth, Latency, Limits, Model, Simulator};
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

fn one_a_minute() -> Limits {
    Limits { requests_per_minute: Some(1), ..Limits::default() }
}

/// A call of the provider `openai` that is under way until the connection is dropped.
fn under_way(simulator: &Simulator, prompt: &str) -> TcpStream {
    let before = simulator.verdict().total.calls;
    let mut stream = TcpStream::connect(simulator.addr()).unwrap();
    let body = json!({"model": "m", "messages": [{"role": "user", "content": prompt}]}).to_string();
    let length = body.len();
    let head = format!("POST /openai/v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all((head + &body).as_bytes()).unwrap();
    await_until(|| simulator.verdict().total.calls > before);
    stream
}

#[test]
fn a_call_is_charged_when_it_arrives_however_long_its_answer_takes() {
    let simulator = with(|provider| provider.quota = one_a_minute());
    let _first = under_way(&simulator, "[[fault:slow:delay=600]]");
    assert_eq!(call(&simulator, "openai", "second").unwrap().status, 429);
}

#[test]
fn a_model_may_have_limits_of_its_own_beside_those_of_its_provider() {
    let mut scenario = super::scenario();
    let provider = scenario.providers.get_mut("openai").unwrap();
    provider.quota = one_a_minute();
    let own = Limits { requests_per_minute: Some(2), ..Limits::default() };
    provider.models.insert("large".to_owned(), Model { quota: Some(own), ..Model::default() });
    provider.models.insert("small".to_owned(), Model::default());
    provider.models.insert("tiny".to_owned(), Model::default());
    let simulator = start(scenario);
    let statuses = ["large", "small", "large", "tiny", "large"].map(|model| {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "Hi"}]}).to_string();
        send(&simulator, "POST", "/openai/v1/chat/completions", "", &body).unwrap().status
    });
    assert_eq!(statuses, [200, 200, 200, 429, 429], "small and tiny share the provider's one call");
}

fn tells_nothing(reply: &Reply) -> bool {
    reply.headers.keys().all(|name| !name.contains("ratelimit") && !name.contains("retry"))
        && !reply.text().contains("try again in")
        && !reply.text().contains("RetryInfo")
}

#[test]
fn a_provider_may_keep_its_limits_to_itself() {
    let simulator = with(|provider| {
        provider.quota = one_a_minute();
        provider.publishes = false;
    });
    for provider in clients().map(|client| client.dialect) {
        assert!(tells_nothing(&ok(&simulator, provider, "one")), "{provider}");
        let refused = call(&simulator, provider, "two").unwrap();
        assert_eq!(refused.status, 429, "{provider}");
        assert!(tells_nothing(&refused), "{provider}: {:?} {}", refused.headers, refused.text());
    }
    // A wait that was not told cannot be broken.
    call(&simulator, "openai", "two").unwrap();
    assert_eq!(simulator.verdict().total.early_retries, 0);
}

#[test]
fn too_many_calls_at_once_are_refused_without_a_word_on_how_long() {
    let simulator = with(|provider| provider.quota = Limits { concurrency: Some(1), ..Limits::default() });
    let first = under_way(&simulator, "[[fault:slow:delay=600]]");
    let refused = call(&simulator, "openai", "second").unwrap();
    assert_eq!(refused.status, 429);
    assert!(tells_nothing(&refused), "{:?} {}", refused.headers, refused.text());
    drop(first);
    await_until(|| simulator.verdict().total.abandoned == 1);
    ok(&simulator, "openai", "third");
}

#[test]
fn a_refusal_tells_its_wait_in_the_format_of_the_scenario() {
    let simulator = with(|provider| {
        provider.quota = one_a_minute();
        provider.wait_format = Some(WaitFormat::HttpDate);
    });
    for provider in clients().map(|client| client.dialect) {
        ok(&simulator, provider, "one");
        let before = clock::wall();
        let refused = call(&simulator, provider, "two").unwrap();
        let until = httpdate::parse_http_date(refused.header("retry-after")).unwrap();
        assert!(until > before + Duration::from_secs(30), "{provider}: {}", refused.header("retry-after"));
    }
}

#[test]
fn calls_that_grow_too_fast_are_told_to_slow_down() {
    let simulator = with(|provider| {
        let growth = Growth { calls: 2, factor: 2.0, window: Duration::from_hours(1) };
        provider.quota = Limits { growth: Some(growth), ..Limits::default() };
    });
    for provider in clients().map(|client| client.dialect) {
        ok(&simulator, provider, "one");
        ok(&simulator, provider, "two");
        let refused = call(&simulator, provider, "three").unwrap();
        assert_eq!(refused.status, 429, "{provider}");
        match provider {
            "openai" | "openai_responses" | "azure_openai" | "completions" => {
                assert_eq!(refused.json()["error"]["code"], "slow_down");
            }
            "anthropic" => assert!(message(&refused).contains("acceleration limit"), "{}", refused.text()),
            "gemini" => assert_eq!(refused.json()["error"]["status"], "RESOURCE_EXHAUSTED"),
            // They know one kind of refusal.
            _ => {}
        }
    }
}

#[test]
fn answers_take_longer_the_more_calls_there_are() {
    let simulator = with(|provider| {
        provider.latency = Latency { first: Spread::Fixed(0.05), full_speed: Some(2), ..Latency::default() };
    });
    let others: Vec<TcpStream> = (0..9).map(|n| under_way(&simulator, &format!("[[fault:hang]] {n}"))).collect();
    ok(&simulator, "openai", "the tenth");
    let record = &simulator.calls(1)[0];
    assert!(record.ended_ms - record.arrived_ms >= 250, "five times what two at once can have: {record:?}");
    drop(others);
}
