use super::*;
use proptest::prelude::*;

fn read(text: &[u8]) -> Vec<Result<InputJob, String>> {
    let limits = ReadLimits { line_bytes: 2_000 };
    JobReader::new(text, limits).map(|job| job.map_err(|error| error.to_string())).collect()
}

fn only(text: &str) -> Result<InputJob, String> {
    let mut jobs = read(text.as_bytes());
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    jobs.remove(0)
}

#[test]
fn the_three_formats_may_be_mixed() {
    let text = concat!(
        r#"{"custom_id":"a","method":"POST","url":"/v1/chat/completions","#,
        r#""body":{"model":"m","messages":[{"role":"user","content":"Hi"}]},"#,
        r#""metadata":{"k":12345678901234567890123}}"#,
        r#"

{"messages":[{"role":"user","content":"Hi"}],"metadata":{"stays":"here"}}
  {"prompt":"Hi"}
{"custom_id":"b","prompt":"Hi"}
"#
    );
    let jobs: Vec<InputJob> = read(text.as_bytes()).into_iter().map(Result::unwrap).collect();
    let told: Vec<_> = jobs
        .iter()
        .map(|job| (job.line, job.custom_id.as_deref(), job.metadata.as_deref(), job.body.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (
                1,
                Some("a"),
                Some(r#"{"k":12345678901234567890123}"#),
                r#"{"model":"m","messages":[{"role":"user","content":"Hi"}]}"#
            ),
            (3, None, None, r#"{"messages":[{"role":"user","content":"Hi"}],"metadata":{"stays":"here"}}"#),
            (4, None, None, r#"{"prompt":"Hi"}"#),
            (5, Some("b"), None, r#"{"prompt":"Hi"}"#),
        ]
    );
    assert!(jobs.iter().all(|job| job.request.messages.len() == 1));
}

#[test]
fn what_stands_beside_a_prompt_and_is_no_parameter_is_metadata() {
    for (line, metadata, body) in [
        (r#"{"id":"a","review_id":7,"prompt":"Hi"}"#, Some(r#"{"id":"a","review_id":7}"#), r#"{"prompt":"Hi"}"#),
        (
            r#"{"custom_id":"x", "prompt":"Hi","temperature":1.0,"price":12345678901234567890.50,"top_k":5}"#,
            Some(r#"{"price":12345678901234567890.50}"#),
            r#"{"prompt":"Hi","temperature":1.0,"top_k":5}"#,
        ),
        // An explicit metadata is the job's, and comes first.
        (r#"{"prompt":"Hi","metadata":{"k":1.0}}"#, Some(r#"{"k":1.0}"#), r#"{"prompt":"Hi"}"#),
        (
            r#"{"id":"line","prompt":"Hi","metadata":{"id":"own","k":1},"row":2}"#,
            Some(r#"{"id":"own","k":1,"row":2}"#),
            r#"{"prompt":"Hi"}"#,
        ),
        (r#"{"prompt":"Hi","metadata":null}"#, None, r#"{"prompt":"Hi"}"#),
        (r#"{"prompt":"Hi","metadata":{}}"#, Some("{}"), r#"{"prompt":"Hi"}"#),
        // A batch line whose body is short.
        (
            r#"{"custom_id":"x","body":{"prompt":"Hi","review_id":7},"metadata":{"k":1.0}}"#,
            Some(r#"{"k":1.0,"review_id":7}"#),
            r#"{"prompt":"Hi"}"#,
        ),
        (r#"{"body":{"prompt":"Hi"},"metadata":{"k":1.0}}"#, Some(r#"{"k":1.0}"#), r#"{"prompt":"Hi"}"#),
        // Columns that are named like a vendor's parameter, and are none by their values.
        (
            r#"{"prompt":"Hi","provider":"acme","reasoning":"because","store":"Berlin"}"#,
            Some(r#"{"provider":"acme","reasoning":"because","store":"Berlin"}"#),
            r#"{"prompt":"Hi"}"#,
        ),
        (r#"{"prompt":"Hi","provider":{"only":["x"]}}"#, None, r#"{"prompt":"Hi","provider":{"only":["x"]}}"#),
        (r#"{"prompt":"Hi","label":null,"seed":null}"#, Some(r#"{"label":null}"#), r#"{"prompt":"Hi","seed":null}"#),
    ] {
        let job = only(line).unwrap();
        let told = (job.metadata.as_deref(), job.body.as_str(), &*job.request.raw);
        assert_eq!(told, (metadata, body, body), "{line}");
    }
    assert_eq!(only(r#"{"prompt":"x","metadata":3}"#), Err("1: metadata: expected an object".to_owned()));
}

#[test]
fn embeddings_come_as_batch_lines_and_bare() {
    for (line, custom_id, metadata, body, notes) in [
        (
            r#"{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{"input":["x", "y"],"model":"m"}}"#,
            Some("a"),
            None,
            r#"{"input":["x", "y"],"model":"m"}"#,
            0,
        ),
        (r#"{"body":{"input":[1,2]},"metadata":{"k":1}}"#, None, Some(r#"{"k":1}"#), r#"{"input":[1,2]}"#, 0),
        (r#"{"input":"x","dimensions":4}"#, None, None, r#"{"input":"x","dimensions":4}"#, 0),
        (
            r#"{"custom_id":"b","input":"x","metadata":{"k":1.0},"doc":5}"#,
            Some("b"),
            Some(r#"{"k":1.0}"#),
            r#"{"input":"x","doc":5}"#,
            1,
        ),
    ] {
        let job = only(line).unwrap();
        assert!(job.request.embed.is_some(), "{line}");
        let told = (job.custom_id.as_deref(), job.metadata.as_deref(), job.body.as_str(), job.notes.len());
        assert_eq!(told, (custom_id, metadata, body, notes), "{line}");
    }
    // A column beside a prompt is its author's own, under any name.
    let job = only(r#"{"prompt":"Hi","input":"column"}"#).unwrap();
    assert_eq!((job.request.embed, job.metadata.as_deref()), (None, Some(r#"{"input":"column"}"#)));
}

#[test]
fn members_that_no_provider_is_known_to_take_are_told() {
    let unknown = |name: &str| MemberNote::Unknown(name.to_owned());
    for (line, notes) in [
        (
            concat!(
                r#"{"custom_id":"a","body":{"messages":[{"role":"user","content":"x"}],"#,
                r#""review_id":7,"top_k":5,"extra_body":{}}}"#
            ),
            vec![unknown("review_id")],
        ),
        (
            r#"{"messages":[{"role":"user","content":"x"}],"temprature":0.5,"provider":"acme"}"#,
            vec![unknown("provider"), unknown("temprature")],
        ),
        (r#"{"messages":[{"role":"user","content":"x"}],"reasoning":{"effort":"low"},"thinking":{}}"#, vec![]),
        (r#"{"prompt":"x","review_id":7}"#, vec![]),
        (r#"{"prompt":"x","temprature":0.5}"#, vec![MemberNote::Slip("temprature".to_owned())]),
        (r#"{"prompt":"x","id":1,"metadata":{"id":2}}"#, vec![MemberNote::Doubled("id".to_owned())]),
    ] {
        assert_eq!(only(line).unwrap().notes, notes, "{line}");
    }
}

#[test]
fn a_fault_names_its_line_its_field_and_what_was_expected() {
    for (line, fault) in [
        (
            "[]",
            "1: expected an object: a batch line with `body`, a request with `messages` or `input`, or {\"prompt\": …}",
        ),
        ("{\"a\":", "1: expected JSON: EOF while parsing a value at column 5"),
        ("{} {}", "1: expected JSON: trailing characters at column 4"),
        (
            r#"{"body":{"messages":[{"role":"user","content":"x"},{"role":"boss","content":"x"}]}}"#,
            "1: body.messages[1].role: expected one of system, developer, user, assistant, tool, found `boss`",
        ),
        (r#"{"body":7}"#, "1: body: expected an object, found 7"),
        (r#"{"url":"/v1/chat/completions"}"#, "1: body: is missing; expected the request"),
        (r#"{"method":"GET","body":{"prompt":"x"}}"#, "1: method: expected \"POST\""),
        (
            r#"{"url":"/v1/embeddings","body":{"prompt":"x"}}"#,
            "1: body.input: is missing; expected the inputs, as `url` is /v1/embeddings",
        ),
        (
            r#"{"url":"/v1/chat/completions","body":{"input":"x"}}"#,
            "1: url: expected /v1/embeddings, as the body has `input`",
        ),
        (
            r#"{"url":"/v1/responses","body":{"input":"x"}}"#,
            "1: url: \"/v1/responses\" is not supported by this version; expected /v1/chat/completions or \
             /v1/embeddings",
        ),
        (
            r#"{"url":"/v1/embeddings","body":{"input":["x",[1]]}}"#,
            "1: body.input[1]: expected a text, as the first input is, found an array",
        ),
        (
            r#"{"url":"/v1/chat/completions","body":{"input":"x","messages":[]}}"#,
            "1: body.input: expected either `input` (for embeddings) or `messages`, found both",
        ),
        (r#"{"input":[]}"#, "1: input: expected at least one input, found an empty array"),
        (r#"{"input":"x","metadata":3}"#, "1: metadata: expected an object"),
        (r#"{"metadata":3,"body":{"prompt":"x"}}"#, "1: metadata: expected an object"),
        (
            r#"{"priority":3,"body":{"prompt":"x"}}"#,
            "1: priority: is not a member of a batch line; expected custom_id, method, url, body or metadata",
        ),
        (r#"{"custom_id":3,"body":{"prompt":"x"}}"#, "1: custom_id: expected a string of 1 to 512 bytes"),
        (r#"{"prompt":"a\u0000b"}"#, "1: prompt: contains NUL (\\u0000), which Postgres cannot store"),
        (r#"{"prompt":"\u0000","prompt":"x"}"#, "1: contains NUL (\\u0000), which Postgres cannot store"),
        (r#"{"prompt":"x","seed":1e-20000}"#, "1: the number at column 22 is too long or too small to be stored"),
    ] {
        assert_eq!(only(line), Err(fault.to_owned()), "{line}");
    }
    assert!(only(r#"{"body":{"prompt":"x"},"body":{"prompt":"y"}}"#).unwrap_err().contains("duplicate field `body`"));
    assert!(only(r#"{"prompt":"a backslash and u0000: \\u0000"}"#).is_ok());
    assert!(only(r#"{"prompt":"half a pair: \ud800"}"#).is_err());
}

#[test]
fn bytes_that_are_not_utf8_are_named_by_column() {
    assert_eq!(read(b"{\"prompt\":\"\xff\"}"), [Err("1: expected UTF-8, found other bytes at column 12".to_owned())]);
}

#[test]
fn a_line_that_is_too_long_is_named_and_the_next_is_read() {
    let text = format!("{{\"prompt\":\"{}\"}}\n{{\"prompt\":\"x\"}}\n", "x".repeat(5_000));
    let jobs = read(text.as_bytes());
    assert_eq!(jobs[0], Err("1: expected at most 2000 bytes in a line, found more".to_owned()));
    assert_eq!(jobs[1].as_ref().unwrap().line, 2);
}

#[test]
fn the_second_of_two_equal_names_is_refused_and_both_lines_are_named() {
    let text = "{\"custom_id\":\"a\",\"prompt\":\"x\"}\n\n{\"custom_id\":\"a\",\"prompt\":\"y\"}\n{\"prompt\":\"z\"}";
    let jobs = read(text.as_bytes());
    assert!(jobs[0].is_ok() && jobs[2].is_ok());
    assert_eq!(jobs[1], Err("3: custom_id: lines 1 and 3 have the same custom_id; expected each only once".to_owned()));
}

#[test]
fn after_a_failure_to_read_nothing_more_comes() {
    struct Broken;
    impl std::io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the cable is out"))
        }
    }
    let source = std::io::BufReader::new(std::io::Read::chain(&b"{\"prompt\":\"x\"}\n{\"pro"[..], Broken));
    let mut jobs = JobReader::new(source, ReadLimits::default());
    assert!(jobs.next().unwrap().is_ok());
    let error = jobs.next().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "2: cannot be read any further: the cable is out");
    assert!(jobs.next().is_none());
}

/// Bytes that are nearly jobs.
fn nearly_jobs() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<Vec<u8>>(),
        prop::sample::select(vec![
            "{\"prompt\":\"x\"}",
            "{\"custom_id\":\"a\",",
            "\"body\":{",
            "\"messages\":[",
            "{\"role\":\"user\",",
            "\"content\":",
            "\"\\u0000\"",
            "\"\\ud800\"",
            "1e-99999",
            "}",
            "]",
            "\n",
            "\r\n",
            "\u{feff}",
            "\"",
            ",",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_bytes_give_the_same_jobs_and_faults_each_time(text in nearly_jobs()) {
        let first = read(&text);
        prop_assert_eq!(&first, &read(&text));
        prop_assert!(first.len() <= text.split(|byte| *byte == b'\n').count());
    }
}
