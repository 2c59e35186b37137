//! Variables of the environment and options of the command line, over what the file says.

use super::*;

#[test]
fn variables_override_the_file() {
    let config = route("")
        .with("SLUICE__WORKER__MAX_IN_FLIGHT", "9")
        .with("SLUICE__WORKER__DRAIN_TIMEOUT", "5s")
        .with("SLUICE__PROVIDERS__LOCAL__BREAKER__FAILURE_RATE", "0.9")
        .with("SLUICE__ROUTES__DEFAULT__RUNGS", "local/a, local/B-1.5")
        .with("SLUICE__ROUTES__DEFAULT__VALIDATE__NON_EMPTY", "false")
        .with("SLUICE__LOG__FILTER", "")
        .with("UNRELATED", "x")
        .config();
    assert_eq!((config.worker.max_in_flight, config.worker.drain_timeout), (9, Duration::from_secs(5)));
    assert!((config.providers["local"].breaker.failure_rate - 0.9).abs() < f64::EPSILON);
    let models: Vec<&str> =
        config.routes["default"].route.rungs.iter().map(|rung| rung.target.model.as_str()).collect();
    assert_eq!(models, ["a", "B-1.5"]);
    assert!(!config.routes["default"].route.rules.non_empty);
    assert_eq!(config.log.filter, "info", "an empty variable is none");
}

#[test]
fn a_fault_in_a_variable_names_the_variable() {
    let faults = given("").with("SLUICE__WORKER__MAX_INFLIGHT", "9").with("SLUICE__HTTP__LISTEN", "x").faults();
    assert_eq!(faults.len(), 2, "{faults:#?}");
    assert!(faults.iter().any(|f| f.starts_with("SLUICE__WORKER__MAX_INFLIGHT: no such key")), "{faults:#?}");
    assert!(faults.iter().any(|f| f.starts_with("SLUICE__HTTP__LISTEN: \"x\" is not an address")), "{faults:#?}");
}

#[test]
fn database_url_is_honoured_and_our_own_variable_wins() {
    let file = "[database]\nurl = \"postgres://file/d\"\n";
    let url = |given: Given| given.config().database.url.unwrap().expose_secret().to_owned();
    assert_eq!(url(given(file)), "postgres://file/d");
    assert_eq!(url(given(file).with("DATABASE_URL", "postgres://env/d")), "postgres://env/d");
    let both = given(file).with("DATABASE_URL", "postgres://env/d").with("SLUICE__DATABASE__URL", "postgresql:///own");
    assert_eq!(url(both), "postgresql:///own");
    // An empty variable does not count, and hides no other.
    let empty = given(file).with("DATABASE_URL", "postgres://env/d").with("SLUICE__DATABASE__URL", "");
    assert_eq!(url(empty), "postgres://env/d");
    assert_eq!(url(given(file).with("DATABASE_URL", "").with("SLUICE__DATABASE__URL", "")), "postgres://file/d");
    let all =
        given(file).with("SLUICE__DATABASE__URL", "postgresql:///own").with(DATABASE_URL_OPTION, "postgres://arg/d");
    assert_eq!(url(all), "postgres://arg/d");
}

#[test]
fn a_fault_of_the_databases_url_is_told_of_who_said_it() {
    for (set, place) in [
        (&[("DATABASE_URL", "mysql://h")][..], "the environment: DATABASE_URL: "),
        (&[("DATABASE_URL", "mysql://h"), ("SLUICE__DATABASE__URL", "")], "the environment: DATABASE_URL: "),
        (
            &[("DATABASE_URL", "postgres://h/d"), ("SLUICE__DATABASE__URL", "mysql://h")],
            "the environment: SLUICE__DATABASE__URL: ",
        ),
        (
            &[("DATABASE_URL", "postgres://h/d"), (DATABASE_URL_OPTION, "mysql://h")],
            "the command line: --database-url: ",
        ),
    ] {
        let given = set.iter().fold(given(""), |given, (name, value)| given.with(name, value));
        let told = given.load().unwrap_err().to_string();
        assert!(told.contains(place), "{place}: {told}");
    }
}

#[test]
fn a_fault_of_the_database_names_what_it_was_set_by() {
    let wrong = "mysql://me:secret@h/d";
    for (set, told) in [
        (&["DATABASE_URL"][..], "DATABASE_URL: is not the URL"),
        (&["SLUICE__DATABASE__URL"], "SLUICE__DATABASE__URL: is not the URL"),
        (&["--database-url"], "--database-url: is not the URL"),
        (&["DATABASE_URL", "SLUICE__DATABASE__URL"], "SLUICE__DATABASE__URL: is not the URL"),
        (&["DATABASE_URL", "SLUICE__DATABASE__URL", "--database-url"], "--database-url: is not the URL"),
    ] {
        let given = set.iter().fold(given("[database]\nmax_connections = 5\n"), |given, name| given.with(name, wrong));
        let faults = given.faults();
        assert!(faults.len() == 1 && faults[0].starts_with(told), "{faults:#?}");
    }
    // An empty variable does not count, and hides no other.
    let config = given("").with("SLUICE__DATABASE__URL", "").with("DATABASE_URL", "postgres://env/d").config();
    assert_eq!(config.database.url.unwrap().expose_secret(), "postgres://env/d");
    assert_eq!(config.database.url_set_by, "DATABASE_URL");
    let of_file = given("[database]\nurl = \"postgres://file/d\"\n").config();
    assert!(of_file.database.url_set_by.starts_with("database.url of /"), "{}", of_file.database.url_set_by);
}
