//! `report` of `[schedules.NAME]`.

use super::route::RouteConfig;
use super::section::Section;
use super::{Alerts, scalar};
use crate::domain::report::{ReportBy, ReportKind, says_nothing};
use crate::domain::schedule::report::{ReportForm, ReportGoesTo, TickReport};
use crate::domain::schedule::{BATCH_NAMES, CatchUp, Schedule, TickSource};
use crate::domain::template::Template;
use crate::domain::{Timestamp, bounds};
use std::collections::BTreeMap;
use std::time::Duration;

const HOUR: Duration = Duration::from_hours(1);

/// The beginning of 2027: the ticks after it show which files have one name. A check says the same on each day.
const LOOKED_AT: Timestamp = Timestamp(1_798_761_600_000);

/// Bytes in the name of a file, so that there is room for what stands in its place while it is written.
const LONGEST_NAME: usize = 200;

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
pub(super) fn read(
    section: &mut Section<'_>,
    routes: &BTreeMap<String, RouteConfig>,
    alerts: &Alerts,
) -> Option<TickSource> {
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
    let since = read_since(&mut table);
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
    if let Some(route) = route.as_ref().filter(|route| !routes.is_empty() && !routes.contains_key(*route)) {
        let key = table.key_in_file("route");
        // There may be work of a route that was removed.
        table.reading().warn(format!("{key}: there is no route {route:?} any more, or not yet"));
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

fn read_since(table: &mut Section<'_>) -> Option<Duration> {
    let since = table.duration_of_at_least("since", HOUR)?;
    if since.as_secs().is_multiple_of(HOUR.as_secs()) && since.subsec_nanos() == 0 {
        return Some(since);
    }
    table.fault("since", "is no whole number of hours, and sums are kept by the hour", "such as \"24h\" or \"7d\"");
    None
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
    let file_name = name;
    let name = match Template::parse(file_name) {
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
    // What stands for the tick is hardly longer than its name in braces.
    if file_name.len() > LONGEST_NAME {
        table.fault("file", format!("the name of the file has more than {LONGEST_NAME} bytes"), "a shorter name");
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

/// No two schedules write one file, and ticks that are made up for do not replace each other's reports unseen.
pub(super) fn check_file(section: &Section<'_>, schedule: &Schedule, earlier: &[Schedule]) {
    let TickSource::Report(report) = &schedule.source else { return };
    let Some(ours) = report.to.file_for(&schedule.name) else { return };
    if let Some(other) = earlier.iter().find(|other| schedule.shares_file_with(other, LOOKED_AT)) {
        let problem = format!("schedule {} writes the same file, so each would replace the other's report", other.name);
        section.fault("report.file", problem, FILE);
    }
    let is_of_tick = ours.to_str().is_some_and(|path| path.contains('{'));
    if schedule.catch_up == CatchUp::All && !is_of_tick {
        let key = section.key_in_file("report.file");
        section.reading().warn(format!(
            "{key}: of ticks that are made up for (catch_up = \"all\") only the last report is left, as all have one \
             file: put {{tick}} into its name"
        ));
    }
    if is_of_tick && let Some(file) = schedule.file_of_two_ticks(LOOKED_AT) {
        let key = section.key_in_file("report.file");
        section.reading().warn(format!(
            "{key}: two ticks that follow each other can have one file, as {}, and the second replaces the first's \
             report: put {{tick}} into its name unless that is meant",
            file.display()
        ));
    }
}
