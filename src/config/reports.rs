//! `report` of `[schedules.NAME]`.

use super::{Alerts, scalar};
use super::section::Section;
use crate::domain::bounds;
use crate::domain::report::{ReportBy, ReportKind, says_nothing};
use crate::domain::schedule::report::{ReportForm, ReportGoesTo, TickReport};
use crate::domain::schedule::{BATCH_NAMES, TickSource};
use crate::domain::template::Template;
use std::time::Duration;

const WHERE: &str = "file = \"costs-{tick}.csv\" or receiver = \"NAME\"";
const FILE: &str = "a path such as \"reports/{name}-{tick}.csv\"";

/// The keys of a schedule that say something of jobs.
const OF_JOBS: [&str; 12] = [
    "route",
    "project",
    "batch",
    "priority",
    "deadline",
    "max_attempts",
    "overlap",
    "prompt",
    "system",
    "id_column",
    "keep",
    "sql_timeout",
];

/// Reads the report of a schedule; `None`: it has none, or a faulty one.
pub(super) fn read(section: &mut Section<'_>, alerts: &Alerts) -> Option<TickSource> {
    if !section.has("report") {
        return None;
    }
    for key in OF_JOBS.into_iter().filter(|key| section.has(key)) {
        section.fault(key, "is for jobs, and a report enqueues none", "no such key beside report");
    }
    let mut table = section.child("report");
    let kind = read_kind(&mut table);
    let by = table.parsed_list("by", "a list such as [\"project\", \"day\"]", |text| {
        ReportBy::named(text).ok_or_else(|| not_one_of(text, "dimension", &ReportBy::names()))
    });
    let by = by.unwrap_or_default();
    if let Some(reason) = kind.and_then(|kind| says_nothing(kind, &by)) {
        table.fault("by", reason.replace("--by", "by"), "other dimensions");
    }
    let since = table.duration_of_at_least("since", Duration::from_secs(3_600));
    let [project, route, batch, login] = ["project", "route", "batch", "login"].map(|key| {
        table.parsed(key, "a name", |text| {
            if text.trim().is_empty() {
                return Err("is empty".to_owned());
            }
            bounds::check(key, text).map(|()| text.to_owned())
        })
    });
    if kind == Some(ReportKind::Cache) {
        for (key, _) in [("batch", &batch), ("login", &login)].iter().filter(|(_, given)| given.is_some()) {
            table.fault(key, "is nothing by which the savings of the cache are kept", "no such key");
        }
    }
    let receivers: Vec<&str> = alerts.receivers.iter().map(|receiver| receiver.name.as_str()).collect();
    let to = read_to(&mut table, &receivers);
    let source = alerts.settings.source.clone();
    table.finish();
    Some(TickSource::Report(Box::new(TickReport {
        kind: kind?,
        by,
        since,
        project,
        route,
        batch,
        login,
        to: to?,
        source,
    })))
}

fn read_kind(table: &mut Section<'_>) -> Option<ReportKind> {
    let expected = table.words("kind");
    if !table.has("kind") {
        table.fault("kind", "is missing", expected);
        return None;
    }
    table.parsed("kind", &expected, |text| {
        ReportKind::named(text).ok_or_else(|| not_one_of(text, "report", &ReportKind::names()))
    })
}

fn not_one_of(text: &str, what: &str, names: &[&str]) -> String {
    match scalar::nearest(text, names.iter().copied()) {
        Some(near) => format!("{text:?} is no {what}; perhaps {near:?} is meant"),
        None => format!("{text:?} is no {what}; there are {}", names.join(", ")),
    }
}

fn read_to(table: &mut Section<'_>, receivers: &[&str]) -> Option<ReportGoesTo> {
    match (table.has("file"), table.has("receiver")) {
        (false, false) => {
            table.fault("", "it does not say where the report goes", WHERE);
            None
        }
        (true, true) => {
            table.take("file");
            table.take("receiver");
            table.fault("receiver", "file is said as well", WHERE);
            None
        }
        (true, false) => read_file(table),
        (false, true) => table.parsed("receiver", "the name of a receiver of alerts", |name| {
            if receivers.contains(&name) {
                return Ok(ReportGoesTo::Receiver(name.to_owned()));
            }
            Err(match scalar::nearest(name, receivers.iter().copied()) {
                Some(near) => format!("there is no [alerts.receivers.{name}]; perhaps {near:?} is meant"),
                None => format!("there is no [alerts.receivers.{name}]"),
            })
        }),
    }
}

fn read_file(table: &mut Section<'_>) -> Option<ReportGoesTo> {
    let path = table.path("file")?;
    let given = path.file_name().and_then(|name| name.to_str()).zip(path.parent());
    let Some((name, folder)) = given else {
        table.fault("file", format!("{} names no file", path.display()), FILE);
        return None;
    };
    let Some(form) = ReportForm::of_name(name) else {
        table.fault("file", format!("{name:?} ends in neither .csv nor .json"), FILE);
        return None;
    };
    let braces = |text: &str| text.contains(['{', '}']);
    if folder.to_str().is_some_and(braces) {
        table.fault("file", format!("the folder {} has braces: only the name of the file can", folder.display()), FILE);
        return None;
    }
    let name = match Template::parse(name) {
        Ok(name) => name,
        Err(fault) => {
            table.fault("file", fault.reason, FILE);
            return None;
        }
    };
    if let Some(unknown) = name.names().find(|name| !BATCH_NAMES.contains(name)) {
        let problem = format!("{{{unknown}}} is nothing that a tick has; there are {}", BATCH_NAMES.join(", "));
        table.fault("file", problem, FILE);
        return None;
    }
    if !folder.is_dir() {
        let key = table.key_in_file("file");
        // It may be mounted before the tick.
        table.reading().warn(format!("{key}: there is no folder {} yet", folder.display()));
    }
    let written = path.display().to_string();
    Some(ReportGoesTo::File { folder: folder.to_owned(), name, written, form })
}
