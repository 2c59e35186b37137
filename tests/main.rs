//! Integration tests: real sockets, one binary.

mod simulate;
