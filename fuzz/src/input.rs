//! A file of jobs.

use sluice::input::{InputError, JobReader, ReadLimits};

/// A file of jobs.
pub fn run(data: &[u8]) {
    for line_bytes in [64, ReadLimits::default().line_bytes] {
        for job in JobReader::new(data, ReadLimits { line_bytes }) {
            match job {
                // What is taken for in order is JSON, and holds nothing that Postgres refuses.
                Ok(job) => {
                    let body: serde_json::Value = serde_json::from_str(&job.body).unwrap();
                    assert!(!body.to_string().contains("\\u0000") || job.body.contains("\\\\u0000"));
                }
                Err(InputError::Line(fault)) => assert!(fault.to_string().len() < 2_000, "{fault}"),
                Err(InputError::Read { source, .. }) => panic!("{source}"),
            }
        }
    }
}
