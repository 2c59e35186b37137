use super::*;
use proptest::prelude::*;

fn took(millis: u64, output_tokens: i64) -> Took {
    Took { time: Duration::from_millis(millis), output_tokens }
}

/// The last verdict on this many calls like this one.
fn told(tempo: &mut Tempo, calls: usize, one: Took, places: u32) -> Option<f64> {
    (0..calls).filter_map(|_| tempo.learn(one, places)).last()
}

#[test]
fn what_takes_clearly_longer_than_usual_is_told_with_what_would_be_bearable() {
    let mut tempo = Tempo::default();
    assert_eq!(told(&mut tempo, 64, took(1_000, 100), 16), None);
    assert_eq!(told(&mut tempo, 64, took(1_700, 100), 32), None, "not clearly");
    let bearable = told(&mut tempo, 40, took(3_000, 100), 40).unwrap();
    assert!((bearable - 40.0 / 3.0 * 0.9).abs() < 0.01, "{bearable}");
}

#[test]
fn nothing_is_said_before_it_is_known_what_is_usual() {
    let mut tempo = Tempo::default();
    assert_eq!(tempo.timed_out(16), None);
    assert_eq!(told(&mut tempo, 16, took(60_000, 0), 16), None);
    assert_eq!(told(&mut tempo, 160, took(60_000, 0), 16), None);
}

#[test]
fn long_answers_may_take_long() {
    let mut tempo = Tempo::default();
    assert_eq!(told(&mut tempo, 64, took(1_000, 50), 16), None);
    assert_eq!(told(&mut tempo, 64, took(20_500, 2_000), 16), None);
    assert!(told(&mut tempo, 64, took(20_500, 900), 16).is_some());
}

#[test]
fn what_stays_slow_with_fewer_calls_is_usual_after_a_while() {
    let mut tempo = Tempo::default();
    told(&mut tempo, 16, took(1_000, 50), 16);
    let complaints = (0..50).filter(|_| told(&mut tempo, 16, took(4_000, 50), 16).is_some()).count();
    assert_eq!(complaints, 2);
}

#[test]
fn calls_without_an_answer_are_as_slow_as_can_be() {
    let mut tempo = Tempo::default();
    told(&mut tempo, 16, took(1_000, 50), 16);
    let bearable = (0..16).find_map(|_| tempo.timed_out(16)).unwrap();
    assert!((bearable - 16.0 / 4.0 * 0.9).abs() < 0.01, "{bearable}");
}

proptest! {
    #[test]
    fn one_call_is_never_enough_to_be_slow(
        millis in any::<u32>(), tokens in any::<i64>(), places in 1_u32..2_000, place in 0_usize..200,
        by in 90_u64..110,
    ) {
        let mut tempo = Tempo::default();
        for call in 0..400 {
            // The usual time is known by then.
            let odd = call == 100 + place;
            let one = if odd { took(u64::from(millis), tokens) } else { took(1_000 * by / 100, 50) };
            prop_assert_eq!(tempo.learn(one, places), None);
        }
    }

    #[test]
    fn whatever_comes_the_bearable_number_is_a_part_of_the_places(
        calls in prop::collection::vec((any::<u64>(), any::<i64>(), any::<bool>()), 0..200), places in 1_u32..100,
    ) {
        let mut tempo = Tempo::default();
        for (millis, tokens, answered) in calls {
            let bearable = if answered { tempo.learn(took(millis, tokens), places) } else { tempo.timed_out(places) };
            if let Some(bearable) = bearable {
                prop_assert!(bearable > 0.2 * f64::from(places) && bearable < f64::from(places), "{}", bearable);
            }
        }
    }
}
