//! Refusals in plain words.

/// Longer texts have said something besides a refusal.
const LONGEST: usize = 400;

/// Words that come before the refusal itself.
const APOLOGIES: &[&str] =
    &["i'm sorry", "i am sorry", "i'm really sorry", "sorry", "i apologize", "unfortunately", "but", ","];

const INABILITIES: &[&str] = &[
    "i can't",
    "i cannot",
    "i can not",
    "i'm unable to",
    "i am unable to",
    "i'm not able to",
    "i am not able to",
    "i won't be able to",
    "i won't",
    "i will not",
    "i must decline to",
];

/// Services that are refused. Words such as "find" or "determine" are not here: an answer may say that the model looked
/// for something and did not find it.
const SERVICES: &[&str] = &[
    "help",
    "assist",
    "comply",
    "fulfill",
    "fulfil",
    "do that",
    "engage",
    "provide",
    "create",
    "generate",
    "participate",
    "continue with",
    "support that",
];

/// Whether a text refuses the request: it is short and begins with a known English way to decline.
pub(super) fn is_refusal(text: &str) -> bool {
    if text.len() > LONGEST {
        return false;
    }
    let plain = text.replace('’', "'").to_lowercase();
    let mut rest = plain.as_str();
    while let Some(after) = after_any(rest, APOLOGIES) {
        rest = after;
    }
    after_any(rest, INABILITIES).is_some_and(|service| after_any(service, SERVICES).is_some())
}

/// Whether a text says anywhere that something cannot be done.
pub(super) fn declines(text: &str) -> bool {
    let plain = text.replace('’', "'").to_lowercase();
    INABILITIES.iter().any(|inability| plain.contains(inability))
}

fn after_any<'a>(text: &'a str, beginnings: &[&str]) -> Option<&'a str> {
    beginnings.iter().find_map(|beginning| text.strip_prefix(beginning)).map(str::trim_start)
}
