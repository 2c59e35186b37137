//! `sluice watch`: the progress of a batch until it is done.

use super::GlobalArgs;
use super::batch::find;
use super::colour::{self, painted};
use super::context::Context;
use super::output::{Format, Output, OutputError};
use super::results::{Counts, advice};
use super::run::paused_by_loss;
use super::table::wrapped;
use crate::domain::NanoUsd;
use crate::domain::counted::counted;
use crate::domain::long_calls::LongCalls;
use crate::domain::obstacle::Obstacle;
use crate::exit_code::ExitCode;
use crate::printable::progress::Shown;
use crate::printable::{self, on_one_line};
use crate::store::batch::Batch;
use crate::store::{Store, StoreError};
use crate::view::batch::{BatchView, ProgressView, per_answer_in_words};
use crate::view::tone::Tone;
use crate::view::waits::LongCallsView;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;
use tokio::time::Instant;

/// How often the sums are read.
const LOOK: Duration = Duration::from_millis(500);
/// How often the limits are read.
const LOOK_AT_LIMITS: Duration = Duration::from_secs(3);
/// How often a line is printed where there is no terminal.
const LINE: Duration = Duration::from_secs(5);
/// The time over which the rate is taken: long enough to be calm, short enough to notice a stop.
const RATE_WINDOW: Duration = Duration::from_secs(30);

/// Which batch.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The batch
    pub batch: String,
}

/// Watches until every job of the batch has ended, or its stop-loss has paused it and none of its calls is under way:
/// then only a person can let it go on.
pub async fn run(args: Args, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let mut context = Context::open(global).await?;
    let done = match follow(&context.store, &mut context.output, &args.batch, Duration::ZERO).await? {
        Followed::Done(done) => done,
        Followed::Paused(reason) => {
            let screen = printable::stderr_width().unwrap_or(usize::MAX);
            // Printed even with --quiet: nothing else tells how to go on.
            let _ = writeln!(printable::stderr(), "{}", paused_by_loss(&args.batch, &reason, screen));
            context.close().await?;
            return Ok(ExitCode::Failure);
        }
    };
    if done.without_answer() > 0 {
        let counts = Counts {
            failed: u64::try_from(done.batch.failed).unwrap_or(0),
            cancelled: u64::try_from(done.batch.cancelled - done.replaced).unwrap_or(0),
            ..Counts::default()
        };
        let may_retry = context.store.reads_all().await?;
        context.output.note(advice(&done.batch.name, &counts, None, may_retry));
    }
    context.close().await?;
    Ok(done.exit_code())
}

/// How it ended that a batch was followed.
#[derive(Debug)]
pub enum Followed {
    /// All its jobs have ended.
    Done(DoneBatch),
    /// Its stop-loss has paused it, for this reason.
    Paused(String),
}

/// A batch of which all jobs have ended.
#[derive(Debug)]
pub struct DoneBatch {
    batch: Batch,
    /// Of the cancelled jobs those whose place another file took: no answer of them is missed.
    replaced: i64,
}

impl DoneBatch {
    /// Jobs that were cancelled, and not to make room for another file.
    fn cancelled(&self) -> i64 {
        (self.batch.cancelled - self.replaced).max(0)
    }

    /// Jobs that ended without the answer that was wanted of them.
    fn without_answer(&self) -> i64 {
        self.batch.failed + self.cancelled()
    }

    /// The exit status that fits it.
    fn exit_code(&self) -> ExitCode {
        if self.without_answer() > 0 { ExitCode::JobsFailed } else { ExitCode::Success }
    }
}

/// Shows the progress of a batch until all its jobs have ended, or until all that are left wait because its stop-loss
/// has paused it: a bar on a terminal, JSON lines if the output is JSON,
/// else a line every few seconds. At the end a summary goes to the output.
///
/// `starting`: for so long a worker of this process may be about to start, so that there is one already.
pub async fn follow(store: &Store, output: &mut Output, name: &str, starting: Duration) -> anyhow::Result<Followed> {
    let since = Instant::now();
    let mut batch = find(store, name).await?;
    let mut screen = Screen::new(output, &batch);
    let (mut pace, mut limits, mut replaced) = (Pace::default(), LeastTime::default(), Replaced::default());
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let asked = Instant::now();
        batch = find(store, name).await?;
        let took = asked.elapsed();
        pace.note(Instant::now(), batch.done());
        if batch.unfinished() <= 0 {
            break;
        }
        // A bar that stands still needs a reason.
        let is_starting = |why: &Obstacle| why.is_no_worker() && since.elapsed() < starting;
        let obstacle = store.batch_obstacle(name).await?.filter(|why| !is_starting(why));
        pace.by_limits = limits.look(store, &batch).await?;
        let shown = match output.format() {
            Format::Json => batch.clone(),
            Format::Table | Format::Plain | Format::Csv => without(&batch, replaced.look(store, &batch).await?),
        };
        let is_still = obstacle.is_none() && pace.per_second() <= 0.0;
        let long_calls = if is_still { store.long_calls_of_batch(name).await? } else { None };
        let still = Standstill { obstacle, long_calls };
        screen.show(output, &shown, &pace, &still)?;
        // The calls that are under way are paid for: their answers are waited for.
        if let Some(reason) = still.obstacle.as_ref().and_then(Obstacle::stop_loss)
            && !store.is_batch_in_hand(name).await?
        {
            screen.close();
            return Ok(Followed::Paused(reason.to_owned()));
        }
        if took > LOOK {
            // For a login that sees its own jobs alone they are counted each time: not more than a fifth of the time.
            tokio::time::sleep(took * 4).await;
        }
    }
    screen.close();
    // Counted once, since they are not among the sums.
    let replaced = if batch.cancelled > 0 { store.replaced_of_batch(name).await? } else { 0 };
    match output.format() {
        Format::Json => output.json_line(&ProgressView { replaced: Some(replaced), ..view(&batch, &pace, None) })?,
        Format::Table | Format::Plain | Format::Csv => {
            output.told(summary(&batch, replaced))?;
            output.finish()?;
        }
    }
    Ok(Followed::Done(DoneBatch { batch, replaced }))
}

/// Why a bar stands still.
#[derive(Debug, Default)]
struct Standstill {
    /// What all jobs wait for.
    obstacle: Option<Obstacle>,
    /// Else the calls that have been under way for long.
    long_calls: Option<LongCalls>,
}

impl Standstill {
    fn in_words(&self) -> Option<String> {
        let obstacle = self.obstacle.as_ref().map(Obstacle::in_words);
        let words = obstacle.or_else(|| self.long_calls.as_ref().map(LongCalls::in_words))?;
        Some(on_one_line(&words).into_owned())
    }

    fn is_for_a_person(&self) -> bool {
        self.obstacle.as_ref().is_some_and(|why| why.advice(None).is_some() || !why.stuck.is_empty())
    }
}

/// The rate at which jobs end.
#[derive(Debug, Default)]
struct Pace {
    seen: VecDeque<(Instant, i64)>,
    /// How long the rest takes at least, by the limits of its targets: a burst ends.
    by_limits: Option<Duration>,
}

/// What the limits say of the time that is left.
#[derive(Debug, Default)]
struct LeastTime {
    looked: Option<Instant>,
    least: Option<Duration>,
}

impl LeastTime {
    /// The least time that the rest of the batch takes; looked up every few seconds.
    async fn look(&mut self, store: &Store, batch: &Batch) -> Result<Option<Duration>, StoreError> {
        let now = Instant::now();
        if self.looked.is_none_or(|looked| now - looked >= LOOK_AT_LIMITS) {
            self.looked = Some(now);
            self.least = store.least_time_left(batch).await?;
        }
        Ok(self.least)
    }
}

/// How many jobs made room for another file, while the batch goes on.
#[derive(Debug, Default)]
struct Replaced {
    looked: Option<Instant>,
    /// How many had been cancelled at the last look, and how many of those were replaced.
    last: (i64, i64),
}

impl Replaced {
    /// The number; counted again at most every few seconds, and only when more were cancelled: all jobs are looked at.
    async fn look(&mut self, store: &Store, batch: &Batch) -> Result<i64, StoreError> {
        let now = Instant::now();
        if self.last.0 != batch.cancelled && self.looked.is_none_or(|looked| now - looked >= LOOK_AT_LIMITS) {
            self.last = (batch.cancelled, store.replaced_of_batch(&batch.name).await?);
            self.looked = Some(Instant::now());
        }
        Ok(self.last.1)
    }
}

/// A batch without the jobs that made room for another file: to cancel them was no progress.
fn without(batch: &Batch, replaced: i64) -> Batch {
    let replaced = replaced.clamp(0, batch.cancelled.max(0));
    Batch { jobs: batch.jobs - replaced, cancelled: batch.cancelled - replaced, ..batch.clone() }
}

impl Pace {
    fn note(&mut self, now: Instant, done: i64) {
        self.seen.push_back((now, done));
        while self.seen.len() > 2 && self.seen.front().is_some_and(|(then, _)| now - *then > RATE_WINDOW) {
            self.seen.pop_front();
        }
    }

    /// Jobs per second over the window.
    fn per_second(&self) -> f64 {
        let (Some((then, before)), Some((now, done))) = (self.seen.front(), self.seen.back()) else { return 0.0 };
        let seconds = (*now - *then).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        if seconds > 0.0 { (done - before) as f64 / seconds } else { 0.0 }
    }

    /// How long the rest takes at this rate, and no less than the limits let it take; `None` while no job ends.
    fn remaining(&self, unfinished: i64) -> Option<Duration> {
        let rate = self.per_second();
        #[expect(clippy::cast_precision_loss, reason = "an estimate for people")]
        let seconds = unfinished as f64 / rate;
        let left = (rate > 0.0).then(|| Duration::try_from_secs_f64(seconds.ceil()).ok()).flatten()?;
        Some(left.max(self.by_limits.unwrap_or_default()))
    }
}

/// The place where progress is shown.
enum Screen {
    Bar(Shown),
    Lines { next: Instant },
    Json { shown: Option<(i64, i64)> },
}

impl Screen {
    fn new(output: &Output, batch: &Batch) -> Self {
        if output.format() == Format::Json {
            return Self::Json { shown: None };
        }
        if !printable::stderr_is_terminal() {
            return Self::Lines { next: Instant::now() };
        }
        let length = u64::try_from(batch.jobs).ok();
        let target = if output.is_quiet() { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(length, target);
        // The figures have a line of their own: beside the bar they do not fit on a terminal of the usual width.
        let style = ProgressStyle::with_template("{bar:40} {whole_percent:>3} %\n{msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.with_key("whole_percent", |state: &ProgressState, words: &mut dyn std::fmt::Write| {
            let _ = write!(words, "{}", percent(state.pos(), state.len().unwrap_or(0)));
        }));
        Self::Bar(Shown::new(bar))
    }

    fn show(&mut self, output: &mut Output, batch: &Batch, pace: &Pace, still: &Standstill) -> Result<(), OutputError> {
        let waits_for = still.obstacle.as_ref();
        match self {
            Self::Bar(shown) => {
                let bar = shown.bar();
                bar.set_length(u64::try_from(batch.jobs).unwrap_or(0));
                bar.set_position(u64::try_from(batch.done()).unwrap_or(0));
                // On lines of its own: text that does not fit is cut off. The terminal puts ^C behind the last one: if
                // that went over the edge, the bar would not be cleared as a whole.
                let lines = [Some(progress(batch, pace, waits_for)), still.in_words()].into_iter().flatten();
                let screen = printable::stderr_width().map_or(usize::MAX, |columns| columns.saturating_sub(3));
                let lines = lines.map(|line| wrapped(&line, screen).join("\n"));
                bar.set_message(in_colours(lines.collect(), batch, still, colour::on_stderr()));
            }
            Self::Lines { next } => {
                let now = Instant::now();
                if now >= *next {
                    *next = now + LINE;
                    let reason = still.in_words().map_or_else(String::new, |why| format!("; {why}"));
                    let name = on_one_line(&batch.name);
                    output.line(format_args!("{name}: {}{reason}", progress(batch, pace, waits_for)))?;
                    output.finish()?;
                }
            }
            Self::Json { shown } => {
                let state = (batch.done(), batch.attempts);
                if shown.replace(state) != Some(state) {
                    let long_calls = still.long_calls.as_ref().map(LongCallsView::from);
                    output.json_line(&ProgressView { long_calls, ..view(batch, pace, waits_for) })?;
                }
            }
        }
        Ok(())
    }

    /// Clears the bar.
    fn close(self) {
        drop(self);
    }
}

/// The lines under a bar, in the colours of what they mean: failures, and what calls for a person.
fn in_colours(lines: Vec<String>, batch: &Batch, still: &Standstill, is_coloured: bool) -> String {
    let failed = format!("{} failed", batch.failed);
    let toned = lines.into_iter().enumerate().map(|(place, line)| match place {
        _ if !is_coloured => line,
        0 if batch.failed > 0 => line.replacen(&failed, &painted(Tone::Bad, &failed), 1),
        0 => line,
        _ => {
            let tone = if still.is_for_a_person() { Tone::Bad } else { Tone::Warning };
            line.split('\n').map(|part| painted(tone, part)).collect::<Vec<_>>().join("\n")
        }
    });
    toned.collect::<Vec<_>>().join("\n")
}

/// The finished share in per cent, rounded down: a hundred means all.
fn percent(done: u64, all: u64) -> u64 {
    let percent = (u128::from(done) * 100).checked_div(u128::from(all)).unwrap_or(100);
    u64::try_from(percent).unwrap_or(100).min(100)
}

fn progress(batch: &Batch, pace: &Pace, waits_for: Option<&Obstacle>) -> String {
    let mut line = format!("{} of {}", batch.done(), counted(batch.jobs, "job", "jobs"));
    if batch.failed > 0 {
        let _ = write!(line, ", {} failed", batch.failed);
    }
    if batch.cancelled > 0 {
        let _ = write!(line, ", {} cancelled", batch.cancelled);
    }
    let rate = pace.per_second();
    // Three a minute are no standstill.
    let _ =
        if rate > 0.0 && rate < 0.1 { write!(line, ", {:.1}/min", rate * 60.0) } else { write!(line, ", {rate:.1}/s") };
    if let Some(remaining) = remaining(batch, pace, waits_for) {
        let _ = write!(line, ", {} left", humantime::format_duration(remaining));
    }
    let _ = write!(line, ", {}", BatchView::of(batch).dollars());
    line
}

/// How long the rest takes. The rate from before a stop does not count.
fn remaining(batch: &Batch, pace: &Pace, waits_for: Option<&Obstacle>) -> Option<Duration> {
    if waits_for.is_some_and(|why| !why.is_a_limit()) { None } else { pace.remaining(batch.unfinished()) }
}

fn summary(batch: &Batch, replaced: i64) -> String {
    let mut line = format!("{}: done, {} succeeded, {} failed", batch.name, batch.succeeded, batch.failed);
    if batch.cancelled > replaced {
        let _ = write!(line, ", {} cancelled", batch.cancelled - replaced);
    }
    if replaced > 0 {
        let _ = write!(line, ", {replaced} replaced");
    }
    let _ = write!(line, ", {}, {}", counted(batch.attempts, "attempt", "attempts"), BatchView::of(batch).dollars());
    if batch.uncertain > NanoUsd::ZERO {
        let _ = write!(line, " and perhaps up to {} more", batch.uncertain);
    }
    if let Some(per_answer) = per_answer_in_words(batch).filter(|_| batch.known_cost().is_some()) {
        let _ = write!(line, ", {per_answer}");
    }
    line
}

fn view(batch: &Batch, pace: &Pace, waits_for: Option<&Obstacle>) -> ProgressView {
    ProgressView::of(batch, pace.per_second(), remaining(batch, pace, waits_for), waits_for)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::obstacle::{Circumstances, Subject};
    use chrono::DateTime;

    fn batch() -> Batch {
        Batch {
            name: "nightly".to_owned(),
            first_hour: DateTime::UNIX_EPOCH,
            last_hour: DateTime::UNIX_EPOCH,
            jobs: 1000,
            succeeded: 390,
            failed: 10,
            cancelled: 0,
            attempts: 450,
            cost: NanoUsd(1_234_500_000),
            waste: NanoUsd::ZERO,
            uncertain: NanoUsd::ZERO,
            unpriced: 0,
            paused: false,
            pause_reason: None,
            max_failed: None,
            max_wasted: None,
        }
    }

    #[test]
    fn a_hundred_percent_is_all_and_nothing_less() {
        for (done, all, shown) in
            [(0, 200, 0), (1, 200, 0), (199, 200, 99), (9_999_999, 10_000_000, 99), (200, 200, 100), (0, 0, 100)]
        {
            assert_eq!(percent(done, all), shown, "{done} of {all}");
        }
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
    }

    #[test]
    fn the_rate_is_that_of_the_last_half_minute() {
        let start = Instant::now();
        let mut pace = Pace::default();
        assert_eq!((pace.per_second(), pace.remaining(600)), (0.0, None));
        pace.note(start, 0);
        pace.note(start + Duration::from_secs(100), 0);
        pace.note(start + Duration::from_mins(2), 400);
        assert!((pace.per_second() - 20.0).abs() < 1e-9);
        assert_eq!(pace.remaining(600), Some(Duration::from_secs(30)));
        assert_eq!(progress(&batch(), &pace, None), "400 of 1000 jobs, 10 failed, 20.0/s, 30s left, $1.2345");
        pace.by_limits = Some(Duration::from_mins(10));
        assert_eq!(pace.remaining(600), Some(Duration::from_mins(10)), "the burst ends");
        pace.by_limits = Some(Duration::from_secs(1));
        assert_eq!(pace.remaining(600), Some(Duration::from_secs(30)), "something else is slower");
    }

    #[test]
    fn jobs_that_made_room_for_another_file_are_no_progress() {
        let replaced = Batch { jobs: 1_400, cancelled: 400, ..batch() };
        let (shown, all) = (without(&replaced, 400), progress(&batch(), &Pace::default(), None));
        assert_eq!(progress(&shown, &Pace::default(), None), all);
        assert_eq!(without(&batch(), 7), batch(), "never more than were cancelled");
    }

    #[test]
    fn no_time_is_promised_while_something_is_in_the_way() {
        // Even when jobs ended a moment ago: the remaining time would only grow.
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.note(start, 0);
        pace.note(start + Duration::from_secs(10), 400);
        for reason in
            ["no worker", "batch paused", "a/m: auth (nowhere else to go)", "a/m: paused (nowhere else to go)"]
        {
            assert!(!progress(&batch(), &pace, Some(&obstacle(reason))).contains("left"), "{reason}");
        }
        let limit = obstacle("a/m: rate_limit (nowhere else to go)");
        assert!(progress(&batch(), &pace, Some(&limit)).contains("15s left"));
    }

    fn obstacle(code: &str) -> Obstacle {
        Obstacle::of(code, Subject::default(), &Circumstances::default())
    }

    #[test]
    fn failures_and_reasons_have_colours_where_there_are_any() {
        let lines = || vec!["400 of 1000 jobs, 10 failed, 20.0/s".to_owned(), "no worker\nis running".to_owned()];
        let none = Standstill { obstacle: Some(obstacle("no worker")), long_calls: None };
        assert_eq!(in_colours(lines(), &batch(), &none, false), lines().join("\n"));
        let red = |text: &str| format!("\u{1b}[31m{text}\u{1b}[0m");
        assert_eq!(
            in_colours(lines(), &batch(), &none, true),
            format!("400 of 1000 jobs, {}, 20.0/s\n{}\n{}", red("10 failed"), red("no worker"), red("is running"))
        );
    }

    #[test]
    fn an_unknown_cost_is_not_zero_dollars() {
        let told = |batch| progress(&batch, &Pace::default(), None);
        let unknown = told(Batch { unpriced: 450, cost: NanoUsd::ZERO, ..batch() });
        assert!(unknown.ends_with(", cost unknown"), "{unknown}");
        let partly = told(Batch { unpriced: 1, ..batch() });
        assert!(partly.ends_with(", $1.2345 and 1 attempt of unknown price"), "{partly}");
    }

    #[test]
    fn the_last_line_says_what_an_accepted_answer_has_cost() {
        let all = "nightly: done, 390 succeeded, 10 failed, 450 attempts, $1.2345";
        for (batch, told) in [
            (batch(), ", $0.003165385 per answer"),
            (
                Batch { uncertain: NanoUsd(1), ..batch() },
                " and perhaps up to $0.000000001 more, at least $0.003165385 per answer",
            ),
            (Batch { unpriced: 1, ..batch() }, " and 1 attempt of unknown price, cost per answer unknown"),
        ] {
            assert_eq!(summary(&batch, 0), format!("{all}{told}"));
        }
        let in_vain = summary(&Batch { succeeded: 0, failed: 400, ..batch() }, 0);
        assert!(in_vain.ends_with(", $1.2345"), "the money and no figure: {in_vain}");
        let unknown = summary(&Batch { unpriced: 450, cost: NanoUsd::ZERO, ..batch() }, 0);
        assert!(unknown.ends_with(", cost unknown"), "{unknown}");
    }

    #[test]
    fn a_batch_in_which_an_answer_is_missed_has_its_own_exit_status() {
        let done = |failed, cancelled, replaced| {
            let batch = Batch { failed, cancelled, ..batch() };
            (summary(&batch, replaced), DoneBatch { batch, replaced }.exit_code())
        };
        for (jobs, told, code) in [
            ((0, 0, 0), "390 succeeded, 0 failed, 450", ExitCode::Success),
            ((1, 0, 0), "390 succeeded, 1 failed, 450", ExitCode::JobsFailed),
            ((0, 2, 0), "390 succeeded, 0 failed, 2 cancelled, 450", ExitCode::JobsFailed),
            ((0, 7, 7), "390 succeeded, 0 failed, 7 replaced, 450", ExitCode::Success),
            ((0, 7, 5), "390 succeeded, 0 failed, 2 cancelled, 5 replaced, 450", ExitCode::JobsFailed),
        ] {
            let (said, exit) = done(jobs.0, jobs.1, jobs.2);
            assert!(said.contains(told) && exit == code, "{said}");
        }
    }
}
