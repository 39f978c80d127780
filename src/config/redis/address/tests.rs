//! URLs of Redis, right and wrong.

use super::*;

fn parse(url: &str) -> RedisAddress {
    RedisAddress::parse(url).unwrap()
}

fn hosts(names: &[(&str, u16)]) -> Vec<Host> {
    let host = |(name, port): &(&str, u16)| Host {
        name: (*name).to_owned(),
        port: *port,
    };
    names.iter().map(host).collect()
}

#[test]
fn reads_a_server_with_its_login_and_database() {
    let address = parse("valkeys://me:p%40ss:word@cache.example/3");
    assert_eq!(
        address.place,
        Place::Server(hosts(&[("cache.example", 6379)]).remove(0))
    );
    let password = address.credentials.password.as_ref().map(Secret::expose);
    assert_eq!(
        (address.credentials.user.as_deref(), password),
        (Some("me"), Some("p@ss:word"))
    );
    assert_eq!((address.is_tls, address.database), (true, 3));
    let address = parse("redis://:secret@[::1]:7000");
    assert_eq!(address.place, Place::Server(hosts(&[("::1", 7000)]).remove(0)));
    assert_eq!((address.credentials.user, address.is_tls), (None, false));
    assert_eq!(parse("redis://h").place, parse("valkey://h:6379/0").place);
}

#[test]
fn reads_sentinels_and_nodes() {
    let address = parse("redis+sentinel://u:p@a,[::1]:5000,c:1/the%20service/2");
    let Place::Sentinels { sentinels, service } = address.place else {
        panic!("{address:?}");
    };
    assert_eq!(sentinels, hosts(&[("a", 26379), ("::1", 5000), ("c", 1)]));
    assert_eq!(
        (service.as_str(), address.database, address.is_tls),
        ("the service", 2, false)
    );
    let address = parse("valkeys+cluster://a:7000,b");
    assert_eq!(address.place, Place::Cluster(hosts(&[("a", 7000), ("b", 6379)])));
    assert!(address.is_tls);
}

#[test]
fn reads_a_socket() {
    let address = parse("unix:///run/redis.sock?db=2&user=me&pass=a%26b");
    assert_eq!(address.place, Place::Socket(PathBuf::from("/run/redis.sock")));
    let password = address.credentials.password.as_ref().map(Secret::expose);
    assert_eq!((address.database, password), (2, Some("a&b")));
}

#[test]
fn says_what_is_wrong_and_shows_no_password() {
    for (url, word) in [
        ("http://:secret@h", "must begin with"),
        ("redis:secret", "must begin with"),
        ("redis://:secret@", "names no host"),
        ("redis://:secret@h:0", "port"),
        ("redis://:secret@h:99999", "port"),
        ("redis://:secret@::1", "brackets"),
        ("redis://:secret@[::1", "closing"),
        ("redis://:secret@[h]", "IPv6"),
        ("redis://:secret@h/one", "number of a database"),
        ("redis://:secret@h/-1", "number of a database"),
        ("redis://:secret@h?protocol=resp3", "parameters"),
        ("redis://:secret@a,b", "several hosts"),
        ("redis://:secret%FF@h", "UTF-8"),
        ("redis+sentinel://:secret@h", "service"),
        ("redis+cluster://:secret@h/1", "only database 0"),
        ("unix://", "names no socket"),
        ("unix:///s?secret=1", "parameters"),
    ] {
        let problem = RedisAddress::parse(url).unwrap_err();
        assert!(
            problem.contains(word) && !problem.contains("secret"),
            "{url}: {problem}"
        );
    }
}
