//! The statistics that a worker publishes: `stats` of its row in `sluice.worker`, written with every heartbeat.
//!
//! A worker writes them, and status, the demo and the views of the schema read them, including what an older or a newer
//! worker wrote. The names of the JSON members and the words in them are a contract.

use super::readable;
use super::shut::{Reason, Shut};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The version that this program writes. Version 1 had the reason, the beginning and the end of a closure as members of
/// the bucket, the target or the key, under other names in each.
pub const VERSION: u32 = 2;

/// A fixed word of the writer; a writer of another version may use any word.
pub type Word = Cow<'static, str>;

/// The statistics of one worker. `None`: the worker does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Statistics {
    /// [`VERSION`] of the writer; 0: a row from before versions, with the members of version 1.
    #[serde(deserialize_with = "readable::or_default")]
    pub version: u32,
    /// Tells this process from another one that has its number, after the database has gone back in time.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub life: Option<String>,
    /// Heartbeats that were sent.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub beats: Option<i64>,
    /// Jobs in hand.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u64>,
    /// The most jobs it may have in hand.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u64>,
    /// About how many bytes the requests of the jobs in hand take in memory.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub in_flight_bytes: Option<u64>,
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub claimed: Option<u64>,
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub succeeded: Option<u64>,
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub failed: Option<u64>,
    /// Calls booked.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u64>,
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub given_back: Option<u64>,
    /// Outcomes that came too late: the job was another's by then.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub fenced_out: Option<u64>,
    /// Outcomes that are not in the database yet.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub unsettled: Option<u64>,
    /// Those of them that wait on its disk.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub spooled: Option<u64>,
    /// Whether it takes no more jobs.
    #[serde(deserialize_with = "readable::or_default")]
    pub stopping: bool,
    /// How long it has been up.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub uptime_seconds: Option<u64>,
    /// The only batch whose jobs it takes.
    #[serde(deserialize_with = "readable::or_default")]
    pub only_batch: Option<String>,
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<String>>,
    /// The wait that all jobs of a route have in common, by route.
    #[serde(deserialize_with = "readable::members")]
    pub waits: BTreeMap<String, RouteWait>,
    /// For how many seconds a job waits for a cheaper rung, by route: those that have one, and do not wait for ever.
    #[serde(deserialize_with = "readable::members", skip_serializing_if = "BTreeMap::is_empty")]
    pub patience: BTreeMap<String, u64>,
    /// Game days that are on for it.
    #[serde(deserialize_with = "readable::items", skip_serializing_if = "Vec::is_empty")]
    pub game_days: Vec<GameDayStatistics>,
    #[serde(deserialize_with = "readable::or_default")]
    pub gate: GateStatistics,
    /// Jobs it held when it was declared dead, as the worker that rescued them noted.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub held_at_death: Option<i64>,
}

impl Statistics {
    /// Reads the statistics of a worker's row, of this version or an older one. Members that cannot be read are left
    /// out.
    #[must_use]
    pub fn read(stats: &Value) -> Self {
        let mut read = if stats.is_object() { Self::deserialize(stats).unwrap_or_default() } else { Self::default() };
        if read.version < VERSION {
            read.gate.add_closures_of_version_1(&stats["gate"]);
        }
        read
    }
}

/// The wait of a route's jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteWait {
    /// The reason, in the words by which jobs are counted.
    #[serde(rename = "for")]
    pub reason: String,
    /// When the first of them may start, in milliseconds since the epoch; `None`: unknown.
    #[serde(default, deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
    /// All targets of the route, where none of them can be called before a person does something.
    #[serde(default, deserialize_with = "readable::items", skip_serializing_if = "Vec::is_empty")]
    pub stuck: Vec<String>,
}

/// A game day that is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GameDayStatistics {
    pub name: String,
    /// Providers, or targets as `provider/model`.
    #[serde(default)]
    pub targets: Vec<String>,
    /// The kinds of failures; empty: the worker does not say.
    #[serde(default)]
    pub faults: Vec<String>,
    /// The share of their calls that fail on purpose.
    pub share_millionths: u32,
    /// When it ends, in milliseconds since the epoch.
    pub until_ms: i64,
}

impl GameDayStatistics {
    /// Whether it strikes this target.
    #[must_use]
    pub fn strikes(&self, target: &str) -> bool {
        let provider = target.split('/').next().unwrap_or(target);
        self.targets.iter().any(|name| name == target || name == provider)
    }
}

/// A worker's knowledge of limits, targets and keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GateStatistics {
    /// Its part of each bucket.
    #[serde(deserialize_with = "readable::items")]
    pub buckets: Vec<BucketStatistics>,
    /// The targets that its routes call.
    #[serde(deserialize_with = "readable::items")]
    pub targets: Vec<TargetStatistics>,
    /// The keys of all providers, by their names.
    #[serde(deserialize_with = "readable::items")]
    pub keys: Vec<KeyStatistics>,
}

impl GateStatistics {
    /// Adds the closures of statistics that version 1 wrote; `gate` is what it wrote.
    fn add_closures_of_version_1(&mut self, gate: &Value) {
        let each = |list: &str| gate[list].as_array().cloned().unwrap_or_default();
        let text = |item: &Value, member: &str| item[member].as_str().map(str::to_owned);
        // Items that cannot be read were left out, so the others are found by their names.
        for item in each("buckets") {
            let shut = ShutStatistics::of_version_1(&item, ["shut", "", "shut_until_ms"]);
            let is_it = |bucket: &&mut BucketStatistics| bucket.name.is_some() && bucket.name == text(&item, "name");
            self.buckets.iter_mut().filter(is_it).for_each(|bucket| bucket.shut.clone_from(&shut));
        }
        for item in each("targets") {
            let shut = ShutStatistics::of_version_1(&item, ["closed", "", "closed_until_ms"]);
            let is_it = |t: &&mut TargetStatistics| t.target.is_some() && t.target == text(&item, "target");
            self.targets.iter_mut().filter(is_it).for_each(|target| target.shut.clone_from(&shut));
        }
        for item in each("keys") {
            let shut = ShutStatistics::of_version_1(&item, ["why", "since_ms", "until_ms"]);
            let names = (text(&item, "provider"), text(&item, "key"));
            let is_it = |key: &&mut KeyStatistics| (&key.provider, &key.key) == (&names.0, &names.1);
            self.keys.iter_mut().filter(is_it).for_each(|key| key.shut.clone_from(&shut));
        }
    }
}

/// Why something is not used for a while.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShutStatistics {
    /// The reason, as [`Reason`](super::Reason) spells it.
    #[serde(deserialize_with = "readable::or_default")]
    pub reason: Option<Word>,
    /// Since when, in milliseconds since the epoch.
    #[serde(deserialize_with = "readable::or_default")]
    pub since_ms: Option<i64>,
    /// Until when, in milliseconds since the epoch. `None`: it is not known.
    #[serde(deserialize_with = "readable::or_default")]
    pub until_ms: Option<i64>,
}

impl ShutStatistics {
    /// From the members that say the reason, the beginning and the end.
    fn of_version_1(item: &Value, [reason, since, until]: [&str; 3]) -> Option<Self> {
        let reason = item[reason].as_str()?.to_owned();
        Some(Self { reason: Some(reason.into()), since_ms: item[since].as_i64(), until_ms: item[until].as_i64() })
    }
}

impl From<Shut> for ShutStatistics {
    fn from(shut: Shut) -> Self {
        Self {
            reason: Some(shut.reason.as_str().into()),
            since_ms: Some(shut.since.0),
            until_ms: shut.known_end().map(|until| until.0),
        }
    }
}

/// A worker's part of a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BucketStatistics {
    #[serde(deserialize_with = "readable::or_default")]
    pub name: Option<String>,
    #[serde(deserialize_with = "readable::items")]
    pub rates: Vec<RateStatistics>,
    /// Calls that may run at once.
    #[serde(deserialize_with = "readable::or_default")]
    pub concurrency: Option<u32>,
    /// Calls that run.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub running: Option<u32>,
    /// Calls that wait for their turn.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u32>,
    /// Why no call may begin.
    #[serde(deserialize_with = "readable::or_default")]
    pub shut: Option<ShutStatistics>,
    /// Answers that said that a limit was exceeded.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub refusals: Option<u64>,
}

/// A worker's holding of one limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RateStatistics {
    /// The unit that is counted, and over which time.
    #[serde(deserialize_with = "readable::or_default")]
    pub limit: String,
    /// Units that it holds; negative where calls took more than expected.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub held: Option<i64>,
    /// Units of those that it may spend now.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub headroom: Option<u64>,
}

/// A worker's knowledge of one target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetStatistics {
    /// The target's name; `None`: it cannot be read.
    #[serde(deserialize_with = "readable::or_default")]
    pub target: Option<String>,
    /// The bucket that its calls take from.
    #[serde(deserialize_with = "readable::or_default")]
    pub bucket: Option<String>,
    /// The state of its breaker: `closed`, `open` or `half_open`.
    #[serde(deserialize_with = "readable::or_default")]
    pub breaker: Option<Word>,
    /// Why it is not called for a while.
    #[serde(deserialize_with = "readable::or_default")]
    pub shut: Option<ShutStatistics>,
    /// The provider's words, where the model is unknown or the health probe fails: shortened, without keys. Where the
    /// breaker is open, the class and the status of the last failure, and how many of the last calls failed.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// What jobs of routes pass it over for although it may be called.
    #[serde(deserialize_with = "readable::items", skip_serializing_if = "Vec::is_empty")]
    pub weak: Vec<WeaknessStatistics>,
    /// The text that it lately gives to different requests, word by word.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub stuck: Option<StuckStatistics>,
    /// Whether its provider is paused.
    #[serde(deserialize_with = "readable::or_default")]
    pub paused: bool,
    /// Calls that have ended.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub calls: Option<i64>,
    /// Those of them that brought no accepted answer.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub failures: Option<i64>,
    /// What its reports have taught about estimates.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub estimates: Option<EstimateStatistics>,
}

/// A target that gives one long text to different requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StuckStatistics {
    /// How many different requests have lately had it.
    #[serde(deserialize_with = "readable::or_default")]
    pub requests: u64,
    /// Since when.
    #[serde(deserialize_with = "readable::or_default")]
    pub since_ms: Option<i64>,
}

/// What jobs of a route pass a target over for while another rung may be called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WeaknessStatistics {
    #[serde(deserialize_with = "readable::or_default")]
    pub route: Option<String>,
    /// Whether its answers are slow or rejected, and until when it is passed over. Past: single jobs find out whether
    /// it is well again.
    #[serde(deserialize_with = "readable::or_default")]
    pub shut: Option<ShutStatistics>,
    /// What was counted: `slow_answers`, `soft_failures` or `wasted_tokens`.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub indicator: Option<Word>,
    /// The count in words.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
}

/// What the reports of a target have taught about estimates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EstimateStatistics {
    /// Reports learned from.
    #[serde(deserialize_with = "readable::or_default")]
    pub reports: u64,
    /// Tokens of input reported for every thousand estimated.
    #[serde(deserialize_with = "readable::or_default")]
    pub input_reported_per_thousand_estimated: u64,
    /// Tokens of output that are expected.
    #[serde(deserialize_with = "readable::or_default")]
    pub output_expected: u64,
    /// Nine answers in ten have fewer tokens than this.
    #[serde(deserialize_with = "readable::or_default")]
    pub output_of_nine_in_ten_below: u64,
}

/// A worker's knowledge of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyStatistics {
    #[serde(deserialize_with = "readable::or_default")]
    pub provider: Option<String>,
    /// Its name, which may be shown.
    #[serde(deserialize_with = "readable::or_default")]
    pub key: Option<String>,
    /// `in_service`, `doubted`, `out`, `due` or `tried_again`.
    #[serde(deserialize_with = "readable::or_default")]
    pub state: Option<Word>,
    /// Why it is not in service. It is tried again at the end.
    #[serde(deserialize_with = "readable::or_default")]
    pub shut: Option<ShutStatistics>,
    /// The provider's words when it refused the key last: shortened, without keys.
    #[serde(deserialize_with = "readable::or_default", skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
}

impl KeyStatistics {
    /// Whether the worker believes that it is refused. One in doubt is taken for a sign of an outage.
    #[must_use]
    pub fn is_out(&self) -> bool {
        let reason = self.shut.as_ref().map(|shut| shut.reason.as_deref());
        reason.is_some_and(|reason| reason != Some(Reason::KeysInDoubt.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Statistics as version 1 wrote them, before it named itself.
    fn stored() -> Value {
        json!({
            "life": "00ff", "beats": 12, "in_flight": 3, "max_in_flight": 500, "in_flight_bytes": 4096, "claimed": 14,
            "succeeded": 10, "failed": 1, "attempts": 12, "given_back": 0, "fenced_out": 0, "unsettled": 2,
            "stopping": true, "uptime_seconds": 36, "only_batch": null, "routes": ["default"],
            "waits": { "default": { "for": "a/m: auth (nowhere else to go)" } },
            "gate": {
                "buckets": [{
                    "name": "openai", "rates": [{ "limit": "requests/min", "held": -2, "headroom": 0 }],
                    "concurrency": null, "running": 3, "waiting": 4, "shut": "rate_limit",
                    "shut_until_ms": 1_800_000_000_000_i64, "refusals": 5,
                }],
                "targets": [{
                    "target": "openai/gpt-4o-mini", "bucket": "openai", "breaker": "half_open", "closed": null,
                    "closed_until_ms": null, "paused": false, "calls": 6, "failures": 1,
                    "estimates": {
                        "reports": 5, "input_reported_per_thousand_estimated": 1100, "output_expected": 300,
                        "output_of_nine_in_ten_below": 600,
                    },
                }],
                "keys": [{
                    "provider": "openai", "key": "OPENAI_B", "state": "out", "why": "quota_exhausted",
                    "since_ms": 1_800_000_030_000_i64, "until_ms": null,
                }],
            },
            "held_at_death": 3,
        })
    }

    /// The same, as this version writes them.
    fn stored_now() -> Value {
        let mut now = stored();
        now["version"] = json!(VERSION);
        let (bucket, until) = (&mut now["gate"]["buckets"][0], 1_800_000_000_000_i64);
        bucket["shut"] = json!({ "reason": "rate_limit", "since_ms": null, "until_ms": until });
        bucket.as_object_mut().unwrap().remove("shut_until_ms");
        let target = now["gate"]["targets"][0].as_object_mut().unwrap();
        target.retain(|name, _| !name.starts_with("closed"));
        target.insert("shut".to_owned(), Value::Null);
        let key = now["gate"]["keys"][0].as_object_mut().unwrap();
        key.retain(|name, _| !["why", "since_ms", "until_ms"].contains(&name.as_str()));
        let shut = json!({ "reason": "quota_exhausted", "since_ms": 1_800_000_030_000_i64, "until_ms": null });
        key.insert("shut".to_owned(), shut);
        now
    }

    #[test]
    fn statistics_are_read_whole_and_written_under_the_same_names() {
        let read = Statistics::read(&stored_now());
        assert_eq!(serde_json::to_value(&read).unwrap(), stored_now());
        assert_eq!(read.waits["default"].reason, "a/m: auth (nowhere else to go)");
    }

    #[test]
    fn what_version_1_wrote_is_read_whole() {
        for version in [None, Some(1)] {
            let mut stored = stored();
            version.inspect(|version| stored["version"] = json!(version));
            let read = Statistics::read(&stored);
            assert_eq!(read.version, version.unwrap_or(0));
            assert_eq!(Statistics { version: VERSION, ..read }, Statistics::read(&stored_now()));
        }
        // The items after one that cannot be read keep their own figures.
        let mut stored = stored();
        let buckets = stored["gate"]["buckets"].as_array_mut().unwrap();
        buckets.insert(0, json!({ "name": "open", "shut": null }));
        buckets.insert(0, json!(3));
        let read = Statistics::read(&stored);
        let shut: Vec<bool> = read.gate.buckets.iter().map(|bucket| bucket.shut.is_some()).collect();
        assert_eq!(shut, [false, true]);
    }

    #[test]
    fn what_a_worker_does_not_say_is_not_made_up() {
        let written = serde_json::to_value(Statistics::read(&json!({}))).unwrap();
        let expected = json!({
            "version": 0, "stopping": false, "only_batch": null, "waits": {},
            "gate": { "buckets": [], "targets": [], "keys": [] },
        });
        assert_eq!(written, expected);
    }

    #[test]
    fn what_another_version_may_say_does_no_harm_to_the_rest() {
        let said = json!({
            "version": 9, "attempts": "many", "failed": 2, "routes": 7, "waits": { "a": "x", "b": { "for": "y" } },
            "stopping": "soon", "moon": "full",
            "gate": {
                "targets": "none",
                "buckets": [3, null, {
                    "name": "b", "running": -1, "waiting": 2, "shut": { "reason": "of_tomorrow", "until_ms": "soon" },
                }],
                "keys": [{ "provider": "p", "state": { "is": "odd" } }],
            },
        });
        let read = Statistics::read(&said);
        assert_eq!((read.version, read.attempts, read.failed, read.routes), (9, None, Some(2), None));
        assert_eq!(read.waits.keys().collect::<Vec<_>>(), ["b"]);
        assert!(read.gate.targets.is_empty());
        let bucket = &read.gate.buckets[0];
        assert_eq!((read.gate.buckets.len(), bucket.running, bucket.waiting), (1, None, Some(2)));
        let shut = bucket.shut.as_ref().unwrap();
        assert_eq!((shut.reason.as_deref(), shut.until_ms), (Some("of_tomorrow"), None));
        assert_eq!((read.gate.keys[0].provider.as_deref(), &read.gate.keys[0].state), (Some("p"), &None));
        for nonsense in [json!(null), json!(7), json!([]), json!([1, 2]), json!("x")] {
            assert_eq!(Statistics::read(&nonsense), Statistics::default(), "{nonsense}");
        }
    }
}
