//! Where traces are sent.

use super::*;

const SECRET: &str = "Bearer zq-collector";

fn traces(lines: &str) -> Given {
    given(&format!("[traces]\n{lines}\n"))
}

#[test]
fn without_an_endpoint_no_traces_are_sent() {
    assert_eq!(given("").config().traces, None);
    let config = traces("sample = 0.5").config();
    assert_eq!(config.traces, None);
    assert_eq!(config.warnings, ["traces.endpoint is not set, so no traces are sent"]);
}

#[test]
fn the_declared_defaults_hold_and_a_url_without_a_path_gets_one() {
    let read = traces("endpoint = \"http://127.0.0.1:4318\"").config().traces.unwrap();
    assert_eq!(read.collector.endpoint.as_str(), "http://127.0.0.1:4318/v1/traces");
    assert_eq!((read.collector.timeout, read.collector.service.as_str()), (Duration::from_secs(10), "sluice"));
    assert_eq!((read.sample, read.collector.headers.len()), (1.0, 0));
    let read = given("").with("SLUICE__TRACES__ENDPOINT", "http://[::1]:4318/x").with("SLUICE__TRACES__SAMPLE", "0.25");
    let read = read.config().traces.unwrap();
    assert_eq!((read.collector.endpoint.path(), read.sample), ("/x", 0.25));
}

#[test]
fn headers_come_from_a_variable_a_file_or_a_credential_and_are_not_shown() {
    for line in ["headers_env = \"HEADERS\"", "headers_file = \"headers\"", "credential = \"headers\""] {
        let text = format!("Authorization: {SECRET}\nx-team: core\n");
        let given = traces(&format!("endpoint = \"https://otel.example.com\"\n{line}"))
            .with("HEADERS", &text)
            .with_file("headers", &text);
        let folder = given.dir.path().to_str().unwrap().to_owned();
        let config = given.with("CREDENTIALS_DIRECTORY", &folder).config();
        assert_eq!(config.warnings, [""; 0]);
        let headers = &config.traces.as_ref().unwrap().collector.headers;
        let read: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.expose_secret())).collect();
        assert_eq!(read, [("authorization", SECRET), ("x-team", "core")]);
        assert!(!format!("{config:?}").contains(SECRET), "no secret is printed");
    }
    let given = traces("endpoint = \"http://otel.example.com\"\nheaders_env = \"HEADERS\"").with("HEADERS", "a: b");
    assert_eq!(given.config().warnings, ["the headers of traces are sent unencrypted: use https"]);
    let path = given.dir.path().join("sluice.toml");
    let without = Config::load_with(Some(&path), Vec::new(), Keys::Ignored).unwrap();
    assert_eq!(without.traces.unwrap().collector.headers.len(), 0, "a command without keys reads none");
}

#[test]
fn each_fault_has_its_message_and_none_repeats_a_secret() {
    let endpoint = "endpoint = \"https://otel.example.com\"";
    for (lines, fault) in [
        ("endpoint = \"localhost:4317\"".to_owned(), "traces.endpoint: is no URL that begins with https://"),
        ("endpoint = \"http://me:zq-pass@host\"".to_owned(), "traces.endpoint: has a name or a password"),
        (format!("{endpoint}\nsample = 0"), "traces.sample: is 0; expected"),
        (format!("{endpoint}\nsample = 2"), "traces.sample: is 2; expected"),
        (format!("{endpoint}\ntimeout = \"2m\""), "traces.timeout: is longer than a minute"),
        (format!("{endpoint}\nheaders = \"a: zq-secret\""), "traces.headers: headers are secrets"),
        (format!("{endpoint}\nheaders_env = \"NOT_SET\""), "traces.headers_env: the variable NOT_SET is not set"),
        (
            format!("{endpoint}\nheaders_env = \"WRONG\""),
            "traces.headers_env: the headers of traces: line 2 has no colon",
        ),
        (
            format!("{endpoint}\nheaders_file = \"missing\""),
            "traces.headers_file: the header for traces cannot be read",
        ),
        (
            format!("{endpoint}\nheaders_env = \"WRONG\"\nheaders_file = \"x\""),
            "traces.headers_env: is given in more than one way",
        ),
        (format!("{endpoint}\nprotocol = \"grpc\""), "traces.protocol: "),
    ] {
        let faults = traces(&lines).with("WRONG", "a: zq-secret\nzq-secret").faults();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].starts_with(fault) && !faults[0].contains("zq-"), "{lines}: {faults:?}");
    }
}
