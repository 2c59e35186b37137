//! What all jobs of an enqueue have in common, as the arguments say it: the name of the batch above all.

use super::{Again, Args};
use crate::cli::failure::CommandFailure;
use crate::cli::when::GivenTime;
use crate::domain::{Timestamp, bounds};
use crate::input::InputSource;
use crate::store::enqueue::BulkOptions;
use chrono::{DateTime, Utc};

/// What all jobs of an enqueue have in common.
///
/// # Errors
/// [`CommandFailure`] when the arguments do not go together.
pub(super) fn bulk_options(
    args: &Args,
    source: &InputSource,
    now: DateTime<Utc>,
) -> Result<BulkOptions, CommandFailure> {
    let instant = |when: Option<GivenTime>, name: &str| match when.map(|when| when.from(now)) {
        None => Ok(None),
        Some(None) => Err(CommandFailure::usage(format!("{name}: that is too far in the future"))),
        Some(at) => Ok(at),
    };
    let run_at = instant(args.run_at, "--run-at")?;
    let deadline = instant(args.deadline, "--deadline")?;
    if deadline.is_some_and(|deadline| deadline <= now.max(run_at.unwrap_or(now))) {
        return Err(CommandFailure::usage(
            "--deadline: every job would fail, as it lies in the past or before --run-at",
        ));
    }
    let timestamp = |at: DateTime<Utc>| Timestamp(at.timestamp_millis());
    let options = BulkOptions {
        route: args.route.clone().unwrap_or_else(|| "default".to_owned()),
        project: args.project.clone().unwrap_or_else(|| "default".to_owned()),
        batch: Some(batch_name(args, source, now)?),
        priority: args.priority.unwrap_or(0),
        run_at: run_at.map(timestamp),
        deadline: deadline.map(timestamp),
        max_attempts: args.max_attempts,
    };
    let names =
        [("route", Some(&options.route)), ("project", Some(&options.project)), ("batch", options.batch.as_ref())];
    for (column, name) in names {
        let name = name.map_or("", String::as_str);
        bounds::check(column, name).map_err(|reason| CommandFailure::usage(format!("--{column}: {reason}")))?;
    }
    Ok(options)
}

/// The name of the batch: that of the file, so that the same command finds it again.
fn batch_name(args: &Args, source: &InputSource, now: DateTime<Utc>) -> Result<String, CommandFailure> {
    let Again { resume, append, idempotent, replace } = args.again;
    if let Some(name) = args.batch.clone().or_else(|| source.stem()) {
        return Ok(name);
    }
    if idempotent {
        return Err(CommandFailure::usage("--idempotent needs --batch when standard input is read"));
    }
    if resume || append || replace {
        return Err(CommandFailure::usage(format!(
            "--{} needs --batch when standard input is read: the name that was told when it was enqueued; \
             `sluice batch list` shows the latest",
            match (resume, append) {
                (true, _) => "resume",
                (_, true) => "append",
                _ => "replace",
            }
        )));
    }
    Ok(format!("stdin-{}", now.format("%Y%m%d-%H%M%S")))
}

/// Options that apply only to new jobs, when some jobs were there before.
pub(super) fn own_options(args: &Args) -> Option<String> {
    let given = [
        (args.priority.is_some(), "--priority"),
        (args.run_at.is_some(), "--run-at"),
        (args.deadline.is_some(), "--deadline"),
        (args.max_attempts.is_some(), "--max-attempts"),
    ];
    let given: Vec<&str> = given.into_iter().filter_map(|(is_given, name)| is_given.then_some(name)).collect();
    (!given.is_empty()).then(|| {
        format!("{}: only for the jobs that are new; those that were there keep what they have", given.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn options(args: &[&str]) -> Result<BulkOptions, String> {
        let args = Command::try_parse_from([&["enqueue"], args].concat()).map_err(|error| error.to_string())?.args;
        let now = DateTime::from_timestamp(1_000_000_000, 0).unwrap();
        bulk_options(&args, &InputSource::new(args.file.as_deref()), now).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_batch_is_named_after_its_file_so_that_the_same_command_finds_it() {
        for (args, batch) in [
            (&["data/week.jsonl.gz"][..], "week"),
            (&["week.jsonl", "--resume"], "week"),
            (&[], "stdin-20010909-014640"),
            (&["week.jsonl", "--batch", "mine"], "mine"),
            (&["week.jsonl", "--idempotent"], "week"),
        ] {
            assert_eq!(options(args).unwrap().batch.as_deref(), Some(batch));
        }
        for option in ["--idempotent", "--resume", "--append", "--replace"] {
            assert!(options(&["-", option]).unwrap_err().contains(&format!("{option} needs --batch")), "{option}");
        }
    }

    #[test]
    fn instants_are_taken_from_now_and_must_leave_time_to_work() {
        let found = options(&["--run-at", "1h", "--deadline", "2h", "--priority", "-5"]).unwrap();
        let hour = 3_600_000_i64;
        let at = |millis: i64| Some(Timestamp(1_000_000_000_000 + millis));
        assert_eq!((found.run_at, found.deadline, found.priority), (at(hour), at(2 * hour), -5));
        for args in [
            &["--run-at", "2h", "--deadline", "1h"][..],
            &["--deadline", "2001-01-01T00:00:00Z"],
            &["--run-at", "9000years"],
            &["--priority", "1001"],
            &["--max-attempts", "0"],
            &["--limit", "0"],
        ] {
            assert!(options(args).is_err(), "{args:?}");
        }
    }
}
