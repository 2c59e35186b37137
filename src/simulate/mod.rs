//! The provider simulator: every dialect of the registry on real sockets, with real quotas and scripted faults.
//!
//! One listener serves several simulated providers, told apart by the first segment of the path. The simulator is the
//! other side of Sluice's provider adapters and shares no code with them. Within it, the modules that decide are pure
//! and take the time as an argument ([`quota`], [`fault`], [`conduct`], the dialects); `call` and `server` act.

pub mod answer;
pub mod answer_rule;
pub mod chance;
pub mod conduct;
pub mod dialect;
pub mod embedding;
pub mod fault;
pub mod fault_rule;
pub mod prompt;
pub mod prompt_cache;
pub mod quota;
pub mod scenario;
pub mod verdict;
pub mod wait;

mod account;
mod api;
mod call;
mod core;
mod endpoints;
mod exchange;
mod habits;
mod key;
mod latency;
mod ledger;
mod notation;
mod output;
mod reply_body;
mod server;
mod signature;
mod simulator;
mod spoilt;
mod stream;
mod ticket;
mod wire;

pub use answer_rule::AnswerRule;
pub use dialect::Dialect;
pub use fault::{Disguise, Fault, FaultKind};
pub use fault_rule::FaultRule;
pub use habits::Habits;
pub use key::Key;
pub use latency::Latency;
pub use ledger::{CallRecord, RequestRecord};
pub use output::Output;
pub use prompt::{count_tokens, request_hash};
pub use quota::{Growth, Limits};
pub use scenario::{Model, Price, Provider, QuotaScope, Scenario, ScenarioError};
pub use simulator::Simulator;
pub use verdict::{Figures, ProviderVerdict, Tolerances, Verdict};
