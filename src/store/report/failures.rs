//! What providers say when calls fail.

use super::{Grouping, Keys};
use crate::store::{Doing, Store, StoreError};

/// What a provider has said lately of a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureWords {
    /// Provider, model, class, detail and code of the failure, in [this order](Self::BY).
    pub keys: Keys,
    pub message: String,
}

impl FailureWords {
    /// What tells failures apart that have words of their own.
    pub const BY: [Grouping; 5] =
        [Grouping::Provider, Grouping::Model, Grouping::Class, Grouping::Detail, Grouping::Code];
}

impl Store {
    /// The latest message for each code of each class of failures of each target.
    pub async fn failure_words(&self) -> Result<Vec<FailureWords>, StoreError> {
        let rows = sqlx::query!(
            r#"select provider as "provider!", model as "model!", class as "class!", coalesce(detail, '') as "detail!",
                      coalesce(code, '') as "code!", message as "message!"
                 from sluice.failure_codes where message is not null"#
        )
        .fetch_all(&self.db)
        .await
        .doing("reading what providers have said of failures")?;
        let read = rows.into_iter().map(|row| FailureWords {
            keys: Keys::of(&FailureWords::BY, [row.provider, row.model, row.class, row.detail, row.code]),
            message: row.message,
        });
        Ok(read.collect())
    }
}
