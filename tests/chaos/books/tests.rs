//! Every check can fail.

use super::*;
use crate::chaos::load::{Intervention, Wish};

const SECOND: i64 = 1_000;
/// The simulator's clock began here.
const BEGAN: i64 = 1_000_000;

/// One job that was accepted, called, answered and booked.
fn in_order() -> Evidence {
    let wish = Wish {
        tag: "tag".to_owned(),
        prompt: 0xabc,
        fate: Fate::Accepted(1),
        transaction: 1,
        key: Some("key".to_owned()),
        at: BEGAN,
    };
    let job = Job {
        id: 1,
        custom_id: "tag".to_owned(),
        route: "default".to_owned(),
        batch: None,
        idempotency_key: Some("key".to_owned()),
        max_attempts: None,
        places: 0,
        results: 1,
        state: Some("succeeded".to_owned()),
        ended: Some(BEGAN + 3 * SECOND),
        answered_by: Some("call-1".to_owned()),
    };
    let mut told = Told { wishes: vec![wish], ..Told::default() };
    told.keys.insert("key".to_owned(), 1);
    Evidence {
        jobs: vec![job],
        rows: vec![answered(1)],
        calls: vec![call(1)],
        told,
        diary: Diary::default(),
        began: BEGAN,
    }
}

/// The call with this number: it begins in this second and takes one.
fn call(number: u64) -> CallRecord {
    CallRecord {
        request_id: format!("call-{number}"),
        arrived_ms: number * 1_000,
        ended_ms: number * 1_000 + 1_000,
        provider: "thrifty".to_owned(),
        model: "small".to_owned(),
        key: None,
        request: format!("{:016x}", 0xabc),
        status: 200,
        fault: None,
        refused_by_quota: false,
        early: false,
        told_ms: None,
        charged: true,
        input_tokens: 10,
        output_tokens: 10,
        cache_read_tokens: 0,
        cache_write_tokens: 0,
        reported_input_tokens: Some(10),
        reported_output_tokens: Some(10),
        nano_usd: Some(500),
    }
}

/// A call that brought an answer, on the ledger.
fn answered(number: i64) -> Row {
    Row {
        job_id: 1,
        fence: 10,
        number: i16::try_from(number).unwrap(),
        round: 0,
        provider: "thrifty".to_owned(),
        model: "small".to_owned(),
        started: BEGAN + number * SECOND,
        ended: BEGAN + (number + 1) * SECOND,
        accepted: true,
        class: None,
        detail: None,
        request_id: Some(format!("call-{number}")),
        cost_nanos: Some(500),
        uncertain_nanos: 0,
        known: Some(BEGAN + (number + 1) * SECOND + 20),
    }
}

fn failed(number: i64, class: &str) -> Row {
    let class = Some(class.to_owned());
    Row { accepted: false, class, request_id: None, cost_nanos: Some(0), uncertain_nanos: 900, ..answered(number) }
}

fn placeholder(number: i64) -> Row {
    Row { detail: Some("worker_died".to_owned()), ..failed(number, "abandoned") }
}

fn intervention(retry: bool) -> Intervention {
    Intervention { retry, answer: Some(true), at: BEGAN }
}

/// The findings once this has been done to books that are in order.
fn found(spoil: impl FnOnce(&mut Evidence)) -> Vec<String> {
    let mut evidence = in_order();
    spoil(&mut evidence);
    evidence.judge().1.into_iter().map(|finding| finding.what).collect()
}

#[track_caller]
fn finds(what: &str, spoil: impl FnOnce(&mut Evidence)) {
    let found = found(spoil);
    assert!(found.iter().any(|finding| finding.contains(what)), "{what}: {found:?}");
}

#[test]
fn books_in_order_are_found_in_order() {
    assert_eq!(found(|_| {}), Vec::<String>::new());
}

#[test]
fn a_job_that_was_accepted_ends_once() {
    finds("is lost", |books| books.jobs.clear());
    finds("is lost", |books| books.jobs[0].id = 2);
    finds("has 0 results and is in 1 places", |books| (books.jobs[0].results, books.jobs[0].places) = (0, 1));
    finds("has 2 results", |books| books.jobs[0].results = 2);
    finds("was never committed", |books| books.told.wishes[0].fate = Fate::Never);
    finds("different tags", |books| {
        let again = Job { id: 2, idempotency_key: None, ..in_order().jobs.remove(0) };
        books.jobs.push(again);
    });
    finds("half of a transaction", |books| {
        books.told.wishes[0] = Wish { fate: Fate::Unknown, key: None, ..books.told.wishes[0].clone() };
        books.told.wishes.push(Wish { tag: "other".to_owned(), prompt: 1, ..books.told.wishes[0].clone() });
    });
    finds("the key key", |books| books.jobs[0].idempotency_key = None);
}

#[test]
fn every_call_is_on_the_ledger_and_every_row_was_a_call() {
    finds("not on the ledger", |books| books.rows.clear());
    finds("not on the ledger", |books| books.calls.push(call(2)));
    finds("not on the ledger", |books| {
        books.calls[0] = CallRecord { request: "f".repeat(16), request_id: String::new(), ..call(1) };
    });
    finds("booked for a job that did not ask it", |books| books.calls[0].request = "f".repeat(16));
    finds("a row without a call", |books| books.calls.clear());
    finds("a row without a call", |books| books.rows.push(failed(2, "timeout")));
    finds("is booked twice", |books| books.rows.push(Row { fence: 11, ..answered(1) }));
    // Opened, and the worker died before it was sent; or no connection was made.
    for row in [placeholder(2), failed(0, "unreachable")] {
        assert_eq!(found(|books| books.rows.push(row)), Vec::<String>::new());
    }
}

#[test]
fn money_is_the_same_on_both_sides_or_named() {
    finds("the ledger says 499", |books| books.rows[0].cost_nanos = Some(499));
    finds("the ledger says 0", |books| books.rows[0].cost_nanos = Some(0));
    finds("the ledger says -1", |books| books.rows[0].cost_nanos = None);
    let cut = |uncertain_nanos| {
        found(|books| {
            books.rows[0] = Row { uncertain_nanos, ..placeholder(1) };
            books.diary.kills.push(BEGAN + 2 * SECOND);
            (books.jobs[0].state, books.jobs[0].answered_by) = (Some("failed".to_owned()), None);
        })
    };
    assert_eq!(cut(500), Vec::<String>::new());
    assert_eq!(cut(499).len(), 1);
}

#[test]
fn an_answer_that_was_given_out_is_lost_only_with_a_worker_that_was_killed() {
    let lost = "an answer that was given out is lost";
    let with = |kill: Option<i64>, roomless: Option<Window>| {
        found(|books| {
            books.rows[0] = placeholder(1);
            books.diary.kills.extend(kill);
            books.diary.roomless.extend(roomless);
            (books.jobs[0].state, books.jobs[0].answered_by) = (Some("failed".to_owned()), None);
        })
    };
    assert!(with(None, None)[0].contains(lost));
    assert!(with(Some(BEGAN), None)[0].contains(lost), "killed before");
    assert!(with(Some(BEGAN + 20 * SECOND), None)[0].contains(lost), "it had time to write it down");
    assert_eq!(with(Some(BEGAN + 2 * SECOND), None), Vec::<String>::new());
    let roomless = Window { from: BEGAN, until: BEGAN + 30 * SECOND };
    assert_eq!(with(Some(BEGAN + 20 * SECOND), Some(roomless)), Vec::<String>::new());
    finds(lost, |books| books.rows[0] = failed(1, "abandoned"));
    let timed_out_after = |millis: i64| {
        found(|books| {
            books.rows[0] = Row { uncertain_nanos: 500, ..failed(1, "timeout") };
            books.calls[0].ended_ms = books.calls[0].arrived_ms + u64::try_from(millis).unwrap();
            (books.jobs[0].state, books.jobs[0].answered_by) = (Some("failed".to_owned()), None);
        })
    };
    assert!(timed_out_after(FIRST_BYTE - SECOND)[0].contains(lost));
    assert_eq!(timed_out_after(FIRST_BYTE), Vec::<String>::new(), "the worker had just given it up");
    finds("a good answer was thrown away", |books| {
        books.rows[0] = Row { accepted: false, class: Some("soft_failure".to_owned()), ..answered(1) };
    });
}

#[test]
fn nobody_calls_more_often_than_is_allowed() {
    let tried = |times: i64, change: &dyn Fn(&mut Row)| {
        found(|books| {
            books.rows =
                (1..=times).map(|number| Row { uncertain_nanos: 500, ..failed(number, "server_error") }).collect();
            books.rows.iter_mut().for_each(change);
            books.calls = (1..=times).map(|number| call(u64::try_from(number).unwrap())).collect();
            books.calls.iter_mut().for_each(|call| (call.charged, call.nano_usd, call.status) = (false, None, 500));
            (books.jobs[0].state, books.jobs[0].answered_by) = (Some("failed".to_owned()), None);
        })
    };
    let most = i64::try_from(MAX_ATTEMPTS[0].1).unwrap();
    assert_eq!(tried(most, &|_| {}), Vec::<String>::new());
    assert!(tried(most + 1, &|_| {})[0].contains("are allowed"));
    // Another worker knew of all of them, but the latest.
    let by_another = |row: &mut Row| row.fence = if i64::from(row.number) > most { 11 } else { 10 };
    assert_eq!(
        tried(most + 1, &by_another),
        Vec::<String>::new(),
        "it may have been claimed before the last was written"
    );
    let later = |row: &mut Row| {
        by_another(row);
        row.started += 10 * SECOND * (row.fence - 10);
    };
    assert!(tried(most + 1, &later).iter().any(|finding| finding.contains("are allowed")));
    assert_eq!(tried(most + 3, &|row| row.class = Some("rate_limit".to_owned())), Vec::<String>::new());
    assert_eq!(tried(most + 1, &|row| row.round = i16::from(row.number > 2)), Vec::<String>::new());
}

#[test]
fn nobody_calls_for_a_job_that_is_over() {
    finds("two answers", |books| {
        books.calls.push(call(2));
        books.rows.push(answered(2));
    });
    finds("called after it was answered", |books| {
        books.calls.push(call(4));
        books.rows.push(Row {
            uncertain_nanos: 500,
            ..Row { request_id: Some("call-4".to_owned()), ..failed(4, "abandoned") }
        });
    });
    let after = |late: i64, apart: Option<Window>, pause: Option<Window>| {
        !found(|books| {
            (books.jobs[0].state, books.jobs[0].ended) = (Some("cancelled".to_owned()), Some(BEGAN + SECOND - late));
            (books.rows[0].accepted, books.rows[0].class) = (false, Some("abandoned".to_owned()));
            books.rows[0].detail = Some("late".to_owned());
            books.diary.apart.extend(apart);
            books.diary.pauses.extend(pause);
        })
        .is_empty()
    };
    let then = Some(Window { from: BEGAN, until: BEGAN + SECOND / 2 });
    assert!(after(600, None, None) && !after(100, None, None));
    assert!(
        !after(900, then, None) && after(10 * SECOND, then, None),
        "it was told late, and no answer takes that long"
    );
    assert!(!after(10 * SECOND, None, then), "it hung");
    finds("the result says", |books| books.jobs[0].answered_by = Some("call-7".to_owned()));
    finds("ms after it was cancelled", |books| {
        books.jobs[0].state = Some("cancelled".to_owned());
        books.jobs[0].ended = Some(BEGAN);
    });
    finds("and the job is Some(\"succeeded\")", |books| {
        books.told.interventions.insert(1, vec![intervention(false)]);
    });
    finds("and the job is Some(\"cancelled\")", |books| {
        books.told.interventions.insert(1, vec![intervention(false), intervention(true)]);
        books.jobs[0].state = Some("cancelled".to_owned());
    });
}

#[test]
fn nobody_comes_before_the_time_that_was_told() {
    let early = |apart: Option<Window>| {
        found(|books| {
            let refused = CallRecord { told_ms: Some(3_000), status: 429, charged: false, nano_usd: None, ..call(0) };
            books.rows.push(Row { request_id: Some("call-0".to_owned()), ..failed(0, "rate_limit") });
            books.calls.insert(0, refused);
            books.calls[1].early = true;
            books.diary.apart.extend(apart);
        })
    };
    assert!(early(None)[0].contains("came too early"));
    assert!(early(Some(Window { from: 0, until: BEGAN }))[0].contains("came too early"), "it was over");
    assert_eq!(early(Some(Window { from: 0, until: BEGAN + SECOND })), Vec::<String>::new());
}

/// The database has lost the commits of these seconds.
fn went_back(evidence: &mut Evidence, from: i64, until: i64) {
    evidence.diary.lost.push(Window { from: BEGAN + from * SECOND, until: BEGAN + until * SECOND });
}

#[test]
fn what_was_told_in_a_time_that_is_lost_may_be_gone_and_nothing_else() {
    let gone = |evidence: &mut Evidence| {
        evidence.jobs.clear();
        evidence.rows.clear();
        evidence.told.keys.clear();
    };
    let with = |from, until| {
        found(|evidence| {
            gone(evidence);
            went_back(evidence, from, until);
        })
    };
    assert_eq!(with(-1, 3), Vec::<String>::new(), "the job and its call are lost by name");
    let findings = with(100, 101);
    assert!(findings.iter().any(|what| what.contains("is lost")), "{findings:?}");
    assert!(findings.iter().any(|what| what.contains("not on the ledger")), "{findings:?}");
}

#[test]
fn a_call_of_another_job_is_on_no_jobs_books_whatever_is_lost() {
    let findings = found(|evidence| {
        evidence.calls[0].request = format!("{:016x}", 0xdef);
        went_back(evidence, -1, 100);
    });
    assert!(findings.iter().any(|what| what.contains("did not ask it")), "{findings:?}");
}
