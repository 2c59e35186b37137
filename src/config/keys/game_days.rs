//! `[game_days.NAME]`.

use super::{Kind, TEXTS, Table, depends, needed};
use crate::config::words::{GAME_FAULTS, names};

pub(in crate::config) const GAME_DAY: Table = Table {
    header: Some("[game_days.friday]"),
    title: "[game_days.NAME]",
    doc: "A time in which a share of the calls to some targets fails on purpose, to see the fallback work \
          (docs/operations.md, game days). Such a call is never sent and costs nothing; its job goes on as after any \
          failure of the kind.",
    keys: &[
        needed("targets", TEXTS, "[\"openai\"]", "Which calls: providers, or models as \"provider/model\"."),
        needed("share", Kind::Share, "0.2", "The share of those calls that fail."),
        depends(
            "faults",
            Kind::List(&Kind::Word(|| names(GAME_FAULTS))),
            "[\"overloaded\"]",
            "both",
            "What they fail of: \"overloaded\" (as HTTP 503) and \"server_error\" (as HTTP 500).",
        ),
        needed("from", Kind::Text, "2026-12-04T10:00:00Z", "When it begins (RFC 3339)."),
        needed("until", Kind::Text, "2026-12-04T11:00:00Z", "When it ends by itself, at most 24 hours later."),
    ],
    ..Table::EMPTY
};
