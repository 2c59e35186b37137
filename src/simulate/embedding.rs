//! The vectors of the simulated models: a function of the text and the dimension, so that tests can recompute them.

use super::chance::mix;
use super::prompt::PromptHash;
use serde_json::Value;
use std::io::Write;

/// The length of a vector where the call asks for none.
pub const USUAL_DIMENSION: usize = 8;

/// The vector of a text: numbers from −1 to 1, none of them zero.
#[must_use]
pub fn vector(text: &str, dimension: usize) -> Vec<f32> {
    let mut hash = PromptHash::default();
    hash.text(text);
    let hash = hash.finish();
    (0..dimension as u64)
        .map(|place| {
            let [high, low, ..] = mix(hash, place).to_be_bytes();
            let number = f32::from(u16::from_be_bytes([high, low])) / 32_768.0 - 1.0;
            if number == 0.0 { 0.5 } else { number }
        })
        .collect()
}

/// The inputs of a call that wants vectors.
#[derive(Debug)]
pub(crate) struct EmbedAsk {
    /// The texts; token numbers are written out, with spaces between.
    pub texts: Vec<String>,
    /// The number of tokens, where the inputs are token numbers.
    pub tokens: Option<u64>,
    pub dimension: Option<usize>,
    pub base64: bool,
}

/// The vectors to be written.
#[derive(Debug, PartialEq)]
pub(crate) struct Vectors {
    pub list: Vec<Vec<f32>>,
    pub base64: bool,
}

impl EmbedAsk {
    /// Reads `input` in any of OpenAI's forms.
    pub fn read(input: &Value) -> Result<Self, String> {
        let items = match input {
            Value::String(_) => std::slice::from_ref(input),
            Value::Array(items) if items.is_empty() => return Err("'input' must not be empty".to_owned()),
            Value::Array(items) if items.iter().all(Value::is_u64) => std::slice::from_ref(input),
            Value::Array(items) => items.as_slice(),
            _ => return Err("'input' must be a string, an array of strings or token numbers".to_owned()),
        };
        let (mut texts, mut tokens) = (Vec::with_capacity(items.len()), None);
        for item in items {
            match item {
                Value::String(text) if !text.is_empty() && tokens.is_none() => texts.push(text.clone()),
                Value::Array(numbers) if !numbers.is_empty() && numbers.iter().all(Value::is_u64) => {
                    if tokens.is_none() && !texts.is_empty() {
                        return Err("'input' mixes strings and token numbers".to_owned());
                    }
                    *tokens.get_or_insert(0) += numbers.len() as u64;
                    let words: Vec<String> = numbers.iter().map(Value::to_string).collect();
                    texts.push(words.join(" "));
                }
                _ => return Err("'input' cannot be an empty string, and must be of one kind".to_owned()),
            }
        }
        Ok(Self { texts, tokens, dimension: None, base64: false })
    }

    /// The vectors of all inputs.
    pub fn vectors(&self) -> Vectors {
        let dimension = self.dimension.unwrap_or(USUAL_DIMENSION);
        Vectors { list: self.texts.iter().map(|text| vector(text, dimension)).collect(), base64: self.base64 }
    }
}

impl Vectors {
    /// Appends one vector as JSON. A number that is none is written as Python writes it.
    pub fn push(&self, vector: &[f32], out: &mut Vec<u8>) {
        if self.base64 {
            out.push(b'"');
            push_base64(vector, out);
            out.push(b'"');
            return;
        }
        out.push(b'[');
        for (place, number) in vector.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            // Writing to a vector cannot fail.
            let _ = if number.is_nan() { write!(out, "NaN") } else { write!(out, "{number:?}") };
        }
        out.push(b']');
    }

    /// Appends all vectors as a list.
    pub fn push_all(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (place, vector) in self.list.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            self.push(vector, out);
        }
        out.push(b']');
    }
}

/// Single-precision numbers, little-endian.
fn push_base64(vector: &[f32], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= group.len() { digit } else { b'=' });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_vector_depends_on_the_text_and_its_beginning_not_on_the_dimension() {
        let (long, short) = (vector("Hello", 16), vector("Hello", 4));
        assert_eq!(long[..4], short);
        assert_ne!(short, vector("Hallo", 4));
        assert!(long.iter().all(|number| number.abs() <= 1.0 && *number != 0.0));
    }

    #[test]
    fn inputs_are_read_in_each_form_and_refused_as_the_api_does() {
        for (input, texts, tokens) in [
            (json!("a"), vec!["a"], None),
            (json!(["a", "b"]), vec!["a", "b"], None),
            (json!([1, 2]), vec!["1 2"], Some(2)),
            (json!([[1, 2], [3]]), vec!["1 2", "3"], Some(3)),
        ] {
            let ask = EmbedAsk::read(&input).unwrap();
            assert_eq!((ask.texts, ask.tokens), (texts.into_iter().map(str::to_owned).collect(), tokens));
        }
        for odd in [json!([]), json!(""), json!(["a", ""]), json!(["a", [1]]), json!([[1], "a"]), json!([[]]), json!(7)]
        {
            assert!(EmbedAsk::read(&odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn base64_is_that_of_the_standard() {
        let written = |list: Vec<f32>| {
            let mut out = Vec::new();
            Vectors { list: Vec::new(), base64: true }.push(&list, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(vec![1.0, -2.5, 0.0]), "\"AACAPwAAIMAAAAAA\"");
        assert_eq!(written(vec![1.0]), "\"AACAPw==\"");
    }
}
