//! `[providers.NAME]` and `[buckets.NAME]`.

use super::{Key, Kind, SampleStyle, TEXTS, Table, depends, instead, key, needed, with_default};
use crate::config::words::{AUTH_KINDS, CREDENTIAL_SOURCES, names};
use crate::config::{provider, quirks};
use crate::provider::own_errors::reported_classes;
use crate::provider::vendors::limit_headers_names;

/// The source of one key of a provider.
pub(in crate::config) const API_KEY: Table = Table {
    title: "one of `keys`",
    keys: &[
        key("api_key_env", Kind::Text, "OPENAI_API_KEY", "The variable of the environment that holds the key."),
        instead("api_key_file", Kind::Path, "openai.key", "Instead: a file that holds nothing but the key."),
        instead("credential", Kind::Text, "openai", "Instead: a systemd credential (LoadCredential=openai:PATH)."),
    ],
    ..Table::EMPTY
};

pub(super) const PROVIDER: Table = Table {
    header: Some("[providers.openai]"),
    title: "[providers.NAME]",
    doc: "Providers: accounts and servers.\n\nA provider that is called {vendors} needs only its key, ollama not even \
          that; others (and second accounts) say vendor, or dialect and base_url.",
    extends: Some(&API_KEY),
    keys: &[
        instead(
            "keys",
            Kind::List(&Kind::Table(&API_KEY)),
            "[{ api_key_env = \"OPENAI_A\" }, { credential = \"openai_b\" }]",
            "Instead: several keys, taken in turn.",
        ),
        with_default(
            "auth",
            Kind::Word(|| names(AUTH_KINDS)),
            "key",
            "How calls are authenticated: by a key that goes with each of them, or by a signature (AWS SigV4; only \
             the dialect bedrock). Without one of the sources above, a signature takes its access key from where AWS's \
             own tools look: AWS_ACCESS_KEY_ID and so on, a profile in ~/.aws/credentials, the keys of the role of a \
             container.",
        ),
        Key {
            is_alternative: true,
            ..depends(
                "region",
                Kind::Text,
                "eu-central-1",
                "by base_url, else AWS_REGION, else the profile's",
                "The region for which calls are signed.",
            )
        },
        Key {
            is_alternative: true,
            ..depends(
                "profile",
                Kind::Text,
                "sluice",
                "AWS_PROFILE, else default",
                "The profile of ~/.aws/credentials whose access key signs calls; before AWS_ACCESS_KEY_ID.",
            )
        },
        Key {
            is_alternative: true,
            ..depends(
                "credential_source",
                Kind::Word(|| names(CREDENTIAL_SOURCES)),
                "instance",
                "where AWS's own tools look, but for the service of an instance",
                "Where the keys of a role come from that sign calls: the service of the instance or the container, or \
                 STS for a token of an identity provider.",
            )
        },
        depends(
            "vendor",
            Kind::Word(provider::vendor_names),
            "openai",
            "the provider's name, else by base_url",
            "The vendor that the dialect, address, prices and habits come from. A server of no known vendor has none.",
        ),
        depends("dialect", Kind::Word(provider::dialects), "openai", "the vendor's", "The API that it speaks."),
        depends(
            "base_url",
            Kind::Text,
            "https://api.openai.com/v1",
            "the vendor's",
            "The address to which paths are appended; a query in it goes with each call.",
        ),
        key(
            "headers",
            Kind::Map(&Kind::Text),
            "{ \"OpenAI-Organization\" = \"org-1\" }",
            "Further headers of each call.",
        ),
        depends(
            "limits",
            Kind::Table(&LIMITS),
            "{ requests_per_minute = 10000, tokens_per_minute = 2000000, concurrency = 200 }",
            "learned from headers, or found by trial, which costs a few 429s",
            "What the account allows, for all workers together. Copy it from the vendor's console. Keys: \
             requests_per_, tokens_per_, input_tokens_per_, output_tokens_per_ and inputs_per_ with second, minute or \
             day; concurrency; burst_requests, burst_tokens and burst_inputs (how much may go at once after a rest; \
             default: all of it).",
        ),
        instead(
            "bucket",
            Kind::Text,
            "shared",
            "Instead of limits: those of [buckets.shared], together with other providers.",
        ),
        depends(
            "charging",
            Kind::Word(provider::charging_rules),
            "openai",
            "the vendor's, else the dialect's",
            "The rule by which it counts tokens (docs/configuration.md); \"combined\" counts all that goes in and \
             comes out.",
        ),
        key("timeouts", Kind::Table(&TIMEOUTS), "", "How long a call may take."),
        key("breaker", Kind::Table(&BREAKER), "", ""),
        key("probe", Kind::Table(&PROBE), "", ""),
        with_default(
            "recheck",
            Kind::Duration,
            "10m",
            "How long a rejected key, or one without money, rests until one call tries it; and how often one call asks \
             again during a wait of more than a day.",
        ),
        with_default(
            "max_body_bytes",
            Kind::Whole(1024, 1 << 40),
            "33554432",
            "Larger answers are cut off and count as failures.",
        ),
        key("quirks", Kind::Table(&QUIRKS), "", ""),
    ],
    more: "[providers.anthropic]\n\
           api_key_env = \"ANTHROPIC_API_KEY\"\n\
           limits = { requests_per_minute = 1000, input_tokens_per_minute = 450000, output_tokens_per_minute = 90000 \
           }\n\
           \n\
           [providers.local]                         # vLLM, llama.cpp, Ollama and the like\n\
           dialect = \"openai\"\n\
           base_url = \"http://127.0.0.1:8000/v1\"\n\
           limits = { concurrency = 8 }\n",
    ..Table::EMPTY
};

pub(in crate::config) const TIMEOUTS: Table = Table {
    title: "`timeouts` of a provider or rung",
    keys: &[
        with_default("connect", Kind::Duration, "10s", "Until the connection is there, TLS included."),
        with_default(
            "first_byte",
            Kind::Duration,
            "5m",
            "From when the request goes out until the answer begins, a stream with its first event; connecting does \
             not count. An answer that is not streamed begins when it is complete.",
        ),
        with_default("idle", Kind::Duration, "30s", "Between two pieces of the answer, or two events of a stream."),
        with_default("total", Kind::Duration, "10m", "The whole call."),
    ],
    ..Table::EMPTY
};

const BREAKER: Table = Table {
    header: Some("[providers.openai.breaker]"),
    title: "[providers.NAME.breaker]",
    doc: "When its targets are avoided for a while because they fail, and when jobs of a route pass them over for a \
          better rung because their answers to these are slow or rejected.",
    keys: &[
        with_default(
            "min_calls",
            Kind::Whole(1, 1_000_000),
            "10",
            "Fewer calls within the window, or fewer answers, open no breaker.",
        ),
        with_default("failure_rate", Kind::Share, "0.5", "The share of failures that opens it."),
        with_default("window", Kind::Duration, "60s", "The time over which calls are counted."),
        with_default(
            "open",
            Kind::Duration,
            "30s",
            "How long it stays open before one call probes; each failure doubles that, up to 16 times.",
        ),
        key(
            "slow",
            Kind::Duration,
            "2m",
            "An answer that takes longer is slow, of a stream one that begins later; calls of a spare tier such as \
             @flex never are. Without it no answer is slow.",
        ),
        with_default("slow_rate", Kind::Share, "0.5", "At this share of slow answers the target is passed over."),
        with_default("soft_failure_rate", Kind::Share, "0.9", "At this share of rejected answers it is, …"),
        with_default(
            "wasted_token_rate",
            Kind::Share,
            "0.9",
            "… and at this share of output tokens that went into rejected answers.",
        ),
    ],
    ..Table::EMPTY
};

const PROBE: Table = Table {
    header: Some("[providers.local.probe]"),
    title: "[providers.NAME.probe]",
    doc: "Health probes: a page of the server that costs nothing is asked again and again. While it fails, no call \
          goes to the provider.",
    keys: &[
        needed(
            "path",
            Kind::Text,
            "/health",
            "The page, from the root of the server that base_url names: /health (llama.cpp, vLLM), / (Ollama), \
             /v1/models. A status of 200 to 299 is good, anything else is not.",
        ),
        with_default("every", Kind::Duration, "15s", "From one probe to the next."),
        depends(
            "timeout",
            Kind::Duration,
            "5s",
            "5s, or `every` where that is shorter",
            "How long an answer may take; no more than `every`.",
        ),
        with_default("failures", Kind::Whole(1, 1000), "2", "So many in a row shut it; one good probe opens it again."),
    ],
    ..Table::EMPTY
};

const AMOUNT: Kind = Kind::Whole(1, i64::MAX);

const LIMITS: Table = Table {
    title: "`limits` of a provider or model, and [buckets.NAME]",
    keys: &[
        key("requests_per_second", AMOUNT, "", "Calls within a second."),
        key("requests_per_minute", AMOUNT, "", "Calls within a minute."),
        key("requests_per_day", AMOUNT, "", "Calls within a day, which ends at midnight UTC."),
        key("tokens_per_second", AMOUNT, "", "Tokens within a second, as the rule of charging counts them."),
        key("tokens_per_minute", AMOUNT, "", "Tokens within a minute."),
        key("tokens_per_day", AMOUNT, "", "Tokens within a day."),
        key("input_tokens_per_second", AMOUNT, "", "Tokens of requests within a second."),
        key("input_tokens_per_minute", AMOUNT, "", "Tokens of requests within a minute."),
        key("input_tokens_per_day", AMOUNT, "", "Tokens of requests within a day."),
        key("output_tokens_per_second", AMOUNT, "", "Tokens of answers within a second."),
        key("output_tokens_per_minute", AMOUNT, "", "Tokens of answers within a minute."),
        key("output_tokens_per_day", AMOUNT, "", "Tokens of answers within a day."),
        key("inputs_per_second", AMOUNT, "", "Inputs of calls for embeddings within a second."),
        key("inputs_per_minute", AMOUNT, "", "Inputs of calls for embeddings within a minute."),
        key("inputs_per_day", AMOUNT, "", "Inputs of calls for embeddings within a day."),
        depends("burst_requests", AMOUNT, "", "all of the limit", "How many calls may go at once after a rest."),
        depends("burst_tokens", AMOUNT, "", "all of the limit", "How many tokens may go at once after a rest."),
        depends("burst_inputs", AMOUNT, "", "all of the limit", "How many inputs may go at once after a rest."),
        key("concurrency", Kind::Whole(1, 1_000_000), "", "Calls under way at the same time."),
    ],
    ..Table::EMPTY
};

pub(super) const BUCKET: Table = Table {
    header: Some("[buckets.shared]"),
    title: "[buckets.NAME]",
    doc: "Limits that several providers or models share.",
    extends: Some(&LIMITS),
    sample: SampleStyle::Text("requests_per_minute = 500\n"),
    ..Table::EMPTY
};

/// The limits of a model, which may be its own or those of a bucket.
pub(super) const OWN_LIMITS: Kind = Kind::Table(&LIMITS);

const QUIRKS: Table = Table {
    header: Some("[providers.openai.quirks]"),
    title: "[providers.NAME.quirks]",
    doc: "Where the server differs from the row of its vendor, or from the rules for the model's name. The attempt \
          lists every member that was left out, renamed, changed or added (`sluice explain`). Dialect openai; drop, \
          json_schema, errors and headers hold for all.",
    keys: &[
        depends(
            "cap_field",
            Kind::Word(quirks::cap_fields),
            "max_completion_tokens",
            "by vendor and model name",
            "The member that holds the output cap.",
        ),
        key(
            "drop",
            TEXTS,
            "[\"user\", \"messages[].name\"]",
            "Members that are not sent, beside those that the vendor is known to reject.",
        ),
        key(
            "refuse",
            TEXTS,
            "[\"logit_bias\"]",
            "Members without which the answer would be another one: a request that has one goes to the next rung.",
        ),
        key("keep", TEXTS, "[\"stop\"]", "Members that are sent although the vendor is known to reject them."),
        key(
            "drop_when_reasoning",
            TEXTS,
            "[\"temperature\"]",
            "Members that models with `temperature = false` do not take, in place of the known ones.",
        ),
        key("takes_only", TEXTS, "[]", "The only top-level members that it takes; empty: all."),
        key(
            "rename",
            Kind::Map(&Kind::Text),
            "{ seed = \"random_seed\" }",
            "Top-level members that go under another name.",
        ),
        key(
            "add",
            Kind::Map(&Kind::Any),
            "{ safe_prompt = true }",
            "Top-level members that each request gets unless it has its own.",
        ),
        key(
            "words",
            Kind::Map(&Kind::Map(&Kind::Text)),
            "{ tool_choice = { required = \"any\" } }",
            "Words of top-level members that are spelled differently.",
        ),
        key(
            "drop_with_tools",
            TEXTS,
            "[\"reasoning_format\"]",
            "Members that are not sent beside tools or a demanded form, in place of the known ones.",
        ),
        key(
            "logprobs_as_number",
            Kind::Flag,
            "false",
            "logprobs is the number of tokens wanted, without top_logprobs (Together).",
        ),
        key("stream_only_models", TEXTS, "[]", "Models that answer in streams only, by parts of their names."),
        key("json_schema", Kind::Flag, "true", "Takes response_format json_schema, where the model does not say."),
        key(
            "json_schema_models",
            TEXTS,
            "[]",
            "The only models that take a JSON schema, by parts of their names; empty: all.",
        ),
        key("tools_with_schema", Kind::Flag, "true", "Takes tools and a JSON schema in one request."),
        key("needs_json_word", Kind::Flag, "true", "Rejects json_object when the messages do not have the word JSON."),
        key(
            "require_parameters",
            Kind::Flag,
            "false",
            "Wants provider.require_parameters beside a schema (OpenRouter).",
        ),
        key("short_call_ids", Kind::Flag, "false", "Ids of calls have nine letters or digits (Mistral)."),
        key("max_call_id", Kind::Whole(9, 1_000), "40", "Characters of an id of a call at most."),
        key(
            "needs_user_last",
            Kind::Flag,
            "false",
            "Rejects a conversation that ends with the assistant's words (Mistral).",
        ),
        key("checks_strict", Kind::Flag, "true", "Rejects `strict` beside a schema that leaves anything open."),
        key("plain_tool_names", Kind::Flag, "true", "Names of functions have letters, digits, _ and - only."),
        key("max_stops", Kind::Whole(0, 1_000), "4", "Stop sequences at most; the answer is cut at the others."),
        key("stop_as_list", Kind::Flag, "false", "Wants stop as a list."),
        key("join_texts", Kind::Flag, "false", "Wants the text of a message as one string."),
        key("empty_content_as_null", Kind::Flag, "false", "Rejects \"\" as the content of a turn that calls tools."),
        key("takes_null", Kind::Flag, "true", "Takes members that are null."),
        key("takes_functions", Kind::Flag, "true", "Takes the deprecated functions and function_call."),
        key("takes_developer", Kind::Flag, "true", "Takes the role developer; it is sent as system otherwise."),
        key(
            "stream_usage",
            Kind::Flag,
            "true",
            "Takes stream_options.include_usage, by which a stream tells its tokens.",
        ),
        key("model_rules", Kind::Flag, "true", "Applies the rules that Sluice knows for models of this name."),
        key("reasoning_outside", Kind::Flag, "false", "completion_tokens does not include reasoning."),
        key(
            "limit_headers",
            Kind::Word(limit_headers_names),
            "plain",
            "What x-ratelimit headers mean: what they say, or what they say at this vendor.",
        ),
        key(
            "errors",
            Kind::List(&Kind::Table(&OWN_ERROR)),
            "[{ code = \"E_FULL\", class = \"overloaded\" }, { status = 420, class = \"rate_limit\" }]",
            "The meaning of its own errors, before all that is known of them; the first row that fits counts.",
        ),
        key(
            "headers",
            Kind::Table(&OWN_HEADERS),
            "{ wait = \"x-slow-down\", requests_remaining = \"x-calls-left\" }",
            "Headers of its answers that have other names there.",
        ),
        key(
            "usage",
            Kind::Table(&USAGE_PLACES),
            "{ input = \"/meta/tokens/in\", output = \"/meta/tokens/out\", cost = \"/meta/usd\" }",
            "Where its answers count tokens and money, if not under `usage` (openai, azure_openai, completions).",
        ),
    ],
    ..Table::EMPTY
};

/// An error of a server.
pub(in crate::config) const OWN_ERROR: Table = Table {
    title: "one of `errors`",
    keys: &[
        key(
            "code",
            Kind::Either(&[Kind::Text, Kind::Whole(i64::MIN, i64::MAX)]),
            "E_FULL",
            "A code, type or reason that the body gives.",
        ),
        key("status", Kind::Whole(400, 599), "420", "The status of the answer."),
        key(
            "says",
            Kind::Text,
            "no * left",
            "Words of the message beside one of these; `*` stands for anything. Messages quote prompts.",
        ),
        needed("class", Kind::Word(reported_classes), "overloaded", "What the error is. Needed."),
    ],
    sample: SampleStyle::Text(""),
    ..Table::EMPTY
};

/// The headers of a server's answers.
const OWN_HEADERS: Table = Table {
    title: "`headers` of `quirks`",
    keys: &[
        key(
            "wait",
            Kind::Text,
            "x-slow-down",
            "How long to wait: seconds, a duration with units, or a date; a bare number is milliseconds where the name \
             ends with -ms. `retry-after` counts, too: the longer one.",
        ),
        key("request_id", Kind::Text, "x-trace", "Its id of the request, for its support."),
        key("cost", Kind::Text, "x-price-usd", "The cost of the answer in dollars."),
        key("requests_limit", Kind::Text, "x-calls", "The limit of requests."),
        key("requests_remaining", Kind::Text, "x-calls-left", "What is left of it."),
        key("requests_reset", Kind::Text, "x-calls-again", "When it is whole again: seconds, a duration, or a date."),
        key("tokens_limit", Kind::Text, "x-tokens", "The limit of tokens."),
        key("tokens_remaining", Kind::Text, "x-tokens-left", "What is left of it."),
        key("tokens_reset", Kind::Text, "x-tokens-again", "When it is whole again."),
    ],
    sample: SampleStyle::Text(""),
    ..Table::EMPTY
};

/// The places of counts in a server's answers.
const USAGE_PLACES: Table = Table {
    title: "`usage` of `quirks`",
    keys: &[
        key(
            "input",
            Kind::Text,
            "/meta/tokens/in",
            "A JSON pointer to the tokens of the prompt, those from the cache included.",
        ),
        key("output", Kind::Text, "/meta/tokens/out", "The same to those of the answer."),
        key("cached_input", Kind::Text, "/meta/tokens/cached", "To the part of the prompt that came from the cache."),
        key("reasoning", Kind::Text, "/meta/tokens/thought", "To the part of the answer that was reasoning."),
        key("cost", Kind::Text, "/meta/usd", "To the cost in dollars; zero and absurd numbers are no cost."),
    ],
    sample: SampleStyle::Text(""),
    ..Table::EMPTY
};
