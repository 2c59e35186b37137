//! The meaning of Bedrock's errors: an exception by name, in a header or in the body.

use crate::domain::ErrorClass::{
    Auth, Conflict, NotFound, Overloaded, Permission, QuotaExhausted, RateLimit, RateLimitDaily, ServerError, Timeout,
};
use crate::domain::Scope::{Key, Model, Request};
use crate::provider::classify::{Rule, Signs};
use crate::provider::error_body::ErrorBody;
use crate::provider::limit_headers::COMMON;
use crate::provider::wire::WireReply;

/// The signs of its failures.
pub(super) const SIGNS: Signs = Signs { rules: RULES, limits: &[COMMON] };

const RULES: &[Rule] = &[
    // --- limits ---
    Rule::says(&["per day"], RateLimitDaily, Model).at(&[400, 429]),
    Rule::code(&["ThrottlingException", "TooManyRequestsException"], RateLimit, Model),
    // Its pages call it a limit that passes.
    Rule::code(&["ServiceQuotaExceededException"], RateLimit, Model),
    // A model that was imported is being loaded: some minutes.
    Rule::code(&["ModelNotReadyException"], Overloaded, Model),
    Rule::code(&["ServiceUnavailableException"], Overloaded, Model),
    // --- the key ---
    // Under the names of refused keys, too.
    Rule::says(&["payment required"], QuotaExhausted, Key).at(&[403]),
    Rule::code(
        &[
            "UnrecognizedClientException",
            "InvalidClientTokenId",
            "InvalidSignatureException",
            "SignatureDoesNotMatch",
            "IncompleteSignature",
            "MissingAuthenticationTokenException",
            "MissingAuthenticationToken",
            "ExpiredTokenException",
            "ExpiredToken",
            "RequestExpired",
            "RequestTimeTooSkewed",
            "NotAuthorized",
        ],
        Auth,
        Key,
    ),
    // --- the model ---
    Rule::says(&["agreement*try again", "marketplace*try again"], Overloaded, Model).at(&[403]),
    Rule::says(&["use case details", "ftuformnotfilled"], Permission, Model).at(&[403, 404]),
    Rule::code(&["FTUFormNotFilled"], Permission, Model),
    Rule::code(&["AccessDeniedException"], Permission, Model).in_doubt(),
    Rule::code(&["ResourceNotFoundException"], NotFound, Model),
    // --- the provider ---
    Rule::code(&["ModelTimeoutException"], Timeout, Model),
    Rule::code(&["ModelErrorException", "ModelStreamErrorException", "InternalServerException"], ServerError, Model),
    Rule::code(&["ConflictException"], Conflict, Request),
];

/// The error of a reply: `ThrottlingException:http://…` in a header, `prefix#ThrottlingException` in the body.
pub(super) fn error_of(reply: &WireReply<'_>) -> ErrorBody {
    let mut error = ErrorBody::read(reply.body);
    let bare = |name: &str| {
        let name = name.split(':').next().unwrap_or_default();
        name.rsplit('#').next().unwrap_or_default().trim().to_owned()
    };
    for code in &mut error.codes {
        if code.contains('#') {
            *code = bare(code);
        }
    }
    let named = reply.headers.get("x-amzn-errortype").and_then(|name| name.to_str().ok());
    if let Some(name) = named.map(bare).filter(|name| !name.is_empty() && name.len() <= 100) {
        error.codes.retain(|code| *code != name);
        error.codes.insert(0, name);
    }
    error
}
