//! The most that is told holds, regardless of what becomes of the jobs.

use super::*;
use crate::domain::charging::Fate;
use crate::domain::decide::{Condition, RungHealth, Step, UnderWay, decide};
use crate::domain::larger_cap::{self, RaiseCap};
use crate::domain::price::{Above, Factor, OffPeak, Price, PriceChange, PriceTerms, Tariff, TierPrice};
use crate::domain::route::Race;
use crate::domain::validation::Rules;
use crate::domain::{
    Attempt, Capabilities, ErrorClass, Hours, Model, Outcome, SoftFailure, Strategy, Target, Timeouts, Usage,
    UsageSource,
};
use proptest::prelude::*;
use proptest::strategy::Strategy as Values;
use serde_json::json;
use std::time::Duration;

const DAY: Duration = Duration::from_hours(24);
const AT: Timestamp = Timestamp(1_785_888_000_000);

/// The fate of a call: its outcome, and which parts of the tokens that it may have it has, in per cent.
#[derive(Clone, Debug)]
struct Fortune {
    outcome: Outcome,
    /// The tokens of the prompt, and of these the ones read from a cache, written to one, and written for an hour.
    input: [i64; 4],
    /// Of the answer, and of that the reasoning.
    output: [i64; 2],
    /// How many hours later it is made.
    hours: u32,
    /// Which of the calls of a race it ends.
    which: usize,
}

fn price() -> impl Values<Value = Price> {
    let part = || 0..5_000_000_000_i64;
    (
        part(),
        part(),
        prop::option::of(part()),
        prop::option::of(part()),
        prop::option::of(part()),
        prop::option::of(part()),
    )
        .prop_map(|(input, output, cached_input, cache_write, cache_write_1h, reasoning)| Price {
            input,
            output,
            cached_input,
            cache_write,
            cache_write_1h,
            reasoning,
        })
}

fn terms() -> impl Values<Value = PriceTerms> {
    let above = prop::collection::vec((1..2_000_i64, price()), 0..3).prop_map(|mut above| {
        above.sort_by_key(|(tokens, _)| *tokens);
        above.into_iter().map(|(input_tokens, price)| Above { input_tokens, price }).collect::<Vec<_>>()
    });
    let off_peak = prop::option::of((any::<bool>(), 0..3_000_000_000_i64, price()));
    (price(), above, off_peak).prop_map(|(usual, above, off_peak)| PriceTerms {
        price: Some(Tariff { usual, above }),
        off_peak: off_peak.map(|(is_own, factor, own)| OffPeak {
            peak: Hours::parse("mon-fri 08:00-18:00").unwrap(),
            price: if is_own { TierPrice::Own(own.into()) } else { TierPrice::Times(Factor(factor)) },
        }),
        ..PriceTerms::default()
    })
}

fn rung() -> impl Values<Value = Rung> {
    let changes = prop::collection::vec((0..20_u32, terms()), 0..3).prop_map(|mut changes| {
        changes.sort_by_key(|(day, _)| *day);
        let from = |day: u32| AT + DAY * day;
        changes.into_iter().map(|(day, terms)| PriceChange { from: from(day), terms }).collect::<Vec<_>>()
    });
    let cap = || prop::option::of(1..600_i64);
    (terms(), changes, cap(), any::<u16>()).prop_map(|(terms, changes, max_output_tokens, name)| Rung {
        target: Target::new("p", name.to_string()),
        model: Model {
            terms,
            changes,
            capabilities: Capabilities { max_output_tokens, ..Capabilities::default() },
            ..Model::default()
        },
        timeouts: Timeouts::of(Duration::from_mins(1)),
        stream: false,
    })
}

fn route() -> impl Values<Value = Route> {
    let strategy = prop_oneof![
        Just(Strategy::Priority),
        (2..4_u16).prop_map(|at_most| Strategy::Race(Race { at_most, after: Duration::ZERO })),
    ];
    let max_cost = prop::option::of((0..4_000_000_i64).prop_map(NanoUsd));
    (prop::collection::vec(rung(), 1..4), 1..8_u16, max_cost, any::<bool>(), any::<bool>(), strategy).prop_map(
        |(rungs, max_attempts, max_cost, reask, raises, strategy)| Route {
            strategy,
            max_attempts,
            max_cost,
            fallback_on: ErrorClass::ALL.iter().copied().collect(),
            rules: Rules { raise_cap: if raises { RaiseCap::Always } else { RaiseCap::Never }, ..Rules::default() },
            reask,
            ..Route::plain("r", rungs)
        },
    )
}

fn fortune() -> impl Values<Value = Fortune> {
    let outcome = prop_oneof![
        1 => Just(Outcome::Accepted),
        4 => prop::sample::select(ErrorClass::ALL).prop_map(Outcome::Failed),
        6 => prop::sample::select(SoftFailure::ALL).prop_map(Outcome::Rejected),
    ];
    let share = || prop_oneof![3 => Just(100_i64), 2 => 0..=100_i64];
    (outcome, [share(), share(), share(), share()], [share(), share()], 0..500_u32, any::<usize>())
        .prop_map(|(outcome, input, output, hours, which)| Fortune { outcome, input, output, hours, which })
}

/// What a job can be charged for a call: the whole prompt, after an answer perhaps with that and its fault, and an
/// answer up to its cap.
fn usage(fortune: &Fortune, input: i64, output: i64) -> Usage {
    let part = |whole: i64, per_cent: i64| whole * per_cent / 100;
    let [whole, read, write, hour] = fortune.input;
    let mut left = part(input, whole);
    let mut take = |per_cent: i64| {
        let taken = part(left, per_cent);
        left -= taken;
        taken
    };
    let (cache_read, cache_write, cache_write_1h) = (take(read), take(write), take(hour));
    let output_tokens = part(output, fortune.output[0]);
    Usage {
        input: left,
        cache_read,
        cache_write,
        cache_write_1h,
        output: output_tokens,
        reasoning: part(output_tokens, fortune.output[1]),
        source: UsageSource::Provider,
    }
}

/// A call as the worker sends it.
struct SentCall {
    call: UnderWay,
    rung: usize,
    /// The job, as large as the request is.
    job: Job,
}

/// The job as large as the request that is sent to a rung: the conversation goes on after an answer that was rejected,
/// and after no other failure.
fn asked(route: &Route, rung: &Rung, job: &Job, history: &[Attempt]) -> Job {
    let has_answer = history.iter().any(|attempt| matches!(attempt.outcome, Outcome::Rejected(_)));
    let raised = job.max_output_tokens.filter(|_| has_answer && route.rules.raise_cap == RaiseCap::Always);
    let cap = raised.map(larger_cap::most_of).or(job.max_output_tokens);
    let answer = most_output_tokens(&rung.model.capabilities, cap);
    let more = if route.reask && has_answer { answer + WORDS_OF_A_FAULT } else { 0 };
    Job { input_tokens: job.input_tokens + more, max_output_tokens: cap, ..job.clone() }
}

/// Carries out the decisions for a job until it ends. Returns the booked amount: for calls that ended, and as uncertain
/// for those of a race that another answer made needless. The amount for calls whose worker died is returned apart.
///
/// A prompt may have four times the tokens of its estimate. Where the cost is bounded, it keeps to the quarter more
/// that the bound allows for, and costs what it did when the call began.
fn booked(route: &Route, job: &Job, order: &[usize], fortunes: &[Fortune]) -> (i64, i64) {
    let (mut now, mut history, mut under_way) = (AT, Vec::<Attempt>::new(), Vec::<SentCall>::new());
    let (mut in_all, mut of_the_dead) = (0_i64, 0_i64);
    let is_bounded = route.max_cost.is_some();
    let reserved = |sent: &SentCall| route.rungs[sent.rung].worst_cost(&sent.job, sent.call.since).unwrap().0;
    let mut fortunes = fortunes.iter().cycle();
    for _ in 0..5_000 {
        let calls: Vec<UnderWay> = under_way.iter().map(|sent| sent.call).collect();
        let fortune = fortunes.next().unwrap();
        let spent = Some(NanoUsd(in_all + of_the_dead + under_way.iter().map(reserved).sum::<i64>()));
        let bound = route.max_cost.map(|limit| CostBound { limit, spent });
        let health = |rung: &Rung| {
            let worst = rung.worst_cost(&asked(route, rung, job, &history), now);
            match bound.and_then(|of| of.refuses(worst)) {
                Some(why) => RungHealth::Ineligible(why).into(),
                None => RungHealth::Open.into(),
            }
        };
        let conditions: Vec<Condition> = route.rungs.iter().map(health).collect();
        match decide(job, route, order, &history, &calls, &conditions, now) {
            Step::Finish(_) => {
                // A race that is won gives up its other calls.
                for sent in &under_way {
                    let later = route.rungs[sent.rung].worst_cost(job, AT + DAY * 10).unwrap().0;
                    in_all += if is_bounded { reserved(sent) } else { reserved(sent).max(later) };
                }
                return (in_all, of_the_dead);
            }
            Step::Call { rung, .. } => {
                let job = asked(route, &route.rungs[rung], job, &history);
                under_way.push(SentCall { call: UnderWay { rung: Some(rung), since: now }, rung, job });
                if matches!(route.strategy, Strategy::Race(_)) {
                    now = now + Duration::from_millis(1);
                    continue;
                }
            }
            Step::Wait { until, .. } if under_way.is_empty() => {
                now = until;
                continue;
            }
            Step::Wait { .. } => {}
        }
        let SentCall { call, rung: index, job: asked } = under_way.swap_remove(fortune.which % under_way.len());
        let rung = &route.rungs[index];
        now = now + Duration::from_secs(1);
        let output = most_output_of_all(&rung.model.capabilities, &asked, asked.max_output_tokens);
        let more = asked.input_tokens - job.input_tokens;
        let longest = job.input_tokens * 4 + FRAME + more;
        let (prompt, at) = if is_bounded {
            (longest.min(asked.input_tokens + asked.input_tokens / 4 + 1), call.since)
        } else {
            (longest, AT + Duration::from_hours(1) * fortune.hours)
        };
        let price = rung.price_at(at).unwrap();
        let NanoUsd(cost) = price.cost(&usage(fortune, prompt, output));
        match &fortune.outcome {
            Outcome::Failed(ErrorClass::Abandoned) => of_the_dead += cost,
            // It was turned away, and that is free.
            outcome if Fate::of(outcome) == Fate::TurnedAway => {}
            _ => in_all += cost,
        }
        history.push(Attempt::new(Some(index), fortune.outcome.clone(), now));
    }
    panic!("the job does not end")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// No job is booked at more than the most that was told of it. This holds for all answers and failures that its
    /// calls meet, at all prices to come, and for all token counts within the prompt that was sent and the output that
    /// was allowed. Calls whose worker died come on top, as the help says. And no more is told than `max_cost` allows.
    #[test]
    fn no_job_is_booked_at_more_than_the_most_that_was_told(
        route in route(),
        order in Just(vec![0, 1, 2]).prop_shuffle(),
        words in 0..300_usize,
        cap in prop::option::of(1..500_i64),
        fortunes in prop::collection::vec(fortune(), 1..20),
    ) {
        let mut body = json!({ "messages": [{ "role": "user", "content": "word ".repeat(words) }] });
        if let Some(cap) = cap {
            body["max_tokens"] = json!(cap);
        }
        let request = ChatRequest::parse(&body).unwrap();
        let mut estimate = FileEstimate::new(&route, AT);
        estimate.add(&route, &request, &|_, _, _| None);
        let order: Vec<usize> = order.into_iter().filter(|index| *index < route.rungs.len()).collect();
        let (booked, _) = booked(&route, &job_of(&request, &route.pass, 1), &order, &fortunes);
        let most = estimate.most.unwrap();
        prop_assert!(booked <= most.0, "{booked} booked, and {most:?} was the most");
        prop_assert!(route.max_cost.is_none_or(|limit| most <= limit), "{most:?} is more than {:?}", route.max_cost);
    }
}

#[test]
fn what_uses_up_no_attempt_is_free_unless_its_worker_died() {
    for class in ErrorClass::ALL.iter().filter(|class| !class.facts().uses_up_an_attempt) {
        assert!(*class == ErrorClass::Abandoned || class.facts().fate == Fate::TurnedAway, "{class:?}");
    }
}

/// The first call goes to a rung that is dear for short prompts; the call after it, which has the rejected answer on
/// top, to one that is dear for long ones.
#[test]
fn the_dearest_first_call_and_the_dearest_repeated_one_may_be_of_different_rungs() {
    let price = |output| Price {
        input: 0,
        output,
        cached_input: None,
        cache_write: None,
        cache_write_1h: None,
        reasoning: None,
    };
    let request = ChatRequest::parse(&json!({ "messages": [{ "role": "user", "content": "a" }], "max_tokens": 100 }))
        .expect("a request");
    let most = |tariffs: Vec<Tariff>| {
        let rungs = tariffs.into_iter().map(|tariff| Rung {
            target: Target::new("p", "m"),
            model: Model { terms: PriceTerms { price: Some(tariff), ..PriceTerms::default() }, ..Model::default() },
            timeouts: Timeouts::of(Duration::from_mins(1)),
            stream: false,
        });
        let route = Route {
            max_attempts: 2,
            fallback_on: ErrorClass::ALL.iter().copied().collect(),
            reask: true,
            ..Route::plain("r", rungs.collect())
        };
        let mut estimate = FileEstimate::new(&route, AT);
        estimate.add(&route, &request, &|_, _, _| None);
        estimate.most.expect("all prices are known").0
    };
    let flat = Tariff { usual: price(5_000_000), above: Vec::new() };
    let long = Tariff { usual: price(0), above: vec![Above { input_tokens: 1_000, price: price(9_000_000) }] };
    let (of_flat, of_long) = (most(vec![flat.clone()]), most(vec![long.clone()]));
    assert!(of_flat > 0 && of_long > 0);
    assert_eq!(most(vec![flat, long]), of_flat / 2 + of_long);
}
