//! Whether the model that answered is the one that was asked for.
//!
//! Vendors answer with the snapshot behind an alias, gateways with the vendor before the name, servers with the path of
//! a file. Those are the same model. Another size, another generation and another family are not.

use super::Model;
use super::route::Target;

/// The model that an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Served<'a> {
    /// The model that was asked for, as far as its name says.
    AsAsked,
    /// Another model of the same provider, whose price is known.
    Other(&'a Model),
    /// Another model, of which nothing is known.
    Stranger,
}

/// The model of an answer that names `served` as its model.
#[must_use]
pub fn who_served<'a>(target: &Target, model: &'a Model, served: &str) -> Served<'a> {
    let is_told = model.served_as.iter().any(|name| name == "*" || name.eq_ignore_ascii_case(served));
    if model.is_free() || is_told || is_same_model(&target.model, served) {
        return Served::AsAsked;
    }
    let exact = model.neighbours.get(served);
    let alike =
        || model.neighbours.iter().filter(|(name, _)| is_same_model(name, served)).max_by_key(|(name, _)| name.len());
    match exact.or_else(|| alike().map(|(_, model)| model)) {
        Some(other) => Served::Other(other),
        None => Served::Stranger,
    }
}

/// Words that distinguish another model of the same family.
const SIZES: &[&str] = &[
    "mini",
    "nano",
    "micro",
    "tiny",
    "lite",
    "small",
    "medium",
    "large",
    "xl",
    "pro",
    "max",
    "ultra",
    "plus",
    "premier",
    "turbo",
    "flash",
    "haiku",
    "sonnet",
    "opus",
    "luna",
    "terra",
    "sol",
    "astra",
    "coder",
    "code",
    "vision",
    "audio",
    "search",
    "reasoner",
    "thinking",
    "reasoning",
    "fast",
    "deep",
    "research",
    "realtime",
    "image",
    "embedding",
    "codex",
    "highspeed",
    "speed",
];

/// Whether an answer from `served` is an answer of `asked`. Names that say nothing count as the same.
#[must_use]
pub(super) fn is_same_model(asked: &str, served: &str) -> bool {
    let (asked, served) = (Parts::of(asked), Parts::of(served));
    if served.0.is_empty() || asked.0.is_empty() {
        return true;
    }
    let (short, long) = if asked.0.len() <= served.0.len() { (&asked.0, &served.0) } else { (&served.0, &asked.0) };
    long.get(..short.len()).is_some_and(|front| front == short.as_slice())
        && is_a_version(long.get(short.len()..).unwrap_or_default())
}

/// The words of a name, without those that only name its vendor or its build.
struct Parts(Vec<String>);

impl Parts {
    fn of(name: &str) -> Self {
        let name = name.trim().to_ascii_lowercase();
        // A path: it names a vendor, an account, a folder or a region's profile.
        let last = name.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        // From Vertex and Bedrock: `@20240620`, `us.anthropic.`.
        let last = last.replace('@', "-");
        let last = ["us.", "eu.", "apac.", "au.", "jp.", "global."]
            .iter()
            .find_map(|region| last.strip_prefix(region))
            .unwrap_or(&last);
        let last = ["anthropic.", "amazon.", "meta.", "mistral.", "cohere.", "openai.", "deepseek.", "qwen.", "ai21."]
            .iter()
            .find_map(|vendor| last.strip_prefix(vendor))
            .unwrap_or(last);
        let last = last.strip_suffix(".gguf").unwrap_or(last);
        // `:free`, `:nitro`, `-v1:0`: how it is served. Ollama's `:8b` is the size.
        let last =
            match last.split_once(':') {
                Some((front, tag))
                    if !is_size(tag.split('-').next().unwrap_or_default()) && tag.parse::<u8>().is_err() =>
                {
                    if tag == "latest" || is_routing(tag) { front.to_owned() } else { format!("{front}-{tag}") }
                }
                Some((front, tag)) if tag.parse::<u8>().is_ok() => front.to_owned(),
                _ => last.replace(':', "-"),
            };
        let words = last.split(['-', '_', '.', ' ']).filter(|word| !word.is_empty() && *word != "latest");
        Self(words.map(str::to_owned).collect())
    }
}

/// OpenRouter's words behind a colon that do not change the model.
fn is_routing(tag: &str) -> bool {
    matches!(tag, "free" | "nitro" | "floor" | "online" | "exacto" | "extended" | "beta")
}

/// `8b`, `70b`, `8x7b`, `1.5b`.
fn is_size(word: &str) -> bool {
    word.strip_suffix('b').or_else(|| word.strip_suffix('m')).is_some_and(|number| {
        !number.is_empty() && number.chars().all(|digit| digit.is_ascii_digit() || matches!(digit, 'x' | '.' | 'e'))
    })
}

/// Whether the rest of a name only says which build of the model it is: a date, a revision, a quantisation.
fn is_a_version(rest: &[String]) -> bool {
    let mut dated = 0_u8;
    rest.iter().all(|word| {
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
        if is_number {
            // `2024-08-06`, `20240806`, `0613`, `001`; but not the 5 of a generation.
            let is_build = word.len() >= 3 || (word.len() == 2 && (dated > 0 || word.starts_with('0')));
            dated = if word.len() == 2 && dated == 0 {
                1
            } else if word.len() == 4 {
                2
            } else {
                dated.saturating_sub(1)
            };
            return is_build;
        }
        // `preview-05-20`.
        dated = if matches!(word.as_str(), "preview" | "exp" | "experimental" | "beta") { 2 } else { 0 };
        !is_size(word) && !SIZES.contains(&word.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_an_alias_and_a_path_are_the_same_model() {
        for (asked, served) in [
            ("gpt-4o", "gpt-4o-2024-08-06"),
            ("gpt-4o-2024-08-06", "gpt-4o"),
            ("gpt-4o-mini", "gpt-4o-mini-2024-07-18"),
            ("gpt-4", "gpt-4-0613"),
            ("GPT-4o", "gpt-4o"),
            ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022"),
            ("claude-haiku-4-5", "claude-haiku-4-5-20251001"),
            ("claude-haiku-4.5", "claude-haiku-4-5"),
            ("gemini-2.5-flash", "models/gemini-2.5-flash"),
            ("gemini-2.5-flash", "gemini-2.5-flash-001"),
            ("gemini-2.5-flash", "gemini-2.5-flash-preview-05-20"),
            ("openai/gpt-4o", "gpt-4o"),
            ("gpt-4o", "openai/gpt-4o-2024-08-06"),
            ("openai/gpt-4o:online", "openai/gpt-4o"),
            ("meta-llama/llama-3.1-8b-instruct:free", "meta-llama/llama-3.1-8b-instruct"),
            ("accounts/fireworks/models/gpt-oss-120b", "gpt-oss-120b"),
            ("mistral-small-latest", "mistral-small-2506"),
            ("mistral-small", "mistral-small-latest"),
            ("us.anthropic.claude-haiku-4-5-20251001-v1:0", "claude-haiku-4-5-20251001"),
            ("claude-3-5-sonnet@20240620", "claude-3-5-sonnet-20240620"),
            ("llama3:8b", "llama3:8b"),
            ("llama3:latest", "llama3"),
            ("llama-3-8b-instruct", "/models/llama-3-8b-instruct.Q4_K_M.gguf"),
            ("Qwen/Qwen3-8B", "Qwen3-8B-FP8"),
            ("m", ""),
            ("", "m"),
        ] {
            assert!(is_same_model(asked, served), "{asked} and {served}");
        }
    }

    #[test]
    fn another_size_generation_or_family_is_another_model() {
        for (asked, served) in [
            ("gpt-4o-mini", "gpt-4o"),
            ("gpt-4o", "gpt-4o-mini-2024-07-18"),
            ("gpt-4", "gpt-4-turbo"),
            ("gpt-5", "gpt-5.4"),
            ("gpt-5", "gpt-5-pro"),
            ("claude-opus-4", "claude-opus-4-5"),
            ("claude-haiku-4-5", "claude-opus-4-5"),
            ("gemini-2.5-flash", "gemini-2.5-pro"),
            ("gemini-2.5-flash", "gemini-2.5-flash-lite"),
            ("llama3:8b", "llama3:70b"),
            ("llama-3-8b", "llama-3-70b"),
            ("mistral-small-latest", "mistral-large-latest"),
            ("deepseek-chat", "deepseek-reasoner"),
            ("cheap", "dear"),
            ("openai/gpt-4o-mini", "anthropic/claude-opus-4-5"),
        ] {
            assert!(!is_same_model(asked, served), "{asked} and {served}");
        }
    }
}
