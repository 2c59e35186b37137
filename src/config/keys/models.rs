//! `[models."provider/model"]`.

use super::providers::OWN_LIMITS;
use super::{Key, Kind, SampleStyle, TEXTS, Table, depends, instead, key, needed, with_default};

pub(in crate::config) const PRICES: Table = Table {
    header: Some("[prices]"),
    title: "[prices]",
    doc: "Where prices come from, and when they are doubted (docs/prices.md).",
    keys: &[
        depends(
            "catalogue",
            Kind::Path,
            "prices.toml",
            "`prices.toml` beside this file, where there is one",
            "A newer catalogue of prices than the one that comes with the program: `sluice prices update` writes it.",
        ),
        with_default(
            "reported_difference",
            Kind::Share,
            "0.05",
            "A cost that a provider reports is an alert if it differs from the computed one by a larger share of that.",
        ),
    ],
    ..Table::EMPTY
};

pub(in crate::config) const MODEL: Table = Table {
    header: Some("[models.\"local/qwen3-32b\"]"),
    title: "[models.\"PROVIDER/MODEL\"]",
    doc: "Models: only where the catalogue (config/prices.toml) is to be overridden or has nothing.",
    keys: &[
        PRICE_KEY,
        TIERS_KEY,
        PEAK_HOURS_KEY,
        OFF_PEAK_KEY,
        key(
            "changes",
            Kind::List(&Kind::Table(&CHANGE)),
            "[{ from = \"2027-01-01\", price = { input = \"0.10\", output = \"0.20\" } }]",
            "What it costs from certain days on, the earliest first. Each holds until the next.",
        ),
        key("served_as", TEXTS, "[\"qwen\"]", "Names in answers that are this model; [\"*\"]: any."),
        key("context_window", AMOUNT, "32768", "Tokens of input and output together."),
        key("max_output_tokens", AMOUNT, "8192", "Tokens of an answer at most."),
        depends(
            "output_burndown",
            Kind::Whole(1, 100),
            "5",
            "the catalogue's figure, or else 1",
            "How many tokens of a limit one token of output takes.",
        ),
        depends("json_schema", Kind::Flag, "true", UNKNOWN, "Whether it takes a JSON schema."),
        depends("tools", Kind::Flag, "true", UNKNOWN, "Whether it takes tools."),
        depends("images", Kind::Flag, "false", UNKNOWN, "Whether it takes images."),
        depends("files", Kind::Flag, "false", UNKNOWN, "Whether it takes files, as PDF."),
        depends("audio", Kind::Flag, "false", UNKNOWN, "Whether it takes sounds."),
        depends("temperature", Kind::Flag, "true", UNKNOWN, "Whether it takes sampling parameters."),
        depends("limits", OWN_LIMITS, "{ requests_per_minute = 500 }", "its provider's", "Limits of this model alone."),
        instead("bucket", Kind::Text, "shared", "Instead of limits: those of [buckets.shared]."),
    ],
    ..Table::EMPTY
};

const AMOUNT: Kind = Kind::Whole(1, i64::MAX);

const UNKNOWN: &str = "the catalogue's fact about the model; without one, yes";

const PRICE_KEY: Key = key(
    "price",
    Kind::Table(&PRICE),
    "{ input = \"0\", output = \"0\" }",
    "Dollars per million tokens; also cached_input, cache_write, cache_write_1h, reasoning, above.",
);

const TIERS_KEY: Key = key(
    "tiers",
    Kind::Map(&Kind::Either(&[Kind::Money, Kind::Table(&PRICE)])),
    "{ flex = \"0.5\", priority = { input = \"1\", output = \"4\" } }",
    "Other tiers: how many times the price, or prices of their own.",
);

const PEAK_HOURS_KEY: Key = key(
    "peak_hours",
    TEXTS,
    "[\"mon-fri 01:00-04:00\", \"22:00-06:00\"]",
    "Hours (UTC) in which the price holds; at others it is `off_peak`.",
);

const OFF_PEAK_KEY: Key = key(
    "off_peak",
    Kind::Either(&[Kind::Money, Kind::Table(&PRICE)]),
    "\"0.5\"",
    "Outside `peak_hours`: how many times the price, or prices of its own.",
);

/// What a model costs from a day on.
pub(in crate::config) const CHANGE: Table = Table {
    title: "one of `changes` of a model",
    keys: &[
        needed("from", Kind::Text, "2027-01-01", "The first day (UTC). Needed."),
        PRICE_KEY,
        TIERS_KEY,
        PEAK_HOURS_KEY,
        OFF_PEAK_KEY,
    ],
    sample: SampleStyle::Text(""),
    ..Table::EMPTY
};

/// The price of a million tokens, by the length of the prompt.
pub(in crate::config) const PRICE: Table = Table {
    title: "`price` of a model or tier",
    extends: Some(&PLAIN_PRICE),
    keys: &[key(
        "above",
        Kind::List(&Kind::Table(&ABOVE)),
        "[{ input_tokens = 200000, price = { input = \"0.30\", output = \"0.90\" } }]",
        "Dearer prices of calls with longer prompts, the lowest threshold first.",
    )],
    ..Table::EMPTY
};

/// The price beyond a length of the prompt.
pub(in crate::config) const ABOVE: Table = Table {
    title: "one of `above` of a price",
    keys: &[
        needed(
            "input_tokens",
            AMOUNT,
            "200000",
            "The price holds for the whole call if its input, cached or not, is longer than this. Needed.",
        ),
        needed("price", Kind::Table(&PLAIN_PRICE), "{ input = \"0.30\", output = \"0.90\" }", "That price. Needed."),
    ],
    sample: SampleStyle::Text(""),
    ..Table::EMPTY
};

/// The price of a million tokens.
pub(in crate::config) const PLAIN_PRICE: Table = Table {
    title: "`price` of one of `above`",
    keys: &[
        needed("input", Kind::Money, "0.15", "Dollars per million tokens of input. Needed."),
        needed("output", Kind::Money, "0.60", "Dollars per million tokens of output. Needed."),
        depends("cached_input", Kind::Money, "0.075", "as input", "Input that was read from the cache."),
        depends("cache_write", Kind::Money, "", "as input", "Input that was written to the cache."),
        depends(
            "cache_write_1h",
            Kind::Money,
            "",
            "as cache_write",
            "Input that was written to the cache for an hour.",
        ),
        depends("reasoning", Kind::Money, "", "as output", "The part of the output that was reasoning."),
    ],
    ..Table::EMPTY
};
