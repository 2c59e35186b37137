use crate::config::{Config, Keys};
use crate::provider::ApiKey;
use secrecy::ExposeSecret as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

const AWS: &str = "https://bedrock-runtime.eu-central-1.amazonaws.com";
const STS: &str = r#"{"Credentials": {"AccessKeyId": "ASIASTS", "SecretAccessKey": "s3cret/sts",
    "SessionToken": "s3cret/t", "Expiration": "2026-05-04T12:00:00Z"}}"#;
const CREDENTIALS: &str = "# of the team
[default]
aws_access_key_id = AKIDEFAULT
aws_secret_access_key=s3cret/default

[profile of mine]
aws_access_key_id=AKIOLD
[batch]
aws_access_key_id = ASIABATCH  ; a note
aws_secret_access_key = s3cret/batch
aws_session_token = s3cret/token
";

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn with(self, name: &str, text: &str) -> Self {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        self
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn load(&self, lines: &str, variables: &[(&str, &str)], keys: Keys) -> Result<Config, String> {
        let base_url = if lines.contains("base_url") { String::new() } else { format!("base_url = \"{AWS}\"\n") };
        let file = self.0.path().join("sluice.toml");
        std::fs::write(&file, format!("[providers.b]\ndialect = \"bedrock\"\n{base_url}{lines}\n")).unwrap();
        let home = self.0.path().display().to_string();
        let folders = [("HOME", home.as_str()), ("CREDENTIALS_DIRECTORY", home.as_str())];
        let variables = variables.iter().chain(&folders);
        let variables: Vec<_> = variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::load_with(Some(Path::new(&file)), variables, keys).map_err(|errors| errors.to_string())
    }

    /// `NAME ID SECRET TOKEN REGION` of the only key.
    fn key(&self, lines: &str, variables: &[(&str, &str)]) -> String {
        let config = self.load(lines, variables, Keys::Required).unwrap_or_else(|errors| panic!("{errors}"));
        let debug = format!("{config:?}");
        assert!(!debug.contains("s3cret") && !debug.contains("AKID"), "{debug}");
        let [ApiKey { name, secret, access, .. }] = &config.providers["b"].endpoint.keys[..] else { panic!("one key") };
        let access = access.as_ref().unwrap();
        let token = access.session_token.as_ref().map_or("-", |token| token.expose_secret());
        let name = name.replace(&self.path(""), "~/");
        format!("{name} {} {} {token} {}", access.id.expose_secret(), secret.expose_secret(), access.region)
    }

    fn fault(&self, lines: &str, variables: &[(&str, &str)]) -> String {
        let fault = self.load(lines, variables, Keys::Required).expect_err(lines);
        assert!(!fault.contains("s3cret"), "{fault}");
        fault
    }
}

const SIGNED: &str = "auth = \"sigv4\"";
const VARIABLES: &[(&str, &str)] = &[("AWS_ACCESS_KEY_ID", "AKIDENV"), ("AWS_SECRET_ACCESS_KEY", "s3cret/env")];

#[test]
fn a_key_is_found_where_the_tools_of_aws_look() {
    let home = Home::new().with(".aws/credentials", CREDENTIALS);
    assert_eq!(home.key(SIGNED, VARIABLES), "AWS_ACCESS_KEY_ID AKIDENV s3cret/env - eu-central-1");
    let with_token = [VARIABLES, &[("AWS_SESSION_TOKEN", "s3cret/t")]].concat();
    assert_eq!(home.key(SIGNED, &with_token), "AWS_ACCESS_KEY_ID AKIDENV s3cret/env s3cret/t eu-central-1");
    let of_default = "profile default of ~/.aws/credentials AKIDEFAULT s3cret/default - eu-central-1";
    assert_eq!(home.key(SIGNED, &[]), of_default);
    // A variable that is empty is not set.
    assert_eq!(home.key(SIGNED, &[("AWS_ACCESS_KEY_ID", ""), ("AWS_PROFILE", "")]), of_default);
    let of_batch = "profile batch of ~/.aws/credentials ASIABATCH s3cret/batch s3cret/token eu-central-1";
    assert_eq!(home.key(SIGNED, &[("AWS_PROFILE", "batch")]), of_batch);
    assert!(home.key(SIGNED, &[VARIABLES, &[("AWS_PROFILE", "batch")]].concat()).contains("AKIDENV"));
    assert_eq!(home.key("auth = \"sigv4\"\nprofile = \"batch\"", VARIABLES), of_batch);

    // Other files, and keys in the other file. What the first has counts.
    let config = "[default]\nregion = eu-west-3\ns3 =\n  region = nested\n[profile work]\naws_access_key_id=AKIDWORK\n\
                  aws_secret_access_key=s3cret/work\nregion=us-east-2\n[work]\naws_access_key_id=AKIDNOT\n";
    let home = home.with("conf", config).with("cred", CREDENTIALS);
    let files = [
        ("AWS_CONFIG_FILE", home.path("conf")),
        ("AWS_SHARED_CREDENTIALS_FILE", "~/cred".to_owned()),
        ("AWS_PROFILE", "work".to_owned()),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(home.key(SIGNED, &files), "profile work of ~/conf AKIDWORK s3cret/work - eu-central-1");
    assert!(home.key(SIGNED, &files[..2]).contains("default of ~/cred AKIDEFAULT"));
}

#[test]
fn a_key_may_come_from_the_sources_of_all_keys_in_the_forms_that_are_at_hand() {
    let home = Home::new()
        .with("colon", "AKIDONE:s3cret/one\n")
        .with("token", "ASIATWO:s3cret/two:s3cret/token:==")
        .with("sts.json", STS)
        .with("export.json", "{\n \"AccessKeyId\": \"AKIDEXP\",\n \"SecretAccessKey\": \"s3cret/exp\"\n}\n")
        .with("credentials", CREDENTIALS);
    let key = |lines: &str| home.key(&format!("{SIGNED}\n{lines}"), VARIABLES);
    assert_eq!(key("credential = \"colon\""), "colon AKIDONE s3cret/one - eu-central-1");
    assert_eq!(key("api_key_file = \"token\""), "~/token ASIATWO s3cret/two s3cret/token:== eu-central-1");
    assert_eq!(key("credential = \"sts.json\""), "sts.json ASIASTS s3cret/sts s3cret/t eu-central-1");
    assert_eq!(key("credential = \"export.json\""), "export.json AKIDEXP s3cret/exp - eu-central-1");
    assert_eq!(key("credential = \"credentials\""), "credentials AKIDEFAULT s3cret/default - eu-central-1");
    let batch = "credentials ASIABATCH s3cret/batch s3cret/token eu-central-1";
    assert_eq!(key("credential = \"credentials\"\nprofile = \"batch\""), batch);
    let variables = [("MINE", "AKIDVAR:s3cret/var")];
    assert_eq!(
        home.key("auth = \"sigv4\"\napi_key_env = \"MINE\"", &variables),
        "MINE AKIDVAR s3cret/var - eu-central-1"
    );
    let list = "auth = \"sigv4\"\nkeys = [{ credential = \"colon\" }, { credential = \"sts.json\" }]";
    let keys = home.load(list, &[], Keys::Required).unwrap().providers["b"].endpoint.keys.clone();
    assert_eq!(keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["colon", "sts.json"]);
}

#[test]
fn keys_of_a_role_come_from_where_the_platform_says() {
    let home = Home::new();
    let role = |lines: &str, variables: &[(&str, &str)]| {
        let config = home.load(&format!("{SIGNED}\n{lines}"), variables, Keys::Required).unwrap();
        let debug = format!("{config:?}");
        assert!(!debug.contains("s3cret"), "{debug}");
        let key = config.providers["b"].endpoint.keys[0].clone();
        (key.name, format!("{:?}", key.role.unwrap().source))
    };
    let of_pod = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "s3cret"),
    ];
    let (name, source) = role("", &of_pod);
    assert_eq!(name, "AWS_CONTAINER_CREDENTIALS_FULL_URI");
    assert!(source.starts_with("Container { url: \"http://169.254.170.23/v1/credentials\""), "{source}");
    let (_, source) = role("", &[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x")]);
    assert_eq!(source, "Container { url: \"http://169.254.170.2/v2/x\", token: None }");
    let of_account = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/run/token"), ("AWS_ROLE_ARN", "arn:x")];
    let both = [&of_pod[..], &of_account].concat();
    let (name, source) = role("", &both);
    assert_eq!(name, "AWS_WEB_IDENTITY_TOKEN_FILE");
    assert!(source.contains("url: \"https://sts.eu-central-1.amazonaws.com\", role: \"arn:x\""), "{source}");
    assert_eq!(role("credential_source = \"container\"", &both).0, of_pod[0].0);
    let (_, source) = role("credential_source = \"instance\"", &both);
    assert_eq!(source, "Instance { url: \"http://169.254.169.254\" }");
    // A key of its own goes first.
    assert!(home.key(SIGNED, &[VARIABLES, &both].concat()).contains("AKIDENV"));

    let pod = |url| [("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)];
    let none = "credential_source = \"instance\"";
    for (lines, variables, expected) in [
        ("", &pod("http://10.0.0.1/x")[..], "names another machine without TLS, and keys come from it"),
        ("", &pod("nothing"), "AWS_CONTAINER_CREDENTIALS_FULL_URI is not the address of a server"),
        ("", &of_account[..1], "the variable AWS_ROLE_ARN is not set"),
        (none, &[("AWS_EC2_METADATA_DISABLED", "true")], "AWS_EC2_METADATA_DISABLED is true"),
        ("credential_source = \"container\"", &[], "the variable AWS_CONTAINER_CREDENTIALS_FULL_URI is not set"),
        ("credential_source = \"moon\"", &[], "\"moon\" is no place where keys of a role come from"),
        ("credential_source = \"instance\"\nprofile = \"x\"", &[], "there is a profile too"),
    ] {
        let fault = home.fault(&format!("{SIGNED}\n{lines}"), variables);
        assert!(fault.contains(expected), "{lines}\n{fault}");
    }
    assert!(home.fault(none, &[]).contains("b.credential_source: has no effect"));
}

#[test]
fn the_region_is_that_of_the_settings_of_the_address_or_of_the_environment() {
    let home = Home::new()
        .with(".aws/config", "[default]\naws_access_key_id=AKIDA\naws_secret_access_key=s3cret\nregion=eu-west-3\n");
    let region = |lines: &str, variables: &[(&str, &str)]| {
        home.key(&format!("{SIGNED}\n{lines}"), variables).rsplit(' ').next().unwrap().to_owned()
    };
    let other = [("AWS_REGION", "ap-south-1"), ("AWS_DEFAULT_REGION", "ap-south-2")];
    assert_eq!(region("region = \"us-west-2\"", &other), "us-west-2");
    for (host, expected) in [
        ("bedrock-runtime.us-east-1.amazonaws.com", "us-east-1"),
        ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("bedrock-runtime.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("vpce-0a-1b.bedrock-runtime.eu-south-2.vpce.amazonaws.com", "eu-south-2"),
        ("bedrock-runtime.us-east-1.api.aws", "us-east-1"),
        // Others' names are not AWS's, and not every name of AWS has a region.
        ("bedrock-runtime.us-east-1.example.com", "ap-south-1"),
        ("bedrock-runtime.amazonaws.com", "ap-south-1"),
        ("127.0.0.1", "ap-south-1"),
    ] {
        assert_eq!(region(&format!("base_url = \"https://{host}\""), &other), expected, "{host}");
    }
    let elsewhere = "base_url = \"https://gateway.example.com\"";
    assert_eq!(region(elsewhere, &other[1..]), "ap-south-2");
    assert_eq!(region(elsewhere, &[]), "eu-west-3");
    let fault = home.fault(&format!("{SIGNED}\n{elsewhere}"), VARIABLES);
    assert!(fault.contains("providers.b.region: is not known") && fault.contains("AWS_REGION"), "{fault}");
    let fault = home.fault("auth = \"sigv4\"\nregion = \"EU central\"", VARIABLES);
    assert!(fault.contains("providers.b.region: is not the name of a region"), "{fault}");
}

#[test]
fn what_cannot_sign_is_a_fault_that_repeats_no_secret() {
    let home = Home::new()
        .with(".aws/config", "[profile sso]\nsso_session = x\n[profile role]\nrole_arn = arn:x\nsource_profile=y\n")
        .with("bearer", "s3cretbearer")
        .with("broken.json", r#"{"AccessKeyId": "AKIDX", "SecretAccessKey": 5}"#)
        .with("no_token", "ASIATEMP:s3cret")
        .with("blank", "AKIDX:s3cret with blanks")
        .with("many", CREDENTIALS);
    let only = [("AWS_ACCESS_KEY_ID", "AKIDENV")];
    let secret = [("AWS_SECRET_ACCESS_KEY", "s3cret")];
    for (lines, variables, expected) in [
        ("", &[][..], "auth: there is no access key of AWS for the provider b: AWS_ACCESS_KEY_ID is not set"),
        ("profile = \"none\"", VARIABLES, "AWS_ACCESS_KEY_ID is not asked, and there is none in the profile none"),
        ("", &only, "only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set"),
        ("", &secret, "only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set"),
        ("profile = \"sso\"", &[], "the profile sso has no access key but sso_session, which Sluice does not follow"),
        ("profile = \"role\"", &[], "the profile role has no access key but role_arn"),
        ("credential = \"bearer\"", &[], "credential: there is no access key of AWS in it; expected ID:SECRET or"),
        ("credential = \"broken.json\"", &[], "credential: there is no access key of AWS in it"),
        ("credential = \"many\"\nprofile = \"sso\"", &[], "credential: there is no access key of AWS in it"),
        ("credential = \"no_token\"", &[], "is a temporary one (ASIA…), and its session token is missing"),
        ("credential = \"blank\"", &[], "is empty, or has characters that no secret has"),
        ("credential = \"gone\"", &[], "cannot be read from"),
        ("keys = [{ credential = \"bearer\" }]", &[], "keys[0].credential: there is no access key of AWS in it"),
    ] {
        let fault = home.fault(&format!("{SIGNED}\n{lines}"), variables);
        assert!(fault.contains(expected), "{lines}\n{fault}");
    }
    let fault = home.fault("auth = \"sigv5\"", &[]);
    assert!(fault.contains("providers.b.auth: \"sigv5\" is no way to authenticate"), "{fault}");
    let fault = home.fault("region = \"us-east-1\"\nprofile = \"x\"", &[]);
    assert!(fault.contains("b.region: has no effect") && fault.contains("b.profile: has no effect"), "{fault}");
    let openai = "auth = \"sigv4\"\n[providers.openai]\nauth = \"sigv4\"";
    let fault = home.fault(openai, VARIABLES);
    assert!(fault.contains("providers.openai.auth: calls in the dialect \"openai\" carry a key"), "{fault}");
    // A file that another user may write to is not used.
    let home = home.with(".aws/credentials", CREDENTIALS);
    std::fs::set_permissions(home.path(".aws/credentials"), std::fs::Permissions::from_mode(0o622)).unwrap();
    let fault = home.fault(SIGNED, &[]);
    assert!(fault.contains("the key of the provider b is not used") && fault.contains("chmod go-w"), "{fault}");
}

#[test]
fn calls_that_aws_can_only_refuse_are_warned_of() {
    let home = Home::new();
    let warnings = |lines: &str, variables: &[(&str, &str)]| {
        home.load(lines, variables, Keys::Required).unwrap().warnings.join("\n")
    };
    assert!(warnings("", &[]).contains("provider b: its calls carry no key and are not signed"));
    assert!(warnings(SIGNED, VARIABLES).lines().all(|line| !line.contains("signed")));
    assert!(!warnings("base_url = \"http://127.0.0.1:1\"", &[]).contains("not signed"));
    let of_key = |key: &str| warnings("api_key_env = \"K\"", &[("K", key)]);
    assert!(of_key("AKIA1234:abc").contains("K holds an access key of AWS, which is no API key: add auth"));
    assert!(!of_key("bedrock-api-key-abc").contains("access key"));
}

#[test]
fn commands_that_call_no_provider_need_no_access_key() {
    let home = Home::new();
    let config = home.load(SIGNED, &[], Keys::Ignored).unwrap();
    assert!(config.providers["b"].endpoint.keys.is_empty());
    assert!(!config.warnings.join("\n").contains("signed"));
}
