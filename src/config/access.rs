//! What clients may do that present no key of the store, and the operator's own key.

use std::path::Path;

use clap::Args;

use super::secret::Secret;
use super::value::Parser;
use crate::access::{Scopes, SecretHash};

/// The fewest characters of the operator's own key.
const ADMIN_KEY_CHARS_MIN: usize = 32;

/// What clients may do without a key.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Access")]
pub struct AccessSettings {
    /// What clients may do without a key: publish,read,consume,manage,metrics, some of them, or nothing (an empty value) [default: everything where HOST is a loopback address, else nothing]
    #[arg(long, env = "EVENTSIEVE_ANONYMOUS", value_name = "SCOPE,...", value_parser = scopes())]
    anonymous: Option<Scopes>,
}

/// Who may do what, beside the keys in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessConfig {
    /// What clients may do without a key; `None`: it follows from the address.
    pub anonymous: Option<Scopes>,
    /// The hash of a key that may do everything.
    pub admin: Option<SecretHash>,
}

fn scopes() -> Parser<Scopes> {
    let names = "a list of publish, read, consume, manage and metrics, with commas between them";
    Parser::new(names, Scopes::parse)
}

impl AccessSettings {
    pub(super) fn check(&self, admin: Option<SecretHash>) -> AccessConfig {
        AccessConfig {
            anonymous: self.anonymous,
            admin,
        }
    }
}

/// The hash of `EVENTSIEVE_ADMIN_KEY`, or of what the file of `EVENTSIEVE_ADMIN_KEY_FILE` holds. There is no flag for it: command lines
/// are seen by everybody on the machine.
pub(super) fn admin_key() -> Result<Option<SecretHash>, String> {
    let key = secret("EVENTSIEVE_ADMIN_KEY", "EVENTSIEVE_ADMIN_KEY_FILE")?;
    key.map(|key| check(key.expose())).transpose()
}

/// The key that commands present to a service: `EVENTSIEVE_KEY`, or what the file of `EVENTSIEVE_KEY_FILE` holds.
pub fn client_key() -> Result<Option<Secret>, String> {
    secret("EVENTSIEVE_KEY", "EVENTSIEVE_KEY_FILE")
}

fn secret(name: &str, file: &str) -> Result<Option<Secret>, String> {
    #[expect(clippy::disallowed_methods, reason = "this is config, where the environment is read")]
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let text = match (variable(name), variable(file)) {
        (Some(text), _) => text.to_string_lossy().into_owned(),
        (None, Some(path)) => {
            let path = Path::new(&path);
            std::fs::read_to_string(path).map_err(|error| format!("{file}: cannot read {}: {error}", path.display()))?
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(Secret::from(text.trim().to_owned())))
}

fn check(key: &str) -> Result<SecretHash, String> {
    let is_plain = key.bytes().all(|byte| byte.is_ascii_graphic());
    if key.len() < ADMIN_KEY_CHARS_MIN || !is_plain {
        return Err(format!(
            "EVENTSIEVE_ADMIN_KEY must have at least {ADMIN_KEY_CHARS_MIN} characters of ASCII, without white space"
        ));
    }
    Ok(SecretHash::of(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_key_is_long_and_plain() {
        let key = "0123456789abcdef0123456789abcdef";
        assert!(check(key).unwrap().is(&SecretHash::of(key)));
        for wrong in [
            "",
            &key[1..],
            "0123456789abcdef 0123456789abcdef",
            "ü123456789abcdef0123456789abcdef",
        ] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn scopes_are_a_list() {
        assert_eq!(scopes().read("publish,read").unwrap().to_string(), "publish,read");
        assert_eq!(scopes().read(""), Some(Scopes::NONE));
        assert_eq!(scopes().read("all"), None);
    }
}
