//! What the integration tests share.

pub mod fleet;
pub mod postgres;
pub mod program;
pub mod queue;
pub mod wait;
