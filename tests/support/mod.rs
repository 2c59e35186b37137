//! What the integration tests share.

pub mod browser;
pub mod clock;
pub mod cluster;
pub mod exposition;
pub mod fleet;
pub mod inbox;
pub mod lateness;
pub mod otlp;
pub mod page;
pub mod picture;
pub mod pooler;
pub mod postgres;
pub mod program;
pub mod proxy;
pub mod queue;
pub mod scripted;
pub mod server;
pub mod site;
pub mod wait;
