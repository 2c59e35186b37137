//! `sluice check --online`: one cheap call with each key and model, against providers that answer and that do not.

use crate::support::program::{Program, text};
use serde_json::Value;
use sluice::simulate::{Scenario, Simulator};

const KEY: &str = "sk-good-key-123456";
const OTHER_KEY: &str = "sk-other-key-654321";

/// A simulator, and a program whose configuration leads to it: a provider for each `(name, dialect, key, rungs)`.
struct Stage {
    simulator: Simulator,
    program: Program,
}

impl Stage {
    fn new(scenario: &str, providers: &str, rungs: &str) -> Self {
        let simulator =
            Simulator::start(Scenario::from_toml(scenario).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = simulator.addr().to_string();
        let config = format!(
            "[database]\ndata_dir = \"/nowhere/at/all\"\n{}\n[routes.default]\nrungs = [{rungs}]\n\
             [models.\"good/small\"]\nprice = {{ input = \"0.15\", output = \"0.60\" }}\n\
             [models.\"vectors/embed-small\"]\nprice = {{ input = \"0.02\", output = \"0\" }}\n",
            providers.replace("ADDRESS", &address)
        );
        // No database is there: none is needed.
        Self { simulator, program: Program::new(&config, "postgresql://u@127.0.0.1:1/none") }
    }

    /// Exit status, standard output, standard error.
    async fn check(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = self.program.command(&[&["check"], arguments].concat());
        command.env("KEY", KEY).env("OTHER_KEY", OTHER_KEY);
        let output = command.output().await.unwrap();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    async fn online(&self) -> (i32, Vec<Value>) {
        let (code, out, err) = self.check(&["--online", "--format", "json"]).await;
        let told: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
        (code, told["online"].as_array().unwrap().clone())
    }
}

fn provider(name: &str, dialect: &str, path: &str, keys: &str) -> String {
    format!("[providers.{name}]\ndialect = \"{dialect}\"\nbase_url = \"http://ADDRESS/{name}/{path}\"\n{keys}\n")
}

const GOOD: &str = "[providers.good]\ndialect = \"openai\"\nkeys = [\"sk-good-key-123456\"]\n\
                    models.small.price = { input = \"0.15\", output = \"0.60\" }\n\
                    answers = [{ text = \"OK\" }]\n";

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_models_that_work_are_called_once_each_and_their_cost_is_shown() {
    let scenario =
        format!("{GOOD}[providers.vectors]\ndialect = \"openai\"\n[providers.claude]\ndialect = \"anthropic\"\n");
    let providers = [
        provider("good", "openai", "v1", "api_key_env = \"KEY\""),
        provider("vectors", "openai", "v1", ""),
        provider("claude", "anthropic", "v1", "keys = [{ api_key_env = \"KEY\" }, { api_key_env = \"OTHER_KEY\" }]"),
    ]
    .concat();
    let stage = Stage::new(&scenario, &providers, "\"good/small\", \"vectors/embed-small\", \"claude/sonnet\"");
    let (code, out, err) = stage.check(&["--online"]).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("4 of 4 calls answered"), "{out}");
    assert!(!out.contains(KEY) && !err.contains(KEY));
    let calls = stage.simulator.calls(100);
    assert_eq!(calls.len(), 4, "one for each key and model");
    assert!(stage.simulator.verdict().clean);
    let (code, told) = stage.online().await;
    let shown: Vec<(&str, Option<&str>, Option<&str>)> = told
        .iter()
        .map(|call| (call["target"].as_str().unwrap(), call["key"].as_str(), call["class"].as_str()))
        .collect();
    assert_eq!(
        (code, shown),
        (
            0,
            vec![
                ("claude/sonnet", Some("KEY"), None),
                ("claude/sonnet", Some("OTHER_KEY"), None),
                ("good/small", Some("KEY"), None),
                ("vectors/embed-small", None, None),
            ]
        )
    );
    // Two tokens of prompt and one of answer; the price of the other model is not known.
    assert_eq!((&told[2]["cost"], &told[0]["cost"]), (&serde_json::json!(0.000_000_9), &Value::Null));
    // Without the option nothing is called.
    stage.simulator.reset();
    assert_eq!(stage.check(&[]).await.0, 0);
    assert_eq!(stage.simulator.calls(100).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_failure_is_told_in_the_providers_words_and_has_its_exit_status() {
    for (faults, rung, keys, class, code, words) in [
        ("", "good/small", "api_key_env = \"OTHER_KEY\"", "auth", 3, "Incorrect API key"),
        ("", "good/of-tomorrow", "api_key_env = \"KEY\"", "not_found", 3, "does not exist"),
        ("{ kind = \"402\", disguise = 429 }", "good/small", "api_key_env = \"KEY\"", "quota_exhausted", 3, "quota"),
        ("{ kind = \"429\" }", "good/small", "api_key_env = \"KEY\"", "rate_limit", 1, "Rate limit"),
        ("{ kind = \"503\" }", "good/small", "api_key_env = \"KEY\"", "overloaded", 1, ""),
        ("{ kind = \"reset\" }", "good/small", "api_key_env = \"KEY\"", "network", 1, ""),
        ("{ kind = \"garbage\" }", "good/small", "api_key_env = \"KEY\"", "server_error", 1, "not JSON"),
    ] {
        let scenario = format!("{GOOD}faults = [{faults}]\n");
        let stage = Stage::new(&scenario, &provider("good", "openai", "v1", keys), &format!("\"{rung}\""));
        let (status, told) = stage.online().await;
        assert_eq!(told[0]["class"], class, "{faults} {rung}: {told:?}");
        assert_eq!(status, code, "{class}");
        assert!(told[0]["message"].as_str().unwrap().contains(words), "{told:?}");
        let (_, out, _) = stage.check(&["--online"]).await;
        assert!(out.contains(&format!(": {class}")) && out.contains("0 of 1 call answered"), "{out}");
        assert!(!out.contains(OTHER_KEY), "{out}");
        assert!(out.lines().skip_while(|line| !line.starts_with("one call")).all(|line| line.chars().count() <= 80));
        assert_eq!(stage.simulator.calls(100).len(), 2, "nothing is tried again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_is_bounded_and_bad_input_is_refused_before_any_call() {
    let scenario = format!("{GOOD}[providers.deaf]\ndialect = \"openai\"\nfaults = [{{ kind = \"hang\" }}]\n");
    let providers =
        [provider("good", "openai", "v1", "api_key_env = \"KEY\""), provider("deaf", "openai", "v1", "")].concat();
    let stage = Stage::new(&scenario, &providers, "\"good/small\", \"deaf/model\"");
    let (code, out, _) = stage.check(&["--online", "--timeout", "500ms"]).await;
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("no answer within 500ms; --timeout gives it longer"), "{out}");
    assert!(out.contains("1 of 2 calls answered") && out.contains("an unknown amount for 1 call"), "{out}");
    stage.simulator.reset();
    for (arguments, words) in
        [(&["--online", "--timeout", "soon"][..], "expected a duration"), (&["--timeout", "5s"], "--online")]
    {
        let (code, _, err) = stage.check(arguments).await;
        assert!(code == 2 && err.contains(words), "{arguments:?}: {err}");
    }
    let faulty = Stage::new(GOOD, &provider("good", "openai", "v1", "api_key_env = \"NOT_SET\""), "\"good/small\"");
    let (code, out, err) = faulty.check(&["--online"]).await;
    assert_eq!((code, out.as_str()), (3, ""), "{err}");
    assert!(err.contains("NOT_SET"), "{err}");
    assert_eq!(faulty.simulator.calls(100).len() + stage.simulator.calls(100).len(), 0);
}
