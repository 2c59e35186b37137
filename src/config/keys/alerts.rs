//! `[alerts]`.

use super::{Key, Kind, SampleStyle, TEXTS, Table, depends, instead, key, with_default};
use crate::config::words::{HOOK_FORMATS, SEVERITIES, names};

pub(in crate::config) const ALERTS: Table = Table {
    header: Some("[alerts]"),
    title: "[alerts]",
    doc: "What an operator is told of without asking (docs/alerts.md). One worker at a time looks for all, so all \
          workers of a database should have the same section.",
    is_on: true,
    keys: &[
        with_default("every", Kind::Duration, "30s", "How often a worker looks: from \"1s\" to \"1m\"."),
        with_default("clear", Kind::Duration, "2m", "How long something has to be gone before it counts as over."),
        with_default("repeat", Kind::Duration, "4h", "How long until a reminder comes; \"0s\": never."),
        with_default("keep", Kind::Duration, "30d", "How long alerts that are over, and sent messages, are kept."),
        key("source", Kind::Text, "production", "What messages say they are from."),
        Key { name: "rules", kind: Kind::Table(&RULES), ..Key::EMPTY },
        Key { name: "receivers", kind: Kind::Named(&RECEIVER), ..Key::EMPTY },
    ],
    ..Table::EMPTY
};

pub(in crate::config) const RECEIVER: Table = Table {
    header: Some("[alerts.receivers.ops]"),
    title: "[alerts.receivers.NAME]",
    doc: "Where messages are posted to. The address may be a secret, as that of Slack is: keep it in a variable, a \
          file or a credential.",
    keys: &[
        key("url_env", Kind::Text, "SLUICE_OPS_URL", "The variable of the environment that holds the address."),
        instead("url_file", Kind::Path, "ops.url", "Instead: a file that holds nothing but the address."),
        instead("credential", Kind::Text, "ops_url", "Instead: a systemd credential (LoadCredential=ops_url:PATH)."),
        instead("url", Kind::Text, "https://ops.example.com/sluice", "Instead: the address, where it is no secret."),
        with_default(
            "format",
            Kind::Word(|| names(HOOK_FORMATS)),
            "generic",
            "\"generic\": the whole message as JSON. \"slack\": what incoming webhooks of Slack and its kin take.",
        ),
        key(
            "secret_env",
            Kind::Text,
            "SLUICE_OPS_SECRET",
            "The variable that holds the signing secret, whsec_ and base64 of 24 to 64 bytes; generic messages alone \
             are signed.",
        ),
        instead("secret_file", Kind::Path, "ops.secret", "Instead: a file that holds nothing but the secret."),
        instead("secret_credential", Kind::Text, "ops_secret", "Instead: a systemd credential."),
        depends(
            "rules",
            TEXTS,
            "[\"stuck_queue\", \"budget_full\"]",
            "all of them",
            "The rules whose alerts it takes.",
        ),
        with_default("severity", Kind::Word(|| names(SEVERITIES)), "warning", "The mildest severity that it takes."),
        with_default("timeout", Kind::Duration, "10s", "How long one message may take, up to \"1m\"."),
    ],
    ..Table::EMPTY
};

/// The keys that every rule has.
macro_rules! rule {
    ($name:literal, $severity:literal, $hold:literal, $doc:literal $(, $key:expr)* $(,)?) => {{
        const TABLE: Table = Table {
            title: concat!("`", $name, "` of [alerts.rules]"),
            keys: &[
                with_default("on", Kind::Flag, "true", "Whether it is used."),
                with_default("severity", Kind::Word(|| names(SEVERITIES)), $severity, "How grave it is."),
                with_default("for", Kind::Duration, $hold, "For how long it has to be seen before it fires."),
                $($key,)*
            ],
            ..Table::EMPTY
        };
        Key { name: $name, kind: Kind::Table(&TABLE), doc: $doc, ..Key::EMPTY }
    }};
}

const CALLS: Kind = Kind::Whole(1, 1_000_000_000);

const RULES: Table = Table {
    header: Some("[alerts.rules]"),
    title: "[alerts.rules]",
    doc: "The rules, with what holds without a line here. on = false switches one off.",
    is_on: true,
    sample: SampleStyle::EachKey,
    keys: &[
        rule!("breaker_open", "warning", "2m", "A target fails, or its health probe does, and is not called."),
        rule!(
            "fallback_share",
            "warning",
            "0s",
            "Too many answers of a route do not come from the first choice.",
            with_default("share", Kind::Share, "0.2", "The share of answers."),
            with_default("window", Kind::Duration, "30m", "Over which time."),
            with_default("answers", CALLS, "50", "Fewer answers are no alert."),
        ),
        rule!(
            "dearer_rung",
            "warning",
            "0s",
            "Answers of a route cost more than at their first choice.",
            with_default("share", Kind::Share, "0.25", "How much more, as a share of that."),
            with_default("window", Kind::Duration, "1h", "Over which time."),
            with_default("amount", Kind::Money, "1.00", "Less money is no alert."),
        ),
        rule!("budget_soft", "warning", "0s", "A budget is past its soft threshold."),
        rule!("budget_short", "warning", "5m", "A budget does not cover the jobs that are left."),
        rule!("budget_full", "critical", "1m", "A budget has no room."),
        rule!("key_out", "warning", "0s", "A key is rejected or out of money."),
        rule!("stuck_answer", "warning", "0s", "A target gives the same long answer to different requests."),
        rule!(
            "unknown_price",
            "warning",
            "0s",
            "Calls have no known price.",
            with_default("calls", CALLS, "1", "Fewer calls of a day are no alert."),
        ),
        rule!(
            "cost_differs",
            "warning",
            "0s",
            "A provider reports another cost than was computed (prices.reported_difference).",
            with_default("calls", CALLS, "1", "Fewer calls of an hour are no alert."),
        ),
        rule!("stuck_queue", "critical", "15m", "A route has work, and none of it comes to an end."),
        rule!("stop_loss", "critical", "0s", "A batch is paused by its stop-loss."),
        rule!(
            "cost_spike",
            "critical",
            "0s",
            "The last hour has cost many times what an hour usually costs.",
            with_default("times", Kind::Whole(2, 1000), "3", "How many times."),
            with_default("amount", Kind::Money, "10.00", "Less money is no alert."),
        ),
        rule!("spool_in_use", "warning", "2m", "Answers wait on a worker's disk."),
        rule!("worker_lost", "warning", "0s", "A worker has died."),
        rule!("loop_lost", "critical", "0s", "A worker has stopped because a part of it failed."),
        rule!(
            "doctor",
            "critical",
            "0s",
            "The doctor has found something bad.",
            with_default("every", Kind::Duration, "15m", "How often it looks, at least \"1s\"."),
        ),
        rule!(
            "forgotten_pause",
            "warning",
            "0s",
            "Something has been paused for long.",
            with_default("age", Kind::Duration, "24h", "For how long."),
        ),
        rule!("batch_completed", "info", "0s", "The last job of a batch has ended: batch.completed."),
        rule!(
            "batch_failed",
            "warning",
            "0s",
            "The same, and too many jobs have failed: batch.failed.",
            with_default("share", Kind::Part, "0.5", "The share of jobs that may fail; 0: none."),
        ),
    ],
    ..Table::EMPTY
};
