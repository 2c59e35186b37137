//! The metrics: counts of this process, and data that it shares with other processes, read from the database.
//!
//! The names are a part of the public surface; docs/operations.md has the table. Labels are names from the
//! configuration and words of ours, so their number is bounded.

use super::families::{Classes, Families, Labels};
use super::notices;
use crate::domain::budget::BudgetStanding;
use crate::domain::pause::FixedWait;
use crate::domain::shared_bucket::{BucketStanding, LimitStanding};
use crate::domain::{ErrorClass, Timestamp, breaker};
use crate::store::StoreError;
use crate::store::status::RouteQueue;
use crate::worker::booked::{BOUNDS_MS, Durations, OfRoute, OfTarget};
use crate::worker::{Notices, Observer, Vitals};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// OpenMetrics, the standardised form of Prometheus's text format.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The database is asked for the same data at most this often, however many scrapes there are.
const FRESH: Duration = Duration::from_secs(3);
/// … and if its answers take long, for at most this part of the time.
const SPARING: u32 = 20;
/// Without an answer for this long a scrape goes on without the data; scrapers usually wait ten seconds.
const PATIENCE: Duration = Duration::from_secs(4);

/// Data that was read from the database a moment ago.
struct Cached<T>(Mutex<Option<Read<T>>>);

struct Read<T> {
    ended_at: Instant,
    good_for: Duration,
    /// `None`: there was no answer.
    value: Option<T>,
}

impl<T: Clone> Cached<T> {
    fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// The last value read, if that was not long ago, else the result of `read`.
    async fn get(&self, read: impl Future<Output = Result<T, StoreError>>) -> Option<T> {
        // Held while reading: a scrape that comes meanwhile waits for the same answer.
        let mut slot = self.0.lock().await;
        if let Some(last) = slot.as_ref().filter(|last| last.ended_at.elapsed() < last.good_for) {
            return last.value.clone();
        }
        let asked_at = Instant::now();
        let value = match timeout(PATIENCE, read).await {
            Ok(Ok(value)) => Some(value),
            Ok(Err(error)) => {
                tracing::debug!(error = %error, "metrics without what the database knows");
                None
            }
            Err(_) => None,
        };
        let took = if value.is_some() { asked_at.elapsed() } else { Duration::ZERO };
        let good_for = FRESH.max(took * SPARING);
        *slot = Some(Read { ended_at: Instant::now(), good_for, value: value.clone() });
        value
    }
}

/// A worker whose metrics are served.
pub(super) struct Gauged {
    observer: Observer,
    buckets: Cached<BTreeMap<String, BucketStanding>>,
    queue: Cached<BTreeMap<String, RouteQueue>>,
    budgets: Cached<Vec<BudgetStanding>>,
    notices: Cached<Notices>,
}

impl Gauged {
    pub(super) fn new(observer: Observer) -> Self {
        let (buckets, queue, budgets, notices) = (Cached::new(), Cached::new(), Cached::new(), Cached::new());
        Self { observer, buckets, queue, budgets, notices }
    }

    pub(super) fn observer(&self) -> &Observer {
        &self.observer
    }

    /// All metrics as of now, as text.
    pub(super) async fn exposition(&self) -> String {
        let (buckets, queue, budgets, notices) = tokio::join!(
            self.buckets.get(self.observer.buckets()),
            self.queue.get(self.observer.queue()),
            self.budgets.get(self.observer.budgets()),
            self.notices.get(self.observer.notices())
        );
        let (vitals, now) = (self.observer.vitals(), self.observer.now());
        Page { vitals, buckets, queue, budgets, notices, now }.exposition()
    }
}

/// The data for one scrape.
#[derive(Debug)]
struct Page {
    vitals: Vitals,
    /// `None`: the database did not answer.
    buckets: Option<BTreeMap<String, BucketStanding>>,
    queue: Option<BTreeMap<String, RouteQueue>>,
    budgets: Option<Vec<BudgetStanding>>,
    notices: Option<Notices>,
    /// The database's time.
    now: Timestamp,
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floats by nature; up to 2^53 they are exact")]
fn float(count: u64) -> f64 {
    count as f64
}

fn rows(count: i64) -> f64 {
    float(u64::try_from(count).unwrap_or(0))
}

fn flag(is_so: bool) -> f64 {
    if is_so { 1.0 } else { 0.0 }
}

fn by_target((provider, model): &(String, String)) -> Labels<'_, 2> {
    [("provider", provider), ("model", model)]
}

fn by_route(route: &str) -> Labels<'_, 1> {
    [("route", route)]
}

fn by_limit<'a>(bucket: &'a str, limit: &'a LimitStanding) -> Labels<'a, 2> {
    [("bucket", bucket), ("limit", &limit.limit)]
}

fn with<'a>(labels: Labels<'a, 2>, name: &'static str, value: &'a str) -> Labels<'a, 3> {
    let [first, second] = labels;
    [first, second, (name, value)]
}

fn classes(durations: &Durations) -> Classes {
    let bounds = BOUNDS_MS.iter().map(|bound| f64::from(*bound) / 1e3).chain([f64::INFINITY]);
    Classes { sum: float(durations.sum_ms) / 1e3, counts: bounds.zip(durations.counts).collect() }
}

impl Page {
    fn exposition(self) -> String {
        let mut registry = Registry::with_prefix("sluice");
        registry.register_collector(Box::new(self));
        let mut page = String::new();
        if let Err(error) = text::encode(&mut page, &registry) {
            // Writing to a string does not fail.
            tracing::error!(error = %error, "the metrics cannot be written down");
        }
        page
    }

    fn process(&self, page: &mut Families<'_>) -> fmt::Result {
        let vitals = &self.vitals;
        page.info("build", "The program.", [("version", env!("CARGO_PKG_VERSION"))])?;
        page.gauge(
            "ready",
            "1 while the worker claims jobs and its heartbeats reach the database.",
            flag(vitals.is_ready),
        )?;
        page.gauge("uptime_seconds", "Time since the worker started.", vitals.uptime.as_secs_f64())?;
        page.gauge(
            "heartbeat_age_seconds",
            "Time since the last heartbeat that reached the database; the lease ends at 30.",
            vitals.heartbeat_age.as_secs_f64(),
        )?;
        page.gauge("database_up", "1 when the database answered this scrape.", flag(self.buckets.is_some()))?;
        let (in_hand, most) = (vitals.in_hand as u64, vitals.max_in_hand as u64);
        page.gauge("jobs_in_hand", "Jobs that this worker holds.", float(in_hand))?;
        page.gauge("jobs_in_hand_limit", "Jobs that it holds at most (worker.max_in_flight).", float(most))?;
        let (bytes, most) = (vitals.request_bytes as u64, vitals.max_request_bytes as u64);
        page.gauge("request_bytes_in_hand", "About what the requests of those jobs take in memory.", float(bytes))?;
        let meaning = "With so much in hand it takes no more jobs (worker.max_in_flight_bytes).";
        page.gauge("request_bytes_in_hand_limit", meaning, float(most))?;
        page.gauge("unsettled", "Outcomes that are not written to the database yet.", float(vitals.unsettled))?;
        if let Some(fill) = vitals.spool {
            page.gauge("spool_outcomes", "Outcomes that wait on disk for the database.", float(fill.outcomes))?;
            page.gauge("spool_bytes", "Size of this worker's spool.", float(fill.bytes))?;
            page.gauge(
                "spool_full",
                "1 while the spool takes nothing more, so that no call is started.",
                flag(fill.is_full),
            )?;
        }
        if let Some(spans) = vitals.spans {
            page.counter("spans_sent", "Spans of traces that the collector has taken.", spans.sent)?;
            let meaning = "Spans that are lost: the collector refused them, or took too few in time.";
            page.counter("spans_dropped", meaning, spans.dropped)?;
        }
        page.counter("jobs_claimed", "Jobs that this worker took from the queue.", vitals.claimed)?;
        page.counter("jobs_parked", "Jobs that it gave back to wait for something.", vitals.parked)?;
        page.counter("fenced_out", "Outcomes that changed nothing: the job was another's by then.", vitals.fenced_out)?;
        let none = OfRoute::default();
        let known = vitals.routes.iter().map(|route| (route, &none));
        let routes: BTreeMap<&String, &OfRoute> = known.chain(&vitals.totals.routes).collect();
        page.counters(
            "jobs_ended",
            "Jobs that this worker brought to their end.",
            routes.iter().flat_map(|(route, totals)| {
                [("succeeded", totals.succeeded), ("failed", totals.failed)]
                    .map(|(state, jobs)| ([("route", route.as_str()), ("state", state)], jobs))
            }),
        )
    }

    fn targets(&self, page: &mut Families<'_>) -> fmt::Result {
        let vitals = &self.vitals;
        let none = OfTarget::default();
        let known = vitals.breakers.keys().map(|target| (target, &none));
        let targets: BTreeMap<&(String, String), &OfTarget> = known.chain(&vitals.totals.targets).collect();
        page.counters(
            "attempts",
            "Calls to providers, by what came of them; as booked on the ledger.",
            targets.iter().flat_map(|(target, totals)| {
                // A count to compare the failures with, from the start.
                let accepted = [(None, totals.attempts.get(&None).copied().unwrap_or(0))];
                let failed = totals.attempts.iter().filter(|(class, _)| class.is_some());
                accepted.into_iter().chain(failed.map(|(class, attempts)| (*class, *attempts))).map(
                    |(class, attempts)| {
                        (with(by_target(target), "class", class.map_or("accepted", ErrorClass::as_str)), attempts)
                    },
                )
            }),
        )?;
        page.counters(
            "soft_failures",
            "Answers that were rejected, by their gravest failure.",
            targets.iter().flat_map(|(target, totals)| {
                let kinds = totals.soft_failures.iter();
                kinds.map(|(kind, answers)| (with(by_target(target), "kind", kind), *answers))
            }),
        )?;
        page.histograms(
            "attempt_duration_seconds",
            "How long calls took, apart for those that brought an answer.",
            targets.iter().flat_map(|(target, totals)| {
                [("true", &totals.answered), ("false", &totals.unanswered)]
                    .map(|(answered, durations)| (with(by_target(target), "answered", answered), classes(durations)))
            }),
        )?;
        page.histograms(
            "first_byte_seconds",
            "How long it took until answers began.",
            targets.iter().map(|(target, totals)| (by_target(target), classes(&totals.first_byte))),
        )?;
        page.counters(
            "tokens",
            "Tokens of all attempts, as reported or else estimated; cached input apart from other input.",
            targets.iter().flat_map(|(target, totals)| {
                [
                    ("input", totals.input_tokens),
                    ("cached_input", totals.cached_tokens),
                    ("output", totals.output_tokens),
                ]
                .map(|(kind, tokens)| (with(by_target(target), "kind", kind), tokens))
            }),
        )?;
        let money = |amount: fn(&OfTarget) -> f64| {
            let amounts = targets.iter().map(move |(target, totals)| (by_target(target), amount(totals)));
            amounts.collect::<Vec<_>>()
        };
        page.amounts("cost_dollars", "Money spent, where the price is known.", money(|of| of.cost.dollars()))?;
        page.amounts(
            "waste_dollars",
            "The part of it for answers that were not used.",
            money(|of| of.waste.dollars()),
        )?;
        page.amounts(
            "uncertain_cost_dollars",
            "Money that may have been spent besides: the worst case of calls whose end is not known.",
            money(|of| of.uncertain.dollars()),
        )?;
        page.counters(
            "unpriced_attempts",
            "Attempts whose price is not known: their cost is not in sluice_cost_dollars.",
            targets.iter().map(|(target, totals)| (by_target(target), totals.unpriced)),
        )?;
        page.counters(
            "cost_differences",
            "Attempts whose cost by the provider is not the computed one, by prices.reported_difference.",
            targets.iter().map(|(target, totals)| (by_target(target), totals.cost_differs)),
        )?;
        page.gauges(
            "breaker_state",
            "1 for the state in which the target's breaker is in this worker.",
            vitals.breakers.iter().flat_map(|(target, state)| {
                breaker::State::NAMES.map(|each| (with(by_target(target), "state", each), flag(each == *state)))
            }),
        )?;
        page.gauges(
            "passed_over",
            "1 while jobs of the route pass the target over in this worker, because its answers are slow or rejected.",
            vitals.weaknesses.iter().map(|((target, route), indicator)| {
                let [provider, model] = by_target(target);
                ([provider, model, ("route", route.as_str()), ("indicator", indicator.as_str())], 1.0)
            }),
        )?;
        let keys = |count: fn(&(usize, usize)) -> usize| {
            let counts = vitals.keys.iter();
            counts.map(move |(name, keys)| ([("provider", name.as_str())], float(count(keys) as u64)))
        };
        page.gauges("keys", "Keys of the provider.", keys(|(all, _)| *all))?;
        page.gauges("keys_in_service", "Keys that are neither rejected nor out of money.", keys(|(_, good)| *good))?;
        page.gauges(
            "health_probe_open",
            "1 while the health probe of the provider lets calls go to it, 0 while it holds them back.",
            vitals.probes.iter().map(|(name, is_open)| ([("provider", name.as_str())], flag(*is_open))),
        )
    }

    fn shared_buckets(&self, page: &mut Families<'_>) -> fmt::Result {
        let own = &self.vitals.buckets;
        page.gauges(
            "bucket_calls",
            "Calls of this worker that run, and that wait for their turn.",
            own.iter().flat_map(|(name, (running, waiting, _))| {
                [("running", running), ("waiting", waiting)]
                    .map(|(state, calls)| ([("bucket", name.as_str()), ("state", state)], f64::from(*calls)))
            }),
        )?;
        page.counters(
            "bucket_refusals",
            "Answers 429 that this worker met, those for want of money left out.",
            own.iter().map(|(name, (.., refusals))| ([("bucket", name.as_str())], *refusals)),
        )?;
        let Some(buckets) = &self.buckets else { return Ok(()) };
        let worker = self.vitals.worker;
        let limits: Vec<(&str, &LimitStanding)> = buckets
            .iter()
            .flat_map(|(name, standing)| standing.limits.iter().map(move |limit| (name.as_str(), limit)))
            .collect();
        let each = |value: &dyn Fn(&LimitStanding) -> f64| -> Vec<(Labels<'_, 2>, f64)> {
            limits.iter().map(|(name, limit)| (by_limit(name, limit), value(limit))).collect()
        };
        page.gauges(
            "bucket_limit_per_second",
            "What the limit lets come back, by where it comes from; of all workers together.",
            limits.iter().map(|(name, limit)| {
                (with(by_limit(name, limit), "source", limit.source.as_str()), limit.per_second())
            }),
        )?;
        page.gauges(
            "bucket_capacity",
            "What can be used at once after a rest; of all workers together.",
            each(&|limit| float(limit.capacity)),
        )?;
        #[expect(clippy::cast_precision_loss, reason = "metrics are floats by nature")]
        page.gauges(
            "bucket_level",
            "Units that no process holds; negative while the bucket is in debt.",
            each(&|limit| limit.level as f64),
        )?;
        page.gauges(
            "bucket_leased",
            "What this worker holds of it.",
            each(&|limit| float(limit.leased.get(&worker).copied().unwrap_or(0))),
        )?;
        page.gauges(
            "bucket_utilisation_ratio",
            "What all workers used in the last minute, as a part of what came back in it; above 1 while a burst is \
             used.",
            each(&|limit| limit.utilisation),
        )?;
        let whole = || buckets.iter().map(|(name, standing)| ([("bucket", name.as_str())], standing));
        page.gauges(
            "bucket_concurrency",
            "Calls of all workers that may run at once, where that is limited.",
            whole().filter_map(|(labels, standing)| Some((labels, f64::from(standing.concurrency?)))),
        )?;
        page.gauges(
            "bucket_places",
            "How many of these this worker has.",
            whole()
                .filter(|(_, standing)| standing.concurrency.is_some())
                .map(|(labels, standing)| (labels, f64::from(standing.places.get(&worker).copied().unwrap_or(0)))),
        )?;
        page.gauges(
            "bucket_refused_last_minute",
            "Answers 429 that all workers met in the last minute.",
            whole().map(|(labels, standing)| (labels, float(standing.refused_last_minute))),
        )?;
        page.gauges(
            "bucket_shut",
            "1 while a wait that the provider asked for holds for all workers.",
            whole().map(|(labels, standing)| (labels, flag(standing.gate.is_some()))),
        )?;
        page.gauges(
            "bucket_opens_in_seconds",
            "Seconds until the bucket opens, by reason; absent while it is open.",
            buckets.iter().filter_map(|(name, standing)| {
                let gate = standing.gate?;
                let labels = [("bucket", name.as_str()), ("reason", gate.shut.reason.as_str())];
                Some((labels, self.now.until(gate.shut.until).as_secs_f64()))
            }),
        )
    }

    fn budgets(&self, page: &mut Families<'_>) -> fmt::Result {
        let Some(budgets) = &self.budgets else { return Ok(()) };
        let each = |value: &dyn Fn(&BudgetStanding) -> f64| -> Vec<(Labels<'_, 1>, f64)> {
            budgets.iter().map(|it| ([("budget", it.budget.name.as_str())], value(it))).collect()
        };
        page.gauges(
            "budget_limit_dollars",
            "What may be spent in a window of the budget; of all workers together, as are the others.",
            each(&|it| it.budget.limit.dollars()),
        )?;
        page.gauges("budget_spent_dollars", "What is spent in this window.", each(&|it| it.spent.dollars()))?;
        page.gauges(
            "budget_uncertain_dollars",
            "What may have been spent on top: it counts against the limit.",
            each(&|it| it.uncertain.dollars()),
        )?;
        page.gauges(
            "budget_reserved_dollars",
            "The worst cases of calls under way.",
            each(&|it| it.reserved.dollars()),
        )?;
        page.gauges("budget_soft", "1 past its soft threshold.", each(&|it| flag(it.is_soft())))?;
        page.gauges("budget_full", "1 while it has no room: its work waits.", each(&|it| flag(it.holds())))
    }

    fn routes(&self, page: &mut Families<'_>) -> fmt::Result {
        let Some(queue) = &self.queue else { return Ok(()) };
        let none = RouteQueue::default();
        let known: Vec<(&str, &RouteQueue)> = self
            .vitals
            .routes
            .iter()
            .map(|route| (route.as_str(), queue.get(route.as_str()).unwrap_or(&none)))
            .collect();
        let each = |value: &dyn Fn(&RouteQueue) -> f64| -> Vec<(Labels<'_, 1>, f64)> {
            known.iter().map(|(route, queue)| (by_route(route), value(queue))).collect()
        };
        page.gauges(
            "queue_ready_jobs",
            "Jobs that a worker may take at once, counted up to a hundred thousand per project, batch and priority.",
            each(&|queue| rows(queue.ready.rows)),
        )?;
        page.gauges(
            "queue_oldest_ready_seconds",
            "For how long the oldest of them could have been taken; 0 without any.",
            each(&|queue| {
                let since = queue.oldest_ready.map(|since| Timestamp(since.timestamp_millis()));
                since.map_or(0.0, |since| since.until(self.now).as_secs_f64())
            }),
        )?;
        page.gauges(
            "queue_running_jobs",
            "Jobs in the hands of workers, all together.",
            each(&|queue| rows(queue.running)),
        )?;
        let parked = |queue: &RouteQueue, is_scheduled: bool| {
            let reasons =
                queue.parked.iter().filter(|(reason, _)| (*reason == FixedWait::Scheduled.as_str()) == is_scheduled);
            rows(reasons.map(|(_, held)| held.count.rows).sum())
        };
        page.gauges(
            "queue_parked_jobs",
            "Jobs that wait for a limit, a retry or a target, up to a hundred thousand in all.",
            each(&|queue| parked(queue, false)),
        )?;
        page.gauges(
            "queue_scheduled_jobs",
            "Jobs that wait for the time for which they were enqueued, counted with the parked ones.",
            each(&|queue| parked(queue, true)),
        )?;
        let unknown = queue.iter().filter(|(route, _)| !self.vitals.routes.contains(*route));
        page.gauge(
            "queue_unknown_route_jobs",
            "Jobs that could be taken, but for their routes, which this worker does not have.",
            rows(unknown.map(|(_, queue)| queue.ready.rows).sum()),
        )
    }
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Families(encoder);
        self.process(&mut page)?;
        self.routes(&mut page)?;
        self.targets(&mut page)?;
        self.shared_buckets(&mut page)?;
        self.budgets(&mut page)?;
        self.notices.as_ref().map_or(Ok(()), |notices| notices::write(notices, &mut page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test(start_paused = true)]
    async fn the_database_is_asked_now_and_then_however_many_scrape() {
        let (cached, reads) = (Cached::new(), Cell::new(0));
        let read = async |takes: Duration| {
            tokio::time::sleep(takes).await;
            reads.set(reads.get() + 1);
            Ok(reads.get())
        };
        let second = Duration::from_secs(1);
        assert_eq!(cached.get(read(Duration::ZERO)).await, Some(1));
        tokio::time::advance(2 * second).await;
        assert_eq!(cached.get(read(Duration::ZERO)).await, Some(1));
        tokio::time::advance(2 * second).await;
        assert_eq!(cached.get(read(second)).await, Some(2));
        // The read took a second, so its value has to serve for twenty.
        tokio::time::advance(19 * second).await;
        assert_eq!(cached.get(read(second)).await, Some(2));
        tokio::time::advance(2 * second).await;
        assert_eq!(cached.get(read(second)).await, Some(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_does_not_answer_holds_up_one_scrape_and_is_asked_again_soon() {
        let cached = Cached::new();
        assert_eq!(cached.get(std::future::pending()).await, None::<u32>);
        let failed_at = Instant::now();
        assert_eq!(cached.get(std::future::pending()).await, None);
        assert_eq!(Instant::now(), failed_at, "the second did not wait");
        tokio::time::advance(FRESH).await;
        assert_eq!(cached.get(std::future::ready(Ok(7))).await, Some(7));
    }
}
