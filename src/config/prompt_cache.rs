//! `prompt_cache` of a route.

use super::keys::PROMPT_CACHE;
use super::provider::ReadProvider;
use super::scalar;
use super::section::{Section, Table, to_json};
use super::words::CACHE_LIVES;
use crate::domain::prefix::{CacheForm, CacheLife};
use crate::domain::{PromptCache, PromptCaching, Rung};
use config::ValueKind;
use std::collections::BTreeMap;
use std::time::Duration;

/// The longest wait for the first call with a beginning: jobs that wait hold places of `max_in_flight`.
const MOST_WAIT: Duration = Duration::from_mins(10);
const WAIT: &str = "a duration such as \"30s\", at most \"10m\"";

const EXPECTED: &str = "true, false, or a table such as { ttl = \"1h\", min_tokens = 2048 }";

/// Whether and how a route with these rungs uses the prompt caches of its providers; `None`: it does not.
pub(super) fn read(
    section: &mut Section<'_>,
    rungs: &[Rung],
    providers: &BTreeMap<String, ReadProvider>,
) -> Option<PromptCaching> {
    let value = section.take("prompt_cache")?;
    let table = match value.kind {
        ValueKind::Table(table) => table.into_iter().collect(),
        ValueKind::Boolean(true) => Table::new(),
        ValueKind::Boolean(false) => return None,
        // Variables are texts.
        ValueKind::String(text) if text.trim() == "true" => Table::new(),
        ValueKind::String(text) if text.trim() == "false" => return None,
        _ => {
            section.fault("prompt_cache", format!("is {}", to_json(&value)), EXPECTED);
            return None;
        }
    };
    let mut table = section.nested("prompt_cache", &PROMPT_CACHE, table);
    let caching = PromptCaching {
        life: table.word_or_default("ttl", "is no time for which providers keep a prompt", CACHE_LIVES),
        min_tokens: table.whole("min_tokens"),
        wait: table.parsed_or_default("wait", WAIT, |text| {
            scalar::duration(text)
                .and_then(|wait| if wait > MOST_WAIT { Err(format!("{text:?} is too long")) } else { Ok(wait) })
        }),
    };
    table.finish();
    warn(section, rungs, providers, &caching);
    Some(caching)
}

/// What a route does for nothing is worth a warning: no rung keeps prompts, or none for so long.
fn warn(section: &Section<'_>, rungs: &[Rung], providers: &BTreeMap<String, ReadProvider>, caching: &PromptCaching) {
    let cache_of = |rung: &Rung| {
        let endpoint = &providers.get(&rung.target.provider)?.config.endpoint;
        endpoint.prompt_cache(&rung.target.model)
    };
    let caches: Vec<PromptCache> = rungs.iter().filter_map(cache_of).collect();
    let key = section.key_in_file("prompt_cache");
    if caches.is_empty() && !rungs.is_empty() {
        let problem = "no rung of the route is known to keep the beginnings of prompts, so it makes no difference";
        return section.reading().warn(format!("{key}: {problem}"));
    }
    let keeps_an_hour = |cache: &PromptCache| matches!(cache.form, CacheForm::Marks { keeps_an_hour: true });
    if caching.life != CacheLife::FiveMinutes && !caches.iter().any(keeps_an_hour) {
        section.reading().warn(format!("{key}.ttl: no rung of the route keeps a prompt for an hour by being asked"));
    }
}
