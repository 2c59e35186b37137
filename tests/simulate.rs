//! The simulator over real sockets: each dialect, quota and fault as it looks from outside.

use crate::support::clock;
use serde_json::{Value, json};
use sluice::simulate::chance::Spread;
use sluice::simulate::{
    Dialect, Disguise, Key, Limits, Model, Output, Price, Provider, QuotaScope, Scenario, Simulator, Tolerances,
    count_tokens, request_hash,
};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

mod clients;
mod faults;
mod quotas;

use clients::{client, clients};

/// What Anthropic asks for in the headers.
const ANTHROPIC_HEADERS: &str = "x-api-key: k\r\nanthropic-version: 2023-06-01\r\n";

/// A scenario with one provider for each dialect, named like it, that obeys scripts.
fn scenario() -> Scenario {
    let named = |dialect: &Dialect| (dialect.name().to_owned(), Provider::new(*dialect));
    let providers = Dialect::ALL.iter().map(named).collect();
    Scenario { markers: true, providers, ..Scenario::default() }
}

fn start(scenario: Scenario) -> Simulator {
    Simulator::start(scenario, SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port on loopback")
}

fn with(change: impl Fn(&mut Provider)) -> Simulator {
    let mut scenario = scenario();
    scenario.providers.values_mut().for_each(change);
    start(scenario)
}

/// An answer as it came over the wire.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    /// The body was shorter than announced.
    cut: bool,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends a request over a connection of its own; an error is the connection's.
fn send(simulator: &Simulator, method: &str, path: &str, headers: &str, body: &str) -> std::io::Result<Reply> {
    let mut stream = TcpStream::connect(simulator.addr())?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes())?;
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw)?;
    let end = raw.windows(4).position(|window| window == b"\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let head = String::from_utf8_lossy(&raw[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let body = raw[end + 4..].to_vec();
    let cut = headers.get("content-length").is_some_and(|length| length.parse() != Ok(body.len()));
    Ok(Reply { status, headers, body, cut })
}

/// A call of a provider of [`scenario`] with one user message.
fn call(simulator: &Simulator, provider: &str, prompt: &str) -> std::io::Result<Reply> {
    let client = client(provider);
    let path = format!("/{provider}{}", client.path);
    send(simulator, "POST", &path, client.headers, &(client.body)(prompt).to_string())
}

fn ok(simulator: &Simulator, provider: &str, prompt: &str) -> Reply {
    let reply = call(simulator, provider, prompt).expect("an answer");
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply
}

/// The words of an answer.
fn words(provider: &str, body: &Value) -> String {
    body.pointer(client(provider).words).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A count, also one that is written with a fraction of zero.
fn count(value: &Value) -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small counts of a test")]
    value.as_u64().or_else(|| value.as_f64().map(|count| count as u64))
}

/// Input and output tokens as reported.
fn usage(provider: &str, body: &Value) -> (Option<u64>, Option<u64>) {
    let [input, output] = client(provider).usage.map(|place| body.pointer(place).and_then(count));
    (input, output)
}

fn finish(provider: &str, body: &Value) -> String {
    body.pointer(client(provider).finish).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn sorted_names() -> Vec<&'static str> {
    let mut names: Vec<&str> = Dialect::ALL.iter().map(|dialect| dialect.name()).collect();
    names.sort_unstable();
    names
}

/// The message of an error.
fn message(reply: &Reply) -> String {
    reply.json().pointer("/error/message").and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[test]
fn every_dialect_answers_with_text_usage_and_its_request_id() {
    let simulator = start(scenario());
    let prompt = "How much water goes through the sluice?";
    for client in clients() {
        let provider = client.dialect;
        let reply = ok(&simulator, provider, prompt);
        let body = reply.json();
        assert_eq!(usage(provider, &body), (Some(count_tokens(prompt)), Some(16)), "{provider}");
        let said = words(provider, &body);
        assert_eq!(count_tokens(&said), 16);
        assert!(said.starts_with(&format!("[{:016x}] ", request_hash("", &[prompt]))), "{said}");
        if !client.id_header.is_empty() {
            assert_eq!(simulator.calls(1)[0].request_id, reply.header(client.id_header));
        }
    }
    let verdict = simulator.verdict();
    assert!(verdict.clean, "{:?}", verdict.reasons);
    let all = Dialect::ALL.len() as u64;
    assert_eq!((verdict.total.calls, verdict.distinct_requests), (all, 1));
    assert_eq!(u64::from(verdict.max_calls_per_request), all);
    assert_eq!((verdict.total.output_tokens, verdict.answered_twice), (16 * all, 1));
}

#[test]
fn a_conversation_is_the_same_request_in_every_dialect() {
    let simulator = start(scenario());
    for client in clients() {
        let path = format!("/{}{}", client.dialect, client.path);
        let body = (client.conversation)().to_string();
        assert_eq!(send(&simulator, "POST", &path, client.headers, &body).unwrap().status, 200, "{path}");
    }
    let hash = request_hash("Be brief.", &["Hello", "Hi", "Bye"]);
    let requests = simulator.requests(10);
    assert_eq!(requests.len(), 1);
    assert_eq!(
        (requests[0].request.clone(), requests[0].calls),
        (format!("{hash:016x}"), u32::try_from(Dialect::ALL.len()).unwrap())
    );
}

#[test]
fn what_the_real_api_would_not_understand_is_refused_and_counted() {
    let simulator = start(scenario());
    let user = json!([{"role": "user", "content": "Hi"}]);
    let anthropic = "/anthropic/v1/messages";
    let gemini = "/gemini/v1beta/models/m:generateContent";
    let cases: [(&str, &str, &str, Value, u16, &str); 13] = [
        ("POST", anthropic, ANTHROPIC_HEADERS, json!({"model": "m", "messages": user}), 400, "max_tokens"),
        ("POST", anthropic, "", json!({"model": "m", "max_tokens": 5, "messages": user}), 400, "anthropic-version"),
        (
            "POST",
            anthropic,
            ANTHROPIC_HEADERS,
            json!({"model": "m", "max_tokens": 5, "messages": user, "n": 1}),
            400,
            "n",
        ),
        (
            "POST",
            anthropic,
            ANTHROPIC_HEADERS,
            json!({"model": "m", "max_tokens": 5, "messages": [{"role": "system", "content": "Hi"}]}),
            400,
            "role",
        ),
        ("POST", "/openai/v1/chat/completions", "", json!({"messages": user}), 400, "model"),
        ("POST", "/openai/v1/chat/completions", "", json!({"model": "m"}), 400, "messages"),
        ("POST", "/openai/v1/chat/completions", "", json!({"model": "m", "messages": []}), 400, "messages"),
        ("POST", "/openai/v1/chat/completions", "", json!("nonsense"), 400, "invalid type"),
        ("POST", gemini, "", json!({"contents": []}), 400, "contents"),
        ("POST", gemini, "", json!({"contents": [{"role": "assistant", "parts": [{"text": "Hi"}]}]}), 400, "role"),
        ("POST", gemini, "", json!({"messages": user}), 400, "messages"),
        ("POST", "/openai/chat/completions", "", json!({"model": "m", "messages": user}), 404, "URL"),
        ("GET", "/openai/v1/chat/completions", "", json!({}), 405, "POST"),
    ];
    for (method, path, headers, body, status, part) in &cases {
        let reply = send(&simulator, method, path, headers, &body.to_string()).unwrap();
        assert_eq!(reply.status, *status, "{path} {body}");
        assert!(message(&reply).contains(part), "{}", reply.text());
    }
    let verdict = simulator.verdict();
    assert_eq!(verdict.total.malformed_requests, cases.len() as u64);
    assert!(!verdict.clean);
    let unknown = send(&simulator, "POST", "/nobody/v1/messages", "", "{}").unwrap();
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.json()["providers"], json!(sorted_names()));
}

#[test]
fn keys_and_models_that_are_not_listed_are_refused() {
    let simulator = with(|provider| {
        provider.keys = vec!["right".into()];
        provider.models.insert("known".to_owned(), Model::default());
    });
    for client in clients() {
        assert_eq!(call(&simulator, client.dialect, "Hi").unwrap().status, client.unknown_key, "{}", client.dialect);
    }
    let headers = "authorization: Bearer right\r\n";
    let ask = |model: &str| {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "Hi"}]}).to_string();
        send(&simulator, "POST", "/openai/v1/chat/completions", headers, &body).unwrap()
    };
    assert_eq!(ask("known").status, 200);
    let unknown = ask("unknown");
    assert_eq!((unknown.status, unknown.json()["error"]["code"].as_str()), (404, Some("model_not_found")));
}

#[test]
fn each_key_may_have_money_and_limits_of_its_own() {
    // An answer costs a billionth of a dollar and a little: two of them use the poor key's credit up.
    let price = Price::plain(0, 1_000_000_000);
    let simulator = with(|provider| {
        let poor = Key { credit: Some(2_000), disguise: Some(Disguise::PaymentRequired), ..Key::from("poor") };
        let tight = Limits { requests_per_minute: Some(1), ..Limits::default() };
        provider.keys = vec![poor, Key { quota: Some(tight), ..Key::from("slow") }, "rich".into()];
        provider.models.insert("m".to_owned(), Model { price: Some(price), ..Model::default() });
        provider.output = Output::Text("one".to_owned());
    });
    let ask = |key: &str| {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": key}]}).to_string();
        let headers = format!("authorization: Bearer {key}\r\n");
        send(&simulator, "POST", "/openai/v1/chat/completions", &headers, &body).unwrap().status
    };
    let statuses = |key: &str| [0; 4].map(|_| ask(key));
    assert_eq!(statuses("poor"), [200, 200, 402, 402]);
    assert_eq!(statuses("slow"), [200, 429, 429, 429]);
    assert_eq!(statuses("rich"), [200; 4]);
    assert_eq!(ask("unknown"), 401);
    let seen: Vec<(Option<usize>, u16)> =
        simulator.calls(100).iter().rev().map(|call| (call.key, call.status)).collect();
    assert_eq!(seen[1..4], [(Some(0), 200), (Some(0), 402), (Some(0), 402)]);
    assert_eq!(seen[11..], [(Some(2), 200), (None, 401)]);
    // What others do with their money is no call without any.
    let figures = simulator.verdict().total;
    assert_eq!((figures.by_fault["out_of_quota"], figures.refused_by_quota), (2, 3));
    assert!(figures.calls_after_out_of_quota <= 1, "{figures:?}");
}

#[test]
fn over_the_quota_each_dialect_says_so_in_its_own_way() {
    let simulator = with(|provider| {
        provider.quota = Limits { requests_per_minute: Some(1), burst_requests: Some(2), ..Limits::default() };
    });
    let all = Dialect::ALL.len() as u64;
    for client in clients() {
        let provider = client.dialect;
        let first = ok(&simulator, provider, "one");
        ok(&simulator, provider, "two");
        let refused = call(&simulator, provider, "three").unwrap();
        assert_eq!(refused.status, 429, "{provider}");
        (client.over_quota)(&first, &refused);
    }
    let verdict = simulator.verdict();
    assert_eq!((verdict.total.refused_by_quota, verdict.total.rate_limited), (all, all));
    assert_eq!(verdict.total.early_retries, 0, "no client retried");
    for client in clients() {
        call(&simulator, client.dialect, "three").unwrap();
    }
    let verdict = simulator.verdict();
    assert_eq!((verdict.total.early_retries, verdict.total.early_retries_of_same_request), (all, all));
    assert_eq!(verdict.reasons, [format!("early retries: {all}, at most 0 tolerated")]);
}

#[test]
fn tokens_are_counted_as_each_provider_counts_them() {
    let simulator = with(|provider| {
        provider.quota = Limits { tokens_per_minute: Some(1000), ..Limits::default() };
    });
    // OpenAI reserves max_tokens.
    let ask = |max: u64| {
        let body = json!({"model": "m", "max_tokens": max, "messages": [{"role": "user", "content": "Hi"}]});
        send(&simulator, "POST", "/openai/v1/chat/completions", "", &body.to_string()).unwrap()
    };
    assert_eq!(ask(600).header("x-ratelimit-remaining-tokens"), "400");
    assert_eq!(ask(600).json()["error"]["type"], "tokens");
    let too_large = ask(1001);
    assert!(message(&too_large).starts_with("Request too large"), "{}", too_large.text());
    assert!(!too_large.headers.contains_key("retry-after"));
    // Anthropic does not: input at once, output when it has been produced.
    ok(&simulator, "anthropic", &"x".repeat(400));
    let second = ok(&simulator, "anthropic", "Hi");
    let remaining: u64 = second.header("anthropic-ratelimit-tokens-remaining").parse().unwrap();
    assert!((883..=890).contains(&remaining), "1000 - 100 in - 16 out - 1 in, and what refilled: {remaining}");
}

#[test]
fn keys_may_have_quotas_of_their_own() {
    let simulator = with(|provider| {
        provider.quota = Limits { requests_per_minute: Some(1), ..Limits::default() };
        provider.quota_per = QuotaScope::Key;
    });
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}).to_string();
    let status = |key: &str| {
        let headers = format!("authorization: Bearer {key}\r\n");
        send(&simulator, "POST", "/openai/v1/chat/completions", &headers, &body).unwrap().status
    };
    assert_eq!((status("a"), status("b"), status("a"), status("b")), (200, 200, 429, 429));
}

/// Waits for what another thread is about to do; a test that would wait for ever fails by the harness's time limit.
fn await_until(mut reached: impl FnMut() -> bool) {
    while !reached() {
        std::thread::yield_now();
    }
}

#[test]
fn calls_after_the_money_is_gone_are_counted_until_one_is_answered() {
    let mut scenario = scenario();
    scenario.verdict =
        Tolerances { calls_after_out_of_quota: 0, in_flight_grace: Duration::ZERO, ..Tolerances::default() };
    let simulator = start(scenario);
    assert_eq!(call(&simulator, "openai", "[[fault:402]]").unwrap().status, 402);
    ok(&simulator, "gemini", "elsewhere");
    assert!(simulator.verdict().clean);
    ok(&simulator, "openai", "a probe");
    ok(&simulator, "openai", "all is well again");
    let verdict = simulator.verdict();
    assert_eq!(verdict.total.calls_after_out_of_quota, 1);
    assert_eq!(verdict.reasons, ["calls after out of quota: 1, at most 0 tolerated"]);
}

#[test]
fn the_ledger_holds_what_each_call_cost() {
    let mut scenario = scenario();
    let provider = scenario.providers.get_mut("openai").unwrap();
    let price = Some(Price::plain(150_000_000, 600_000_000));
    provider.models.insert("m".to_owned(), Model { price, ..Model::default() });
    provider.output = Output::Text("forty characters make ten tokens. Really".to_owned());
    let simulator = start(scenario);
    let reply = ok(&simulator, "openai", "twelve chars");
    ok(&simulator, "openai", "twelve chars [[fault:wrong_usage]]");
    let calls = simulator.calls(10);
    let [wrong, right] = &calls[..] else { panic!("two calls") };
    assert_eq!(right.request_id, reply.header("x-request-id"));
    assert_eq!((right.input_tokens, right.output_tokens, right.nano_usd), (3, 10, Some(6450)));
    assert_eq!((wrong.output_tokens, wrong.reported_output_tokens, wrong.fault), (10, Some(100), Some("wrong_usage")));
    let total = simulator.verdict().total;
    assert_eq!(total.charged_nano_usd, calls.iter().filter_map(|call| call.nano_usd).sum::<u64>());
    assert_eq!(total.unpriced_calls, 0);
}

#[test]
fn json_is_answered_when_it_is_asked_for() {
    let simulator = start(scenario());
    let schema = json!({"type": "object", "required": ["name", "stars"], "additionalProperties": false, "properties": {
        "name": {"type": "string"}, "stars": {"type": "integer", "minimum": 1, "maximum": 5}}});
    let validator = jsonschema::validator_for(&schema).unwrap();
    for client in clients() {
        let provider = client.dialect;
        let path = format!("/{provider}{}", client.path);
        let Some(structured) = client.structured else { continue };
        let body = structured(&schema).to_string();
        let reply = send(&simulator, "POST", &path, client.headers, &body).unwrap();
        let said = words(provider, &reply.json());
        let value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{provider}: {error}: {}", reply.text()));
        assert!(validator.is_valid(&value), "{provider}: {said}");
    }
}

#[test]
fn max_tokens_cuts_the_answer() {
    let simulator = start(scenario());
    let body = json!({"model": "m", "max_completion_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]});
    let reply = send(&simulator, "POST", "/openai/v1/chat/completions", "", &body.to_string()).unwrap().json();
    assert_eq!((usage("openai", &reply).1, finish("openai", &reply).as_str()), (Some(5), "length"));
    assert_eq!(words("openai", &reply).len(), 20);
}

#[test]
fn the_endpoints_tell_what_the_library_tells() {
    let simulator = start(scenario());
    ok(&simulator, "openai", "Hi");
    let get = |path: &str| send(&simulator, "GET", path, "", "").unwrap();
    assert_eq!(get("/_sim/health").status, 200);
    let verdict = get("/_sim/verdict").json();
    assert_eq!((verdict["clean"].as_bool(), verdict["calls"].as_u64()), (Some(true), Some(1)));
    assert_eq!(verdict["providers"]["openai"]["by_status"]["200"], 1);
    assert_eq!(verdict["providers"]["openai"]["dialect"], "openai");
    assert_eq!(get("/_sim/calls?limit=5").json().as_array().unwrap().len(), 1);
    assert_eq!(get("/_sim/requests").json()[0]["answered"], 1);
    assert_eq!(get("/_sim/calls?limit=x").status, 400);
    assert_eq!(get("/_sim/nothing").status, 404);
    assert_eq!(get("/_sim/reset").status, 405);
    assert_eq!(send(&simulator, "POST", "/_sim/reset", "", "").unwrap().status, 200);
    assert_eq!(simulator.verdict().total.calls, 0);
}

#[test]
fn memory_is_bounded_and_what_does_not_fit_is_counted() {
    let simulator = start(Scenario { max_requests: 2, record_calls: 3, ..scenario() });
    for i in 0..5 {
        ok(&simulator, "openai", &format!("request {i}"));
    }
    ok(&simulator, "openai", "request 0");
    let verdict = simulator.verdict();
    assert_eq!((verdict.distinct_requests, verdict.untracked_calls, verdict.total.calls), (2, 3, 6));
    assert_eq!(verdict.max_calls_per_request, 2);
    assert_eq!(simulator.calls(100).len(), 3);
}

#[test]
fn stopping_frees_the_port() {
    let simulator = start(scenario());
    let address = simulator.addr();
    let taken = Simulator::start(scenario(), address).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    simulator.stop();
    Simulator::start(scenario(), address).unwrap().stop();
    let nonsense = Simulator::start(Scenario::default(), address).unwrap_err();
    assert_eq!(nonsense.kind(), std::io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn it_starts_and_stops_within_a_runtime() {
    let simulator = start(scenario());
    assert_eq!(simulator.base_url("gemini"), Some(format!("http://{}/gemini/v1beta", simulator.addr())));
    assert_eq!(simulator.base_url("nobody"), None);
    simulator.stop();
}

/// A measurement, not a test: `cargo test --release --test main simulate::throughput -- --ignored --nocapture`.
///
/// Counts the processor time of the simulator's one thread alone, so that the clients, which cost more, do not matter.
#[test]
#[ignore = "a measurement; it takes some seconds"]
#[expect(clippy::cast_precision_loss, reason = "for display")]
fn throughput_per_core() {
    const CLIENTS: usize = 4;
    const CALLS: usize = 20_000;
    let simulator = with(|provider| {
        provider.quota = Limits { requests_per_minute: Some(1_000_000_000), ..Limits::default() };
        provider.output = Output::Tokens(Spread::Fixed(250.0));
    });
    let started = clock::instant();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let address = simulator.addr();
            scope.spawn(move || keep_calling(address, client, CALLS));
        }
    });
    let wall = started.elapsed().as_secs_f64();
    let calls = simulator.verdict().total.by_status[&200];
    assert_eq!(calls, (CLIENTS * CALLS) as u64);
    let cpu = cpu_seconds_of_threads("simulator");
    println!(
        "{calls} calls of 1 KB: {:.0} per second of one core ({:.0}/s by the clock)",
        calls as f64 / cpu,
        calls as f64 / wall
    );
}

/// Keeps 25 connections busy.
fn keep_calling(address: SocketAddr, client: usize, calls: usize) {
    let mut streams: Vec<TcpStream> = (0..25).map(|_| TcpStream::connect(address).expect("a connection")).collect();
    let filling = "x".repeat(1000);
    let mut buffer = vec![0; 64 << 10];
    for round in 0..calls / streams.len() {
        for (index, stream) in streams.iter_mut().enumerate() {
            let prompt = format!("{client} {round} {index} {filling}");
            let body = json!({"model": "m", "messages": [{"role": "user", "content": prompt}]}).to_string();
            let length = body.len();
            let head =
                format!("POST /openai/v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
            stream.write_all((head + &body).as_bytes()).expect("a request");
        }
        for stream in &mut streams {
            // The answer is one line of JSON that nothing else ends like.
            let mut got = 0;
            while !buffer[..got].ends_with(b"\"fp_simulated\"}") {
                let read = stream.read(&mut buffer[got..]).expect("an answer");
                assert!(read > 0, "closed: {}", String::from_utf8_lossy(&buffer[..got]));
                got += read;
            }
        }
    }
}

/// Processor time of this process's threads of that name, from /proc; a tick is a hundredth of a second on Linux.
fn cpu_seconds_of_threads(name: &str) -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let ticks = tasks.filter_map(|task| {
        let path = task.ok()?.path();
        let stat = std::fs::read_to_string(path.join("stat")).ok()?;
        let (head, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = fields[11].parse::<f64>().ok()? + fields[12].parse::<f64>().ok()?;
        head.ends_with(name).then_some(ticks)
    });
    ticks.sum::<f64>() / 100.0
}

#[test]
fn the_page_of_a_providers_health_is_down_while_the_provider_is_or_as_the_scenario_says() {
    let scenario = "[providers.well]\ndialect = \"openai\"\nkeys = [\"k\"]\n\
                    faults = [{ kind = \"overloaded\", rate = 0.5 }, { kind = \"429\" }]\n\
                    [providers.out]\ndialect = \"openai\"\nfaults = [{ kind = \"hang\" }]\n\
                    [providers.back]\ndialect = \"openai\"\nfaults = [{ kind = \"503\", until = \"1ns\" }]\n\
                    [providers.ill]\ndialect = \"openai\"\nunhealthy = [{}]\n";
    let simulator = start(Scenario::from_toml(scenario).unwrap());
    let get = |name: &str| send(&simulator, "GET", &format!("/{name}/health"), "", "").unwrap().status;
    assert_eq!(["well", "out", "back", "ill"].map(get), [200, 503, 200, 503]);
    assert_eq!(simulator.verdict().total.calls, 0, "it is no call");
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]}).to_string();
    assert_eq!(send(&simulator, "POST", "/ill/v1/chat/completions", "", &body).unwrap().status, 200);
    let wrong = "[providers.p]\ndialect = \"openai\"\nunhealthy = [{ from = 5, until = 5 }]\n";
    let said = Scenario::from_toml(wrong).unwrap_err().to_string();
    assert!(said.contains("providers.p.unhealthy[0].until"), "{said}");
}
