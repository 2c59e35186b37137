#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice::provider::Dialect;

const AT: &[&str] = &["https://api.anthropic.com/v1"];

fuzz_target!(|data: &[u8]| sluice_fuzz::decode(Dialect::Anthropic, AT, data));
