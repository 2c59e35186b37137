//! What each dialect, as each vendor speaks it, can carry and say: found by asking the adapters, and written as the
//! table in `docs/providers.md`. `SLUICE_WRITE_CONFORMANCE=1` writes it anew.

mod doors;
mod samples;

use super::adapter::Adapter;
use super::checks::{Chat, headers, parsed, spoken};
use super::quirks::QuirkSettings;
use super::registry::DIALECTS;
use super::vendors::{self, VENDORS, Vendor};
use super::wire::{WireReply, WireRequest};
use crate::domain::request::ToolChoice;
use crate::domain::{Capabilities, ChatRequest, ErrorClass, Finish, UsageSource};
use samples::{TESTS, finishes, refusals, reply};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;

/// The columns, in the order of the table.
const COLUMNS: [&str; 12] = [
    "parameters left out",
    "JSON schema",
    "tools",
    "parts",
    "usage",
    "cache tokens",
    "ends",
    "errors",
    "waits",
    "streams",
    "embeddings",
    "reported cost",
];

/// Between these lines of the page the table stands.
const ENDS: [&str; 2] = ["<!-- The table of conformance -->\n", "<!-- The end of the table of conformance -->\n"];

/// A model of which nothing is known.
const MODEL: &str = "the-model";

fn sent(adapter: &dyn Adapter, request: &ChatRequest) -> Option<WireRequest> {
    adapter.chat(request, MODEL, &Capabilities::default()).ok()
}

/// Whether a request is taken, and this text of it arrives in the body.
fn carries(adapter: &dyn Adapter, request: Value, text: &str) -> bool {
    let request = parsed(request);
    sent(adapter, &request).is_some_and(|wire| String::from_utf8_lossy(&wire.body).contains(text))
}

fn asking(mut more: Value) -> Value {
    more["messages"] = json!([{ "role": "user", "content": "Answer as JSON." }]);
    more
}

fn parameters(adapter: &dyn Adapter) -> String {
    let all = [
        ("temperature", json!(0.5)),
        ("top_p", json!(0.5)),
        ("top_k", json!(5)),
        ("seed", json!(7)),
        ("stop", json!(["END"])),
        ("presence_penalty", json!(0.5)),
        ("frequency_penalty", json!(0.5)),
        ("logprobs", json!(true)),
        ("logit_bias", json!({ "1": 1 })),
        ("reasoning_effort", json!("low")),
        ("parallel_tool_calls", json!(false)),
        ("user", json!("u")),
    ];
    let fate = |(name, value): &(&'static str, Value)| {
        let tools = json!([{ "type": "function", "function": { "name": "f" } }]);
        let mut body = asking(json!({ *name: value }));
        if *name == "parallel_tool_calls" {
            body["tools"] = tools;
        }
        match sent(adapter, &parsed(body)) {
            Some(wire) => wire.dropped.iter().any(|noted| noted == name).then(|| (*name).to_owned()),
            None => Some(format!("{name} (passed)")),
        }
    };
    let lost: Vec<String> = all.iter().filter_map(fate).collect();
    if lost.is_empty() { "none".to_owned() } else { lost.join(", ") }
}

fn schema(adapter: &dyn Adapter) -> &'static str {
    let schema = json!({ "type": "object", "properties": { "colour": { "type": "string" } }, "required": ["colour"],
                         "additionalProperties": false });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "s", "schema": schema } });
    let request = || asking(json!({ "response_format": format }));
    if carries(adapter, request(), "colour") {
        "yes"
    } else if sent(adapter, &parsed(request())).is_some() {
        "checked only"
    } else {
        "passed"
    }
}

fn tools(adapter: &dyn Adapter) -> &'static str {
    let offer = json!([{ "type": "function", "function": { "name": "weather",
        "parameters": { "type": "object", "properties": { "city": { "type": "string" } } } } }]);
    let offers = |choice: Value| {
        let request = asking(json!({ "tools": offer, "tool_choice": choice }));
        assert!(matches!(
            parsed(request.clone()).tool_choice,
            Some(ToolChoice::Auto | ToolChoice::Required | ToolChoice::Function(_))
        ));
        carries(adapter, request, "weather")
    };
    let named = json!({ "type": "function", "function": { "name": "weather" } });
    match (offers(json!("auto")), offers(json!("required")), offers(named)) {
        (true, true, true) => "yes",
        (true, true, false) => "none forced by name",
        (true, ..) => "none forced",
        (false, ..) => "passed",
    }
}

fn parts(adapter: &dyn Adapter) -> String {
    let image = |url: &str| json!({ "type": "image_url", "image_url": { "url": url } });
    let kinds = [
        ("images", image("data:image/png;base64,iVBORw0KGgo=")),
        ("by address", image("https://e.com/a.png")),
        ("files", json!({ "type": "file", "file": { "file_data": "data:application/pdf;base64,iVBORw0KGgo=" } })),
        ("sounds", json!({ "type": "input_audio", "input_audio": { "data": "iVBORw0KGgo=", "format": "wav" } })),
    ];
    let is_taken = |(name, part): &&(&str, Value)| {
        let content = json!([{ "type": "text", "text": "What is this?" }, part]);
        let body = json!({ "messages": [{ "role": "user", "content": content }] });
        carries(adapter, body, if *name == "by address" { "https://e.com/a.png" } else { "iVBORw0KGgo=" })
    };
    let taken: Vec<&str> = kinds.iter().filter(is_taken).map(|(name, _)| *name).collect();
    if taken.is_empty() { "text only".to_owned() } else { taken.join(", ") }
}

/// What is read of the dialect's usual answer.
fn read(adapter: &dyn Adapter, dialect: &str) -> crate::domain::Answer {
    let body = reply(dialect).to_string();
    let answer = adapter.decode(&WireReply::new(200, &headers(&[]), body.as_bytes()));
    answer.unwrap_or_else(|failure| panic!("{dialect}: {failure:?}"))
}

fn usage(adapter: &dyn Adapter, dialect: &str) -> &'static str {
    let usage = read(adapter, dialect).usage;
    let is_known = usage.source == UsageSource::Provider && usage.output > 0;
    if is_known { "yes" } else { "estimated" }
}

fn cache_tokens(adapter: &dyn Adapter, dialect: &str) -> &'static str {
    let usage = read(adapter, dialect).usage;
    match (usage.cache_read > 0, usage.cache_write + usage.cache_write_1h > 0) {
        (true, true) => "reads, writes",
        (true, false) => "reads",
        (false, true) => "writes",
        (false, false) => "–",
    }
}

fn ends(adapter: &dyn Adapter, dialect: &str) -> String {
    let is_told = |(body, finish): &(Value, Finish)| {
        let body = body.to_string();
        let answer = adapter.decode(&WireReply::new(200, &headers(&[]), body.as_bytes()));
        answer.is_ok_and(|answer| answer.finish == *finish)
    };
    let all = finishes(dialect);
    let told = all.iter().filter(|row| is_told(row)).count();
    assert_eq!(told, all.len(), "{dialect}: an end is not told");
    let name = |finish: &Finish| match finish {
        Finish::Complete => "done",
        Finish::Length => "cut",
        Finish::ContentFilter => "filter",
        Finish::Refusal => "refusal",
        Finish::ToolCall => "call",
        Finish::Pause | Finish::Error | Finish::Unknown => "other",
    };
    all.iter().map(|(_, finish)| name(finish)).collect::<Vec<_>>().join(", ")
}

/// How many of the classes that each provider's failures have are told apart in this envelope.
fn errors(adapter: &dyn Adapter, dialect: &str) -> String {
    let all = refusals(dialect);
    let class = |status: u16, body: &Value| {
        adapter
            .decode(&WireReply::new(status, &headers(&[]), body.to_string().as_bytes()))
            .map_err(|failure| failure.class)
    };
    let told = all.iter().filter(|(status, body, expected)| class(*status, body).err() == Some(*expected)).count();
    format!("{told} of {}", all.len())
}

fn waits(adapter: &dyn Adapter, dialect: &str) -> String {
    let (_, body, _) = refusals(dialect).into_iter().find(|(_, _, class)| *class == ErrorClass::RateLimit).unwrap();
    let wait = |named: &[(&'static str, &'static str)], body: &Value| {
        let body = body.to_string();
        adapter.decode(&WireReply::new(429, &headers(named), body.as_bytes())).err().and_then(|failure| failure.wait)
    };
    let in_header = wait(&[("retry-after", "7")], &body).is_some_and(|wait| wait.as_secs() == 7);
    let in_body = wait(&[], &samples::with_wait(dialect)).is_some_and(|wait| wait.as_secs() == 7);
    let found = [(in_header, "header"), (in_body, "body")];
    found.into_iter().filter(|(found, _)| *found).map(|(_, name)| name).collect::<Vec<_>>().join(", ")
}

fn streams(adapter: &dyn Adapter) -> &'static str {
    let Some(mut wire) = sent(adapter, &parsed(asking(json!({})))) else { return "–" };
    let before = (wire.path.clone(), wire.query.clone(), wire.body.clone());
    adapter.ask_for_stream(&mut wire);
    if before == (wire.path, wire.query, wire.body) { "–" } else { "yes" }
}

fn embeddings(adapter: &dyn Adapter) -> &'static str {
    if sent(adapter, &parsed(json!({ "input": ["a", "b"] }))).is_some() { "yes" } else { "–" }
}

fn reported_cost(adapter: &dyn Adapter, dialect: &str) -> &'static str {
    let mut body = reply(dialect);
    if let Some(usage) = body.get_mut("usage") {
        usage["cost"] = json!(0.25);
    }
    let body = body.to_string();
    let answer = adapter.decode(&WireReply::new(200, &headers(&[]), body.as_bytes())).unwrap();
    if answer.beside.cost.is_some() { "where there is one" } else { "–" }
}

fn cells(adapter: &dyn Adapter, dialect: &str) -> [String; 12] {
    [
        parameters(adapter),
        schema(adapter).to_owned(),
        tools(adapter).to_owned(),
        parts(adapter),
        usage(adapter, dialect).to_owned(),
        cache_tokens(adapter, dialect).to_owned(),
        ends(adapter, dialect),
        errors(adapter, dialect),
        waits(adapter, dialect),
        streams(adapter).to_owned(),
        embeddings(adapter).to_owned(),
        reported_cost(adapter, dialect).to_owned(),
    ]
}

fn head(first: &str) -> String {
    let columns = format!("{first} | {}", COLUMNS.join(" | "));
    format!("| {columns} |\n|{}\n", "---|".repeat(columns.matches('|').count() + 1))
}

fn table() -> String {
    let mut page = head("dialect | vendor");
    for dialect in DIALECTS {
        let adapter = spoken(dialect.name, None, "https://llm.example/v1", &QuirkSettings::default());
        let usual = cells(adapter, dialect.name);
        writeln!(page, "| `{}` | any | {} |", dialect.name, usual.join(" | ")).unwrap();
        let is_real = |vendor: &&Vendor| vendor.dialect.name == dialect.name && vendor.name != "acme_ai";
        for vendor in VENDORS.iter().filter(is_real) {
            let adapter = vendors::adapter(vendor.dialect, Some(vendor.name), "", &QuirkSettings::default());
            let own = cells(&*adapter, dialect.name);
            let differs = |(own, usual): (&String, &String)| if own == usual { "″".to_owned() } else { own.clone() };
            let own: Vec<String> = own.iter().zip(&usual).map(differs).collect();
            writeln!(page, "| | `{}` | {} |", vendor.name, own.join(" | ")).unwrap();
        }
    }
    page.push_str("\nThe tests behind the cells, in `src/provider` or `tests`:\n\n");
    page.push_str(&head("dialect"));
    for (dialect, tests) in TESTS {
        let named = tests.map(|test| if test.is_empty() { "–".to_owned() } else { format!("`{test}`") });
        writeln!(page, "| `{dialect}` | {} |", named.join(" | ")).unwrap();
    }
    page.push_str(
        "\nThe test of each vendor's cell, in `provider::conformance::doors`, and how its samples (`doors.txt`) are \
         known:\n\n",
    );
    page.push_str(&head("dialect | vendor"));
    for dialect in DIALECTS {
        let own = VENDORS.iter().filter(|vendor| vendor.dialect.name == dialect.name && vendor.name != "acme_ai");
        for vendor in own {
            let cells = doors::COLUMNS.map(|(column, test, _)| format!("`{test}` {}", doors::mark(vendor, column)));
            writeln!(page, "| `{}` | `{}` | {} |", dialect.name, vendor.name, cells.join(" | ")).unwrap();
        }
    }
    page.push('\n');
    page
}

#[test]
fn the_table_says_what_the_adapters_do() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/providers.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(ENDS[0]).expect("the page has the table");
    let (written, after) = rest.split_once(ENDS[1]).expect("the table has an end");
    let table = table();
    if std::env::var_os("SLUICE_WRITE_CONFORMANCE").is_some() {
        std::fs::write(&path, [before, ENDS[0], &table, ENDS[1], after].concat()).unwrap();
    } else {
        assert!(written == table, "docs/providers.md says other things of the dialects: make config");
    }
}

#[test]
fn each_test_that_the_table_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let walks = include_str!("conformance/doors.rs");
    let walks = walks.split_once("\nwalk! {").and_then(|(_, rest)| rest.split_once('}')).expect("the list of tests").0;
    let walks: Vec<&str> = walks.split_whitespace().collect();
    assert_eq!(walks, doors::COLUMNS.map(|(_, test, _)| test), "each column has its test");
    for (dialect, tests) in TESTS {
        for test in tests.iter().filter(|test| !test.is_empty()) {
            let (module, name) = test.rsplit_once("::").unwrap();
            let path = match module.strip_prefix("tests::") {
                Some(module) => format!("tests/{}", module.replace("::", "/")),
                // Tests of a small file stand in it.
                None => format!("src/provider/{}", module.replace("::", "/")).replace("beside/tests", "beside"),
            };
            let read = |path: String| std::fs::read_to_string(root.join(path)).ok();
            let text = read(format!("{path}.rs")).or_else(|| read(format!("{path}/mod.rs")));
            let text = text.unwrap_or_else(|| panic!("{dialect}: there is no file of {module}"));
            assert!(text.contains(&format!("fn {name}(")), "{dialect}: {module} has no test {name}");
        }
    }
}
