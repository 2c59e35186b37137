//! Calls that are signed (AWS SigV4), with the real program: the simulator works out each signature on its own.

use crate::support::postgres::database;
use crate::support::program::{Program, ended, text};
use crate::support::queue::enqueue_questions;
use crate::support::scripted::{Call, Reply, Scripted};
use serde_json::json;
use sluice::simulate::{Scenario, Simulator};
use sluice::store::Store;
use sqlx::PgPool;
use std::os::unix::fs::PermissionsExt as _;

const SECRET: &str = "k3/9fQ+good-secret-of-a-test-7Yw";
const WRONG: &str = "k3/9fQ+wrong-secret-of-a-test-7Y";
const TOKEN: &str = "IQoJ/session+token-of-a-test-0123456789==";
const IDS: [&str; 3] = ["AKIDSIGNINGTEST01", "ASIASIGNINGTEST02", "ASIASIGNINGTEST03"];

/// Each attempt: class, the provider's code, the name of the key.
type Attempts = Vec<(Option<String>, Option<String>, Option<String>)>;

struct Stage {
    database: crate::support::postgres::TestDatabase,
    pool: PgPool,
    simulator: Simulator,
    program: Program,
}

impl Stage {
    /// A Bedrock that takes a lasting key, a temporary one, and one whose token has expired; a provider with these
    /// settings.
    async fn new(settings: &str) -> Self {
        let database = database().await;
        let [lasting, temporary, expired] = IDS;
        let scenario = format!(
            "record_calls = 1000\n[providers.aws]\ndialect = \"bedrock\"\nkeys = [\"{lasting}:{SECRET}\", \
             \"{temporary}:{SECRET}:{TOKEN}\", {{ key = \"{expired}:{SECRET}:{TOKEN}\", expired = true }}]\n\
             models.\"a.model-v1:0\".price = {{ input = \"0\", output = \"1\" }}\n"
        );
        let simulator =
            Simulator::start(Scenario::from_toml(&scenario).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
        let config = format!(
            "[http]\nlisten = \"off\"\n[providers.aws]\ndialect = \"bedrock\"\nbase_url = \"{}\"\n{settings}\n\
             [models.\"aws/a.model-v1:0\"]\nprice = {{ input = \"0\", output = \"1\" }}\n\
             [routes.default]\nrungs = [\"aws/a.model-v1:0\"]\n",
            simulator.base_url("aws").unwrap()
        );
        let program = Program::new(&config, &database.url());
        Self { pool: database.pool(), database, simulator, program }
    }

    fn private_file(&self, name: &str, content: &str) {
        let path = self.program.file(name, content);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// What the program prints with these arguments and variables, and without those of the machine.
    async fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
        let mut command = self.program.command(arguments);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("AWS_") {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.program.path("")).env("CREDENTIALS_DIRECTORY", self.program.path(""));
        let output = ended(command.envs(variables.iter().copied()).spawn().unwrap()).await;
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    }

    async fn attempts(&self) -> Attempts {
        sqlx::query_as("select class, code, decision->>'key' from sluice.attempts order by job_id, number")
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }

    /// Drains the queue; nothing that is shown or kept has a part of a key in it.
    async fn drain(&self, variables: &[(&str, &str)]) -> String {
        let (succeeded, log) = self.run(&["-vv", "worker", "--drain"], variables).await;
        assert!(succeeded, "{log}");
        let rows: Vec<String> =
            sqlx::query_scalar("select a::text from sluice.attempt a union all select r::text from sluice.result r")
                .fetch_all(&self.pool)
                .await
                .unwrap();
        assert!(!rows.is_empty());
        let shown = rows.concat() + &log;
        for secret in [SECRET, WRONG, TOKEN].iter().chain(&IDS) {
            assert!(!shown.contains(secret), "a part of a key is shown");
        }
        log
    }

    async fn succeeded(&self) -> i64 {
        let audit = Store::from_pool(self.database.pool()).audit().await.unwrap();
        assert_eq!(audit.faults(), Vec::<String>::new());
        audit.succeeded
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_signed_with_a_key_from_where_it_is_kept() {
    let [lasting, temporary, _] = IDS;
    let stage = Stage::new("auth = \"sigv4\"\nregion = \"eu-central-1\"").await;
    stage.private_file(
        "credentials",
        &format!(
            "[batch]\naws_access_key_id = {temporary}\naws_secret_access_key = {SECRET}\naws_session_token = {TOKEN}\n"
        ),
    );
    let file = stage.program.path("credentials").display().to_string();
    let of_profile = [("AWS_PROFILE", "batch"), ("AWS_SHARED_CREDENTIALS_FILE", file.as_str())];
    let of_variables = [("AWS_ACCESS_KEY_ID", lasting), ("AWS_SECRET_ACCESS_KEY", SECRET)];
    for (round, variables) in [&of_profile, &of_variables].into_iter().enumerate() {
        enqueue_questions(&stage.pool, 5).await;
        stage.drain(variables).await;
        assert_eq!(stage.succeeded().await, 5 * (i64::try_from(round).unwrap() + 1));
    }
    let calls = stage.simulator.calls(100);
    let keys: Vec<Option<usize>> = calls.iter().rev().map(|call| call.key).collect();
    assert_eq!(keys, [[Some(1); 5], [Some(0); 5]].concat());
    let (_, told) = stage.run(&["check"], &of_profile).await;
    let expected = format!("signed (SigV4) for eu-central-1 with profile batch of {file}");
    assert!(told.contains(&expected), "{told}");
    assert!(!told.contains(temporary) && !told.contains(SECRET), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_and_an_old_token_are_dead_keys_and_the_next_key_signs() {
    let [lasting, temporary, expired] = IDS;
    let keys = "keys = [{ api_key_env = \"WRONG\" }, { credential = \"old.json\" }, { api_key_file = \"good.key\" }]";
    let stage = Stage::new(&format!("auth = \"sigv4\"\nregion = \"us-east-1\"\n{keys}")).await;
    let old = serde_json::json!({"Credentials":
        {"AccessKeyId": expired, "SecretAccessKey": SECRET, "SessionToken": TOKEN}});
    stage.private_file("old.json", &old.to_string());
    stage.private_file("good.key", &format!("{temporary}:{SECRET}:{TOKEN}\n"));
    enqueue_questions(&stage.pool, 1).await;
    let wrong = format!("{lasting}:{WRONG}");
    let log = stage.drain(&[("WRONG", &wrong)]).await;
    assert_eq!(stage.succeeded().await, 1);
    let good = stage.program.path("good.key").display().to_string();
    let row = |class: Option<&str>, code: Option<&str>, key: &str| {
        (class.map(str::to_owned), code.map(str::to_owned), Some(key.to_owned()))
    };
    assert_eq!(
        stage.attempts().await,
        [
            row(Some("auth"), Some("InvalidSignatureException"), "WRONG"),
            row(Some("auth"), Some("ExpiredTokenException"), "old.json"),
            row(None, None, &good),
        ]
    );
    assert!(log.contains("the key is rejected"), "{log}");
    let statuses: Vec<u16> = stage.simulator.calls(10).iter().rev().map(|call| call.status).collect();
    assert_eq!(statuses, [403, 403, 200]);
}

/// What the services of AWS's platforms say: those of a container, of an instance and of STS.
fn platform(call: &Call, _: usize) -> Reply {
    let key = |expires: &str| {
        json!({"AccessKeyId": IDS[1], "SecretAccessKey": SECRET, "Token": TOKEN, "Expiration": expires}).to_string()
    };
    let said = match call.path.as_str() {
        // They are about to expire, so each call fetches new ones.
        "/container/v1" if call.authorization.as_deref() == Some("of-the-pod") => key("2026-01-01T00:00:00Z"),
        "/latest/api/token" => "session".to_owned(),
        "/latest/meta-data/iam/security-credentials/" => "the-role\n".to_owned(),
        "/latest/meta-data/iam/security-credentials/the-role" => key("2099-01-01T00:00:00Z"),
        "/sts/v1" if call.text.contains("Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aaws") => {
            assert!(call.text.ends_with("RoleSessionName=sluice&WebIdentityToken=of-the-account"), "{}", call.text);
            format!(
                "<R><Credentials><AccessKeyId>{}</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey><SessionToken>\
                 {TOKEN}</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></R>",
                IDS[1]
            )
        }
        _ => return (403, b"{\"code\": \"AccessDenied\"}".to_vec()),
    };
    (200, said.into_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_a_role_are_fetched_where_the_platform_hands_them_out() {
    let services = Scripted::start(platform).await;
    let address = |name: &str| services.base_url(name);
    let stage = Stage::new("auth = \"sigv4\"\nregion = \"eu-central-1\"\nrecheck = \"1s\"").await;
    stage.private_file("pod", "of-the-pod\n");
    stage.private_file("account", "of-the-account\n");
    let file = |name: &str| stage.program.path(name).display().to_string();
    let container = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", address("container")),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file("pod")),
    ];
    let account = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file("account")),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/batch".to_owned()),
        ("AWS_ENDPOINT_URL_STS", address("sts")),
    ];
    let instance = [
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", address("").trim_end_matches("//v1").to_owned()),
        ("SLUICE__PROVIDERS__AWS__CREDENTIAL_SOURCE", "instance".to_owned()),
    ];
    for (round, (variables, source)) in
        [(&container[..], container[0].0), (&account, account[0].0), (&instance, "the role of the instance")]
            .into_iter()
            .enumerate()
    {
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        enqueue_questions(&stage.pool, 3).await;
        stage.drain(&variables).await;
        assert_eq!(stage.succeeded().await, 3 * (i64::try_from(round).unwrap() + 1), "{source}");
        let (_, told) = stage.run(&["check"], &variables).await;
        assert!(told.contains(&format!("signed (SigV4) for eu-central-1 with {source}")), "{told}");
    }
    let asked = |name: &str| services.calls(name).len();
    assert_eq!((asked("container"), asked("sts"), asked("latest")), (3, 1, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keys_of_the_role_jobs_fail_with_what_the_service_said() {
    let services = Scripted::start(platform).await;
    let stage = Stage::new("auth = \"sigv4\"\nregion = \"eu-central-1\"").await;
    let variables = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", services.base_url("container"))];
    let variables = [(variables[0].0, variables[0].1.as_str())];
    let (_, told) = stage.run(&["provider", "probe", "aws"], &variables).await;
    assert!(told.contains("no keys of the role") && told.contains("403"), "{told}");
    assert!(stage.simulator.calls(1).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_access_key_the_program_says_where_it_looked() {
    let stage = Stage::new("auth = \"sigv4\"\nregion = \"us-east-1\"").await;
    let (succeeded, told) = stage.run(&["check"], &[]).await;
    assert!(!succeeded);
    let places = format!("none in the profile default of {}", stage.program.path(".aws/credentials").display());
    assert!(told.contains("providers.aws.auth: there is no access key") && told.contains(&places), "{told}");
}
