//! Probes the health of providers by their configured pages, each at its own pace: a question that costs nothing, so
//! that no job's call is spent on a server that is down.

use super::Shared;
use crate::domain::probe::{ProbeReport, ProbeSettings};
use crate::provider::Provider;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often it looks whether there is another configuration.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The last question to a provider.
struct LastQuestion {
    settings: ProbeSettings,
    client: Arc<Provider>,
    next: Instant,
    is_under_way: bool,
}

/// Runs until it is aborted: a worker that drains probes no more.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut asked: HashMap<String, LastQuestion> = HashMap::new();
    let mut under_way = FuturesUnordered::new();
    loop {
        let (plan, now) = (shared.plan(), Instant::now());
        let probed: Vec<_> = plan.gate.probed(shared.clock.now()).collect();
        asked.retain(|name, _| probed.iter().any(|provider| provider.name == name));
        for provider in probed {
            let Some(client) = plan.client(provider.name) else { continue };
            let is_same = |it: &LastQuestion| it.settings == *provider.settings && Arc::ptr_eq(&it.client, client);
            if asked.get(provider.name).is_some_and(|it| is_same(it) && (it.is_under_way || now < it.next)) {
                continue;
            }
            let (settings, client) = (provider.settings.clone(), Arc::clone(client));
            let next = now + settings.every;
            let question =
                LastQuestion { settings: settings.clone(), client: Arc::clone(&client), next, is_under_way: true };
            asked.insert(provider.name.to_owned(), question);
            let (name, key) = (provider.name.to_owned(), provider.key);
            under_way.push(async move {
                let report = client.probe(key, &settings.page, settings.timeout).await;
                (name, settings, client, report)
            });
        }
        let times = asked.values().filter(|it| !it.is_under_way).map(|it| it.next);
        let wake = times.min().map_or(now + LOOK_EVERY, |next| next.min(now + LOOK_EVERY));
        tokio::select! {
            Some((name, settings, client, report)) = under_way.next(), if !under_way.is_empty() => {
                take_in(&shared, &mut asked, &name, &settings, &client, &report);
            }
            () = tokio::time::sleep_until(wake) => {}
        }
    }
}

fn take_in(
    shared: &Shared,
    asked: &mut HashMap<String, LastQuestion>,
    name: &str,
    settings: &ProbeSettings,
    client: &Arc<Provider>,
    report: &ProbeReport,
) {
    if let Some(question) = asked.get_mut(name).filter(|it| it.settings == *settings && Arc::ptr_eq(&it.client, client))
    {
        question.is_under_way = false;
    }
    let plan = shared.plan();
    // An earlier configuration may have had another server under this name.
    if plan.client(name).is_some_and(|known| Arc::ptr_eq(known, client)) {
        let has_opened = plan.gate.take_in_probe(name, settings, report, shared.clock.now());
        if has_opened {
            // Jobs may be claimed that waited for it.
            shared.hands.freed.notify_one();
        }
    }
}
