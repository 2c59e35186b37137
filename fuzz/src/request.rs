//! A request, as every dialect sends it.

use sluice::domain::{Capabilities, ChatRequest, estimate};
use sluice::provider::{DIALECTS, QuirkSettings, vendors};

/// A request, as every dialect sends it.
pub fn run(data: &[u8]) {
    let Ok(body) = serde_json::from_slice(data) else { return };
    match ChatRequest::parse_with_schema(&body) {
        Err(error) => assert!(error.to_string().len() < 2_000, "{error}"),
        Ok((request, schema)) => {
            let _ = estimate::input_tokens(&request);
            if let Some(schema) = schema {
                let _ = schema.check(&body);
            }
            for dialect in DIALECTS {
                let adapter = vendors::adapter(dialect, None, "http://127.0.0.1:8000/v1", &QuirkSettings::default());
                if let Ok(mut wire) = adapter.encode((&request).into(), "model", &Capabilities::default()) {
                    assert!(serde_json::from_slice::<serde_json::Value>(&wire.body).is_ok());
                    adapter.ask_for_stream(&mut wire);
                    assert!(serde_json::from_slice::<serde_json::Value>(&wire.body).is_ok());
                }
            }
        }
    }
}
