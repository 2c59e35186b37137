//! Faults: what can go wrong, and the scripts in prompts that say when.

use super::wait::WaitFormat;
use std::fmt;
use std::time::Duration;

/// Writes the list of kinds once: the enum, the names and the parser cannot drift apart.
macro_rules! fault_kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident = $name:literal,)+) => {
        /// The kinds of faults.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum FaultKind { $($(#[doc = $doc])+ $kind,)+ }

        impl FaultKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)+];

            /// The name in scenarios, markers and the verdict.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ }
            }
        }
    };
}

fault_kinds! {
    /// No fault: in a script, a call that is answered.
    Ok = "ok",
    /// A good answer after an extra `delay`.
    Slow = "slow",
    /// 429 with a wait in one of the formats.
    RateLimit = "rate_limit",
    /// 500, or the given 5xx.
    ServerError = "server_error",
    /// 529 (Anthropic) or 503.
    Overloaded = "overloaded",
    /// No capacity in the tier that was asked for: OpenAI 429 `resource_unavailable`, or 498 with `status`; others as
    /// `overloaded`.
    NoCapacity = "no_capacity",
    /// No money left, in one of the dialect's disguises.
    OutOfQuota = "out_of_quota",
    /// 401 (Gemini: 400 `API_KEY_INVALID`).
    Auth = "auth",
    /// 403.
    Permission = "permission",
    /// 404: no such model.
    NotFound = "not_found",
    /// 400: a parameter is not accepted.
    InvalidRequest = "invalid_request",
    /// 400: the prompt is longer than the window.
    ContextLength = "context_length",
    /// 400 (Gemini: 200 without candidates): the prompt is not allowed.
    ContentPolicy = "content_policy",
    /// 413.
    PayloadTooLarge = "payload_too_large",
    /// 504.
    Timeout = "timeout",
    /// The request is read and never answered.
    Hang = "hang",
    /// The connection is reset before any byte of an answer.
    Reset = "reset",
    /// 502 with an HTML page.
    Html502 = "html_502",
    /// 200 and a whole answer, a few bytes at a time.
    SlowDrip = "slow_drip",
    /// 200, and the connection breaks in the middle of the body.
    Cut = "cut",
    /// 200 and the first half of the body, and then nothing until the client gives up.
    Stall = "stall",
    /// 200 and a clean end too early: half of a body, or a stream without the events that say that it has ended.
    NoEnd = "no_end",
    /// 200 with empty content.
    Empty = "empty",
    /// 200 with an error object.
    ErrorIn200 = "error_in_200",
    /// 200 with half of the answer and the finish reason "length".
    Truncated = "truncated",
    /// 200 whose body is not whole JSON.
    MalformedJson = "malformed_json",
    /// 200 with an HTML page.
    Html = "html",
    /// 200 that reports ten times the tokens used.
    WrongUsage = "wrong_usage",
    /// 200 without usage.
    NoUsage = "no_usage",
    /// 200 whose answer is JSON inside a Markdown fence.
    FencedJson = "fenced_json",
    /// 200 whose answer is JSON that no parser takes.
    BrokenJson = "broken_json",
    /// 200 whose answer is a JSON object, whether asked for or not.
    Json = "json",
    /// 200 whose generation the provider's filter stopped.
    ContentFilter = "content_filter",
    /// 200 whose answer is JSON of another shape than any object: a list.
    WrongJson = "wrong_json",
    /// 200 with the dialect's own mark of a refusal.
    Refusal = "refusal",
    /// 200 with a refusal in words only.
    RefusalText = "refusal_text",
    /// 200 without choices (candidates, content).
    NoChoices = "no_choices",
    /// 200 with a vector too few, where vectors are asked for.
    VectorCount = "vector_count",
    /// 200 in which a vector has a number that is none.
    VectorNan = "vector_nan",
    /// 200 in which a vector is all zeros.
    VectorZero = "vector_zero",
    /// 200 in which a vector is shorter than the others.
    VectorShort = "vector_short",
    /// 200 with bytes that are no text.
    Garbage = "garbage",
    /// 200 with a body of many megabytes.
    HugeBody = "huge_body",
    /// 200 with the same sentence again and again, up to the output cap.
    Loop = "loop",
    /// 200 whose reasoning uses up an output cap of fewer than `tokens`; a good answer where the cap is larger.
    Reasoning = "reasoning",
    /// 200 with half of the answer, the tokens of the output cap, and the finish reason "stop".
    CutStop = "cut_stop",
    /// 200 with reasoning in `<think>` before the answer.
    Think = "think",
    /// 200 with tokens of the template in the midst of the text.
    ControlTokens = "control_tokens",
    /// 200 with the answer, and turns of both sides that the model has made up behind it.
    RunOn = "run_on",
    /// 200 with a call of the first function as text.
    WrittenCall = "written_call",
    /// 200 in Russian.
    OtherLanguage = "other_language",
    /// 200 from another model than the one that was asked.
    OtherModel = "other_model",
    /// 200 with the demanded schema in place of an answer.
    EchoedSchema = "echoed_schema",
    /// 200 that reports a tenth of the prompt: the rest was cut off unseen.
    PromptCut = "prompt_cut",
    /// 200 with the same text for every request.
    Stuck = "stuck",
    /// 200 with an empty turn of three tokens, ended by the model itself.
    EmptyTurn = "empty_turn",
}

impl FaultKind {
    /// Whether the quota admits the call and the answer is a 200, for better or worse.
    #[must_use]
    pub fn is_answer(self) -> bool {
        self >= Self::SlowDrip || matches!(self, Self::Ok | Self::Slow)
    }

    /// Whether sending the same request again can only fail again.
    #[must_use]
    pub fn is_permanent(self) -> bool {
        matches!(self, Self::InvalidRequest | Self::ContextLength | Self::ContentPolicy | Self::PayloadTooLarge)
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a provider reports that there is no money left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disguise {
    /// 429: OpenAI `insufficient_quota`, Anthropic `enforced_spend_limit_reached`, Gemini's depleted credits.
    TooManyRequests,
    /// 402: payment required.
    PaymentRequired,
    /// 400: Anthropic's "You have reached your specified API usage limits", Gemini's `FAILED_PRECONDITION` without
    /// billing; OpenAI's `billing_hard_limit_reached`, which is a 429.
    BadRequest,
}

/// The output cap that leaves room for an answer behind the reasoning when the scenario does not say.
const REASONING_TOKENS: u64 = 1_000;

/// A fault with its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    /// The kind of fault.
    pub kind: FaultKind,
    /// The status, where the kind leaves a choice (`server_error`, `overloaded`).
    pub status: Option<u16>,
    /// The wait that the answer states (`rate_limit`, `server_error`, `overloaded`).
    pub wait: Option<Duration>,
    /// The format of that wait; the dialect's own when absent.
    pub format: Option<WaitFormat>,
    /// A pause before anything is sent, on top of the latency.
    pub delay: Option<Duration>,
    /// The pause between pieces of a slow drip.
    pub interval: Option<Duration>,
    /// The disguise of `out_of_quota`; drawn when absent.
    pub disguise: Option<Disguise>,
    /// The size of a huge body.
    pub bytes: Option<usize>,
    /// The output cap that leaves room for an answer behind the reasoning.
    pub tokens: Option<u64>,
}

impl Fault {
    /// A fault without parameters.
    #[must_use]
    pub const fn new(kind: FaultKind) -> Self {
        Self {
            kind,
            status: None,
            wait: None,
            format: None,
            delay: None,
            interval: None,
            disguise: None,
            bytes: None,
            tokens: None,
        }
    }

    /// What becomes of it where the call sets this output cap: reasoning leaves room for an answer if it can.
    #[must_use]
    pub fn within(self, cap: Option<u64>) -> Self {
        let is_spared = cap.is_none_or(|cap| cap >= self.tokens.unwrap_or(REASONING_TOKENS));
        if self.kind == FaultKind::Reasoning && is_spared {
            return Self { kind: FaultKind::Ok, ..self };
        }
        self
    }

    /// The fault with this name, or with this HTTP status: `empty`, `rate_limit`, `429`, `502`.
    ///
    /// # Errors
    /// A sentence that lists the known names.
    pub fn named(name: &str) -> Result<Self, String> {
        // A marker stands in the prompt, and a prompt that speaks of tokens may well be answered with some.
        let name = if name == "turn_marks" { FaultKind::ControlTokens.as_str() } else { name };
        if let Some(kind) = FaultKind::ALL.iter().find(|kind| kind.as_str() == name) {
            return Ok(Self::new(*kind));
        }
        let status = name.parse::<u16>().ok();
        let kind = match status {
            Some(200) => FaultKind::Ok,
            Some(400) => FaultKind::InvalidRequest,
            Some(401) => FaultKind::Auth,
            Some(402) => FaultKind::OutOfQuota,
            Some(403) => FaultKind::Permission,
            Some(404) => FaultKind::NotFound,
            Some(413) => FaultKind::PayloadTooLarge,
            Some(429) => FaultKind::RateLimit,
            Some(504) => FaultKind::Timeout,
            Some(529) => FaultKind::Overloaded,
            Some(500..=599) => FaultKind::ServerError,
            _ => {
                let known: Vec<&str> = FaultKind::ALL.iter().map(|kind| kind.as_str()).collect();
                return Err(format!("unknown fault `{name}`: expected an HTTP status or one of {}", known.join(", ")));
            }
        };
        let disguise = (kind == FaultKind::OutOfQuota).then_some(Disguise::PaymentRequired);
        let status =
            status.filter(|_| matches!(kind, FaultKind::ServerError | FaultKind::Overloaded | FaultKind::NoCapacity));
        Ok(Self { status, disguise, ..Self::new(kind) })
    }

    /// Reads one step of a script: `NAME`, or `NAME:KEY=VALUE:KEY=VALUE`.
    ///
    /// A key that names a wait format sets format and wait at once: `429:retry-after=2`, `429:http-date=3`.
    ///
    /// # Errors
    /// A sentence that names the part that was not understood.
    pub fn parse_step(step: &str) -> Result<Self, String> {
        let mut parts = step.split(':').map(str::trim);
        let mut fault = Self::named(parts.next().unwrap_or_default())?;
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            if let Some(format) = WaitFormat::parse(key) {
                fault.format = Some(format);
                fault.wait = if value.is_empty() { fault.wait } else { Some(seconds(value)?) };
                continue;
            }
            match key {
                "wait" => fault.wait = Some(seconds(value)?),
                "delay" => fault.delay = Some(seconds(value)?),
                "interval" => fault.interval = Some(seconds(value)?),
                "status" => fault.status = Some(value.parse().map_err(|_| format!("`{value}` is not a status"))?),
                "bytes" => fault.bytes = Some(value.parse().map_err(|_| format!("`{value}` is not a size"))?),
                "tokens" => {
                    fault.tokens = Some(value.parse().map_err(|_| format!("`{value}` is not a number of tokens"))?);
                }
                "disguise" => {
                    fault.disguise = Some(
                        Disguise::parse(value).ok_or_else(|| format!("unknown disguise `{value}`: 400, 402, 429"))?,
                    );
                }
                _ => return Err(format!("unknown option `{key}` of the fault `{}`", fault.kind)),
            }
        }
        Ok(fault)
    }
}

impl Disguise {
    /// Every disguise.
    pub const ALL: [Self; 3] = [Self::TooManyRequests, Self::PaymentRequired, Self::BadRequest];

    /// The disguise with this status.
    #[must_use]
    pub fn parse(status: &str) -> Option<Self> {
        match status {
            "429" => Some(Self::TooManyRequests),
            "402" => Some(Self::PaymentRequired),
            "400" => Some(Self::BadRequest),
            _ => None,
        }
    }

    /// The disguise that belongs to this draw.
    #[must_use]
    pub fn drawn(hash: u64) -> Self {
        match hash % 3 {
            0 => Self::TooManyRequests,
            1 => Self::PaymentRequired,
            _ => Self::BadRequest,
        }
    }
}

fn seconds(value: &str) -> Result<Duration, String> {
    let seconds = value.trim_end_matches('s').parse::<f64>().ok();
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("`{value}` is not a number of seconds"))
}

/// The script that a prompt carries: `[[fault:X]]` for every call, `[[faults:X,Y,ok]]` for one call after the other,
/// `[[faults@NAME:…]]` for one provider alone.
///
/// `nth` is the call's place among the calls of the request, from 1: to any provider, and to this provider. `None` when
/// there is no script for this provider; after the last step of a list there is no fault.
///
/// # Errors
/// A sentence that names the part of the script that was not understood.
pub fn scripted(prompt: &str, provider: &str, nth: u32, nth_here: u32) -> Result<Option<Fault>, String> {
    let mut rest = prompt;
    while let Some(start) = rest.find("[[fault") {
        rest = &rest[start + "[[fault".len()..];
        let end = rest.find("]]").ok_or("the script has no closing ]]")?;
        let (head, steps) = rest[..end].split_once(':').ok_or("expected [[fault:NAME]] or [[faults:NAME,NAME]]")?;
        rest = &rest[end + 2..];
        let (list, only) = match head.split_once('@') {
            Some((list, only)) => (list, Some(only)),
            None => (head, None),
        };
        if only.is_some_and(|only| only != provider) {
            continue;
        }
        if list.is_empty() {
            return Fault::parse_step(steps).map(Some);
        }
        let nth = if only.is_some() { nth_here } else { nth };
        let step = steps.split(',').nth(nth.saturating_sub(1) as usize);
        return step.map_or(Ok(Some(Fault::new(FaultKind::Ok))), |step| Fault::parse_step(step).map(Some));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_gives_one_fault_per_call_and_then_lets_be() {
        let kind = |prompt: &str, provider: &str, nth: u32, here: u32| {
            scripted(prompt, provider, nth, here).unwrap().map(|fault| fault.kind)
        };
        let marks = scripted("Hi [[fault:turn_marks]]", "a", 1, 1).unwrap().unwrap();
        assert_eq!(marks.kind, FaultKind::ControlTokens);
        let list = "Hi [[faults:500,empty,ok]]";
        assert_eq!(kind(list, "a", 1, 1), Some(FaultKind::ServerError));
        assert_eq!(kind(list, "b", 2, 1), Some(FaultKind::Empty));
        assert_eq!(kind(list, "a", 3, 2), Some(FaultKind::Ok));
        assert_eq!(kind(list, "a", 9, 8), Some(FaultKind::Ok));
        let here = "[[faults@a:html,empty]] [[fault@b:reset]]";
        assert_eq!(kind(here, "a", 7, 2), Some(FaultKind::Empty));
        assert_eq!(kind(here, "b", 9, 9), Some(FaultKind::Reset));
        assert_eq!(kind(here, "c", 1, 1), None);
        assert_eq!(kind("no script", "a", 1, 1), None);
    }

    #[test]
    fn a_step_carries_its_options() {
        let step = |text: &str| Fault::parse_step(text).unwrap();
        let fault = step("429:retry-after=2");
        assert_eq!((fault.format, fault.wait), (Some(WaitFormat::RetryAfter), Some(Duration::from_secs(2))));
        assert_eq!(step("429:none").format, Some(WaitFormat::None));
        assert_eq!(step("503:wait=1.5").wait, Some(Duration::from_millis(1500)));
        assert_eq!(step("502").status, Some(502));
        assert_eq!(step("402").disguise, Some(Disguise::PaymentRequired));
        assert_eq!(step("slow_drip:interval=0.01").interval, Some(Duration::from_millis(10)));
        assert_eq!(step("huge_body:bytes=1000").bytes, Some(1000));
        let reasons = step("reasoning:tokens=300");
        let kinds = [Some(299), Some(300), None].map(|cap| reasons.within(cap).kind);
        assert_eq!(kinds, [FaultKind::Reasoning, FaultKind::Ok, FaultKind::Ok]);
        for wrong in [
            "nonsense",
            "429:retry-after=soon",
            "empty:colour=red",
            "200000",
            "out_of_quota:disguise=401",
            "reasoning:tokens=x",
        ] {
            assert!(Fault::parse_step(wrong).is_err(), "{wrong}");
        }
        assert!(scripted("[[fault:empty", "a", 1, 1).is_err());
    }
}
