//! Where the store is.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::error::ConfigError;

/// The scheme of an embedded store; the path of its file follows.
const SQLITE: &str = "sqlite://";

/// The default store.
const DATABASE_URL_DEFAULT: &str = "sqlite://data/eventsieve.db";

/// The URL of the store. It may hold a password, so neither `Debug` nor `Display` shows more than its scheme.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The whole URL, to connect.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The file of an embedded store; `None` for another store.
    pub fn sqlite_path(&self) -> Option<&Path> {
        self.0.strip_prefix(SQLITE).map(Path::new)
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
}

impl StoreOptions {
    /// The flag, else the variable, else the content of the file that `DATABASE_URL_FILE` names, else `DEDUP_DB`, else the
    /// default embedded store. An empty variable counts as unset.
    pub fn check(&self) -> Result<DatabaseUrl, ConfigError> {
        #[expect(clippy::disallowed_methods, reason = "this is config, where the environment is read")]
        let variable = |name: &str| std::env::var_os(name);
        self.check_with(|name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from))
            .map_err(|problem| ConfigError(vec![problem]))
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
    fn sqlite_path_is_relative_or_absolute() {
        let path = |url: &str| DatabaseUrl(url.to_owned()).sqlite_path().map(Path::to_owned);
        assert_eq!(path("sqlite://data/a.db"), Some("data/a.db".into()));
        assert_eq!(path("sqlite:///data/a.db"), Some("/data/a.db".into()));
        assert_eq!(path("postgres://h/d"), None);
    }
}
