//! The longest that each value of a job may be. The database has the same numbers (`sluice.most_bytes`), and has the
//! last word.

/// The columns of a job and the most bytes that each may have; JSON is measured as text.
pub const MOST_BYTES: [(&str, usize); 8] = [
    ("route", 200),
    ("project", 200),
    ("batch", 200),
    ("enqueued_by", 200),
    ("custom_id", MOST_CUSTOM_ID_BYTES),
    // Leaves room for a batch, a slash and a custom id.
    ("idempotency_key", 1_024),
    ("metadata", 1 << 20),
    ("request", 32 << 20),
];

/// Short enough to fit on a line of any report.
pub const MOST_CUSTOM_ID_BYTES: usize = 512;

/// The limit that a line of a file has by default, and far more than any provider takes. A row of 255 MB would
/// otherwise be in memory as often as there are places.
pub const MOST_REQUEST_BYTES: i32 = 32 << 20;

/// Checks that a value is short enough for its column.
///
/// # Errors
/// The size of a value that is too long, and the bound, in the database's words; never the value.
pub fn check(column: &str, value: &str) -> Result<(), String> {
    match MOST_BYTES.iter().find(|(name, _)| *name == column) {
        Some((_, most)) if value.len() > *most => Err(too_long(value.len(), *most)),
        _ => Ok(()),
    }
}

fn too_long(bytes: usize, most: usize) -> String {
    if most < 1 << 20 {
        format!("is {bytes} bytes long; expected at most {most}")
    } else {
        format!("is larger than {} MB", most >> 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_refused_from_the_first_byte_too_many_and_never_quoted() {
        for (column, most) in MOST_BYTES {
            assert_eq!(check(column, &"x".repeat(most)), Ok(()), "{column}");
            let said = check(column, &"x".repeat(most + 1)).expect_err("it is too long");
            assert!(!said.contains("xx") && said.len() < 100, "{column}: {said}");
        }
        assert_eq!(check("batch", &"ü".repeat(101)), Err("is 202 bytes long; expected at most 200".to_owned()));
        assert!(MOST_BYTES.contains(&("request", usize::try_from(MOST_REQUEST_BYTES).expect("it is above 0"))));
        assert_eq!(check("request", &"x".repeat((32 << 20) + 1)), Err("is larger than 32 MB".to_owned()));
        assert_eq!(check("nothing of the kind", &"x".repeat(1000)), Ok(()));
    }
}
