//! The registry of dialects: which APIs the simulator speaks.
//!
//! Each dialect is a file in `dialect/` and a line in [`Dialect::ALL`]. They are the provider's side, written from the
//! providers' documentation and independently of Sluice's own adapters, so that each side checks the other.

mod anthropic;
mod azure_openai;
mod bedrock;
mod cohere;
mod completions;
mod gemini;
mod ollama;
mod openai;
mod openai_responses;

use super::api::Api;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::sync::LazyLock;

/// An API that the simulator speaks: one of [`Dialect::ALL`].
#[derive(Clone, Copy)]
pub struct Dialect(&'static dyn Api);

impl Dialect {
    /// Every dialect.
    pub const ALL: &'static [Self] = &[
        Self(&openai::Openai),
        Self(&anthropic::Anthropic),
        Self(&gemini::Gemini),
        Self(&ollama::Ollama),
        Self(&cohere::Cohere),
        Self(&openai_responses::Responses),
        Self(&azure_openai::Azure),
        Self(&completions::Completions),
        Self(&bedrock::Bedrock),
    ];

    /// The dialect with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|dialect| dialect.name() == name)
    }

    /// The name in scenarios and in the verdict.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// The part of the `base_url` to configure that follows the simulator's address and the provider's name.
    #[must_use]
    pub fn base_path(self) -> &'static str {
        self.0.base_path()
    }

    /// The behaviour of the dialect.
    pub(crate) fn api(self) -> &'static dyn Api {
        self.0
    }
}

impl fmt::Debug for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PartialEq for Dialect {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Dialect {}

impl Serialize for Dialect {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Dialect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        static NAMES: LazyLock<Vec<&'static str>> =
            LazyLock::new(|| Dialect::ALL.iter().map(|dialect| dialect.name()).collect());
        let name = String::deserialize(deserializer)?;
        Self::named(&name).ok_or_else(|| de::Error::unknown_variant(&name, &NAMES))
    }
}

#[cfg(test)]
mod tests {
    use super::super::exchange::{Answer, Ask, Call, Failure, Finish, Problem, Usage};
    use super::super::prompt::{Text, conversation};
    use super::super::prompt_cache::Cached;
    use super::super::wait::{Told, WaitFormat};
    use super::super::{Provider, Scenario, Simulator};
    use super::*;
    use hyper::HeaderMap;
    use std::borrow::Cow;
    use std::collections::BTreeSet;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    #[test]
    fn every_dialect_has_a_name_of_its_own_by_which_it_is_found() {
        let names: BTreeSet<&str> = Dialect::ALL.iter().map(|dialect| dialect.name()).collect();
        assert_eq!(names.len(), Dialect::ALL.len(), "{names:?}");
        for dialect in Dialect::ALL {
            let name = dialect.name();
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
            assert_eq!(Dialect::named(name), Some(*dialect));
            assert_eq!(serde_json::to_value(dialect).unwrap(), name);
            assert_eq!(serde_json::from_value::<Dialect>(name.into()).unwrap(), *dialect);
        }
        assert_eq!(Dialect::named("openia"), None);
    }

    #[test]
    fn every_dialect_keeps_what_the_rest_of_the_simulator_takes_for_granted() {
        for dialect in Dialect::ALL {
            let api = dialect.api();
            assert_ne!(api.request_id(1, 1), api.request_id(1, 2), "{dialect:?}");
            assert_ne!(api.request_id(1, 1), api.request_id(2, 1), "{dialect:?}");
            let call = Call { path: "/", whole_path: "/", query: None, headers: &HeaderMap::new(), body: b"{}" };
            assert_eq!(api.key(&call), None, "{dialect:?}: a call without a header shows no key");
            assert!(api.read(&call).is_err_and(|problem| problem.is_malformed()), "{dialect:?}");
            let id = api.request_id(7, 7);
            for finish in [Finish::Stop, Finish::Length, Finish::Filtered, Finish::Refused, Finish::Nothing] {
                let answer = Answer {
                    id: &id,
                    created: 1,
                    model: "m",
                    text: "a \"word\"",
                    finish,
                    usage: Some(Usage { input: 1, output: 2, cached: Cached::default() }),
                    tier: None,
                    vectors: None,
                    confidence: None,
                };
                let written = api.write(&answer);
                let body: serde_json::Value = serde_json::from_slice(&written).unwrap();
                assert!(body.is_object(), "{dialect:?}: a huge body is padded behind the first brace");
                let stream = api.stream(&answer);
                assert!(stream.end < stream.events.len(), "{dialect:?}: a stream has events that say it has ended");
                assert!(stream.half() <= stream.end, "{dialect:?}");
            }
            assert!(api.fail(&Problem::ServerError(502), &Told::default(), "m", &id).status == 502, "{dialect:?}");
            let wait = Duration::from_millis(1_500);
            assert!(api.tell(wait, UNIX_EPOCH).wait.is_some_and(|told| told >= wait), "{dialect:?}");
        }
    }

    /// A made-up dialect with features that the three do not have: the model in the path and percent-encoded, a version
    /// in the query, a credential inside a header, no request id, and words instead of JSON.
    struct MadeUp;

    impl Api for MadeUp {
        fn name(&self) -> &'static str {
            "made_up"
        }

        fn base_path(&self) -> &'static str {
            "/run"
        }

        fn id_header(&self) -> Option<&'static str> {
            None
        }

        fn request_id(&self, run: u32, seq: u64) -> String {
            format!("{run}-{seq}")
        }

        fn key<'a>(&self, call: &Call<'a>) -> Option<&'a str> {
            call.header("authorization")?.strip_prefix("HMAC Credential=")?.split('/').next()
        }

        fn read<'a>(&self, call: &Call<'a>) -> Result<Ask<'a>, Problem> {
            let model = call.path.strip_prefix("/run/").ok_or(Problem::UnknownPath)?.replace("%3A", ":");
            if call.parameter("version") != Some("7") {
                return Err(Problem::Malformed("version: expected 7".to_owned()));
            }
            let words = std::str::from_utf8(call.body).map_err(|error| Problem::Malformed(error.to_string()))?;
            let (prompt, input_tokens, last_user) = conversation(&[], vec![(true, Text(Cow::Borrowed(words)))]);
            Ok(Ask {
                model: Cow::Owned(model),
                prompt,
                input_tokens,
                max_output: None,
                json: None,
                last_user,
                embed: None,
                cache: None,
                logprobs: false,
                tier: None,
                stream: None,
            })
        }

        fn write(&self, answer: &Answer<'_>) -> Vec<u8> {
            format!("{}: {}", answer.model, answer.text).into_bytes()
        }

        fn fail(&self, problem: &Problem, _told: &Told, _model: &str, _id: &str) -> Failure {
            let status = if *problem == Problem::Auth { 403 } else { 400 };
            Failure { status, body: serde_json::json!({"message": format!("{problem:?}")}) }
        }

        fn tell(&self, wait: Duration, wall: SystemTime) -> Told {
            WaitFormat::None.tell(wait, wall)
        }
    }

    #[test]
    fn a_dialect_is_played_without_a_word_of_it_elsewhere() {
        let mut provider = Provider::new(Dialect(&MadeUp));
        provider.keys = vec!["AKID".into()];
        provider.models.insert("m:1".to_owned(), super::super::Model::default());
        let providers = [("p".to_owned(), provider)].into_iter().collect();
        let simulator =
            Simulator::start(Scenario { providers, ..Scenario::default() }, SocketAddr::from(([127, 0, 0, 1], 0)))
                .unwrap();
        assert!(simulator.base_url("p").unwrap().ends_with("/p/run"));
        let send = |path: &str, credential: &str| {
            let mut stream = TcpStream::connect(simulator.addr()).unwrap();
            let head = "host: x\r\nconnection: close\r\ncontent-length: 5";
            let authorization = format!("authorization: HMAC Credential={credential}/20260504, Signature=00");
            write!(stream, "POST /p{path} HTTP/1.1\r\n{head}\r\n{authorization}\r\n\r\nHello").unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).unwrap();
            reply
        };
        let reply = send("/run/m%3A1?region=eu&version=7", "AKID");
        assert!(reply.starts_with("HTTP/1.1 200") && reply.contains("\r\n\r\nm:1: ["), "{reply}");
        assert!(!reply.contains("request-id"), "{reply}");
        assert!(send("/run/m%3A1?version=7", "other").starts_with("HTTP/1.1 403"));
        assert!(send("/run/m%3A1", "AKID").contains("version: expected 7"));
        assert!(send("/run/m%3A2?version=7", "AKID").contains("NotFound"));
        let verdict = simulator.verdict();
        assert_eq!((verdict.total.calls, verdict.total.malformed_requests), (4, 1));
        assert_eq!(serde_json::to_value(&verdict).unwrap()["providers"]["p"]["dialect"], "made_up");
        assert_eq!(simulator.calls(9).last().unwrap().model, "m:1");
    }
}
