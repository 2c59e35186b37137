//! The habits of a server's answers, and the members that a route wants kept.

use super::*;
use crate::domain::MustKeep;
use crate::domain::request::Extras;
use crate::provider::HeaderName;
use crate::provider::own_errors::OwnError;
use crate::provider::own_headers::{OwnHeaders, OwnLimit};
use crate::provider::usage_places::UsagePlaces;

/// A server that no row knows, with these quirks.
fn server(quirks: &str) -> Given {
    given(&format!("{LOCAL}[providers.local.quirks]\n{quirks}\n"))
}

#[test]
fn a_server_that_is_sent_no_cap_has_none_in_the_worst_case() {
    let ignores = |quirks: &str| {
        let with = format!("{LOCAL}[providers.local.quirks]\n{quirks}\n[routes.default]\nrungs = [\"local/m\"]\n");
        let config = given(&with).config();
        config.routes["default"].route.rungs[0].model.capabilities.ignores_cap
    };
    for quirks in ["drop = [\"max_tokens\"]", "takes_only = [\"model\", \"messages\"]"] {
        assert!(ignores(quirks), "{quirks}");
    }
    for quirks in
        ["drop = [\"seed\"]", "rename = { max_tokens = \"max_new_tokens\" }", "cap_field = \"max_completion_tokens\""]
    {
        assert!(!ignores(quirks), "{quirks}");
    }
}

#[test]
fn what_a_server_is_not_sent_of_a_request_adds_nothing_to_the_worst_case() {
    let unsent = |more: &str, rung: &str| {
        let config = given(&format!("{more}\n[routes.default]\nrungs = [\"{rung}\"]\n")).config();
        config.routes["default"].route.rungs[0].model.capabilities.unsent_extras.clone()
    };
    assert!(unsent(LOCAL, "local/m").is_empty());
    let drops = format!("{LOCAL}[providers.local.quirks]\ndrop = [\"service_tier\", \"best_of\"]\n");
    assert_eq!(unsent(&drops, "local/m").into_iter().collect::<Vec<_>>(), ["best_of", "service_tier"]);
    let other = |dialect: &str| {
        let provider = "base_url = \"http://127.0.0.1:1/v1\"\nlimits = { concurrency = 1 }\n";
        unsent(&format!("[providers.other]\ndialect = \"{dialect}\"\n{provider}"), "other/m")
    };
    assert!(!other("openai_responses").contains("service_tier") && other("openai_responses").contains("best_of"));
    for dialect in ["anthropic", "gemini"] {
        assert!(Extras::members().all(|member| other(dialect).contains(member)), "{dialect}");
    }
}

#[test]
fn the_habits_of_a_servers_answers_arrive() {
    let config = server(
        "errors = [{ code = \"E_FULL\", class = \"overloaded\" }, { code = 17, status = 402, class = \"auth\" },\n\
         { status = 420, says = \"No *`Quota`\", class = \"rate_limit\" }]\n\
         headers = { wait = \"X-Slow-Down-Ms\", request_id = \"x-trace\", requests_remaining = \"x-left\" }\n\
         usage = { input = \"/meta/tokens/in\", cost = \"/meta/a~1b\" }\n",
    )
    .config();
    let quirks = &config.providers["local"].endpoint.quirks;
    let row = |code: Option<&str>, status, says: Option<&str>, class| OwnError {
        code: code.map(str::to_owned),
        status,
        says: says.map(str::to_owned),
        class,
    };
    assert_eq!(
        quirks.errors,
        [
            row(Some("E_FULL"), None, None, ErrorClass::Overloaded),
            row(Some("17"), Some(402), None, ErrorClass::Auth),
            row(None, Some(420), Some("no *quota"), ErrorClass::RateLimit),
        ]
    );
    let name = |name| Some(HeaderName::from_static(name));
    let expected = OwnHeaders {
        wait: name("x-slow-down-ms"),
        request_id: name("x-trace"),
        requests: OwnLimit { remaining: name("x-left"), ..OwnLimit::default() },
        ..OwnHeaders::default()
    };
    assert_eq!(quirks.headers, expected);
    let place = |place: &str| Some(place.to_owned());
    let expected = UsagePlaces { input: place("/meta/tokens/in"), cost: place("/meta/a~1b"), ..UsagePlaces::default() };
    assert_eq!(quirks.usage, expected);
}

#[test]
fn what_is_wrong_with_a_habit_is_said_at_its_key() {
    let errors = "providers.local.quirks.errors";
    for (quirks, expected) in [
        ("errors = \"E\"", format!("{errors}: is a text; expected a list of errors such as")),
        ("errors = [\"E\"]", format!("{errors}[0]: is no error; expected a list of errors such as")),
        (
            "errors = [{ code = \"E\" }]",
            format!("{errors}[0].class: is missing; expected one of rate_limit, rate_limit_daily, "),
        ),
        (
            "errors = [{ code = \"E\", class = \"overlaoded\" }]",
            format!(
                "{errors}[0].class: \"overlaoded\" is not an error class; perhaps \"overloaded\" is meant; expected"
            ),
        ),
        (
            "errors = [{ code = \"E\", class = \"accepted\" }]",
            format!("{errors}[0].class: \"accepted\" is not an error"),
        ),
        (
            "errors = [{ code = \"E\", class = \"network\" }]",
            format!(
                "{errors}[0].class: \"network\" is found out on this side, and no server reports it; expected one of"
            ),
        ),
        (
            "errors = [{ code = \"E\", class = \"soft_failure\" }]",
            format!("{errors}[0].class: \"soft_failure\" is found out on this side"),
        ),
        (
            "errors = [{ code = \" \", class = \"auth\" }]",
            format!("{errors}[0].code: is empty; expected a code such as"),
        ),
        ("errors = [{ code = true, class = \"auth\" }]", format!("{errors}[0].code: true is no code; expected")),
        (
            "errors = [{ class = \"auth\" }]",
            format!("{errors}[0]: says of no error how it is told; expected code, status, or says beside one of them"),
        ),
        (
            "errors = [{ says = \"no\", class = \"auth\" }]",
            format!("{errors}[0].says: is alone, and messages quote prompts that may say the same; expected a code or"),
        ),
        (
            "errors = [{ status = 200, class = \"auth\" }]",
            format!("{errors}[0].status: is 200; expected a whole number from 400 to 599"),
        ),
        (
            "errors = [{ code = \"E\", clas = \"auth\", class = \"auth\" }]",
            format!("{errors}[0].clas: no such key; expected perhaps class"),
        ),
        (
            "errors = [{ status = 420, class = \"auth\" }, { status = 420, code = \"E\", class = \"rate_limit\" }]",
            format!(
                "{errors}[1]: errors[0] fits every error that this row fits, so it never decides; expected the \
                 narrower row first"
            ),
        ),
        (
            "headers = { wait = \"slow down\" }",
            "providers.local.quirks.headers.wait: \"slow down\" is not the name of a header; expected".to_owned(),
        ),
        (
            "headers = { wait = \"\" }",
            "providers.local.quirks.headers.wait: \"\" is not the name of a header; expected".to_owned(),
        ),
        (
            "headers = { retry = \"x\" }",
            "providers.local.quirks.headers.retry: no such key; expected one of wait, request_id, ".to_owned(),
        ),
        (
            "usage = { input = \"meta.in\" }",
            "providers.local.quirks.usage.input: \"meta.in\" is not a JSON pointer; expected a JSON pointer".to_owned(),
        ),
        ("usage = { total = \"/a\" }", "providers.local.quirks.usage.total: no such key; expected".to_owned()),
        ("usage = \"/a\"", "providers.local.quirks.usage: is a text; expected a table".to_owned()),
    ] {
        let faults = server(quirks).faults();
        assert_eq!(faults.len(), 1, "{quirks}: {faults:?}");
        assert!(faults[0].starts_with(&expected), "{quirks}: {} and not {expected}", faults[0]);
    }
    let usage = |provider: &str| given(&format!("{provider}quirks = {{ usage = {{ input = \"/a\" }} }}\n"));
    let claude = usage("[providers.anthropic]\n").faults().concat();
    assert!(claude.contains("quirks.usage: is a quirk of OpenAI's dialect"), "{claude}");
    usage("[providers.base]\ndialect = \"completions\"\nbase_url = \"http://127.0.0.1:1/v1\"\n").config();
    let both = "errors = [{ code = \"E\", class = \"auth\" }], headers = { wait = \"x\" }";
    given(&format!("[providers.anthropic]\nquirks = {{ {both} }}\n"))
        .load()
        .map_or_else(|errors| assert!(!errors.to_string().contains("quirks"), "{errors}"), drop);
}

#[test]
fn a_route_says_which_members_must_be_kept() {
    let read = |lines: &str| route(lines).config().routes["default"].route.must_keep.clone();
    let members = |names: &[&str]| MustKeep::Members(names.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(read(""), MustKeep::Nothing);
    assert_eq!(read("must_keep = []"), MustKeep::Nothing);
    assert_eq!(read("must_keep = \"all\""), MustKeep::All);
    assert_eq!(read("must_keep = [\"seed\", \"messages[].name\"]"), members(&["seed", "messages[].name"]));
    let of_variable = route("").with("SLUICE__ROUTES__DEFAULT__MUST_KEEP", "seed, top_k").config();
    assert_eq!(of_variable.routes["default"].route.must_keep, members(&["seed", "top_k"]));
    let key = "routes.default.must_keep";
    for (lines, expected) in [
        ("must_keep = \"seed\"", format!("{key}: is \"seed\"; expected \"all\", or a list of members such as")),
        ("must_keep = [\"all\"]", format!("{key}: has \"all\" in a list; expected must_keep = \"all\", or a list")),
        ("must_keep = true", format!("{key}: is true; expected \"all\", or a list of members such as")),
        ("must_keep = [7]", format!("{key}[0]: is 7; expected")),
        ("must_keep = [\"\"]", format!("{key}[0]: \"\" is not the path of a member; expected")),
        ("must_keep = [\"a..b\"]", format!("{key}[0]: \"a..b\" is not the path of a member; expected")),
        (
            "must_keep = [\"stream\"]",
            format!("{key}[0]: \"stream\" is always sent as the route and the worker want it"),
        ),
        (
            "must_keep = [\"service_tier\"]",
            format!(
                "{key}: the route does not let \"service_tier\" pass, so it is left out before any rung is asked; \
                 expected \"service_tier\" in `pass`, or not here"
            ),
        ),
    ] {
        let faults = route(lines).faults();
        assert_eq!(faults.len(), 1, "{lines}: {faults:?}");
        assert!(faults[0].starts_with(&expected), "{lines}: {} and not {expected}", faults[0]);
    }
    assert_eq!(read("must_keep = [\"service_tier\"]\npass = [\"service_tier\"]"), members(&["service_tier"]));
    let dropped = given(&format!(
        "{LOCAL}quirks = {{ drop = [\"seed\"] }}\n[routes.default]\nrungs = [\"local/m\"]\nmust_keep = [\"seed\"]\n"
    ));
    let faults = dropped.faults();
    assert_eq!(
        faults,
        [format!("{key}: `quirks.drop` of each of its providers leaves out \"seed\"; expected a rung that takes it")]
    );
    let warned = route("must_keep = [\"sead\"]").config().warnings.join("\n");
    assert!(warned.contains("no provider is known to take \"sead\"; perhaps \"seed\" is meant"), "{warned}");
    let warned = route("must_keep = [\"nonsense\"]").config().warnings.join("\n");
    assert!(warned.contains("no provider is known to take \"nonsense\": it is sent as it is"), "{warned}");
    // What is always kept does no harm.
    for always in ["messages", "prompt", "input", "seed", "messages[].name"] {
        let config = route(&format!("must_keep = [\"{always}\"]")).config();
        assert_eq!(config.routes["default"].route.must_keep, members(&[always]));
        assert!(!config.warnings.join("\n").contains("must_keep"), "{always}: {:?}", config.warnings);
    }
    // A member that none of the rungs is sent by its dialect.
    let of = |rungs: &str| {
        let claude = "[providers.claude]\ndialect = \"anthropic\"\nbase_url = \"http://127.0.0.1:9/v1\"\n";
        let text = format!("{LOCAL}\n{claude}[routes.default]\nrungs = [{rungs}]\nmust_keep = [\"seed\"]\n");
        given(&text).config().warnings.join("\n")
    };
    let told = "no rung of the route is sent \"seed\", so every request that has it fails";
    assert!(of("\"claude/m\"").contains(told), "{}", of("\"claude/m\""));
    assert!(!of("\"claude/m\", \"local/m\"").contains("must_keep"));
}
