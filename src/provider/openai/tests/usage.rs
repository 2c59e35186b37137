//! Token counts.

use super::*;
use crate::domain::NanoUsd;
use crate::provider::QuirkSettings;
use crate::provider::checks::{headers, spoken};
use crate::provider::usage_places::UsagePlaces;

#[test]
fn usage_is_split_into_disjoint_classes() {
    let check = |adapter: &dyn Adapter, raw: Value, expected: [i64; 6]| {
        let body = json!({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": raw});
        let answer = answer(adapter, &body);
        assert_eq!(answer.usage, usage(expected), "{raw}");
        assert_eq!(answer.usage_raw, Some(raw));
    };
    let xai = at("https://api.x.ai/v1");
    // OpenAI: both caches and reasoning inside.
    check(
        openai(),
        json!({"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150,
            "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
            "completion_tokens_details": {"reasoning_tokens": 20}}),
        [10, 60, 30, 0, 50, 20],
    );
    // Mistral's three spellings.
    check(
        server(),
        json!({"prompt_tokens": 100, "completion_tokens": 5, "num_cached_tokens": 40}),
        [60, 40, 0, 0, 5, 0],
    );
    check(
        server(),
        json!({"prompt_tokens": 100, "completion_tokens": 5, "prompt_token_details": {"cached_tokens": 40}}),
        [60, 40, 0, 0, 5, 0],
    );
    check(
        server(),
        json!({"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 40}}),
        [60, 40, 0, 0, 5, 0],
    );
    // DeepSeek.
    check(
        server(),
        json!({"prompt_tokens": 100, "prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36,
            "completion_tokens": 9, "total_tokens": 109}),
        [36, 64, 0, 0, 9, 0],
    );
    // xAI: reasoning outside, by the total and without one; cached may be outside.
    check(
        xai,
        json!({"prompt_tokens": 37, "completion_tokens": 530, "total_tokens": 800,
            "completion_tokens_details": {"reasoning_tokens": 233}}),
        [37, 0, 0, 0, 763, 233],
    );
    check(
        xai,
        json!({"prompt_tokens": 37, "completion_tokens": 530, "completion_tokens_details": {"reasoning_tokens": 233}}),
        [37, 0, 0, 0, 763, 233],
    );
    check(
        xai,
        json!({"prompt_tokens": 37, "completion_tokens": 530, "total_tokens": 567,
            "completion_tokens_details": {"reasoning_tokens": 233}}),
        [37, 0, 0, 0, 530, 233],
    );
    check(
        xai,
        json!({"prompt_tokens": 4, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 160}}),
        [4, 160, 0, 0, 1, 0],
    );
    // A total decides anywhere; more reasoning than output can only be outside.
    check(
        server(),
        json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 35,
            "completion_tokens_details": {"reasoning_tokens": 20}}),
        [10, 0, 0, 0, 25, 20],
    );
    check(
        server(),
        json!({"prompt_tokens": 10, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 20}}),
        [10, 0, 0, 0, 25, 20],
    );
    // A total beyond the parts was billed too.
    check(
        server(),
        json!({"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623}),
        [20, 0, 0, 0, 603, 405],
    );
    check(
        server(),
        json!({"prompt_tokens": 21, "completion_tokens": 0, "total_tokens": 81,
            "completion_tokens_details": {"reasoning_tokens": 60}}),
        [21, 0, 0, 0, 60, 60],
    );
    check(
        xai,
        json!({"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623,
            "completion_tokens_details": {"reasoning_tokens": 300}}),
        [20, 0, 0, 0, 603, 405],
    );
    // One below its parts is not believed.
    for total in [0, 5, 17] {
        check(
            server(),
            json!({"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": total}),
            [20, 0, 0, 0, 198, 0],
        );
    }
    check(
        server(),
        json!({"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": i64::MAX}),
        [20, 0, 0, 0, 198, 0],
    );
    // More of the prompt from the cache than there is, and a total that has no room for it.
    check(
        server(),
        json!({"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25,
            "prompt_tokens_details": {"cached_tokens": 160}}),
        [20, 0, 0, 0, 5, 0],
    );
    check(
        server(),
        json!({"prompt_tokens": 12, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 500}}),
        [12, 0, 0, 0, 5, 0],
    );
    check(server(), json!({"prompt_tokens": "12", "completion_tokens": " 5"}), [12, 0, 0, 0, 5, 0]);
    // Cache writes in the words of gateways, inside of the prompt or beside it.
    for word in
        ["cache_creation_input_tokens", "cache_write_tokens", "cache_write_input_tokens", "cacheWriteInputTokens"]
    {
        let mut raw = json!({"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105});
        raw[word] = json!(80);
        check(server(), raw, [20, 0, 80, 0, 5, 0]);
    }
    for word in [
        "cache_write_tokens",
        "cache_creation_tokens",
        "cached_write_tokens",
        "cached_creation_tokens",
        "cache_creation_input_tokens",
    ] {
        let mut raw =
            json!({"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 10}});
        raw["prompt_tokens_details"][word] = json!(80);
        check(server(), raw, [10, 10, 80, 0, 5, 0]);
    }
    // LiteLLM fills both places.
    check(
        server(),
        json!({"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105, "cache_creation_input_tokens": 80,
            "cache_read_input_tokens": 0,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_creation_tokens": 80,
                "cache_creation_token_details": {"ephemeral_5m_input_tokens": 50, "ephemeral_1h_input_tokens": 30}}}),
        [20, 0, 50, 30, 5, 0],
    );
    check(
        server(),
        json!({"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 115, "cache_creation_input_tokens": 80,
            "cache_read_input_tokens": 10}),
        [20, 10, 80, 0, 5, 0],
    );
    check(
        server(),
        json!({"input_tokens": 20, "output_tokens": 5, "cache_creation_input_tokens": 8,
            "cache_read_input_tokens": 10}),
        [20, 10, 8, 0, 5, 0],
    );
    // Half of it missing.
    check(server(), json!({"prompt_tokens": 10, "total_tokens": 15}), [10, 0, 0, 0, 5, 0]);
    check(server(), json!({"completion_tokens": 5, "total_tokens": 15}), [10, 0, 0, 0, 5, 0]);
    check(
        server(),
        json!({"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": null,
            "completion_tokens_details": null}),
        [1, 0, 0, 0, 1, 0],
    );
}

#[test]
fn missing_usage_is_unknown() {
    for raw in [
        json!(null),
        json!({}),
        json!({"cost": 1}),
        json!({"prompt_tokens": "ten", "completion_tokens": "-5"}),
        json!({"prompt_tokens": -1, "completion_tokens": -1}),
        json!({"prompt_tokens": 1.5, "completion_tokens": 1e30}),
        json!({"prompt_tokens": i64::MAX, "completion_tokens": u64::MAX}),
    ] {
        let body = json!({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": raw});
        assert_eq!(answer(server(), &body).usage.source, UsageSource::Unknown, "{raw}");
    }
}

#[test]
fn usage_of_a_failure_is_not_lost() {
    let body = br#"{"error":{"code":502,"message":"m"},"usage":{"prompt_tokens":7,"completion_tokens":3}}"#;
    let found = server().usage_of(&WireReply::new(200, &HeaderMap::new(), body)).unwrap();
    assert_eq!((found.usage, found.cost), (usage([7, 0, 0, 0, 3, 0]), None));
    for (body, counts, cost) in [
        (
            json!({"error": {"message": "m"}, "usage": {"prompt_tokens": 7, "cost": 0.02}}),
            [7, 0, 0, 0, 0, 0],
            20_000_000,
        ),
        (
            json!({"error": {"message": "m", "usage": {"completion_tokens": 9, "cost": "0.02"}}}),
            [0, 0, 0, 0, 9, 0],
            20_000_000,
        ),
    ] {
        let body = body.to_string();
        let found = server().usage_of(&WireReply::new(502, &HeaderMap::new(), body.as_bytes())).unwrap();
        assert_eq!((found.usage, found.cost), (usage(counts), Some(NanoUsd(cost))), "{body}");
    }
    // A cost that is not of the usage may be anything.
    let other = br#"{"error":{"message":"m"},"cost":5}"#;
    assert!(server().usage_of(&WireReply::new(429, &HeaderMap::new(), other)).is_none());
    assert!(server().usage_of(&WireReply::new(200, &HeaderMap::new(), b"<html>")).is_none());
}

// === requests ===

#[test]
fn counts_and_costs_are_read_where_the_operator_says() {
    let place = |place: &str| Some(place.to_owned());
    let usage_places = UsagePlaces {
        input: place("/meta/tokens/in"),
        output: place("/meta/tokens/out"),
        cached_input: place("/meta/tokens/cached"),
        reasoning: place("/meta/thought"),
        cost: place("/meta/usd"),
    };
    let quirks = QuirkSettings { usage: usage_places, ..QuirkSettings::default() };
    let adapter = spoken("openai", None, "http://127.0.0.1/v1", &quirks);
    let with = |more: Value| {
        let mut body = json!({"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let tokens = json!({"in": 100, "out": "20", "cached": 60});
    let cost = |usd: Value| answer(adapter, &with(json!({"meta": {"tokens": tokens, "usd": usd}}))).beside.cost;
    // What stands there counts in place of what the usage says of the same, and the rest of the usage stays.
    let whole = with(json!({"meta": {"tokens": tokens, "thought": 5, "usd": 0.25},
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, "num_cached_tokens": 1}}));
    let found = answer(adapter, &whole);
    assert_eq!(found.usage, usage([40, 60, 0, 0, 20, 5]));
    assert_eq!(found.beside.cost, Some(NanoUsd(250_000_000)));
    assert_eq!(found.usage_raw.unwrap()["prompt_tokens"], 100);
    for (usd, expected) in [
        (json!("$0.5"), Some(NanoUsd(500_000_000))),
        (json!(0), None),
        (json!(-1), None),
        (json!(1e12), None),
        (json!("much"), None),
        (json!({}), None),
        (json!(null), None),
    ] {
        assert_eq!(cost(usd.clone()), expected, "{usd}");
    }
    // A place that is not there leaves the usual ones, and is noted.
    let usual = answer(adapter, &with(json!({"usage": {"prompt_tokens": 3, "completion_tokens": 4, "cost": 0.5}})));
    assert_eq!((usual.usage, usual.beside.cost), (usage([3, 0, 0, 0, 4, 0]), Some(NanoUsd(500_000_000))));
    assert!(
        usual.beside.notes.iter().any(|note| note.starts_with("`quirks.usage.input`: nothing is at /meta/")),
        "{:?}",
        usual.beside.notes
    );
    let odd = answer(adapter, &with(json!({"meta": {"tokens": {"in": -5, "out": 1e30}}})));
    assert_eq!(odd.usage, Usage::default());
    // In the last events of a stream; in an envelope, from the root of the body or from the answer.
    let events = [
        json!({"choices": [{"index": 0, "delta": {"content": "x"}}], "meta": {"tokens": {"in": 0}}}),
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
        json!({"choices": [], "meta": {"tokens": tokens}}),
        // What an earlier event said within the same member stays.
        json!({"choices": [], "meta": {"usd": 0.25}}),
    ];
    let stream = format!("data: {}\n\n", events.map(|event| event.to_string()).join("\n\ndata: "));
    let headers = headers(&[]);
    let reply = WireReply { delivery: Delivery::Stream, ..WireReply::new(200, &headers, stream.as_bytes()) };
    let streamed = adapter.decode(&reply).unwrap();
    assert_eq!((streamed.usage, streamed.beside.cost), (usage([40, 60, 0, 0, 20, 0]), Some(NanoUsd(250_000_000))));
    for body in [
        json!({"data": with(json!({})), "meta": {"tokens": tokens}}),
        json!({"data": with(json!({"meta": {"tokens": tokens}})), "code": 0}),
    ] {
        assert_eq!(answer(adapter, &body).usage, usage([40, 60, 0, 0, 20, 0]), "{body}");
    }
    let quirks = QuirkSettings {
        usage: UsagePlaces { input: place("/data/n/in"), output: place("/data/n/out"), ..UsagePlaces::default() },
        ..QuirkSettings::default()
    };
    let from_root = spoken("completions", None, "http://127.0.0.1/v1", &quirks);
    let body = json!({"data": with(json!({"n": {"in": 7, "out": 2}}))});
    assert_eq!(answer(from_root, &body).usage, usage([7, 0, 0, 0, 2, 0]));
    // Vectors, and answers that were paid for although they are none.
    let vectors = json!({"object": "list", "data": [{"index": 0, "embedding": [0.5]}], "meta": {"tokens": {"in": 9}}});
    assert_eq!(answer(adapter, &vectors).usage.input, 9);
    let failed = json!({"error": {"message": "No."}, "meta": {"tokens": tokens}}).to_string();
    let billed = adapter.usage_of(&WireReply::new(200, &headers, failed.as_bytes())).unwrap();
    assert_eq!(billed.usage, usage([40, 60, 0, 0, 20, 0]));
    let only_money = json!({"error": {"message": "No."}, "meta": {"usd": 0.25}}).to_string();
    let billed = adapter.usage_of(&WireReply::new(500, &headers, only_money.as_bytes())).unwrap();
    assert_eq!((billed.cost, billed.raw), (Some(NanoUsd(250_000_000)), None));
}
