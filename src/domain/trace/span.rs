//! Spans: what a trace tells of a call and of a job, by OpenTelemetry's conventions for generative AI.
//!
//! A span holds names, numbers and classes. Nothing that a prompt, an answer, a header or a provider's message could
//! be part of comes into one.

use super::{JobTrace, SpanId, TraceId};
use crate::domain::{ErrorClass, Finish, NanoUsd, SoftFailure, Timestamp, Usage, UsageSource};
use std::borrow::Cow;

/// As many characters of a name that a provider sends are told.
const MOST_CHARS: usize = 200;

/// How a span stands to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// A call to another server.
    Client,
    /// Work that was taken from a queue.
    Consumer,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum AttributeValue {
    Text(String),
    Whole(i64),
    Number(f64),
    Flag(bool),
    Texts(Vec<String>),
}

/// A span that is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub trace: TraceId,
    pub id: SpanId,
    /// The span that it belongs to.
    pub parent: Option<SpanId>,
    /// Whether that is a span of another program.
    pub is_of_caller: bool,
    pub kind: SpanKind,
    pub name: String,
    pub started: Timestamp,
    pub ended: Timestamp,
    /// Whether it ended in a failure.
    pub has_failed: bool,
    pub attributes: Vec<(&'static str, AttributeValue)>,
}

impl Span {
    /// Memory that it takes, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of_value = |value: &AttributeValue| match value {
            AttributeValue::Text(text) => text.len(),
            AttributeValue::Texts(texts) => texts.iter().map(|text| size_of::<String>() + text.len()).sum(),
            AttributeValue::Whole(_) | AttributeValue::Number(_) | AttributeValue::Flag(_) => 0,
        };
        let of_one = size_of::<(&str, AttributeValue)>();
        let attributes = self.attributes.iter().map(|(_, value)| of_one + of_value(value));
        size_of::<Self>() + self.name.len() + attributes.sum::<usize>()
    }

    /// The value of an attribute.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&AttributeValue> {
        self.attributes.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

/// What a call asks a model for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Chat,
    /// A prompt that is continued, by the interface that has no conversations.
    TextCompletion,
    /// The interface of Gemini.
    GenerateContent,
    Embeddings,
}

impl Operation {
    /// What a server of this dialect is asked for.
    #[must_use]
    pub fn of(dialect: &str, embeds: bool) -> Self {
        match dialect {
            _ if embeds => Self::Embeddings,
            "gemini" => Self::GenerateContent,
            "completions" => Self::TextCompletion,
            _ => Self::Chat,
        }
    }

    /// The value of `gen_ai.operation.name`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::TextCompletion => "text_completion",
            Self::GenerateContent => "generate_content",
            Self::Embeddings => "embeddings",
        }
    }
}

/// The value of `gen_ai.provider.name`: the conventions' name of a vendor, else the vendor's own name here, else the
/// name that the provider has in the configuration.
#[must_use]
pub fn provider_name<'a>(vendor: Option<&'a str>, dialect: &str, host: Option<&str>, configured: &'a str) -> &'a str {
    if host.is_some_and(|host| host.ends_with("aiplatform.googleapis.com")) {
        return "gcp.vertex_ai";
    }
    match vendor.unwrap_or(dialect) {
        "azure_openai" => "azure.ai.openai",
        "bedrock" => "aws.bedrock",
        "gemini" => "gcp.gemini",
        "github_models" => "azure.ai.inference",
        "mistral" => "mistral_ai",
        "xai" => "x_ai",
        "anthropic" => "anthropic",
        "cohere" => "cohere",
        "ollama" => "ollama",
        _ => vendor.unwrap_or(configured),
    }
}

/// A call to a provider that is over.
#[derive(Clone, Copy, Debug)]
pub struct TracedCall<'a> {
    /// Its ordinal within the job.
    pub number: i16,
    pub route: &'a str,
    pub project: &'a str,
    pub batch: Option<&'a str>,
    /// The place of its rung on the route.
    pub rung: i16,
    /// The provider's name in the configuration.
    pub provider: &'a str,
    /// The value of `gen_ai.provider.name`.
    pub system: &'a str,
    pub operation: Operation,
    /// The model that was asked for, without its tier.
    pub model: &'a str,
    pub tier: Option<&'a str>,
    /// The host of the server, and its port.
    pub server: Option<(&'a str, u16)>,
    /// The output cap.
    pub max_tokens: Option<i64>,
    /// The answer was asked for as a stream.
    pub is_streamed: bool,
    pub started: Timestamp,
    pub ended: Timestamp,
    /// Milliseconds until the answer began.
    pub first_byte_ms: Option<i32>,
    /// `None`: accepted.
    pub class: Option<ErrorClass>,
    /// The gravest flaw of an answer that was rejected.
    pub soft: Option<SoftFailure>,
    pub http_status: Option<u16>,
    /// The model that the provider says it used.
    pub model_served: Option<&'a str>,
    /// The provider's id of the request.
    pub request_id: Option<&'a str>,
    pub finish: Option<Finish>,
    pub usage: Usage,
    /// `None`: the price is unknown.
    pub cost: Option<NanoUsd>,
    /// The amount that may have been spent beside that.
    pub uncertain: NanoUsd,
}

/// The end of a job.
#[derive(Clone, Copy, Debug)]
pub struct TracedEnding<'a> {
    pub job: i64,
    pub round: i16,
    pub route: &'a str,
    pub project: &'a str,
    pub batch: Option<&'a str>,
    /// Since when it could be worked on.
    pub ready: Timestamp,
    pub ended: Timestamp,
    /// Calls made for it in all.
    pub attempts: i16,
    /// The provider's name in the configuration and the model with its tier, of the last call.
    pub target: Option<(&'a str, &'a str)>,
    /// `None`: it succeeded.
    pub failure: Option<ErrorClass>,
    /// All its calls together; `None`: one of them has no price.
    pub cost: Option<NanoUsd>,
    pub is_from_cache: bool,
    pub is_after_fallback: bool,
    pub is_repaired: bool,
}

/// Gathers attributes; those without a value are left out.
#[derive(Default)]
struct Attributes(Vec<(&'static str, AttributeValue)>);

impl Attributes {
    fn text(&mut self, name: &'static str, text: impl Into<Cow<'static, str>>) {
        self.0.push((name, AttributeValue::Text(text.into().into_owned())));
    }

    fn named(&mut self, name: &'static str, text: Option<&str>) {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.text(name, text.chars().take(MOST_CHARS).collect::<String>());
        }
    }

    fn whole(&mut self, name: &'static str, number: Option<impl Into<i64>>) {
        self.0.extend(number.map(|number| (name, AttributeValue::Whole(number.into()))));
    }

    fn number(&mut self, name: &'static str, number: Option<f64>) {
        self.0.extend(number.map(|number| (name, AttributeValue::Number(number))));
    }

    fn flag(&mut self, name: &'static str, is_so: bool) {
        if is_so {
            self.0.push((name, AttributeValue::Flag(true)));
        }
    }

    fn labels(&mut self, route: &str, project: &str, batch: Option<&str>) {
        self.named("sluice.route", Some(route));
        self.named("sluice.project", Some(project));
        self.named("sluice.batch", batch);
    }
}

impl JobTrace {
    /// The span of a call.
    #[must_use]
    pub fn call(&self, call: &TracedCall<'_>) -> Span {
        let mut tells = Attributes::default();
        tells.text("gen_ai.operation.name", call.operation.as_str());
        tells.named("gen_ai.provider.name", Some(call.system));
        tells.named("gen_ai.request.model", Some(call.model));
        if let Some((host, port)) = call.server {
            tells.named("server.address", Some(host));
            tells.whole("server.port", Some(port));
        }
        tells.whole("gen_ai.request.max_tokens", call.max_tokens);
        tells.flag("gen_ai.request.stream", call.is_streamed);
        tells.named("gen_ai.response.model", call.model_served);
        let finish = call.finish.and_then(Finish::in_traces);
        if let Some(finish) = finish {
            tells.0.push(("gen_ai.response.finish_reasons", AttributeValue::Texts(vec![finish.to_owned()])));
        }
        let first = call.first_byte_ms.filter(|_| call.is_streamed);
        tells.number("gen_ai.response.time_to_first_chunk", first.map(|millis| f64::from(millis) / 1e3));
        tells.usage(&call.usage);
        tells.whole("http.response.status_code", call.http_status);
        if let Some(class) = call.class {
            tells.text("error.type", class.as_str());
        }
        tells.whole("sluice.attempt", Some(call.number));
        tells.whole("sluice.rung", Some(call.rung));
        tells.named("sluice.provider", Some(call.provider));
        tells.named("sluice.tier", call.tier);
        tells.labels(call.route, call.project, call.batch);
        let verdict = match call.class {
            None => "accepted",
            Some(ErrorClass::SoftFailure) => "rejected",
            Some(_) => "failed",
        };
        tells.text("sluice.verdict", verdict);
        tells.named("sluice.soft_failure", call.soft.map(SoftFailure::as_str));
        tells.named("sluice.request_id", call.request_id);
        tells.number("sluice.cost_dollars", call.cost.map(NanoUsd::dollars));
        let uncertain = Some(call.uncertain).filter(|uncertain| *uncertain > NanoUsd::ZERO);
        tells.number("sluice.uncertain_cost_dollars", uncertain.map(NanoUsd::dollars));
        Span {
            trace: self.trace,
            id: self.attempt(call.number),
            parent: Some(self.root),
            is_of_caller: false,
            kind: SpanKind::Client,
            name: format!("{} {}", call.operation.as_str(), call.model),
            started: call.started,
            ended: call.ended.max(call.started),
            has_failed: call.class.is_some(),
            attributes: tells.0,
        }
    }

    /// The span of the job itself, in this round.
    #[must_use]
    pub fn job(&self, ending: &TracedEnding<'_>) -> Span {
        let mut tells = Attributes::default();
        tells.whole("sluice.job", Some(ending.job));
        tells.whole("sluice.round", Some(ending.round).filter(|round| *round > 0));
        tells.labels(ending.route, ending.project, ending.batch);
        tells.text("sluice.state", if ending.failure.is_some() { "failed" } else { "succeeded" });
        if let Some(class) = ending.failure {
            tells.text("error.type", class.as_str());
        }
        tells.whole("sluice.attempts", Some(ending.attempts));
        tells.named("sluice.provider", ending.target.map(|(provider, _)| provider));
        tells.named("sluice.model", ending.target.map(|(_, model)| model));
        tells.number("sluice.cost_dollars", ending.cost.map(NanoUsd::dollars));
        tells.flag("sluice.from_cache", ending.is_from_cache);
        tells.flag("sluice.after_fallback", ending.is_after_fallback);
        tells.flag("sluice.repaired", ending.is_repaired);
        tells.flag("sluice.invalid_traceparent", self.is_misled);
        Span {
            trace: self.trace,
            id: self.root,
            parent: self.caller,
            is_of_caller: self.caller.is_some(),
            kind: SpanKind::Consumer,
            name: format!("job {}", ending.route),
            started: ending.ready.min(ending.ended),
            ended: ending.ended,
            has_failed: ending.failure.is_some(),
            attributes: tells.0,
        }
    }
}

impl Attributes {
    /// Token counts: the provider's own, or estimates that are marked as such.
    fn usage(&mut self, usage: &Usage) {
        if usage.source == UsageSource::Unknown {
            return;
        }
        let some = |tokens: i64| Some(tokens).filter(|tokens| *tokens > 0);
        let written = usage.cache_write.saturating_add(usage.cache_write_1h);
        self.whole("gen_ai.usage.input_tokens", Some(usage.total_input()));
        self.whole("gen_ai.usage.output_tokens", Some(usage.output));
        self.whole("gen_ai.usage.cache_read.input_tokens", some(usage.cache_read));
        self.whole("gen_ai.usage.cache_creation.input_tokens", some(written));
        self.whole("gen_ai.usage.reasoning.output_tokens", some(usage.reasoning));
        self.flag("sluice.usage_estimated", usage.source == UsageSource::Estimated);
    }
}

impl Finish {
    /// The word in traces, which is OpenAI's where it has one; `None`: the provider's word is not understood, and could
    /// be anything.
    fn in_traces(self) -> Option<&'static str> {
        match self {
            Self::Unknown => None,
            Self::Refusal => Some("refusal"),
            Self::Pause => Some("pause"),
            finish => Some(finish.as_openai()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::JobId;

    fn trace(traceparent: Option<&str>) -> JobTrace {
        JobTrace::of("i", JobId(7), 1, 0, traceparent, 1.0).unwrap()
    }

    fn call() -> TracedCall<'static> {
        TracedCall {
            number: 2,
            route: "default",
            project: "books",
            batch: Some("night"),
            rung: 1,
            provider: "backup",
            system: "anthropic",
            operation: Operation::Chat,
            model: "claude",
            tier: Some("flex"),
            server: Some(("api.anthropic.com", 443)),
            max_tokens: Some(300),
            is_streamed: true,
            started: Timestamp(1_000),
            ended: Timestamp(2_500),
            first_byte_ms: Some(400),
            class: None,
            soft: None,
            http_status: Some(200),
            model_served: Some("claude-1"),
            request_id: Some("req_1"),
            finish: Some(Finish::Complete),
            usage: Usage {
                input: 20,
                cache_read: 10,
                cache_write: 3,
                cache_write_1h: 4,
                output: 5,
                reasoning: 2,
                source: UsageSource::Provider,
            },
            cost: Some(NanoUsd(1_500_000)),
            uncertain: NanoUsd::ZERO,
        }
    }

    fn ending() -> TracedEnding<'static> {
        TracedEnding {
            job: 7,
            round: 0,
            route: "default",
            project: "books",
            batch: None,
            ready: Timestamp(500),
            ended: Timestamp(2_600),
            attempts: 2,
            target: Some(("backup", "claude@flex")),
            failure: None,
            cost: Some(NanoUsd(2_000_000_000)),
            is_from_cache: false,
            is_after_fallback: true,
            is_repaired: false,
        }
    }

    /// The attributes as lines.
    fn told(span: &Span) -> Vec<String> {
        let line = |(name, value): &(&str, AttributeValue)| match value {
            AttributeValue::Text(text) => format!("{name} = {text}"),
            AttributeValue::Whole(number) => format!("{name} = {number}"),
            AttributeValue::Number(number) => format!("{name} = {number}"),
            AttributeValue::Flag(is_so) => format!("{name} = {is_so}"),
            AttributeValue::Texts(texts) => format!("{name} = {texts:?}"),
        };
        span.attributes.iter().map(line).collect()
    }

    #[test]
    fn an_accepted_call_is_told_by_the_conventions() {
        let trace = trace(None);
        let span = trace.call(&call());
        assert_eq!((span.trace, span.id, span.parent), (trace.trace, trace.attempt(2), Some(trace.root)));
        assert_eq!((span.name.as_str(), span.kind, span.has_failed), ("chat claude", SpanKind::Client, false));
        assert_eq!((span.started, span.ended), (Timestamp(1_000), Timestamp(2_500)));
        assert_eq!(
            told(&span),
            [
                "gen_ai.operation.name = chat",
                "gen_ai.provider.name = anthropic",
                "gen_ai.request.model = claude",
                "server.address = api.anthropic.com",
                "server.port = 443",
                "gen_ai.request.max_tokens = 300",
                "gen_ai.request.stream = true",
                "gen_ai.response.model = claude-1",
                "gen_ai.response.finish_reasons = [\"stop\"]",
                "gen_ai.response.time_to_first_chunk = 0.4",
                "gen_ai.usage.input_tokens = 37",
                "gen_ai.usage.output_tokens = 5",
                "gen_ai.usage.cache_read.input_tokens = 10",
                "gen_ai.usage.cache_creation.input_tokens = 7",
                "gen_ai.usage.reasoning.output_tokens = 2",
                "http.response.status_code = 200",
                "sluice.attempt = 2",
                "sluice.rung = 1",
                "sluice.provider = backup",
                "sluice.tier = flex",
                "sluice.route = default",
                "sluice.project = books",
                "sluice.batch = night",
                "sluice.verdict = accepted",
                "sluice.request_id = req_1",
                "sluice.cost_dollars = 0.0015",
            ]
        );
        assert!(span.bytes() > size_of::<Span>() + 26 * size_of::<(&str, AttributeValue)>());
    }

    #[test]
    fn what_failed_is_told_by_its_class_and_what_is_not_known_is_left_out() {
        let trace = trace(None);
        let refused = TracedCall {
            class: Some(ErrorClass::Timeout),
            usage: Usage::default(),
            http_status: None,
            finish: None,
            model_served: None,
            cost: None,
            uncertain: NanoUsd(1_000_000_000),
            is_streamed: false,
            ended: Timestamp(900),
            ..call()
        };
        let span = trace.call(&refused);
        assert!(span.has_failed);
        assert_eq!(span.ended, span.started, "no span ends before it begins");
        let lines = told(&span);
        for line in ["error.type = timeout", "sluice.verdict = failed", "sluice.uncertain_cost_dollars = 1"] {
            assert!(lines.iter().any(|told| told == line), "{line}: {lines:?}");
        }
        let absent = ["usage", "finish", "response", "sluice.cost_dollars", "stream"];
        assert!(!lines.iter().any(|line| absent.iter().any(|name| line.contains(name))), "{lines:?}");
        let rejected = TracedCall {
            class: Some(ErrorClass::SoftFailure),
            soft: Some(SoftFailure::Empty),
            usage: Usage { source: UsageSource::Estimated, ..Usage::default() },
            ..call()
        };
        let lines = told(&trace.call(&rejected));
        for line in [
            "error.type = soft_failure",
            "sluice.verdict = rejected",
            "sluice.soft_failure = empty",
            "sluice.usage_estimated = true",
        ] {
            assert!(lines.iter().any(|told| told == line), "{line}: {lines:?}");
        }
    }

    #[test]
    fn a_word_that_is_not_understood_is_not_passed_on_and_long_names_are_cut() {
        let long = "x".repeat(5_000);
        let call = TracedCall { finish: Some(Finish::Unknown), model_served: Some(&long), ..call() };
        let span = trace(None).call(&call);
        assert_eq!(span.attribute("gen_ai.response.finish_reasons"), None);
        assert_eq!(span.attribute("gen_ai.response.model"), Some(&AttributeValue::Text("x".repeat(MOST_CHARS))));
    }

    #[test]
    fn a_job_is_the_root_or_belongs_to_its_caller() {
        let root = trace(None);
        let span = root.job(&ending());
        assert_eq!((span.id, span.parent, span.is_of_caller), (root.root, None, false));
        assert_eq!((span.name.as_str(), span.kind), ("job default", SpanKind::Consumer));
        assert_eq!(
            told(&span),
            [
                "sluice.job = 7",
                "sluice.route = default",
                "sluice.project = books",
                "sluice.state = succeeded",
                "sluice.attempts = 2",
                "sluice.provider = backup",
                "sluice.model = claude@flex",
                "sluice.cost_dollars = 2",
                "sluice.after_fallback = true",
            ]
        );
        let caller = trace(Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        let span = caller.job(&ending());
        assert_eq!((span.parent, span.is_of_caller), (caller.caller, true));
        let failed = TracedEnding {
            failure: Some(ErrorClass::Deadline),
            round: 1,
            target: None,
            cost: None,
            ready: Timestamp(9_000),
            is_after_fallback: false,
            ..ending()
        };
        let span = trace(Some("nonsense")).job(&failed);
        assert!(span.has_failed && span.started == span.ended);
        let lines = told(&span);
        for line in ["sluice.state = failed", "error.type = deadline", "sluice.round = 1"] {
            assert!(lines.iter().any(|told| told == line), "{line}: {lines:?}");
        }
        assert!(lines.contains(&"sluice.invalid_traceparent = true".to_owned()), "{lines:?}");
    }

    #[test]
    fn vendors_have_the_names_of_the_conventions() {
        for (vendor, dialect, host, name) in [
            (Some("openai"), "openai", Some("api.openai.com"), "openai"),
            (Some("azure_openai"), "azure_openai", None, "azure.ai.openai"),
            (Some("bedrock"), "bedrock", None, "aws.bedrock"),
            (Some("gemini"), "openai", Some("generativelanguage.googleapis.com"), "gcp.gemini"),
            (None, "gemini", Some("europe-west1-aiplatform.googleapis.com"), "gcp.vertex_ai"),
            (Some("mistral"), "openai", None, "mistral_ai"),
            (Some("xai"), "openai", None, "x_ai"),
            (Some("deepseek"), "openai", None, "deepseek"),
            (None, "anthropic", Some("proxy.example.com"), "anthropic"),
            (None, "openai", Some("llm.example.com"), "mine"),
        ] {
            assert_eq!(provider_name(vendor, dialect, host, "mine"), name, "{vendor:?} {dialect} {host:?}");
        }
    }

    #[test]
    fn an_operation_is_told_by_dialect_and_request() {
        for (dialect, embeds, name) in [
            ("openai", false, "chat"),
            ("gemini", false, "generate_content"),
            ("gemini", true, "embeddings"),
            ("completions", false, "text_completion"),
        ] {
            assert_eq!(Operation::of(dialect, embeds).as_str(), name);
        }
    }
}
