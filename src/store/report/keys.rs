//! What sums are grouped by, and the values of a group.

/// The dimensions by which sums are grouped. A closed list: no text of a user becomes SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grouping {
    /// The provider that was asked.
    Provider,
    /// The model that was asked for.
    Model,
    Route,
    Project,
    Batch,
    /// The login that enqueued the jobs.
    Login,
    /// The error class; empty for successes.
    Class,
    /// The kind of soft failure.
    Detail,
    /// The code of a failure: the provider's, or else the HTTP status.
    Code,
    /// The first choice that did not give the answer, as `provider/model`.
    From,
    /// Why it did not.
    Why,
    /// The target that was asked, as `provider/model`.
    To,
    /// The day, UTC.
    Day,
    /// The hour, UTC.
    Hour,
}

impl Grouping {
    /// The name, on the command line and as the head of a column.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Model => "model",
            Self::Route => "route",
            Self::Project => "project",
            Self::Batch => "batch",
            Self::Login => "login",
            Self::Class => "class",
            Self::Detail => "detail",
            Self::Code => "code",
            Self::From => "from",
            Self::Why => "why",
            Self::To => "to",
            Self::Day => "day",
            Self::Hour => "hour",
        }
    }

    /// The expression over the sums `t` that is grouped by.
    pub(super) const fn grouped(self) -> &'static str {
        match self {
            Self::Provider => "t.provider",
            Self::Model => "t.model",
            Self::Route => "t.route",
            Self::Project => "t.project",
            Self::Batch => "t.batch",
            Self::Login => "t.login",
            Self::Class => "t.class",
            Self::Detail => "t.detail",
            Self::Code => "t.code",
            Self::From => "t.instead_of",
            Self::Why => "t.instead_why",
            // Jobs that ended without a call have none.
            Self::To => "case when t.model = '' then t.provider else t.provider || '/' || t.model end",
            Self::Day => "date_trunc('day', t.hour, 'UTC')",
            Self::Hour => "t.hour",
        }
    }

    /// How a grouped value becomes text: the SQL before it, and behind it.
    pub(super) const fn as_text(self) -> (&'static str, &'static str) {
        match self {
            Self::Day => ("to_char(", " at time zone 'UTC', 'YYYY-MM-DD')"),
            Self::Hour => ("to_char(", " at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI\"Z\"')"),
            _ => ("", ""),
        }
    }

    /// Whether it is a stretch of time: rows by it stay in order.
    #[must_use]
    pub const fn is_time(self) -> bool {
        matches!(self, Self::Day | Self::Hour)
    }

    /// Whether it tells apart only answers that did not come from the first choice.
    #[must_use]
    pub const fn is_of_fallbacks(self) -> bool {
        matches!(self, Self::From | Self::Why)
    }
}

/// The values of a group: one for each dimension, in the order in which they were requested. A value is empty where
/// there is none: a job without a batch, an attempt without a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Keys(Vec<(Grouping, String)>);

impl Keys {
    /// The values of these dimensions.
    #[must_use]
    pub fn of(by: &[Grouping], values: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(by.iter().copied().zip(values.into_iter().map(Into::into)).collect())
    }

    /// The value of a dimension; `None`: it was not requested.
    #[must_use]
    pub fn get(&self, dimension: Grouping) -> Option<&str> {
        self.0.iter().find(|(own, _)| *own == dimension).map(|(_, value)| value.as_str())
    }

    /// The values, in order.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(_, value)| value.as_str())
    }

    /// The values of these dimensions alone.
    #[must_use]
    pub fn only(&self, by: &[Grouping]) -> Self {
        Self::of(by, by.iter().map(|dimension| self.get(*dimension).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_its_dimension() {
        let keys = Keys::of(&[Grouping::Day, Grouping::Batch], ["2026-01-31", ""]);
        assert_eq!((keys.get(Grouping::Batch), keys.get(Grouping::Route)), (Some(""), None));
        assert_eq!(keys.only(&[Grouping::Day]), Keys::of(&[Grouping::Day], ["2026-01-31"]));
        assert_eq!(keys.values().collect::<Vec<_>>(), ["2026-01-31", ""]);
    }
}
