#![no_main]

use libfuzzer_sys::fuzz_target;
use sluice::provider::Dialect;

const AT: &[&str] = &[
    "https://api.openai.com/v1",
    "https://acme.openai.azure.com/openai/v1",
    "https://openrouter.ai/api/v1",
    "https://api.groq.com/openai/v1",
    "https://api.mistral.ai/v1",
    "https://api.deepseek.com/v1",
    "https://generativelanguage.googleapis.com/v1beta/openai",
    "http://127.0.0.1:8000/v1",
];

fuzz_target!(|data: &[u8]| sluice_fuzz::decode(Dialect::Openai, AT, data));
