//! People's days with Sluice, from the first command to the last, each ending in a check.

mod operator;
