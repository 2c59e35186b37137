//! The vectors of an answer to a request for embeddings.
//!
//! Numbers are kept in single precision, as models compute them and as base64 carries them. A number that is missing or
//! not finite is kept as NaN, and rejected by validation.

use crate::domain::counted::counted;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::fmt;

/// The vectors, in the order of the inputs.
#[derive(Clone, Debug, Default)]
pub struct Vectors {
    list: Vec<Vec<f32>>,
    /// Whether each stood at a place of its own, without gaps. Otherwise it is not known which belongs to which input.
    is_in_order: bool,
}

impl PartialEq for Vectors {
    /// By their bits, so that a NaN is equal to itself.
    fn eq(&self, other: &Self) -> bool {
        let same = |(one, two): (&Vec<f32>, &Vec<f32>)| {
            one.len() == two.len() && one.iter().zip(two).all(|(one, two)| one.to_bits() == two.to_bits())
        };
        self.is_in_order == other.is_in_order
            && self.list.len() == other.list.len()
            && self.list.iter().zip(&other.list).all(same)
    }
}

impl Vectors {
    /// Vectors in the order in which they came.
    #[must_use]
    pub const fn in_order(list: Vec<Vec<f32>>) -> Self {
        Self { list, is_in_order: true }
    }

    /// Vectors with the places that the provider gave them; where it gave none to any, they are in order.
    #[must_use]
    pub fn placed(mut list: Vec<(Option<u64>, Vec<f32>)>) -> Self {
        if list.iter().all(|(place, _)| place.is_none()) {
            return Self::in_order(list.into_iter().map(|(_, vector)| vector).collect());
        }
        list.sort_by_key(|(place, _)| *place);
        let is_in_order = (0..).zip(&list).all(|(expected, (place, _))| *place == Some(expected));
        Self { list: list.into_iter().map(|(_, vector)| vector).collect(), is_in_order }
    }

    /// Whether it is known which vector belongs to which input.
    #[must_use]
    pub const fn is_in_order(&self) -> bool {
        self.is_in_order
    }

    /// The vectors.
    #[must_use]
    pub fn list(&self) -> &[Vec<f32>] {
        &self.list
    }

    /// The vectors, taken out.
    #[must_use]
    pub fn into_list(self) -> Vec<Vec<f32>> {
        self.list
    }

    /// The dimension of the first vector, zero if there is none.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.list.first().map_or(0, Vec::len)
    }

    /// How many there are and how long, for people: `3 vectors of 1536 numbers`.
    #[must_use]
    pub fn told(count: usize, dimension: usize) -> String {
        format!("{} of {}", counted(count, "vector", "vectors"), counted(dimension, "number", "numbers"))
    }

    /// About how many bytes they take as numbers in a text.
    #[must_use]
    pub fn bytes(&self) -> usize {
        const NUMBER: usize = 13;
        self.list.iter().fold(0, |sum: usize, vector| sum.saturating_add(vector.len().saturating_mul(NUMBER)))
    }
}

impl fmt::Display for Vectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Self::told(self.list.len(), self.dimension()))
    }
}

/// A vector as a provider writes it: a list of numbers, or base64 of them. `None`: it is neither.
#[must_use]
pub fn read_vector(value: &Value) -> Option<Vec<f32>> {
    match value {
        Value::Array(numbers) => Some(numbers.iter().map(read_number).collect()),
        Value::String(text) => decode(text),
        _ => None,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "what is beyond single precision becomes infinite, and is rejected"
)]
fn read_number(value: &Value) -> f32 {
    value.as_f64().map_or(f32::NAN, |number| number as f32)
}

/// Single-precision numbers, little-endian, in base64 of the standard or the URL-safe alphabet, with padding or
/// without.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<f32>> {
    let digits = text.trim().trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 3);
    for group in digits.chunks(4) {
        let mut bits = 0_u32;
        for &digit in group {
            bits = (bits << 6) | u32::from(sextet(digit)?);
        }
        // A group of four has three bytes, one of three has two, one of two has one.
        let whole = match group.len() {
            4 => 3,
            3 => 2,
            2 => 1,
            _ => return None,
        };
        let missing = 4_u32.saturating_sub(u32::try_from(group.len()).ok()?);
        let [_, three @ ..] = (bits << (6 * missing)).to_be_bytes();
        bytes.extend(three.into_iter().take(whole));
    }
    let (numbers, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| numbers.iter().map(|number| f32::from_le_bytes(*number)).collect())
}

const fn sextet(digit: u8) -> Option<u8> {
    Some(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    })
}

/// The base64 that [`decode`] reads.
#[must_use]
pub fn encode(vector: &[f32]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    let mut text = String::with_capacity(bytes.len() / 3 * 4 + 4);
    for group in bytes.chunks(3) {
        let at = |place: usize| u32::from(group.get(place).copied().unwrap_or(0));
        let bits = (at(0) << 16) | (at(1) << 8) | at(2);
        for digit in 0..4_usize {
            let sextet = usize::try_from((bits >> (18 - 6 * digit)) & 63).unwrap_or(0);
            let letter = if digit <= group.len() { DIGITS.get(sextet).copied().unwrap_or(b'=') } else { b'=' };
            text.push(char::from(letter));
        }
    }
    text
}

/// Base64 keeps every bit, also of numbers that JSON does not have.
#[derive(Serialize, Deserialize)]
struct EncodedVectors {
    list: Vec<String>,
    is_in_order: bool,
}

impl Serialize for Vectors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let list = self.list.iter().map(|vector| encode(vector)).collect();
        EncodedVectors { list, is_in_order: self.is_in_order }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Vectors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let EncodedVectors { list, is_in_order } = EncodedVectors::deserialize(deserializer)?;
        let list: Option<_> = list.iter().map(|text| decode(text)).collect();
        let list = list.ok_or_else(|| serde::de::Error::custom("expected base64 of single-precision numbers"))?;
        Ok(Self { list, is_in_order })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_vector_is_read_as_numbers_and_as_base64() {
        for (value, expected) in [
            (json!([1.0, -2.5, 0]), Some(vec![1.0, -2.5, 0.0])),
            (json!([]), Some(Vec::new())),
            (json!("AACAPwAAIMAAAAAA"), Some(vec![1.0, -2.5, 0.0])),
            (json!("AACAPw=="), Some(vec![1.0])),
            (json!("AACAPw"), Some(vec![1.0])),
            (json!("AADAfw=="), Some(vec![f32::NAN])),
            (json!([1, null]), Some(vec![1.0, f32::NAN])),
            (json!([1, "2"]), Some(vec![1.0, f32::NAN])),
            (json!([1e300]), Some(vec![f32::INFINITY])),
            (json!("AACA"), None),
            (json!("not base64!"), None),
            (json!(1), None),
            (json!(null), None),
        ] {
            let read = read_vector(&value).map(|vector| Vectors::in_order(vec![vector]));
            assert_eq!(read, expected.map(|vector| Vectors::in_order(vec![vector])), "{value}");
        }
    }

    #[test]
    fn places_decide_the_order_and_a_gap_or_a_doubled_one_is_seen() {
        let placed = |places: &[Option<u64>]| {
            Vectors::placed(places.iter().zip([1.0, 2.0, 3.0]).map(|(place, number)| (*place, vec![number])).collect())
        };
        let first = |vectors: &Vectors| vectors.list()[0][0];
        let sorted = placed(&[Some(2), Some(0), Some(1)]);
        assert_eq!((sorted.is_in_order(), first(&sorted)), (true, 2.0));
        let bare = placed(&[None, None, None]);
        assert_eq!((bare.is_in_order(), first(&bare)), (true, 1.0));
        for odd in [[Some(0), Some(0), Some(1)], [Some(0), Some(1), Some(3)], [Some(0), None, Some(1)], [Some(1); 3]] {
            assert!(!placed(&odd).is_in_order(), "{odd:?}");
        }
    }

    #[test]
    fn what_is_told_of_them_is_how_many_and_how_long() {
        assert_eq!(Vectors::in_order(vec![vec![0.5; 3]; 2]).to_string(), "2 vectors of 3 numbers");
        assert_eq!(Vectors::in_order(vec![vec![0.5]]).to_string(), "1 vector of 1 number");
        assert_eq!(Vectors::default().to_string(), "0 vectors of 0 numbers");
    }

    proptest! {
        #[test]
        fn every_bit_survives_base64_and_the_spool(bits in prop::collection::vec(any::<u32>(), 0..20)) {
            let vector: Vec<f32> = bits.iter().map(|bits| f32::from_bits(*bits)).collect();
            let vectors = Vectors::in_order(vec![vector.clone(), vector.clone()]);
            let back = decode(&encode(&vector)).map(|vector| Vectors::in_order(vec![vector.clone(), vector]));
            prop_assert_eq!(back, Some(vectors.clone()));
            let kept = serde_json::to_string(&vectors).unwrap();
            prop_assert_eq!(serde_json::from_str::<Vectors>(&kept).unwrap(), vectors);
        }

        #[test]
        fn no_text_makes_the_reader_stumble(text in ".*") {
            let _ = decode(&text);
        }
    }
}
