//! The address of a service.

use std::{fmt, str::FromStr};

use reqwest::Url;

/// The base URL of a service. `Display` and `Debug` show it without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Target(Url);

impl Target {
    /// Whether the service is used over TLS.
    pub fn is_encrypted(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// The URL of a route of the service.
    pub fn route(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}/{path}"));
        url
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let url = Url::parse(text).map_err(|_| TargetError)?;
        match url.scheme() {
            "http" | "https" if url.query().is_none() && url.fragment().is_none() => Ok(Self(url)),
            _ => Err(TargetError),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        if shown.password().is_some() && shown.set_password(Some("***")).is_err() {
            return out.write_str("(a URL that cannot be shown)");
        }
        out.write_str(shown.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// The text is not the base URL of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("give the service's base URL, such as http://127.0.0.1:8080")]
pub struct TargetError;

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    #[test]
    fn target_keeps_its_path() {
        assert_eq!(
            target("http://host:1").route("publish").as_str(),
            "http://host:1/publish"
        );
        assert_eq!(
            target("http://host/log/").route("readyz").as_str(),
            "http://host/log/readyz"
        );
    }

    #[test]
    fn target_must_be_a_base_url() {
        for text in [
            "",
            "host:80",
            "ftp://host",
            "http://",
            "http://host/?a=b",
            "http://host/#top",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn target_shows_no_password() {
        let shown = format!("{0} {0:?}", target("http://me:secret@host/"));
        assert_eq!(shown, "http://me:***@host http://me:***@host");
    }
}
