//! What health probes show of providers, and which providers are probed.

use super::Gate;
use crate::domain::Timestamp;
use crate::domain::probe::{ProbeReport, ProbeSettings, PulseChange};
use std::sync::atomic::Ordering;

/// A provider whose health is probed.
#[derive(Clone, Debug)]
pub struct ProbedProvider<'a> {
    pub name: &'a str,
    pub settings: &'a ProbeSettings,
    /// The place of the key that the question goes with.
    pub key: usize,
    /// Whether its probes let calls go to it.
    pub is_open: bool,
}

impl Gate {
    /// The providers whose health is probed: those of them that some route uses.
    pub fn probed(&self, now: Timestamp) -> impl Iterator<Item = ProbedProvider<'_>> {
        self.providers.iter().filter_map(move |(name, provider)| {
            let settings = provider.probe.as_ref()?;
            let is_open = provider.pulse.lock().shut(now).is_none();
            Some(ProbedProvider { name, settings, key: provider.keys.first_in_service(), is_open })
        })
    }

    /// Takes in the outcome of a probe that was made by these settings. When a provider answers again that was shut for
    /// its probes, breakers of its targets that are open let one call go at once. Returns whether it has.
    pub fn take_in_probe(&self, provider: &str, asked: &ProbeSettings, report: &ProbeReport, now: Timestamp) -> bool {
        // The configuration was read again meanwhile, and another page counts.
        let is_meant = |settings: &ProbeSettings| settings.page == asked.page;
        let Some(state) = self.providers.get(provider) else { return false };
        let Some(settings) = state.probe.as_ref().filter(|settings| is_meant(settings)) else { return false };
        if report.status.is_some() {
            // It can be reached, whatever it says.
            state.last_contact.fetch_max(now.0, Ordering::Relaxed);
        }
        let change = state.pulse.lock().take_in(report, settings, now);
        match change {
            Some(PulseChange::Shut) => tracing::warn!(
                provider,
                page = settings.page.as_str(),
                failures = settings.failures,
                every_seconds = settings.every.as_secs_f64(),
                "the health probe fails ({}): no call goes to the provider until it is good again",
                report.in_words()
            ),
            Some(PulseChange::Opened) => {
                tracing::info!(provider, "the health probe is good again: calls go to the provider");
                for target in self.targets.values().filter(|target| target.provider.name == provider) {
                    target.record.breaker.lock().own_mut().try_again(now);
                }
            }
            None if !report.is_good() => {
                tracing::debug!(provider, "the health probe fails ({})", report.in_words());
            }
            None => {}
        }
        if change.is_some() {
            self.changed.notify_waiters();
        }
        change == Some(PulseChange::Opened)
    }
}

#[cfg(test)]
mod tests;
