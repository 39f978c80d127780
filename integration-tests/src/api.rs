//! A service as its clients see it: a base URL that answers, whoever has started what is behind it.

use reqwest::{Client, RequestBuilder};
use serde_json::Value;

use crate::http::{Answer, ask, client};

/// A service that is reached at a base URL. What it says here, it would say to anybody.
#[derive(Debug, Clone)]
pub struct Api {
    url: String,
    client: Client,
}

impl Api {
    /// The service at this URL (`http://HOST:PORT`), which is not asked anything yet. It has connections of its own, that
    /// belong to the runtime in which they were first used.
    pub fn at(url: &str) -> Self {
        Api {
            url: url.trim_end_matches('/').to_owned(),
            client: client(),
        }
    }

    /// Where it is: `http://HOST:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it is, for a raw connection: `HOST:PORT`.
    pub fn address(&self) -> &str {
        self.url.strip_prefix("http://").expect("it speaks plain HTTP")
    }

    /// A GET to be sent.
    pub fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }

    /// A POST to be sent.
    pub fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.url))
    }

    /// The answer to a GET.
    pub async fn fetch(&self, path: &str) -> Answer {
        ask(self.get(path)).await
    }

    /// The JSON of a GET that must succeed.
    pub async fn json(&self, path: &str) -> Value {
        let answer = self.fetch(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }
}
