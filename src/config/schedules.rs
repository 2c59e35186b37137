//! `[schedules.NAME]`.

use super::route::RouteConfig;
use super::section::{Section, to_json};
use super::words::{CATCH_UPS, OVERLAPS};
use super::{Alerts, reports, scalar};
use crate::domain::schedule::crontab::EXPECTED;
use crate::domain::schedule::{
    BATCH_NAMES, CatchUp, CronLine, Overlap, RowQuestion, Schedule, TickSource, USUAL_BATCH, Zone,
};
use crate::domain::template::Template;
use crate::domain::{Defaults, StopLoss, bounds};
use config::ValueKind;
use std::collections::BTreeMap;
use std::time::Duration;

const SOURCES: [&str; 4] = ["file", "sql", "request", "report"];
const SOURCE: &str = "one of file, sql, request and report";
const BATCH: &str = "a name such as \"{name}-{tick}\"";

/// Reads all schedules.
pub(super) fn read_all(
    sections: Vec<(String, Section<'_>)>,
    routes: &BTreeMap<String, RouteConfig>,
    alerts: &Alerts,
) -> Vec<Schedule> {
    let mut schedules: Vec<Schedule> = Vec::new();
    for (name, section) in sections {
        let schedule = read_one(name, section, routes, alerts, &schedules);
        schedules.extend(schedule);
    }
    schedules
}

fn read_one(
    name: String,
    mut section: Section<'_>,
    routes: &BTreeMap<String, RouteConfig>,
    alerts: &Alerts,
    earlier: &[Schedule],
) -> Option<Schedule> {
    // It is read first: what else is said is of jobs.
    let is_report = section.has("report");
    let report = reports::read(&mut section, routes, alerts);
    let line = read_line(&mut section);
    let zone = read_zone(&mut section);
    let route = section.parsed_or_default("route", "the name of a route", not_empty);
    if !is_report && !routes.is_empty() && !routes.contains_key(&route) {
        let expected = match scalar::nearest(&route, routes.keys().map(String::as_str)) {
            Some(near) => format!("perhaps {near}"),
            None => format!("a section [routes.{route}]"),
        };
        section.fault("route", format!("there is no route {route:?}"), expected);
    }
    let source = read_source(&mut section, routes.get(&route), report, is_report);
    let question = read_question(&mut section, source.as_ref());
    let overlap = section.word_or_default("overlap", "says nothing of ticks that overlap", OVERLAPS);
    let catch_up = section.word_or_default("catch_up", "says nothing of ticks that were missed", CATCH_UPS);
    if catch_up == CatchUp::All && overlap == Overlap::Skip && !is_report {
        let key = section.key_in_file("catch_up");
        section.reading().warn(format!(
            "{key}: with overlap = \"skip\" only one tick is made up for at a time, and the others are left out: set \
             overlap = \"allow\""
        ));
    }
    let schedule = Schedule {
        zone: zone.unwrap_or_default(),
        is_enabled: section.flag_or_default("enabled"),
        overlap,
        catch_up,
        catch_up_within: section.positive_duration_or_default("catch_up_within"),
        catch_up_limit: section.whole_or_default("catch_up_limit"),
        question,
        sql_timeout: section.positive_duration_or_default("sql_timeout"),
        project: section.parsed_or_default("project", "the name of a project", not_empty),
        batch: read_batch(&mut section),
        priority: section.whole_or_default("priority"),
        deadline: section.duration_of_at_least("deadline", Duration::from_secs(1)),
        max_attempts: section.whole("max_attempts"),
        stop_loss: routes.get(&route).map_or_else(StopLoss::default, |route| route.stop_loss),
        route,
        line: line?,
        source: source?,
        name,
    };
    for (key, value) in [("route", &schedule.route), ("project", &schedule.project)] {
        if let Err(reason) = bounds::check(key, value) {
            section.fault(key, reason, "a shorter name");
        }
    }
    check_batch(&section, &schedule);
    reports::check_file(&section, &schedule, earlier);
    section.finish();
    Some(schedule)
}

fn not_empty(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
}

fn read_line(section: &mut Section<'_>) -> Option<CronLine> {
    if !section.has("cron") {
        section.fault("cron", "is missing", EXPECTED);
        return None;
    }
    section.parsed("cron", EXPECTED, CronLine::parse)
}

fn read_zone(section: &mut Section<'_>) -> Option<Zone> {
    const ZONE: &str = "a name of the IANA database such as \"Europe/Berlin\"";
    section.parsed("timezone", ZONE, |text| {
        Zone::parse(text).map_err(|problem| match scalar::nearest(text, Zone::names()) {
            Some(near) => format!("{problem}; perhaps {near:?} is meant"),
            None => problem,
        })
    })
}

fn read_batch(section: &mut Section<'_>) -> Template {
    section.parsed_or_default("batch", BATCH, |text| {
        let template = Template::parse(text).map_err(|fault| fault.reason)?;
        if let Some(name) = template.names().find(|name| !BATCH_NAMES.contains(name)) {
            return Err(format!("{{{name}}} is nothing that a tick has; there are {}", BATCH_NAMES.join(", ")));
        }
        if text.trim().is_empty() { Err("is empty".to_owned()) } else { Ok(template) }
    })
}

/// One batch for all ticks goes, but two ticks are then not told apart, and a name may be too long.
fn check_batch(section: &Section<'_>, schedule: &Schedule) {
    let name = schedule.batch_of(crate::domain::Timestamp(0), true).unwrap_or_default();
    if let Err(reason) = bounds::check("batch", &name) {
        section.fault("batch", reason, "a shorter name");
    }
    debug_assert!(Template::parse(USUAL_BATCH).is_ok());
}

/// What a tick does. `report`: the one that was read before, if it has one (`is_report`) that is in order.
fn read_source(
    section: &mut Section<'_>,
    route: Option<&RouteConfig>,
    report: Option<TickSource>,
    is_report: bool,
) -> Option<TickSource> {
    let is_given = |key: &&str| section.has(key) || (is_report && *key == "report");
    let given: Vec<&str> = SOURCES.into_iter().filter(is_given).collect();
    if given.is_empty() {
        section.fault("", "it does not say where its jobs come from, or what it reports", SOURCE);
    }
    if let [first, second, ..] = given.as_slice() {
        section.fault(second, format!("{first} is said as well"), SOURCE);
    }
    let file = section.path("file").map(|path| {
        if path.symlink_metadata().is_err() {
            let key = section.key_in_file("file");
            // It may be written just before the tick.
            section.reading().warn(format!("{key}: there is no {} yet", path.display()));
        }
        TickSource::File(path)
    });
    let sql = section.parsed("sql", "a statement such as \"select …\"", |text| {
        let statement = text.trim().trim_end_matches(';').trim();
        if statement.is_empty() { Err("is empty".to_owned()) } else { Ok(TickSource::Sql(statement.to_owned())) }
    });
    let request = read_request(section, route);
    if given.len() > 1 { None } else { file.or(sql).or(request).or(report) }
}

fn read_request(section: &mut Section<'_>, route: Option<&RouteConfig>) -> Option<TickSource> {
    const REQUEST: &str = "a request such as { prompt = \"What is new?\" }";
    let value = section.take("request")?;
    let text = match &value.kind {
        ValueKind::Table(_) => to_json(&value).to_string(),
        // On one line, as a line of a file is.
        ValueKind::String(text) => match serde_json::from_str::<serde_json::Value>(text) {
            Ok(json) => json.to_string(),
            Err(error) => {
                section.fault("request", format!("is not JSON ({})", without_place(&error)), REQUEST);
                return None;
            }
        },
        _ => {
            section.fault("request", "is neither a table nor a text", REQUEST);
            return None;
        }
    };
    let read = match route {
        Some(route) => route.route.defaults.read(&text),
        None => Defaults::default().read(&text),
    };
    if let Err(fault) = read {
        section.fault("request", fault.to_string(), REQUEST);
        return None;
    }
    Some(TickSource::Request(text))
}

fn without_place(error: &serde_json::Error) -> String {
    format!("line {}, column {}", error.line(), error.column())
}

fn read_question(section: &mut Section<'_>, source: Option<&TickSource>) -> RowQuestion {
    let keys = ["prompt", "system", "id_column", "keep"];
    if let (Some(TickSource::Request(_)), Some(key)) = (source, keys.into_iter().find(|key| section.has(key))) {
        section.fault(key, "is for the rows of a file or a statement", "no such key beside request");
    }
    let text = |section: &mut Section<'_>, key| {
        section.parsed(key, "a text such as \"Classify: {text}\"", |text| {
            not_empty(text)?;
            Template::parse(text).map_err(|fault| fault.reason)
        })
    };
    RowQuestion {
        prompt: text(section, "prompt"),
        system: text(section, "system"),
        id_column: section.text("id_column", "the name of a column"),
        keep: section.parsed_list("keep", "a list of columns such as [\"id\", \"lang\"]", not_empty),
    }
}
