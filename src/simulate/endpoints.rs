//! The simulator's own endpoints, under `/_sim/`.

use super::core::Core;
use super::reply_body::ReplyBody;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use serde::Serialize;
use serde_json::json;

/// How many rows a list has when `limit` is not given.
const DEFAULT_LIMIT: usize = 100;

/// Answers a request under `/_sim/`; `path` is the part after that.
pub(crate) fn answer(core: &Core, method: &Method, path: &str, query: Option<&str>) -> Response<ReplyBody> {
    let limit = match limit(query) {
        Ok(limit) => limit,
        Err(problem) => return json_reply(StatusCode::BAD_REQUEST, &json!({ "error": problem })),
    };
    match (path, method) {
        ("health", &Method::GET) => json_reply(StatusCode::OK, &json!({"status": "ok"})),
        ("verdict", &Method::GET) => {
            let book = core.book();
            let verdict = book.ledger.verdict(&core.scenario, book.now());
            drop(book);
            json_reply(StatusCode::OK, &verdict)
        }
        ("calls", &Method::GET) => {
            let calls = core.book().ledger.calls(&core.scenario, core.run, limit);
            json_reply(StatusCode::OK, &calls)
        }
        ("requests", &Method::GET) => {
            let requests = core.book().ledger.requests(limit);
            json_reply(StatusCode::OK, &requests)
        }
        ("reset", &Method::POST) => {
            core.reset();
            json_reply(StatusCode::OK, &json!({"status": "ok"}))
        }
        ("health" | "verdict" | "calls" | "requests", _) => {
            json_reply(StatusCode::METHOD_NOT_ALLOWED, &json!({"error": "use GET"}))
        }
        ("reset", _) => json_reply(StatusCode::METHOD_NOT_ALLOWED, &json!({"error": "use POST"})),
        _ => {
            let error = "unknown endpoint: expected health, verdict, calls, requests or reset";
            json_reply(StatusCode::NOT_FOUND, &json!({ "error": error }))
        }
    }
}

/// The page by which a provider says how it is, as vLLM and llama.cpp have it. It needs no key, and is no call.
pub(crate) fn health(core: &Core, provider: usize) -> Response<ReplyBody> {
    let (now, (_, spec)) = (core.book().now(), &core.providers[provider]);
    let is_down =
        spec.unhealthy.iter().any(|stretch| stretch.has(now)) || spec.faults.iter().any(|rule| rule.is_outage(now));
    if is_down {
        let error = json!({"code": 503, "message": "Loading model", "type": "unavailable_error"});
        return json_reply(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": error }));
    }
    json_reply(StatusCode::OK, &json!({"status": "ok"}))
}

/// The answer for a path that belongs to no provider.
pub(crate) fn unknown_provider(core: &Core) -> Response<ReplyBody> {
    let names: Vec<&str> = core.providers.iter().map(|(name, _)| name.as_str()).collect();
    let error = "no such provider: the first segment of the path names it";
    json_reply(StatusCode::NOT_FOUND, &json!({"error": error, "providers": names}))
}

fn limit(query: Option<&str>) -> Result<usize, String> {
    let given = query.into_iter().flat_map(|query| query.split('&')).find_map(|part| part.strip_prefix("limit="));
    given.map_or(Ok(DEFAULT_LIMIT), |limit| {
        limit.parse().map_err(|_| format!("limit: expected a number, found {limit:?}"))
    })
}

fn json_reply(status: StatusCode, body: &impl Serialize) -> Response<ReplyBody> {
    let body = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(ReplyBody::Whole(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
