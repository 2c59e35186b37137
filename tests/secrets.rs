//! Keys, secret headers and the database's password appear nowhere: not in the output of a process, even at the finest
//! level of logging, not in its log files, not in a row, a report or a page. And prompts and answers are in no line of
//! a log.

use crate::support::postgres::database;
use crate::support::program::{Program, ended, text};
use crate::support::wait::until;
use rustix::process::{Pid, Signal, kill_process};
use sqlx::AssertSqlSafe;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// None of them looks like any vendor's key, so that no pattern takes them out; one needs escaping in JSON of some.
const SECRETS: [&str; 6] = [
    "zq-openai/5Tv9-Wm2x+Lp0==",
    "zq_anthropic_8Hd3Kf6Qa1",
    "zq.gemini.2Nn7Bb4Vc9",
    "zq-second-openai-6Yy5Uu4I",
    "zq-header-0Oo9Ii8Uu7",
    "zq-password-1Qq2Ww3Ee",
];
const PROMPT: &str = "quetzalprompt";
const ANSWER: &str = "quetzalanswer";

/// How the server answers; a prompt names one of these.
const WAYS: [&str; 19] = [
    "auth",
    "answer",
    "fields",
    "tools",
    "refuse",
    "long",
    "escaped",
    "plain",
    "id",
    "redirect",
    "broken",
    "error-in-success",
    "usage",
    "base64",
    "basic",
    "percent",
    "unicode",
    "hex",
    "most",
];

/// How it answers the dialects whose answers it does not know: as servers of every kind do.
const WAYS_OF_ALL: [&str; 5] = ["refuse", "plain", "id", "broken", "error-in-success"];

/// The routes of the dialects that the server answers in their own form.
const KNOWN: [&str; 3] = ["openai", "anthropic", "gemini"];

/// The other dialects of the registry, each with a provider and a route of its own.
fn other_dialects() -> impl Iterator<Item = &'static str> {
    sluice::provider::DIALECTS.iter().map(|dialect| dialect.name).filter(|name| !KNOWN.contains(name))
}

/// A way for each job, with its route; and one job for each route that is there for one way.
fn jobs() -> Vec<(String, &'static str)> {
    // One that rejects a key would keep the others from being asked.
    let known = ["o", "a", "g"].into_iter().flat_map(|route| WAYS[1..].iter().map(move |way| (route.to_owned(), *way)));
    let others = other_dialects().flat_map(|name| WAYS_OF_ALL.iter().map(move |way| (format!("d_{name}"), *way)));
    let once = ["tls", "port", "dns", "auth"].into_iter().map(|route| (route.to_owned(), "auth"));
    known.chain(others).chain(once).collect()
}

async fn request_of(stream: &mut TcpStream) -> Option<String> {
    let mut heard = Vec::new();
    let mut piece = [0; 8192];
    loop {
        let so_far = text(&heard);
        if let Some((head, body)) = so_far.split_once("\r\n\r\n") {
            let length =
                head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(so_far);
            }
        }
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => heard.extend_from_slice(&piece[..read]),
        }
    }
}

/// A text with each of its bytes written in another form.
fn in_forms(text: &str, form: impl Fn(u8) -> String) -> String {
    text.bytes().map(form).collect()
}

fn base64(text: &str) -> String {
    const FIGURES: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let figures = text.as_bytes().chunks(3).flat_map(|group| {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        (0..4).map(move |place| {
            if place > group.len() { '=' } else { char::from(FIGURES[(bits >> (18 - 6 * place) & 63) as usize]) }
        })
    });
    figures.collect()
}

/// Sends back every secret that it was sent, where the prompt says.
async fn echo(mut stream: TcpStream, heard: Arc<Mutex<Vec<String>>>) {
    let Some(request) = request_of(&mut stream).await else { return };
    let echoed: Vec<&str> = SECRETS.into_iter().filter(|secret| request.contains(secret)).collect();
    let echoed = echoed.join(" and ");
    let way = WAYS.into_iter().find(|way| request.contains(&format!("[[{way}]]"))).unwrap();
    let path = request.split(' ').nth(1).unwrap().to_owned();
    let echoed = match way {
        "base64" => base64(&echoed),
        // As the credentials of a login are written.
        "basic" => base64(&format!("u:{echoed}")),
        "percent" => in_forms(&echoed, |byte| format!("%{byte:02X}")),
        "unicode" => in_forms(&echoed, |byte| format!("\\u{byte:04x}")),
        "hex" => in_forms(&echoed, |byte| format!("{byte:02x}")),
        "most" => SECRETS.into_iter().filter(|secret| echoed.contains(secret)).map(|secret| &secret[1..]).collect(),
        _ => echoed,
    };
    heard.lock().unwrap().push(request);
    let said = |words: &str| {
        let usage = serde_json::json!({"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8,
            "input_tokens": 3, "output_tokens": 5, "note": if way == "usage" { echoed.as_str() } else { "" }});
        let gemini = serde_json::json!({"promptTokenCount": 3, "candidatesTokenCount": 5,
            "note": if way == "usage" { echoed.as_str() } else { "" }});
        let (model, id, finish) =
            if way == "fields" { (echoed.as_str(), echoed.as_str(), echoed.as_str()) } else { ("m", "i", "") };
        let or = |usual: &str| if finish.is_empty() { usual.to_owned() } else { finish.to_owned() };
        if path.contains("/messages") {
            let mut content = vec![serde_json::json!({"type": "text", "text": words})];
            if way == "tools" {
                content.push(serde_json::json!({"type": "tool_use", "id": echoed, "name": "f",
                    "input": {"a": echoed}}));
            }
            serde_json::json!({"id": id, "type": "message", "role": "assistant", "model": model, "content": content,
                "stop_reason": or(if way == "tools" { "tool_use" } else { "end_turn" }), "usage": usage})
        } else if path.contains("generateContent") {
            let mut parts = vec![serde_json::json!({"text": words})];
            if way == "tools" {
                parts.push(serde_json::json!({"functionCall": {"name": "f", "args": {"a": echoed}}}));
            }
            serde_json::json!({"responseId": id, "modelVersion": model, "usageMetadata": gemini,
                "candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": or("STOP")}]})
        } else {
            let mut message = serde_json::json!({"role": "assistant", "content": words});
            if way == "tools" {
                message["tool_calls"] = serde_json::json!([{"id": echoed, "type": "function",
                    "function": {"name": "f", "arguments": format!("{{\"a\":\"{echoed}\"}}")}}]);
            }
            serde_json::json!({"id": id, "model": model, "usage": usage,
                "choices": [{"message": message,
                    "finish_reason": or(if way == "tools" { "tool_calls" } else { "stop" })}]})
        }
        .to_string()
    };
    let error = |message: &str| {
        serde_json::json!({"type": "error",
            "error": {"type": "invalid_request_error", "status": "INVALID_ARGUMENT", "code": echoed,
            "message": message, "param": echoed}})
        .to_string()
    };
    let (status, headers, body) = match way {
        "base64" | "percent" | "hex" | "most" if path.contains("/messages") => {
            ("400 No", format!("request-id: {echoed}\r\n"), error(&format!("the key {echoed} is no good")))
        }
        "base64" | "basic" | "percent" | "unicode" | "hex" | "most" if path.contains("generateContent") => {
            ("500 Oh", "content-type: text/plain\r\n".to_owned(), format!("what is {echoed}?"))
        }
        "auth" => ("401 Who", String::new(), error(&format!("the key {echoed} is no good"))),
        "refuse" => ("400 No", String::new(), error(&format!("the key {echoed} is no good"))),
        "long" => ("400 No", String::new(), error(&format!("{} {echoed}", "x".repeat(480)))),
        "escaped" => ("400 No", String::new(), error(&format!("{echoed} is no good")).replace('/', "\\/")),
        "plain" => ("500 Oh", "content-type: text/plain\r\n".to_owned(), format!("what is {echoed}?")),
        "id" => {
            ("200 OK", format!("x-request-id: {}{echoed}\r\nrequest-id: {echoed}\r\n", "y".repeat(180)), said(ANSWER))
        }
        "redirect" => ("302 There", format!("location: http://localhost:1/{echoed}\r\n"), String::new()),
        "broken" => ("200 OK", String::new(), format!("{{\"choices\": [{{\"{echoed}")),
        "error-in-success" => ("200 OK", String::new(), error(&echoed)),
        _ => ("200 OK", String::new(), said(&format!("{ANSWER} {echoed}"))),
    };
    let answer =
        format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn config(echo: &str) -> String {
    let providers = [
        (
            "o".to_owned(),
            "openai",
            format!("http://{echo}/v1"),
            "keys = [{ api_key_env = \"KEY_O\" }, { api_key_env = \"KEY_O2\" }]",
        ),
        ("a".to_owned(), "anthropic", format!("http://{echo}/v1"), "api_key_env = \"KEY_A\""),
        ("g".to_owned(), "gemini", format!("http://{echo}/v1beta"), "api_key_env = \"KEY_G\""),
        ("auth".to_owned(), "openai", format!("http://{echo}/v1"), "api_key_env = \"KEY_O\""),
        // A server without TLS, a port without a server, and a name that does not exist.
        ("tls".to_owned(), "openai", format!("https://{echo}/v1"), "api_key_env = \"KEY_O\""),
        ("port".to_owned(), "openai", "http://127.0.0.1:1/v1".to_owned(), "api_key_env = \"KEY_O\""),
        ("dns".to_owned(), "openai", "http://no-such-host.invalid/v1".to_owned(), "api_key_env = \"KEY_O\""),
    ];
    let mut config = "[http]\nlisten = \"127.0.0.1:0\"\n[log]\ndir = \"logs\"\nfilter = \"trace\"\n".to_owned();
    let others = other_dialects()
        .map(|name| (format!("d_{name}"), name, format!("http://{echo}/v1"), "api_key_env = \"KEY_O\""));
    for (name, dialect, base_url, key) in providers.into_iter().chain(others) {
        write!(
            config,
            "[providers.{name}]\ndialect = \"{dialect}\"\nbase_url = \"{base_url}\"\n{key}\n\
             headers = {{ x-extra-token = \"{}\" }}\n\
             breaker = {{ min_calls = 1000, failure_rate = 1.0, window = \"60s\", open = \"1s\" }}\n\
             [models.\"{name}/model\"]\nprice = {{ input = \"1\", output = \"2\" }}\n\
             [routes.{name}]\nrungs = [\"{name}/model\"]\nmax_attempts = 2\n",
            SECRETS[4]
        )
        .unwrap();
    }
    config
}

fn no_secret(place: &str, shown: &str) {
    let unescaped = shown.replace("\\/", "/");
    for secret in SECRETS {
        // Not even most of one, nor in another form.
        let parts = [
            secret.to_owned(),
            secret[..secret.len() - 4].to_owned(),
            secret[2..].to_owned(),
            base64(secret)[..16].to_owned(),
            base64(&format!("u:{secret}"))[4..20].to_owned(),
            base64(&format!("k:{secret}x"))[8..20].to_owned(),
            in_forms(secret, |byte| format!("%{byte:02X}")),
            in_forms(secret, |byte| format!("\\u{byte:04x}")),
            in_forms(secret, |byte| format!("\\\\u{byte:04x}")),
            in_forms(secret, |byte| format!("{byte:02x}")),
        ];
        for part in &parts {
            if let Some(at) = unescaped.find(part.as_str()) {
                let from = unescaped[..at].char_indices().rev().nth(300).map_or(0, |(from, _)| from);
                panic!("{place} shows {part}: {}", unescaped[from..].chars().take(600).collect::<String>());
            }
        }
    }
}

async fn page(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut page = Vec::new();
    stream.read_to_end(&mut page).await.unwrap();
    text(&page)
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_nowhere_and_texts_are_in_no_log() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream, Arc::clone(&hears)));
        }
    });
    let database = database().await;
    let pool = database.pool();
    let url = database.url();
    let with_password = format!("{url}{}password={}", if url.contains('?') { "&" } else { "?" }, SECRETS[5]);
    let program = Program::new(&config(&address), &with_password);
    let command = |arguments: &[&str]| {
        let mut command = program.command(arguments);
        let keys = [("KEY_O", SECRETS[0]), ("KEY_A", SECRETS[1]), ("KEY_G", SECRETS[2]), ("KEY_O2", SECRETS[3])];
        command.envs(keys);
        command
    };
    let jobs = jobs();
    for (route, way) in &jobs {
        sqlx::query(
            "insert into sluice.job (route, batch, request) values ($1, 'b', jsonb_build_object('prompt', $2 || ' [[' \
             || $3 || ']]'))",
        )
        .bind(route)
        .bind(PROMPT)
        .bind(way)
        .execute(&pool)
        .await
        .unwrap();
    }

    let said = tempfile::NamedTempFile::new().unwrap();
    let mut worker = command(&["worker"]);
    worker.stdout(said.reopen().unwrap()).stderr(said.reopen().unwrap());
    let mut worker = worker.spawn().unwrap();
    let pid = i32::try_from(worker.id().unwrap()).unwrap();
    let tried = "select count(distinct job_id) from sluice.attempt";
    until("every job was tried", async || {
        sqlx::query_scalar::<_, i64>(tried).fetch_one(&pool).await.unwrap() == i64::try_from(jobs.len()).unwrap()
    })
    .await;
    let log = || std::fs::read_to_string(said.path()).unwrap();
    let listens = log()
        .split_once("http.listen=")
        .and_then(|(_, rest)| rest.split_whitespace().next().map(str::to_owned))
        .unwrap();
    for path in ["/metrics", "/api/status", "/", "/readyz"] {
        no_secret(path, &page(&listens, path).await);
    }
    for arguments in [
        &["status"][..],
        &["status", "--format", "json"],
        &["results", "b"],
        &["report", "failures"],
        &["provider", "list"],
        &["check"],
        &["doctor"],
    ] {
        let output = ended(command(arguments).spawn().unwrap()).await;
        no_secret(&format!("{arguments:?}"), &(text(&output.stdout) + &text(&output.stderr)));
    }
    for id in 1..=jobs.len() {
        for words in [&["explain"][..], &["job", "show"]] {
            let id = id.to_string();
            let arguments: Vec<&str> = words.iter().copied().chain([id.as_str()]).collect();
            let output = ended(command(&arguments).spawn().unwrap()).await;
            no_secret(&format!("{arguments:?}"), &(text(&output.stdout) + &text(&output.stderr)));
        }
    }
    kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    assert!(worker.wait().await.unwrap().success());

    // Every row of every table and view.
    let relations: Vec<String> = sqlx::query_scalar(
        "select c.relname::text from pg_class c where c.relnamespace = 'sluice'::regnamespace and c.relkind in ('r', \
         'p', 'v')",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert!(relations.len() > 10, "{relations:?}");
    let mut rows = 0;
    for relation in relations {
        let all: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(format!("select t::text from sluice.\"{relation}\" t")))
                .fetch_all(&pool)
                .await
                .unwrap();
        rows += all.len();
        no_secret(&relation, &all.join("\n"));
    }
    assert!(rows > 100, "{rows} rows");

    // With each fault of the configuration or the database.
    let secret = SECRETS[0];
    for (arguments, variable, value) in [
        (&["check"][..], "SLUICE__PROVIDERS__O__BASE_URL", format!("http://me:{secret}@host/v1")),
        (&["worker"], "SLUICE__PROVIDERS__O__BASE_URL", format!("http://me:{secret}@host/v1")),
        (&["check"], "KEY_O", format!("{secret}\nsecond line")),
        (&["worker"], "KEY_O", format!("{secret}\nsecond line")),
        (&["status"], "DATABASE_URL", format!("postgres://me:{secret}@127.0.0.1:notaport/x")),
        (&["status"], "DATABASE_URL", format!("postgres://me:{secret}@127.0.0.1:1/x")),
        (&["worker"], "DATABASE_URL", format!("postgres://me:{secret}@no-such-host.invalid/x")),
        (&["worker"], "DATABASE_URL", format!("mysql://me:{secret}@127.0.0.1/x")),
        (&["worker"], "SLUICE__PROVIDERS__O__HEADERS", secret.to_owned()),
        (&["check"], "SLUICE__PROVIDERS__O__API_KEY", secret.to_owned()),
        (&["check"], "SLUICE__PROVIDERS__O__KEYS", secret.to_owned()),
        (&["check"], "SLUICE__PROVIDERS__O__API_KEY_ENV", secret.to_owned()),
        (&["check"], "SLUICE__PROVIDERS__O", secret.to_owned()),
    ] {
        let output = ended(command(arguments).env(variable, &value).spawn().unwrap()).await;
        let shown = text(&output.stdout) + &text(&output.stderr);
        assert!(!output.status.success(), "{arguments:?} {variable}: {shown}");
        no_secret(&format!("{arguments:?} with {variable}"), &shown);
    }

    let broken = Program::new(&format!("[database]\nurl = \"postgres://me:{secret}@host/x\n"), &url);
    let output = broken.run(&["check"]).await;
    assert!(text(&output.stderr).contains("line 2"), "{}", text(&output.stderr));
    no_secret("a broken file", &text(&output.stderr));

    // What it printed and what it wrote into files.
    let mut logs = log();
    for file in std::fs::read_dir(program.path("logs")).unwrap() {
        logs += &std::fs::read_to_string(file.unwrap().path()).unwrap();
    }
    no_secret("the log", &logs);
    assert!(logs.len() > 10_000, "the finest level says more than that");
    for word in [PROMPT, ANSWER] {
        if let Some(line) = logs.lines().find(|line| line.contains(word)) {
            panic!("a text is in the log: {line}");
        }
    }

    // The keys went where they had to, or all this shows nothing.
    let heard = heard.lock().unwrap().concat();
    for secret in &SECRETS[..5] {
        assert!(heard.contains(secret), "{secret} was never sent");
    }
}
