//! A service as its clients see it: a base URL.

use reqwest::{Client, RequestBuilder};
use serde_json::Value;

use crate::http::{Answer, ask, client};

/// A service at a base URL.
#[derive(Debug, Clone)]
pub struct Api {
    url: String,
    client: Client,
}

impl Api {
    /// The service at this URL (`http://HOST:PORT`). No request is sent yet. It has connections of its own, which belong to the
    /// runtime in which they are first used.
    pub fn at(url: &str) -> Self {
        Api {
            url: url.trim_end_matches('/').to_owned(),
            client: client(),
        }
    }

    /// Its base URL: `http://HOST:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its address for a raw connection: `HOST:PORT`.
    pub fn address(&self) -> &str {
        self.url.strip_prefix("http://").expect("it speaks plain HTTP")
    }

    /// A GET that is not sent yet.
    pub fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }

    /// A POST that is not sent yet.
    pub fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.url))
    }

    /// The answer to a GET.
    pub async fn fetch(&self, path: &str) -> Answer {
        ask(self.get(path)).await
    }

    /// The value of a metric without labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let metrics = self.fetch("/metrics").await;
        let mut values = metrics
            .text()
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = values.next().unwrap_or_else(|| panic!("no metric {name}"));
        value.parse().expect("the value of a metric is a number")
    }

    /// The JSON of a GET that must succeed.
    pub async fn json(&self, path: &str) -> Value {
        let answer = self.fetch(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }
}
