//! Waiting for something to become true.

use super::clock;
use std::time::Duration;

/// After this time something never comes. It is long because a test machine may be ten times slower than usual; a test
/// that passes does not wait for it.
pub const PATIENCE: Duration = Duration::from_mins(5);

/// Asks again and again until it is so; a test in which it never is fails and names the thing waited for.
///
/// Each question mostly is a statement, and other tests need the processor: the longer it takes, the rarer they are.
pub async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let asking = async {
        let began = clock::instant();
        while !is_so().await {
            let pause = (began.elapsed() / 20).clamp(Duration::from_millis(10), Duration::from_millis(100));
            clock::pace(pause).await;
        }
    };
    within_patience(what, asking).await;
}

/// What the future brings; a test in which it brings nothing within [`PATIENCE`] has failed.
pub async fn within_patience<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("never so: {what}"))
}
