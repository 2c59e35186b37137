//! A provider that answers as a test says, call by call.

use super::clock;
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri, header::CONTENT_TYPE};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A call that came.
#[derive(Clone, Debug)]
pub struct Call {
    /// The first part of the path: which provider was meant.
    pub provider: String,
    /// The path and the query.
    pub path: String,
    /// The header `authorization`, if there is one.
    pub authorization: Option<String>,
    /// The request's body as it came.
    pub text: String,
    /// The same as JSON; null, when it is none.
    pub body: Value,
    /// When it came.
    pub at: Instant,
}

impl Call {
    /// The text of the last message.
    pub fn prompt(&self) -> &str {
        let messages = self.body["messages"].as_array().and_then(|messages| messages.last());
        messages.and_then(|message| message["content"].as_str()).unwrap_or_default()
    }
}

/// An answer: a status, and a body as it goes out.
pub type Reply = (u16, Vec<u8>);

/// A good answer in OpenAI's dialect.
pub fn answer(text: &str) -> Reply {
    let message = json!({"role": "assistant", "content": text});
    let body = json!({
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    });
    (200, body.to_string().into_bytes())
}

/// The same, billed with so many tokens of output.
pub fn billed(text: &str, tokens: i64) -> Reply {
    altered(answer(text), |body| body["usage"]["completion_tokens"] = json!(tokens))
}

/// An answer of so many tokens that its cap cut off.
pub fn cut(text: &str, tokens: i64) -> Reply {
    altered(billed(text, tokens), |body| body["choices"][0]["finish_reason"] = json!("length"))
}

/// An answer with something else in its body.
pub fn altered((status, body): Reply, alter: impl FnOnce(&mut Value)) -> Reply {
    let mut body = serde_json::from_slice(&body).unwrap();
    alter(&mut body);
    (status, body.to_string().into_bytes())
}

/// Serves on a port of its own until it is dropped. Its providers are the paths `/NAME/v1`.
pub struct Scripted {
    address: String,
    calls: Arc<Mutex<Vec<Call>>>,
    server: JoinHandle<()>,
}

impl Scripted {
    /// Starts; `script` gets each call and how many came before it.
    pub async fn start(script: impl Fn(&Call, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        let (script, noted) = (Arc::new(script), Arc::clone(&calls));
        let handler = move |uri: Uri, headers: HeaderMap, body: Bytes| {
            let provider = uri.path().split('/').nth(1).unwrap_or_default().to_owned();
            let text = String::from_utf8_lossy(&body).into_owned();
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let path = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
            let authorization = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
            let call = Call { provider, path, authorization, text, body, at: clock::instant() };
            let mut calls = noted.lock().unwrap();
            let (status, body) = script(&call, calls.len());
            calls.push(call);
            let kind = if body.starts_with(b"<") { "text/html" } else { "application/json" };
            let reply = (StatusCode::from_u16(status).unwrap(), [(CONTENT_TYPE, kind)], body).into_response();
            std::future::ready(reply)
        };
        let router = Router::new().fallback(handler);
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, calls, server }
    }

    /// The base URL of one of its providers.
    pub fn base_url(&self, provider: &str) -> String {
        format!("http://{}/{provider}/v1", self.address)
    }

    /// The calls that came for a provider.
    pub fn calls(&self, provider: &str) -> Vec<Call> {
        self.calls.lock().unwrap().iter().filter(|call| call.provider == provider).cloned().collect()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.server.abort();
    }
}
