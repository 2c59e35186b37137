//! `[routes.NAME]`.

use super::{Default, Key, Kind, SampleStyle, TEXTS, Table, depends, instead, key, needed, with_default};
use crate::config::words::{CACHE_LIVES, CAP_RAISES, FILTER_RULES, FINISH_RULES, SERVED_RULES, names};
use crate::config::{forks, must_keep, route, strategy};

pub(super) const ROUTE: Table = Table {
    header: Some("[routes.default]"),
    title: "[routes.NAME]",
    doc: "Routes: what a job asks for by name; jobs that name none take \"default\".",
    keys: &[
        needed(
            "rungs",
            Kind::List(&Kind::Either(&[Kind::Text, Kind::Table(&RUNG)])),
            "[\n    \"local/qwen3-32b\",\n    \"openai/gpt-4o-mini\",\n    \
             { target = \"anthropic/claude-haiku-4-5\", timeouts = { total = \"3m\" } },\n]",
            "The alternatives: provider/model, or provider/model@tier. Needed.",
        ),
        with_default(
            "strategy",
            Kind::Word(strategy::names),
            "cost",
            "The order of the rungs for each job. \"cost\": the cheapest for its request first; \"priority\": in this \
             order; \"weighted\": drawn by `weights`; \"balanced\": the one with the most room in its limits first; \
             \"fastest\": the one that answers soonest first; \"sticky\": the same for the same `sticky_by`; \"race\": \
             the cheapest first, and while it has not answered the next one beside it.",
        ),
        instead(
            "weights",
            Kind::Map(&Kind::Weight),
            "{ \"local/qwen3-32b\" = 3, \"openai/gpt-4o-mini\" = 1, \"anthropic/claude-haiku-4-5\" = 0 }",
            "For \"weighted\": the share of each rung; 0: only a fallback.",
        ),
        instead("sticky_by", Kind::Text, "batch", "For \"sticky\": \"batch\", \"project\" or \"metadata.MEMBER\"."),
        Key {
            is_alternative: true,
            ..with_default(
                "race_after",
                Kind::Duration,
                "2s",
                "For \"race\": time until the next rung is asked too; \"0s\": both at once.",
            )
        },
        Key {
            is_alternative: true,
            ..with_default(
                "race_at_most",
                Kind::Whole(2, 100),
                "2",
                "For \"race\": calls of one job that are under way at a time, at most.",
            )
        },
        depends(
            "patience",
            Kind::Duration,
            "10m",
            "10m; of a \"race\" its `race_after`, where that is shorter",
            "How long a job waits for a cheaper rung; \"0s\": never; \"forever\": always.",
        ),
        with_default(
            "max_attempts",
            Kind::Whole(1, 1000),
            "6",
            "The most failed calls of one job; waiting for a limit does not count.",
        ),
        instead(
            "max_cost",
            Kind::Money,
            "0.10",
            "The most that all calls of one job may cost together, in dollars: a call begins only if its worst case \
             still fits. A job that was enqueued again by hand may spend it once more.",
        ),
        with_default(
            "stream",
            Kind::Flag,
            "false",
            "Whether answers are asked for as streams: one that stalls is given up after `timeouts.idle`, and what had \
             come of it is on the ledger.",
        ),
        with_default(
            "reask",
            Kind::Flag,
            "true",
            "Whether a rung whose answer is rejected for its form is asked once more, with the fault named.",
        ),
        instead(
            "max_failed",
            Kind::Part,
            "0.05",
            "The stop-loss of batches that are enqueued by command: one is paused when more than this share of its \
             jobs fails.",
        ),
        instead(
            "max_wasted",
            Kind::Part,
            "0.3",
            "The same by money: one is paused when more than this share of what its calls cost brings no accepted \
             answer.",
        ),
        key(
            "cache",
            Kind::Duration,
            "7d",
            "Answers of this age or younger are given again to jobs with the same request, at no cost.",
        ),
        key(
            "prompt_cache",
            Kind::Either(&[Kind::Flag, Kind::Table(&PROMPT_CACHE)]),
            "true",
            "Whether the prompt caches of providers are used for what the route's jobs share: tools and instructions.",
        ),
        instead(
            "cascade",
            Kind::Table(&CASCADE),
            "{ confidence = \"mean_logprob\", at_least = 0.9 }",
            "A rung that is less sure of its answer than this is followed by the next one. For \"cost\" and \
             \"priority\".",
        ),
        instead(
            "pack",
            Kind::Either(&[Kind::Whole(2, 2_048), Kind::Table(&PACK)]),
            "{ inputs = 96, wait = \"50ms\" }",
            "Jobs that ask for embeddings share calls of so many inputs; a number stands for `inputs` alone. A \
             vendor's own bounds hold, too.",
        ),
        key(
            "prompt",
            Kind::Text,
            "Classify: {text}",
            "What is asked of a request that holds just `vars`: `{text}` stands for the value of `vars.text`; `{{` and \
             `}}` stand for braces.",
        ),
        instead(
            "template",
            Kind::Map(&Kind::Any),
            "{ messages = [{ role = \"user\", content = \"Classify: {text}\" }], seed = 1 }",
            "Instead of `prompt`: a whole request, in whose strings the values stand.",
        ),
        instead("template_file", Kind::Path, "classify.json", "The same, in a file of JSON."),
        key(
            "system",
            Kind::Text,
            "Answer with one word.",
            "Instructions before a conversation that has none; may name values of `vars`, too.",
        ),
        key("max_tokens", Kind::Whole(1, 1_000_000_000), "500", "The output cap of requests that set none."),
        key("temperature", Kind::Number(0, 2), "0", "The temperature of requests that set none."),
        key(
            "response_format",
            Kind::Map(&Kind::Any),
            "{ type = \"json_object\" }",
            "The form of the answer for requests that ask for none.",
        ),
        key(
            "pass",
            TEXTS,
            "[\"service_tier\", \"tools.web_search\"]",
            "Members of a request that may choose a model, tier, tool or count; [\"*\"]: all.",
        ),
        instead(
            "must_keep",
            Kind::Either(&[Kind::Word(|| vec![must_keep::ALL]), TEXTS]),
            "[\"seed\", \"logprobs\"]",
            "Members of a request that no rung may leave out: one that would is passed over; \"all\": every member.",
        ),
        Key {
            default: Default::Texts(route::fallback_classes),
            ..key(
                "fallback_on",
                Kind::List(&Kind::Word(route::classes)),
                "",
                "Failures that move a job on to the next rung; \"network\" stands for \"unreachable\" too. []: pinned, \
                 as by `fallback`.",
            )
        },
        instead("fallback", Kind::Word(|| vec!["never"]), "never", "Instead: pinned to its rung, whatever happens."),
        key(
            "rules",
            Kind::List(&Kind::Table(&RULE)),
            "[{ when = { needs = [\"images\"], min_input_tokens = 20000 }, route = \"reproducible\" }]",
            "Sends some jobs along another route; the first rule that matches decides.",
        ),
        key("validate", Kind::Table(&VALIDATE), "", ""),
        key("shadow", Kind::Table(&SHADOW), "", ""),
    ],
    more: "[routes.reproducible]\n\
           rungs = [\"openai/gpt-4o-2024-08-06\"]\n\
           fallback = \"never\"                        # pinned: no other rung, whatever happens\n",
    ..Table::EMPTY
};

/// A rung that sets more than its target.
pub(in crate::config) const RUNG: Table = Table {
    title: "one of `rungs`",
    keys: &[
        needed("target", Kind::Text, "openai/gpt-4o-mini", "Provider and model. Needed."),
        key("timeouts", Kind::Table(&super::TIMEOUTS), "{ total = \"3m\" }", "Times that differ from the provider's."),
        key("stream", Kind::Flag, "true", "Instead of the route's `stream`."),
    ],
    sample: SampleStyle::Text(""),
    ..Table::EMPTY
};

/// How a route packs its requests for embeddings.
pub(in crate::config) const PACK: Table = Table {
    title: "`pack` of a route",
    keys: &[
        needed("inputs", Kind::Whole(2, 2_048), "96", "The most inputs of one call. Needed."),
        key("tokens", Kind::Whole(1, 1_000_000_000), "100000", "The most tokens of one call, estimated."),
        with_default("wait", Kind::Duration, "50ms", "How long a call that is not full waits for more; 5s at most."),
    ],
    sample: SampleStyle::Text(""),
    ..Table::EMPTY
};

/// The cascade of a route.
pub(in crate::config) const CASCADE: Table = Table {
    title: "`cascade` of a route",
    keys: &[
        needed(
            "confidence",
            Kind::Text,
            "mean_logprob",
            "How sure a rung is: \"mean_logprob\": the mean probability of its tokens; \"min_logprob\": that of its \
             least likely token; or a JSON pointer to a number in the answer, such as \"/confidence\". Needed.",
        ),
        needed("at_least", Kind::Any, "0.9", "The least confidence of an answer that is taken. Needed."),
    ],
    sample: SampleStyle::Text(""),
    ..Table::EMPTY
};

/// How a route uses the prompt caches of providers.
pub(in crate::config) const PROMPT_CACHE: Table = Table {
    title: "`prompt_cache` of a route",
    keys: &[
        with_default(
            "ttl",
            Kind::Word(|| names(CACHE_LIVES)),
            "5m",
            "How long a beginning is kept since its last use. \"1h\" costs more, with vendors that sell it.",
        ),
        depends(
            "min_tokens",
            Kind::Whole(0, i64::MAX),
            "1024",
            "as the provider keeps",
            "Shorter beginnings are left alone, by estimate.",
        ),
        with_default(
            "wait",
            Kind::Duration,
            "60s",
            "How long jobs wait at most for the first call with their beginning, at most \"10m\"; \"0s\": not at all.",
        ),
    ],
    sample: SampleStyle::Text(""),
    ..Table::EMPTY
};

/// A rule of a route.
pub(in crate::config) const RULE: Table = Table {
    title: "one of `rules`",
    keys: &[
        needed("route", Kind::Text, "long", "The route that the jobs go along. Needed."),
        key(
            "when",
            Kind::Table(&WHEN),
            "{ project = \"acme\" }",
            "What holds for the jobs: all that is named here. Without it: every job.",
        ),
    ],
    sample: SampleStyle::Text(""),
    ..Table::EMPTY
};

const ONE_OR_SOME: Kind = Kind::Either(&[Kind::Text, TEXTS]);

/// What a rule asks of a job.
pub(in crate::config) const WHEN: Table = Table {
    title: "`when` of a rule",
    keys: &[
        key("project", ONE_OR_SOME, "acme", "The project, or a list of some; `*` at the end stands for any ending."),
        key("batch", ONE_OR_SOME, "nightly-*", "The batch, or a list of some, in the same way."),
        key(
            "metadata",
            Kind::Map(&Kind::Any),
            "{ tier = \"gold\" }",
            "Members of the metadata, each with the value it must have.",
        ),
        key(
            "min_input_tokens",
            Kind::Whole(0, i64::MAX),
            "20000",
            "The prompt has at least so many tokens, estimated.",
        ),
        key("max_input_tokens", Kind::Whole(0, i64::MAX), "500", "The prompt has at most so many tokens, estimated."),
        key("needs", Kind::List(&Kind::Word(forks::words)), "[\"tools\"]", "What the request asks for: all of these."),
        key("language", TEXTS, "[\"de\"]", "The language of the prompt: one of these (ISO 639)."),
    ],
    sample: SampleStyle::Text(""),
    ..Table::EMPTY
};

const SHADOW: Table = Table {
    header: Some("[routes.default.shadow]"),
    title: "[routes.NAME.shadow]",
    doc: "Another target that a share of the accepted jobs is also sent to; its answers are compared and never used \
          (`sluice report shadow`).",
    keys: &[
        needed("target", Kind::Text, "openai/gpt-4o", "Provider and model; no rung of the route. Needed."),
        needed("share", Kind::Share, "0.05", "The share of the accepted jobs. Needed."),
        needed("limit", Kind::Money, "5.00", "The dollars that it may cost in a day, by UTC. Needed."),
    ],
    ..Table::EMPTY
};

const VALIDATE: Table = Table {
    header: Some("[routes.default.validate]"),
    title: "[routes.NAME.validate]",
    doc: "What an answer must be.",
    keys: &[
        with_default("non_empty", Kind::Flag, "true", "Empty answers are rejected."),
        key("min_chars", Kind::Whole(0, i64::MAX), "1", "Shorter answers are rejected."),
        key("max_chars", Kind::Whole(1, i64::MAX), "100000", "Longer answers are rejected."),
        with_default("refusal", Kind::Flag, "true", "Refusals are rejected."),
        with_default("html", Kind::Flag, "true", "HTML pages are rejected."),
        with_default("truncated", Kind::Flag, "true", "Answers that were cut at the output cap are rejected."),
        with_default(
            "finish",
            Kind::Word(|| names(FINISH_RULES)),
            "said",
            "Whether an answer says why it ended. \"said\": in any word; \"known\": in a word that is known; \"any\": \
             it need not.",
        ),
        with_default(
            "repetition",
            Kind::Flag,
            "true",
            "Answers that end in a loop of the same words, twenty times or more, are rejected.",
        ),
        with_default(
            "control_tokens",
            Kind::Flag,
            "true",
            "Answers with tokens of the model's template in their midst are rejected; turns behind a whole answer are \
             cut off.",
        ),
        with_default(
            "prompt_cut",
            Kind::Flag,
            "true",
            "Answers are rejected whose provider has, by its own count, read a third or less of the prompt's words.",
        ),
        with_default(
            "stuck_answer",
            Kind::Flag,
            "false",
            "Long answers are rejected that the target has lately given to several other requests, word by word. \
             Without it the log tells of them.",
        ),
        with_default(
            "filter",
            Kind::Word(|| names(FILTER_RULES)),
            "any",
            "Whether answers are taken that the provider's content filter, being down, did not look at: \"any\", or \
             only if it \"ran\".",
        ),
        key("language", TEXTS, "[\"en\"]", "Answers have to be in one of these languages (ISO 639)."),
        key("script", TEXTS, "[\"latin\"]", "Answers have to be written in one of these scripts."),
        with_default(
            "served",
            Kind::Word(|| names(SERVED_RULES)),
            "any",
            "Which model may answer: \"any\" that the provider puts in the place of the one that was asked, or \
             \"asked\" alone.",
        ),
        with_default(
            "raise_cap",
            Kind::Word(|| names(CAP_RAISES)),
            "reasoning",
            "Which answers that were cut off are asked for once more at the same rung, with up to four times the \
             output cap: \"reasoning\" those that never began because reasoning used up the cap, \"always\" all, or \
             \"never\" one.",
        ),
        with_default("json", Kind::Flag, "false", "Answers that are no JSON are rejected."),
        instead(
            "json_schema",
            Kind::Any,
            "{ type = \"object\", required = [\"label\"] }",
            "Answers have to match this schema.",
        ),
        instead("json_schema_file", Kind::Path, "label.schema.json", "Answers have to match the schema in this file."),
        with_default("required_patterns", TEXTS, "[]", "Answers have to match each of these regular expressions."),
        key(
            "forbidden_patterns",
            TEXTS,
            "[\"(?i)as an ai language model\"]",
            "Answers that match one of these regular expressions are rejected.",
        ),
    ],
    ..Table::EMPTY
};
