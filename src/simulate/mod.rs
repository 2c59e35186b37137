//! The provider simulator: three dialects on real sockets, with real quotas and scripted faults.
//!
//! One listener serves several simulated providers, told apart by the first segment of the path. It is the other side
//! of Sluice's provider adapters and shares no code with them. Within it, what decides is pure and takes the time as an
//! argument ([`quota`], [`fault`], [`conduct`]); `call` and `server` act.

pub mod answer;
pub mod chance;
pub mod conduct;
pub mod dialect;
pub mod fault;
pub mod prompt;
pub mod quota;
pub mod scenario;
pub mod verdict;
pub mod wait;

mod anthropic;
mod call;
mod endpoints;
mod gemini;
mod key;
mod ledger;
mod openai;
mod reply_body;
mod server;
mod simulator;
mod wire;

pub use dialect::Dialect;
pub use fault::{Disguise, Fault, FaultKind, FaultRule};
pub use key::Key;
pub use ledger::{CallRecord, RequestRecord};
pub use prompt::{count_tokens, request_hash};
pub use quota::{Growth, Limits};
pub use scenario::{Latency, Model, Output, Price, Provider, QuotaScope, Scenario, ScenarioError};
pub use simulator::Simulator;
pub use verdict::{Figures, ProviderVerdict, Tolerances, Verdict};
