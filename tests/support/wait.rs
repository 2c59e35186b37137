//! Waiting for something to become true.

use std::time::Duration;

/// Asks again and again until it is so; a test in which it never is fails and names the thing waited for.
pub async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let asking = async {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        while !is_so().await {
            tick.tick().await;
        }
    };
    within_a_minute(what, asking).await;
}

/// What the future brings; a test in which it brings nothing for a minute has failed.
pub async fn within_a_minute<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_mins(1), future).await.unwrap_or_else(|_| panic!("never so: {what}"))
}
