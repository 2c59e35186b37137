//! Where budgets let calls pass, table by table; and a world in which calls are asked for, end, are lost and found
//! again while windows turn and limits are raised.

use super::*;
use proptest::prelude::*;

fn budget(name: &str, scope: Coverage, period: Period, limit: i64) -> Budget {
    let limit = NanoUsd(limit);
    Budget { name: name.to_owned(), scope, period, limit, soft: None, then_route: None, unpriced: Unpriced::Refuse }
}

fn standing(scope: Coverage, limit: i64) -> BudgetStanding {
    let name = scope.to_string();
    BudgetStanding {
        budget: budget(&name, scope, Period::Day, limit),
        ends_at: Some(Timestamp(86_400_000)),
        spent: NanoUsd::ZERO,
        uncertain: NanoUsd::ZERO,
        reserved: NanoUsd::ZERO,
        least: None,
        least_is_old: false,
    }
}

fn asked(worst: impl Into<Option<i64>>) -> Outlay<'static> {
    Outlay {
        route: "r",
        project: "p",
        batch: Some("b"),
        login: Some("l"),
        provider: Some("openai"),
        worst: worst.into().map(NanoUsd),
    }
}

#[test]
fn a_scope_covers_what_has_its_name() {
    let named = |kind: &str, name: &str| Coverage::of(kind, name).unwrap();
    for (kind, name) in [("project", "p"), ("route", "r"), ("provider", "openai"), ("batch", "b"), ("login", "l")] {
        let scope = named(kind, name);
        assert_eq!((scope.kind(), scope.name(), scope.covers(&asked(1))), (kind, name, true));
        assert!(!named(kind, "other").covers(&asked(1)), "{kind}");
        assert_eq!(scope.to_string(), format!("{kind} {name}"));
    }
    assert!(Coverage::Total.covers(&asked(1)));
    assert_eq!(Coverage::of("colour", "red"), None);
    let lane = Outlay { batch: None, login: None, provider: None, ..asked(1) };
    assert!(!named("batch", "b").covers(&lane) && !named("login", "l").covers(&lane));
    assert!(!named("provider", "openai").covers(&lane));
    assert!(Coverage::KINDS.iter().all(|kind| Coverage::of(kind, "x").is_some_and(|scope| scope.kind() == *kind)));
}

#[test]
fn words_are_read_as_they_are_written() {
    assert!(Period::ALL.into_iter().all(|period| Period::parse(period.as_str()) == Some(period)));
    assert!(Unpriced::ALL.into_iter().all(|unpriced| Unpriced::parse(unpriced.as_str()) == Some(unpriced)));
    assert_eq!((Period::parse("year"), Unpriced::parse("maybe")), (None, None));
}

#[test]
fn a_call_is_reserved_in_all_budgets_that_cover_it_or_in_none() {
    let mut all = [
        standing(Coverage::Total, 100),
        standing(Coverage::Project("p".into()), 30),
        standing(Coverage::Project("other".into()), 1),
    ];
    assert_eq!(grant(&mut all, &asked(20)), Ok(vec![0, 1]));
    assert_eq!(grant(&mut all, &asked(20)), Err(Shortage::NoRoom { budget: 1, is_moment: true }));
    assert_eq!(all.each_ref().map(|it| it.reserved.0), [20, 20, 0], "the total has room, and reserves nothing");
    assert_eq!(grant(&mut all, &asked(10)), Ok(vec![0, 1]), "a smaller call passes the larger one");
    assert_eq!(all[1].room(), NanoUsd::ZERO);
    assert!(all[1].holds() && all[1].is_closed() && !all[0].holds());
}

#[test]
fn what_never_fits_is_told_apart_from_what_waits() {
    let total = || standing(Coverage::Total, 100);
    for (standings, worst, expected) in [
        (vec![total()], Some(101), Shortage::NeverFits { budget: 0, worst: NanoUsd(101) }),
        (
            vec![BudgetStanding { spent: NanoUsd(60), ..total() }],
            Some(50),
            Shortage::NoRoom { budget: 0, is_moment: false },
        ),
        (
            vec![BudgetStanding { uncertain: NanoUsd(60), ..total() }],
            Some(50),
            Shortage::NoRoom { budget: 0, is_moment: false },
        ),
        (
            vec![BudgetStanding { reserved: NanoUsd(60), ..total() }],
            Some(50),
            Shortage::NoRoom { budget: 0, is_moment: true },
        ),
        (vec![total()], None, Shortage::Unpriced { budget: 0 }),
        // A provider's budget leaves the other rungs, so that of the job comes first.
        (
            vec![standing(Coverage::Provider("openai".into()), 60), BudgetStanding { spent: NanoUsd(60), ..total() }],
            Some(50),
            Shortage::NoRoom { budget: 1, is_moment: false },
        ),
        (
            vec![BudgetStanding { spent: NanoUsd(60), ..total() }, standing(Coverage::Provider("openai".into()), 40)],
            Some(50),
            Shortage::NeverFits { budget: 1, worst: NanoUsd(50) },
        ),
    ] {
        let mut standings = standings;
        let before: Vec<NanoUsd> = standings.iter().map(|it| it.reserved).collect();
        assert_eq!(grant(&mut standings, &asked(worst)), Err(expected), "{worst:?}");
        assert_eq!(standings.iter().map(|it| it.reserved).collect::<Vec<_>>(), before);
    }
}

#[test]
fn a_call_without_a_price_passes_where_that_is_allowed_and_something_is_left() {
    let mut all = [standing(Coverage::Total, 100)];
    all[0].budget.unpriced = Unpriced::Allow;
    assert_eq!(grant(&mut all, &asked(None)), Ok(vec![0]));
    assert_eq!((all[0].reserved, all[0].least), (NanoUsd::ZERO, None));
    all[0].spent = NanoUsd(100);
    assert_eq!(grant(&mut all, &asked(None)), Err(Shortage::NoRoom { budget: 0, is_moment: false }));
}

#[test]
fn the_smallest_call_tells_when_jobs_are_held_back_and_one_may_try_again_after_a_while() {
    let mut all = [BudgetStanding { spent: NanoUsd(95), ..standing(Coverage::Total, 100) }];
    assert!(!all[0].holds(), "it has room for something");
    assert!(grant(&mut all, &asked(50)).is_err());
    assert!(grant(&mut all, &asked(20)).is_err());
    assert!(grant(&mut all, &asked(30)).is_err());
    assert_eq!((all[0].least, all[0].holds(), all[0].is_closed()), (Some(NanoUsd(20)), true, true));
    assert!(!all[0].holds_for_a_moment());
    all[0].least_is_old = true;
    assert_eq!((all[0].holds(), all[0].is_closed(), all[0].calls_left()), (true, false, Some(TRIES)));
    assert_eq!(grant(&mut all, &asked(4)), Ok(vec![0]));
    assert_eq!((all[0].least, all[0].least_is_old, all[0].holds()), (Some(NanoUsd(4)), false, true));
    // One that never fits says nothing of the room that the others need.
    assert!(grant(&mut all, &asked(1_000)).is_err());
    all[0].reserved = NanoUsd::ZERO;
    assert_eq!((all[0].least, all[0].calls_left()), (Some(NanoUsd(4)), Some(1)));
    let (now, day) = (Timestamp(1_000), Timestamp(86_400_000));
    assert_eq!(BudgetStanding { spent: NanoUsd(100), ..all[0].clone() }.shut(now).until, day);
    let moment = BudgetStanding { reserved: NanoUsd(5), ..all[0].clone() };
    assert_eq!((moment.holds_for_a_moment(), moment.shut(now).until, moment.opens()), (true, now + MOMENT, None));
    let once = BudgetStanding { ends_at: None, spent: NanoUsd(100), ..all[0].clone() };
    assert_eq!((once.opens(), once.shut(now).known_end()), (None, None));
}

#[test]
fn a_lane_is_held_back_sent_elsewhere_or_bounded_by_the_budgets_of_its_jobs() {
    let lane = Outlay { provider: None, worst: None, ..asked(1) };
    let full = |scope| BudgetStanding { spent: NanoUsd(100), ..standing(scope, 100) };
    let provider = full(Coverage::Provider("openai".into()));
    let mut budgets = Budgets(vec![provider, full(Coverage::Project("other".into())), standing(Coverage::Total, 100)]);
    assert_eq!(budgets.held_back(&lane), None);
    assert_eq!(budgets.closed_providers().map(|(name, _)| name).collect::<Vec<_>>(), ["openai"]);
    assert_eq!(budgets.calls_left(&lane), None);
    budgets.0[2].least = Some(NanoUsd(30));
    assert_eq!(budgets.calls_left(&lane), Some(3));
    budgets.take(&lane, 3);
    assert_eq!((budgets.calls_left(&lane), budgets.held_back(&lane).is_some()), (Some(0), true));
    budgets.0[2].reserved = NanoUsd::ZERO;
    (budgets.0[2].budget.soft, budgets.0[2].budget.then_route) = (Some(800_000), Some("cheap".to_owned()));
    for (spent, expected) in [(79, None), (80, Some("cheap"))] {
        budgets.0[2].spent = NanoUsd(spent);
        assert_eq!(budgets.other_route(&lane).map(|(route, _)| route), expected, "{spent}");
    }
    assert_eq!(budgets.other_route(&Outlay { route: "cheap", ..lane }), None, "it is there already");
}

#[test]
fn budgets_that_contradict_each_other_are_named() {
    let news = || Coverage::Project("news".into());
    let faults = |budgets: &[Budget]| contradictions(budgets).into_iter().map(|(_, said)| said).collect::<Vec<_>>();
    assert_eq!(
        faults(&[
            budget("a", news(), Period::Hour, 1),
            budget("b", news(), Period::Day, 5),
            budget("c", Coverage::Total, Period::Day, 3,)
        ]),
        Vec::<String>::new()
    );
    let twice = [budget("a", news(), Period::Day, 1), budget("b", news(), Period::Day, 5)];
    assert_eq!(faults(&twice), ["a covers project news per day already"]);
    let never = [budget("a", news(), Period::Hour, 9), budget("b", news(), Period::Day, 5)];
    assert_eq!(faults(&never), ["is never reached: b allows project news less ($0.000000005 per day)"]);
}

#[test]
fn what_a_configuration_would_refuse_is_named_of_budgets_that_were_set_by_sql() {
    let mut all = [
        budget("a", Coverage::Route("default".into()), Period::Day, 5),
        budget("b", Coverage::Route("gone".into()), Period::Day, 5),
        budget("c", Coverage::Provider("opneai".into()), Period::Day, 5),
        budget("d", Coverage::Route("default".into()), Period::Hour, 9),
    ];
    (all[0].soft, all[0].then_route) = (Some(800_000), Some("cheep".to_owned()));
    let found = faults(&all, |route| ["default", "cheap"].contains(&route), |provider| provider == "openai");
    assert_eq!(
        found,
        [
            (3, "is never reached: a allows route default less ($0.000000005 per day)".to_owned()),
            (0, "sends its jobs along cheep, and there is no such route: they stay on their own".to_owned()),
            (1, "covers the route gone, which the configuration does not have".to_owned()),
            (2, "covers the provider opneai, which the configuration does not have".to_owned()),
        ]
    );
}

#[test]
fn amounts_have_one_bound_and_one_form_everywhere() {
    for (text, expected) in [
        ("25", Ok(25_000_000_000)),
        (" 0.50 ", Ok(500_000_000)),
        ("9000000000", Ok(MOST.0)),
        ("9000000000.000000001", Err("is more than 9000000000 dollars")),
        ("99999999999999999999", Err("is more than 9000000000 dollars")),
        ("0.00", Err("is nothing: to let nothing run, pause it")),
        ("-1", Err("is below 0")),
        ("$5", Err("has the sign of a currency: dollars are meant")),
        ("5 EUR", Err("is no amount: expected dollars as a decimal number like \"0.15\"")),
        (
            "0.0000000001",
            Err("is no amount: expected at most nine decimals: a billionth of a dollar is the smallest unit"),
        ),
        ("", Err("is no amount: expected dollars as a decimal number like \"0.15\"")),
    ] {
        assert_eq!(amount(text), expected.map(NanoUsd).map_err(str::to_owned), "{text:?}");
    }
}

/// A call of the world.
#[derive(Clone, Debug)]
struct Call {
    worst: i64,
    /// The window in which it began.
    since: usize,
    /// The places of the budgets in which it is reserved.
    budgets: Vec<usize>,
    /// The window in which it was booked as lost.
    lost_in: Option<usize>,
}

#[derive(Clone, Debug)]
enum Event {
    /// A worker asks: which of the scopes cover the call, and its worst case.
    Ask {
        project: bool,
        worst: i64,
    },
    /// A call ends having cost this part of its worst case, by its own clock perhaps before the window turned.
    End {
        call: usize,
        per_cent: i64,
        late: bool,
    },
    /// It was opened and is not made.
    NotMade {
        call: usize,
    },
    /// Its worker dies, and another process books it.
    Lost {
        call: usize,
    },
    /// The report of a lost call comes after all.
    Found {
        call: usize,
        per_cent: i64,
    },
    Raise {
        budget: usize,
        more: i64,
    },
    Turn,
}

fn event() -> impl Strategy<Value = Event> {
    let call = || 0..64_usize;
    prop_oneof![
        6 => (any::<bool>(), 1..60_i64).prop_map(|(project, worst)| Event::Ask { project, worst }),
        4 => (call(), 0..=100_i64, any::<bool>())
            .prop_map(|(call, per_cent, late)| Event::End { call, per_cent, late }),
        1 => call().prop_map(|call| Event::NotMade { call }),
        2 => call().prop_map(|call| Event::Lost { call }),
        2 => (call(), 0..=100_i64).prop_map(|(call, per_cent)| Event::Found { call, per_cent }),
        1 => (0..2_usize, 1..50_i64).prop_map(|(budget, more)| Event::Raise { budget, more }),
        1 => Just(Event::Turn),
    ]
}

/// The ledger, by budget and window: spent and uncertain.
type Ledger = [Vec<(i64, i64)>; 2];

proptest! {
    /// Two budgets, one of them over all calls. In each window and at any moment the spent, the uncertain and the
    /// reserved amount together are at most the limit. When all calls have ended, nothing is reserved, and the amount
    /// left can be spent.
    #[test]
    fn no_budget_is_overshot_whatever_happens(events in prop::collection::vec(event(), 1..200)) {
        let mut standings = [standing(Coverage::Total, 200), standing(Coverage::Project("p".into()), 100)];
        let mut ledger: Ledger = [vec![(0, 0)], vec![(0, 0)]];
        let mut under_way: Vec<Call> = Vec::new();
        let mut lost: Vec<Call> = Vec::new();
        for event in events {
            let now = ledger[0].len() - 1;
            match event {
                Event::Ask { project, worst } => {
                    let project = if project { "p" } else { "q" };
                    if let Ok(budgets) = grant(&mut standings, &Outlay { project, ..asked(worst) }) {
                        under_way.push(Call { worst, since: now, budgets, lost_in: None });
                    }
                }
                Event::End { call, per_cent, late } if !under_way.is_empty() => {
                    let call = under_way.swap_remove(call % under_way.len());
                    let window = now - usize::from(late && call.since < now);
                    for budget in call.budgets {
                        standings[budget].reserved.0 -= call.worst;
                        ledger[budget][window].0 += call.worst * per_cent / 100;
                    }
                }
                Event::NotMade { call } if !under_way.is_empty() => {
                    let call = under_way.swap_remove(call % under_way.len());
                    call.budgets.iter().for_each(|budget| standings[*budget].reserved.0 -= call.worst);
                }
                Event::Lost { call } if !under_way.is_empty() => {
                    let mut call = under_way.swap_remove(call % under_way.len());
                    for &budget in &call.budgets {
                        standings[budget].reserved.0 -= call.worst;
                        ledger[budget][now].1 += call.worst;
                    }
                    call.lost_in = Some(now);
                    lost.push(call);
                }
                Event::Found { call, per_cent } if !lost.is_empty() => {
                    let call = lost.swap_remove(call % lost.len());
                    let window = call.lost_in.unwrap();
                    for budget in call.budgets {
                        ledger[budget][window].1 -= call.worst;
                        ledger[budget][window].0 += call.worst * per_cent / 100;
                    }
                }
                Event::Raise { budget, more } => standings[budget].budget.limit.0 += more,
                Event::Turn => ledger.iter_mut().for_each(|windows| windows.push((0, 0))),
                Event::End { .. } | Event::NotMade { .. } | Event::Lost { .. } | Event::Found { .. } => {}
            }
            for (standing, windows) in standings.iter_mut().zip(&ledger) {
                let (spent, uncertain) = *windows.last().unwrap();
                (standing.spent, standing.uncertain) = (NanoUsd(spent), NanoUsd(uncertain));
                prop_assert!(standing.room().0 >= 0, "{standing:?}");
                for (spent, uncertain) in windows {
                    prop_assert!(spent + uncertain <= standing.budget.limit.0, "{windows:?} of {standing:?}");
                }
            }
        }
        for call in under_way {
            call.budgets.iter().for_each(|budget| standings[*budget].reserved.0 -= call.worst);
        }
        for standing in &mut standings {
            prop_assert_eq!(standing.reserved, NanoUsd::ZERO);
            let room = standing.room().0;
            let fits = Outlay { project: "p", ..asked(room) };
            prop_assert!(room == 0 || grant(std::slice::from_mut(standing), &fits).is_ok());
        }
    }

    #[test]
    fn any_question_is_answered(worst in any::<Option<i64>>(), spent in any::<i64>(), reserved in any::<i64>()) {
        let (spent, reserved) = (NanoUsd(spent), NanoUsd(reserved));
        let mut all = [BudgetStanding { spent, reserved, ..standing(Coverage::Total, 5) }];
        let _ = grant(&mut all, &asked(worst));
        let _ = (all[0].calls_left(), all[0].is_soft(), all[0].shut(Timestamp(0)), all[0].in_words());
    }
}
