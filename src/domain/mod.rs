//! Every decision, as pure functions over data: no clock, no randomness, no input or output, no panics.
//!
//! Time comes in as an argument ([`Timestamp`]), chance comes from hashes of ids, and outside events come in as values
//! ([`Attempt`], [`Condition`](decide::Condition)). The other rooms of the house carry out what this one decides; the
//! same input always gives the same output.

pub mod answer;
pub mod attempt;
pub mod awaited;
pub mod backoff;
pub mod bounds;
pub mod breaker;
pub mod bulk;
pub mod calibration;
pub mod charging;
pub mod decide;
pub mod diagnosis;
pub mod doubt;
pub mod eligibility;
pub mod error_class;
pub mod estimate;
pub mod explanation;
pub mod failure;
pub mod fair;
pub mod finish;
pub mod job;
pub mod json_schema;
pub mod key_ring;
pub mod limits;
pub mod long_wait;
pub mod money;
pub mod price;
pub mod ramp;
pub mod raw_object;
pub mod readable;
pub mod refusal;
pub mod remedy;
pub mod request;
pub mod retention;
pub mod roll;
pub mod rotation;
pub mod route;
pub mod served;
pub mod shared_bucket;
pub mod shut;
pub mod soft_failure;
pub mod statistics;
pub mod strategy;
pub mod suspicion;
pub mod tempo;
pub mod timeline;
pub mod timestamp;
pub mod typical;
pub mod usage;
pub mod validation;
pub mod vectors;

pub use answer::{Answer, Beside, ToolCall};
pub use attempt::{Attempt, Outcome, Verdict};
pub use breaker::{Breaker, BreakerSettings};
pub use calibration::Calibration;
pub use charging::{Charge, Charging, Sizes};
pub use error_class::ErrorClass;
pub use failure::{Failure, NamedLimit, Scope};
pub use finish::Finish;
pub use job::{Job, JobId};
pub use limits::{Limits, Rate, Unit};
pub use money::{MoneyError, NanoUsd};
pub use refusal::{Bearing, Mend};
pub use remedy::Remedy;
pub use request::{ChatRequest, ContentPart, Message, RequestError, ResponseFormat, Role};
pub use route::{Capabilities, Model, Patience, Route, Rung, Strategy, Target};
pub use shut::{Reason, Shut};
pub use soft_failure::SoftFailure;
pub use timestamp::Timestamp;
pub use typical::Typical;
pub use usage::{Usage, UsageSource};
pub use vectors::Vectors;
