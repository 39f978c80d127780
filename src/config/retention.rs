//! How long events and identities are kept, and where events are archived.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::secret::Secret;
use super::value::{Parser, time_above_zero};
use crate::event::TopicGlob;

/// How long events and identities are kept.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Retention")]
pub struct RetentionConfig {
    /// How long events are kept, or how much of them, or both: 30d, 200GB, or 30d,200GB [default: for ever]
    #[arg(long, env = "EVENTSIEVE_RETAIN", default_value = "", hide_default_value = true, value_name = "LIMIT", value_parser = retain())]
    pub retain: Retain,
    /// How long the identities of events are kept, by which a repeated event is a duplicate; at least as long as events [default: for ever]
    #[arg(long, env = "EVENTSIEVE_RETAIN_IDENTITIES", default_value = "", hide_default_value = true, value_name = "TIME", value_parser = age())]
    pub retain_identities: Age,
    /// How long the events of some topics are kept, the first pattern that matches counts: debug.*=3d,payment.*=7y
    #[arg(long, env = "EVENTSIEVE_RETAIN_TOPICS", default_value = "", hide_default_value = true, value_name = "TOPIC=TIME,...", value_parser = topics())]
    pub retain_topics: TopicAges,
    /// How long conflicting events are kept for /conflicts
    #[arg(long, env = "EVENTSIEVE_RETAIN_CONFLICTS", default_value = "7d", value_name = "TIME", value_parser = time_above_zero())]
    pub retain_conflicts: Duration,
    #[command(flatten)]
    pub archive: ArchiveOptions,
}

/// Where events are archived before they expire.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Retention")]
pub struct ArchiveOptions {
    /// Where events are written before they expire: file:///FOLDER, or s3://BUCKET/PREFIX [default: nowhere]
    #[arg(long, env = "EVENTSIEVE_ARCHIVE", default_value = "", hide_default_value = true, value_name = "URL", value_parser = archive())]
    pub archive: ArchiveUrl,
    /// The URL of an S3-compatible service [default: that of AWS in the region]
    #[arg(long, env = "EVENTSIEVE_ARCHIVE_ENDPOINT", value_name = "URL")]
    pub archive_endpoint: Option<String>,
    /// The region of the bucket
    #[arg(long, env = "AWS_REGION", default_value = "us-east-1", value_name = "REGION")]
    pub archive_region: String,
    /// The key to the bucket
    #[arg(long, env = "AWS_ACCESS_KEY_ID", hide_env_values = true, value_name = "ID")]
    pub archive_key_id: Option<String>,
    /// The secret of that key
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true, value_name = "SECRET")]
    pub archive_secret: Option<Secret>,
    /// The token of a temporary key
    #[arg(long, env = "AWS_SESSION_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub archive_token: Option<Secret>,
}

/// How long events are kept, and how much of them; `None`: without a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retain {
    /// The age, since they were received.
    pub age: Option<Duration>,
    /// What their tables and indexes take on disk.
    pub bytes: Option<u64>,
}

/// An age; `None`: without a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Age(pub Option<Duration>);

/// The ages of some topics, the first pattern that matches counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicAges(pub Vec<(TopicGlob, Duration)>);

/// The place of an archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ArchiveUrl {
    /// There is none.
    #[default]
    None,
    /// A folder.
    Folder(PathBuf),
    /// A bucket, and what the names of all objects begin with.
    Bucket {
        /// The name of the bucket.
        name: String,
        /// Without a slash at either end.
        prefix: String,
    },
}

impl RetentionConfig {
    /// What is wrong between settings that are each valid.
    pub(super) fn conflict(&self) -> Option<String> {
        let events = self.retain_topics.0.iter().map(|(_, age)| Some(*age));
        let longest = match (self.retain.age, self.retain.bytes) {
            (None, None) => None,
            (age, _) => events.chain([Some(age.unwrap_or_default())]).max().flatten(),
        };
        let identities = self.retain_identities.0?;
        match longest {
            Some(longest) if identities >= longest => None,
            Some(longest) => Some(format!(
                "EVENTSIEVE_RETAIN_IDENTITIES must be at least {}, as long as events are kept: an event whose identity is forgotten would be stored twice",
                humantime::format_duration(longest)
            )),
            None => Some(
                "EVENTSIEVE_RETAIN_IDENTITIES needs EVENTSIEVE_RETAIN: without it events are kept for ever, and identities must be kept as long"
                    .to_owned(),
            ),
        }
    }
}

fn time(text: &str) -> Option<Duration> {
    let time = humantime::parse_duration(text).ok()?;
    (time >= Duration::from_secs(1)).then_some(time)
}

fn retain() -> Parser<Retain> {
    Parser::new("a time such as 30d, a size such as 200GB, or both: 30d,200GB", |text| {
        let mut retain = Retain::default();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            if let Some(age) = time(part.trim()) {
                (retain.age.replace(age).is_none()).then_some(())?;
            } else {
                let bytes: bytesize::ByteSize = part.trim().parse().ok()?;
                let bytes = Some(bytes.as_u64()).filter(|bytes| *bytes >= 1024 * 1024)?;
                (retain.bytes.replace(bytes).is_none()).then_some(())?;
            }
        }
        Some(retain)
    })
}

fn age() -> Parser<Age> {
    Parser::new("a time of at least 1s, such as 90d", |text| {
        if text.is_empty() {
            return Some(Age(None));
        }
        time(text).map(|age| Age(Some(age)))
    })
}

fn topics() -> Parser<TopicAges> {
    Parser::new(
        "patterns of topics with times, such as debug.*=3d,payment.*=7y",
        |text| {
            let rule = |rule: &str| {
                let (glob, age) = rule.trim().rsplit_once('=')?;
                Some((TopicGlob::parse(glob)?, time(age)?))
            };
            let rules = text.split(',').filter(|_| !text.is_empty()).map(rule);
            rules.collect::<Option<_>>().map(TopicAges)
        },
    )
}

fn archive() -> Parser<ArchiveUrl> {
    Parser::new("file:///FOLDER or s3://BUCKET/PREFIX", |text| {
        if text.is_empty() {
            return Some(ArchiveUrl::None);
        }
        if let Some(folder) = text.strip_prefix("file://") {
            return folder.starts_with('/').then(|| ArchiveUrl::Folder(folder.into()));
        }
        let bucket = text.strip_prefix("s3://")?;
        let (name, prefix) = bucket.split_once('/').unwrap_or((bucket, ""));
        (!name.is_empty()).then(|| ArchiveUrl::Bucket {
            name: name.to_owned(),
            prefix: prefix.trim_matches('/').to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86400);

    #[test]
    fn limit_is_a_time_a_size_or_both() {
        let read = |text: &str| retain().read(text).map(|retain| (retain.age, retain.bytes));
        assert_eq!(read(""), Some((None, None)));
        assert_eq!(read("30d"), Some((Some(30 * DAY), None)));
        assert_eq!(read("200GB"), Some((None, Some(200_000_000_000))));
        assert_eq!(read("2h, 1GiB"), Some((Some(DAY / 12), Some(1 << 30))));
        assert_eq!(read("1GiB,2h"), read("2h,1GiB"));
        for text in ["0s", "500ms", "1KB", "30d,30d", "1GB,2GB", "soon", "30d,", "-1d"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn topics_have_ages_of_their_own() {
        let read = |text: &str| topics().read(text).map(|ages| ages.0);
        assert_eq!(read(""), Some(vec![]));
        let glob = |text| TopicGlob::parse(text).unwrap();
        assert_eq!(
            read("debug.*=3d, a=b=1h"),
            Some(vec![(glob("debug.*"), 3 * DAY), (glob("a=b"), DAY / 24)])
        );
        for text in ["debug.*", "=3d", "a b=3d", "a=3d,,b=2d", "a=for ever"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn archive_is_a_folder_or_a_bucket() {
        let read = |text: &str| archive().read(text);
        assert_eq!(read(""), Some(ArchiveUrl::None));
        assert_eq!(read("file:///var/a"), Some(ArchiveUrl::Folder("/var/a".into())));
        let bucket = |name: &str, prefix: &str| {
            Some(ArchiveUrl::Bucket {
                name: name.to_owned(),
                prefix: prefix.to_owned(),
            })
        };
        assert_eq!(read("s3://b"), bucket("b", ""));
        assert_eq!(read("s3://b/c/d/"), bucket("b", "c/d"));
        for text in ["file://var", "s3://", "s3:///a", "/var/a", "https://host/a"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[derive(Debug, clap::Parser)]
    struct Options {
        #[command(flatten)]
        retention: RetentionConfig,
    }

    #[test]
    fn identities_are_kept_at_least_as_long_as_events() {
        let conflict = |arguments: &[&str]| {
            let arguments = ["test"].iter().chain(arguments);
            <Options as clap::Parser>::parse_from(arguments).retention.conflict()
        };
        for fine in [
            &["--retain=30d"][..],
            &["--retain=30d", "--retain-identities=30d"],
            &["--retain=1GB", "--retain-identities=1d"],
            &["--retain=3d", "--retain-topics=pay.*=90d", "--retain-identities=90d"],
        ] {
            assert_eq!(conflict(fine), None, "{fine:?}");
        }
        for wrong in [
            &["--retain-identities=30d"][..],
            &["--retain=30d", "--retain-identities=29d"],
            &["--retain=3d", "--retain-topics=pay.*=90d", "--retain-identities=89d"],
        ] {
            assert!(
                conflict(wrong).unwrap().starts_with("EVENTSIEVE_RETAIN_IDENTITIES"),
                "{wrong:?}"
            );
        }
    }
}
