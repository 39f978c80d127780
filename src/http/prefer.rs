//! The preferences of the header `Prefer` (RFC 7240) that `/publish` supports. Others are ignored, as the RFC requires.

use axum::http::{HeaderMap, HeaderName};

use crate::ingest::Handling;

/// The header's name.
pub(super) const PREFER: HeaderName = HeaderName::from_static("prefer");
/// The header that lists the preferences that were applied.
pub(super) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The preferences of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Preferences {
    /// `handling=lenient`: store the valid events even if others are invalid.
    pub(super) handling: Handling,
    /// `return=representation`: a result for each event of a batch.
    pub(super) representation: bool,
    /// `respond-async`: answer before the commit.
    pub(super) respond_async: bool,
}

impl Preferences {
    /// Reads all `Prefer` headers of a request. Of a repeated preference the first one counts.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let (mut handling, mut returns, mut respond_async) = (None, None, false);
        let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
        for preference in values.flat_map(|value| value.split(',')) {
            let token = preference.split(';').next().unwrap_or_default();
            let (name, value) = token.split_once('=').unwrap_or((token, ""));
            let value = value.trim().trim_matches('"').to_ascii_lowercase();
            match name.trim().to_ascii_lowercase().as_str() {
                "handling" => handling = handling.or(Some(value)),
                "return" => returns = returns.or(Some(value)),
                "respond-async" => respond_async = true,
                _ => {}
            }
        }
        let handling = if handling.as_deref() == Some("lenient") {
            Handling::Lenient
        } else {
            Handling::Strict
        };
        Self {
            handling,
            representation: returns.as_deref() == Some("representation"),
            respond_async,
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn preferences(values: &[&'static str]) -> Preferences {
        Preferences::of(
            &values
                .iter()
                .map(|value| (PREFER, HeaderValue::from_static(value)))
                .collect(),
        )
    }

    #[test]
    fn preferences_are_read_from_all_headers_in_any_case() {
        let all = Preferences {
            handling: Handling::Lenient,
            representation: true,
            respond_async: true,
        };
        assert_eq!(
            preferences(&[
                "respond-async, wait=10",
                "Handling=Lenient; x=y,return=\"representation\""
            ]),
            all
        );
    }

    #[test]
    fn default_is_strict_and_waits_for_the_commit() {
        let none = Preferences {
            handling: Handling::Strict,
            representation: false,
            respond_async: false,
        };
        assert_eq!(preferences(&[]), none);
        assert_eq!(
            preferences(&["handling=strict, handling=lenient, return=minimal, unknown"]),
            none
        );
    }
}
