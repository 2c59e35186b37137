//! The rules by themselves, and in a model: processes that call a provider as often as their ramps allow.

mod model;

use super::*;
use model::{Model, Provider};
use proptest::prelude::*;

/// Runs this many rounds in which every allowed call passes.
fn rounds(ramp: &mut Ramp, count: usize) -> Vec<u32> {
    (0..count)
        .map(|_| {
            let running = ramp.limit();
            (0..running).for_each(|_| ramp.passed(ramp.era(), running));
            ramp.limit()
        })
        .collect()
}

#[test]
fn it_doubles_until_it_is_refused_and_goes_on_from_most_of_that() {
    let mut ramp = Ramp::default();
    assert_eq!(rounds(&mut ramp, 5), [32, 64, 128, 256, 512]);
    assert!(!ramp.refused(0, 512));
    assert_eq!(ramp.limit(), 358);
    let back = rounds(&mut ramp, 6);
    assert!(back[0] > 400 && back[1] > 450 && back[5] < 512, "{back:?}");
    // Around the number that was too much it lingers, and goes on faster and faster when nothing happens.
    assert!(rounds(&mut ramp, 12)[11] < 514);
    assert!(rounds(&mut ramp, 30)[29] > 1_000);
}

#[test]
fn after_a_wait_it_begins_with_one_call_and_doubles_to_half_of_what_was_too_much() {
    let mut ramp = Ramp::default();
    rounds(&mut ramp, 5);
    ramp.shut(0, 512);
    assert_eq!(ramp.limit(), 1);
    assert_eq!(rounds(&mut ramp, 6), [2, 4, 8, 16, 32, 64]);
    let later = rounds(&mut ramp, 8);
    assert!(later[7] <= 256, "{later:?}");
}

#[test]
fn a_number_that_was_found_is_gone_on_from_for_a_day_and_believed_for_an_hour() {
    let (now, hour) = (Timestamp(1_800_000_000_000), Duration::from_hours(1));
    let mut ramp = Ramp::default();
    assert_eq!(ramp.news(now), PlacesNews { calls: 16, too_many: None, at: now });
    rounds(&mut ramp, 5);
    assert!(!ramp.refused(0, 512));
    let news = ramp.news(now);
    assert_eq!(news, PlacesNews { calls: 358, too_many: Some(512), at: now });
    let after = |age: Duration| Ramp::resumed(&news, now + age);
    let mut fresh = after(hour).unwrap();
    assert_eq!((fresh.limit(), fresh.news(now)), (358, news));
    let back = rounds(&mut fresh, 6);
    assert!(back[0] > 400 && back[1] > 450 && back[5] < 512, "as if nothing had happened: {back:?}");
    let mut old = after(hour + Duration::from_secs(1)).unwrap();
    assert_eq!(old.limit(), 179);
    let back = rounds(&mut old, 6);
    assert!(back[0] > 200 && back[5] < 358, "it is approached bit by bit: {back:?}");
    assert!(after(hour * 24).is_some() && after(hour * 24 + Duration::from_secs(1)).is_none());
    // Whatever another version or a broken clock may say.
    for (calls, too_many) in [(0, None), (0, Some(0)), (u32::MAX, Some(1)), (1, Some(u32::MAX))] {
        for at in [Timestamp::MIN, now, Timestamp::MAX] {
            let news = PlacesNews { calls, too_many, at };
            assert!(Ramp::resumed(&news, now).is_none_or(|ramp| (1..=100_000).contains(&ramp.limit())), "{news:?}");
        }
    }
}

#[test]
fn a_number_of_places_is_told_when_it_is_another_or_has_grown_old() {
    let at = Timestamp(1_800_000_000_000);
    let news = |calls, at| PlacesNews { calls, too_many: None, at };
    for (calls, told, expected) in [(16, None, false), (19, None, false), (20, None, true), (12, None, true)] {
        assert_eq!(news(calls, at).is_worth_telling(told, 16), expected, "{calls}");
    }
    let told = news(100, at);
    for (calls, minutes, expected) in [(100, 9, false), (110, 9, false), (125, 0, true), (75, 0, true), (100, 10, true)]
    {
        let now = news(calls, at + Duration::from_mins(minutes));
        assert_eq!(now.is_worth_telling(Some(&told), 16), expected, "{calls} after {minutes}");
    }
}

#[test]
fn calls_that_were_under_way_together_are_one_event() {
    let mut ramp = Ramp::default();
    rounds(&mut ramp, 5);
    let era = ramp.era();
    (0..300).for_each(|_| _ = ramp.refused(era, 512));
    ramp.shut(era, 200);
    ramp.slowed(era, 512, 10.0);
    assert_eq!(ramp.limit(), 358);
    assert!(!ramp.refused(ramp.era(), 300));
    assert_eq!(ramp.limit(), 210);
}

#[test]
fn a_call_that_is_refused_although_it_is_alone_says_that_fewer_are_no_help() {
    let mut ramp = Ramp::default();
    assert!(ramp.refused(0, 1));
    assert!(ramp.refused(ramp.era(), 1));
    assert_eq!(ramp.limit(), 1);
    // The refusal did not say how many calls would be too many, so the limit is back at once.
    assert_eq!(rounds(&mut ramp, 4), [2, 4, 8, 16]);
}

#[test]
fn a_limit_that_nobody_uses_does_not_grow_and_slow_answers_do_not_lower_it() {
    let mut ramp = Ramp::default();
    (0..1_000).for_each(|_| ramp.passed(0, 3));
    ramp.slowed(0, 3, 1.0);
    assert_eq!(ramp.limit(), 16);
}

#[test]
fn slow_answers_lower_it_once_a_round_and_not_below_a_handful() {
    let mut ramp = Ramp::default();
    rounds(&mut ramp, 3);
    ramp.slowed(0, 128, 1.0);
    assert_eq!(ramp.limit(), 32);
    ramp.slowed(1, 32, 1.0);
    assert_eq!(ramp.limit(), 32, "nothing has passed since: it is the same word from another target");
    // It holds still for two rounds, to see the usual time.
    let running = ramp.limit();
    (0..63).for_each(|_| ramp.passed(1, running));
    assert_eq!(ramp.limit(), 32);
    for _ in 0..10 {
        let running = ramp.limit();
        (0..200).for_each(|_| ramp.passed(ramp.era(), running));
        ramp.slowed(ramp.era(), ramp.limit(), 0.0);
    }
    assert!(ramp.limit() >= 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn it_stays_within_its_bounds_and_moves_only_the_way_it_was_told(
        events in prop::collection::vec((0_u8..4, 0_u64..3, 0_u32..1_000, any::<f64>()), 0..300),
    ) {
        let mut ramp = Ramp::default();
        for (event, ago, running, bearable) in events {
            let (before, era) = (ramp.limit(), ramp.era());
            let began = era.saturating_sub(ago);
            match event {
                0 => ramp.passed(began, running),
                1 => prop_assert!(!ramp.refused(began, running) || running <= 1 || before == 1),
                2 => ramp.shut(began, running),
                _ => ramp.slowed(began, running, bearable),
            }
            let after = ramp.limit();
            prop_assert!((1..=100_000).contains(&after));
            match event {
                0 => prop_assert!(after >= before && after <= before + 1 && ramp.era() == era),
                3 => prop_assert!(after <= before && (after >= 4 || after == before) && after >= before / 4),
                _ => prop_assert!(after <= before),
            }
            // Lowered at most once, and only by a call that knows of the last time.
            prop_assert!(ramp.era() == era || (began == era && ramp.era() == era + 1));
        }
    }
}

const MINUTE: f64 = 60.0;

#[test]
fn a_number_at_once_is_found_and_used_with_few_refusals() {
    for (concurrency, sigma) in [(8, 0.3), (8, 1.0), (30, 0.3), (100, 0.6), (500, 0.3)] {
        let seen = Model::new(Provider { concurrency: Some(concurrency), sigma, ..Provider::default() }).run(1, MINUTE);
        let used = seen.inside / f64::from(concurrency);
        assert!(used > 0.9, "{concurrency} at once: {seen:?}");
        assert!(seen.refused_share() < 0.02, "{concurrency} at once: {seen:?}");
    }
}

#[test]
fn a_number_of_one_or_two_is_kept_to() {
    for concurrency in [1, 2] {
        let provider = Provider { concurrency: Some(concurrency), ..Provider::default() };
        let seen = Model::new(provider).run(1, MINUTE);
        assert!(seen.inside / f64::from(concurrency) > 0.85, "{seen:?}");
        assert!(seen.refused_share() < 0.12, "{seen:?}");
    }
}

#[test]
fn a_rate_that_nobody_told_is_found_as_well() {
    let seen = Model::new(Provider { per_second: Some(20.0), median: 0.2, ..Provider::default() }).run(1, 2.0 * MINUTE);
    assert!(seen.per_second > 19.0, "{seen:?}");
    assert!(seen.refused_share() < 0.06, "{seen:?}");
}

#[test]
fn processes_share_a_provider_about_evenly() {
    let seen = Model::new(Provider { concurrency: Some(60), ..Provider::default() }).run(3, 4.0 * MINUTE);
    assert!(seen.inside > 54.0, "{seen:?}");
    assert!(seen.refused_share() < 0.03, "{seen:?}");
    let (least, most) = (seen.shares.iter().min(), seen.shares.iter().max());
    assert!(least.zip(most).is_some_and(|(least, most)| least * 2 > *most), "{seen:?}");
}

#[test]
fn a_server_that_slows_down_is_used_and_not_loaded_with_much_more_than_it_answers_at_full_speed() {
    for knee in [8.0, 32.0, 100.0] {
        for sigma in [0.1, 0.6, 1.0] {
            let provider = Provider { knee: Some(knee), sigma, ..Provider::default() };
            let best =
                Model::new(Provider { concurrency: Some(1_000), sigma, knee: Some(knee), ..Provider::default() });
            let seen = Model::new(provider).run(1, 4.0 * MINUTE);
            let most = knee / best.mean_seconds();
            assert!(seen.per_second > 0.85 * most, "{knee}, {sigma}: {most:.0} are possible, {seen:?}");
            assert!(seen.inside < 2.0 * knee, "{knee}, {sigma}: {seen:?}");
        }
    }
}

#[test]
fn answers_of_all_lengths_are_no_reason_to_call_less() {
    for sigma in [0.3, 1.0] {
        let provider = Provider { concurrency: Some(200), sigma, by_length: true, ..Provider::default() };
        let seen = Model::new(provider).run(1, 4.0 * MINUTE);
        assert!(seen.inside > 175.0, "{seen:?}");
    }
}

#[test]
fn a_provider_that_is_slower_for_good_is_believed() {
    let provider = Provider { concurrency: Some(64), slower: Some((MINUTE, 3.0)), ..Provider::default() };
    let seen = Model::new(provider).run(1, 3.0 * MINUTE);
    assert!(seen.inside > 55.0, "{seen:?}");
}
