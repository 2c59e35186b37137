//! The memory that large answers take.

use super::*;
use tokio::sync::Semaphore;

#[tokio::test]
async fn large_answers_wait_for_room_and_small_ones_do_not() {
    let padding = "x".repeat(900_000);
    let large = ANSWER.replacen('{', &format!("{{\"padding\":\"{padding}\","), 1);
    // Room for one of them, if no other answer has any.
    let reserve = Arc::new(Semaphore::new(1_000));
    let call = async |answer: &str, timeouts: &Timeouts| {
        let server = Server::start(vec![reply(200, "", answer)]).await;
        let mut provider = Provider::new(Endpoint { max_body: 1_000_000, ..endpoint(&server.url) }).unwrap();
        Arc::get_mut(&mut provider.transport).unwrap().set_room(0, Arc::clone(&reserve), 1_000);
        ask(&provider, 0, timeouts).await.unwrap().result
    };
    let taken = reserve.try_acquire_many(500).unwrap();
    assert_eq!(call(ANSWER, &PATIENT).await.unwrap().text.as_deref(), Some("Hi"));
    let refused = call(&large, &Timeouts { total: SHORT, ..PATIENT }).await.unwrap_err();
    assert_eq!(refused.class, ErrorClass::Timeout, "{}", refused.message);
    let (answer, ()) = tokio::join!(call(&large, &PATIENT), async {
        // Until it waits for it.
        while reserve.try_acquire_many(1).is_ok() {
            tokio::task::yield_now().await;
        }
        drop(taken);
    });
    assert_eq!(answer.unwrap().text.as_deref(), Some("Hi"));
    let both = tokio::join!(call(&large, &PATIENT), call(&large, &PATIENT));
    assert!(both.0.is_ok() && both.1.is_ok());
    assert_eq!(reserve.available_permits(), 1_000, "all of it is free again");
}

#[tokio::test]
async fn answers_of_one_provider_that_never_end_take_no_room_from_those_of_another() {
    let padding = "x".repeat(900_000);
    let large = ANSWER.replacen('{', &format!("{{\"padding\":\"{padding}\","), 1);
    // Room for one answer in each share, and for two in the reserve.
    let reserve = Arc::new(Semaphore::new(2_000));
    let provider = |url: &str| {
        let mut provider = Provider::new(Endpoint { max_body: 1_000_000, ..endpoint(url) }).unwrap();
        Arc::get_mut(&mut provider.transport).unwrap().set_room(1_000, Arc::clone(&reserve), 2_000);
        Arc::new(provider)
    };
    let call = async |provider: &Provider| ask(provider, 0, &PATIENT).await.unwrap().result;
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 990000\r\n\r\n";
    let hostile = Server::start(vec![send(head), send("x".repeat(700_000)), Step::Drip("x")]).await;
    let dripping = provider(&hostile.url);
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let dripping = Arc::clone(&dripping);
            tokio::spawn(async move { call(&dripping).await.is_ok() })
        })
        .collect();
    while reserve.available_permits() == 2_000 {
        tokio::task::yield_now().await;
    }
    let good = Server::start(vec![reply(200, "", &large)]).await;
    let other = provider(&good.url);
    for _ in 0..3 {
        let both = tokio::join!(call(&other), call(&other));
        assert!(both.0.is_ok() && both.1.is_ok(), "{both:?}");
    }
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    // All calls of a well-behaved provider get through, one after the other.
    let many = futures_of(&other, 6).await;
    assert_eq!(many, 6);
}

/// Makes this many calls at once; returns how many were answered.
async fn futures_of(provider: &Arc<Provider>, count: usize) -> usize {
    let calls: Vec<_> = (0..count)
        .map(|_| {
            let provider = Arc::clone(provider);
            tokio::spawn(async move { ask(&provider, 0, &PATIENT).await.unwrap().result.is_ok() })
        })
        .collect();
    let mut answered = 0;
    for call in calls {
        answered += usize::from(call.await.unwrap());
    }
    answered
}
