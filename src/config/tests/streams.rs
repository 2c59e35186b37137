//! Which routes and rungs have their answers streamed.

use super::*;

const PROVIDER: &str = "[providers.local]\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:8000/v1\"\n";

fn route(lines: &str) -> Given {
    given(&format!("{PROVIDER}[routes.default]\n{lines}\n"))
}

#[test]
fn a_route_says_it_for_its_rungs_and_a_rung_for_itself() {
    let other = "{ target = \"local/b\", stream = ";
    for (lines, expected) in [
        ("rungs = [\"local/a\", \"local/b\"]".to_owned(), [false, false]),
        ("rungs = [\"local/a\", \"local/b\"]\nstream = true".to_owned(), [true, true]),
        (format!("rungs = [\"local/a\", {other}false }}]\nstream = true"), [true, false]),
        (format!("rungs = [\"local/a\", {other}true }}]"), [false, true]),
    ] {
        let config = route(&lines).config();
        let streams: Vec<bool> = config.routes["default"].route.rungs.iter().map(|rung| rung.stream).collect();
        assert_eq!(streams, expected, "{lines}");
        assert!(!config.warnings.iter().any(|warning| warning.contains("stream")), "{:?}", config.warnings);
    }
    let by_variable = route("rungs = [\"local/a\"]").with("SLUICE__ROUTES__DEFAULT__STREAM", "true").config();
    assert!(by_variable.routes["default"].route.rungs[0].stream);
}

#[test]
fn what_cannot_be_streamed_is_named() {
    for (lines, expected) in [
        ("rungs = [\"local/a\"]\nstream = \"yes\"", "routes.default.stream: is \"yes\"; expected true or false"),
        (
            "rungs = [{ target = \"local/a\", stream = 1 }]",
            "routes.default.rungs[0].stream: is 1; expected true or false",
        ),
        (
            "rungs = [\"local/a\"]\nstream = true\ntemplate = { input = \"{text}\" }",
            "routes.default.stream: the route asks for embeddings, which come in one piece; expected no such key, or \
             false",
        ),
    ] {
        assert_eq!(route(lines).faults(), [expected], "{lines}");
    }
    let config = route("rungs = [\"local/nomic-embed-text\"]\nstream = true").config();
    let warnings = config.warnings.join("\n");
    assert!(warnings.contains("it makes no difference to embeddings, which come in one piece"), "{warnings}");
    assert!(warnings.contains("routes.default.stream of "), "{warnings}");
}
