//! What each vendor does in each column of the table, as the adapter with its row and its address does it.
//! `doors.txt` has the data: a sample, and what is made or read of it at each door of a vendor. A row of
//! `vendors/table.rs` that changes shows there. `SLUICE_WRITE_CONFORMANCE=1` writes what was found.

use super::samples;
use super::{MODEL, sent};
use crate::domain::{Bearing, Finish, Timestamp, Usage};
use crate::provider::adapter::Adapter;
use crate::provider::auth::Auth;
use crate::provider::bedrock;
use crate::provider::checks::{DATE, headers, parsed};
use crate::provider::quirks::QuirkSettings;
use crate::provider::vendors::{self, VENDORS, Vendor};
use crate::provider::wire::{Outgoing, WireReply};
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::LazyLock;

const FILE: &str = "src/provider/conformance/doors.txt";

/// A column: its name in the file, its test, and what a door makes of a sample.
type Column = (&'static str, &'static str, fn(&Door, &str) -> String);

pub(super) const COLUMNS: [Column; 12] = [
    ("request", "requests", request),
    ("schema", "schemas", schema),
    ("tools", "offers_of_tools", tools),
    ("parts", "parts_of_messages", parts),
    ("usage", "token_counts", usage),
    ("cache", "cached_tokens", usage),
    ("ends", "finish_reasons", ends),
    ("errors", "error_classes", errors),
    ("waits", "waits_and_limits", waits),
    ("stream", "streamed_answers", stream),
    ("embeddings", "vectors", embeddings),
    ("cost", "reported_costs", cost),
];

/// A vendor, as one of its rows speaks to it.
pub(super) struct Door {
    vendor: &'static Vendor,
    base_url: String,
    adapter: Box<dyn Adapter>,
}

impl Door {
    /// With the address of its row, or one like those that its users have.
    fn of(vendor: &'static Vendor) -> Self {
        let own = match (vendor.name, vendor.dialect.name) {
            ("azure_openai", "azure_openai") => "https://acme.openai.azure.com",
            ("azure_openai", _) => "https://acme.openai.azure.com/openai/v1",
            ("bedrock", "bedrock") => "https://bedrock-runtime.us-east-1.amazonaws.com",
            ("bedrock", _) => "https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1",
            ("ollama", _) => "http://127.0.0.1:11434/v1",
            _ => "http://127.0.0.1:8000/v1",
        };
        let base_url = vendor.base_url.unwrap_or(own).to_owned();
        let by_host = vendors::of_server(None, vendor.dialect, &base_url);
        // Servers of the user's own are known by their name alone.
        let is_known = by_host.is_some_and(|found| std::ptr::eq(found, vendor));
        let name = if is_known { None } else { Some(vendor.name) };
        let adapter = vendors::adapter(vendor.dialect, name, &base_url, &QuirkSettings::default());
        Self { vendor, base_url, adapter }
    }

    fn name(&self) -> String {
        name(self.vendor)
    }

    fn dialect(&self) -> &'static str {
        self.vendor.dialect.name
    }

    /// What is read of a body.
    fn read(&self, body: &Value) -> Result<crate::domain::Answer, crate::domain::Failure> {
        self.adapter.decode(&WireReply::new(200, &headers(&[]), body.to_string().as_bytes()))
    }
}

/// The name of a door in the file.
fn name(vendor: &Vendor) -> String {
    format!("{}:{}", vendor.dialect.name, vendor.name)
}

/// The doors of the known vendors.
fn doors() -> impl Iterator<Item = &'static Vendor> {
    VENDORS.iter().filter(|vendor| vendor.name != "acme_ai")
}

/// A line of the file: doors at which a sample comes to the same.
struct Line {
    column: String,
    sample: String,
    doors: Vec<String>,
    /// How the sample is known.
    mark: String,
    expected: String,
}

/// How a sample is known: by the vendor's documents or client, by others, by what is commonly said; or not at all, so
/// that it has the form of the dialect, in which the simulator answers.
const MARKS: [&str; 4] = ["A", "B", "K", "S"];

/// The lines of a file; or what is wrong with its first faulty line.
fn lines(text: &str) -> Result<Vec<Line>, String> {
    let mut lines: Vec<Line> = Vec::new();
    let mut sample: Option<(&str, &str)> = None;
    for (at, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let told = |what: String| format!("line {at}: {what}: {line}");
        if let Some(head) = line.strip_prefix("= ") {
            let (column, of) = head.split_once(" | ").ok_or_else(|| told("a sample is COLUMN | SAMPLE".to_owned()))?;
            if !COLUMNS.iter().any(|(known, ..)| *known == column) {
                return Err(told(format!("there is no column {column}")));
            }
            sample = Some((column, of));
            continue;
        }
        let (column, of) = sample.ok_or_else(|| told("there is no sample before it".to_owned()))?;
        let mut parts = line.splitn(3, " | ");
        let (Some(at_doors), Some(mark), Some(expected)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(told("is not DOORS | MARK | WHAT COMES OF IT".to_owned()));
        };
        if !MARKS.contains(&mark) {
            return Err(told(format!("there is no mark {mark}")));
        }
        let mut names = Vec::new();
        for wanted in at_doors.split(", ") {
            let found: Vec<String> = match wanted.strip_suffix(":*") {
                Some(dialect) => doors().filter(|door| door.dialect.name == dialect).map(name).collect(),
                None => doors().map(name).filter(|door| door == wanted).collect(),
            };
            if found.is_empty() {
                return Err(told(format!("there is no door {wanted}")));
            }
            names.extend(found);
        }
        let is_same = |other: &&Line| other.column == column && other.sample == of;
        if let Some(twice) =
            names.iter().find(|door| lines.iter().filter(is_same).any(|line| line.doors.contains(door)))
        {
            return Err(told(format!("{twice} has this sample already")));
        }
        let (column, sample) = (column.to_owned(), of.to_owned());
        lines.push(Line { column, sample, doors: names, mark: mark.to_owned(), expected: expected.to_owned() });
    }
    Ok(lines)
}

fn path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE)
}

static LINES: LazyLock<Vec<Line>> = LazyLock::new(|| {
    let text = std::fs::read_to_string(path()).expect("the file is part of the project");
    lines(&text).unwrap_or_else(|fault| panic!("{FILE}: {fault}"))
});

/// How a door's samples of a column are known: the best mark of them. A missing one is a fault.
pub(super) fn mark(vendor: &Vendor, column: &str) -> &'static str {
    let door = name(vendor);
    let of_door = |line: &&Line| line.column == column && line.doors.contains(&door);
    let found = MARKS.iter().find(|mark| LINES.iter().filter(of_door).any(|line| line.mark == **mark));
    found.unwrap_or_else(|| panic!("{FILE} says nothing of {column} at {door}"))
}

/// Checks a column at all doors.
fn check(test: &str) {
    let (column, _, seen) = COLUMNS.iter().find(|(_, name, _)| *name == test).expect("a column");
    if std::env::var_os("SLUICE_WRITE_CONFORMANCE").is_some() {
        return;
    }
    let mut wrong = String::new();
    for vendor in doors() {
        let door = Door::of(vendor);
        let own: Vec<&Line> =
            LINES.iter().filter(|line| line.column == *column && line.doors.contains(&door.name())).collect();
        assert!(!own.is_empty(), "{FILE} says nothing of {column} at {}", door.name());
        for line in own {
            let found = seen(&door, &line.sample);
            if found != line.expected {
                writeln!(wrong, "{} {}\n  {found}\n  and not\n  {}", door.name(), line.sample, line.expected).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{column}:\n{wrong}");
}

/// The file with what was found in the place of what it expected.
fn rewritten(text: &str) -> String {
    let mut page = String::new();
    for line in text.lines().take_while(|line| line.starts_with('#')) {
        writeln!(page, "{line}").unwrap();
    }
    let all: BTreeMap<String, Door> = doors().map(|vendor| (name(vendor), Door::of(vendor))).collect();
    let mut head = String::new();
    for line in LINES.iter() {
        let (_, _, seen) = COLUMNS.iter().find(|(column, ..)| *column == line.column).expect("lines were checked");
        let own = format!("= {} | {}", line.column, line.sample);
        if own != head {
            writeln!(page, "\n{own}").unwrap();
            head = own;
        }
        let mut alike: Vec<(String, Vec<&str>)> = Vec::new();
        for door in &line.doors {
            let found = seen(&all[door], &line.sample);
            match alike.iter_mut().find(|(other, _)| *other == found) {
                Some((_, doors)) => doors.push(door),
                None => alike.push((found, vec![door])),
            }
        }
        for (found, doors) in alike {
            writeln!(page, "{} | {} | {found}", doors.join(", "), line.mark).unwrap();
        }
    }
    page
}

#[test]
fn the_file_can_be_written_anew() {
    let text = std::fs::read_to_string(path()).unwrap();
    let found = rewritten(&text);
    if std::env::var_os("SLUICE_WRITE_CONFORMANCE").is_some() {
        std::fs::write(path(), found).unwrap();
    } else {
        assert!(found == text, "{FILE} is not as it would be written: make config");
    }
}

#[test]
fn a_line_that_says_nothing_is_told() {
    for (text, fault) in [
        ("openai:groq | A | x", "no sample before it"),
        ("= colour | {}", "no column colour"),
        ("= usage", "a sample is COLUMN"),
        ("= usage | {}\nopenai:groq | A", "is not DOORS"),
        ("= usage | {}\nopenai:groq | Z | x", "no mark Z"),
        ("= usage | {}\nopenai:grok | A | x", "no door openai:grok"),
        ("= usage | {}\nopenai:groq | A | x\nopenai:* | S | y", "openai:groq has this sample already"),
    ] {
        let told = lines(text).err().unwrap_or_default();
        assert!(told.contains(fault), "{text}: {told}");
    }
    assert_eq!(lines("# a comment\n= usage | {}\nopenai:groq | A | x").map(|lines| lines.len()), Ok(1));
}

macro_rules! walk {
    ($($test:ident)*) => {
        $(
            #[test]
            fn $test() {
                check(stringify!($test));
            }
        )*
    };
}

walk! {
    requests
    schemas
    offers_of_tools
    parts_of_messages
    token_counts
    cached_tokens
    finish_reasons
    error_classes
    waits_and_limits
    streamed_answers
    vectors
    reported_costs
}

fn of_json(sample: &str) -> Value {
    serde_json::from_str(sample).unwrap_or_else(|error| panic!("{FILE}: {error}: {sample}"))
}

/// The body that a door is sent; or why it is passed.
fn body(door: &Door, sample: &str) -> Result<(Value, Vec<String>), String> {
    let request = parsed(of_json(sample));
    let wire = door.adapter.encode((&request).into(), MODEL, &crate::domain::Capabilities::default());
    let wire = wire.map_err(|why| format!("passed: {why}"))?;
    Ok((serde_json::from_slice(&wire.body).expect("JSON"), wire.dropped))
}

fn left_out(dropped: &[String]) -> String {
    if dropped.is_empty() { String::new() } else { format!("; noted: {}", dropped.join(", ")) }
}

/// Address, header of the key, and every member beside the conversation.
fn request(door: &Door, sample: &str) -> String {
    let request = parsed(of_json(sample));
    let Some(wire) = sent(&*door.adapter, &request) else {
        return body(door, sample).map_or_else(|why| why, |_| String::new());
    };
    let dropped = wire.dropped.clone();
    let mut out = Outgoing::new(&Url::parse(&door.base_url).unwrap(), &HeaderMap::new(), wire);
    let header = door.vendor.auth.unwrap_or(door.vendor.dialect.auth);
    Auth::Key(header, "k".to_owned().into()).sign(&mut out, Timestamp(0)).unwrap();
    let Value::Object(members) = serde_json::from_slice(&out.body).unwrap() else { return "no object".to_owned() };
    let talk = ["messages", "contents", "prompt", "input", "system", "systemInstruction", "instructions"];
    let rest: Map<String, Value> = members.into_iter().filter(|(key, _)| !talk.contains(&key.as_str())).collect();
    format!("{} by {}: {}{}", out.url, header.name, Value::Object(rest), left_out(&dropped))
}

/// Where a text stands in a body, as a member or inside a text.
fn place(value: &Value, text: &str) -> Option<String> {
    match value {
        Value::Object(members) => members.iter().find_map(|(key, member)| {
            if key == text {
                return Some(String::new());
            }
            place(member, text).map(|rest| format!("/{key}{rest}"))
        }),
        Value::Array(list) => {
            list.iter().enumerate().find_map(|(at, member)| Some(format!("/{at}{}", place(member, text)?)))
        }
        Value::String(found) if found.contains(text) => Some(String::new()),
        _ => None,
    }
}

fn schema(door: &Door, sample: &str) -> String {
    match body(door, sample) {
        Ok((body, dropped)) => match place(&body, "colour") {
            Some(place) => format!("in {place}{}", left_out(&dropped)),
            None => format!("checked only{}", left_out(&dropped)),
        },
        Err(why) => why,
    }
}

fn tools(door: &Door, sample: &str) -> String {
    let (body, dropped) = match body(door, sample) {
        Ok(found) => found,
        Err(why) => return why,
    };
    let choice = ["/tool_choice", "/toolConfig/toolChoice", "/toolConfig/functionCallingConfig"]
        .iter()
        .find_map(|pointer| body.pointer(pointer))
        .map_or("none".to_owned(), Value::to_string);
    let at = place(&body, "weather").unwrap_or_else(|| "nothing".to_owned());
    format!("in {at}, choice {choice}{}", left_out(&dropped))
}

fn parts(door: &Door, sample: &str) -> String {
    let text = if sample.contains("https://") { "https://e.com/a.png" } else { "iVBORw0KGgo=" };
    match body(door, sample) {
        Ok((body, dropped)) => match place(&body, text) {
            Some(place) => format!("in {place}{}", left_out(&dropped)),
            None => "lost".to_owned(),
        },
        Err(why) => why,
    }
}

/// The usual answer of a dialect with this usage.
fn with_usage(dialect: &str, usage: Value) -> Value {
    let mut body = samples::reply(dialect);
    match dialect {
        "gemini" => body["usageMetadata"] = usage,
        "ollama" => {
            let Value::Object(members) = &mut body else { return body };
            members.retain(|name, _| !name.ends_with("_count"));
            members.extend(usage.as_object().cloned().unwrap_or_default());
        }
        _ => body["usage"] = usage,
    }
    body
}

fn counts(usage: &Usage) -> String {
    let named = [
        ("input", usage.input),
        ("read", usage.cache_read),
        ("written", usage.cache_write),
        ("written for an hour", usage.cache_write_1h),
        ("output", usage.output),
        ("reasoning", usage.reasoning),
    ];
    let told: Vec<String> =
        named.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} {count}")).collect();
    told.join(", ")
}

fn usage(door: &Door, sample: &str) -> String {
    match door.read(&with_usage(door.dialect(), of_json(sample))) {
        Ok(answer) => counts(&answer.usage),
        Err(failure) => format!("{failure:?}"),
    }
}

/// A word after a slash is the reason of an answer that is not complete.
fn ends(door: &Door, sample: &str) -> String {
    let place = samples::place_of_end(door.dialect());
    let told = sample.split(' ').map(|word| {
        let mut body = samples::reply(door.dialect());
        let (state, reason) = word.split_once('/').unwrap_or((word, ""));
        *body.pointer_mut(place).unwrap() = json!(state);
        if !reason.is_empty() {
            body["incomplete_details"] = json!({ "reason": reason });
        }
        let end = match door.read(&body) {
            Ok(answer) => {
                let name = |finish: Finish| serde_json::to_value(finish).unwrap().as_str().unwrap().to_owned();
                name(answer.finish)
            }
            Err(failure) => format!("fails as {}", failure.class),
        };
        format!("{word} {end}")
    });
    told.collect::<Vec<_>>().join(", ")
}

fn errors(door: &Door, sample: &str) -> String {
    let (status, body) = sample.split_once(' ').unwrap_or((sample, ""));
    let status = status.parse().unwrap_or_else(|_| panic!("{FILE}: no status: {sample}"));
    match door.adapter.decode(&WireReply::new(status, &headers(&[]), body.as_bytes())) {
        Ok(_) => "an answer".to_owned(),
        Err(failure) => {
            let doubt = if failure.bearing == Bearing::InDoubt { ", in doubt" } else { "" };
            format!("{}, {:?}{doubt}", failure.class, failure.scope).to_lowercase()
        }
    }
}

/// Headers of a 429, separated by semicolons; or its body.
fn waits(door: &Door, sample: &str) -> String {
    let mut headers = HeaderMap::from_iter([(reqwest::header::DATE, HeaderValue::from_static(DATE))]);
    let mut body = samples::of_rate(door.dialect());
    if sample.starts_with('{') {
        body = of_json(sample);
    } else {
        for header in sample.split("; ") {
            let (name, value) = header.split_once(": ").unwrap_or_else(|| panic!("{FILE}: no header: {header}"));
            headers.insert(HeaderName::try_from(name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
    }
    let body = body.to_string();
    let reply = WireReply::new(429, &headers, body.as_bytes());
    let wait = door.adapter.decode(&reply).err().and_then(|failure| failure.wait);
    let mut told = wait.map_or("no wait".to_owned(), |wait| format!("{wait:?}"));
    for limit in door.adapter.limits(&reply) {
        let number = |count: Option<u64>| count.map_or("?".to_owned(), |count| count.to_string());
        let per = limit.per.map_or(String::new(), |per| format!(" per {per:?}"));
        let pool = limit.pool.map_or(String::new(), |pool| format!(" of {pool}"));
        let (left, size) = (number(limit.remaining), number(limit.limit));
        write!(told, "; {left} of {size} {:?}{per}{pool}", limit.unit).unwrap();
    }
    told
}

/// What asks for a stream, and what is read of these events.
fn stream(door: &Door, sample: &str) -> String {
    let plain = parsed(json!({ "messages": [{ "role": "user", "content": "Hi" }] }));
    let mut wire = sent(&*door.adapter, &plain).expect("every dialect takes a question");
    let before: Map<String, Value> = serde_json::from_slice(&wire.body).unwrap();
    let path = wire.path.clone();
    door.adapter.ask_for_stream(&mut wire);
    let after: Map<String, Value> = serde_json::from_slice(&wire.body).unwrap();
    let asked: Map<String, Value> = after.into_iter().filter(|(key, member)| before.get(key) != Some(member)).collect();
    let mut told = if asked.is_empty() { wire.path.clone() } else { Value::Object(asked).to_string() };
    if wire.path != path && !told.contains(&wire.path) {
        write!(told, " at {}", wire.path).unwrap();
    }
    let Value::Array(events) = of_json(sample) else { panic!("{FILE}: a stream is a list: {sample}") };
    let mut bytes: Vec<u8> = Vec::new();
    for event in &events {
        match door.dialect() {
            "ollama" => bytes.extend(format!("{event}\n").bytes()),
            "bedrock" => {
                let (name, payload) = event.as_object().and_then(|event| event.iter().next()).expect("a named event");
                bytes.extend(bedrock::frames::written("event", name, payload));
            }
            _ => {
                if let Some(kind) = event.get("type").and_then(Value::as_str) {
                    bytes.extend(format!("event: {kind}\n").bytes());
                }
                bytes.extend(format!("data: {event}\n\n").bytes());
            }
        }
    }
    if samples::ends_with_done(door.dialect()) {
        bytes.extend(b"data: [DONE]\n\n");
    }
    let headers = headers(&[]);
    let mut reply = WireReply::new(200, &headers, &bytes);
    reply.delivery = crate::provider::wire::Delivery::Stream;
    match door.adapter.decode(&reply) {
        Ok(answer) => {
            let text = answer.text.unwrap_or_default();
            write!(told, "; {text:?}, {:?}, {}", answer.finish, counts(&answer.usage)).unwrap();
        }
        Err(failure) => write!(told, "; {failure:?}").unwrap(),
    }
    told
}

fn embeddings(door: &Door, sample: &str) -> String {
    let request = parsed(of_json(sample));
    match door.adapter.encode((&request).into(), MODEL, &crate::domain::Capabilities::default()) {
        Ok(wire) => {
            let most = door.vendor.embeds.or(door.vendor.dialect.embeds);
            let most = most.map_or(String::new(), |most| {
                let tokens = most.tokens.map_or(String::new(), |tokens| format!(" and {tokens} tokens"));
                if most.inputs == usize::MAX { tokens } else { format!("; at most {} inputs{tokens}", most.inputs) }
            });
            format!("{} {}{}{most}", wire.path, String::from_utf8_lossy(&wire.body), left_out(&wire.dropped))
        }
        Err(why) => format!("passed: {why}"),
    }
}

fn cost(door: &Door, sample: &str) -> String {
    let mut body = samples::reply(door.dialect());
    let place = match door.dialect() {
        "gemini" => "usageMetadata",
        _ => "usage",
    };
    for (name, member) in of_json(sample).as_object().unwrap() {
        body[place][name] = member.clone();
    }
    let cost = door.read(&body).ok().and_then(|answer| answer.beside.cost);
    cost.map_or("none".to_owned(), |cost| format!("{} nano-dollars", cost.0))
}
