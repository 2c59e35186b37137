//! What sessions that listen are told of jobs that have ended.

/// The channel on which they are told.
pub const CHANNEL: &str = "sluice_settled";

/// The bytes that a payload may have. The server takes less than 8000.
const MOST_BYTES: usize = 7_900;

/// The payloads that name these jobs: as a rule one, `{"jobs":[17,18]}`, and more where one would be too long.
#[must_use]
pub fn payloads(jobs: &[i64]) -> Vec<String> {
    let mut payloads = Vec::new();
    let mut numbers = String::new();
    for job in jobs {
        let number = job.to_string();
        if !numbers.is_empty() && numbers.len() + number.len() + 1 + r#"{"jobs":[]}"#.len() > MOST_BYTES {
            payloads.push(format!(r#"{{"jobs":[{numbers}]}}"#));
            numbers.clear();
        }
        if !numbers.is_empty() {
            numbers.push(',');
        }
        numbers.push_str(&number);
    }
    if !numbers.is_empty() {
        payloads.push(format!(r#"{{"jobs":[{numbers}]}}"#));
    }
    payloads
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn every_job_is_named_once_in_order_and_no_payload_is_too_long() {
        assert!(payloads(&[]).is_empty());
        assert_eq!(payloads(&[17]), [r#"{"jobs":[17]}"#]);
        for (first, count, expected) in [(1, 500, 1), (i64::MAX - 10_000, 1_000, 3), (1_000_000_000, 500, 1)] {
            let jobs: Vec<i64> = (first..first + count).collect();
            let payloads = payloads(&jobs);
            assert_eq!(payloads.len(), expected, "{count} from {first}");
            assert!(payloads.iter().all(|payload| payload.len() < 8_000));
            let named = payloads.iter().flat_map(|payload| {
                let payload: Value = serde_json::from_str(payload).unwrap();
                payload["jobs"].as_array().unwrap().iter().map(|job| job.as_i64().unwrap()).collect::<Vec<_>>()
            });
            assert_eq!(named.collect::<Vec<_>>(), jobs);
        }
    }
}
