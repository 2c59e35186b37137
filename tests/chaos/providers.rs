//! What the workers call, as the simulator plays it and as the configuration has it.

use super::schedule::Trouble;
use std::fmt::Write as _;

/// The providers, in the order in which troubles count them.
pub const PROVIDERS: [&str; 4] = ["thrifty", "steady", "premium", "fickle"];
/// The troubles that may befall a provider for some seconds.
pub const TROUBLES: [&str; 8] = [
    "kind = \"overloaded\"",
    "kind = \"hang\"",
    "kind = \"reset\"",
    "kind = \"html_502\"",
    "kind = \"rate_limit\", wait = \"1500ms\", format = \"retry_after_ms\"",
    "kind = \"cut\"",
    // Where several of them meet, it is two or three times as much, and never the time that a worker waits for a first
    // byte: an answer that comes with the end of that time is taken for lost.
    "kind = \"slow\", delay = \"1300ms\"",
    "kind = \"garbage\"",
];
/// Rubbish now and then, and the troubles. Answers whose usage is wrong or missing are left out: their money cannot be
/// compared to the nano-dollar.
pub fn scenario(seed: u64, troubles: &[Trouble]) -> String {
    let mut scenario =
        format!("seed = {seed}\nrecord_calls = 10000000\nmax_requests = 10000000\nverdict.in_flight_grace = \"1s\"\n");
    let own = [
        "{ kind = \"rate_limit\", wait = \"400ms\", format = \"retry_after_ms\", rate = 0.005 }, \
         { kind = \"empty\", rate = 0.01 }, { kind = \"truncated\", rate = 0.01 }, \
         { kind = \"malformed_json\", rate = 0.01 }",
        "{ kind = \"cut\", rate = 0.01 }, { kind = \"html\", rate = 0.01 }, { kind = \"reset\", rate = 0.02 }, \
         { kind = \"slow_drip\", interval = \"20ms\", rate = 0.01 }, { kind = \"error_in_200\", rate = 0.01 }",
        "{ kind = \"server_error\", rate = 0.02 }, { kind = \"no_choices\", rate = 0.01 }, \
         { kind = \"refusal\", rate = 0.01 }, { kind = \"garbage\", rate = 0.01 }",
        "{ kind = \"500\", rate = 0.3 }, { kind = \"reset\", rate = 0.1 }, { kind = \"hang\", rate = 0.01 }",
    ];
    let kinds = [
        ("openai", "small", "quota = { requests_per_minute = 2400, burst_requests = 100 }"),
        ("anthropic", "medium", ""),
        ("gemini", "large", ""),
        ("openai", "odd", ""),
    ];
    for (index, (name, (dialect, model, quota))) in PROVIDERS.iter().zip(kinds).enumerate() {
        let mut faults = String::new();
        for Trouble { from, until, what, .. } in troubles.iter().filter(|trouble| trouble.provider == index) {
            let _ = write!(faults, "{{ {}, from = {from:.3}, until = {until:.3} }}, ", TROUBLES[*what]);
        }
        let _ = write!(
            scenario,
            "[providers.{name}]\ndialect = \"{dialect}\"\nwait_format = \"retry_after_ms\"\n{quota}\n\
             latency = {{ median = 0.5, p99 = 2.5 }}\noutput = {{ median = 20, p99 = 60 }}\n\
             models.{model}.price = {{ input = \"{}\", output = \"{}\" }}\nfaults = [{faults}{}]\n",
            PRICES[index].0, PRICES[index].1, own[index]
        );
    }
    scenario
}

const PRICES: [(&str, &str); 4] = [("0.5", "2"), ("1", "4"), ("2.5", "10"), ("0.4", "1.2")];

/// How long a worker waits for the beginning of an answer. Milliseconds.
pub const FIRST_BYTE: i64 = 3_000;

/// What all workers are configured with; `http://simulator` stands for the simulator's address.
pub fn config() -> String {
    let mut config =
        "[worker]\nmax_in_flight = 25\ndrain_timeout = \"20s\"\nmax_crashes = 4\n[http]\nlisten = \"off\"\n\
                      [log]\nfilter = \"info,sqlx=error\"\n[database]\nmax_connections = 8\n"
            .to_owned();
    let kinds = [("openai", "v1"), ("anthropic", "v1"), ("gemini", "v1beta"), ("openai", "v1")];
    let limits = [
        "limits = { requests_per_minute = 2400, burst_requests = 60 }",
        "limits = { concurrency = 60 }",
        "limits = { concurrency = 60 }",
        "limits = { concurrency = 20 }",
    ];
    let targets = ["thrifty/small", "steady/medium", "premium/large", "fickle/odd"];
    for (index, (name, (dialect, path))) in PROVIDERS.iter().zip(kinds).enumerate() {
        let _ = write!(
            config,
            "[providers.{name}]\ndialect = \"{dialect}\"\nbase_url = \"http://simulator/{name}/{path}\"\n{}\n\
             timeouts = {{ connect = \"2s\", first_byte = \"{FIRST_BYTE}ms\", idle = \"2s\", total = \"6s\" }}\n\
             breaker = {{ min_calls = 10, failure_rate = 0.6, window = \"2s\", open = \"500ms\" }}\nrecheck = \"2s\"\n\
             [models.\"{}\"]\nprice = {{ input = \"{}\", output = \"{}\" }}\n",
            limits[index], targets[index], PRICES[index].0, PRICES[index].1
        );
    }
    let _ = write!(
        config,
        "[routes.default]\nrungs = [\"thrifty/small\", \"steady/medium\", \"premium/large\"]\npatience = \"1s\"\n\
         max_attempts = {}\n[routes.narrow]\nrungs = [\"fickle/odd\"]\nmax_attempts = {}\n",
        super::MAX_ATTEMPTS[0].1,
        super::MAX_ATTEMPTS[1].1
    );
    config
}
