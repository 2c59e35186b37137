//! The faults, and when they come: failures, waits, bad answers, broken connections, scripts and rules.

use super::clients::{FAILURES, clients};
use super::{await_until, call, finish, message, ok, scenario, start, usage, words};
use serde_json::{Value, json};
use sluice::simulate::{Dialect, Fault, FaultKind, FaultRule, Scenario, count_tokens};
use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

#[test]
fn failures_have_the_status_and_the_words_of_their_provider() {
    let simulator = start(scenario());
    for client in clients() {
        let provider = client.dialect;
        for (index, (fault, (status, part))) in FAILURES.iter().zip(client.failures).enumerate() {
            let reply = call(&simulator, provider, &format!("{index} [[fault:{fault}]]")).unwrap();
            assert_eq!(reply.status, status, "{provider} {fault}");
            assert!(reply.text().contains(part), "{provider} {fault}: {}", reply.text());
            assert!(!reply.headers.contains_key("retry-after"), "{provider} {fault}");
        }
    }
    let verdict = simulator.verdict();
    assert_eq!(verdict.total.charged_nano_usd + verdict.total.output_tokens, 0, "failures cost nothing");
    assert_eq!(verdict.total.by_fault["out_of_quota"], 3 * Dialect::ALL.len() as u64);
    assert_eq!(verdict.total.retried_non_retryables, 0, "each was sent once to each provider");
}

#[test]
fn a_rate_limit_tells_its_wait_in_every_format() {
    let simulator = start(scenario());
    let cases: [(&str, Option<(&str, &str)>); 9] = [
        ("retry-after=2", Some(("retry-after", "2"))),
        ("retry_after_fraction=2.25", Some(("retry-after", "2.25"))),
        ("retry-after-ms=2.5", Some(("retry-after-ms", "2500"))),
        ("go-duration=90", Some(("x-ratelimit-reset-requests", "1m30s"))),
        ("retry_after_and_zero_ms=3", Some(("retry-after-ms", "0"))),
        ("http-date=5", None),
        ("rfc3339=5", None),
        ("epoch=5", None),
        ("epoch_ms=5", None),
    ];
    for (option, header) in cases {
        let reply = call(&simulator, "openai", &format!("[[fault:429:{option}]]")).unwrap();
        assert_eq!(reply.status, 429);
        if let Some((name, value)) = header {
            assert_eq!(reply.header(name), value, "{option}");
        }
        match option.split('=').next().unwrap() {
            "http-date" => assert!(reply.header("retry-after").ends_with(" GMT")),
            "rfc3339" => assert!(reply.header("anthropic-ratelimit-requests-reset").ends_with('Z')),
            "epoch" => assert_eq!(reply.header("x-ratelimit-reset").len(), 10),
            "epoch_ms" => assert_eq!(reply.header("x-ratelimit-reset").len(), 13),
            _ => {}
        }
    }
    let told = call(&simulator, "openai", "[[fault:429:message=2.5]]").unwrap();
    assert!(message(&told).ends_with("Please try again in 2.5s."));
    assert!(!told.headers.contains_key("retry-after"));
    let told = call(&simulator, "gemini", "[[fault:429:retry-info=46]]").unwrap();
    assert_eq!(told.json()["error"]["details"][2]["retryDelay"], "46s");
    let untold = call(&simulator, "openai", "[[fault:429:none]]").unwrap();
    assert_eq!((untold.status, message(&untold).contains("try again")), (429, false));
    let default = call(&simulator, "anthropic", "[[fault:429:wait=7]]").unwrap();
    assert_eq!(default.header("retry-after"), "7");
    let busy = call(&simulator, "anthropic", "[[fault:529:wait=3]]").unwrap();
    assert_eq!((busy.status, busy.header("retry-after")), (529, "3"));
}

#[test]
fn an_answer_may_be_bad_in_every_way() {
    let simulator = start(scenario());
    for client in clients() {
        let provider = client.dialect;
        let get = |fault: &str| ok(&simulator, provider, &format!("What now? [[fault:{fault}]]"));
        let body = get("empty").json();
        // A count of zero may be left out.
        assert_eq!((words(provider, &body).as_str(), usage(provider, &body).1.unwrap_or(0)), ("", 0));

        let body = get("truncated").json();
        assert_eq!(finish(provider, &body), client.length, "{body}");
        assert_eq!(usage(provider, &body).1, Some(8));

        assert!(serde_json::from_slice::<Value>(&get("malformed_json").body).is_err());
        let page = get("html");
        assert!(page.header("content-type").starts_with("text/html") && page.text().starts_with("<!DOCTYPE"));
        assert!(std::str::from_utf8(&get("garbage").body).is_err());
        let error = get("error_in_200").json();
        assert!(["error", "message"].iter().any(|key| !error[key].is_null()), "{provider}: {error}");
        assert_eq!(usage(provider, &get("no_usage").json()), (None, None));
        assert_eq!(usage(provider, &get("wrong_usage").json()).1, Some(160));
        assert_eq!(words(provider, &get("no_choices").json()), "");

        let fenced = words(provider, &get("fenced_json").json());
        assert!(fenced.starts_with("```json\n{") && fenced.ends_with("}\n```"), "{fenced}");
        let broken = words(provider, &get("broken_json").json());
        assert!(broken.starts_with('{') && serde_json::from_str::<Value>(&broken).is_err());
        let json = words(provider, &get("json").json());
        assert!(serde_json::from_str::<Value>(&json).unwrap()["answer"].is_string());
        assert!(words(provider, &get("refusal_text").json()).starts_with("I'm sorry"));

        let filtered = get("content_filter").text();
        assert!(filtered.contains(client.filtered), "{filtered}");
        let refused = get("refusal").json();
        assert!((client.is_refusal)(&refused), "{refused}");
        let huge = get("huge_body:bytes=3000000");
        assert!(huge.body.len() > 3_000_000);
        assert_eq!(count_tokens(&words(provider, &huge.json())), 16);
    }
    assert!(simulator.verdict().clean);
}

#[test]
fn connections_may_break_in_every_way() {
    let simulator = start(scenario());
    for provider in clients().map(|client| client.dialect) {
        let reset = call(&simulator, provider, "[[fault:reset]]").unwrap_err();
        assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset, "{provider}");
        let cut = call(&simulator, provider, "[[fault:cut]]").unwrap();
        assert!(cut.cut && cut.status == 200 && !cut.body.is_empty());
        let dripped = ok(&simulator, provider, "[[fault:slow_drip:interval=0.001]]");
        assert_eq!(usage(provider, &dripped.json()).1, Some(16));
    }
    let total = simulator.verdict().total;
    let all = Dialect::ALL.len() as u64;
    assert_eq!((total.by_status[&0], total.by_status[&200]), (all, 2 * all));
    assert_eq!((total.lost_calls, total.output_tokens), (all, 16 * all), "a cut answer is generated and not delivered");
}

#[test]
fn a_hang_lasts_until_the_client_gives_up() {
    let simulator = start(scenario());
    let mut stream = TcpStream::connect(simulator.addr()).unwrap();
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "[[fault:hang]]"}]}).to_string();
    let length = body.len();
    let head = format!("POST /openai/v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all((head + &body).as_bytes()).unwrap();
    await_until(|| simulator.verdict().total.calls == 1);
    assert!(simulator.verdict().total.by_status.is_empty(), "no end yet");
    drop(stream);
    await_until(|| simulator.verdict().total.abandoned == 1);
}

#[test]
fn a_script_counts_the_calls_of_its_request_and_not_those_of_others() {
    let simulator = start(scenario());
    let prompt = "a [[faults:500,empty,ok]]";
    assert_eq!(call(&simulator, "openai", prompt).unwrap().status, 500);
    ok(&simulator, "openai", "another request");
    let empty = ok(&simulator, "gemini", prompt);
    assert_eq!(words("gemini", &empty.json()), "");
    for _ in 0..2 {
        assert_ne!(words("openai", &ok(&simulator, "openai", prompt).json()), "");
    }
    let wrong = call(&simulator, "openai", "[[fault:meteor]]").unwrap();
    assert_eq!(wrong.status, 400);
    assert!(message(&wrong).contains("unknown fault `meteor`"));
    let deaf = start(Scenario { markers: false, ..scenario() });
    ok(&deaf, "openai", prompt);
}

#[test]
fn rules_strike_by_prompt_by_place_and_by_chance() {
    let mut scenario = scenario();
    let rule = |kind| FaultRule::always(Fault::new(kind));
    scenario.providers.get_mut("openai").unwrap().faults = vec![
        FaultRule { first_n_calls: Some(1), ..rule(FaultKind::ServerError) },
        FaultRule { containing: Some("poison".to_owned()), ..rule(FaultKind::ContextLength) },
        FaultRule { until: Duration::from_nanos(1), ..rule(FaultKind::Overloaded) },
    ];
    scenario.providers.get_mut("gemini").unwrap().faults =
        vec![FaultRule { rate: 0.5, ..rule(FaultKind::ServerError) }];
    let simulator = start(scenario);
    assert_eq!(call(&simulator, "openai", "a").unwrap().status, 500);
    assert_eq!(call(&simulator, "openai", "a").unwrap().status, 200, "the first call alone fails, the window is over");
    assert_eq!(call(&simulator, "openai", "poison").unwrap().status, 400);
    assert_eq!(call(&simulator, "openai", "poison").unwrap().status, 400);
    assert_eq!(simulator.verdict().total.retried_non_retryables, 1);
    let statuses =
        || (0..64).map(|i| call(&simulator, "gemini", &format!("prompt {i}")).unwrap().status).collect::<Vec<_>>();
    let first = statuses();
    assert!((16..48).contains(&first.iter().filter(|status| **status == 500).count()));
    simulator.reset();
    assert_eq!(statuses(), first, "chance is a function of the request");
}
