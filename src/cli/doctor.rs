//! `sluice doctor`: problems of the queue, why they matter, and what to do.

use super::GlobalArgs;
use super::context::Context;
use super::figure;
use super::output::{Format, Output, OutputError};
use super::worker::surroundings;
use crate::domain::counted::counted;
use crate::domain::diagnosis::{self, Finding, Severity, Thresholds};
use crate::exit_code::ExitCode;
use crate::store::StoreError;
use crate::store::doctor::LookTime;
use crate::view::finding::DiagnosisView;
use crate::view::table::{Layout, Table};
use crate::view::tone::Tone;
use std::time::Duration;

/// Arguments of `sluice doctor`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// A transaction that is open for longer is a warning; one that is open twelve times as long is bad
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = figure::duration)]
    pub transaction_age: Duration,
    /// A job that could be worked on and is not for longer than this is a warning
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = figure::duration)]
    pub waiting: Duration,
    /// First put jobs that are in no queue into it (they came in while triggers were off), and correct results whose
    /// cost is not that of their calls, and budgets that are not what the ledger says
    #[arg(long)]
    pub repair: bool,
    /// Warnings change the exit status too
    #[arg(long)]
    pub strict: bool,
}

/// Looks, and prints the findings.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let mut context = match Context::open_any_schema(global).await {
        Ok(context) => context,
        Err(error) => match error.downcast_ref::<StoreError>() {
            // The first possible problem is one more finding, so that programs find it among the others.
            Some(StoreError::Connect { .. } | StoreError::Pooler { .. }) => {
                let mut output = Output::new(global);
                print(&mut output, &[diagnosis::unreachable(&error.to_string())])?;
                output.finish()?;
                return Ok(ExitCode::Database);
            }
            _ => return Err(error),
        },
    };
    if args.repair {
        repair(&mut context).await?;
    }
    let around = surroundings(&context.config);
    let facts = context.store.facts(&around, LookTime::LONG).await;
    let thresholds = Thresholds { transaction: args.transaction_age, waiting: args.waiting };
    let findings = diagnosis::diagnose(&facts, thresholds);
    print(&mut context.output, &findings)?;
    context.close().await?;
    Ok(match diagnosis::worst(&findings) {
        Severity::Bad => ExitCode::Unwell,
        Severity::Warning if args.strict => ExitCode::Unwell,
        Severity::Warning | Severity::Unseen | Severity::Ok => ExitCode::Success,
    })
}

async fn repair(context: &mut Context) -> anyhow::Result<()> {
    context.store.require_schema().await?;
    let done = context.store.queue_unqueued().await?;
    context.output.note(format_args!(
        "{} in it now",
        counted(done.jobs, "job that was in no queue is", "jobs that were in no queue are")
    ));
    if !done.left.is_empty() {
        context.output.warn(format!(
            "{} left in no queue: an idempotency key that is another job's, or a priority or max_attempts that is out \
             of range; `sluice job cancel` ends such a job",
            counted(done.left.len(), "job was", "jobs were")
        ));
    }
    let corrected = context.store.correct_bills().await?;
    context.output.note(format_args!(
        "{} corrected",
        counted(
            corrected,
            "result whose cost was not that of its calls is",
            "results whose costs were not those of their calls are"
        )
    ));
    let budgets = context.store.check_budgets(true).await?.len();
    if budgets > 0 {
        context.output.note(format_args!("{} corrected", counted(budgets, "budget is", "budgets are")));
    }
    Ok(())
}

fn print(output: &mut Output, findings: &[Finding]) -> Result<(), OutputError> {
    match output.format() {
        Format::Json => output.json(&DiagnosisView::of(findings)),
        Format::Plain | Format::Csv => output.table(&DiagnosisView::of(findings).table()),
        Format::Table => print_for_people(output, findings),
    }
}

/// Prints all findings in short, then what to do about them, the gravest first.
fn print_for_people(output: &mut Output, findings: &[Finding]) -> Result<(), OutputError> {
    let mut table =
        Table::new(["severity", "check", "what"]).laid_out(Layout { prose: &["what"], ..Layout::default() });
    for finding in findings {
        table.row([
            finding.severity.as_str().into(),
            finding.check.replace('_', " ").into(),
            finding.what.as_str().into(),
        ]);
    }
    output.table(&table)?;
    let mut wrong: Vec<&Finding> = findings.iter().filter(|finding| !finding.remedy.is_empty()).collect();
    wrong.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    for finding in wrong {
        output.line("")?;
        let what = format!("{}: {}: {}", finding.severity.as_str(), finding.check.replace('_', " "), finding.what);
        output.told_as(Tone::of_words(finding.severity.as_str()), what)?;
        if !finding.why.is_empty() {
            output.told(format_args!("  why: {}", finding.why))?;
        }
        output.told(format_args!("  do:  {}", finding.remedy))?;
    }
    Ok(())
}
