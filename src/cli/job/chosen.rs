//! Jobs chosen by what they are and how they stand, of any batch: listed, and changed together.

use crate::cli::batch::jobs::{class, names, on_overdue, state};
use crate::cli::consent::consent;
use crate::cli::context::Context;
use crate::cli::failure::CommandFailure;
use crate::cli::figure;
use crate::cli::output::Format;
use crate::cli::words::option;
use crate::cli::{batch, route};
use crate::domain::ErrorClass;
use crate::domain::counted::counted;
use crate::domain::job::JobState;
use crate::exit_code::ExitCode;
use crate::store::batch::JobFilter;
use crate::store::selection::{Deed, SelectedPage, Selection, Walked};
use crate::view::change::ChosenView;
use crate::view::job::jobs_table;
use indicatif::{ProgressBar, ProgressDrawTarget};
use std::time::Duration;

/// Which jobs are meant.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Which {
    /// Only jobs of this batch
    #[arg(long, value_name = "NAME")]
    pub batch: Option<String>,
    /// Only jobs of this project
    #[arg(long, value_name = "NAME")]
    pub project: Option<String>,
    /// Only jobs of this route
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    /// Only jobs that this login enqueued
    #[arg(long, value_name = "NAME")]
    pub login: Option<String>,
    /// Only jobs in these states: queued, running, succeeded, failed, cancelled
    #[arg(long, value_name = "STATE,…", value_delimiter = ',', value_parser = state)]
    pub state: Vec<JobState>,
    /// Only jobs that failed with these error classes, as `sluice report failures` names them
    #[arg(long, value_name = "CLASS,…", value_delimiter = ',', value_parser = class)]
    pub class: Vec<ErrorClass>,
    /// Only jobs whose error has this text in it, in capital or small letters
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub error: Option<String>,
}

impl Which {
    fn selection(&self) -> Selection {
        let Self { batch, project, route, login, state, class, error } = self.clone();
        let standing = JobFilter { states: state, classes: names(&class), error };
        Selection { batch, project, route, login, standing }
    }

    /// The options, as they were typed.
    fn typed(&self) -> Vec<String> {
        let named = [
            ("batch", &self.batch),
            ("project", &self.project),
            ("route", &self.route),
            ("login", &self.login),
            ("error", &self.error),
        ];
        let mut words: Vec<String> =
            named.into_iter().filter_map(|(name, value)| Some(option(name, value.as_ref()?))).collect();
        let states: Vec<&str> = self.state.iter().map(|state| state.as_str()).collect();
        words.extend((!states.is_empty()).then(|| option("state", &states.join(","))));
        let classes = names(&self.class);
        words.extend((!classes.is_empty()).then(|| option("class", &classes.join(","))));
        words
    }
}

/// Which jobs are listed.
#[derive(Clone, Debug, clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub which: Which,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = figure::count::<usize>)]
    pub limit: usize,
    /// Only jobs with a lower number: the next page
    #[arg(long, value_name = "JOB", value_parser = figure::job)]
    pub below: Option<i64>,
}

/// Which jobs are changed: those that are named, or all that are chosen.
#[derive(Clone, Debug, clap::Args)]
pub struct ChosenArgs {
    /// The jobs' numbers; or else say which are meant by the options
    #[arg(value_name = "ID", value_parser = figure::job, conflicts_with_all = ["Which", "dry_run", "yes"])]
    pub ids: Vec<i64>,
    #[command(flatten)]
    pub which: Which,
    /// Count them, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Change them without a question
    #[arg(long)]
    pub yes: bool,
}

impl ChosenArgs {
    /// The jobs that are named; none: the options say which are meant.
    pub(super) fn ids(&self) -> &[i64] {
        &self.ids
    }
}

/// No user waits longer for a list: the jobs not looked at are the next page.
const FOR_A_LIST: Duration = Duration::from_secs(10);
/// Counting takes as long as it takes, up to here.
const FOR_A_COUNT: Duration = Duration::from_mins(1);

/// Lists jobs.
pub(super) async fn list(args: ListArgs, context: &mut Context) -> anyhow::Result<()> {
    require_all(context).await?;
    let selection = args.which.selection();
    let SelectedPage { jobs, next } = context.store.selected(&selection, args.below, args.limit, FOR_A_LIST).await?;
    if jobs.is_empty() && next.is_none() {
        require_names(context, &selection).await?;
    }
    if jobs.is_empty() && matches!(context.output.format(), Format::Table | Format::Plain) {
        context.output.note("no such job");
    } else {
        context.output.table(&jobs_table(&jobs))?;
    }
    if let Some(next) = next {
        context.output.finish()?;
        let mut words = args.which.typed();
        if args.limit != 50 {
            words.push(format!("--limit {}", args.limit));
        }
        words.push(format!("--below {next}"));
        context.output.note(format_args!("there may be more: sluice job list {}", words.join(" ")));
    }
    Ok(())
}

/// Where nothing was found, the name of the batch or the route may be a typing error.
async fn require_names(context: &Context, selection: &Selection) -> anyhow::Result<()> {
    if let Some(batch) = &selection.batch {
        batch::find(&context.store, batch).await?;
    }
    // The machine that a user asks from need not have the workers' configuration.
    if let Some(route) = &selection.route
        && !context.config.routes.is_empty()
    {
        route::require_known(context, route)?;
    }
    Ok(())
}

/// A login that reads only its own jobs chooses among those of a batch.
async fn require_all(context: &Context) -> anyhow::Result<()> {
    if context.store.reads_all().await? {
        return Ok(());
    }
    Err(CommandFailure::usage(
        "this login sees only the jobs that it enqueued itself: `sluice batch jobs BATCH` lists those of a batch, and \
         `sluice job cancel ID` cancels one",
    )
    .into())
}

/// Changes all jobs that are chosen, a thousand at a time, after a question that says how many they are.
pub(super) async fn change_all(context: &mut Context, args: ChosenArgs, deed: &Deed) -> anyhow::Result<ExitCode> {
    let selection = args.which.selection();
    if selection == Selection::default() {
        return Err(CommandFailure::usage(format!(
            "which jobs? Give their numbers, or say by --batch, --project, --route, --login, --state, --class or \
             --error which are meant; `sluice job {} --state {}` means all that it can concern",
            deed.as_str(),
            deed.states().iter().map(|state| state.as_str()).collect::<Vec<_>>().join(",")
        ))
        .into());
    }
    require_all(context).await?;
    let would = context.store.would_change(&selection, deed, FOR_A_COUNT).await?;
    let or_more = !would.is_all;
    let is_none = would.jobs == 0 && !or_more;
    if is_none {
        require_names(context, &selection).await?;
    }
    if args.dry_run || is_none {
        let changed = !args.dry_run;
        return said(context, &ChosenView { action: deed.as_str(), jobs: would.jobs, or_more, changed });
    }
    if !args.yes {
        let more = if or_more { " or more" } else { "" };
        let jobs = counted(would.jobs, "job", "jobs");
        consent(&format!("{} {jobs}{more}", deed.as_str())).await?;
    }
    let target = ProgressDrawTarget::stderr();
    let bar = ProgressBar::with_draw_target(Some(u64::try_from(would.jobs).unwrap_or(0)), target).with_message("jobs");
    let mut walked = Walked::default();
    while !walked.is_all {
        walked = context.store.change_next(&selection, deed, walked).await?;
        bar.set_position(u64::try_from(walked.jobs).unwrap_or(0));
    }
    bar.finish_and_clear();
    if let (Deed::Retry, Some(remark)) = (deed, on_overdue(walked.overdue)) {
        context.output.warn(remark);
    }
    said(context, &ChosenView { action: deed.as_str(), jobs: walked.jobs, or_more: false, changed: true })
}

fn said(context: &mut Context, view: &ChosenView) -> anyhow::Result<ExitCode> {
    if context.output.format() == Format::Json {
        context.output.json(view)?;
    } else {
        context.output.line(view)?;
    }
    Ok(ExitCode::Success)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Change {
        #[command(flatten)]
        args: ChosenArgs,
    }

    #[test]
    fn jobs_are_named_or_chosen_and_not_both() {
        let parsed = |words: &[&str]| Change::try_parse_from([&["change"], words].concat()).map(|change| change.args);
        assert_eq!(parsed(&["7", "8"]).unwrap().ids(), [7, 8]);
        let chosen = parsed(&["--batch", "b 1", "--state", "failed", "--class", "timeout,network"]).unwrap();
        assert_eq!(chosen.which.typed(), ["--batch 'b 1'", "--state failed", "--class timeout,network"]);
        for words in [&["7", "--batch", "b"][..], &["7", "--dry-run"], &["--state", "done"], &["--class", "time_out"]] {
            assert!(parsed(words).is_err(), "{words:?}");
        }
    }
}
