//! `[models."provider/model"]`.

use super::providers::OWN_LIMITS;
use super::{Kind, TEXTS, Table, depends, instead, key, needed};

pub(in crate::config) const MODEL: Table = Table {
    header: Some("[models.\"local/qwen3-32b\"]"),
    title: "[models.\"PROVIDER/MODEL\"]",
    doc: "Models: only where the catalogue (config/prices.toml) is to be overridden or has nothing.",
    keys: &[
        key(
            "price",
            Kind::Table(&PRICE),
            "{ input = \"0\", output = \"0\" }",
            "Dollars per million tokens; also cached_input, cache_write, cache_write_1h.",
        ),
        key(
            "tiers",
            Kind::Map(&Kind::Either(&[Kind::Money, Kind::Table(&PRICE)])),
            "{ flex = \"0.5\", priority = { input = \"1\", output = \"4\" } }",
            "Other tiers: how many times the price, or prices of their own.",
        ),
        key(
            "peak_hours",
            TEXTS,
            "[\"mon-fri 01:00-04:00\", \"22:00-06:00\"]",
            "Hours (UTC) in which the price holds; at others it is `off_peak`.",
        ),
        key(
            "off_peak",
            Kind::Either(&[Kind::Money, Kind::Table(&PRICE)]),
            "\"0.5\"",
            "Outside `peak_hours`: how many times the price, or prices of its own.",
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
        depends("temperature", Kind::Flag, "true", UNKNOWN, "Whether it takes sampling parameters."),
        depends("limits", OWN_LIMITS, "{ requests_per_minute = 500 }", "its provider's", "Limits of this model alone."),
        instead("bucket", Kind::Text, "shared", "Instead of limits: those of [buckets.shared]."),
    ],
    ..Table::EMPTY
};

const AMOUNT: Kind = Kind::Whole(1, i64::MAX);

const UNKNOWN: &str = "the catalogue's fact about the model; without one, yes";

/// The price of a million tokens.
pub(in crate::config) const PRICE: Table = Table {
    title: "`price` of a model or tier",
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
    ],
    ..Table::EMPTY
};
