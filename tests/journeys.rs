//! Whole days of the people who use Sluice, each ending in a check.

mod backend;
mod data_engineer;
mod operator;
mod testing_page;
