//! What an error of Redis, or of its client, says about the server.

use std::io;
use std::sync::Arc;

use ::redis::{ErrorKind, RedisError, ServerError};
use rustls::CertificateError;

use crate::sink::contract::{SinkError, SinkErrorKind};

/// What an error that Redis answers with says about the server.
pub(super) fn kind_of(error: &ServerError) -> SinkErrorKind {
    match error.code() {
        "OOM" => SinkErrorKind::Full,
        "READONLY" | "NOREPLICAS" => SinkErrorKind::ReadOnly,
        "LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "MISCONF" | "UNKILLABLE" => {
            SinkErrorKind::Starting
        }
        "NOPERM" | "NOAUTH" | "WRONGPASS" | "WRONGTYPE" | "CROSSSLOT" => SinkErrorKind::Forbidden,
        "MOVED" | "ASK" => SinkErrorKind::WrongScheme,
        _ if is_about_cluster(error.details().unwrap_or_default()) => SinkErrorKind::WrongScheme,
        _ => SinkErrorKind::Unexpected,
    }
}

/// Whether Redis says that a string is too large.
pub(super) fn is_about_size(error: &ServerError) -> bool {
    let details = error.details().unwrap_or_default();
    ["maximum allowed size", "too large", "too big"]
        .iter()
        .any(|words| details.contains(words))
}

/// The error of Redis in one line.
pub(super) fn line(error: &ServerError) -> String {
    format!("{} {}", error.code(), error.details().unwrap_or_default())
        .trim()
        .to_owned()
}

/// Whether Redis says that it is no Cluster.
fn is_about_cluster(details: &str) -> bool {
    details.contains("cluster support disabled")
}

/// An error that Redis answered with while `doing`.
pub(super) fn server_error(doing: &str, error: &ServerError) -> SinkError {
    let kind = kind_of(error);
    let advice = match (kind, error.code()) {
        (SinkErrorKind::WrongScheme, "MOVED" | "ASK") => {
            ": it is a node of a Cluster, for which REDIS_URL must begin with redis+cluster:// or rediss+cluster://"
        }
        (SinkErrorKind::WrongScheme, _) => ": for a single server, REDIS_URL must begin with redis:// or rediss://",
        _ => "",
    };
    let found = SinkError::new(kind, format!("{doing}: Redis answers {}{advice}", line(error)));
    match error.code() {
        "MOVED" | "ASK" => found.moved(),
        _ => found,
    }
}

/// An error of the client, or one that Redis answered with, while `doing`.
pub(crate) fn sink_error(doing: &str, error: &RedisError) -> SinkError {
    if let Some([(_, error), ..]) = error.clone().into_server_errors().as_deref() {
        return server_error(doing, error);
    }
    if let Some(cause) = tls_cause(error) {
        return SinkError::new(SinkErrorKind::Untrusted, format!("{doing}: {cause}"));
    }
    let (kind, cause) = match (error.kind(), error.detail()) {
        (ErrorKind::AuthenticationFailed, _) => (
            SinkErrorKind::Forbidden,
            "Redis does not accept the user or the password".to_owned(),
        ),
        (ErrorKind::Server(_), Some(detail)) if detail.contains("DB index") => (
            SinkErrorKind::NoDatabase,
            format!("Redis does not have the database of REDIS_URL: {detail}"),
        ),
        (ErrorKind::Server(_), Some(detail)) if detail.contains("cluster mode") => (
            SinkErrorKind::NoDatabase,
            format!("a Cluster has only database 0: {detail}"),
        ),
        (ErrorKind::Server(_), Some(detail)) => (SinkErrorKind::Forbidden, format!("Redis answers {detail}")),
        _ => (SinkErrorKind::Unreachable, without_url(error)),
    };
    SinkError::new(kind, format!("{doing}: {cause}"))
}

/// The text of an error of the client, without the parts that may quote a URL.
fn without_url(error: &RedisError) -> String {
    match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.category().to_owned(),
    }
}

/// What is wrong with TLS, if that is it.
fn tls_cause(error: &RedisError) -> Option<String> {
    let source = std::error::Error::source(error)?;
    // The client shares its causes.
    let shared: &Arc<dyn std::error::Error + Send + Sync> = source.downcast_ref()?;
    let cause = shared.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()?;
    Some(match cause {
        rustls::Error::InvalidCertificate(error) => match error {
            // The signature is wrong where another authority has the same name.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the certificate of the server is not signed by a trusted authority: set REDIS_CA_FILE to the file of the one that signed it"
                    .to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the certificate of the server is for other host names than that in REDIS_URL".to_owned()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the certificate of the server has expired".to_owned()
            }
            error => format!("the certificate of the server is invalid: {error}"),
        },
        rustls::Error::AlertReceived(alert) => {
            format!("the server rejects the client certificate, or requires one (REDIS_CERT_FILE, REDIS_KEY_FILE): it answers {alert:?}")
        }
        rustls::Error::InvalidMessage(_) => {
            "the server does not use TLS on this port: REDIS_URL must begin with redis:// there".to_owned()
        }
        error => format!("TLS fails: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_and_line(cause: rustls::Error) -> (SinkErrorKind, String) {
        let error = sink_error("connecting", &io::Error::new(io::ErrorKind::InvalidData, cause).into());
        (error.kind, error.to_string())
    }

    #[test]
    fn causes_in_tls_are_named() {
        for (cause, word) in [
            (CertificateError::UnknownIssuer.into(), "REDIS_CA_FILE"),
            (CertificateError::NotValidForName.into(), "host name"),
            (CertificateError::Expired.into(), "expired"),
            (
                rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired),
                "REDIS_CERT_FILE",
            ),
            (rustls::InvalidMessage::InvalidContentType.into(), "redis://"),
        ] {
            let (kind, line) = kind_and_line(cause);
            assert_eq!(kind, SinkErrorKind::Untrusted, "{line}");
            assert!(line.contains(word), "{line}");
        }
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(
            sink_error("connecting", &refused.into()).kind,
            SinkErrorKind::Unreachable
        );
    }
}
