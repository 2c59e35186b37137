//! The meaning of a refusal's words, whichever vendor wrote them.
//!
//! The tables of the dialects know codes. Codes are few and words are many, and both change without notice. So this
//! file recognises kinds of sentences: the request does not fit the account's money, breaks a policy, names a
//! parameter, a model or a length. A refusal that is recognised by words alone is believed of one request only
//! ([`Bearing::InDoubt`]).
//!
//! An unrecognised refusal is not guessed at: the target is left out for that job, and nothing else follows.

use super::error_body::ErrorBody;
use super::scrub;
use crate::domain::ErrorClass::{
    self, Auth, ContentPolicy, ContextLength, InvalidRequest, NeverFits, NotFound, Overloaded, PayloadTooLarge,
    Permission, QuotaExhausted, RateLimit, Refused, ServerError, Timeout,
};
use crate::domain::{Bearing, Mend, Scope};
use regex::Regex;
use std::sync::LazyLock;

/// The meaning of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    pub class: ErrorClass,
    pub scope: Scope,
    pub bearing: Bearing,
    pub mend: Option<Mend>,
}

impl Meaning {
    pub const fn new(class: ErrorClass, scope: Scope) -> Self {
        Self { class, scope, bearing: Bearing::AsScoped, mend: None }
    }

    /// A refusal that may concern this request alone, or every request.
    pub const fn in_doubt(class: ErrorClass, scope: Scope) -> Self {
        Self { class, scope, bearing: Bearing::InDoubt, mend: None }
    }

    fn mended(self, mend: Option<Mend>) -> Self {
        Self { mend, ..self }
    }
}

/// The pattern for a kind of sentence.
macro_rules! pattern {
    ($name:ident, $($piece:literal),+ $(,)?) => {
        static $name: LazyLock<Regex> = LazyLock::new(|| {
            Regex::new(concat!($($piece),+)).expect("the pattern is fixed and every test uses it")
        });
    };
}

// All of them are looked for in lower case.

// The account, not the request.
pattern!(
    ACCOUNT,
    r"\b(?:account|organi[sz]ation|workspace|project|subscription|api key|user)\b[^.]{0,80}\b",
    r"(?:suspended|banned|disabled|deactivated|blocked|terminated|restricted|on hold|closed|frozen)\b",
);

// An account that has money, but not enough for the highest possible cost of this request.
// The key or the account, whatever the status.
pattern!(
    BAD_KEY,
    r"\bapi[ _-]?keys?\b[^.]{0,40}\b(?:not valid|invalid|expired|revoked|incorrect|missing|unknown|deleted|not found",
    r"|disabled)\b",
    r"|\b(?:invalid|incorrect|expired|revoked|missing|wrong|bad|no|malformed)\b[^.]{0,30}\b(?:api[ _-]?key",
    r"|authorization header|auth(?:entication|orization)? (?:token|credentials?)|access token|bearer token",
    r"|credentials?)\b",
    r"|\bauthentication (?:failed|required|error)\b|\bunauthori[sz]ed\b",
);
pattern!(
    NO_MONEY,
    r"\bbudget (?:has been )?exceeded\b|\bexceeded (?:your |the )?budget\b",
    r"|\binsufficient[ _](?:balance|funds|credits?)\b|\b(?:out of|not enough) (?:credits?|balance|funds)\b",
    r"|\bin arrears\b|\barrearage\b|\bcredit balance\b[^.]{0,20}\btoo low\b|余额不足|欠费",
);
const BAD_KEY_CODES: &[&str] =
    &["API_KEY_INVALID", "invalid_api_key", "InvalidApiKey", "invalid_authentication", "ApiKeyExpired"];
const NO_MONEY_CODES: &[&str] = &["budget_exceeded", "Arrearage", "insufficient_balance", "insufficient_credits"];

// Content that the request brought along, at a status that usually concerns keys and models.
pattern!(
    OF_INPUT,
    r"\b(?:image|picture|audio|video|pdf|file|url|attachment|document|media)s?\b",
    r"|\b(?:prompt|input|message|content)s?\b[^.]{0,20}\b(?:blocked|rejected|denied|refused)\b",
    r"|\bsupports? (?:image|tool|audio|video|structured)",
);

// A 429 about this request alone.
pattern!(PER_REQUEST, r"\bper[- ]request\b|\btoo many (?:images|tools|files|messages)\b|\bsingle request\b");

pattern!(AFFORDS, r"\bcan (?:only )?afford (\d+)|\bprompt tokens limit exceeded: \d+ > \d+");
// An account that cannot pay for this many tokens is out of money for everything.
const AFFORDS_SOMETHING: u64 = 256;

pattern!(
    LONG_CONTEXT,
    r"\bextra usage\b[^.]{0,60}\brequired\b|\brequires? extra usage\b",
    r"|\blong[- ]context\b[^.]{0,80}\b(?:required|requires|not (?:yet )?(?:available|enabled|included|supported)",
    r"|upgrade|subscription)",
);

pattern!(
    POLICY,
    r"\bviolat(?:es|ed|ing|e|ions?)\b[^.]{0,60}\b(?:polic(?:y|ies)|guidelines?|terms|rules|standards|safety)\b",
    r"|\b(?:usage|content|safety|moderation) (?:polic(?:y|ies)|guidelines?|violations?|violates)\b",
    r"|\bcontent (?:management|moderation|filter(?:s|ed|ing)?|exists risk|restriction)\b",
    r"|\bsafety[ _](?:system|filters?|check|settings|reasons?|concerns?)",
    r"|\b(?:inappropriate|harmful|unsafe|sensitive|prohibited|disallowed|illegal|offensive|explicit) (?:content",
    r"|information|words?|material|text)\b",
    r"|\b(?:input|prompt|request|content|message)s? (?:was|were|has been|have been|is) (?:flagged|moderated",
    r"|censored)\b",
    r"|\brequires moderation\b|\bflagged (?:by|as|for)\b|\bguardrails?\b|\bresponsible ai\b|\bconsidered high risk\b",
    r"|\b(?:data|content)[ _]?inspection|\bsensitive\b[^.]{0,20}\b(?:detected|content)|new_sensitive|\bcensored\b",
    r"|敏感|不安全|违规|内容安全",
);
const POLICY_CODES: &[&str] = &[
    "content_policy_violation",
    "content_policy",
    "content_filter",
    "content_violation",
    "content_filtered",
    "content_blocked",
    "moderation_blocked",
    "moderation",
    "safety",
    "safety_violation",
    "data_inspection_failed",
    "DataInspectionFailed",
    "SensitiveContentDetected",
    "InputTextSensitiveContentDetected",
    "guardrail_intervened",
    "guardrail_violation",
    "responsible_ai_policy_violation",
    "1301",
    "censorship_blocked",
];

// Access denied: the model is there, but this key may not use it.
pattern!(
    NO_ACCESS,
    r"\b(?:not|no longer|n't) (?:have|has) (?:access|permission)|\bno access to\b",
    r"|\bnot (?:authorized|authorised|allowed|permitted|entitled) to (?:use|access|call|invoke)\b",
    r"|\baccess (?:to (?:this |the )?model )?(?:is |was )?denied\b",
);

// The model: gone, unknown, not served here.
pattern!(
    MODEL_GONE,
    r"\b(?:model|deployment|engine|endpoint|snapshot)s?\b[^\n]{0,160}?\b(?:",
    r"decommissioned|retired|discontinued|deprecated|sunset(?:ted)?|end[- ]of[- ]life|shut ?down|obsolete|",
    r"no longer (?:supported|available|served|offered|hosted|active|exists?|accessible)|",
    r"(?:do(?:es)?|did) ?(?:not|n't) (?:exist|seem to exist)|not exist|cannot be found|can't be found",
    r"|could not be found|not found|not been found|",
    r"(?:is|was|are|been|be) removed|not (?:been |yet |currently )?(?:deployed|loaded|served|hosted|registered",
    r"|installed)|isn't (?:deployed|loaded|available|served)|",
    r"(?:is|are) (?:currently )?(?:unavailable|not available)|not available (?:in|for|on|to)",
    r")\b",
);
pattern!(
    NO_SUCH_MODEL,
    r"\b(?:no such|unknown|unrecogni[sz]ed|invalid|unsupported|non-?existent|unavailable|bad) (?:model|deployment",
    r"|engine|endpoint)\b",
    r"|\bnot an? (?:valid|supported|known|recogni[sz]ed|available|existing|chat) (?:model|deployment|engine)\b",
    r"|\bno (?:available |allowed |healthy )?(?:endpoints?|instances?|deployments?|providers?|workers?",
    r"|channels?)\b[^.]{0,40}\b(?:found|available|for)\b",
    r"|\b(?:couldn't|could not|cannot|can't|unable to|failed to) (?:find|load|locate|route to|access) (?:the |this ",
    r"|a )?(?:model|deployment)\b",
    r"|\bmodel:? \S+ is not (?:a |an )?(?:supported|valid|available|recogni[sz]ed|known)\b",
    r"|\bsupported (?:api )?model(?: name)?s? (?:are|is|include)\b",
    r"|\bon-demand throughput (?:isn't|isn’t|is not) supported\b|模型不存在|模型已下线",
);
const MODEL_CODES: &[&str] = &[
    "model_not_found",
    "model_decommissioned",
    "model_deprecated",
    "model_retired",
    "model_not_available",
    "model_unavailable",
    "model_not_supported",
    "model_not_exist",
    "model_terminated",
    "model_disabled",
    "model_shutdown",
    "unknown_model",
    "invalid_model",
    "invalid_model_name",
    "unsupported_model",
    "no_such_model",
    "model_invalid",
    "ModelNotFound",
    "ModelNotExist",
    "InvalidModel",
    "deployment_not_found",
    "engine_not_found",
    "no_available_model",
];

// A cap on the answer that the model does not allow.
pattern!(
    CAP_NAME,
    r"\bmax(?:imum)?[ _]?(?:completion[ _]?|output[ _]?|new[ _]?)?tokens\b|\bmaxoutputtokens\b",
    r"|\b(?:completion|output) tokens\b"
);
pattern!(
    CAP_BOUND,
    r"(?:at most|greater than the maximum|exceeds the maximum(?: of)?|less than or equal to|smaller than or equal to",
    r"|no more than|not exceed|cannot exceed|<=|up to|a maximum of|maximum value(?: of)?|",
    r"maximum (?:allowed )?(?:number of )?(?:output |completion )?tokens(?: is| of|:)|limit(?: is| of)",
    r"|lower than)\s*['\x22]?(\d[\d,_]{0,9})",
    r"|(?:range|between|from)\b[^.]{0,60}?\b\d+[^.\d]{1,40}?(\d[\d,_]{0,9})\s*(\(exclusive\)|\))?",
    r"|\d\s*>\s*(\d[\d,_]{0,9})",
);
// Where prompt and answer together do not fit, lowering the cap to the whole window does not help.
pattern!(
    WINDOW,
    r"\bcontext[ _-]?(?:length|window|size|limit)|\bprompt\b|\byour request has \d+ input|\binputs?\b|\bmessages\b"
);

// A length of the prompt.
pattern!(
    TOO_LONG,
    r"\b(?:context|model)[ _-]?(?:length|window|size|limit|len)\b",
    r"|\b(?:prompt|input|inputs|message|messages|conversation|text|context|query|request)\b[^.]{0,60}?\b(?:is|are|was",
    r"|were|be|too|length)\b[^.]{0,20}?\b(?:too (?:long|large|big)|exceed(?:s|ed|ing)?|longer|over)\b",
    r"|\b(?:prompt|input|inputs|messages|conversation|context)\b[^.]{0,40}?\bexceed(?:s|ed|ing)?\b",
    r"|\b(?:prompt|input|message|context) length\b|\brange of input length\b",
    r"|\breduce (?:the length|your prompt|the number of messages)\b",
    r"|\b(?:too many|maximum number of|number of|total|sum of)\b[^.]{0,30}?\btokens\b",
    r"|\btoken (?:count|limit|length|budget)\b|\btokens?[ _](?:count|limit|length)\b",
    r"|\btokens? (?:exceeds?|exceeded|limit)\b|\bmust have less than \d+ tokens\b",
    r"|\bcurrent length is\b|\b(?:inputs?|prompt) tokens\b|\bnew[ _]tokens\b|\btokens in the prompt\b",
    r"|\bmessage tokens\b|\bmax size: \d+ tokens\b|超长|过长|超过.{0,8}(?:长度|上下文)|输入长度|上下文长度",
);
pattern!(
    EXCESS,
    r"exceed|too (?:long|large|many|big|much)|longer than|larger than|greater than|more than|bigger than|maximum",
    r"|max[ _]|at most|must be <=|must (?:be|have) (?:less|smaller|shorter|fewer)|",
    r"should (?:be|have) (?:less|smaller|shorter)|should not|cannot be|\bover\b|overflow|limit|reduce|range of",
    r"|no more than|does not fit|doesn't fit|不能超过|超|过长",
);
const LENGTH_CODES: &[&str] = &[
    "context_length_exceeded",
    "context_window_exceeded",
    "context_too_long",
    "context_overflow",
    "exceed_context_size_error",
    "max_tokens_exceeded",
    "token_limit_exceeded",
    "tokens_limit_reached",
    "prompt_too_long",
    "input_too_long",
    "input_length_exceeded",
    "max_context_length_exceeded",
    "request_token_limit_exceeded",
    "1261",
];
// Lengths of something other than the prompt's tokens.
pattern!(
    OTHER_LENGTH,
    r"string_above_max_length|string too long",
    r"|\b(?:picture|audio|video|file|pdf|attachment|pixels?|megapixels?|dimensions?|bytes|mb|mib|kb)\b",
    r"|\b(?:request )?(?:body|payload|entity) (?:is )?too (?:large|big)|\bpayload size\b",
    r"|\bper (?:min(?:ute)?|day|hour|second|month)\b|\b(?:tpm|rpm|tpd|rpd)\b|\brate limit|\bquota\b",
    r"|\b(?:tools?|functions?|stop|stop sequences?|logit_bias|metadata|array|items|enum|properties|schema",
    r"|characters in)\b[^.]{0,40}\b(?:too (?:long|many)|exceed|maximum|at most)",
);

// Bytes.
pattern!(
    TOO_LARGE,
    r"\b(?:payload|request body|request entity|body|file|image|images|audio|video|attachment|document",
    r"|upload)s?\b[^.]{0,60}?\b(?:too (?:large|big|many)|exceed|larger than|maximum (?:allowed )?(?:size|dimension))",
    r"|\bexceeds? (?:the )?(?:maximum )?(?:allowed )?(?:size|dimensions?|\d+ ?(?:mb|mib|kb|bytes))\b",
);
const TOO_LARGE_CODES: &[&str] =
    &["payload_too_large", "request_too_large", "request_body_too_large_after_decoding", "image_dimensions_too_large"];

// A parameter, or a combination of them.
pattern!(
    PARAMETER,
    r"\b(?:unsupported|unknown|unrecogni[sz]ed|unexpected|unpermitted|extra|additional",
    r"|incompatible) (?:request )?(?:parameter|argument|field|value|name|property|properties|option|key|input|inputs",
    r"|keyword|type)s?\b",
    r"|\binvalid (?:request )?(?:param|parameter|argument|field|property|option)s?\b",
    r"|\b(?:not|n't|isn’t|aren’t|no longer|never) (?:currently |yet |be )?(?:support(?:ed|s)?|allow(?:ed|s)?",
    r"|permit(?:ted|s)?|accept(?:ed|s)?|implement(?:ed|s)?|available|compatible|enabled|recogni[sz]ed|valid)\b",
    r"|\b(?:does|do|did) not (?:support|accept|allow|recogni[sz]e|implement)\b|\bdoesn't (?:support|accept|allow)\b",
    r"|\bonly (?:the )?(?:default|support)|\bonly \S+ is allowed\b|\bmoved to\b",
    r"|\b(?:is|are|was) deprecated\b|\bunsupported\b|\bincompatible\b",
    r"|\bcannot (?:both )?be (?:used|set|specified|combined)\b|\bmutually exclusive\b",
    r"|\bmust be (?:omitted|unset|removed)\b|不支持",
);
const PARAMETER_CODES: &[&str] = &[
    "unsupported_parameter",
    "unsupported_value",
    "unknown_parameter",
    "unrecognized_argument",
    "unsupported_country",
    "invalid_parameter",
    "extra_forbidden",
    "parameter_not_supported",
    "unsupported_feature",
    "not_supported",
    "OperationNotSupported",
    "unsupported_operation",
    "wrong_api_format",
];

// A value or a combination was refused, and not the parameter itself.
pattern!(
    OF_A_VALUE,
    r"\bvalue\b[^.]{0,80}\b(?:not support|supported values|expected|must be|one of)|\bwhen\b|\btogether\b|\bboth\b",
    r"|\bcombin|\bonly one\b|\bunless\b|\bif \b|\bwith tools\b|\bin combination\b|\bsupported values\b",
);
pattern!(ONLY_THE_DEFAULT, r"\bonly (?:the )?(?:default|\S+ is allowed)");

// The request itself, wherever it is sent: its conversation contradicts itself.
pattern!(
    BROKEN,
    r"role '?tool'? must (?:be a response|follow)|\btool_calls?\b[^.]{0,80}\bmust be followed by tool messages\b",
    r"|\btool_use\b[^.]{0,60}\bwithout\b[^.]{0,40}\btool_result\b",
    r"|\bunexpected tool_use_id\b|\bdid not have (?:corresponding )?response messages\b",
    r"|\bnumber of function response parts\b",
);

pattern!(
    WAIT,
    r"\brate[ _-]?limit|\btoo many requests\b|\bthrottl|\b(?:qps|qpm|rpm|tpm)\b|\brequests? limit|\brequest rate\b",
    r"|请求过于频繁|限流"
);
pattern!(
    BUSY,
    r"\boverload|\b(?:server|service|system|model) (?:is )?(?:busy|unavailable)|\bno capacity\b|\bat capacity\b",
    r"|\bhigh demand\b|\btry again later\b"
);
pattern!(
    MONEY,
    r"\binsufficient[ _](?:balance|funds|credits?|quota)|\b(?:out of|not enough|no) (?:credits?|balance|funds)\b",
    r"|\b(?:balance|credits?)\b[^.]{0,30}\b(?:insufficient|exhausted|depleted|too low|used up|negative)\b",
    r"|\b(?:in arrears|overdue|arrearage|payment required|billing)\b|余额不足|欠费",
);
pattern!(
    KEY,
    r"\b(?:invalid|incorrect|expired|revoked|missing|wrong)\b[^.]{0,20}\b(?:api[ _-]?key|token|credentials?)\b",
    r"|\bunauthori[sz]ed\b|\bauthentication\b|\blogin fail"
);

/// The meaning of a refusal that concerns one request although its status or code says otherwise. Asked before any
/// table.
pub(super) fn of_one_request(status: Option<u16>, body: &ErrorBody) -> Option<Meaning> {
    let may_be = status.is_none_or(|status| matches!(status, 400 | 402 | 403 | 422 | 429 | 451 | 500));
    let text = head(&body.text);
    if !may_be || ACCOUNT.is_match(text) {
        return None;
    }
    if status == Some(429) {
        if body.has_code(LENGTH_CODES) || text.contains("context window") || text.contains("context length") {
            return Some(Meaning::new(ContextLength, Scope::Request));
        }
        if PER_REQUEST.is_match(text) {
            return Some(Meaning::new(NeverFits, Scope::Request));
        }
    }
    if status.is_none_or(|status| matches!(status, 400 | 402 | 403 | 429))
        && let Some(found) = AFFORDS.captures(text)
    {
        let tokens: Option<u64> = found.get(1).and_then(|number| number.as_str().parse().ok());
        if tokens.is_some_and(|tokens| tokens < AFFORDS_SOMETHING) {
            return Some(Meaning::in_doubt(QuotaExhausted, Scope::Key));
        }
        let mend = tokens.map(|tokens| Mend::Cap { tokens, lasting: false });
        return Some(Meaning::new(NeverFits, Scope::Request).mended(mend));
    }
    if status.is_some_and(|status| matches!(status, 400 | 403 | 429)) && LONG_CONTEXT.is_match(text) {
        return Some(Meaning::new(NeverFits, Scope::Request));
    }
    // At 429 and 500 these words are too often a vendor's advice.
    let by_words = status.is_none_or(|status| matches!(status, 400 | 403 | 422 | 451)) && POLICY.is_match(text);
    (by_words || body.has_code(POLICY_CODES)).then(|| Meaning::new(ContentPolicy, Scope::Request))
}

/// The meaning of a refusal that no table knows, by its words.
pub(super) fn of_refusal(status: Option<u16>, body: &ErrorBody) -> Option<Meaning> {
    let caller = ["invalid_request_error", "invalid_request", "BadRequestError", "unprocessable", "INVALID_ARGUMENT"];
    let is_refusal = match status {
        Some(402 | 408 | 409 | 425 | 429 | 499) => false,
        // The 401 may come from fetching content that the request refers to.
        Some(401) => return OF_INPUT.is_match(head(&body.text)).then(|| Meaning::new(Refused, Scope::Request)),
        Some(status) => (400..500).contains(&status),
        None => {
            body.base_resp.is_none_or(|code| code == BAD_PARAMETERS)
                && (body.base_resp.is_some() || body.has_code(&caller))
        }
    };
    let text = head(&body.text);
    if status == Some(500) && (body.has_code(LENGTH_CODES) || is_too_long(text)) {
        return Some(Meaning::new(ContextLength, Scope::Request));
    }
    if !is_refusal {
        return None;
    }
    if ACCOUNT.is_match(text) || body.has_code(BAD_KEY_CODES) || (BAD_KEY.is_match(text) && !OF_INPUT.is_match(text)) {
        return Some(Meaning::in_doubt(Auth, Scope::Key));
    }
    if body.has_code(NO_MONEY_CODES) || NO_MONEY.is_match(text) {
        return Some(Meaning::in_doubt(QuotaExhausted, Scope::Key));
    }
    if matches!(status, Some(403 | 404 | 410)) && OF_INPUT.is_match(text) {
        return Some(Meaning::new(Refused, Scope::Request));
    }
    if body.has_code(LENGTH_CODES) {
        return Some(Meaning::new(ContextLength, Scope::Request));
    }
    if CAP_NAME.is_match(text)
        && !body.has_code(&["unsupported_parameter", "unknown_parameter"])
        && let Some(mend) = cap(text)
    {
        return Some(Meaning::new(Refused, Scope::Request).mended(Some(mend)));
    }
    if body.has_code(MODEL_CODES) {
        return Some(Meaning::new(NotFound, Scope::Model));
    }
    if BROKEN.is_match(text) {
        return Some(Meaning { bearing: Bearing::EveryTarget, ..Meaning::new(InvalidRequest, Scope::Request) });
    }
    let member = parameter(text, body);
    let about_the_model = NO_SUCH_MODEL.is_match(text) || MODEL_GONE.is_match(text);
    if member.is_none() && (about_the_model || body.param.as_deref() == Some("model")) {
        return Some(Meaning::in_doubt(NotFound, Scope::Model));
    }
    if member.is_none() && NO_ACCESS.is_match(text) && text.contains("model") {
        return Some(Meaning::in_doubt(Permission, Scope::Model));
    }
    if member.is_none() && is_too_long(text) {
        return Some(Meaning::new(ContextLength, Scope::Request));
    }
    if body.has_code(TOO_LARGE_CODES) || TOO_LARGE.is_match(text) {
        return Some(Meaning::new(PayloadTooLarge, Scope::Request));
    }
    let names_one = member.is_some() || body.param.as_deref().is_some_and(is_parameter) || names_a_parameter(text);
    if names_one || body.has_code(PARAMETER_CODES) || PARAMETER.is_match(text) {
        return Some(Meaning::new(Refused, Scope::Request).mended(member.and_then(|member| mend(member, text))));
    }
    None
}

/// Whether the member that an error names is a parameter, and not the conversation itself.
fn is_parameter(param: &str) -> bool {
    let top = param.split(['.', '[']).next().unwrap_or(param);
    !matches!(top, "messages" | "input" | "prompt" | "contents" | "body" | "request")
}

/// Whether a sentence begins with a word that only a parameter can be called.
fn names_a_parameter(text: &str) -> bool {
    let text = scrub::head(text, 200);
    let unmistakable = |name: &&str| name.contains('_') || matches!(*name, "temperature" | "logprobs" | "verbosity");
    PARAMETERS.iter().map(|(name, _)| *name).filter(unmistakable).any(|name| word_at(text, name).is_some())
}

/// The meaning of an error inside a success that no table knows, by its words: it has no status.
pub(super) fn of_error_inside(body: &ErrorBody) -> Option<Meaning> {
    if let Some(code) = body.base_resp {
        return base_resp(code);
    }
    let text = head(&body.text);
    [
        (&MONEY, QuotaExhausted, Scope::Key),
        (&KEY, Auth, Scope::Key),
        (&WAIT, RateLimit, Scope::Model),
        (&BUSY, Overloaded, Scope::Model),
    ]
    .into_iter()
    .find(|(pattern, ..)| pattern.is_match(text))
    .map(|(_, class, scope)| Meaning::in_doubt(class, scope))
}

/// MiniMax's code for errors that other vendors answer with a 400.
const BAD_PARAMETERS: i64 = 2013;

/// MiniMax's codes.
fn base_resp(code: i64) -> Option<Meaning> {
    Some(match code {
        1001 => Meaning::new(Timeout, Scope::Model),
        // Requests and tokens per minute, and traffic that grew too fast.
        1002 | 1039 | 1041 | 2045 => Meaning::new(RateLimit, Scope::Model),
        1004 | 2049 => Meaning::new(Auth, Scope::Key),
        1008 | 2056 => Meaning::new(QuotaExhausted, Scope::Key),
        1026 | 1027 => Meaning::new(ContentPolicy, Scope::Request),
        BAD_PARAMETERS => return None,
        _ => Meaning::new(ServerError, Scope::Model),
    })
}

/// The beginning of a text, where phrases stand. Later text is often the prompt.
fn head(text: &str) -> &str {
    scrub::head(text, 800)
}

/// Whether a sentence says that the prompt, alone or with the answer, is longer than the model takes.
fn is_too_long(text: &str) -> bool {
    let text = head(text);
    TOO_LONG.is_match(text) && EXCESS.is_match(text) && !OTHER_LENGTH.is_match(text)
}

/// The highest output cap that a sentence allows, if it is about the cap and not about the window.
fn cap(text: &str) -> Option<Mend> {
    let about_the_answer = text.contains("context_window for this model") || !WINDOW.is_match(text);
    let found = CAP_BOUND.captures(text).filter(|_| about_the_answer)?;
    let number = [1, 2, 4].into_iter().find_map(|group| found.get(group))?;
    let bound: u64 = number.as_str().replace([',', '_'], "").parse().ok()?;
    let is_exclusive = found.get(3).is_some_and(|end| end.as_str() == "(exclusive)") || text.contains("lower than");
    let tokens = bound.saturating_sub(u64::from(is_exclusive));
    (tokens > 0).then_some(Mend::Cap { tokens, lasting: true })
}

/// The parameters that a refusal may name, and whether an answer means the same without them.
const PARAMETERS: &[(&str, bool)] = &[
    ("max_completion_tokens", false),
    ("max_tokens", false),
    ("temperature", true),
    ("top_p", true),
    ("top_k", true),
    ("min_p", true),
    ("presence_penalty", true),
    ("frequency_penalty", true),
    ("repetition_penalty", true),
    ("seed", true),
    ("safety_identifier", true),
    ("prompt_cache_key", true),
    ("prompt_cache_retention", true),
    ("metadata", true),
    ("store", true),
    ("user", true),
    ("service_tier", false),
    ("parallel_tool_calls", true),
    ("reasoning_effort", true),
    ("verbosity", true),
    ("logit_bias", false),
    ("top_logprobs", false),
    ("logprobs", false),
    ("response_format", false),
    ("json_schema", false),
    ("structured output", false),
    ("tool_choice", false),
    ("tools", false),
    ("functions", false),
    ("function calling", false),
    ("tool use", false),
    ("stop", false),
    ("stream", false),
    ("image_url", false),
    ("prefill", false),
    ("modalities", false),
];

/// The parameter that a refusal is about, if it says that one is not accepted.
fn parameter(text: &str, body: &ErrorBody) -> Option<&'static str> {
    if !PARAMETER.is_match(text) && !body.has_code(PARAMETER_CODES) {
        return None;
    }
    let named = |word: &str| PARAMETERS.iter().map(|(name, _)| *name).find(|name| word == *name);
    if let Some(name) = body.param.as_deref().map(str::to_lowercase).as_deref().and_then(named) {
        return Some(name);
    }
    // The first one counts: later ones are suggested replacements. An everyday word has to be quoted.
    let message = snake_case(head(&body.message));
    let quoted = |name: &str| {
        let spelled = [format!("'{name}'"), format!("\"{name}\""), format!("`{name}`"), format!("body.{name}:")];
        message.starts_with(&format!("{name}:")) || spelled.iter().any(|spelled| message.contains(spelled))
    };
    let everyday = |name: &str| matches!(name, "user" | "store" | "stop" | "stream" | "seed" | "metadata" | "prefill");
    PARAMETERS
        .iter()
        .filter(|(name, _)| !everyday(name) || quoted(name))
        .filter_map(|(name, _)| Some((word_at(&message, name).or_else(|| word_at(text, name))?, *name)))
        .min()
        .map(|(_, name)| name)
}

/// `presencePenalty` and `MaxTokens` as they are written elsewhere; everything else in lower case.
fn snake_case(text: &str) -> String {
    let mut snake = String::with_capacity(text.len() + 16);
    let mut before = ' ';
    for letter in text.chars() {
        if letter.is_uppercase() && before.is_lowercase() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
        before = letter;
    }
    snake
}

/// Where a word stands in a text as a separate word.
fn word_at(text: &str, word: &str) -> Option<usize> {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    text.match_indices(word)
        .map(|(at, _)| at)
        .find(|&at| !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part))
}

/// The change that lets a request pass which was refused for this parameter, provided its meaning stays the same.
fn mend(member: &'static str, text: &str) -> Option<Mend> {
    match member {
        "max_tokens" if text.contains("max_completion_tokens") || text.contains("maxcompletiontokens") => {
            Some(Mend::Rename { from: "max_tokens", to: "max_completion_tokens" })
        }
        "max_completion_tokens" => Some(Mend::Rename { from: "max_completion_tokens", to: "max_tokens" }),
        member => PARAMETERS.iter().find(|(name, may_go)| *name == member && *may_go).map(|(member, _)| {
            let lasting = ONLY_THE_DEFAULT.is_match(text) || !OF_A_VALUE.is_match(text);
            Mend::Drop { member, lasting }
        }),
    }
}
