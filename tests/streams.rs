//! Answers that are streamed upstream, with the real program against the simulator: they are the same answers as whole
//! ones, a stall is seen within the idle time, and what had come of a broken one is on the ledger.

use crate::support::postgres::{TestDatabase, database};
use crate::support::program::{Program, text};
use serde_json::{Value, json};
use sluice::simulate::{Dialect, Scenario, Simulator};
use sqlx::Row as _;
use std::fmt::Write as _;

const WORDS: &str = "A stream carries words as they are written, and each of them may be the last that comes before \
                     the line goes dead; so what has come is kept, \"quoted\" and with an Ümlaut, and is no answer.";

/// What goes wrong with the first call, and the classes that it may be.
const FAULTS: &[(&str, &[&str])] = &[
    ("cut", &["network"]),
    ("stall", &["timeout"]),
    ("no_end", &["network"]),
    ("error_in_200", &["overloaded", "server_error", "rate_limit"]),
    // A frame with a wrong checksum ends what can be read.
    ("garbage", &["server_error", "network"]),
    ("malformed_json", &["network"]),
];

struct Stage {
    database: TestDatabase,
    program: Program,
    _simulator: Simulator,
}

/// A provider of each dialect, and for each two routes: `whole_…` and `streamed_…`.
async fn stage(more: &str) -> Stage {
    let database = database().await;
    let mut scenario = "markers = true\n".to_owned();
    for dialect in Dialect::ALL {
        let name = dialect.name();
        let output = json!({ "text": WORDS }).to_string().replace("\":\"", "\" = \"");
        write!(scenario, "[providers.{name}]\ndialect = \"{name}\"\noutput = {output}\n").unwrap();
    }
    let simulator = Simulator::start(Scenario::from_toml(&scenario).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
    let mut config = "[http]\nlisten = \"off\"\n".to_owned();
    for dialect in Dialect::ALL {
        let name = dialect.name();
        write!(
            config,
            "[providers.p_{name}]\ndialect = \"{name}\"\nbase_url = \"{}\"\nbreaker = {{ min_calls = 1000 }}\n\
             timeouts = {{ first_byte = \"30s\", idle = \"3s\", total = \"10m\" }}\n\
             [models.\"p_{name}/m\"]\nprice = {{ input = \"1\", output = \"4\" }}\n\
             [routes.whole_{name}]\nrungs = [\"p_{name}/m\"]\n\
             [routes.streamed_{name}]\nrungs = [\"p_{name}/m\"]\nstream = true\n",
            simulator.base_url(name).unwrap()
        )
        .unwrap();
    }
    config.push_str(more);
    let program = Program::new(&config, &database.url());
    Stage { database, program, _simulator: simulator }
}

impl Stage {
    async fn add(&self, route: &str, custom_id: &str, request: &Value) {
        sqlx::query("insert into sluice.job (route, custom_id, request) values ($1, $2, $3)")
            .bind(route)
            .bind(custom_id)
            .bind(request)
            .execute(&self.database.pool())
            .await
            .unwrap();
    }

    async fn drain(&self) {
        let worker = self.program.run(&["worker", "--drain"]).await;
        assert!(worker.status.success(), "{}", text(&worker.stderr));
    }

    /// The answer to a job, without what differs between any two calls.
    async fn response(&self, custom_id: &str) -> String {
        let query = "select response from sluice.results where custom_id = $1";
        let response: Option<Value> =
            sqlx::query_scalar(query).bind(custom_id).fetch_one(&self.database.pool()).await.unwrap();
        let mut response = response.unwrap_or_else(|| panic!("{custom_id} has no answer"));
        let members = response.as_object_mut().unwrap();
        members.remove("id");
        members.remove("created");
        response.to_string()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_answer_is_the_same_to_the_byte_and_what_breaks_off_is_on_the_ledger() {
    let stage = stage("").await;
    let pool = stage.database.pool();
    let kinds = [
        ("plain", json!({"prompt": "One question", "max_tokens": 300})),
        ("capped", json!({"prompt": "Another question", "max_tokens": 16})),
        ("unsure", json!({"prompt": "A third", "max_tokens": 300, "logprobs": true})),
        ("empty", json!({"prompt": "[[fault:empty]] nothing", "max_tokens": 300})),
    ];
    for dialect in Dialect::ALL {
        let name = dialect.name();
        for (kind, request) in &kinds {
            for how in ["whole", "streamed"] {
                stage.add(&format!("{how}_{name}"), &format!("{how}-{kind}-{name}"), request).await;
            }
        }
        for (fault, _) in FAULTS {
            let request = json!({"prompt": format!("{fault} {name} [[faults:{fault},ok]]"), "max_tokens": 300});
            stage.add(&format!("streamed_{name}"), &format!("{fault}-{name}"), &request).await;
        }
    }
    stage.drain().await;

    let mut wrong = Vec::new();
    for dialect in Dialect::ALL {
        let name = dialect.name();
        for (kind, _) in kinds.iter().filter(|(kind, _)| matches!(*kind, "plain" | "unsure")) {
            let whole = stage.response(&format!("whole-{kind}-{name}")).await;
            let streamed = stage.response(&format!("streamed-{kind}-{name}")).await;
            if whole != streamed {
                wrong.push(format!("{name} {kind}:\n{whole}\n{streamed}"));
            }
        }
        // What is rejected is rejected for the same reason, and costs the same.
        let query = "select j.custom_id, a.class, a.detail, a.finish, a.cost_nanos, a.uncertain_nanos, a.usage_source,
                            a.usage::text, a.answer -> 'choices', a.decision -> 'streamed' as streamed
                       from sluice.attempt a join sluice.job j on j.id = a.job_id
                      where j.custom_id like $1 order by j.custom_id, a.number";
        let rows = |like: String| {
            let pool = pool.clone();
            async move { sqlx::query(query).bind(like).fetch_all(&pool).await.unwrap() }
        };
        for (kind, _) in &kinds {
            let told = |row: &sqlx::postgres::PgRow| {
                let texts: Vec<Option<String>> = [1, 2, 3, 6, 7].iter().map(|column| row.get(*column)).collect();
                // An empty answer is an empty text, or no text where the stream has not a single piece.
                let answer = row.get::<Option<Value>, _>(8).filter(|_| *kind != "empty");
                (texts, row.get::<Option<i64>, _>(4), row.get::<i64, _>(5), answer)
            };
            let whole: Vec<_> = rows(format!("whole-{kind}-{name}")).await.iter().map(told).collect();
            let streamed = rows(format!("streamed-{kind}-{name}")).await;
            if whole != streamed.iter().map(told).collect::<Vec<_>>() {
                wrong.push(format!("{name} {kind}: {whole:?}\n{:?}", streamed.iter().map(told).collect::<Vec<_>>()));
            }
            for row in &streamed {
                let said: Option<Value> = row.get("streamed");
                if said != Some(json!({"whole": true})) {
                    wrong.push(format!("{name} {kind}: streamed {said:?}"));
                }
            }
        }
        for (fault, classes) in FAULTS {
            let custom_id = format!("{fault}-{name}");
            stage.response(&custom_id).await;
            wrong.extend(broken(&pool, &custom_id, classes).await.err());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let job: i64 = sqlx::query_scalar("select id from sluice.job where custom_id = 'stall-anthropic'")
        .fetch_one(&pool)
        .await
        .unwrap();
    let story = stage.program.output(&["explain", &job.to_string(), "--answers"]).await;
    for told in [
        "its answer was streamed, and broke off after",
        "its answer was streamed\n",
        "and perhaps up to",
        "what had come of its answer:",
    ] {
        assert!(story.contains(told), "{told}\n{story}");
    }
    assert!(story.contains("worth") && story.contains("A stream carries words"), "{story}");
    let audit = sluice::store::Store::from_pool(pool).audit().await.unwrap();
    assert_eq!(audit.faults(), Vec::<String>::new());
}

/// The first attempt of a job broke off as it should, and the ledger has what had come of it.
async fn broken(pool: &sqlx::PgPool, custom_id: &str, classes: &[&str]) -> Result<(), String> {
    let row = sqlx::query(
        "select a.class, a.message, a.http_status, a.usage_source, a.input_tokens, a.output_tokens, a.cost_nanos,
                a.uncertain_nanos, a.computed_cost_nanos, a.cost_source, a.total_ms, a.first_byte_ms,
                a.answer #>> '{choices,0,message,content}' as words, a.decision #> '{streamed,characters}' as characters
           from sluice.attempt a join sluice.job j on j.id = a.job_id
          where j.custom_id = $1 and a.number = 1",
    )
    .bind(custom_id)
    .fetch_one(pool)
    .await
    .unwrap();
    let class: Option<String> = row.get("class");
    let words: String = row.get::<Option<String>, _>("words").unwrap_or_default();
    let message: Option<String> = row.get("message");
    let source: String = row.get("usage_source");
    let tokens: (i64, i64) = (row.get("input_tokens"), row.get("output_tokens"));
    let (cost, uncertain): (Option<i64>, i64) = (row.get("cost_nanos"), row.get("uncertain_nanos"));
    let computed: Option<i64> = row.get("computed_cost_nanos");
    let told =
        format!("{custom_id}: {class:?} {message:?} {words:?} {source} {tokens:?} {cost:?} {uncertain} {computed:?}");
    let is_right = class.as_deref().is_some_and(|class| classes.contains(&class))
        && !words.is_empty()
        && WORDS.starts_with(&words)
        && row.get::<Option<Value>, _>("characters") == Some(json!(words.chars().count()))
        && row.get::<Option<i16>, _>("http_status") == Some(200)
        && source == "estimated"
        && tokens.0 > 0
        && tokens.1 > 0
        && cost == Some(0)
        && computed.is_some_and(|computed| computed > 0 && computed <= uncertain)
        && row.get::<Option<String>, _>("cost_source").is_none()
        && row.get::<i32, _>("total_ms") < 60_000
        && row.get::<Option<i32>, _>("first_byte_ms").is_some();
    if is_right { Ok(()) } else { Err(told) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_stream_is_left_within_the_idle_time_and_the_next_rung_answers() {
    let stage =
        stage("[routes.chain]\nstrategy = \"priority\"\nrungs = [\"p_openai/m\", \"p_anthropic/m\"]\nstream = true\n")
            .await;
    let request = json!({"prompt": "Well? [[faults@openai:stall,stall,stall]]", "max_tokens": 300});
    stage.add("chain", "one", &request).await;
    // Vectors come whole on the same route.
    stage.add("streamed_openai", "vectors", &json!({"input": ["a", "b"]})).await;
    stage.drain().await;
    let pool = stage.database.pool();
    let rows = sqlx::query(
        "select a.provider, a.class, a.total_ms, a.answer is not null as has_words, a.decision -> 'streamed' as streamed
           from sluice.attempt a join sluice.job j on j.id = a.job_id order by j.custom_id, a.number",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let told: Vec<(String, Option<String>, bool, bool)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(3), row.get::<Option<Value>, _>(4).is_some())).collect();
    let expected = [
        // A timeout is tried once more.
        ("p_openai", Some("timeout"), true, true),
        ("p_openai", Some("timeout"), true, true),
        ("p_anthropic", None, false, true),
        ("p_openai", None, false, false),
    ];
    let expected = expected.map(|(provider, class, has_words, is_streamed)| {
        (provider.to_owned(), class.map(str::to_owned), has_words, is_streamed)
    });
    assert_eq!(told, expected);
    let stalled: i32 = rows[0].get(2);
    assert!((3_000..60_000).contains(&stalled), "idle is 3 s and total ten minutes: {stalled} ms");
    assert!(stage.response("vectors").await.contains("embedding"));
}
