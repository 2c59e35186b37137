//! Mistakes that users make, and the reply to each: one message that names the place and the way out, an exit status
//! that scripts can rely on, and no half-done work.

use crate::support::postgres::database;
use crate::support::program::{Program, ended, text};
use crate::support::wait::until;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;

const MINIMAL: &str = "[http]\nlisten = \"off\"\n[providers.one]\ndialect = \"openai\"\n\
                       base_url = \"http://127.0.0.1:1/v1\"\n\
                       [models.\"one/model\"]\nprice = { input = \"1\", output = \"1\" }\n\
                       [routes.default]\nrungs = [\"one/model\"]\n";

/// The command fails with this status, says all of this, and prints nothing that could be taken for data.
async fn refused(program: &Program, arguments: &[&str], status: i32, says: &[&str]) {
    let output = program.run(arguments).await;
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {error}");
    for words in says {
        assert!(error.contains(words), "{arguments:?} does not say {words:?}:\n{error}");
    }
    assert_eq!(text(&output.stdout), "", "{arguments:?}");
    assert!(!error.contains("panicked") && !error.contains("s3cret"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_the_configuration_are_all_told_at_once_and_nothing_starts() {
    let faulty = "[wroker]\nmax = 1\n[providers.one]\ndialect = \"opnai\"\nbase_url = \"http://127.0.0.1:1/v1\"\n\
                  api_key_env = \"SLUICE_TEST_NO_SUCH_KEY\"\ntimeouts = { total = \"soon\" }\n\
                  [routes.default]\nrungs = [\"one\"]\n[routes.default.validate]\njson_schema = { type = 7 }\n";
    let program = Program::new(faulty, "postgres://127.0.0.1:1/none");
    let told = [
        "wroker",
        "worker",
        "providers.one.dialect",
        "opnai",
        "SLUICE_TEST_NO_SUCH_KEY",
        "providers.one.timeouts.total",
        "soon",
        "routes.default.rungs",
        "json_schema",
        "sluice.toml",
    ];
    refused(&program, &["worker"], 3, &told).await;
    refused(&program, &["check"], 3, &told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_providers_says_what_to_add() {
    let database = database().await;
    let program = Program::new("[http]\nlisten = \"off\"\n", &database.url());
    refused(&program, &["worker"], 3, &["providers", "api_key_env", "rungs"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_certificates_asks_the_servers_that_need_none() {
    let database = database().await;
    let secure = MINIMAL.replace("http://127.0.0.1:1/v1", "https://127.0.0.1:1/v1");
    for (config, status, says) in [
        (MINIMAL, 0, "worker is done"),
        (
            secure.as_str(),
            1,
            "providers.one: cannot set up the HTTP client: the system has no certificates of authorities",
        ),
    ] {
        let program = Program::new(config, &database.url());
        let (folder, file) = (program.path("certificates"), program.path("certificates.pem"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(&file, "").unwrap();
        let mut worker = program.command(&["worker", "--drain"]);
        let output = worker.env("SSL_CERT_DIR", &folder).env("SSL_CERT_FILE", &file).output().await.unwrap();
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{error}");
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_database_is_named_without_its_password() {
    let program = Program::new(MINIMAL, "postgres://someone:s3cret@127.0.0.1:1/jobs");
    for arguments in [&["worker"][..], &["status"], &["migrate"]] {
        refused(&program, arguments, 4, &["cannot connect", "127.0.0.1:1/jobs", "is DATABASE_URL right?"]).await;
    }
    let by_option = ["status", "--database-url", "postgres://127.0.0.1:1/others"];
    refused(&program, &by_option, 4, &["127.0.0.1:1/others", "is --database-url right?"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_is_not_asked_whether_it_runs() {
    let database = database().await;
    let name = database.connect_options().get_database().unwrap().to_owned();
    let program = Program::new(MINIMAL, &database.url().replacen(&name, "no_such_database", 1));
    let advice = ["does not exist", "Is it still to be made (`createdb`), or is DATABASE_URL wrong?"];
    refused(&program, &["status"], 4, &advice).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_the_schema_is_not_worked_on() {
    let database = database().await;
    sqlx::raw_sql("drop schema sluice cascade").execute(&database.pool()).await.unwrap();
    let program = Program::new(MINIMAL, &database.url());
    refused(&program, &["worker"], 4, &["sluice migrate"]).await;
    let doctor = text(&program.run(&["doctor"]).await.stdout);
    assert!(doctor.contains("run sluice migrate") && !doctor.contains("could not be looked at"), "{doctor}");
    program.output(&["migrate"]).await;
    assert!(program.output(&["status", "--format", "json"]).await.contains("workers"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_from_the_future_is_left_alone() {
    let database = database().await;
    sqlx::raw_sql(
        "insert into sluice.migration (version, description, success, checksum, execution_time)
         values (9999, 'from the future', true, '', 0);
         update sluice.schema_support set oldest = 9999",
    )
    .execute(&database.pool())
    .await
    .unwrap();
    let program = Program::new(MINIMAL, &database.url());
    for arguments in [&["worker"][..], &["migrate"], &["status"]] {
        refused(&program, arguments, 4, &["9999", "upgrade sluice"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_when_it_was_chosen() {
    let database = database().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = MINIMAL.replace("\"off\"", &format!("\"{address}\""));
    let program = Program::new(&config, &database.url());
    refused(&program, &["worker"], 1, &[&address, "http.listen"]).await;
    refused(&program, &["simulate", "--listen", &address], 1, &[&address, "--listen"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slip_in_a_command_line_is_answered_with_the_usage() {
    let program = Program::new(MINIMAL, "postgres://127.0.0.1:1/none");
    refused(&program, &["enqeue"], 2, &["enqueue"]).await;
    refused(&program, &["report", "costs"], 2, &["cost"]).await;
    refused(&program, &["job", "show", "seven"], 2, &["seven"]).await;
    for name in ["a\u{1b}[2Jb", "two\nlines", "a\u{200b}b", "\u{202e}gnp.exe"] {
        for command in [&["run", "-o", "x"][..], &["enqueue"], &["trial", "--route", "default"]] {
            let arguments = [command, &["--batch", name]].concat();
            refused(&program, &arguments, 2, &["has characters that cannot be seen"]).await;
        }
    }
    refused(&program, &["enqueue", "--batch", ""], 2, &["a batch needs a name"]).await;
}

/// As systemd sees it: ready, then alive as long as the claim loop turns, then stopping.
#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_told_of_readiness_life_and_the_end() {
    let database = database().await;
    let program = Program::new(MINIMAL, &database.url());
    let path = program.path("notify");
    hears_of_a_life(&program, UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap()).await;
    // One without a file, as container managers have them.
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt as _;
        let name = format!("sluice-test-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        hears_of_a_life(&program, UnixDatagram::bind_addr(&address).unwrap(), &format!("@{name}")).await;
    }
}

async fn hears_of_a_life(program: &Program, socket: UnixDatagram, name: &str) {
    socket.set_nonblocking(true).unwrap();
    let worker =
        program.command(&["worker"]).env("NOTIFY_SOCKET", name).env("WATCHDOG_USEC", "1000000").spawn().unwrap();
    let pid = worker.id().unwrap();
    let heard = std::sync::Mutex::new(String::new());
    let hear = async || {
        let mut buffer = [0; 1000];
        if let Ok(length) = socket.recv(&mut buffer) {
            heard.lock().unwrap().push_str(&text(&buffer[..length]));
        }
        heard.lock().unwrap().clone()
    };
    until("it is ready", async || hear().await.contains("READY=1")).await;
    until("the watchdog is fed twice", async || hear().await.matches("WATCHDOG=1").count() >= 2).await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    until("it is stopping", async || hear().await.contains("STOPPING=1")).await;
    assert!(ended(worker).await.status.success());
}

/// A manager outside of a virtual machine, and what may yet come: the worker works, and complains of nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_notify_socket_of_another_kind_is_no_failure_and_no_error() {
    let database = database().await;
    let program = Program::new(MINIMAL, &database.url());
    for name in ["vsock:2:1234", "vsock-stream:2:1234", "vsock-dgram:4294967295:9", "unix:later", "relative/path"] {
        let worker = program
            .command(&["worker", "--drain"])
            .env("NOTIFY_SOCKET", name)
            .env("WATCHDOG_USEC", "200000")
            .spawn()
            .unwrap();
        let output = ended(worker).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{name}: {said}");
        assert_eq!(said.matches("NOTIFY_SOCKET").count(), 1, "{name}: {said}");
        assert!(said.contains(name) && !said.contains("WARN") && !said.contains("ERROR"), "{name}: {said}");
    }
}
