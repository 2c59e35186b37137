//! The views: everything that people are shown, typed once. Jobs, batches, the status, reports.
//!
//! A view is made of data that the store has read. Every face shows the same views: the command line lays them out in
//! tables and sentences, programs get them as JSON.

pub mod alert;
pub mod attempt;
pub mod batch;
pub mod bucket;
pub mod budget;
pub mod change;
pub mod check;
pub mod choice;
pub mod command;
pub mod compare;
pub mod course;
pub mod dollars;
pub mod estimate;
pub mod fields;
pub mod finding;
pub mod flat_row;
pub mod game_day;
pub mod job;
pub mod moment;
pub mod prices;
mod race;
pub mod reconciled;
pub mod report;
pub mod repriced;
pub mod result_line;
pub mod schedule;
pub mod shut;
pub mod status;
pub mod story;
pub mod table;
#[cfg(test)]
mod tests;
mod time;
pub mod tone;
pub mod trial;
pub mod waits;
pub mod worker;

use serde::Serialize;
use serde_json::Value;

/// A view as the JSON document that is printed and served. The members of an object are in alphabetical order.
///
/// # Errors
/// When a view has a map whose keys are not texts; none has.
pub fn document(view: &(impl Serialize + ?Sized)) -> serde_json::Result<Value> {
    serde_json::to_value(view)
}
