//! What the commands say of budgets, and what they refuse.

use super::DOLLAR;
use crate::support::program::{Program, json_lines, text};
use crate::support::queue::{NewJob, Queue, in_an_hour, in_batch, park};
use serde_json::{Value, json};
use sluice::domain::NanoUsd;
use sluice::domain::budget::Budget;
use sluice::store::settle::Settlement;

#[tokio::test]
async fn commands_set_show_raise_and_remove_budgets_and_refuse_bad_ones() {
    let database = crate::support::postgres::database().await;
    let program = Program::new(
        "[providers.local]\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
         [routes.default]\nrungs = [\"local/m\"]\n",
        &database.url(),
    );
    let set = ["budget", "set", "news", "25", "--per", "day", "--project", "news", "--soft", "0.8"];
    assert_eq!(program.output(&set).await, "budget news is $25.00 per day for project news\n");
    assert_eq!(program.output(&set).await, "budget news was $25.00 per day for project news already\n");
    let raised = program.output(&["budget", "raise", "news", "30.50"]).await;
    assert_eq!(raised, "budget news is $30.50 per day for project news; it was $25.00\n");
    let listed: Value = serde_json::from_str(&program.output(&["budget", "list", "--format", "json"]).await).unwrap();
    let budget = &listed[0];
    assert_eq!(
        (&budget["budget"], &budget["limit"], &budget["spent"], &budget["state"], &budget["soft"]),
        (&json!("news"), &json!(30.5), &json!(0.0), &json!("ok"), &json!(0.8))
    );
    let shown: Value =
        serde_json::from_str(&program.output(&["budget", "show", "news", "--format", "json"]).await).unwrap();
    assert_eq!(&shown, budget);
    for (arguments, code, expected) in [
        (&["set", "x", "-1"][..], 2, "is below 0; expected dollars above 0"),
        (&["set", "x", "0"], 2, "is nothing: to let nothing run, pause it; expected dollars above 0"),
        (&["set", "x", "$5"], 2, "has the sign of a currency: dollars are meant; expected dollars above 0"),
        (&["set", "x", "1,50"], 2, "expected dollars as a decimal number"),
        (&["set", "x", "9000000001"], 2, "is more than 9000000000 dollars"),
        (&["set", "x", "1", "--per", "year"], 2, "is a window that never turns; expected hour, day, month or once"),
        (&["set", "x", "1", "--soft", "0"], 2, "is 0; expected a share above 0 and up to 1"),
        (&["set", "x", "1", "--soft", "1.5"], 2, "is above 1"),
        (&["set", "x", "1", "--project", "a", "--batch", "b"], 2, "cannot be used with"),
        (&["set", "x", "1", "--then-route", "default"], 2, "--soft"),
        (&["set", "x", "1", "--route", "defalt"], 6, "there is no route \"defalt\" in the configuration"),
        (&["set", "x", "1", "--provider", "openai"], 6, "there is no provider \"openai\" in the configuration"),
        (&["set", "x", "1", "--soft", "0.5", "--then-route", "chep"], 6, "there is no route \"chep\""),
        (
            &["set", "x", "1", "--project", "news", "--per", "day"],
            2,
            "the budget news covers project news in the same window already",
        ),
        (&["raise", "news", "3"], 2, "is $30.50 already, which is more than $3.00"),
        (&["raise", "old", "3"], 6, "there is no budget \"old\"; there are: news"),
        (&["remove", "old"], 6, "there is no budget \"old\""),
        (&["show", "old"], 6, "there is no budget \"old\""),
    ] {
        let output = program.run(&[&["budget"], arguments].concat()).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    let removed = program.output(&["budget", "remove", "news"]).await;
    assert_eq!(removed, "budget news is removed: project news is spent on without it\n");
    assert!(json_lines(&program.file("empty", "")).is_empty());
    let run = program.run(&["enqueue", "empty", "--max-cost", "9000000001"]).await;
    assert!(run.status.code() == Some(2) && text(&run.stderr).contains("is more than 9000000000 dollars"));
}

#[tokio::test]
async fn names_that_nothing_has_are_said_and_a_budget_of_the_configuration_is_removed_there() {
    let queue = Queue::new().await;
    let program = Program::new(
        "[providers.local]\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
         [routes.default]\nrungs = [\"local/m\"]\n[budgets.mine]\nlimit = \"5\"\n",
        &queue.database.url(),
    );
    queue.enqueue(NewJob { project: "news", ..in_batch("monday") }, 1).await;
    for (arguments, said) in [
        (["--project", "nwes"], "warning: there is no project \"nwes\"; perhaps \"news\" is meant"),
        (["--batch", "munday"], "warning: there is no batch \"munday\"; perhaps \"monday\" is meant"),
        (["--login", "no such login"], "warning: there is no login \"no such login\""),
    ] {
        let set = program.run(&[&["budget", "set", arguments[1], "1"], arguments.as_slice()].concat()).await;
        let told = text(&set.stderr);
        assert!(set.status.code() == Some(0) && told.contains(said), "{told}");
        assert!(told.replace('\n', " ").contains("covers nothing before there is one"), "{told}");
    }
    let set = program.run(&["budget", "set", "fine", "1", "--project", "news"]).await;
    assert_eq!((set.status.code(), text(&set.stderr).as_str()), (Some(0), ""));

    // As a worker sets it when it starts.
    let configured = Budget { name: "mine".to_owned(), ..Budget::of_batch("b", NanoUsd(5 * DOLLAR)) };
    queue.store.apply_budgets(&[configured], &[]).await.unwrap();
    let removed = program.run(&["budget", "remove", "mine"]).await;
    let told = text(&removed.stderr).replace("\n ", "");
    assert_eq!(removed.status.code(), Some(2), "{told}");
    assert!(told.contains("Take [budgets.mine] out of it"), "{told}");
    assert_eq!(queue.count("select count(*) from sluice.budget where name = 'mine'").await, 1);
    // Its section is gone, and no worker ran that could have seen that.
    program.file("sluice.toml", "");
    let removed = program.run(&["budget", "remove", "mine"]).await;
    let told = text(&removed.stderr);
    assert!(removed.status.code() == Some(0) && told.contains("a worker that still has [budgets.mine]"), "{told}");
    assert_eq!(queue.count("select count(*) from sluice.budget where name = 'mine'").await, 0);
}

#[tokio::test]
async fn a_list_of_budgets_says_what_they_will_not_cover_and_what_is_wrong_with_them() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let program = Program::new(
        "[providers.local]\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
         [routes.default]\nrungs = [\"local/m\"]\n",
        &queue.database.url(),
    );
    queue.enqueue(in_batch("b"), 10).await;
    for job in queue.claim(worker, 4).await {
        queue.succeed(&job).await;
    }
    // Four jobs have cost 30 microdollars each, and six are left.
    for (limit, state) in [("0.000299", "short"), ("0.0003", "ok")] {
        let set = program.run(&["budget", "set", "batch:b", limit, "--batch", "b"]).await;
        assert_eq!(set.status.code(), Some(0), "{}", text(&set.stderr));
        let listed: Value =
            serde_json::from_str(&program.output(&["budget", "list", "--format", "json"]).await).unwrap();
        let budget = &listed[0];
        assert_eq!(
            (&budget["state"], &budget["jobs_left"], &budget["needs"]),
            (&json!(state), &json!(6), &json!(0.00018)),
            "{listed}"
        );
        let table = program.run(&["budget", "list", "--format", "table"]).await;
        let told = "6 jobs that are left need about $0.00018, and $0.000179 is left";
        assert_eq!(text(&table.stderr).replace("\n ", "").contains(told), state == "short", "{}", text(&table.stderr));
        assert!(text(&table.stdout).contains(state), "{}", text(&table.stdout));
        let plain = program.output(&["budget", "list", "--format", "plain"]).await;
        assert!(plain.contains(state) && plain.contains("0.00018"), "{plain}");
    }
    // SQL takes any route, and budgets that contradict.
    for statement in [
        "select sluice.set_budget('day', 5, per => 'day', soft => 0.5, then_route => 'cheep')",
        "select sluice.set_budget('hour', 9, per => 'hour')",
        "select sluice.set_budget('typo', 9, provider => 'lokal')",
    ] {
        queue.run(statement).await;
    }
    let listed = program.run(&["budget", "list", "--format", "json"]).await;
    let told = text(&listed.stderr);
    let views: Vec<Value> = serde_json::from_str(&text(&listed.stdout)).unwrap();
    for (budget, fault) in [
        ("day", "sends its jobs along cheep, and there is no such route"),
        ("hour", "is never reached: day allows everything less ($5.00 per day)"),
        ("typo", "covers the provider lokal, which the configuration does not have"),
    ] {
        assert!(told.contains(&format!("warning: budget {budget}: {fault}")), "{told}");
        let view = views.iter().find(|view| view["budget"] == budget).unwrap();
        assert!(view["faults"].to_string().contains(fault), "{view}");
    }
    let finding = async |check: &str| {
        let said = program.run(&["doctor", "--format", "json"]).await;
        let said: Value = serde_json::from_str(&text(&said.stdout)).unwrap();
        let found = said["findings"].as_array().unwrap().iter().find(|finding| finding["check"] == check).unwrap();
        (found["severity"].as_str().unwrap().to_owned(), found["what"].as_str().unwrap().to_owned())
    };
    let (severity, what) = finding("budget_settings").await;
    assert!(severity == "warning" && what.contains("day sends its jobs along cheep"), "{what}");
    // Without a worker nothing goes on, unless all that is ready waits for a spent budget anyway.
    queue.silence(worker).await;
    assert_eq!(finding("workers").await.0, "bad");
    queue.run("select sluice.set_budget('spent', 0.0001)").await;
    let (severity, what) = finding("workers").await;
    assert!(severity == "ok" && what.contains("waits for a budget"), "{what}");
    let (severity, what) = finding("held_up").await;
    assert!(severity == "warning" && what.contains("the budget spent has no room"), "{what}");
}

/// Four jobs of no batch have cost 30 microdollars each; six are left: one rests, one runs, four are ready. What a
/// budget will not cover is told of every scope, by `budget list` and by the status.
#[tokio::test]
async fn every_kind_of_budget_says_when_it_will_not_cover_what_is_left() {
    let queue = Queue::new().await;
    let worker = queue.worker().await;
    let program = Program::new("[http]\nlisten = \"off\"\n", &queue.database.url());
    queue.enqueue(NewJob::default(), 10).await;
    for job in queue.claim(worker, 4).await {
        queue.succeed(&job).await;
    }
    let claimed = queue.claim(worker, 2).await;
    let parks = vec![park(&claimed[0], Some(in_an_hour()))];
    queue.settle(Settlement { parks, ..Settlement::default() }).await;
    let scopes = [
        "",
        ", project => 'default'",
        ", route => 'default'",
        ", login => session_user::text",
        ", provider => 'openai'",
    ];
    for (limit, state) in [("0.000299", "short"), ("0.0003", "ok")] {
        for scope in scopes {
            let set = format!("select sluice.set_budget('it', {limit}{scope})");
            sqlx::query(sqlx::AssertSqlSafe(set)).execute(&queue.pool).await.unwrap();
            let listed = program.output(&["budget", "list", "--format", "json"]).await;
            let budget = serde_json::from_str::<Value>(&listed).unwrap()[0].clone();
            let told = (&budget["state"], &budget["jobs_left"], &budget["needs"]);
            assert_eq!(told, (&json!(state), &json!(6), &json!(0.00018)), "{scope}: {budget}");
            let status = program.output(&["status", "--format", "json"]).await;
            let status = serde_json::from_str::<Value>(&status).unwrap()["budgets"][0].clone();
            assert_eq!((&status["state"], &status["needs"]), (&json!(state), &json!(0.00018)), "{scope}: {status}");
            queue.run("select sluice.drop_budget('it')").await;
        }
    }
    queue.run("select sluice.set_budget('it', 0.000299, login => session_user::text)").await;
    let status = program.run(&["status", "--format", "table"]).await;
    let words = "budget it: 6 jobs that are left need about $0.00018, and $0.000179 is left";
    assert!(text(&status.stderr).replace("\n ", "").contains(words), "{}", text(&status.stderr));
    assert!(text(&status.stdout).contains("short"), "{}", text(&status.stdout));
    // Jobs of a batch count for their login, too; those of another login and another provider do not.
    queue.enqueue(in_batch("b"), 5).await;
    let others = "select sluice.set_budget('theirs', 1, login => 'another'),
                         sluice.set_budget('idle', 1, provider => 'x')";
    queue.run(others).await;
    let listed = program.output(&["budget", "list", "--format", "json"]).await;
    let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
    let left = |name: &str| {
        let budget = listed.iter().find(|budget| budget["budget"] == name).unwrap();
        (budget["jobs_left"].clone(), budget["needs"].clone())
    };
    assert_eq!(left("it"), (json!(11), json!(0.00033)));
    assert_eq!((left("theirs"), left("idle")), ((json!(0), Value::Null), (json!(0), Value::Null)));
}
