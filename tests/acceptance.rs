//! A run over seven rungs on which everything goes wrong: every job for which an acceptable answer is to be had gets
//! one. What that costs in waste is compared with the same run without fallback, and with plain retries alone.

use crate::support::fleet::Fleet;
use crate::support::program::text;
use serde_json::json;
use sluice::store::Store;
use std::fmt::Write as _;

/// The dialects of the rungs, from the cheapest to the dearest, each with the end of its address.
const RUNGS: [(&str, &str); 7] = [
    ("ollama", ""),
    ("openai", "/v1"),
    ("gemini", "/v1beta"),
    ("cohere", "/v2"),
    ("openai_responses", "/v1"),
    ("bedrock", ""),
    ("anthropic", "/v1"),
];

/// What happens on every rung, each to this share of its calls.
const FAULTS: [(&str, f64); 44] = [
    ("rate_limit", 0.02),
    ("500", 0.01),
    ("502", 0.01),
    ("overloaded", 0.02),
    ("timeout", 0.005),
    ("payload_too_large", 0.005),
    ("context_length", 0.01),
    ("content_policy", 0.01),
    ("invalid_request", 0.005),
    ("hang", 0.002),
    ("reset", 0.01),
    ("html_502", 0.01),
    ("cut", 0.01),
    ("stall", 0.002),
    ("no_end", 0.01),
    ("empty", 0.02),
    ("no_choices", 0.01),
    ("error_in_200", 0.01),
    ("truncated", 0.02),
    ("content_filter", 0.01),
    ("refusal", 0.01),
    ("refusal_text", 0.01),
    ("malformed_json", 0.01),
    ("html", 0.01),
    ("garbage", 0.01),
    ("no_usage", 0.01),
    ("auth", 0.002),
    ("permission", 0.002),
    ("no_capacity", 0.01),
    ("slow", 0.01),
    ("slow_drip", 0.01),
    ("wrong_usage", 0.01),
    ("huge_body", 0.002),
    ("loop", 0.01),
    ("reasoning", 0.02),
    ("cut_stop", 0.01),
    ("think", 0.02),
    ("control_tokens", 0.01),
    ("run_on", 0.01),
    ("other_language", 0.01),
    ("other_model", 0.01),
    ("prompt_cut", 0.01),
    ("stuck", 0.01),
    ("empty_turn", 0.01),
];

/// What goes wrong only with answers in JSON.
const FAULTS_OF_JSON: [(&str, f64); 4] =
    [("fenced_json", 0.05), ("broken_json", 0.03), ("wrong_json", 0.05), ("echoed_schema", 0.05)];

/// What goes wrong only where functions are offered.
const FAULTS_OF_TOOLS: [(&str, f64); 1] = [("written_call", 0.1)];

/// What a fault takes along.
const PARAMETERS: [(&str, &str); 4] = [
    ("rate_limit", ", wait = \"200ms\""),
    ("slow", ", delay = \"300ms\""),
    ("slow_drip", ", interval = \"5ms\""),
    ("huge_body", ", bytes = 6000000"),
];

/// What the providers do. Those that are away for long come back in the end: a job that all others have refused has no
/// other rung.
fn scenario(jobs: i64) -> String {
    let back = 5 + jobs / 400;
    let mut scenario = "markers = true\nmax_requests = 1000000\n".to_owned();
    for (index, (dialect, _)) in RUNGS.iter().enumerate() {
        let price = index + 1;
        // One is away for a moment, the money of one ends for a while, one has no such model for a while.
        let more = match index {
            1 => "{ kind = \"overloaded\", from = 3, until = 8 }, ".to_owned(),
            2 => format!("{{ kind = \"out_of_quota\", from = 2, until = {back} }}, "),
            3 => format!("{{ kind = \"not_found\", from = 1, until = {back} }}, "),
            _ => String::new(),
        };
        let rule = |(kind, rate): &(&str, f64), of: &str| {
            let with = PARAMETERS.iter().find(|(name, _)| name == kind).map_or("", |(_, with)| with);
            format!("{{ kind = \"{kind}\", rate = {rate}{with}{of} }}, ")
        };
        let mut faults = more;
        faults.extend(FAULTS_OF_JSON.iter().map(|fault| rule(fault, ", containing = \"as JSON\"")));
        faults.extend(FAULTS_OF_TOOLS.iter().map(|fault| rule(fault, ", containing = \"as a call\"")));
        faults.extend(FAULTS.iter().map(|fault| rule(fault, "")));
        writeln!(
            scenario,
            "[providers.p{index}]\ndialect = \"{dialect}\"\nlatency = {{ uniform = [\"2ms\", \"20ms\"] }}\n\
             models.m.price = {{ input = \"{price}\", output = \"{price}\" }}\nfaults = [{faults}]"
        )
        .unwrap();
    }
    scenario
}

/// The configuration, with these further lines of the routes, and these further rules for answers.
fn config(lines: &str, rules: &str) -> String {
    let mut config = "[worker]\nmax_in_flight = 200\n".to_owned();
    for (index, (dialect, path)) in RUNGS.iter().enumerate() {
        let price = index + 1;
        writeln!(
            config,
            "[providers.p{index}]\ndialect = \"{dialect}\"\nbase_url = \"http://simulator/p{index}{path}\"\n\
             timeouts = {{ first_byte = \"1500ms\", idle = \"1500ms\", total = \"20s\" }}\n\
             recheck = \"250ms\"\nbreaker = {{ open = \"1s\" }}\n\
             [models.\"p{index}/m\"]\nprice = {{ input = \"{price}\", output = \"{price}\" }}"
        )
        .unwrap();
    }
    let names: Vec<String> = (0..RUNGS.len()).map(|index| format!("\"p{index}/m\"")).collect();
    for (route, stream) in [("default", false), ("streamed", true)] {
        writeln!(
            config,
            "[routes.{route}]\nrungs = [{}]\npatience = \"0s\"\nmax_tokens = 200\nstream = {stream}\n\
             validate = {{ language = [\"en\"], served = \"asked\", stuck_answer = true{rules} }}\n{lines}",
            names.join(", ")
        )
        .unwrap();
    }
    config
}

/// The usual failures, and a policy that another provider may not have.
const ANY: &str = "max_attempts = 40\nfallback_on = [\"rate_limit\", \"ramp_limit\", \"quota_exhausted\", \
                   \"overloaded\", \"server_error\", \"timeout\", \"network\", \"auth\", \"permission\", \
                   \"not_found\", \"invalid_request\", \"refused\", \"context_length\", \"content_policy\", \
                   \"payload_too_large\", \"never_fits\", \"output_invalid\", \"soft_failure\"]";

/// Each job draws one of the rungs, and never leaves it.
const EVENLY: &str = "strategy = \"weighted\"\nfallback = \"never\"\nweights = { \"p0/m\" = 1, \"p1/m\" = 1, \
                      \"p2/m\" = 1, \"p3/m\" = 1, \"p4/m\" = 1, \"p5/m\" = 1, \"p6/m\" = 1 }\n";

/// What came of a run.
#[derive(Debug)]
struct Outcome {
    answered: i64,
    failed: i64,
    calls: i64,
    /// Micro-dollars, and those of them that brought no answer.
    cost: i64,
    waste: i64,
}

impl Outcome {
    fn line(&self, name: &str, jobs: i64) -> String {
        #[expect(clippy::cast_precision_loss, reason = "shares of small numbers")]
        let share = |part: i64, whole: i64| 100.0 * part as f64 / whole.max(1) as f64;
        format!(
            "{name}: {} of {jobs} answered ({:.2} %), {:.2} calls a job, {} micro-dollars, {:.1} % of them wasted, \
             {:.1} an answer",
            self.answered,
            share(self.answered, jobs),
            share(self.calls, jobs) / 100.0,
            self.cost,
            share(self.waste, self.cost),
            share(self.cost, self.answered) / 100.0
        )
    }
}

/// One job in so many has no answer anywhere: each provider refuses its request.
const HOPELESS: i64 = 100;

async fn run(jobs: i64, lines: &str, rules: &str) -> Outcome {
    let fleet = Fleet::new(&scenario(jobs), &config(lines, rules)).await;
    sqlx::query(
        "insert into sluice.job (batch, custom_id, route, request)
              select 'b', 'c' || n, case when n % 3 = 0 then 'streamed' else 'default' end,
                     case when n % $2 = 0
                          then jsonb_build_object('prompt', '[[fault:invalid_request]] question ' || n)
                          when n % 8 in (0, 4)
                          then jsonb_build_object('prompt', 'question ' || n || ' as JSON',
                                                  'response_format', '{\"type\": \"json_object\"}'::jsonb)
                          when n % 8 in (2, 6)
                          then jsonb_build_object('prompt', 'question ' || n || ' as JSON', 'response_format', $3)
                          when n % 8 = 5
                          then jsonb_build_object('prompt', 'question ' || n || ' as a call', 'tools', $4)
                          when n % 8 = 7
                          then jsonb_build_object('prompt', repeat('word and word, ', 400) || 'question ' || n)
                          else jsonb_build_object('prompt', 'question ' || n) end
                from generate_series(1, $1) n",
    )
    .bind(jobs)
    .bind(HOPELESS)
    .bind(json!({ "type": "json_schema", "json_schema": { "name": "a", "strict": true, "schema": {
        "type": "object", "properties": { "label": { "enum": ["good", "bad"] }, "sure": { "type": "boolean" } },
        "required": ["label", "sure"], "additionalProperties": false } } }))
    .bind(json!([{ "type": "function", "function": { "name": "look_up", "parameters": { "type": "object",
        "properties": { "question": { "type": "string" } } } } }]))
    .execute(&fleet.pool)
    .await
    .unwrap();
    let output = fleet.program(&["worker", "--drain"]).output().await.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let audit = Store::from_pool(fleet.pool.clone()).audit().await.unwrap();
    assert_eq!((audit.faults(), audit.jobs), (Vec::new(), jobs));
    let number = async |query: &'static str| fleet.number(query).await;
    Outcome {
        answered: number("select count(*) from sluice.results where state = 'succeeded'").await,
        failed: number("select count(*) from sluice.results where state = 'failed'").await,
        calls: number("select count(*) from sluice.attempts").await,
        cost: number("select coalesce(sum(cost) * 1e6, 0)::bigint from sluice.attempts").await,
        waste: number("select coalesce(sum(cost) filter (where not accepted) * 1e6, 0)::bigint from sluice.attempts")
            .await,
    }
}

/// Every job for which an answer is to be had.
fn all_but_the_hopeless(jobs: i64) -> i64 {
    jobs - jobs / HOPELESS
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_wrong_each_job_is_answered_for_which_an_answer_is_to_be_had() {
    const JOBS: i64 = 300;
    let outcome = run(JOBS, ANY, "").await;
    assert_eq!((outcome.answered, outcome.failed), (all_but_the_hopeless(JOBS), JOBS / HOPELESS), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: make acceptance"]
async fn acceptance_and_waste_with_fallback_without_it_and_with_plain_retries() {
    let jobs = std::env::var("SLUICE_ACCEPTANCE_JOBS").map_or(20_000, |jobs| jobs.parse().unwrap());
    let mut outcomes = Vec::new();
    for (name, lines, rules) in [
        ("with fallback", ANY.to_owned(), ""),
        // The same jobs, providers and faults. Each job keeps to one of the seven rungs.
        // What a rung can never answer well it is asked eight times: more only takes hours of rests between them.
        ("without fallback", format!("{EVENLY}max_attempts = 8"), ""),
        ("three plain tries", format!("{EVENLY}max_attempts = 3\nreask = false"), ", raise_cap = \"never\""),
    ] {
        let outcome = run(jobs, &lines, rules).await;
        eprintln!("{}", outcome.line(name, jobs));
        outcomes.push(outcome);
    }
    let [all, alone, plain]: [Outcome; 3] = outcomes.try_into().unwrap();
    assert_eq!(all.answered, all_but_the_hopeless(jobs), "{all:?}");
    assert!(all.waste * 2 < all.cost, "half of the money at most is wasted: {all:?}");
    assert!(plain.answered < alone.answered && alone.answered < all.answered, "{plain:?} {alone:?} {all:?}");
}
