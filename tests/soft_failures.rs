//! Answers that cannot be used, from the simulator through the real program: what each is called, what the job does
//! about it, and what is mended.

use crate::support::fleet::Fleet;
use crate::support::inbox::{Inbox, ok};
use crate::support::program::text;
use crate::support::scripted::{Scripted, answer};
use crate::support::wait::until;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What jobs do, step by step, by the tests of `decide`.
const GAME: &str = include_str!("../src/domain/decide/tests/game.txt");

/// The classes for which routes fall back unless they say otherwise, and all the others.
const ALL_CLASSES: &str = "fallback_on = [\"rate_limit\", \"overloaded\", \"server_error\", \"timeout\", \"network\", \
                           \"auth\", \"permission\", \"not_found\", \"invalid_request\", \"refused\", \
                           \"context_length\", \"content_policy\", \"payload_too_large\", \"never_fits\", \
                           \"output_invalid\", \"soft_failure\"]";

/// Three providers, and a route for each strategy. Nothing that one job meets changes the way of another. A fault
/// strikes where the prompt names its place in `faults` and the provider: its own name would be a word about tokens.
fn stage() -> (String, String) {
    let (mut scenario, mut config) = ("markers = true\nmax_requests = 100000\n".to_owned(), String::new());
    for (name, dialect, path, price) in
        [("p1", "openai", "/v1", 3), ("p2", "anthropic", "/v1", 1), ("p3", "gemini", "/v1beta", 2)]
    {
        let mut rules = String::new();
        for (place, (fault, ..)) in faults().iter().enumerate() {
            let (kind, tokens) = fault.split_once(":tokens=").unwrap_or((fault, "1000"));
            let sign = sign(place, name);
            write!(rules, "{{ kind = \"{kind}\", tokens = {tokens}, containing = \"{sign}\" }}, ").unwrap();
        }
        writeln!(scenario, "[providers.{name}]\ndialect = \"{dialect}\"\nfaults = [{rules}{MORE}]").unwrap();
        writeln!(
            config,
            "[providers.{name}]\ndialect = \"{dialect}\"\nbase_url = \"http://simulator/{name}{path}\"\n\
             breaker = {{ min_calls = 100000 }}\n\
             [models.\"{name}/m\"]\nprice = {{ input = \"{price}\", output = \"{price}\" }}"
        )
        .unwrap();
    }
    for (route, more) in [("priority", "validate.stuck_answer = true\n"), ("cost", ""), ("streamed", "stream = true\n")]
    {
        let strategy = if route == "cost" { "cost" } else { "priority" };
        writeln!(
            config,
            "[routes.{route}]\nrungs = [\"p1/m\", \"p2/m\", \"p3/m\"]\nstrategy = \"{strategy}\"\n\
             max_attempts = 6\npatience = \"10m\"\n{ALL_CLASSES}\n{more}\
             validate.language = [\"en\"]\nvalidate.served = \"asked\"\nvalidate.raise_cap = \"always\""
        )
        .unwrap();
    }
    (scenario, config)
}

/// Turns that stay empty until the model is asked to go on, and tokens of the template.
const MORE: &str = "{ kind = \"empty_turn\", matching = \"an empty turn$\" }, \
                    { kind = \"run_on\", containing = \"goes on\" }";

/// What a prompt says to meet a fault at a provider.
fn sign(place: usize, provider: &str) -> String {
    format!("({place} at {provider})")
}

/// A fault of the simulator, the row of the game table that it plays, and what its request has beside the prompt.
fn faults() -> Vec<(&'static str, &'static str, Value)> {
    let schema = json!({ "type": "object", "properties": { "label": { "type": "string" } }, "required": ["label"],
                         "additionalProperties": false });
    let formed =
        json!({ "response_format": { "type": "json_schema", "json_schema": { "name": "a", "schema": schema } } });
    let tools = json!({ "tools": [{ "type": "function", "function": { "name": "look", "parameters": {} } }] });
    let capped = json!({ "max_tokens": 256 });
    vec![
        ("500", "server_error", json!({})),
        ("504", "timeout", json!({})),
        ("context_length", "context_length", json!({})),
        ("413", "payload_too_large", json!({})),
        ("empty", "soft_failure empty", json!({})),
        ("refusal_text", "soft_failure refusal", json!({})),
        ("loop", "soft_failure repetition", json!({})),
        ("control_tokens", "soft_failure control_tokens", json!({})),
        ("other_language", "wrong_language, named: mended", json!({})),
        ("other_model", "soft_failure other_model", json!({})),
        ("prompt_cut", "soft_failure prompt_cut", json!({ "long": true })),
        ("broken_json", "not_json, named: mended", formed.clone()),
        ("echoed_schema", "schema_mismatch, named: mended", formed),
        ("written_call", "bad_tool_call, named: mended", tools),
        ("reasoning", "reasoning_exhausted, raised: whole", capped.clone()),
        ("reasoning:tokens=100000", "reasoning_exhausted, raised: the same", capped.clone()),
        ("cut_stop", "truncated, raised: the same", capped),
    ]
}

/// The steps of a row of the table without waits: the rungs that are called, and whether the job succeeds.
fn expected(row: &str, troubled: usize) -> String {
    let line = GAME.lines().find(|line| line.strip_prefix(row).is_some_and(|rest| rest.starts_with(" | in turn | ")));
    let line = line.unwrap_or_else(|| panic!("no row {row:?}"));
    let steps = line.split(" | ").nth(1 + troubled).unwrap();
    steps.chars().filter(|sign| sign.is_ascii_digit() || matches!(sign, '+' | '-')).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_go_along_the_rungs_as_the_game_table_says() {
    let (scenario, config) = stage();
    let fleet = Fleet::new(&scenario, &config).await;
    let mut asked: Vec<(String, &str, &str, usize)> = Vec::new();
    for route in ["priority", "cost"] {
        // The order in which it tries the rungs.
        let order = if route == "cost" { ["p2", "p3", "p1"] } else { ["p1", "p2", "p3"] };
        for (place, (fault, row, more)) in faults().into_iter().enumerate() {
            for troubled in 1..=3_usize {
                let mut prompt = format!("{route}, {troubled}: ");
                for rung in &order[..troubled] {
                    prompt += &sign(place, rung);
                }
                let name = format!("{route} {fault} {troubled}");
                let mut request = more.clone();
                if request.as_object_mut().unwrap().remove("long").is_some() {
                    prompt.insert_str(0, &"many words, ".repeat(600));
                }
                request["prompt"] = prompt.into();
                sqlx::query("insert into sluice.job (route, custom_id, request) values ($1, $2, $3)")
                    .bind(route)
                    .bind(&name)
                    .bind(request)
                    .execute(&fleet.pool)
                    .await
                    .unwrap();
                asked.push((name, route, row, troubled));
            }
        }
    }
    let output = fleet.program(&["worker", "--drain"]).output().await.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut wrong = Vec::new();
    for (name, route, row, troubled) in asked {
        let query = "select coalesce(string_agg(right(a.provider, 1), '' order by a.number), ''), r.state::text
                       from sluice.job j join sluice.attempts a on a.job_id = j.id
                            join sluice.results r on r.job_id = j.id
                      where j.custom_id = $1 group by r.state";
        let (called, state): (String, String) = sqlx::query_as(query).bind(&name).fetch_one(&fleet.pool).await.unwrap();
        let place = |rung: char| match (route, rung) {
            ("cost", '2') => '1',
            ("cost", '3') => '2',
            ("cost", _) => '3',
            (_, rung) => rung,
        };
        let mut steps: String = called.chars().map(place).collect();
        steps.push(if state == "succeeded" { '+' } else { '-' });
        if steps != expected(row, troubled) {
            wrong.push(format!("{name}: {steps}, and the table has {}", expected(row, troubled)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_mended_is_mended_and_the_answer_as_it_came_is_kept() {
    let (scenario, config) = stage();
    let fleet = Fleet::new(&scenario, &config).await;
    for route in ["priority", "streamed"] {
        for fault in ["think", "run_on", "fenced_json", "empty_turn"] {
            let prompt = match fault {
                "run_on" => format!("{route} goes on"),
                "empty_turn" => format!("{route} has an empty turn"),
                _ => format!("{route} [[fault:{fault}]]"),
            };
            let mut request = json!({ "prompt": prompt });
            if fault == "fenced_json" {
                request["response_format"] = json!({ "type": "json_object" });
            }
            sqlx::query("insert into sluice.job (route, custom_id, request) values ($1, $2, $3)")
                .bind(route)
                .bind(format!("{route} {fault}"))
                .bind(request)
                .execute(&fleet.pool)
                .await
                .unwrap();
        }
    }
    // One text for all: the first four may be right by chance.
    for question in 0..7 {
        sqlx::query("insert into sluice.job (route, custom_id, request) values ('priority', 'stuck', $1)")
            .bind(json!({ "prompt": format!("Question {question} [[fault@p1:stuck]]") }))
            .execute(&fleet.pool)
            .await
            .unwrap();
    }
    let output = fleet.program(&["worker", "--drain"]).output().await.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let failed = "select count(*) from sluice.results where state <> 'succeeded'";
    assert_eq!(fleet.number(failed).await, 0);
    for route in ["priority", "streamed"] {
        for (fault, note, residue) in [
            ("think", "reasoning before the answer was cut off", "<think>"),
            ("run_on", "turns that are none of its answer were cut off", "<|im_start|>"),
            ("fenced_json", "text around the JSON was taken off", "```"),
        ] {
            let query = "select a.notes::text, r.response::text, a.answer::text, r.attempts
                           from sluice.job j join sluice.attempts a on a.job_id = j.id
                                join sluice.results r on r.job_id = j.id
                          where j.custom_id = $1";
            let (notes, response, original, attempts): (String, String, String, i16) =
                sqlx::query_as(query).bind(format!("{route} {fault}")).fetch_one(&fleet.pool).await.unwrap();
            assert_eq!(attempts, 1, "{route} {fault}");
            assert!(notes.contains(note), "{route} {fault}: {notes}");
            let content = |text: &str| {
                let answer: Value = serde_json::from_str(text).unwrap();
                answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
            };
            assert!(!content(&response).contains(residue) && content(&original).contains(residue), "{route} {fault}");
        }
        // OpenAI's word for the end is not Anthropic's: the next rung is asked, and there the model is asked to go on.
        let query = "select array_agg(provider order by number), array_agg(reask_of order by number)
                       from sluice.attempts a join sluice.job j on j.id = a.job_id where j.custom_id = $1";
        let (providers, named): (Vec<String>, Vec<Option<i16>>) =
            sqlx::query_as(query).bind(format!("{route} empty_turn")).fetch_one(&fleet.pool).await.unwrap();
        assert_eq!((providers, named), (vec!["p1".into(), "p2".into(), "p2".into()], vec![None, None, Some(2)]));
    }
    assert_eq!(fleet.number("select count(*) from sluice.attempts where detail = 'stuck_answer'").await, 3);
    let log = text(&output.stderr) + &text(&output.stdout);
    assert_eq!(log.matches("had the very same answer").count(), 1, "{log}");
}

/// Long enough to be no label.
const SAME: &str = "The mill pond was full this morning, so the miller opened the gate a little earlier than usual. By \
                    noon the stones had ground forty sacks of rye, and the water in the race stood so low that the \
                    wheel came to rest. He closed the gate and went home.";

/// Enqueues a question for each of these numbers.
async fn ask(fleet: &Fleet, route: &str, numbers: Range<i32>) {
    sqlx::query(
        "insert into sluice.job (route, request)
              select $1, jsonb_build_object('prompt', 'Question ' || n) from generate_series($2, $3 - 1) n",
    )
    .bind(route)
    .bind(numbers.start)
    .bind(numbers.end)
    .execute(&fleet.pool)
    .await
    .unwrap();
}

/// A target, as `sluice status` shows it, and all that it tells people.
async fn status_of(fleet: &Fleet, target: &str) -> (Value, String) {
    let shown =
        async |format: &str| text(&fleet.program(&["status", "--format", format]).output().await.unwrap().stdout);
    let status: Value = serde_json::from_str(&shown("json").await).unwrap();
    let targets = status["targets"].as_array().cloned().unwrap_or_default();
    let told = shown("table").await.split_whitespace().collect::<Vec<_>>().join(" ");
    (targets.into_iter().find(|it| it["target"] == target).unwrap_or_default(), told)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_says_the_same_to_everybody_is_told_of_and_left_by_routes_that_mind() {
    let is_stuck = Arc::new(AtomicBool::new(true));
    let stuck = Arc::clone(&is_stuck);
    let main = Scripted::start(move |call, _| {
        if stuck.load(Ordering::Relaxed) { answer(SAME) } else { answer(&format!("{}: {SAME}", call.prompt())) }
    })
    .await;
    let inbox = Inbox::start(|_, _| ok()).await;
    let at_once = "rungs = [\"main/m\", \"two/m\"]\nstrategy = \"priority\"\npatience = \"0s\"\nreask = false\n";
    let config = |max_in_flight: u32| {
        format!(
            "[worker]\nmax_in_flight = {max_in_flight}\n\
             [providers.main]\ndialect = \"openai\"\nbase_url = \"{}\"\n\
             breaker = {{ min_calls = 3, failure_rate = 0.9, open = \"1h\" }}\n\
             [providers.two]\ndialect = \"openai\"\nbase_url = \"http://simulator/two/v1\"\n\
             [models.\"main/m\"]\nprice = {{ input = \"1\", output = \"2\" }}\n\
             [models.\"two/m\"]\nprice = {{ input = \"1\", output = \"2\" }}\n\
             [routes.lax]\n{at_once}[routes.strict]\n{at_once}validate.stuck_answer = true\n\
             [alerts]\nevery = \"1s\"\nclear = \"1s\"\n\
             [alerts.receivers.ops]\nurl = \"{}\"\nrules = [\"stuck_answer\"]\n",
            main.base_url("main"),
            inbox.url("/")
        )
    };
    let scenario = "[providers.two]\ndialect = \"openai\"\nmodels.m.price = { input = \"1\", output = \"2\" }\n";
    let fleet = Fleet::new(scenario, &config(4)).await;
    let worker = fleet.start();

    // Where nobody minds the answers are used, and everybody is told.
    ask(&fleet, "lax", 0..7).await;
    fleet.until_answered(7).await;
    let noted = "select count(*) from sluice.attempts
                  where provider = 'main' and accepted
                    and notes::text like '%different requests lately had this very answer%'";
    assert_eq!(fleet.number(noted).await, 3, "the first four may be right by chance");
    until("the status tells of it", async || {
        let (target, told) = status_of(&fleet, "main/m").await;
        target["stuck_answer"]["requests"] == 7
            && told.contains("main/m: 7 different requests lately had the very same answer, word by word")
    })
    .await;
    let rule = BTreeSet::from(["stuck_answer".to_owned()]);
    inbox.until_told("alert.firing", &rule).await;
    let letter = inbox.taken().remove(0);
    assert_eq!(letter.data("key"), "stuck_answer:main/m");
    assert!(letter.data("summary").contains("the same answer, word by word, to different requests"), "{}", letter.text);

    // What was seen outlives a change of something else.
    fleet.configure(&config(3));
    worker.signal(Signal::HUP);
    worker.until_said("the configuration was read again and is in force", 1).await;
    ask(&fleet, "lax", 7..8).await;
    fleet.until_answered(8).await;
    until("it goes on", async || status_of(&fleet, "main/m").await.0["stuck_answer"]["requests"] == 8).await;

    // Where it is minded the answers are rejected, and soon the target is passed over.
    ask(&fleet, "strict", 20..32).await;
    fleet.until_answered(20).await;
    let rejected = "select count(*) from sluice.attempts where provider = 'main' and detail = 'stuck_answer'";
    let rejected = fleet.number(rejected).await;
    assert!((3..=5).contains(&rejected), "three, and those that were under way: {rejected}");
    let by_two = "select count(*) from sluice.results where route = 'strict' and provider = 'two'";
    assert_eq!(fleet.number(by_two).await, 12);
    let passed = "select count(*) from sluice.attempts
                   where provider = 'two' and decision->'skipped'->0->>'why' = 'quality'
                     and decision->'skipped'->0->>'found' like '%answers were rejected (stuck_answer %'";
    assert_eq!(fleet.number(passed).await, 12 - rejected);
    until("the status says so", async || {
        let (target, told) = status_of(&fleet, "main/m").await;
        target["passed_over"][0]["route"] == "strict" && told.contains("main/m: passed over on route strict")
    })
    .await;

    // Ten other answers in a row end it.
    is_stuck.store(false, Ordering::Relaxed);
    ask(&fleet, "lax", 40..50).await;
    fleet.until_answered(30).await;
    inbox.until_told("alert.resolved", &rule).await;
    inbox.has_nothing_double();
    assert!(status_of(&fleet, "main/m").await.0["stuck_answer"].is_null());
    worker.stop().await;
    fleet.books_are_in_order(30).await;
}
