//! Of the tokens that a call wrote into a cache, those that were written for an hour: to be read from usage that was
//! kept before they had a column of their own.

use serde_json::Value;

/// Where the vendors and gateways that tell them apart do so.
const PLACES: &[&str] = &[
    "/cache_creation/ephemeral_1h_input_tokens",
    "/prompt_tokens_details/cache_creation_token_details/ephemeral_1h_input_tokens",
    "/prompt_tokens_details/cache_creation/ephemeral_1h_input_tokens",
];

/// The tokens that were written for an hour, at most all that were `written`.
#[must_use]
pub fn for_an_hour(usage: &Value, written: i64) -> i64 {
    let at_place = PLACES.iter().find_map(|place| usage.pointer(place)?.as_i64());
    let details = usage.get("cacheDetails").and_then(Value::as_array).into_iter().flatten();
    let of_bedrock = details
        .filter(|detail| detail.get("ttl").is_some_and(|ttl| ttl == "1h"))
        .filter_map(|detail| detail.get("inputTokens")?.as_i64())
        .fold(0_i64, i64::saturating_add);
    at_place.unwrap_or(of_bedrock).clamp(0, written.max(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_written_for_an_hour_is_found_in_every_dialect_and_is_a_part_of_the_whole() {
        for (usage, written, hour) in [
            (json!({"cache_creation": {"ephemeral_1h_input_tokens": 30, "ephemeral_5m_input_tokens": 10}}), 40, 30),
            (json!({"cache_creation": {"ephemeral_1h_input_tokens": 90}}), 40, 40),
            (json!({"cacheDetails": [{"ttl": "5m", "inputTokens": 7}, {"ttl": "1h", "inputTokens": 5}]}), 12, 5),
            (json!({"cache_creation_input_tokens": 40}), 40, 0),
            (json!({"cache_creation": {"ephemeral_1h_input_tokens": -3}}), 40, 0),
            (json!("odd"), 40, 0),
        ] {
            assert_eq!(for_an_hour(&usage, written), hour, "{usage}");
        }
    }
}
