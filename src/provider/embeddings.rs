//! Shared by the dialects with embeddings: the inputs that a request asks for, and the vectors of an answer.

use super::beside;
use super::conversation::{note, note_model, unsupported};
use super::wire::WireReply;
use crate::domain::decide::Ineligible;
use crate::domain::raw_object::RawObject;
use crate::domain::request::{Embed, Inputs};
use crate::domain::vectors::read_vector;
use crate::domain::{Answer, Beside, ChatRequest, Finish, Usage, Vectors};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// A request for embeddings, as the dialects need it.
pub(super) struct EmbedInput<'a> {
    embed: &'a Embed,
    /// The body as it was written.
    pub body: RawObject<'a>,
    /// Members that are not sent as they came.
    pub dropped: Vec<String>,
}

impl<'a> EmbedInput<'a> {
    /// What a request asks for, which has this in it.
    pub fn of(request: &'a ChatRequest, embed: &'a Embed, model: &str) -> Self {
        let mut dropped = Vec::new();
        note_model(request, model, &mut dropped);
        Self { embed, body: RawObject::read(&request.raw).unwrap_or_default(), dropped }
    }

    /// The texts, for a dialect that takes nothing else, and at most this many.
    ///
    /// # Errors
    /// The inputs are the numbers of tokens, or too many.
    pub fn texts(&self, most: usize) -> Result<&'a [String], Ineligible> {
        match &self.embed.inputs {
            Inputs::Tokens(_) => unsupported("inputs as token numbers"),
            Inputs::Texts(texts) if texts.len() > most => {
                unsupported(format!("{} inputs: the provider takes {most} in one call", texts.len()))
            }
            Inputs::Texts(texts) => Ok(texts),
        }
    }

    /// How long the vectors are to be.
    pub const fn dimensions(&self) -> Option<i64> {
        self.embed.dimensions
    }

    /// A member that the dialect takes as it was written.
    pub fn own(&self, name: &str) -> Option<&RawValue> {
        serde_json::from_str(self.body.given(name)?).ok()
    }

    /// Notes every member that the dialect does not take. The form of the numbers on the wire is none: results have
    /// numbers in any case.
    pub fn note_all_but(&mut self, takes: &[&str]) {
        const EVERYWHERE: &[&str] = &["input", "model", "dimensions", "encoding_format"];
        for name in self.body.names() {
            let asks_for_nothing = name == "stream";
            if !EVERYWHERE.contains(&name) && !takes.contains(&name) && !asks_for_nothing {
                note(&mut self.dropped, name);
            }
        }
    }
}

/// The vectors that a list of them has; a member that is no vector is an empty one, and is rejected later.
pub(super) fn in_list(list: Value) -> Option<Vectors> {
    let Value::Array(list) = list else { return None };
    Some(Vectors::in_order(list.iter().map(|vector| read_vector(vector).unwrap_or_default()).collect()))
}

/// An answer of vectors. `body`: the members that the dialect has not read yet; `known`: members that carry no further
/// information.
pub(super) fn answer(
    vectors: Vectors,
    reported: (Usage, Option<Value>),
    mut body: Map<String, Value>,
    known: &[&str],
    (reply, mut notes): (&WireReply<'_>, Vec<String>),
) -> Answer {
    let (usage, usage_raw) = reported;
    let mut own = |key: &str| match body.remove(key) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let (model, id) = (own("model"), own("id"));
    let cost = beside::cost(usage_raw.as_ref(), &body, reply.headers);
    let service_tier = beside::tier(&[body.get("service_tier")]);
    notes.push(vectors.to_string());
    Answer {
        text: None,
        refusal: None,
        reasoning: None,
        tool_calls: Vec::new(),
        finish: Finish::Complete,
        finish_raw: None,
        model,
        id,
        usage,
        usage_raw,
        vectors: Some(vectors),
        beside: Beside {
            service_tier,
            cost,
            completion: beside::kept(body, &[&["object", "created", "service_tier"], known].concat()),
            notes,
            ..Beside::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::{Answer, Capabilities, ErrorClass, UsageSource, Vectors};
    use crate::provider::adapter::Adapter;
    use crate::provider::checks::{Chat, answer, headers, parsed, spoken};
    use crate::provider::quirks::{QuirkSettings, owned};
    use crate::provider::registry::DIALECTS;
    use crate::provider::wire::{WireReply, WireRequest};
    use serde_json::{Value, json};

    fn speaking(dialect: &str, url: &str) -> &'static dyn Adapter {
        spoken(dialect, None, url, &QuirkSettings::default())
    }

    fn sent(adapter: &dyn Adapter, body: &Value) -> (String, Value, Vec<String>) {
        let WireRequest { path, body, dropped, .. } =
            adapter.chat(&parsed(body.clone()), "the-model", &Capabilities::default()).unwrap();
        (path, serde_json::from_slice(&body).unwrap(), dropped)
    }

    fn refused(adapter: &dyn Adapter, body: &Value) -> String {
        adapter.chat(&parsed(body.clone()), "the-model", &Capabilities::default()).unwrap_err().to_string()
    }

    #[test]
    fn a_dialect_without_embeddings_says_so_before_anything_is_sent() {
        let with: Vec<&str> = DIALECTS
            .iter()
            .map(|dialect| dialect.name)
            .filter(|name| {
                let request = parsed(json!({"input": ["a", "b"]}));
                match speaking(name, "https://host.example/v1").chat(&request, "m", &Capabilities::default()) {
                    Ok(_) => true,
                    Err(why) => {
                        assert!(why.to_string().contains("embeddings"), "{name}: {why}");
                        false
                    }
                }
            })
            .collect();
        assert_eq!(with, ["openai", "gemini", "ollama", "cohere", "azure_openai"]);
    }

    #[test]
    fn openai_and_its_like_get_the_body_as_it_was_written() {
        let body = json!({"model": "other", "input": [[1, 2], [3]], "dimensions": 4, "encoding_format": "base64",
            "user": "ann", "truncate_prompt_tokens": 5, "stream": false, "seed": null});
        let whole = json!({"model": "the-model", "input": [[1, 2], [3]], "dimensions": 4, "encoding_format": "base64",
            "user": "ann", "truncate_prompt_tokens": 5});
        let (path, written, dropped) = sent(speaking("openai", "http://vllm:8000/v1"), &body);
        assert_eq!((path.as_str(), written, dropped), ("/embeddings", whole.clone(), vec!["model".to_owned()]));
        let (path, written, _) = sent(speaking("azure_openai", "https://r.openai.azure.com"), &body);
        assert_eq!((path.as_str(), written), ("/openai/deployments/the-model/embeddings", whole.clone()));
        let (path, written, _) = sent(speaking("azure_openai", "https://r.openai.azure.com/openai/v1"), &body);
        assert_eq!((path.as_str(), written), ("/embeddings", whole));
        // Mistral refuses members that it does not know, and has another word for the dimension.
        let (_, written, dropped) = sent(speaking("openai", "https://api.mistral.ai/v1"), &body);
        let theirs = json!({"model": "the-model", "input": [[1, 2], [3]], "output_dimension": 4,
            "encoding_format": "base64"});
        assert_eq!(written, theirs);
        assert_eq!(dropped, ["model", "truncate_prompt_tokens", "user", "dimensions as output_dimension"]);
        // An operator's word, as with chats.
        let settings = |drop: &[&str], refuse: &[&str]| {
            let settings = QuirkSettings { drop: owned(drop), refuse: owned(refuse), ..QuirkSettings::default() };
            spoken("openai", None, "http://host/v1", &settings)
        };
        assert_eq!(sent(settings(&["user"], &[]), &body).1.get("user"), None);
        assert!(refused(settings(&[], &["dimensions"]), &body).contains("dimensions"));
        assert!(refused(settings(&["input"], &[]), &body).contains("quirks.drop"));
    }

    #[test]
    fn the_others_get_texts_in_their_words() {
        let body = json!({"input": ["a", "b"], "dimensions": 4, "encoding_format": "float", "user": "ann"});
        let (path, written, dropped) = sent(speaking("cohere", "https://api.cohere.com/v2"), &body);
        assert_eq!(path, "/embed");
        assert_eq!(
            written,
            json!({"model": "the-model", "texts": ["a", "b"], "input_type": "search_document",
                "embedding_types": ["float"], "output_dimension": 4, "truncate": "NONE"})
        );
        assert_eq!(dropped, ["user", "input_type search_document added"]);
        let own = json!({"input": "a", "input_type": "search_query", "truncate": "END", "priority": 1});
        let (_, written, dropped) = sent(speaking("cohere", "https://api.cohere.com/v2"), &own);
        assert_eq!((&written["input_type"], &written["truncate"]), (&json!("search_query"), &json!("END")));
        assert_eq!((&written["priority"], dropped), (&json!(1), Vec::new()));

        let (path, written, dropped) = sent(speaking("ollama", "http://host:11434"), &body);
        assert_eq!(path, "/api/embed");
        assert_eq!(written, json!({"model": "the-model", "input": ["a", "b"], "dimensions": 4, "truncate": false}));
        assert_eq!(dropped, ["user"]);
        let own = json!({"input": "a", "options": {"num_ctx": 9}, "keep_alive": "5m", "truncate": true});
        assert_eq!(
            sent(speaking("ollama", "http://host:11434"), &own).1,
            json!({"model": "the-model", "input": ["a"], "truncate": true, "options": {"num_ctx": 9},
                "keep_alive": "5m"})
        );

        let body = json!({"input": ["a", "b"], "dimensions": 4, "task_type": "RETRIEVAL_QUERY", "user": "ann"});
        let (path, written, dropped) =
            sent(speaking("gemini", "https://generativelanguage.googleapis.com/v1beta"), &body);
        assert_eq!(path, "/models/the-model:batchEmbedContents");
        let item = |text: &str| {
            json!({"model": "models/the-model", "content": {"parts": [{"text": text}]},
                "taskType": "RETRIEVAL_QUERY", "outputDimensionality": 4})
        };
        assert_eq!((written, dropped), (json!({"requests": [item("a"), item("b")]}), vec!["user".to_owned()]));
    }

    #[test]
    fn token_numbers_and_too_many_inputs_are_for_another_rung() {
        let tokens = json!({"input": [1, 2]});
        for (dialect, most) in [("cohere", 96), ("gemini", 100)] {
            let adapter = speaking(dialect, "https://host.example/v1");
            assert!(refused(adapter, &tokens).contains("token numbers"), "{dialect}");
            assert_eq!(sent(adapter, &json!({"input": vec!["a"; most]})).2.len(), usize::from(dialect == "cohere"));
            let words = format!("{} inputs: the provider takes {most} in one call", most + 1);
            assert!(refused(adapter, &json!({"input": vec!["a"; most + 1]})).contains(&words), "{dialect}");
        }
        assert!(refused(speaking("ollama", "http://host:11434"), &tokens).contains("token numbers"));
    }

    fn vectors_of(answer: &Answer) -> Vectors {
        answer.vectors.clone().unwrap()
    }

    #[test]
    fn every_dialect_gives_the_same_vectors_with_its_usage() {
        let two = Vectors::in_order(vec![vec![1.0, -2.5, 0.0], vec![0.5, 0.25, 2.0]]);
        let item =
            |index: u64, embedding: Value| json!({"object": "embedding", "index": index, "embedding": embedding});
        let list = |data: Vec<Value>| {
            json!({"object": "list", "data": data, "model": "m",
                "usage": {"prompt_tokens": 8, "total_tokens": 8}})
        };
        let [one, other] = [json!([1.0, -2.5, 0]), json!([0.5, 0.25, 2])];
        for (dialect, body, input) in [
            ("openai", list(vec![item(0, one.clone()), item(1, other.clone())]), Some(8)),
            ("openai", list(vec![item(1, other.clone()), item(0, json!("AACAPwAAIMAAAAAA"))]), Some(8)),
            ("azure_openai", list(vec![item(0, one.clone()), item(1, other.clone())]), Some(8)),
            (
                "cohere",
                json!({"id": "x", "embeddings": {"float": [one, other]}, "texts": ["a", "b"],
                    "meta": {"billed_units": {"input_tokens": 8.0}}, "response_type": "embeddings_by_type"}),
                Some(8),
            ),
            ("ollama", json!({"model": "m", "embeddings": [one, other], "prompt_eval_count": 8}), Some(8)),
            ("gemini", json!({"embeddings": [{"values": one}, {"values": other}]}), None),
        ] {
            let answer = answer(speaking(dialect, "https://host.example/v1"), &body);
            assert_eq!(vectors_of(&answer), two, "{dialect}");
            assert_eq!(answer.usage.source == UsageSource::Provider, input.is_some(), "{dialect}");
            assert_eq!((answer.usage.input, answer.usage.output), (input.unwrap_or(0), 0), "{dialect}");
            assert_eq!(answer.beside.notes, ["2 vectors of 3 numbers"], "{dialect}");
            let kept: Value = serde_json::from_str(&answer.to_openai("asked", 7)).unwrap();
            assert_eq!(kept["object"], "list");
            assert_eq!(kept["data"], json!([item(0, json!([1.0, -2.5, 0.0])), item(1, json!([0.5, 0.25, 2.0]))]));
            let of_openai = dialect.contains("openai");
            assert_eq!(kept["model"], if of_openai || dialect == "ollama" { "m" } else { "asked" }, "{dialect}");
            assert_eq!(kept["usage"]["prompt_tokens"], input.unwrap_or(0), "{dialect}");
        }
    }

    #[test]
    fn numbers_stay_short_and_what_is_no_number_is_null() {
        let body = json!({"object": "list", "data": [{"index": 0, "embedding": [0.1, -0.006_929_283, null]}]});
        let kept = answer(speaking("openai", "http://host/v1"), &body).to_openai("m", 0);
        assert!(kept.contains("[0.1,-0.006929283,null]"), "{kept}");
        // Python writes what JSON does not have.
        let text = r#"{"object":"list","data":[{"index":0,"embedding":[NaN,1.0]}]}"#;
        let headers = headers(&[]);
        let reply = WireReply::new(200, &headers, text.as_bytes());
        let answer = speaking("openai", "http://host/v1").decode(&reply).unwrap();
        assert!(vectors_of(&answer).list()[0][0].is_nan());
    }

    #[test]
    fn a_body_without_vectors_is_no_list_of_them() {
        for (dialect, body) in [
            ("openai", json!({"object": "list", "data": [{"id": "gpt-4o", "object": "model"}]})),
            ("openai", json!({"data": {"id": 1}})),
            ("cohere", json!({"id": "x"})),
            ("ollama", json!({"model": "m"})),
            ("gemini", json!({"models": []})),
        ] {
            let (headers, body) = (headers(&[]), body.to_string());
            let failure = speaking(dialect, "https://host.example/v1")
                .decode(&WireReply::new(200, &headers, body.as_bytes()))
                .unwrap_err();
            assert_eq!(failure.class, ErrorClass::ServerError, "{dialect}: {failure:?}");
        }
        let none = answer(speaking("openai", "http://host/v1"), &json!({"object": "list", "data": []}));
        assert_eq!(vectors_of(&none).list().len(), 0);
    }
}
