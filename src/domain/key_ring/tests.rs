use super::*;
use crate::domain::{ErrorClass, SoftFailure};
use proptest::prelude::*;

const NOW: Timestamp = Timestamp(1_000_000);
const SECOND: Duration = Duration::from_secs(1);
const RECHECK: Duration = Duration::from_mins(10);
const REFUSED: KeySign = KeySign::Refused(KeyFault::Rejected);
const PENNILESS: KeySign = KeySign::Refused(KeyFault::OutOfMoney);

fn ring(keys: usize) -> KeyRing {
    KeyRing::new(keys, RECHECK)
}

fn take(ring: &mut KeyRing, now: Timestamp) -> KeyLease {
    ring.take(now).expect("a key may be taken")
}

/// Takes keys until this one comes, and reports it; the others work.
fn retire(ring: &mut KeyRing, index: usize, sign: KeySign, now: Timestamp) {
    loop {
        let lease = take(ring, now);
        if lease.index() == index {
            assert!(matches!(ring.report(lease, sign, now), Some(KeyChange::Retired(_))));
            return;
        }
        assert_eq!(ring.report(lease, KeySign::Works, now), None);
    }
}

fn taken(ring: &mut KeyRing, calls: usize, now: Timestamp) -> Vec<usize> {
    (0..calls)
        .map(|_| {
            let lease = take(ring, now);
            let index = lease.index();
            ring.report(lease, KeySign::Works, now);
            index
        })
        .collect()
}

#[test]
fn after_a_reload_one_call_tries_a_key_that_is_still_the_same_and_all_may_take_a_new_one() {
    let mut ring = KeyRing::renewed(&[Some((KeyFault::Rejected, NOW))], RECHECK, NOW);
    let probe = take(&mut ring, NOW);
    assert!(ring.take(NOW).is_err(), "one at a time");
    assert_eq!(ring.report(probe, KeySign::Works, NOW), Some(KeyChange::Back));
    assert_eq!(ring.in_service(), 1);
    let mut ring = KeyRing::renewed(&[None, Some((KeyFault::OutOfMoney, NOW))], RECHECK, NOW);
    assert_eq!(ring.in_service(), 1);
    let taken: Vec<usize> = (0..3).map(|_| take(&mut ring, NOW).index()).collect();
    assert_eq!(taken, [0, 1, 0]);
    assert_eq!(KeyRing::renewed(&[], RECHECK, NOW).in_service(), 1, "a server without keys");
}

#[test]
fn keys_in_service_are_taken_in_turn() {
    let mut ring = ring(3);
    assert_eq!(taken(&mut ring, 7, NOW), [0, 1, 2, 0, 1, 2, 0]);
    retire(&mut ring, 2, PENNILESS, NOW);
    assert_eq!(taken(&mut ring, 4, NOW), [0, 1, 0, 1]);
}

#[test]
fn a_server_without_keys_counts_as_one_key() {
    let mut ring = ring(0);
    retire(&mut ring, 0, REFUSED, NOW);
    assert_eq!(ring.shut(NOW), Some(Shut { reason: Reason::Auth, since: NOW, until: NOW + RECHECK }));
}

#[test]
fn what_an_outcome_says_of_a_key() {
    use ErrorClass as Class;
    for class in Class::ALL.iter().copied() {
        let expected = match class {
            Class::Auth => REFUSED,
            Class::QuotaExhausted => PENNILESS,
            _ => KeySign::Silent,
        };
        assert_eq!(KeySign::of(&Outcome::Failed(class)), expected, "{class}");
    }
    assert_eq!(KeySign::of(&Outcome::Accepted), KeySign::Works);
    assert_eq!(KeySign::of(&Outcome::Rejected(SoftFailure::Refusal)), KeySign::Works);
}

#[test]
fn a_provider_is_shut_when_all_its_keys_are_out_and_for_the_reason_of_the_first_to_be_tried() {
    let mut ring = ring(2);
    retire(&mut ring, 0, REFUSED, NOW);
    assert_eq!(ring.shut(NOW), None);
    let later = NOW + SECOND;
    retire(&mut ring, 1, PENNILESS, later);
    let out = Shut { reason: Reason::Auth, since: later, until: NOW + RECHECK };
    assert_eq!(ring.shut(later), Some(out));
    assert_eq!(ring.take(later), Err(out));
}

#[test]
fn one_call_tries_a_key_again_and_nobody_else_meanwhile() {
    let mut ring = ring(1);
    retire(&mut ring, 0, PENNILESS, NOW);
    assert!(ring.take(NOW + RECHECK - Duration::from_millis(1)).is_err());
    let due = NOW + RECHECK;
    let probe = take(&mut ring, due);
    let waiting = Shut { reason: Reason::QuotaExhausted, since: NOW, until: due + PROBE_POLL };
    assert_eq!(ring.take(due), Err(waiting));
    assert_eq!(
        ring.report(probe, REFUSED, due + SECOND),
        Some(KeyChange::StillOut(KeyFault::Rejected)),
        "it may be another fault now"
    );
    let again = due + SECOND + RECHECK;
    assert_eq!(ring.shut(due + SECOND).map(|out| (out.since, out.until)), Some((NOW, again)));
    let probe = take(&mut ring, again);
    assert_eq!(ring.report(probe, KeySign::Works, again), Some(KeyChange::Back));
    assert_eq!((ring.in_service(), ring.shut(again)), (1, None));
}

#[test]
fn a_probe_that_teaches_nothing_leaves_the_key_to_the_next_call() {
    for drop in [false, true] {
        let mut ring = ring(1);
        retire(&mut ring, 0, REFUSED, NOW);
        let due = NOW + RECHECK;
        let probe = take(&mut ring, due);
        if drop {
            ring.give_back(probe);
        } else {
            assert_eq!(ring.report(probe, KeySign::Silent, due + SECOND), None);
        }
        assert!(ring.take(due + SECOND).is_ok());
        assert!(ring.take(due + SECOND).is_err(), "one at a time");
    }
}

#[test]
fn a_probe_whose_result_never_comes_is_replaced_and_then_counts_for_nothing() {
    let mut ring = ring(1);
    retire(&mut ring, 0, REFUSED, NOW);
    let due = NOW + RECHECK;
    let lost = take(&mut ring, due);
    assert!(ring.take(due + PROBE_LIMIT - SECOND).is_err());
    let probe = take(&mut ring, due + PROBE_LIMIT);
    assert_eq!(ring.report(lost, KeySign::Works, due + PROBE_LIMIT), None);
    assert_eq!(ring.in_service(), 0);
    assert_eq!(ring.report(probe, KeySign::Works, due + PROBE_LIMIT), Some(KeyChange::Back));
}

#[test]
fn calls_from_before_a_key_was_retired_change_nothing_any_more() {
    let mut ring = ring(1);
    let [first, refused_too, late] = [0; 3].map(|_| take(&mut ring, NOW));
    assert_eq!(ring.report(first, REFUSED, NOW), Some(KeyChange::Retired(KeyFault::Rejected)));
    let later = NOW + SECOND;
    assert_eq!(ring.report(refused_too, REFUSED, later), None, "it is said once");
    assert_eq!(ring.report(late, KeySign::Works, later), None);
    assert_eq!(ring.shut(later).map(|out| out.until), Some(NOW + RECHECK), "its rest is not lengthened");
}

#[test]
fn a_due_key_is_tried_although_others_are_in_service() {
    let mut ring = ring(3);
    retire(&mut ring, 1, REFUSED, NOW);
    taken(&mut ring, 2, NOW + RECHECK - SECOND);
    let probe = take(&mut ring, NOW + RECHECK);
    assert_eq!(probe.index(), 1);
    assert_eq!(taken(&mut ring, 3, NOW + RECHECK).len(), 3, "the others go on");
    assert_eq!(ring.report(probe, KeySign::Works, NOW + RECHECK), Some(KeyChange::Back));
}

#[derive(Clone, Debug)]
enum Event {
    Take,
    /// Reports the lease at this place among those that are out.
    Report(usize, KeySign),
    GiveBack(usize),
    Pass(Duration),
}

fn event() -> impl Strategy<Value = Event> {
    let sign = prop::sample::select(vec![KeySign::Works, KeySign::Silent, REFUSED, PENNILESS]);
    prop_oneof![
        3 => Just(Event::Take),
        3 => (0..8_usize, sign).prop_map(|(which, sign)| Event::Report(which, sign)),
        1 => (0..8_usize).prop_map(Event::GiveBack),
        1 => (0..1_200_u64).prop_map(|seconds| Event::Pass(Duration::from_secs(seconds))),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_a_retired_key_rests_and_is_tried_by_one_call_at_a_time(
        keys in 0..5_usize,
        events in prop::collection::vec(event(), 0..200),
    ) {
        let mut ring = ring(keys);
        let mut now = NOW;
        let mut out: Vec<KeyLease> = Vec::new();
        for event in events {
            let before: Vec<KeyState> = ring.states().collect();
            match event {
                Event::Pass(time) => now = now + time,
                Event::Take => {
                    let shut = ring.shut(now);
                    let taken = ring.take(now);
                    prop_assert_eq!(taken.as_ref().err().copied(), shut);
                    if let Some(shut) = shut {
                        prop_assert!(shut.until > now);
                        prop_assert_eq!(ring.in_service(), 0);
                    }
                    if let Ok(lease) = taken {
                        match before[lease.index()] {
                            KeyState::InService => {}
                            KeyState::Retired { until, .. } => prop_assert!(until <= now),
                            KeyState::Doubted { until, .. } => {
                                prop_assert!(until <= now);
                                let asks = |state: &KeyState| {
                                    matches!(state, KeyState::Asked { began, .. } if *began + PROBE_LIMIT > now)
                                };
                                prop_assert!(!before.iter().any(asks), "one call asks at a time");
                            }
                            KeyState::Probed { began, .. } | KeyState::Asked { began, .. } => {
                                prop_assert!(began + PROBE_LIMIT <= now);
                            }
                        }
                        let after = ring.states().nth(lease.index());
                        let in_service = before[lease.index()] == KeyState::InService;
                        prop_assert_eq!(after == Some(KeyState::InService), in_service);
                        out.push(lease);
                    }
                }
                Event::Report(which, sign) if which < out.len() => {
                    let lease = out.swap_remove(which);
                    let index = lease.index();
                    let change = ring.report(lease, sign, now);
                    let after = ring.states().nth(index).expect("the keys stay");
                    match change {
                        None => prop_assert_eq!(after.absence(), before[index].absence()),
                        Some(KeyChange::Doubted | KeyChange::StillInDoubt | KeyChange::Outage(_)) => {
                            let is_doubted = matches!(after, KeyState::Doubted { .. });
                            prop_assert!(is_doubted);
                            prop_assert_eq!(sign, REFUSED);
                        }
                        Some(KeyChange::OutageBelieved(_)) => {
                            prop_assert_eq!(after.fault().map(|(fault, _)| fault), Some(KeyFault::Rejected));
                            prop_assert!(ring.states().all(|state| state.fault().is_some()));
                        }
                        Some(KeyChange::Back | KeyChange::Cleared | KeyChange::OutageOver(_)) => {
                            prop_assert_eq!(after, KeyState::InService);
                        }
                        Some(KeyChange::Retired(fault) | KeyChange::StillOut(fault)) => {
                            let since = before[index].absence().map_or(now, |(_, since)| since);
                            prop_assert_eq!(after, KeyState::Retired { fault, since, until: now + RECHECK });
                        }
                    }
                }
                Event::GiveBack(which) if which < out.len() => {
                    let lease = out.swap_remove(which);
                    let index = lease.index();
                    ring.give_back(lease);
                    let after = ring.states().nth(index).expect("the keys stay");
                    prop_assert_eq!(after.absence(), before[index].absence());
                }
                Event::Report(..) | Event::GiveBack(_) => {}
            }
            // What is taken for an outage is one of keys in doubt, and none is in service.
            if ring.outage().is_some() {
                prop_assert_eq!(ring.in_service(), 0);
                let is_doubted = |state: KeyState| state.absence().is_some() && state.fault().is_none();
                prop_assert!(ring.states().any(is_doubted));
            }
        }
    }

    /// Calls are made one after the other, and each is learnt from before the next.
    #[test]
    fn a_dead_key_costs_one_call_and_then_one_for_each_recheck(
        dead in prop::collection::vec(any::<bool>(), 1..6),
        pauses in prop::collection::vec(0..120_u64, 1..300),
    ) {
        let mut ring = ring(dead.len());
        let mut now = NOW;
        let mut calls = vec![0_u64; dead.len()];
        let mut refused_in_a_row = 0;
        for pause in pauses {
            now = now + Duration::from_secs(pause);
            let Ok(lease) = ring.take(now) else { continue };
            calls[lease.index()] += 1;
            let sign = if dead[lease.index()] { REFUSED } else { KeySign::Works };
            refused_in_a_row = if dead[lease.index()] { refused_in_a_row + 1 } else { 0 };
            let one_works = dead.iter().any(|dead| !dead);
            prop_assert!(!one_works || refused_in_a_row < dead.len(), "each dead key once, then one that works");
            ring.report(lease, sign, now);
        }
        let rechecks = NOW.until(now).as_secs() / RECHECK.as_secs();
        for (calls, dead) in calls.iter().zip(&dead) {
            prop_assert!(!dead || *calls <= 1 + rechecks);
        }
    }
}

#[test]
fn a_key_of_which_another_process_tells_is_tried_by_one_call() {
    let mut ring = ring(1);
    let out = Some((KeyFault::OutOfMoney, NOW));
    let before = take(&mut ring, NOW);
    assert!(ring.hear(0, out, NOW));
    assert!(!ring.hear(0, out, NOW), "it is known");
    let probe = take(&mut ring, NOW);
    let shut = ring.shut(NOW).expect("one call at a time");
    assert_eq!((shut.reason, shut.since), (Reason::QuotaExhausted, NOW));
    assert!(!ring.hear(0, None, NOW) && !ring.hear(0, out, NOW), "it is being found out");
    // A call from before says nothing, and the probe decides: the secret may be another one here.
    assert_eq!(ring.report(before, KeySign::Works, NOW), None);
    assert_eq!(ring.report(probe, KeySign::Works, NOW), Some(KeyChange::Back));
    assert!(!ring.hear(0, out, NOW), "it works here, whatever happens there");
    // It is refused there once more, and it is the same secret.
    let out = Some((KeyFault::OutOfMoney, NOW + SECOND));
    assert!(ring.hear(0, out, NOW));
    let probe = take(&mut ring, NOW);
    assert_eq!(ring.report(probe, PENNILESS, NOW), Some(KeyChange::StillOut(KeyFault::OutOfMoney)));
    assert_eq!(ring.shut(NOW).map(|shut| shut.until), Some(NOW + RECHECK));
    // The bill was paid, as another process finds out first.
    assert!(ring.hear(0, None, NOW + SECOND));
    let probe = take(&mut ring, NOW + SECOND);
    assert_eq!(ring.report(probe, KeySign::Works, NOW + SECOND), Some(KeyChange::Back));
    assert!(!ring.hear(0, None, NOW) && !ring.hear(7, out, NOW), "nothing to learn");
}

#[test]
fn a_key_that_answers_here_and_is_refused_there_is_in_doubt() {
    let mut ring = ring(2);
    assert_eq!(story(&mut ring, &[(0, KeySign::Works), (1, KeySign::Works)]), ["0", "1"]);
    // A worker that has just begun has never seen them answer, and tells that both are out.
    let now = NOW + SECOND;
    for index in [0, 1] {
        assert!(ring.hear(index, Some((KeyFault::Rejected, now)), now));
    }
    assert!(ring.states().all(KeyState::is_in_doubt));
    // They are refused here, too: not the keys of one worker, and not proven to be out.
    assert_eq!(ring.outage().map(|outage| outage.keys), Some(2));
    let told = story(&mut ring, &[(2_000, REFUSED), (3_000, REFUSED), (4_000, KeySign::Works)]);
    assert_eq!(told, ["0: StillInDoubt", "shut: keys_in_doubt, 1000 ms", "1: over"]);
    assert_eq!(ring.in_service(), 2);
    // Money is another matter, and so is a key that never answered here.
    assert!(ring.hear(0, Some((KeyFault::OutOfMoney, now + SECOND * 9)), now + SECOND * 9));
    assert!(ring.states().next().is_some_and(|state| state.fault().is_some()));
}

#[test]
fn a_refusal_from_before_an_own_answer_is_outdated() {
    let mut ring = ring(1);
    let call = take(&mut ring, NOW + SECOND);
    assert_eq!(ring.report(call, KeySign::Works, NOW + SECOND + SECOND), None);
    // An earlier process of the same name was refused, and has told the database.
    assert!(!ring.hear(0, Some((KeyFault::Rejected, NOW)), NOW + SECOND + SECOND));
    assert_eq!(ring.in_service(), 1);
    // What was refused after the call had begun may be the latest news.
    assert!(ring.hear(0, Some((KeyFault::Rejected, NOW + SECOND + SECOND)), NOW + SECOND + SECOND));
}

/// Makes calls one after the other, each at this many milliseconds after [`NOW`], with whichever key comes. Returns
/// what each of them changed; `shut`: no key could be taken.
fn story(ring: &mut KeyRing, calls: &[(u64, KeySign)]) -> Vec<String> {
    let told = calls.iter().map(|&(at, sign)| {
        let now = NOW + Duration::from_millis(at);
        let lease = match ring.take(now) {
            Ok(lease) => lease,
            Err(shut) => return format!("shut: {}, {} ms", shut.reason.as_str(), now.until(shut.until).as_millis()),
        };
        let index = lease.index();
        match ring.report(lease, sign, now) {
            None => format!("{index}"),
            Some(KeyChange::Outage(outage)) => format!("{index}: {outage}"),
            Some(KeyChange::OutageOver(_)) => format!("{index}: over"),
            Some(KeyChange::OutageBelieved(_)) => format!("{index}: believed"),
            Some(change) => format!("{index}: {change:?}"),
        }
    });
    told.collect()
}

#[test]
fn keys_that_have_answered_and_are_refused_together_are_an_outage_and_one_alone_is_not() {
    use KeySign::{Silent, Works};
    type Told = [(u64, KeySign, &'static str)];
    let table: &[(&str, usize, &Told)] = &[
        (
            "three at once: one call asks after 1 s, then after 2 s, and an answer brings all of them back",
            3,
            &[
                (0, Works, "0"),
                (1, Works, "1"),
                (2, Works, "2"),
                (10, REFUSED, "0: Doubted"),
                (20, REFUSED, "1: Doubted"),
                (1_500, REFUSED, "2: all 3 keys were refused within 2 s: taken for an outage"),
                (1_500, REFUSED, "shut: keys_in_doubt, 1000 ms"),
                (2_500, REFUSED, "0: StillInDoubt"),
                (2_501, REFUSED, "shut: keys_in_doubt, 1999 ms"),
                (4_500, Silent, "1"),
                (4_501, REFUSED, "2: StillInDoubt"),
                (8_501, Works, "0: over"),
                (8_502, Works, "1"),
                (8_503, Works, "2"),
            ],
        ),
        (
            "an only key is asked once more, and is out then",
            1,
            &[
                (0, Works, "0"),
                (10, REFUSED, "0: Doubted"),
                (11, REFUSED, "shut: keys_in_doubt, 999 ms"),
                (1_010, REFUSED, "0: Retired(Rejected)"),
                (1_011, REFUSED, "shut: auth, 599999 ms"),
            ],
        ),
        (
            "an only key that answers then goes on",
            1,
            &[(0, Works, "0"), (10, REFUSED, "0: Doubted"), (1_010, Works, "0: Cleared"), (1_011, Works, "0")],
        ),
        (
            "keys that have never answered are out at once",
            2,
            &[
                (0, REFUSED, "0: Retired(Rejected)"),
                (1, REFUSED, "1: Retired(Rejected)"),
                (2, REFUSED, "shut: auth, 599998 ms"),
            ],
        ),
        ("so is one whose answer is long ago", 1, &[(0, Works, "0"), (3_600_001, REFUSED, "0: Retired(Rejected)")]),
        (
            "one that is refused again while another answers is out, and that one goes on",
            2,
            &[
                (0, Works, "0"),
                (1, Works, "1"),
                (10, REFUSED, "0: Doubted"),
                (20, Works, "1"),
                (1_010, REFUSED, "0: Retired(Rejected)"),
                (1_020, Works, "1"),
            ],
        ),
        (
            "one that has never answered is no sign of an outage: the other is asked once more",
            2,
            &[
                (0, Works, "0"),
                (1, REFUSED, "1: Retired(Rejected)"),
                (2, REFUSED, "0: Doubted"),
                (1_002, REFUSED, "0: Retired(Rejected)"),
            ],
        ),
        (
            "keys that run out of money are out at once",
            2,
            &[
                (0, Works, "0"),
                (1, Works, "1"),
                (2, PENNILESS, "0: Retired(OutOfMoney)"),
                (3, REFUSED, "1: Doubted"),
                (1_003, PENNILESS, "1: Retired(OutOfMoney)"),
            ],
        ),
        (
            "a server that fails says nothing of its keys",
            2,
            &[(0, Works, "0"), (1, Silent, "1"), (2, Silent, "0"), (3, Silent, "1"), (4, Works, "0")],
        ),
    ];
    for (what, keys, told) in table {
        let calls: Vec<(u64, KeySign)> = told.iter().map(|(at, sign, _)| (*at, *sign)).collect();
        let expected: Vec<&str> = told.iter().map(|(.., expected)| *expected).collect();
        assert_eq!(story(&mut ring(*keys), &calls), expected, "{what}");
    }
}

#[test]
fn an_outage_that_lasts_is_one_of_the_keys_after_asks_whose_pauses_double_up_to_the_recheck() {
    let mut ring = ring(2);
    story(&mut ring, &[(0, KeySign::Works), (1, KeySign::Works), (10, REFUSED), (20, REFUSED)]);
    let (mut now, mut asks) = (NOW, 0);
    while let Some(shut) = ring.shut(now).filter(|shut| shut.reason == Reason::KeysInDoubt) {
        now = shut.until;
        let lease = take(&mut ring, now);
        assert!(ring.take(now).is_err(), "one call asks");
        let change = ring.report(lease, REFUSED, now);
        asks += 1;
        assert!(matches!(change, Some(KeyChange::StillInDoubt | KeyChange::OutageBelieved(_))), "{change:?}");
    }
    // 1 s + 2 s + 4 s + … + 512 s.
    assert_eq!((asks, now), (10, NOW + Duration::from_millis(20) + SECOND * 1_023));
    let shut = ring.shut(now).expect("the keys are out");
    assert_eq!((shut.reason, shut.until), (Reason::Auth, now + RECHECK));
    assert!(ring.states().all(|state| state.fault().is_some()) && ring.outage().is_none());
}

#[test]
fn with_a_recheck_shorter_than_the_first_ask_no_key_is_doubted() {
    let mut ring = KeyRing::new(1, SECOND);
    assert_eq!(story(&mut ring, &[(0, KeySign::Works), (1, REFUSED)]), ["0", "0: Retired(Rejected)"]);
}

#[test]
fn what_a_key_has_proved_is_remembered_over_a_reload_and_keys_are_opened_by_hand() {
    let mut ring = KeyRing::renewed(&[None, None], RECHECK, NOW);
    ring.remember(0, NOW);
    ring.remember(1, NOW);
    assert_eq!(ring.proven(0), NOW);
    let told = story(&mut ring, &[(10, REFUSED), (20, REFUSED)]);
    assert_eq!(told, ["0: Doubted", "1: all 2 keys were refused within 1 s: taken for an outage"]);
    let now = NOW + Duration::from_millis(30);
    assert!(!ring.hear(0, Some((KeyFault::Rejected, now)), now), "it is being found out");
    ring.try_again(now);
    assert_eq!(story(&mut ring, &[(30, KeySign::Works)]), ["0: over"]);
    assert_eq!(ring.in_service(), 2);
}
