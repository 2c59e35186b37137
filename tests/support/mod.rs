//! What the integration tests share.

pub mod postgres;
pub mod program;
pub mod queue;
pub mod wait;
