#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice::provider::Dialect;

const AT: &[&str] = &["https://generativelanguage.googleapis.com/v1beta"];

fuzz_target!(|data: &[u8]| sluice_fuzz::decode(Dialect::Gemini, AT, data));
