//! `[schedules.NAME]`.

use super::{Kind, SampleStyle, TEXTS, Table, instead, key, needed, with_default};
use crate::config::words::{CATCH_UPS, OVERLAPS, names};
use crate::domain::report::ReportKind;

pub(in crate::config) const SCHEDULE: Table = Table {
    header: Some("[schedules.nightly]"),
    title: "[schedules.NAME]",
    doc: "A batch that is enqueued by the clock, by whichever worker is there, once (docs/schedules.md). Its jobs come \
          from one of file, sql and request; or a report that is made by the clock.",
    keys: &[
        needed(
            "cron",
            Kind::Text,
            "0 2 * * *",
            "When, as a crontab says it: minute, hour, day of the month, month, day of the week; or @daily and its \
             kind. A sixth field before these is for seconds.",
        ),
        with_default("timezone", Kind::Text, "UTC", "Whose local time that is: a name such as \"Europe/Berlin\"."),
        key("file", Kind::Path, "nightly.jsonl", "A file as `sluice enqueue` reads it, as it is at the tick."),
        instead(
            "sql",
            Kind::Text,
            "select id as custom_id, body as text from review where is_new",
            "Or a statement that only reads, whose rows are the jobs: the columns go into the template of the route.",
        ),
        instead(
            "request",
            Kind::Any,
            "{ prompt = \"What is new?\" }",
            "Or one request, as a table or as JSON in a text.",
        ),
        instead(
            "report",
            Kind::Table(&REPORT),
            "{ kind = \"cost\", since = \"7d\", receiver = \"ops\" }",
            "Or no jobs, and a report as `sluice report` makes it, to a file or to a receiver of alerts.",
        ),
        with_default("route", Kind::Text, "default", "The route of the jobs."),
        with_default("project", Kind::Text, "default", "The project that pays."),
        with_default(
            "batch",
            Kind::Text,
            "{name}-{tick}",
            "The name of each tick's batch: {name}, {tick}, {date}, {time} and {month} stand for those of the tick, in \
             local time.",
        ),
        with_default("priority", Kind::Whole(-1000, 1000), "0", "Higher goes first."),
        key("deadline", Kind::Duration, "6h", "No call is made later than this after the tick."),
        key("max_attempts", Kind::Whole(1, 32_767), "3", "Attempts for each job; without it as the route says."),
        with_default(
            "overlap",
            Kind::Word(|| names(OVERLAPS)),
            "skip",
            "When jobs of the last tick have not ended: \"skip\" leaves the tick out, \"allow\" enqueues all the same.",
        ),
        with_default(
            "catch_up",
            Kind::Word(|| names(CATCH_UPS)),
            "last",
            "Ticks that came while no worker was there: \"none\" leaves them out, \"last\" makes up for the last one, \
             \"all\" for each.",
        ),
        with_default("catch_up_within", Kind::Duration, "7d", "A tick that is older is not made up for."),
        with_default("catch_up_limit", Kind::Whole(1, 1000), "24", "The most ticks that are made up for at once."),
        with_default("enabled", Kind::Flag, "true", "false: it never fires, and can still be run by hand."),
        key("prompt", Kind::Text, "Classify: {text}", "What is asked of each row of a table, as --prompt says it."),
        key("system", Kind::Text, "You are brief.", "Instructions before that."),
        key("id_column", Kind::Text, "id", "The column that names each job; without it custom_id."),
        key("keep", TEXTS, "[\"id\", \"lang\"]", "The columns that are kept as metadata; without it all others."),
        with_default("sql_timeout", Kind::Duration, "5m", "How long the statement may take."),
    ],
    ..Table::EMPTY
};

/// The report of a schedule.
const REPORT: Table = Table {
    title: "`report` of a schedule",
    keys: &[
        needed("kind", Kind::Word(ReportKind::names), "cost", "Which report: see `sluice report --help`. Needed."),
        key("by", TEXTS, "[\"project\", \"day\"]", "What it is grouped by, as --by says it."),
        key(
            "since",
            Kind::Duration,
            "7d",
            "It covers so many whole hours, up to the last full hour before the tick; without it all.",
        ),
        key("project", Kind::Text, "reviews", "Only this project."),
        key("route", Kind::Text, "default", "Only this route."),
        key("batch", Kind::Text, "nightly", "Only this batch."),
        key("login", Kind::Text, "app", "Only jobs that this login enqueued."),
        key(
            "file",
            Kind::Path,
            "costs-{tick}.csv",
            "A file ending in .csv or .json, in a folder that is there. In its name stand {name}, {tick}, {date}, \
             {time} and {month}. One that is there is replaced.",
        ),
        key("receiver", Kind::Text, "ops", "Or this receiver: the name of one of [alerts.receivers.NAME]."),
    ],
    sample: SampleStyle::Text(""),
    ..Table::EMPTY
};
