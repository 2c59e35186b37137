//! Some jobs of a batch: which are meant, their list, and putting them back into the queue.

use super::find;
use crate::cli::context::Context;
use crate::cli::failure::CommandFailure;
use crate::cli::figure;
use crate::cli::output::Format;
use crate::cli::words::{about, option};
use crate::domain::ErrorClass;
use crate::domain::counted::counted;
use crate::domain::job::JobState;
use crate::printable::on_one_line;
use crate::store::batch::JobFilter;
use crate::view::batch::jobs_table;

/// Which jobs of a batch are listed.
#[derive(Clone, Debug, clap::Args)]
pub struct ListArgs {
    /// The batch
    pub name: String,
    /// Only jobs in these states: queued, running, succeeded, failed, cancelled
    #[arg(long, value_name = "STATE,…", value_delimiter = ',', value_parser = state)]
    pub state: Vec<JobState>,
    /// Only jobs that failed with these error classes, as `sluice report failures` names them
    #[arg(long, value_name = "CLASS,…", value_delimiter = ',', value_parser = class)]
    pub class: Vec<ErrorClass>,
    /// Only jobs whose error has this text in it, in capital or small letters
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub error: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = figure::count::<usize>)]
    pub limit: usize,
    /// Only jobs with a higher number: the next page
    #[arg(long, value_name = "JOB", default_value_t = 0, hide_default_value = true)]
    pub after: i64,
}

/// Which jobs of a batch are retried.
#[derive(Clone, Debug, clap::Args)]
pub struct RetryArgs {
    /// The batch
    pub name: String,
    /// Only failed jobs, no cancelled ones
    #[arg(long)]
    pub failed: bool,
    /// Only jobs that failed with these error classes, as `sluice report failures` names them
    #[arg(long, value_name = "CLASS,…", value_delimiter = ',', value_parser = class)]
    pub class: Vec<ErrorClass>,
    /// Only jobs whose error has this text in it, in capital or small letters
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub error: Option<String>,
    /// Count them, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

impl RetryArgs {
    /// The jobs that are meant. A class and an error are those of failed jobs.
    pub(super) fn filter(&self) -> JobFilter {
        let only_failed = self.failed || !self.class.is_empty() || self.error.is_some();
        JobFilter {
            states: if only_failed { vec![JobState::Failed] } else { Vec::new() },
            classes: names(&self.class),
            error: self.error.clone(),
        }
    }
}

/// What to know of jobs that were put back into the queue after their deadline.
pub(in crate::cli) fn on_overdue(jobs: i64) -> Option<String> {
    let jobs = (jobs > 0).then(|| counted(jobs, "job has", "jobs have"))?;
    Some(format!(
        "{jobs} a deadline that is over: a worker fails them again, without a call; enqueue their requests anew"
    ))
}

pub(in crate::cli) fn names(classes: &[ErrorClass]) -> Vec<String> {
    classes.iter().map(|class| class.as_str().to_owned()).collect()
}

pub(in crate::cli) fn state(word: &str) -> Result<JobState, String> {
    let known = || JobState::ALL.map(JobState::as_str).join(", ");
    JobState::named(word).ok_or_else(|| format!("no such state; there are {}", known()))
}

pub(in crate::cli) fn class(word: &str) -> Result<ErrorClass, String> {
    word.parse().map_err(|()| {
        let known: Vec<&str> = ErrorClass::ALL.iter().map(|class| class.as_str()).collect();
        let near = known.iter().find(|known| strsim::damerau_levenshtein(known, word) <= 2);
        let near = near.map_or_else(String::new, |near| format!("perhaps {near}; "));
        format!("no such error class; {near}there are {}", known.join(", "))
    })
}

/// Lists jobs.
pub(super) async fn list(args: &ListArgs, context: &mut Context) -> anyhow::Result<()> {
    let batch = find(&context.store, &args.name).await?;
    let filter = JobFilter { states: args.state.clone(), classes: names(&args.class), error: args.error.clone() };
    // One more tells whether there are more.
    let mut jobs = context.store.list_jobs(&args.name, &filter, args.after, args.limit.saturating_add(1)).await?;
    let is_more = jobs.len() > args.limit;
    jobs.truncate(args.limit);
    if jobs.is_empty() && filter == JobFilter::default() && args.after == 0 && batch.jobs > 0 {
        let words = format!(
            "the jobs of batch {:?} are no longer kept: they had ended, and [retention] has dropped them",
            args.name
        );
        return Err(CommandFailure::not_found(words).into());
    }
    if jobs.is_empty() && matches!(context.output.format(), Format::Table | Format::Plain) {
        let more = if args.after > 0 { format!(" after {}", args.after) } else { String::new() };
        context.output.note(format_args!(
            "no job{more}: batch {} has {}, {} failed, {} cancelled, {} unfinished",
            on_one_line(&args.name),
            counted(batch.jobs, "job", "jobs"),
            batch.failed,
            batch.cancelled,
            batch.unfinished()
        ));
    } else {
        context.output.table(&jobs_table(&jobs))?;
    }
    if let Some(last) = jobs.last().filter(|_| is_more) {
        context.output.finish()?;
        context.output.note(format_args!("there are more: {}", next_page(args, last.job)));
    }
    Ok(())
}

/// The command that shows the next page.
fn next_page(args: &ListArgs, last: i64) -> String {
    let mut words = Vec::new();
    let listed = |values: Vec<&str>| values.join(",");
    if !args.state.is_empty() {
        words.push(option("state", &listed(args.state.iter().map(|state| state.as_str()).collect())));
    }
    if !args.class.is_empty() {
        words.push(option("class", &listed(args.class.iter().map(|class| class.as_str()).collect())));
    }
    if let Some(error) = &args.error {
        words.push(option("error", error));
    }
    if args.limit != 50 {
        words.push(format!("--limit {}", args.limit));
    }
    words.push(format!("--after {last}"));
    about("sluice batch jobs", &args.name, &words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct List {
        #[command(flatten)]
        args: ListArgs,
    }

    #[derive(clap::Parser)]
    struct Retry {
        #[command(flatten)]
        args: RetryArgs,
    }

    #[test]
    fn the_next_page_is_the_same_command_with_a_place() {
        let args = |words: &[&str]| List::try_parse_from([&["jobs"], words].concat()).unwrap().args;
        assert_eq!(next_page(&args(&["b"]), 70), "sluice batch jobs b --after 70");
        let words = ["b 1", "--state", "failed,queued", "--class", "timeout", "--error", "it's", "--limit", "7"];
        assert_eq!(
            next_page(&args(&words), 70),
            "sluice batch jobs 'b 1' --state failed,queued --class timeout --error 'it'\\''s' --limit 7 --after 70"
        );
    }

    #[test]
    fn what_is_unknown_is_told_with_what_is_known() {
        let told = |words: &[&str]| {
            List::try_parse_from([&["jobs", "b"], words].concat()).map(|_| ()).unwrap_err().to_string()
        };
        let unknown = told(&["--state", "done"]);
        assert!(
            unknown.contains("no such state; there are queued, running, succeeded, failed, cancelled"),
            "{unknown}"
        );
        let near = told(&["--class", "time_out"]);
        assert!(near.contains("no such error class; perhaps timeout; there are "), "{near}");
        for words in [&["--limit", "0"][..], &["--error", ""]] {
            assert!(List::try_parse_from([&["jobs", "b"], words].concat()).is_err(), "{words:?}");
        }
    }

    #[test]
    fn a_class_or_an_error_is_that_of_a_failed_job() {
        let filter = |words: &[&str]| Retry::try_parse_from([&["retry", "b"], words].concat()).unwrap().args.filter();
        assert_eq!(filter(&[]), JobFilter::default());
        for words in [&["--failed"][..], &["--class", "timeout,network"], &["--error", "x"]] {
            assert_eq!(filter(words).states, [JobState::Failed]);
        }
        assert_eq!(filter(&["--class", "timeout,network"]).classes, ["timeout", "network"]);
    }
}
