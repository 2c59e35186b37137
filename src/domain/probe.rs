//! Health probes: a cheap page of a provider's server that is asked again and again, and what its answers say of the
//! provider. A provider whose probe fails several times in a row is left alone until the page answers well.

use super::Timestamp;
use super::shut::{Reason, Shut};
use std::time::Duration;

/// How long something that only a good probe opens counts as shut when nothing more is known of it.
const MOMENT: Duration = Duration::from_secs(1);

/// The page that is asked: a path, and perhaps a query, at the origin of the provider's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbePage(String);

/// How a provider's health is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSettings {
    /// What is asked.
    pub page: ProbePage,
    /// From one question to the next.
    pub every: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// So many failures in a row shut the provider.
    pub failures: u32,
}

/// The outcome of one health probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// HTTP status; `None`: no answer began.
    pub status: Option<u16>,
    /// What the server said to a probe that has failed, or why there was no answer: shortened, without secrets.
    pub words: Option<String>,
    /// Milliseconds from the start of the question to its end.
    pub total_ms: i32,
}

/// What the probes of one provider have shown so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    failing: Option<Failing>,
    /// Whether a probe was good before. A server that was never seen well is left alone after one failure: it may
    /// still be loading.
    was_good: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Failing {
    /// When the first failure of the row came.
    since: Timestamp,
    /// Failures in a row.
    row: u32,
    /// Whether there were enough of them; only a good probe ends that.
    is_shut: bool,
    /// When it is asked again.
    next: Timestamp,
    said: String,
}

/// What a probe has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PulseChange {
    /// The provider is left alone from now on.
    Shut,
    /// It is called again.
    Opened,
}

impl ProbePage {
    /// Reads what a configuration says. The key of the provider goes with the question, so it is never asked of another
    /// server than that of the provider's address.
    ///
    /// # Errors
    /// What is wrong with it, in words that fit behind the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.contains("://") && !text.starts_with('/') {
            return Err("is a whole URL, and the key goes to no other server than that of base_url");
        }
        if !text.starts_with('/') {
            return Err("does not begin with a slash");
        }
        if text.starts_with("//") || text.starts_with("/\\") {
            return Err("names another server, and the key goes to none but that of base_url");
        }
        if text.contains('#') {
            return Err("has a fragment, which is never sent");
        }
        if text.chars().any(|letter| letter.is_whitespace() || letter.is_control()) {
            return Err("has a space or a control character");
        }
        Ok(Self(text.to_owned()))
    }

    /// The path, and the query without its question mark.
    #[must_use]
    pub fn parts(&self) -> (&str, Option<&str>) {
        self.0.split_once('?').map_or((&self.0, None), |(path, query)| (path, Some(query)))
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ProbeReport {
    /// Whether the server is well: it has answered with a status from 200 to 299. A server that is still loading its
    /// model says 503, and one that redirects does not answer there.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }

    /// Why it failed, in a few words: `HTTP 503: Loading model`.
    #[must_use]
    pub fn in_words(&self) -> String {
        match (self.status, self.words.as_deref().filter(|words| !words.is_empty())) {
            (Some(status), Some(words)) => format!("HTTP {status}: {words}"),
            (Some(status), None) => format!("HTTP {status}"),
            (None, Some(words)) => words.to_owned(),
            (None, None) => "no answer".to_owned(),
        }
    }
}

impl Pulse {
    /// Takes in the outcome of one probe. Returns what it changes for calls.
    pub fn take_in(&mut self, report: &ProbeReport, settings: &ProbeSettings, now: Timestamp) -> Option<PulseChange> {
        if report.is_good() {
            self.was_good = true;
            let before = self.failing.take();
            return before.is_some_and(|before| before.is_shut).then_some(PulseChange::Opened);
        }
        let before = self.failing.take();
        let was_shut = before.as_ref().is_some_and(|before| before.is_shut);
        let (since, row) = before.map_or((now, 0), |before| (before.since, before.row));
        let row = row.saturating_add(1);
        let is_shut = was_shut || row >= settings.failures || !self.was_good;
        self.failing = Some(Failing { since, row, is_shut, next: now + settings.every, said: report.in_words() });
        (is_shut && !was_shut).then_some(PulseChange::Shut)
    }

    /// Why no call goes to the provider, and when its page is asked again; `None`: its probes are in nobody's way.
    #[must_use]
    pub fn shut(&self, now: Timestamp) -> Option<Shut> {
        let failing = self.failing.as_ref().filter(|failing| failing.is_shut)?;
        Some(Shut { reason: Reason::HealthProbe, since: failing.since, until: failing.next.max(now + MOMENT) })
    }

    /// What the last probe that failed has said; `None`: the last one was good.
    #[must_use]
    pub fn said(&self) -> Option<&str> {
        self.failing.as_ref().map(|failing| failing.said.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Failures that shut it, the statuses of the page, and the changes that they make.
    type Row<'a> = (u32, &'a [u16], &'a [Option<PulseChange>]);

    const NOW: Timestamp = Timestamp(1_800_000_000_000);
    const EVERY: Duration = Duration::from_secs(15);

    fn settings(failures: u32) -> ProbeSettings {
        let page = ProbePage::parse("/health").unwrap();
        ProbeSettings { page, every: EVERY, timeout: Duration::from_secs(5), failures }
    }

    fn report(status: u16) -> ProbeReport {
        let words = (status >= 400).then(|| "Loading model".to_owned());
        ProbeReport { status: Some(status).filter(|status| *status > 0), words, total_ms: 3 }
    }

    #[test]
    fn so_many_failures_in_a_row_shut_and_the_first_good_answer_opens() {
        use PulseChange::{Opened, Shut};
        // The statuses of probes in their order (0: no answer), and what each changes.
        let table: [Row<'_>; 7] = [
            (2, &[200, 204, 299], &[None, None, None]),
            (2, &[503, 503, 503, 200, 200], &[None, Some(Shut), None, Some(Opened), None]),
            // One failure alone, and failures that are not in a row, are nothing.
            (2, &[503, 200, 503, 200, 503], &[None; 5]),
            (3, &[0, 503, 0, 0, 200], &[None, None, Some(Shut), None, Some(Opened)]),
            (1, &[0, 200, 500, 200], &[Some(Shut), Some(Opened), Some(Shut), Some(Opened)]),
            // Neither a redirect nor a refused key is good.
            (2, &[302, 401, 404, 429], &[None, Some(Shut), None, None]),
            (1, &[199, 300], &[Some(Shut), None]),
        ];
        for (failures, statuses, changes) in table {
            let mut pulse = Pulse::default();
            pulse.take_in(&report(200), &settings(failures), NOW);
            let told: Vec<_> =
                statuses.iter().map(|status| pulse.take_in(&report(*status), &settings(failures), NOW)).collect();
            assert_eq!(told, changes, "{failures}: {statuses:?}");
        }
    }

    #[test]
    fn a_server_that_was_never_seen_well_is_left_alone_after_one_failure() {
        let mut pulse = Pulse::default();
        assert_eq!(pulse.take_in(&report(503), &settings(5), NOW), Some(PulseChange::Shut));
        assert_eq!(pulse.take_in(&report(200), &settings(5), NOW), Some(PulseChange::Opened));
        assert_eq!(pulse.take_in(&report(503), &settings(5), NOW), None);
    }

    #[test]
    fn it_is_shut_since_the_first_failure_until_the_next_question_and_says_why() {
        let mut pulse = Pulse::default();
        assert_eq!((pulse.shut(NOW), pulse.said()), (None, None));
        pulse.take_in(&report(200), &settings(2), NOW);
        pulse.take_in(&report(503), &settings(2), NOW);
        assert_eq!((pulse.shut(NOW), pulse.said()), (None, Some("HTTP 503: Loading model")), "not yet");
        let later = NOW + EVERY;
        pulse.take_in(&report(0), &settings(2), later);
        let shut = Shut { reason: Reason::HealthProbe, since: NOW, until: later + EVERY };
        assert_eq!((pulse.shut(later), pulse.said()), (Some(shut), Some("no answer")));
        // A question whose answer is late: it goes on being shut, a moment at a time.
        let late = later + EVERY * 3;
        assert_eq!(pulse.shut(late).unwrap().until, late + MOMENT);
        // A configuration that wants more failures opens nothing: only a good answer does.
        assert_eq!(pulse.take_in(&report(503), &settings(9), late), None);
        assert!(pulse.shut(late).is_some());
        assert_eq!(pulse.take_in(&report(200), &settings(9), late), Some(PulseChange::Opened));
        assert_eq!((pulse.shut(late), pulse.said()), (None, None));
    }

    #[test]
    fn a_page_is_a_path_of_the_same_server() {
        for (text, problem) in [
            ("health", "does not begin with a slash"),
            ("", "does not begin with a slash"),
            ("http://127.0.0.1:8000/health", "whole URL"),
            ("https://elsewhere.example/health", "whole URL"),
            ("//elsewhere.example/health", "names another server"),
            ("/\\elsewhere.example/health", "names another server"),
            ("/health#now", "fragment"),
            ("/hea lth", "space"),
            ("/health\r\nhost: elsewhere", "control"),
        ] {
            let said = ProbePage::parse(text).unwrap_err();
            assert!(said.contains(problem), "{text}: {said}");
        }
        for (text, parts) in [
            ("/", ("/", None)),
            ("/v1/models", ("/v1/models", None)),
            ("/health?deep=1&next=http://x/", ("/health", Some("deep=1&next=http://x/"))),
        ] {
            let page = ProbePage::parse(text).unwrap();
            assert_eq!((page.parts(), page.as_str()), (parts, text));
        }
    }

    #[test]
    fn a_failure_is_told_by_its_status_and_words() {
        let of = |status, words: Option<&str>| ProbeReport { status, words: words.map(str::to_owned), total_ms: 1 };
        for (report, words) in [
            (of(Some(503), Some("Loading model")), "HTTP 503: Loading model"),
            (of(Some(502), Some("")), "HTTP 502"),
            (of(Some(301), None), "HTTP 301"),
            (of(None, Some("no connection: Connection refused")), "no connection: Connection refused"),
            (of(None, None), "no answer"),
        ] {
            assert_eq!(report.in_words(), words);
            assert!(!report.is_good());
        }
    }
}
