//! What workers tell each other of targets, keys, answers and places. `migrations/0028…` has the table.
//!
//! Workers of earlier versions leave rows alone whose subject they do not know.

use super::claim::timestamp;
use super::{Doing, Store, StoreError};
use crate::domain::Timestamp;
use crate::domain::news::{BreakerNews, KeyNews, PlacesNews, TargetNews};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;

/// News of something that workers call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// News of a target.
    Target {
        /// Its name: provider, model and tier.
        target: String,
        /// The news.
        news: TargetNews,
    },
    /// News of a key.
    Key {
        /// The provider.
        provider: String,
        /// The name of the key.
        key: String,
        /// The news.
        news: KeyNews,
    },
    /// News of how well a target answers the jobs of a route.
    Answers {
        /// The route.
        route: String,
        /// The target's name.
        target: String,
        /// The news.
        news: BreakerNews,
    },
    /// News of how many calls at once are well with a bucket.
    Places {
        /// The bucket.
        bucket: String,
        /// The news.
        news: PlacesNews,
    },
}

/// News, and the server that they are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthNews {
    /// The mark of the server.
    pub server: String,
    /// The news.
    pub health: Health,
}

const TARGET: &str = "target ";
const KEY: &str = "key ";
const ANSWERS: &str = "answers ";
const PLACES: &str = "places ";
/// The only member of some rows.
const WHOLE: &str = "news";

impl HealthNews {
    /// The name of its row, and the state that is written there.
    fn row(&self) -> (String, Value) {
        match &self.health {
            Health::Target { target, news } => (format!("{TARGET}{target}"), json(news)),
            // A provider's name has no slash.
            Health::Key { provider, key, news } => (format!("{KEY}{provider}/{key}"), json(news)),
            // A route's name has no space.
            Health::Answers { route, target, news } => (format!("{ANSWERS}{route} {target}"), whole(news)),
            Health::Places { bucket, news } => (format!("{PLACES}{bucket}"), whole(news)),
        }
    }

    /// The news in a row; `None`: a later version wrote it.
    fn read(subject: &str, server: String, state: Value) -> Option<Self> {
        let health = if let Some(target) = subject.strip_prefix(TARGET) {
            Health::Target { target: target.to_owned(), news: from_json(state)? }
        } else if let Some(of) = subject.strip_prefix(ANSWERS) {
            let (route, target) = of.split_once(' ')?;
            Health::Answers { route: route.to_owned(), target: target.to_owned(), news: from_whole(state)? }
        } else if let Some(bucket) = subject.strip_prefix(PLACES) {
            Health::Places { bucket: bucket.to_owned(), news: from_whole(state)? }
        } else {
            let (provider, key) = subject.strip_prefix(KEY)?.split_once('/')?;
            Health::Key { provider: provider.to_owned(), key: key.to_owned(), news: from_json(state)? }
        };
        Some(Self { server, health })
    }
}

fn json(news: &impl Serialize) -> Value {
    serde_json::to_value(news).expect("news have text for keys, and are always written")
}

/// As one member: the members of a row that is there already would stay beside those that are written.
fn whole(news: &impl Serialize) -> Value {
    serde_json::json!({ WHOLE: json(news) })
}

fn from_whole<T: DeserializeOwned>(mut state: Value) -> Option<T> {
    state.get_mut(WHOLE).map(Value::take).and_then(from_json)
}

fn from_json<T: DeserializeOwned>(state: Value) -> Option<T> {
    serde_json::from_value(state).ok()
}

impl Store {
    /// Tells the other workers.
    pub async fn tell_health(&self, worker: i64, news: &[HealthNews]) -> Result<(), StoreError> {
        let rows = news.iter().map(HealthNews::row);
        let (subjects, states): (Vec<String>, Vec<Value>) = rows.unzip();
        let servers: Vec<String> = news.iter().map(|news| news.server.clone()).collect();
        sqlx::query!("select sluice.tell_health($1, $2, $3, $4)", worker, &subjects, &servers, &states)
            .execute(&self.db)
            .await
            .doing("telling of targets and keys")?;
        Ok(())
    }

    /// What other workers than this one have told at `since` or later, the oldest first, and the database's clock.
    /// Statements that began earlier may still be told later: ask again from some seconds before that clock.
    pub async fn hear_health(
        &self,
        worker: i64,
        since: Timestamp,
    ) -> Result<(Vec<(HealthNews, Timestamp)>, Timestamp), StoreError> {
        let rows = sqlx::query!(
            r#"select clock.now as "now!", h.subject as "subject?", h.server as "server?", h.state as "state?",
                      h.written_at as "written_at?"
                 from (select clock_timestamp() as now) clock
                 left join sluice.health h on h.worker <> $1 and h.written_at >= $2
                order by h.written_at"#,
            worker,
            super::claim::datetime(since)
        )
        .fetch_all(&self.db)
        .await
        .doing("hearing of targets and keys")?;
        let now = rows.first().map_or(Timestamp::MIN, |row| timestamp(row.now));
        let news = rows.into_iter().filter_map(|row| {
            let news = HealthNews::read(&row.subject?, row.server?, row.state?)?;
            Some((news, timestamp(row.written_at?)))
        });
        Ok((news.collect(), now))
    }

    /// Forgets news told longer ago than this: targets and keys that are no longer configured.
    pub async fn forget_health(&self, age: Duration) -> Result<u64, StoreError> {
        let seconds = i32::try_from(age.as_secs()).unwrap_or(i32::MAX);
        let forgotten = sqlx::query!(
            "delete from sluice.health where written_at < now() - make_interval(secs => $1)",
            f64::from(seconds)
        )
        .execute(&self.db)
        .await
        .doing("forgetting targets and keys")?;
        Ok(forgotten.rows_affected())
    }
}
