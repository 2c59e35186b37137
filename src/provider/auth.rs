//! How a call is authenticated.

use super::sigv4::Signer;
use super::wire::Outgoing;
use crate::domain::{ErrorClass, Failure, Scope, Timestamp};
use reqwest::header::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

/// The header that carries a key, and the word before the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHeader {
    /// The header's name, in lower case.
    pub name: &'static str,
    /// The text before the key, including its space.
    pub prefix: &'static str,
}

impl KeyHeader {
    /// `Authorization: Bearer KEY`.
    pub const BEARER: Self = Self { name: "authorization", prefix: "Bearer " };

    /// The bare key in a header of its own.
    #[must_use]
    pub const fn bare(name: &'static str) -> Self {
        Self { name, prefix: "" }
    }
}

/// The credentials that sign the calls of one key.
#[derive(Clone, Debug)]
pub enum Auth {
    /// The server asks for no credentials.
    Open,
    /// The key is sent with each call, in a header.
    Key(KeyHeader, SecretString),
    /// Each call is signed with an access key of AWS, whose secret stays here.
    Signed(Signer),
}

impl Auth {
    /// Signs a finished request, as of this instant.
    ///
    /// # Errors
    /// A key that no header can carry. Nothing was sent in that case.
    pub fn sign(&self, request: &mut Outgoing, now: Timestamp) -> Result<(), Failure> {
        match self {
            Self::Open => Ok(()),
            Self::Signed(signer) => signer.sign(request, now),
            Self::Key(header, secret) => {
                let Ok(mut value) = HeaderValue::try_from(format!("{}{}", header.prefix, secret.expose_secret()))
                else {
                    let message = "the key has characters that an HTTP header cannot carry";
                    return Err(Failure::new(ErrorClass::Auth, Scope::Key, message));
                };
                value.set_sensitive(true);
                request.headers.insert(HeaderName::from_static(header.name), value);
                Ok(())
            }
        }
    }
}
