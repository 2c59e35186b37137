//! Recorded and documented failures by their meaning, across all providers: the tables show that each disguise is seen
//! through, in any dialect.

mod envelopes;
mod money;
mod ramp;
mod references;
mod refusals;
mod waits;

use super::checks::{Case, at, check_failures};
use super::dialect::Dialect;

/// A provider as configured, and its answers.
type Table = (&'static Dialect, &'static str, &'static [Case]);

const OPENAI: &str = "https://api.openai.com/v1";
const ANTHROPIC: &str = "https://api.anthropic.com/v1";
const GEMINI: &str = "https://generativelanguage.googleapis.com/v1beta";
const GEMINI_AS_OPENAI: &str = "https://generativelanguage.googleapis.com/v1beta/openai";
const AZURE: &str = "https://acme.openai.azure.com/openai/v1";
const MISTRAL: &str = "https://api.mistral.ai/v1";
const GROQ: &str = "https://api.groq.com/openai/v1";
const DEEPSEEK: &str = "https://api.deepseek.com/v1";
const TOGETHER: &str = "https://api.together.xyz/v1";
const FIREWORKS: &str = "https://api.fireworks.ai/inference/v1";
const OPENROUTER: &str = "https://openrouter.ai/api/v1";
const XAI: &str = "https://api.x.ai/v1";
/// A server of the user's own, or a gateway.
const SERVER: &str = "http://127.0.0.1:8000/v1";

fn check(tables: &[Table]) {
    for (dialect, base_url, cases) in tables {
        check_failures(at(dialect, base_url), cases);
    }
}
