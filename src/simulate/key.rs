//! A key that a simulated provider takes, with its money and its limits.

use super::fault::Disguise;
use super::notation::parse_dollars;
use super::quota::Limits;
use serde::Deserialize;

/// A key that a provider takes: in TOML its text, or a table.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "RawKey")]
pub struct Key {
    /// The key. For signed calls `ID:SECRET`, or `ID:SECRET:TOKEN`.
    pub key: String,
    /// Whether its token has expired.
    pub expired: bool,
    /// Prepaid nano-dollars, in TOML decimal dollars: when the charged calls have used them up, there is no money left.
    pub credit: Option<u64>,
    /// How the provider reports that there is no money left; drawn when absent.
    pub disguise: Option<Disguise>,
    /// Limits of its own, instead of those of the provider.
    pub quota: Option<Limits>,
}

impl From<&str> for Key {
    fn from(key: &str) -> Self {
        Self { key: key.to_owned(), ..Self::default() }
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a key, or a table with key and perhaps expired, credit, disguise and quota")]
enum RawKey {
    Text(String),
    Table(RawKeyTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKeyTable {
    key: String,
    #[serde(default)]
    expired: bool,
    credit: Option<String>,
    disguise: Option<u16>,
    quota: Option<Limits>,
}

impl TryFrom<RawKey> for Key {
    type Error = String;
    fn try_from(raw: RawKey) -> Result<Self, String> {
        let RawKeyTable { key, expired, credit, disguise, quota } = match raw {
            RawKey::Text(key) => return Ok(key.as_str().into()),
            RawKey::Table(table) => table,
        };
        let dollars =
            |text: String| parse_dollars(&text).ok_or(format!("expected dollars such as \"0.05\", found {text:?}"));
        let named = |status: u16| {
            Disguise::parse(&status.to_string()).ok_or(format!("unknown disguise {status}: expected 400, 402 or 429"))
        };
        let (credit, disguise) = (credit.map(dollars).transpose()?, disguise.map(named).transpose()?);
        Ok(Self { key, expired, credit, disguise, quota })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::Scenario;

    #[test]
    fn a_key_is_a_text_or_a_table() {
        let scenario = Scenario::from_toml(
            r#"
            [providers.a]
            dialect = "openai"
            keys = [
                "one",
                { key = "two", credit = "0.05", disguise = 402, quota = { concurrency = 3 } },
                { key = "a:b:c", expired = true },
            ]
            models.m.price = { input = "1", output = "2" }
            "#,
        )
        .unwrap();
        let [one, two, three] = &scenario.providers["a"].keys[..] else { panic!("three keys") };
        assert_eq!(*one, "one".into());
        assert_eq!((two.key.as_str(), two.credit), ("two", Some(50_000_000)));
        assert!(three.expired && !two.expired);
        assert_eq!(two.disguise, Some(Disguise::PaymentRequired));
        assert_eq!(two.quota.as_ref().unwrap().concurrency, Some(3));
    }
}
