//! "Why is nothing moving?" has one answer: every face gives the same one, for any reason and wherever the job waits.

use crate::support::postgres::{TestDatabase, database};
use crate::support::program::{Program, text};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};

/// A job that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Among those that a worker may take.
    Ready,
    /// Parked, for this very reason.
    Parked,
    /// Parked for something else, and due.
    Due,
}

/// A reason, how it comes about, and the words about it.
struct Case {
    /// What it is called here, and is done to bring it about.
    name: &'static str,
    sql: &'static str,
    /// What the worker that runs says of itself; `None`: none runs.
    stats: Option<Value>,
    places: &'static [Place],
    code: &'static str,
    /// Parts of the sentence.
    words: &'static [&'static str],
    /// What the doctor makes of it: a person has to do something, or not.
    doctor: &'static str,
}

const EVERYWHERE: &[Place] = &[Place::Ready, Place::Parked, Place::Due];

/// A worker that has the route, of which it says this.
fn says(waits: &Value, gate: &Value) -> Value {
    json!({
        "version": 2, "routes": ["default"], "patience": {"default": 600}, "waits": {"default": waits}, "gate": gate,
    })
}

/// The target of the route, shut for a reason.
fn shut(reason: &str, said: &str) -> Value {
    json!({
        "buckets": [{"name": "main", "rates": [{"limit": "requests/min", "held": 0, "headroom": 0}]}],
        "targets": [{
            "target": "main/m", "bucket": "main", "said": said,
            "shut": {"reason": reason, "since_ms": 1_780_000_000_000_i64},
        }],
        "keys": [{
            "provider": "main", "key": "MAIN_KEY", "state": "out", "said": "HTTP 401: “wrong key”",
            "shut": {"reason": "auth", "since_ms": 1_780_000_000_000_i64},
        }],
    })
}

fn cases() -> Vec<Case> {
    let idle = || Some(json!({"version": 2, "routes": ["default"], "waits": {}}));
    let waits = |code: &str, stuck: &[&str]| json!({"for": code, "stuck": stuck, "until_ms": 1_900_000_000_000_i64});
    let target = |name, code: &'static str, reason: &str, words, doctor| Case {
        name,
        sql: "",
        stats: Some(says(
            &waits(code, if doctor == "warning" { &["main/m"] } else { &[] }),
            &shut(reason, "HTTP 404: “no m”"),
        )),
        // A job that is due waits for what ready ones wait for.
        places: EVERYWHERE,
        code,
        words,
        doctor,
    };
    vec![
        Case {
            name: "no worker",
            sql: "",
            stats: None,
            places: EVERYWHERE,
            code: "no worker",
            words: &["no worker is running"],
            doctor: "bad",
        },
        Case {
            name: "a worker on other batches",
            sql: "",
            stats: Some(json!({"version": 2, "routes": ["default"], "waits": {}, "only_batch": "other"})),
            places: EVERYWHERE,
            code: "no worker",
            words: &["no worker is running that takes it: 1 worker is stopping or on other batches alone"],
            doctor: "warning",
        },
        Case {
            name: "unknown route",
            sql: "",
            stats: Some(json!({"version": 2, "routes": ["other"], "waits": {}})),
            places: EVERYWHERE,
            code: "no worker knows the route",
            words: &["no worker that is running has the route default; they have other"],
            doctor: "warning",
        },
        Case {
            name: "paused route",
            sql: "select sluice.pause('route', 'default', reason => 'until the meeting')",
            stats: idle(),
            places: EVERYWHERE,
            code: "route paused",
            words: &["route default is paused by ", " since ", ": until the meeting"],
            doctor: "warning",
        },
        Case {
            name: "paused project",
            sql: "select sluice.pause('project', 'p', reason => 'not paid')",
            stats: idle(),
            places: EVERYWHERE,
            code: "project paused",
            words: &["project p is paused by ", " since ", ": not paid"],
            doctor: "warning",
        },
        Case {
            name: "paused batch",
            sql: "select sluice.pause('batch', 'b', reason => 'too dear')",
            stats: idle(),
            places: EVERYWHERE,
            code: "batch paused",
            words: &["batch b is paused by ", " since ", ": too dear"],
            doctor: "warning",
        },
        Case {
            name: "paused provider",
            sql: "select sluice.pause('provider', 'main', reason => 'its invoice')",
            ..target(
                "",
                "main/m: paused (nowhere else to go)",
                "paused",
                &["main/m: its provider is paused by ", " since ", ": its invoice", "; nowhere else to go"],
                "warning",
            )
        },
        target(
            "dead key",
            "main/m: auth (nowhere else to go)",
            "auth",
            &["main/m: no key is in service: MAIN_KEY was rejected ", "(HTTP 401: “wrong key”)"],
            "warning",
        ),
        target(
            "unknown model",
            "main/m: model (nowhere else to go)",
            "model",
            &["main/m: the model is unknown, or not allowed to the key (HTTP 404: “no m”)"],
            "warning",
        ),
        target(
            "limit",
            "main/m: rate_limit (nowhere else to go)",
            "rate_limit",
            &["main/m: its limit is used up (main: requests/min)"],
            "ok",
        ),
        target(
            "breaker",
            "main/m: breaker_open (nowhere else to go)",
            "breaker_open",
            &["main/m: its breaker is open after failures"],
            "ok",
        ),
        target(
            "health probe",
            "main/m: health_probe (nowhere else to go)",
            "health_probe",
            &["main/m: its provider's health probe fails (HTTP 404: “no m”) since "],
            "ok",
        ),
        target(
            "patience",
            "main/m: rate_limit (within patience)",
            "rate_limit",
            &["main/m: its limit is used up (main: requests/min)", "it waits for this rung "],
            "ok",
        ),
        Case {
            name: "a budget",
            sql: "select sluice.set_budget('news', 1, per => 'once', project => 'p');
                  insert into sluice.budget_window (budget, starts_at, spent_nanos)
                       values ('news', '1970-01-01 00:00:00+00', 1000000000)
                  on conflict (budget, starts_at) do update set spent_nanos = excluded.spent_nanos",
            stats: idle(),
            places: EVERYWHERE,
            code: "budget news",
            words: &["the budget news has no room: $1.00 of $1.00 is spent; it counts once"],
            doctor: "warning",
        },
        Case {
            name: "scheduled",
            sql: "",
            stats: idle(),
            places: &[Place::Parked],
            code: "scheduled",
            words: &["scheduled for "],
            doctor: "ok",
        },
    ]
}

struct Stage {
    pool: PgPool,
    program: Program,
    _database: TestDatabase,
}

impl Stage {
    async fn run(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&self.pool).await.unwrap();
    }

    /// One job in this place, while this is so.
    async fn set(&self, case: &Case, place: Place) -> i64 {
        self.run(
            "delete from sluice.worker; delete from sluice.pause; delete from sluice.budget;
             delete from sluice.budget_window;
             select sluice.cancel(id) from sluice.jobs where state = 'queued'",
        )
        .await;
        let insert = "insert into sluice.job (request, project, batch, deadline)
                           values ('{\"prompt\": \"x\"}', 'p', 'b', now() + interval '1 day') returning id";
        let job: i64 = sqlx::query_scalar(insert).fetch_one(&self.pool).await.unwrap();
        let rests = match place {
            Place::Ready => None,
            // What holds up a whole route, batch or project says so of jobs that rest for a target, too.
            Place::Parked if case.code.starts_with("main/m") || case.code == "scheduled" => Some((case.code, "1 h")),
            Place::Parked => Some(("main/m: breaker_open (nowhere else to go)", "1 h")),
            Place::Due => Some(("main/m: retry", "-1 s")),
        };
        if let Some((reason, after)) = rests {
            self.run(&format!(
                "insert into sluice.parked (job_id, run_at, flow, prio, attempts, crashes, round, reason)
                      select job_id, now() + interval '{after}', flow, prio, attempts, crashes, round, '{reason}'
                        from sluice.ready;
                 delete from sluice.ready"
            ))
            .await;
        }
        if let Some(stats) = &case.stats {
            self.run(&format!(
                "insert into sluice.worker (host, pid, version, lease_until, stats)
                      values ('h', 1, '1', now() + interval '1 h', '{stats}')"
            ))
            .await;
        }
        self.run(case.sql).await;
        job
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let said = self.program.run(&[arguments, &["--format", "json"]].concat()).await;
        serde_json::from_slice(&said.stdout).unwrap_or_else(|_| panic!("{arguments:?}: {}", text(&said.stderr)))
    }

    /// The first line of `watch`, which is what the bar of `run` says, too.
    async fn watched(&self) -> Value {
        use tokio::io::{AsyncBufReadExt as _, BufReader};
        let mut watch = self.program.command(&["watch", "b", "--format", "json"]).spawn().unwrap();
        let line = BufReader::new(watch.stdout.take().unwrap()).lines().next_line().await.unwrap().unwrap();
        let _ = watch.kill().await;
        serde_json::from_str(&line).unwrap()
    }
}

/// The sentence without what passes between two looks.
fn without_times(words: &str) -> String {
    let digits = words.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect::<String>();
    let mut words = digits;
    while words.contains("99") {
        words = words.replace("99", "9");
    }
    for unit in ["9h 9m", "9m 9s", "9h", "9m", "9s"] {
        words = words.replace(unit, "TIME");
    }
    words
}

#[tokio::test(flavor = "multi_thread")]
async fn every_face_gives_the_same_reason_wherever_the_job_waits() {
    let database = database().await;
    let program = Program::new("[http]\nlisten = \"off\"\n", &database.url());
    let stage = Stage { pool: database.pool(), program, _database: database };
    for case in cases() {
        for place in case.places {
            let job = stage.set(&case, *place).await;
            let (id, what) = (job.to_string(), format!("{} ({}), {place:?}", case.name, case.code));
            let view: Option<String> = sqlx::query_scalar("select waits_for from sluice.jobs where id = $1")
                .bind(job)
                .fetch_one(&stage.pool)
                .await
                .unwrap();
            assert_eq!(view.as_deref(), Some(case.code), "{what}: sluice.jobs");
            let status = stage.json(&["status"]).await;
            let route = &status["routes"][0];
            let of = |member: &str| route[member].as_array().unwrap().clone();
            let in_status =
                of("ready_waits_for").into_iter().chain(of("parked")).find(|held| held["waits_for"] == case.code);
            let in_status = in_status.unwrap_or_else(|| panic!("{what}: {route:#}"))["why"][0].clone();
            let faces = [
                ("job show", stage.json(&["job", "show", &id]).await["why"].clone()),
                ("explain", stage.json(&["explain", &id]).await["why"].clone()),
                ("batch show", stage.json(&["batch", "show", "b"]).await["why"].clone()),
                ("watch", stage.watched().await["why"].clone()),
                ("status", in_status),
            ];
            let first = without_times(faces[0].1["words"].as_str().unwrap_or_else(|| panic!("{what}: {}", faces[0].1)));
            for (face, why) in &faces {
                let words = why["words"].as_str().unwrap_or_else(|| panic!("{what}: {face}: {why}"));
                for part in case.words {
                    assert!(words.contains(part), "{what}: {face} says {words}");
                }
                // When the job itself wakes, and since when it could have run, only its own faces know.
                if !["limit", "patience", "scheduled"].contains(&case.name) {
                    assert_eq!(without_times(words), first, "{what}: {face}");
                }
                assert_eq!(why["waits_for"], case.code, "{what}: {face}");
            }
            let doctor = stage.json(&["doctor", "--waiting", "0s"]).await;
            let finding = |check: &str| {
                let found =
                    doctor["findings"].as_array().unwrap().iter().find(|finding| finding["check"] == check).cloned();
                found.unwrap_or_else(|| panic!("{doctor:#}"))
            };
            if case.code == "no worker" && case.doctor == "bad" {
                assert_eq!(finding("workers")["severity"], "bad", "{what}: {doctor:#}");
            } else {
                let held_up = finding("held_up");
                assert_eq!(held_up["severity"], case.doctor, "{what}: {held_up}");
                if case.doctor != "ok" {
                    assert!(held_up["what"].as_str().unwrap().contains(case.words[0]), "{what}: {held_up}");
                }
            }
            // The deadline stands beside the reason.
            let explained = stage.program.output(&["explain", &id]).await;
            assert!(explained.contains("if it has no answer by its deadline"), "{what}: {explained}");
        }
    }
    // A job in a worker's hands waits for nothing of all this.
    let case = &cases()[3];
    let job = stage.set(case, Place::Ready).await;
    stage
        .run(
            "insert into sluice.inflight (job_id, worker, fence, flow, prio, attempts, crashes, round, claimed_at)
                  select job_id, (select max(id) from sluice.worker), 1, flow, prio, attempts, crashes, round, now()
                    from sluice.ready;
             delete from sluice.ready",
        )
        .await;
    let row: (String, Option<String>) = sqlx::query_as("select state, waits_for from sluice.jobs where id = $1")
        .bind(job)
        .fetch_one(&stage.pool)
        .await
        .unwrap();
    assert_eq!(row, ("running".to_owned(), None));
}
