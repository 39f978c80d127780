//! The settings of Redis, from flags and files.

use clap::{CommandFactory, FromArgMatches, Parser};

use super::*;

#[derive(Parser)]
struct Serve {
    #[command(flatten)]
    redis: RedisOptions,
}

fn check_with(arguments: &[&str], files: &RedisFiles) -> Result<Option<RedisConfig>, Vec<String>> {
    // The environment of the tests does not count: a flag wins, and of two the last does.
    let cleared = [
        "serve",
        "--redis-url=",
        "--redis-ca-file=",
        "--redis-cert-file=",
        "--redis-key-file=",
        "--redis-sentinel-user=",
        "--redis-sentinel-password=",
    ];
    let arguments = cleared.iter().chain(arguments);
    let matches = Serve::command().args_override_self(true).get_matches_from(arguments);
    let serve = Serve::from_arg_matches(&matches).unwrap();
    let mut problems = serve.redis.problems;
    let config = serve.redis.settings.check(&mut problems, files);
    ConfigError::unless(problems, config).map_err(|error| error.0)
}

fn check(arguments: &str) -> Result<Option<RedisConfig>, Vec<String>> {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    check_with(&arguments, &RedisFiles::default())
}

#[test]
fn never_shows_a_password() {
    let config =
        check("--redis-url redis+sentinel://:secret@h/service --redis-sentinel-password secret2 --redis-stream s");
    let config = config.unwrap().unwrap();
    assert!(!format!("{config:?}").contains("secret"));
    let access = &config.channel.access;
    let passwords = [&access.address.credentials, &access.sentinel_credentials];
    let passwords = passwords.map(|found| found.password.as_ref().map(Secret::expose));
    assert_eq!(passwords, [Some("secret"), Some("secret2")]);
    let problems = check("--redis-url http://:secret@h").unwrap_err();
    assert!(problems.len() == 1 && !problems[0].contains("secret"), "{problems:?}");
}

#[test]
fn reads_what_is_secret_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let files = RedisFiles {
        url: Some(write("url", "redis+sentinel://from.file/service\n")),
        sentinel_password: Some(write("password", "secret\n")),
    };
    let config = check_with(&[], &files).unwrap().unwrap();
    let Place::Sentinels { sentinels, .. } = &config.channel.access.address.place else {
        panic!("{config:?}");
    };
    assert_eq!(sentinels[0].name, "from.file");
    let password = config.channel.access.sentinel_credentials.password.unwrap();
    assert_eq!(password.expose(), "secret");
    let by_flag = check_with(&["--redis-url=redis+sentinel://flag/service"], &files).unwrap();
    assert!(by_flag.is_some_and(|config| format!("{config:?}").contains("flag")));
    let missing = RedisFiles {
        url: Some(folder.path().join("none")),
        ..RedisFiles::default()
    };
    assert!(check_with(&[], &missing).unwrap_err()[0].starts_with("REDIS_URL_FILE"));
}

#[test]
fn settings_of_another_scheme_are_problems() {
    for (arguments, word) in [
        ("--redis-url redis://h --redis-sharded", "REDIS_SHARDED"),
        ("--redis-url redis://h --redis-sentinel-user me", "REDIS_SENTINEL_USER"),
        ("--redis-url redis://h --redis-ca-file ca.pem", "rediss://"),
        (
            "--redis-url rediss://h --redis-cert-file Cargo.toml",
            "needs REDIS_KEY_FILE",
        ),
        (
            "--redis-url rediss://h --redis-key-file Cargo.toml",
            "needs REDIS_CERT_FILE",
        ),
        (
            "--redis-url rediss://h --redis-ca-file no/such/file",
            "cannot read no/such/file",
        ),
        (
            "--redis-url rediss://h --redis-ca-file Cargo.toml",
            "holds no certificate",
        ),
    ] {
        let problems = check(arguments).unwrap_err();
        assert!(problems.iter().any(|problem| problem.contains(word)), "{problems:?}");
    }
    assert!(check("--redis-url redis+cluster://h --redis-sharded").is_ok());
}
