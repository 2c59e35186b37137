//! `sluice explain`: the story of one job, from the ledger.

use super::GlobalArgs;
use super::context::Context;
use super::figure;
use super::job::find;
use super::output::Format;
use super::today;
use crate::domain::{ChatRequest, JobId, MustKeep, Rung};
use crate::exit_code::ExitCode;
use crate::view::course;
use crate::view::job::{Bodies, JobView};
use crate::view::story::StoryView;
use crate::view::tone::Tone;

/// Arguments of `sluice explain`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Args {
    /// The job's number
    #[arg(value_parser = figure::job)]
    pub id: i64,
    /// Show the prompt too
    #[arg(long)]
    pub show_request: bool,
    /// Show the answers that were rejected, and those that were repaired as they came
    #[arg(long)]
    pub answers: bool,
}

/// Characters of an answer that are shown.
const ANSWER: i32 = 4_000;

/// Prints the story of a job.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let mut context = Context::open(global).await?;
    let job = find(&context.store, args.id).await?;
    let attempts = context.store.job_attempts(JobId(args.id)).await?;
    let routes = &context.config.routes;
    let find = |name: &str| routes.get(name).map(|route| &*route.route);
    let refuses =
        |rung: &Rung, request: &ChatRequest, must_keep: &MustKeep| context.config.refusal(rung, request, must_keep);
    let course = course::by(&find, routes.len(), &job, &attempts, today::now(), &refuses);
    let shadow = match job.shadow {
        Some(shadow) => context.store.job(JobId(shadow)).await?,
        None => None,
    };
    let job = JobView::of(job, Bodies { request: args.show_request, response: false });
    let mut story = StoryView::of(job, attempts, course);
    if let Some(shadow) = &shadow {
        story.take_shadow(shadow);
    }
    if args.answers {
        story.take_answers(context.store.kept_answers(JobId(args.id), ANSWER).await?);
    }
    if context.output.format() == Format::Json {
        context.output.json(&story)?;
    } else {
        for line in story.lines() {
            let tone = Tone::of_words(line.trim_start());
            context.output.told_as(tone, line)?;
        }
        if let Some(request) = &story.job.request {
            context.output.line("\nRequest:")?;
            context.output.json(request)?;
        }
    }
    context.close().await?;
    Ok(ExitCode::Success)
}
