//! `eventsieve keys`: makes, lists and revokes the keys of clients, in the store itself.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Subcommand;
use clap::builder::FalseyValueParser;

use crate::access::{GLOBS_MAX, Key, KeyId, KeyLimits, NAME_CHARS_MAX, NewSecret, Scopes};
use crate::api::keys::{KeyInfo, KeyWithSecret};
use crate::cli::error::UsageError;
use crate::cli::print::print;
use crate::cli::table::columns;
use crate::cli::text::printable;
use crate::config::StoreOptions;
use crate::event::{Timestamp, TopicGlob, TopicGlobs};
use crate::store::{self, KeySaved, Store};

const KEYS: &str = "the keys";

/// How many keys are read at a time.
const PAGE: u32 = 1000;

/// Make, list and revoke the keys of clients
///
/// The keys are in the store, of which only hashes of their secrets are kept. A running service knows of a change within two seconds, on
/// every replica.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  eventsieve keys create --name shop --scope publish --topics 'order.*'\n  eventsieve keys list\n  eventsieve keys revoke 0a1b2c3d4e5f"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Create(Create),
    List(List),
    Revoke(Revoke),
    Rotate(Rotate),
}

/// Make a key, and print it: it is shown this once
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  eventsieve keys create --name shop --scope publish --topics 'order.*'\n  eventsieve keys create --name prometheus --scope metrics > key\n  eventsieve keys create --name trial --scope publish,read --expires 30d --events-per-second 100"
)]
struct Create {
    #[command(flatten)]
    store: StoreOptions,
    /// What people call it
    #[arg(long, env = "EVENTSIEVE_KEYS_NAME")]
    name: String,
    /// What it may do: publish, read, consume, manage, metrics, some of them with commas between them
    #[arg(long, env = "EVENTSIEVE_KEYS_SCOPE", value_name = "SCOPE,...", value_parser = scopes)]
    scope: Scopes,
    /// With which topics: patterns in which * stands for any characters, with commas between them [default: all topics]
    #[arg(long, env = "EVENTSIEVE_KEYS_TOPICS", value_name = "PATTERN,...", value_parser = topics)]
    topics: Option<TopicGlobs>,
    /// How long it works: 12h, 30d [default: until it is revoked]
    #[arg(long, env = "EVENTSIEVE_KEYS_EXPIRES", value_name = "TIME", value_parser = humantime::parse_duration)]
    expires: Option<Duration>,
    /// How many events it may publish in a second, on each replica [default: any number]
    #[arg(long, env = "EVENTSIEVE_KEYS_EVENTS_PER_SECOND", value_name = "EVENTS", value_parser = clap::value_parser!(u32).range(1..))]
    events_per_second: Option<u32>,
    /// How many bytes it may publish in a second, decompressed, on each replica [default: any number]
    #[arg(long, env = "EVENTSIEVE_KEYS_BYTES_PER_SECOND", value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    bytes_per_second: Option<u64>,
    /// Print what is kept of the key, too, as JSON in one line
    #[arg(long, env = "EVENTSIEVE_KEYS_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
}

/// List the keys, without their secrets
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  eventsieve keys list\n  eventsieve keys list --json | jq .name")]
struct List {
    #[command(flatten)]
    store: StoreOptions,
    /// Print a line of JSON for each key
    #[arg(long, env = "EVENTSIEVE_KEYS_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
}

/// Revoke a key: it no longer works, and its streams end
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  eventsieve keys revoke 0a1b2c3d4e5f")]
struct Revoke {
    #[command(flatten)]
    store: StoreOptions,
    /// Which key: the part between esk_ and the next _
    #[arg(value_parser = id)]
    id: KeyId,
}

/// Give a key a new secret, and print it: it is shown this once
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  eventsieve keys rotate 0a1b2c3d4e5f --overlap 24h")]
struct Rotate {
    #[command(flatten)]
    store: StoreOptions,
    /// Which key: the part between esk_ and the next _
    #[arg(value_parser = id)]
    id: KeyId,
    /// For how long the secret before works, too
    #[arg(long, env = "EVENTSIEVE_KEYS_OVERLAP", default_value = "24h", value_name = "TIME", value_parser = humantime::parse_duration)]
    overlap: Duration,
    /// Print what is kept of the key, too, as JSON in one line
    #[arg(long, env = "EVENTSIEVE_KEYS_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
}

fn scopes(text: &str) -> Result<Scopes, String> {
    let scopes = Scopes::parse(text).filter(|scopes| *scopes != Scopes::NONE);
    scopes.ok_or_else(|| "give some of publish, read, consume, manage and metrics".to_owned())
}

fn topics(text: &str) -> Result<TopicGlobs, String> {
    let texts: Vec<&str> = text.split(',').map(str::trim).filter(|text| !text.is_empty()).collect();
    let globs: Option<TopicGlobs> = texts.iter().map(|text| TopicGlob::parse(text)).collect();
    globs.filter(|_| texts.len() <= GLOBS_MAX).ok_or_else(|| {
        format!("give at most {GLOBS_MAX} patterns such as order.*, without white space and control characters")
    })
}

fn id(text: &str) -> Result<KeyId, String> {
    KeyId::parse(text).ok_or_else(|| "the id of a key has 12 digits and lower-case letters".to_owned())
}

impl Args {
    /// Does what is asked in the store. A secret is printed once it is kept.
    pub(crate) async fn run(self) -> Result<()> {
        match self.action {
            Action::Create(create) => create.run().await,
            Action::List(list) => list.run().await,
            Action::Revoke(revoke) => revoke.run().await,
            Action::Rotate(rotate) => rotate.run().await,
        }
    }
}

impl Create {
    async fn run(self) -> Result<()> {
        let is_name = (1..=NAME_CHARS_MAX).contains(&self.name.chars().count());
        if !is_name || self.name.contains(char::is_control) {
            bail!(UsageError(format!(
                "--name must have 1 to {NAME_CHARS_MAX} characters, none of them a control character"
            )));
        }
        let store = open(&self.store).await?;
        let now = store.clock().await?;
        let id = KeyId::random();
        let secret = NewSecret::of(id);
        let expires_at = self.expires.map(|time| later(now, time)).transpose()?;
        let key = Key {
            id,
            name: self.name,
            scopes: self.scope,
            topics: self.topics.unwrap_or_default(),
            limits: KeyLimits {
                events_per_second: self.events_per_second,
                bytes_per_second: self.bytes_per_second,
            },
            hash: secret.hash(),
            previous: None,
            created_at: now,
            expires_at,
            revoked_at: None,
            last_used_at: None,
            version: 0,
        };
        match store.save_key(&key).await? {
            KeySaved::Saved(_) => {}
            KeySaved::TooMany | KeySaved::Changed => bail!("there are as many keys as there may be: revoke some"),
        }
        store.close().await;
        show(&key, &secret, self.json)
    }
}

impl List {
    async fn run(self) -> Result<()> {
        let store = open(&self.store).await?;
        let (mut after, mut rows) = (None, Vec::new());
        loop {
            let page = store.keys(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            for key in &page {
                if self.json {
                    let line = serde_json::to_string(&KeyInfo::of(key))? + "\n";
                    print(&line, KEYS)?;
                } else {
                    rows.push(row(key));
                }
            }
        }
        store.close().await;
        if !self.json {
            let table = columns(["id", "name", "scopes", "topics", "last used", "state"], rows);
            print(&table, KEYS)?;
        }
        Ok(())
    }
}

fn row(key: &Key) -> [String; 6] {
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    let state = match (key.revoked_at, key.expires_at) {
        (Some(at), _) => format!("revoked {at}"),
        (None, Some(at)) => format!("until {at}"),
        (None, None) => "works".to_owned(),
    };
    [
        key.id.to_string(),
        printable(&key.name),
        key.scopes.to_string(),
        key.topics_text()
            .map_or_else(|| "*".to_owned(), |topics| topics.replace(' ', ",")),
        time(key.last_used_at).unwrap_or_else(|| "never".to_owned()),
        state,
    ]
}

impl Revoke {
    async fn run(self) -> Result<()> {
        let store = open(&self.store).await?;
        let now = store.clock().await?;
        let change = |key: Key| {
            let revoked_at = key.revoked_at.or(Some(now));
            Ok(Key { revoked_at, ..key })
        };
        update(&*store, self.id, change).await?;
        store.close().await;
        print(&format!("revoked {}\n", self.id), KEYS).map(drop)
    }
}

impl Rotate {
    async fn run(self) -> Result<()> {
        let store = open(&self.store).await?;
        let until = later(store.clock().await?, self.overlap)?;
        let secret = NewSecret::of(self.id);
        let change = |key: Key| {
            if key.revoked_at.is_some() {
                bail!("the key {} is revoked", key.id);
            }
            let previous = Some((key.hash, until));
            let hash = secret.hash();
            Ok(Key { previous, hash, ..key })
        };
        let key = update(&*store, self.id, change).await?;
        store.close().await;
        show(&key, &secret, self.json)
    }
}

async fn open(options: &StoreOptions) -> Result<std::sync::Arc<dyn Store>> {
    let url = options.check().map_err(UsageError::from)?;
    let store = store::open(&url)?;
    store.check_schema().await?;
    Ok(store)
}

async fn update(store: &dyn Store, id: KeyId, change: impl Fn(Key) -> Result<Key>) -> Result<Key> {
    loop {
        let Some(key) = store.key(id).await? else {
            bail!("there is no key {id}")
        };
        let changed = change(key)?;
        if let KeySaved::Saved(_) = store.save_key(&changed).await? {
            return Ok(changed);
        }
    }
}

fn later(now: Timestamp, by: Duration) -> Result<Timestamp> {
    let by = i64::try_from(by.as_micros()).ok();
    let later = by.and_then(|by| Timestamp::from_micros(now.micros().checked_add(by)?));
    later.ok_or_else(|| UsageError("this time ends beyond the year 9999: give a shorter one".to_owned()).into())
}

/// Prints a key with its secret.
fn show(key: &Key, secret: &NewSecret, as_json: bool) -> Result<()> {
    let text = if as_json {
        let info = KeyInfo::of(key);
        serde_json::to_string(&KeyWithSecret {
            key: secret.key(),
            info,
        })?
    } else {
        secret.key()
    };
    print(&(text + "\n"), KEYS).map(drop)
}
