//! Rungs of a route that do not fit together.

use super::*;

fn told(rungs: &str, more: &str) -> String {
    let provider = |name| format!("[providers.{name}]\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\n");
    let providers: String = ["openai", "cohere", "other"].map(provider).concat();
    given(&format!("{providers}[routes.default]\nrungs = {rungs}\n{more}")).config().warnings.join("\n")
}

#[test]
fn vectors_of_different_models_on_one_route_are_a_warning() {
    let differ = "make vectors that cannot be compared with each other";
    for rungs in [
        "[\"openai/text-embedding-3-small\", \"cohere/embed-v4.0\"]",
        "[\"other/chat\", \"openai/text-embedding-3-small\", \"other/text-embedding-3-large\"]",
        "[\"other/BAAI/bge-m3\", \"other/voyage-3\"]",
    ] {
        assert!(told(rungs, "").contains(differ), "{rungs}: {}", told(rungs, ""));
    }
    for rungs in [
        "[\"openai/text-embedding-3-small\", \"other/openai/Text-Embedding-3-small:latest\"]",
        "[\"openai/text-embedding-3-small\", \"other/chat\"]",
        "[\"other/chat\", \"other/talk\"]",
    ] {
        assert!(!told(rungs, "").contains(differ), "{rungs}: {}", told(rungs, ""));
    }
    let asks = "template = { input = \"{text}\" }";
    assert!(told("[\"other/a\", \"other/b\"]", asks).contains(differ));
    let same = "[models.\"other/my-embed\"]\nserved_as = [\"text-embedding-3-small\"]";
    assert!(!told("[\"openai/text-embedding-3-small\", \"other/my-embed\"]", same).contains(differ));
}

#[test]
fn rungs_that_no_job_of_a_pinned_route_reaches_are_a_warning() {
    let two = "[\"other/a\", \"other/b\"]";
    let unreached = "no job reaches other/b,";
    for pinned in ["fallback = \"never\"", "fallback_on = []"] {
        let priority = format!("strategy = \"priority\"\n{pinned}");
        assert!(told(two, &priority).contains(unreached), "{}", told(two, &priority));
        let drawn = format!("strategy = \"weighted\"\nweights = {{ \"other/a\" = 1, \"other/b\" = 0 }}\n{pinned}");
        assert!(told(two, &drawn).contains(unreached), "{}", told(two, &drawn));
        // Those that the first cannot take reach it.
        let narrow = format!("{priority}\n[models.\"other/a\"]\ncontext_window = 1000");
        assert!(!told(two, &narrow).contains("no job reaches"), "{}", told(two, &narrow));
        assert!(!told(two, pinned).contains("no job reaches"), "the cheapest may be either");
    }
    assert!(!told(two, "strategy = \"priority\"").contains("no job reaches"));
}

#[test]
fn a_rule_that_never_holds_and_hours_without_an_end_are_warnings() {
    let rule = |when: &str| {
        let more = format!("rules = [{{ when = {{ {when} }}, route = \"b\" }}]\n[routes.b]\nrungs = [\"other/b\"]");
        told("[\"other/a\"]", &more)
    };
    for when in ["needs = [\"embeddings\", \"tools\"]", "needs = [\"embeddings\"], language = [\"de\"]"] {
        assert!(rule(when).contains("so it never holds"), "{when}: {}", rule(when));
    }
    for when in ["needs = [\"embeddings\"]", "needs = [\"tools\", \"json\"]", "language = [\"de\"]"] {
        assert!(!rule(when).contains("so it never holds"), "{when}: {}", rule(when));
    }
    let hours = |hours: &str| {
        let price = "price = { input = \"1\", output = \"1\" }";
        told("[\"other/a\"]", &format!("[models.\"other/a\"]\n{price}\npeak_hours = {hours}\noff_peak = \"0.5\""))
    };
    for all in ["[\"00:00-24:00\"]", "[\"06:00-18:00\", \"18:00-06:00\"]"] {
        assert!(hours(all).contains("the price of off_peak is never taken"), "{all}: {}", hours(all));
    }
    assert!(!hours("[\"mon-fri 00:00-24:00\"]").contains("never taken"));
}
