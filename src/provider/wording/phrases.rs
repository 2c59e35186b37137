//! The phrases and codes by which vendors name a fault, sorted by their meaning. The consequences of each are decided
//! beside this file.

use regex::Regex;
use std::sync::LazyLock;

/// The pattern for a kind of sentence.
macro_rules! pattern {
    ($name:ident, $($piece:literal),+ $(,)?) => {
        pub(super) static $name: LazyLock<Regex> = LazyLock::new(|| {
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

// The key or the account, under any status.
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
    r"|\bpayment (?:is |was )?required\b|\bfailure to pay\b",
);
pub(super) const BAD_KEY_CODES: &[&str] =
    &["API_KEY_INVALID", "invalid_api_key", "InvalidApiKey", "invalid_authentication", "ApiKeyExpired"];
pub(super) const NO_MONEY_CODES: &[&str] =
    &["budget_exceeded", "Arrearage", "insufficient_balance", "insufficient_credits"];

// Content that the request brought along, at a status that usually concerns keys and models.
pattern!(
    OF_INPUT,
    r"\b(?:image|picture|audio|video|pdf|file|url|attachment|document|media)s?\b",
    r"|\b(?:prompt|input|message|content)s?\b[^.]{0,20}\b(?:blocked|rejected|denied|refused)\b",
    r"|\bsupports? (?:image|tool|audio|video|structured)",
);

// A 429 about this request alone.
pattern!(PER_REQUEST, r"\bper[- ]request\b|\btoo many (?:images|tools|files|messages)\b|\bsingle request\b");

// An account that has money, but not enough for the highest possible cost of this request.
pattern!(AFFORDS, r"\bcan (?:only )?afford (\d+)|\bprompt tokens limit exceeded: \d+ > \d+");
// An account that cannot pay for this many tokens is out of money for everything.
pub(super) const AFFORDS_SOMETHING: u64 = 256;

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
pub(super) const POLICY_CODES: &[&str] = &[
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
pub(super) const MODEL_CODES: &[&str] = &[
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
pub(super) const LENGTH_CODES: &[&str] = &[
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
pub(super) const TOO_LARGE_CODES: &[&str] =
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
    // Two parameters, by words for their being together or by their names. "And" alone may join anything: "cannot use
    // the image and its text", "cannot set up a connection to host and port".
    r"|\bcannot (?:specify|set|use|combine|pass|provide) both\b",
    r"|\bcannot (?:specify|set|use|combine|pass|provide)\b[^.]{0,80}\b(?:together|at the same time|simultaneously",
    r"|in the same request)\b",
    r"|\bcannot (?:specify|set|use|combine) (?:\w+ and [a-z]+_[a-z]|[a-z]+_\w+ and [a-z]",
    r"|['\x22]\w+['\x22] and ['\x22])",
    r"|\bmust be (?:omitted|unset|removed|passed back)\b|\bnumber must be (?:at most|at least|between)\b",
    // A server that was started without what the request needs.
    r"|\brequires? --[a-z]|不支持",
);

// A server or a model that gives no streams, in words that quote no parameter.
pattern!(
    NO_STREAMS,
    r"\bstream(?:ing)?(?: mode| responses?)? (?:is|are) (?:not|un|currently not) ?(?:yet |currently )?(?:supported",
    r"|available|allowed|enabled|possible)\b",
    r"|\b(?:does not|doesn't|doesn’t|do not|don't|cannot|can't) (?:support|allow|do) stream(?:s|ing)?\b",
    r"|\bunsupported stream(?:s|ing)?\b",
);

pub(super) const PARAMETER_CODES: &[&str] = &[
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
    r"|\bmutually exclusive\b|\bat the same time\b|\bsimultaneously\b|\bin the same request\b",
    r"|\bcannot (?:specify|set|use|combine|pass|provide)\b",
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

/// The parameters that a refusal may name, and whether an answer means the same without them.
pub(super) const PARAMETERS: &[(&str, bool)] = &[
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
    ("reasoning_format", false),
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
    ("stream", true),
    ("stream_options", true),
    ("image_url", false),
    ("prefill", false),
    ("modalities", false),
];
