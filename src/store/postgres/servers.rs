//! The servers that a URL names: one, or several of which one takes writes, as the client library of PostgreSQL has it.

use percent_encoding::percent_decode_str;
use sqlx::postgres::PgConnectOptions;

use super::connect::invalid_url;
use crate::store::{ErrorClass, StoreError};

/// The parameter that says which of several servers is wanted.
const TARGET: &str = "target_session_attrs";

/// Its values that name one that takes writes. The service can use no other, so these and none mean the same.
const WRITABLE: [&str; 3] = ["any", "primary", "read-write"];

/// The parameters that name files.
const FILES: [&str; 3] = ["sslrootcert", "sslcert", "sslkey"];

/// The options of each server, in the order of the URL.
///
/// # Errors
/// [`ErrorClass::Configuration`]: the URL is invalid, or it wants a server that takes no writes.
pub(super) fn servers(url: &str) -> Result<Vec<PgConnectOptions>, StoreError> {
    let (url, target) = without_target(url);
    if let Some(target) = target.filter(|target| !WRITABLE.contains(&target.as_str())) {
        return Err(StoreError::new(
            ErrorClass::Configuration,
            format!("DATABASE_URL is invalid: {TARGET}={target}: the service needs a server that takes writes"),
        ));
    }
    check_files(&url)?;
    let (before, hosts, after) = parts(&url);
    let server = |host: &str| {
        let options: PgConnectOptions = format!("{before}{host}{after}")
            .parse()
            .map_err(|error: sqlx::Error| invalid_url(&error))?;
        // An address of version 6 stands in brackets, which are no part of it.
        let address = options
            .get_host()
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        Ok(match address.map(str::to_owned) {
            Some(address) => options.host(&address),
            None => options,
        })
    };
    hosts.split(',').map(server).collect()
}

/// Fails for a file that cannot be read: no server would be asked without it, and waiting does not help.
fn check_files(url: &str) -> Result<(), StoreError> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    for (name, value) in query.split('&').filter_map(|parameter| parameter.split_once('=')) {
        let path = percent_decode_str(value).decode_utf8_lossy();
        if FILES.contains(&name)
            && let Err(error) = std::fs::File::open(&*path)
        {
            let message = format!("DATABASE_URL: cannot read {path} ({name}): {error}");
            return Err(StoreError::new(ErrorClass::Configuration, message));
        }
    }
    Ok(())
}

/// The URL without the parameter, and its value.
fn without_target(url: &str) -> (String, Option<String>) {
    let Some((address, query)) = url.split_once('?') else {
        return (url.to_owned(), None);
    };
    let name = |parameter: &&str| parameter.split('=').next() == Some(TARGET);
    let target = query.split('&').rfind(name);
    let rest: Vec<&str> = query.split('&').filter(|parameter| !name(parameter)).collect();
    let target = target.map(|target| target.split_once('=').map_or("", |(_, value)| value).to_owned());
    if rest.is_empty() {
        return (address.to_owned(), target);
    }
    (format!("{address}?{}", rest.join("&")), target)
}

/// What stands before the hosts, the hosts with their ports, and what stands behind them.
fn parts(url: &str) -> (&str, &str, &str) {
    let begin = url.find("://").map_or(0, |at| at + 3);
    let end = url[begin..].find(['/', '?']).map_or(url.len(), |at| begin + at);
    let begin = url[begin..end].rfind('@').map_or(begin, |at| begin + at + 1);
    (&url[..begin], &url[begin..end], &url[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(url: &str) -> Vec<(String, u16, Option<String>)> {
        let of = |options: &PgConnectOptions| {
            (
                options.get_host().to_owned(),
                options.get_port(),
                options.get_database().map(str::to_owned),
            )
        };
        servers(url).unwrap().iter().map(of).collect()
    }

    #[test]
    fn each_host_has_the_rest_of_the_url() {
        let of = |host: &str, port| (host.to_owned(), port, Some("d".to_owned()));
        assert_eq!(hosts("postgres://u:p@h/d"), [of("h", 5432)]);
        let url =
            "postgres://u:p%40@one:6000,two,[::1]:6001,[fe80::2]/d?target_session_attrs=read-write&sslmode=disable";
        let expected = [of("one", 6000), of("two", 5432), of("::1", 6001), of("fe80::2", 5432)];
        assert_eq!(hosts(url), expected);
        let options = servers(url).unwrap();
        assert!(options.iter().all(|options| options.get_username() == "u"));
        assert!(matches!(options[1].get_ssl_mode(), sqlx::postgres::PgSslMode::Disable));
    }

    #[test]
    fn server_that_takes_no_writes_is_not_wanted() {
        let error = servers("postgres://u:secret@h/d?target_session_attrs=standby").unwrap_err();
        assert_eq!(error.class, ErrorClass::Configuration);
        let line = error.line().to_string();
        assert!(
            line.contains("target_session_attrs=standby") && !line.contains("secret"),
            "{line}"
        );
        assert!(servers("postgres://h/d?target_session_attrs=any").is_ok());
    }
}
