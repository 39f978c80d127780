//! Where the store is.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::error::ConfigError;

/// The scheme of an embedded store; the path of its file follows.
const SQLITE: &str = "sqlite://";

/// The default store.
const DATABASE_URL_DEFAULT: &str = "sqlite://data/eventsieve.db";

/// The default schema on PostgreSQL.
pub const SCHEMA_DEFAULT: &str = "eventsieve";

/// The longest name that PostgreSQL keeps, in bytes.
const SCHEMA_BYTES_MAX: usize = 63;

/// Where the store is: its URL, and the schema of its tables on PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    url: DatabaseUrl,
    schema: String,
    pooler: Pooler,
    is_secret_shown: bool,
}

/// What is between the service and its PostgreSQL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Pooler {
    /// What the first connections show.
    #[default]
    Auto,
    /// Nothing, or a pooler that gives each connection one of the server for itself.
    Session,
    /// A pooler that gives each transaction another connection of the server.
    Transaction,
}

impl Database {
    /// The whole URL, to connect.
    pub fn expose_url(&self) -> &str {
        &self.url.0
    }

    /// Whether the URL holds a password and was given on the command line, which every user of the machine can see.
    pub fn is_secret_shown(&self) -> bool {
        self.is_secret_shown
    }

    /// What is between the service and its PostgreSQL.
    pub fn pooler(&self) -> Pooler {
        self.pooler
    }

    /// The schema of the tables: lower-case letters, digits and underscores. Only a store on PostgreSQL has one.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The file of an embedded store; `None` for another store.
    pub fn sqlite_path(&self) -> Option<&Path> {
        self.url.sqlite_path()
    }
}

/// The URL of the store. It may hold a password, so `Debug` shows no more than its scheme.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    fn sqlite_path(&self) -> Option<&Path> {
        self.0.strip_prefix(SQLITE).map(Path::new)
    }

    fn has_password(&self) -> bool {
        let authority = self
            .0
            .split_once("://")
            .map(|(_, rest)| rest.split('/').next().unwrap_or_default());
        let user = authority
            .and_then(|authority| authority.rsplit_once('@'))
            .map(|(user, _)| user);
        user.is_some_and(|user| user.contains(':')) || self.0.contains("password=")
    }

    /// Takes a valid URL, or says what is wrong with the value of `source`. The value is not shown: it may hold a password.
    fn check(url: String, source: &str) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix(SQLITE) {
            return match path {
                "" => Err(format!(
                    "{source} names no file: give one, as in sqlite://data/eventsieve.db"
                )),
                ":memory:" => Err(format!(
                    "{source}: an in-memory store would lose every event: name a file"
                )),
                path if path.ends_with('/') || Path::new(path).is_dir() => {
                    Err(format!("{source} names the folder {path}: name a file in it"))
                }
                // SQLite itself would read these as parameters and as a URL.
                path if path.contains('?') || path.starts_with("file:") => Err(format!(
                    "{source}: the path must have no parameters and no `file:` prefix"
                )),
                _ => Ok(Self(url)),
            };
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self(url));
        }
        Err(format!("{source} must begin with postgres:// or sqlite://"))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.split_once("://").map_or("?", |(scheme, _)| scheme);
        write!(f, "{scheme}://[redacted]")
    }
}

impl From<String> for DatabaseUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

/// The setting of every command that opens the store.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Store")]
pub struct StoreOptions {
    /// The store: postgres://USER:PASSWORD@HOST/DATABASE, or sqlite://PATH for the embedded one [default: sqlite://data/eventsieve.db]
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<DatabaseUrl>,

    /// The schema of the tables on PostgreSQL, for a second log in the same database [default: eventsieve]
    #[arg(long, env = "EVENTSIEVE_SCHEMA", value_name = "NAME")]
    schema: Option<String>,

    /// How a pooler between the service and PostgreSQL works, if there is one; auto finds it out by the first connections
    #[arg(long, env = "EVENTSIEVE_POOLER", value_name = "MODE", default_value = "auto")]
    pooler: Pooler,
}

impl StoreOptions {
    /// The flag, else the variable, else the content of the file that `DATABASE_URL_FILE` names, else `DEDUP_DB`, else the
    /// default embedded store. An empty variable counts as unset.
    pub fn check(&self) -> Result<Database, ConfigError> {
        #[expect(clippy::disallowed_methods, reason = "this is config, where the environment is read")]
        let variable = |name: &str| std::env::var_os(name);
        let mut arguments = std::env::args_os();
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        self.check_with(variable)
            .and_then(|url| {
                let schema = self.check_schema(&url)?;
                let is_on_command_line = arguments.any(|argument| argument.to_string_lossy().contains(url.0.as_str()));
                let is_secret_shown = url.has_password() && is_on_command_line;
                Ok(Database {
                    url,
                    schema,
                    pooler: self.pooler,
                    is_secret_shown,
                })
            })
            .map_err(|problem| ConfigError(vec![problem]))
    }

    fn check_schema(&self, url: &DatabaseUrl) -> Result<String, String> {
        let Some(schema) = self.schema.as_ref().filter(|schema| !schema.is_empty()) else {
            return Ok(SCHEMA_DEFAULT.to_owned());
        };
        if url.sqlite_path().is_some() {
            return Err("EVENTSIEVE_SCHEMA is for PostgreSQL: the embedded store has no schemas".to_owned());
        }
        let is_plain = schema.len() <= SCHEMA_BYTES_MAX
            && schema.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
            && schema
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        if !is_plain {
            return Err(format!(
                "EVENTSIEVE_SCHEMA must be 1 to {SCHEMA_BYTES_MAX} lower-case letters, digits and underscores, not beginning with a digit"
            ));
        }
        if schema == "public" || schema == "information_schema" || schema.starts_with("pg_") {
            return Err(format!(
                "EVENTSIEVE_SCHEMA: the schema {schema} is not for one program alone: name another"
            ));
        }
        Ok(schema.clone())
    }

    fn check_with(&self, variable: impl Fn(&str) -> Option<PathBuf>) -> Result<DatabaseUrl, String> {
        if let Some(url) = self.database_url.as_ref().filter(|url| !url.0.is_empty()) {
            return DatabaseUrl::check(url.0.clone(), "DATABASE_URL");
        }
        if let Some(file) = variable("DATABASE_URL_FILE") {
            let text = std::fs::read_to_string(&file)
                .map_err(|error| format!("DATABASE_URL_FILE: cannot read {}: {error}", file.display()))?;
            return DatabaseUrl::check(text.trim().to_owned(), "the file of DATABASE_URL_FILE");
        }
        if let Some(path) = variable("DEDUP_DB") {
            return DatabaseUrl::check(format!("{SQLITE}{}", path.display()), "DEDUP_DB");
        }
        Ok(DatabaseUrl(DATABASE_URL_DEFAULT.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: Option<&str>, variables: &[(&str, &str)]) -> Result<String, String> {
        let options = StoreOptions {
            database_url: url.map(|url| DatabaseUrl(url.to_owned())),
            schema: None,
            pooler: Pooler::Auto,
        };
        let variable = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| PathBuf::from(value))
        };
        options.check_with(variable).map(|url| url.0)
    }

    #[test]
    fn reads_the_url_from_the_first_source() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("url");
        std::fs::write(&file, "postgres://from/file\n").unwrap();
        let variables = [
            ("DATABASE_URL_FILE", file.to_str().unwrap()),
            ("DEDUP_DB", "old/dedup.db"),
        ];
        assert_eq!(check(Some("postgres://h/d"), &variables).unwrap(), "postgres://h/d");
        assert_eq!(check(None, &variables).unwrap(), "postgres://from/file");
        assert_eq!(check(Some(""), &variables).unwrap(), "postgres://from/file");
        assert_eq!(check(None, &variables[1..]).unwrap(), "sqlite://old/dedup.db");
        assert_eq!(check(None, &[]).unwrap(), "sqlite://data/eventsieve.db");
    }

    #[test]
    fn reports_the_source_of_an_invalid_url() {
        for (source, url, variables) in [
            ("DATABASE_URL", Some("mysql://u:secret@h/d"), vec![]),
            ("DATABASE_URL", Some("sqlite://"), vec![]),
            ("DATABASE_URL", Some("sqlite://:memory:"), vec![]),
            ("DATABASE_URL", Some("sqlite://data/"), vec![]),
            ("DATABASE_URL", Some("sqlite://src"), vec![]),
            ("DATABASE_URL", Some("sqlite://a.db?mode=rwc"), vec![]),
            ("DATABASE_URL", Some("sqlite://file:a.db"), vec![]),
            ("DEDUP_DB", None, vec![("DEDUP_DB", ":memory:")]),
            ("DATABASE_URL_FILE", None, vec![("DATABASE_URL_FILE", "no/such/file")]),
        ] {
            let problem = check(url, &variables).unwrap_err();
            assert!(problem.starts_with(source), "{problem}");
            assert!(!problem.contains("secret"), "{problem}");
        }
    }

    #[test]
    fn password_is_found_in_a_url() {
        let has_password = |url: &str| DatabaseUrl(url.to_owned()).has_password();
        assert!(has_password("postgres://u:p@h/d") && has_password("postgres://h/d?user=u&password=p"));
        assert!(
            !has_password("postgres://u@h:5432/d")
                && !has_password("postgres://h:5432/d@x:y")
                && !has_password("sqlite://a.db")
        );
    }

    #[test]
    fn schema_is_a_plain_name_of_its_own() {
        let check = |url: &str, schema: &str| {
            let options = StoreOptions {
                database_url: None,
                schema: Some(schema.to_owned()),
                pooler: Pooler::Auto,
            };
            options.check_schema(&DatabaseUrl(url.to_owned()))
        };
        let long = "a".repeat(SCHEMA_BYTES_MAX);
        for (schema, name) in [
            ("", SCHEMA_DEFAULT),
            ("log_2", "log_2"),
            ("select", "select"),
            (&long, &long),
        ] {
            assert_eq!(check("postgres://h/d", schema).unwrap(), name);
        }
        for schema in [
            "Log",
            "2nd",
            "a-b",
            "a\"b",
            "é",
            "public",
            "information_schema",
            "pg_log",
            &(long + "a"),
        ] {
            let problem = check("postgres://h/d", schema).unwrap_err();
            assert!(problem.starts_with("EVENTSIEVE_SCHEMA"), "{schema}: {problem}");
        }
        assert_eq!(check("sqlite://a.db", "").unwrap(), SCHEMA_DEFAULT);
        assert!(check("sqlite://a.db", "log_2").is_err());
    }

    #[test]
    fn sqlite_path_is_relative_or_absolute() {
        let path = |url: &str| DatabaseUrl(url.to_owned()).sqlite_path().map(Path::to_owned);
        assert_eq!(path("sqlite://data/a.db"), Some("data/a.db".into()));
        assert_eq!(path("sqlite:///data/a.db"), Some("/data/a.db".into()));
        assert_eq!(path("postgres://h/d"), None);
    }
}
