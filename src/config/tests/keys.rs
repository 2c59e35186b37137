//! The sources of keys.

use super::*;

#[test]
fn a_credential_is_read_from_the_directory_that_systemd_names() {
    let given = given("[providers.openai]\ncredential = \"openai_key\"\n").with_file("openai_key", "sk-3\n");
    let dir = given.dir.path().to_str().unwrap().to_owned();
    let config = given.with("CREDENTIALS_DIRECTORY", &dir).config();
    assert_eq!(config.providers["openai"].endpoint.keys[0].secret.expose_secret(), "sk-3");
}

#[test]
fn a_key_that_cannot_be_one_is_a_fault_that_does_not_repeat_it() {
    for key in ["two words", "line\nbreak", "kéy"] {
        let faults = given("[providers.openai]\napi_key_env = \"K\"\n").with("K", key).faults();
        assert!(faults[0].contains("characters in it that no key has") && !faults[0].contains(key), "{faults:#?}");
    }
}

#[test]
fn a_provider_may_have_several_keys_from_anywhere() {
    let given = given(
        "[providers.openai]\nkeys = [{ api_key_env = \"A\" }, { api_key_file = \"b.key\" }, { credential = \"c\" }]\n",
    );
    let dir = given.dir.path().to_str().unwrap().to_owned();
    let given = given.with("A", "sk-1").with_file("b.key", "sk-2\n").with_file("c", "sk-3");
    let config = given.with("CREDENTIALS_DIRECTORY", &dir).config();
    let keys: Vec<(&str, &str)> = config.providers["openai"]
        .endpoint
        .keys
        .iter()
        .map(|key| (key.name.as_str(), key.secret.expose_secret()))
        .collect();
    let file = format!("{dir}/b.key");
    assert_eq!(keys, [("A", "sk-1"), (file.as_str(), "sk-2"), ("c", "sk-3")]);
    assert!(!format!("{config:?}").contains("sk-"), "{config:?}");
}

#[test]
fn what_is_wrong_with_a_list_of_keys_is_said_without_repeating_a_key() {
    for (keys, expected) in [
        ("keys = \"sk-secret\"", "providers.openai.keys: is not a list"),
        ("keys = []", "providers.openai.keys: is empty"),
        ("keys = [\"sk-secret\"]", "providers.openai.keys[0]: is not a table"),
        ("keys = [{}]", "providers.openai.keys[0]: says nothing of where the key is"),
        ("keys = [{ api_key = \"sk-secret\" }]", "providers.openai.keys[0].api_key: keys do not belong"),
        ("keys = [{ api_key_env = \"sk-secret\" }]", "providers.openai.keys[0].api_key_env: is not the name of a"),
        ("keys = [{ api_key_env = \"A\", credential = \"c\" }]", "keys[0].api_key_env: the key is given in more than"),
        (
            "keys = [{ api_key_env = \"A\" }, { api_key_env = \"NOT_SET\" }]",
            "keys[1].api_key_env: the variable NOT_SET",
        ),
        ("keys = [{ api_key_evn = \"A\" }]", "keys[0].api_key_evn: no such key; expected perhaps api_key_env"),
        ("keys = [{ api_key_env = \"A\" }, { api_key_env = \"A\" }]", "providers.openai.keys[1]: A is named before"),
        ("keys = [{ api_key_env = \"A\" }]\napi_key_env = \"A\"", "providers.openai.api_key_env: there is a list of"),
    ] {
        let faults = given(&format!("[providers.openai]\n{keys}\n")).with("A", "sk-secret").faults().join("\n");
        assert!(faults.contains(expected) && !faults.contains("sk-secret"), "{keys}\n{faults}");
    }
}

#[test]
fn the_same_key_under_two_names_is_a_warning() {
    let config = given("[providers.openai]\nkeys = [{ api_key_env = \"A\" }, { api_key_env = \"B\" }]\n");
    let warnings = config.with("A", "sk-1").with("B", "sk-1").config().warnings.join("\n");
    assert!(warnings.contains("provider openai: B and A hold the same key"), "{warnings}");
}

#[test]
fn commands_that_call_no_provider_need_no_keys() {
    let given = given("[providers.openai]\napi_key_env = \"NOT_SET\"\n");
    let file = given.dir.path().join("sluice.toml");
    let config = Config::load_with(Some(&file), [], Keys::Ignored).unwrap();
    assert!(config.providers["openai"].endpoint.keys.is_empty());
}
