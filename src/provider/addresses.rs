//! The addresses of what is called at a server. Putting one together takes longer than all else about a request.

use super::wire::address;
use parking_lot::Mutex;
use reqwest::Url;
use std::collections::BTreeMap;

/// More addresses than this are not kept.
const MOST_ADDRESSES: usize = 256;

/// The address of a server, and those of what was called there.
#[derive(Debug)]
pub(super) struct ServerAddress {
    base: Url,
    /// By path below the base. Paths come from dialects and models, so there are few.
    known: Mutex<BTreeMap<String, Url>>,
}

impl ServerAddress {
    /// The server at this base address.
    pub fn new(base: Url) -> Self {
        Self { base, known: Mutex::default() }
    }

    /// The base address.
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// The whole address of this path.
    pub fn of(&self, path: &str) -> Url {
        if let Some(known) = self.known.lock().get(path) {
            return known.clone();
        }
        let url = address(&self.base, path);
        let mut known = self.known.lock();
        if known.len() < MOST_ADDRESSES {
            known.insert(path.to_owned(), url.clone());
        }
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_same_the_second_time_and_few_are_kept() {
        let server = ServerAddress::new(Url::parse("https://h/v1?x=1").unwrap());
        for path in ["/chat/completions", "/models/m%2F1:generate", "/chat/completions"] {
            assert_eq!(server.of(path).as_str(), format!("https://h/v1{path}?x=1"));
        }
        for model in 0..2 * MOST_ADDRESSES {
            assert_eq!(server.of(&format!("/{model}")).path(), format!("/v1/{model}"));
        }
        assert_eq!(server.known.lock().len(), MOST_ADDRESSES);
    }
}
