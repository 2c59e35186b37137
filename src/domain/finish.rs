//! Why generation ended, in one vocabulary for all vendors.

use serde::{Deserialize, Serialize};

/// Why generation ended (reference: the finish classes that all dialects are mapped to).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model was done.
    Complete,
    /// Cut at the output cap or the context window.
    Length,
    /// The provider cut or blocked output or prompt.
    ContentFilter,
    /// The model declined.
    Refusal,
    /// The model asks for a tool.
    ToolCall,
    /// The turn is unfinished and may be continued.
    Pause,
    /// Generation failed inside an HTTP success.
    Error,
    /// A value this version does not know, or none; the raw string is kept beside it.
    Unknown,
}

/// Words for each class, in small letters and digits only. Vendors copy each other's, so there is one table for all
/// dialects.
const WORDS: &[(Finish, &[&str])] = &[
    (
        Finish::Complete,
        &[
            "stop",
            "eos",
            "eostoken",
            "eot",
            "eottoken",
            "eotid",
            "eom",
            "endturn",
            "endofturn",
            "endoftext",
            "endofsequence",
            "endofsentence",
            "end",
            "endtoken",
            "stopsequence",
            "stopsequences",
            "stopword",
            "stopwords",
            "stoptoken",
            "stopstring",
            "stopcriteriamet",
            "word",
            "complete",
            "completed",
            "done",
            "finish",
            "finished",
            "success",
            "normal",
            "natural",
        ],
    ),
    (
        Finish::Length,
        &[
            "length",
            "maxlength",
            "maxtokens",
            "maxtoken",
            "maximumtokens",
            "maxoutputtokens",
            "maxnewtokens",
            "maxcompletiontokens",
            "maxtokensreached",
            "tokenlimit",
            "tokenlimitreached",
            "outputtokenlimit",
            "outputlimit",
            "limit",
            "lengthlimit",
            "lengthexceeded",
            "lengthcap",
            "modellength",
            "modelcontextwindowexceeded",
            "contextlength",
            "contextlengthexceeded",
            "contextwindow",
            "contextwindowexceeded",
            "contextlimit",
            "contextoverflow",
            "errorlimit",
            "incomplete",
            "truncated",
            "timelimit",
            "limitreached",
            "limitexceeded",
            "maxlengthreached",
            "maxseqlen",
            "maxseqlength",
            "maxsequencelength",
            "maxcontext",
            "maxcontextlen",
            "maxcontextlength",
            "maxmodellen",
            "maxmodellength",
            "maxtokensexceeded",
            "maxlengthexceeded",
            "tokenlimitexceeded",
            "contextfull",
            "outoftokens",
            "partial",
            "cutoff",
            "budgetexceeded",
        ],
    ),
    (
        Finish::ContentFilter,
        &[
            "safety",
            "filter",
            "filtered",
            "blocked",
            "blocklist",
            "blockreason",
            "prohibitedcontent",
            "recitation",
            "spii",
            "modelarmor",
            "language",
            "sensitive",
            "sensitivecontent",
            "risk",
            "contentrisk",
            "highrisk",
            "contentpolicy",
            "contentpolicyviolation",
            "contentblocked",
            "policyviolation",
            "usagepolicy",
            "moderation",
            "moderated",
            "moderationblocked",
            "guardrail",
            "guardrailintervened",
            "guardrails",
            "errortoxic",
            "toxic",
            "toxicity",
            "jailbreak",
            "profanity",
            "copyright",
            "responsibleaipolicyviolation",
            "datainspectionfailed",
            "responseblocked",
            "promptblocked",
            "inputsensitive",
            "outputsensitive",
            "noimage",
            "flagged",
            "censored",
            "unsafe",
        ],
    ),
    (Finish::Refusal, &["refusal", "refused"]),
    (
        Finish::ToolCall,
        &[
            "toolcalls",
            "toolcall",
            "tooluse",
            "functioncall",
            "functioncalls",
            "functions",
            "tool",
            "tools",
            "requiresaction",
        ],
    ),
    (Finish::Pause, &["pauseturn", "pause", "compaction", "notfinished", "inprogress", "queued", "null"]),
    (
        Finish::Error,
        &[
            "error",
            "errored",
            "failed",
            "failure",
            "abort",
            "aborted",
            "cancelled",
            "canceled",
            "cancel",
            "usercancel",
            "timeout",
            "timedout",
            "repetition",
            "malformedfunctioncall",
            "malformedresponse",
            "malformedmodeloutput",
            "malformedtooluse",
            "unexpectedtoolcall",
            "toomanytoolcalls",
            "missingthoughtsignature",
            "other",
            "unspecified",
            "networkerror",
            "servererror",
            "internalerror",
            "insufficientsystemresource",
            "overloaded",
            "unavailable",
            "disconnected",
            "interrupted",
            "disconnect",
            "unfinished",
            "preempted",
            "preemption",
            "evicted",
            "killed",
            "crashed",
            "engineerror",
            "modelerror",
            "generationerror",
            "exception",
            "outofmemory",
            "oom",
            "ragquerywhenragdisabled",
        ],
    ),
];

impl Finish {
    /// The finish of an answer with tool calls: many servers say `stop` then, or something of their own.
    #[must_use]
    pub const fn with_calls(self, has_calls: bool) -> Self {
        match self {
            Self::Complete | Self::Unknown if has_calls => Self::ToolCall,
            finish => finish,
        }
    }

    /// The class of a vendor's word in any spelling: `MAX_TOKENS`, `maxTokens`, `max-tokens` and
    /// `FinishReason.MAX_TOKENS` are one. A stop token (`<|eot_id|>`, `</s>`) says that the model was done.
    #[must_use]
    pub fn of_word(word: &str) -> Self {
        // No vendor's word comes near this length.
        const LONGEST: usize = 80;
        let word = word.trim();
        if word.len() > LONGEST {
            return Self::Unknown;
        }
        if word.starts_with('<') && word.ends_with('>') {
            return Self::Complete;
        }
        let plain: String = word.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
        let plain = ["finishreason", "stopreason"]
            .iter()
            .find_map(|prefix| plain.strip_prefix(prefix).filter(|rest| !rest.is_empty()))
            .unwrap_or(&plain);
        let known = WORDS.iter().find(|(_, words)| words.contains(&plain)).map(|(finish, _)| *finish);
        known.unwrap_or_else(|| {
            // Families that keep growing: `content_filter: PROHIBITED_CONTENT`, `IMAGE_SAFETY`, `engine_error`.
            if ["contentfilter", "image", "safety"].iter().any(|family| plain.starts_with(family)) {
                Self::ContentFilter
            } else if ["error", "failure", "failed"].iter().any(|family| plain.ends_with(family)) {
                Self::Error
            } else if ["limitreached", "limitexceeded"].iter().any(|family| plain.ends_with(family)) {
                Self::Length
            } else {
                Self::Unknown
            }
        })
    }

    /// The value of OpenAI's `finish_reason` that says the same.
    #[must_use]
    pub fn as_openai(self) -> &'static str {
        match self {
            Self::Complete | Self::Refusal | Self::Unknown => "stop",
            Self::Length | Self::Pause => "length",
            Self::ContentFilter => "content_filter",
            Self::ToolCall => "tool_calls",
            Self::Error => "error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_means_the_same_in_every_spelling() {
        for (finish, words) in [
            (
                Finish::Complete,
                "stop STOP Stop eos eos_token EOS_TOKEN end_turn endTurn stop_sequence STOP_SEQUENCE COMPLETE end \
                 end-of-text FINISH_REASON_STOP FinishReason.STOP finish STOP_CRITERIA_MET <|eot_id|> <|im_end|> </s> \
                 done normal",
            ),
            (
                Finish::Length,
                "length LENGTH MAX_TOKENS max_tokens maxTokens max-tokens FinishReason.MAX_TOKENS max_length \
                 model_length ERROR_LIMIT model_context_window_exceeded token_limit max_output_tokens time_limit \
                 maximum_tokens limit max_seq_len max_context_length limit_reached partial LENGTH_LIMIT_REACHED",
            ),
            (
                Finish::ContentFilter,
                "content_filter content-filter CONTENT_FILTERED contentFilter SAFETY safety RECITATION BLOCKLIST \
                 PROHIBITED_CONTENT SPII sensitive guardrail_intervened ERROR_TOXIC IMAGE_SAFETY IMAGE_OTHER \
                 MODEL_ARMOR                  flagged",
            ),
            (Finish::ToolCall, "tool_calls tool-calls TOOL_CALL tool_use toolUse function_call requires_action"),
            (Finish::Refusal, "refusal REFUSAL"),
            (Finish::Pause, "pause_turn compaction not_finished null"),
            (
                Finish::Error,
                "error ERROR abort aborted cancelled TIMEOUT repetition MALFORMED_FUNCTION_CALL OTHER network_error \
                 FINISH_REASON_UNSPECIFIED malformed_model_output insufficient_system_resource unfinished preempted \
                 disconnect engine_error upstream_error worker_failure",
            ),
            (Finish::Unknown, "brand_new 1 finish_reason - 停止"),
        ] {
            for word in words.split_whitespace() {
                assert_eq!(Finish::of_word(word), finish, "{word}");
            }
        }
        assert_eq!(Finish::of_word("content_filter: PROHIBITED_CONTENT"), Finish::ContentFilter);
        assert_eq!(Finish::of_word(&"stop".repeat(1_000)), Finish::Unknown);
    }

    #[test]
    fn each_word_has_one_meaning_and_is_written_plainly() {
        let mut seen = std::collections::HashSet::new();
        for word in WORDS.iter().flat_map(|(_, words)| *words) {
            assert!(seen.insert(word), "{word} is listed twice");
            assert!(word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()), "{word}");
        }
    }
}
