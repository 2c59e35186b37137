//! One call, from the door to the answer.

use super::answer;
use super::answer_rule;
use super::chance::{mix, unit};
use super::core::Core;
use super::dialect::Dialect;
use super::embedding::{EmbedAsk, Vectors};
use super::exchange::{Answer, Ask, Call, Finish, JsonAsk, Problem, StreamAsk, Usage, put};
use super::fault::{Disguise, Fault, FaultKind};
use super::ledger::{Charge, Decision, Ending, Entry, Knock};
use super::output::Output;
use super::prompt::{PromptHash, count_tokens};
use super::prompt_cache::Cached;
use super::reply_body::{ReplyBody, Then};
use super::scenario::Provider;
use super::spoilt::{first_tool, spoilt};
use super::stream::Stream;
use super::ticket::Ticket;
use super::wait::{Told, WaitFormat};
use super::wire::Tear;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Larger requests are answered 413, as Anthropic does.
const MAX_REQUEST_BYTES: usize = 32 << 20;
/// The wait that a rate limit by fault states when the scenario does not say.
const DEFAULT_WAIT: Duration = Duration::from_secs(1);
/// The pause between the pieces of a slow drip when the scenario does not say.
const DEFAULT_INTERVAL: Duration = Duration::from_millis(500);
/// The size of a huge body when the scenario does not say.
const DEFAULT_HUGE_BYTES: usize = 16 << 20;

/// The model that answers in place of another.
const OTHER_MODEL: &str = "thrifty-7b";

const REFUSAL: &str = "I'm sorry, but I can't help with that request.";
const HTML: &str = "<!DOCTYPE html>\n<html><head><title>Just a moment...</title></head>\
                    <body><h1>Checking your browser before accessing the site</h1></body></html>\n";
const HTML_502: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n\
                        <center><h1>502 Bad Gateway</h1></center>\r\n<hr><center>cloudflare</center>\r\n</body>\r\n\
                        </html>\r\n";

/// The answer before it is written: the text, and how it ended.
#[derive(Debug, PartialEq)]
struct Composition {
    text: String,
    finish: Finish,
    output_tokens: u64,
    vectors: Option<Vectors>,
    /// How likely each token is, if the call asks.
    confidence: Option<f64>,
    /// The stream that the call asks for.
    stream: Option<StreamAsk>,
}

/// Answers one call of the provider with this index; `rest` is the path after its name.
pub(crate) async fn answer_call(
    core: Arc<Core>,
    provider: usize,
    name_length: usize,
    request: Request<Incoming>,
    tear: Tear,
) -> io::Result<Response<ReplyBody>> {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, MAX_REQUEST_BYTES).collect().await {
        Ok(body) => Some(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => None,
        // The client went away in the middle of its request.
        Err(error) => return Err(io::Error::other(error)),
    };
    let whole_path = parts.uri.path();
    let path = &whole_path[name_length + 1..];
    let (mut ticket, composition) = {
        let body = body.as_deref();
        admit(&core, provider, &parts.method, (path, whole_path), parts.uri.query(), &parts.headers, body)
    };
    let fault = match ticket.entry.decision {
        Decision::Do(fault) => fault,
        Decision::Reject(_) | Decision::Refuse(_) => Fault::new(FaultKind::Ok),
    };
    let mut pause = fault.delay.unwrap_or_default();
    if let Some(composition) = &composition {
        ticket.entry.output_tokens = composition.output_tokens;
        let draw = mix(ticket.entry.draw, 0x1a7e);
        let of_tier = ticket.entry.tier.as_ref().and_then(|tier| ticket.spec().tiers.get(&**tier)?.latency);
        let latency = of_tier.unwrap_or(ticket.spec().latency);
        pause += latency.draw(draw, composition.output_tokens, ticket.entry.in_flight);
    }
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
    match fault.kind {
        // Until the client gives up, which drops the ticket.
        FaultKind::Hang => std::future::pending().await,
        FaultKind::Reset => {
            tear.now();
            ticket.end(Ending { status: 0, told: None, charge: Charge::Free, abandoned: false, reported: None });
            Err(io::ErrorKind::ConnectionReset.into())
        }
        _ => Ok(respond(ticket, &fault, composition)),
    }
}

/// Reads the call and books it; for an answer, composes its text.
fn admit(
    core: &Arc<Core>,
    provider: usize,
    method: &Method,
    (path, whole_path): (&str, &str),
    query: Option<&str>,
    headers: &HeaderMap,
    body: Option<&[u8]>,
) -> (Ticket, Option<Composition>) {
    let (name, spec) = &core.providers[provider];
    let api = spec.dialect.api();
    let call = Call { path, whole_path, query, headers, body: body.unwrap_or_default() };
    let key = api.key(&call);
    let ask = match body {
        None => Err(Problem::PayloadTooLarge),
        Some(_) if method != Method::POST => Err(Problem::MethodNotAllowed),
        Some(_) => api.read(&call),
    };
    let (ask, problem) = match ask {
        Ok(ask) => (Some(ask), None),
        Err(problem) => (None, Some(problem)),
    };
    let recognised = api.recognise(&call, &spec.keys, SystemTime::now());
    let known_key = recognised.as_ref().ok().copied();
    let denial = recognised.err().filter(|_| !spec.keys.is_empty());
    let known_model = |ask: &Ask<'_>| spec.models.is_empty() || spec.models.contains_key(ask.model.as_ref());
    // The key is checked first, as every provider does.
    let problem =
        denial.or(problem).or_else(|| ask.as_ref().filter(|ask| !known_model(ask)).map(|_| Problem::NotFound));
    let knock = Knock {
        provider,
        body_hash: if ask.is_none() { hash(call.body) } else { 0 },
        key: known_key,
        key_hash: key.map_or(0, |key| hash(key.as_bytes())),
        ask: ask.as_ref(),
        problem,
    };
    let entry = {
        let mut book = core.book();
        let now = book.now();
        book.ledger.arrive(&core.scenario, name, spec, knock, now)
    };
    let composition = match (&ask, &entry.decision) {
        (Some(ask), Decision::Do(fault)) if fault.kind.is_answer() => {
            let tool = if fault.kind == FaultKind::WrittenCall { first_tool(call.body) } else { None };
            Some(compose(core.scenario.seed, spec, ask, fault, tool.as_deref()))
        }
        _ => None,
    };
    (Ticket::new(Arc::clone(core), entry), composition)
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hash = PromptHash::default();
    hash.text(&String::from_utf8_lossy(bytes));
    hash.finish()
}

/// The model's answer, with the fault worked in.
fn compose(seed: u64, spec: &Provider, ask: &Ask<'_>, fault: &Fault, tool: Option<&str>) -> Composition {
    if let Some(embed) = &ask.embed {
        return Composition {
            text: String::new(),
            finish: Finish::Stop,
            output_tokens: 0,
            vectors: Some(vectors(embed, fault.kind)),
            confidence: None,
            stream: None,
        };
    }
    let prompt = ask.prompt;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to be positive")]
    let size = |spread: super::chance::Spread| spread.draw(mix(mix(seed, prompt), 0x517e)).round().max(1.0) as u64;
    let tokens = || match &spec.output {
        Output::Tokens(spread) => size(*spread),
        Output::Text(text) => count_tokens(text),
    };
    let schema = match &ask.json {
        Some(JsonAsk::Schema(schema)) => Some(schema.get()),
        Some(JsonAsk::SchemaText(schema)) => Some(schema.as_str()),
        Some(JsonAsk::Object) | None => None,
    };
    let json = || match schema {
        Some(schema) => match serde_json::from_str(schema) {
            Ok(schema) => answer::sample(&schema, prompt),
            Err(_) => answer::object(prompt, tokens()),
        },
        None => answer::object(prompt, tokens()),
    };
    let scripted = answer_rule::scripted(&spec.answers, &ask.model, &ask.last_user);
    let whole = || match (scripted, &spec.output) {
        (Some(rule), _) => rule.text.clone(),
        _ if ask.json.is_some() => json().to_string(),
        (None, Output::Text(text)) => text.clone(),
        (None, Output::Tokens(spread)) => answer::text(prompt, size(*spread)),
    };
    let (mut text, mut finish) = match fault.kind {
        FaultKind::Empty | FaultKind::Html => (String::new(), Finish::Stop),
        // In a stream words come before it.
        FaultKind::Garbage | FaultKind::ErrorIn200 if ask.stream.is_none() => (String::new(), Finish::Stop),
        FaultKind::NoChoices => (String::new(), Finish::Nothing),
        FaultKind::ContentFilter => (String::new(), Finish::Filtered),
        FaultKind::Refusal => (REFUSAL.to_owned(), Finish::Refused),
        FaultKind::RefusalText => (REFUSAL.to_owned(), Finish::Stop),
        FaultKind::Json => (json().to_string(), Finish::Stop),
        FaultKind::FencedJson => (format!("```json\n{:#}\n```", json()), Finish::Stop),
        FaultKind::BrokenJson => (json().to_string().replace('"', "'").replace('}', ",}"), Finish::Stop),
        FaultKind::WrongJson => ("[\"wrong\"]".to_owned(), Finish::Stop),
        FaultKind::Truncated => {
            let whole = whole();
            (answer::cut(&whole, count_tokens(&whole).div_ceil(2)).to_owned(), Finish::Length)
        }
        kind => {
            let whole = whole();
            spoilt(kind, &whole, ask, tool).unwrap_or((whole, Finish::Stop))
        }
    };
    let mut output_tokens = match fault.kind {
        // All that there may be was used up.
        FaultKind::Reasoning | FaultKind::CutStop => ask.max_output.unwrap_or_else(|| count_tokens(&text)),
        FaultKind::EmptyTurn => 3,
        _ => count_tokens(&text),
    };
    if let Some(max) = ask.max_output.filter(|max| *max < output_tokens) {
        text.truncate(answer::cut(&text, max).len());
        output_tokens = max;
        finish = Finish::Length;
    }
    let drawn = || 0.5 + unit(mix(mix(prompt, hash(ask.model.as_bytes())), 0xc0f1)) / 2.0;
    let confidence = ask.logprobs.then(|| scripted.map_or_else(drawn, |rule| rule.confidence.unwrap_or(0.999)));
    Composition { text, finish, output_tokens, vectors: None, confidence, stream: ask.stream }
}

/// The vectors, with the fault worked in.
fn vectors(embed: &EmbedAsk, fault: FaultKind) -> Vectors {
    let mut vectors = embed.vectors();
    // The text that has the mark, or the last one.
    let marked = embed.texts.iter().position(|text| text.contains("[[fault")).unwrap_or(embed.texts.len() - 1);
    let struck = vectors.list.get_mut(marked);
    match (fault, struck) {
        (FaultKind::Empty | FaultKind::NoChoices, _) => vectors.list.clear(),
        (FaultKind::VectorCount, _) => drop(vectors.list.pop()),
        (FaultKind::VectorNan, Some(vector)) => {
            if let Some(number) = vector.last_mut() {
                *number = f32::NAN;
            }
        }
        (FaultKind::VectorZero, Some(vector)) => vector.fill(0.0),
        (FaultKind::VectorShort, Some(vector)) => drop(vector.pop()),
        _ => {}
    }
    vectors
}

/// A whole answer that is not yet a response.
struct Reply {
    status: u16,
    content_type: &'static str,
    body: Vec<u8>,
    /// The events of a stream, in place of a body.
    events: Option<Vec<Bytes>>,
    told: Told,
    charge: Charge,
    reported: Option<(u64, u64)>,
}

impl Reply {
    fn page(status: u16, html: &str) -> Self {
        Self { content_type: "text/html; charset=UTF-8", ..Self::bytes(status, html.as_bytes().to_vec(), Charge::Free) }
    }

    fn bytes(status: u16, body: Vec<u8>, charge: Charge) -> Self {
        let content_type = "application/json";
        Self { status, content_type, body, events: None, told: Told::default(), charge, reported: None }
    }
}

fn respond(ticket: Ticket, fault: &Fault, composition: Option<Composition>) -> Response<ReplyBody> {
    let wall = SystemTime::now();
    let Provider { dialect, publishes, .. } = *ticket.spec();
    let id = ticket.request_id();
    let reply = match composition {
        Some(composition) => reply_of_answer(&ticket.entry, dialect, &id, fault, &composition, wall),
        None => reply_of_problem(&ticket.entry, ticket.spec(), &id, wall),
    };
    let Reply { status, content_type, body, events, told, charge, reported } = reply;
    let mut headers = HeaderMap::with_capacity(12);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Some(name) = dialect.api().id_header() {
        put(&mut headers, name, id);
    }
    if let Some(levels) = &ticket.entry.levels
        && publishes
    {
        dialect.api().limit_headers(levels, wall, &mut headers);
    }
    for (name, value) in told.headers {
        put(&mut headers, name, value);
    }
    let (body, events) = {
        let spec = ticket.spec();
        let cost = reported.and_then(|(input, output)| {
            let price = spec.models.get(&*ticket.entry.model)?.price?;
            Some(price.cost(Usage { input, output, cached: ticket.entry.cached }))
        });
        spec.habits.name(&mut headers);
        (spec.habits.body(body, cost), events.map(|events| spec.habits.events(events, cost)))
    };
    let body = Bytes::from(body);
    let ending = Ending { status, told: told.wait, charge, abandoned: false, reported };
    let lost = Ending { charge: Charge::Lost, reported: None, ..ending };
    let interval = fault.interval.unwrap_or(DEFAULT_INTERVAL);
    let body = match (fault.kind, events) {
        (FaultKind::SlowDrip, Some(events)) => {
            ReplyBody::pieces(&events, Some(interval), Then::End(Box::new((ticket, ending))))
        }
        (FaultKind::SlowDrip, None) => ReplyBody::drip(body, interval, ticket, ending),
        (FaultKind::Cut, None) => {
            ticket.end(lost);
            ReplyBody::cut(body)
        }
        (FaultKind::Stall, None) => {
            ReplyBody::pieces(&[body.slice(..body.len() / 2)], None, Then::Silence(Box::new(ticket)))
        }
        (FaultKind::NoEnd, None) => {
            ReplyBody::pieces(&[body.slice(..body.len() / 2)], None, Then::End(Box::new((ticket, lost))))
        }
        (FaultKind::Cut, Some(events)) => {
            ticket.end(lost);
            ReplyBody::pieces(&events, None, Then::Break)
        }
        (FaultKind::Stall, Some(events)) => ReplyBody::pieces(&events, None, Then::Silence(Box::new(ticket))),
        (FaultKind::NoEnd, Some(events)) => ReplyBody::pieces(&events, None, Then::End(Box::new((ticket, lost)))),
        (_, Some(events)) => ReplyBody::pieces(&events, None, Then::End(Box::new((ticket, ending)))),
        (_, None) => {
            ticket.end(ending);
            ReplyBody::Whole(body)
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = headers;
    response
}

fn reply_of_answer(
    entry: &Entry,
    dialect: Dialect,
    id: &str,
    fault: &Fault,
    composition: &Composition,
    wall: SystemTime,
) -> Reply {
    match fault.kind {
        FaultKind::Html => return Reply::page(200, HTML),
        FaultKind::ErrorIn200 if composition.stream.is_none() => {
            return Reply::bytes(200, dialect.api().error_in_200(id).to_string().into_bytes(), Charge::Free);
        }
        FaultKind::Garbage if composition.stream.is_none() => {
            // 0xff and 0xfe occur in no UTF-8 text.
            let bytes = (0..64u64).flat_map(|i| [0xff, 0xfe, mix(entry.draw, i).to_le_bytes()[0]]).collect();
            return Reply::bytes(200, bytes, Charge::Free);
        }
        _ => {}
    }
    let used = Usage { input: entry.input_tokens, output: composition.output_tokens, cached: entry.cached };
    let usage = match fault.kind {
        FaultKind::NoUsage => None,
        FaultKind::PromptCut => Some(Usage { input: used.input / 10, cached: Cached::default(), ..used }),
        FaultKind::WrongUsage => {
            Some(Usage { input: used.input * 10, output: used.output * 10, cached: Cached::default() })
        }
        _ => Some(used),
    };
    let usage = usage.filter(|_| composition.stream.is_none_or(|stream| stream.usage));
    let answer = Answer {
        id,
        created: wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        model: if fault.kind == FaultKind::OtherModel { OTHER_MODEL } else { &entry.model },
        text: &composition.text,
        finish: composition.finish,
        usage,
        tier: entry.tier.as_deref(),
        vectors: composition.vectors.as_ref(),
        confidence: composition.confidence,
    };
    // What is huge comes whole, whatever was asked for.
    if composition.stream.is_some() && fault.kind != FaultKind::HugeBody {
        let Stream { content_type, events, .. } = streamed(dialect, &answer, fault.kind);
        let charge = if fault.kind == FaultKind::ErrorIn200 { Charge::Lost } else { Charge::Charged };
        let reported = usage.map(|usage| (usage.input, usage.output));
        return Reply { content_type, events: Some(events), reported, ..Reply::bytes(200, Vec::new(), charge) };
    }
    let mut body = dialect.api().write(&answer);
    match fault.kind {
        FaultKind::MalformedJson => body.truncate(body.len() * 2 / 3),
        FaultKind::HugeBody => {
            // Valid JSON, with a field in front that no client asked for.
            let padding = fault.bytes.unwrap_or(DEFAULT_HUGE_BYTES).min(1 << 30);
            let mut huge = Vec::with_capacity(padding + body.len() + 16);
            huge.extend_from_slice(br#"{"padding":""#);
            huge.resize(huge.len() + padding, b'x');
            huge.extend_from_slice(br#"","#);
            huge.extend_from_slice(&body[1..]);
            body = huge;
        }
        _ => {}
    }
    Reply { reported: usage.map(|usage| (usage.input, usage.output)), ..Reply::bytes(200, body, Charge::Charged) }
}

/// The answer as a stream, with the fault worked in. What happens behind its last event is for the body to do.
fn streamed(dialect: Dialect, answer: &Answer<'_>, fault: FaultKind) -> Stream {
    let mut stream = dialect.api().stream(answer);
    match fault {
        FaultKind::ErrorIn200 => stream.fail(dialect.api().error_in_stream(answer.id)),
        FaultKind::Garbage => stream.spoil(),
        // All of the words, and not that there are no more.
        FaultKind::NoEnd => stream.cut(stream.end),
        FaultKind::Cut | FaultKind::Stall => stream.cut(stream.half()),
        FaultKind::MalformedJson => {
            let mut whole = stream.events.concat();
            whole.truncate(whole.len() / 2);
            stream.events = vec![whole.into()];
        }
        _ => {}
    }
    stream
}

fn reply_of_problem(entry: &Entry, spec: &Provider, id: &str, wall: SystemTime) -> Reply {
    let dialect = spec.dialect;
    let (problem, mut told) = match &entry.decision {
        Decision::Reject(problem) => (problem.clone(), Told::default()),
        Decision::Refuse(shortage) => {
            let told = shortage.wait.filter(|_| spec.publishes).map(|wait| tell(dialect, wait, spec.wait_format, wall));
            (Problem::Limited(Some(*shortage)), told.unwrap_or_default())
        }
        Decision::Do(fault) if fault.kind == FaultKind::Html502 => return Reply::page(502, HTML_502),
        Decision::Do(fault) => (problem_of(fault, entry.draw), told_by(fault, dialect, wall)),
    };
    let failure = dialect.api().fail(&problem, &told, &entry.model, id);
    told.headers.extend(dialect.api().error_header(&failure.body));
    Reply { told, ..Reply::bytes(failure.status, failure.body.to_string().into_bytes(), Charge::Free) }
}

/// The failure that a fault before admission stands for.
fn problem_of(fault: &Fault, draw: u64) -> Problem {
    match fault.kind {
        FaultKind::RateLimit => Problem::Limited(None),
        FaultKind::Overloaded => Problem::Overloaded(fault.status),
        FaultKind::NoCapacity => Problem::NoCapacity(fault.status),
        FaultKind::OutOfQuota => {
            Problem::OutOfQuota(fault.disguise.unwrap_or_else(|| Disguise::drawn(mix(draw, 0xd15))))
        }
        FaultKind::Auth => Problem::Auth,
        FaultKind::Permission => Problem::Permission,
        FaultKind::NotFound => Problem::NotFound,
        FaultKind::InvalidRequest => Problem::InvalidRequest,
        FaultKind::ContextLength => Problem::ContextLength,
        FaultKind::ContentPolicy => Problem::ContentPolicy,
        FaultKind::PayloadTooLarge => Problem::PayloadTooLarge,
        FaultKind::Timeout => Problem::Timeout,
        // Every other fault is handled earlier, or is an answer.
        _ => Problem::ServerError(fault.status.unwrap_or(500)),
    }
}

/// States a wait in the given format, or as the dialect does.
fn tell(dialect: Dialect, wait: Duration, format: Option<WaitFormat>, wall: SystemTime) -> Told {
    format.map_or_else(|| dialect.api().tell(wait, wall), |format| format.tell(wait, wall))
}

/// The wait that a fault states: a rate limit always does, a failing server only when the scenario says so.
fn told_by(fault: &Fault, dialect: Dialect, wall: SystemTime) -> Told {
    match fault.kind {
        FaultKind::RateLimit => tell(dialect, fault.wait.unwrap_or(DEFAULT_WAIT), fault.format, wall),
        FaultKind::ServerError | FaultKind::Overloaded | FaultKind::NoCapacity | FaultKind::Timeout => {
            fault.wait.map(|wait| fault.format.unwrap_or(WaitFormat::RetryAfter).tell(wait, wall)).unwrap_or_default()
        }
        _ => Told::default(),
    }
}
