//! Where Redis is, as `REDIS_URL` says it.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use crate::config::secret::Secret;

/// The port of a server, and that of a Sentinel, where a URL names none.
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// How a URL may begin: the scheme, whether it is over TLS, and what it leads to.
const SCHEMES: [(&str, bool, Kind); 13] = [
    ("redis", false, Kind::Server),
    ("rediss", true, Kind::Server),
    ("valkey", false, Kind::Server),
    ("valkeys", true, Kind::Server),
    ("redis+sentinel", false, Kind::Sentinels),
    ("rediss+sentinel", true, Kind::Sentinels),
    ("valkey+sentinel", false, Kind::Sentinels),
    ("valkeys+sentinel", true, Kind::Sentinels),
    ("redis+cluster", false, Kind::Cluster),
    ("rediss+cluster", true, Kind::Cluster),
    ("valkey+cluster", false, Kind::Cluster),
    ("valkeys+cluster", true, Kind::Cluster),
    ("unix", false, Kind::Socket),
];

/// The URL of Redis as it was given. It may hold a password, so `Debug` shows no more than its scheme.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(pub(super) String);

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.split_once("://").map_or("?", |(scheme, _)| scheme);
        write!(f, "{scheme}://[redacted]")
    }
}

impl From<String> for RedisUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

/// Where Redis is, and how to sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisAddress {
    /// The server, or those who know it.
    pub place: Place,
    /// Whether every connection is over TLS.
    pub is_tls: bool,
    /// The user and the password of the server.
    pub credentials: Credentials,
    /// The number of the database.
    pub database: i64,
}

/// Where Redis is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// One server.
    Server(Host),
    /// One server, through a socket of the file system.
    Socket(PathBuf),
    /// The master of a service, which one of these Sentinels names.
    Sentinels {
        /// The Sentinels.
        sentinels: Vec<Host>,
        /// The name of the service.
        service: String,
    },
    /// A Cluster, of which these are some nodes.
    Cluster(Vec<Host>),
}

/// A host name or an IP address (IPv6 without brackets), and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    /// The name or the address.
    pub name: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

/// How to sign in. Nothing of it is shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The user; none is the default user.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Secret>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Server,
    Sentinels,
    Cluster,
    Socket,
}

impl RedisAddress {
    /// Reads a URL, or says what is wrong with it, behind the name of its source. The URL is not shown: it may hold a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let (_, is_tls, kind) = SCHEMES.iter().find(|(known, ..)| *known == scheme).ok_or(
            "must begin with redis:// or rediss:// for a server, redis+sentinel:// or rediss+sentinel:// for Sentinels, redis+cluster:// or rediss+cluster:// for a Cluster, or unix:// for a socket",
        )?;
        if *kind == Kind::Socket {
            return socket(rest);
        }
        if rest.contains(['?', '#']) {
            return Err("must not have parameters behind `?` or `#`; in a password these are %3F and %23".to_owned());
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let port = if *kind == Kind::Sentinels { SENTINEL_PORT } else { PORT };
        let hosts = hosts
            .split(',')
            .map(|text| host(text, port))
            .collect::<Result<Vec<_>, _>>()?;
        let (place, database) = place(*kind, hosts, path)?;
        Ok(Self {
            place,
            is_tls: *is_tls,
            credentials: credentials(login)?,
            database,
        })
    }
}

fn place(kind: Kind, mut hosts: Vec<Host>, path: &str) -> Result<(Place, i64), String> {
    match kind {
        Kind::Sentinels => {
            let (service, number) = path.split_once('/').unwrap_or((path, ""));
            if service.is_empty() {
                return Err("must name the service that the Sentinels watch, as in redis+sentinel://HOST:26379,HOST:26379/SERVICE/DATABASE".to_owned());
            }
            let service = decoded(service)?;
            let sentinels = hosts;
            Ok((Place::Sentinels { sentinels, service }, database(number)?))
        }
        Kind::Cluster => match database(path)? {
            0 => Ok((Place::Cluster(hosts), 0)),
            _ => Err("must not name a database: a Cluster has only database 0".to_owned()),
        },
        Kind::Server | Kind::Socket => match (hosts.pop(), hosts.is_empty()) {
            (Some(host), true) => Ok((Place::Server(host), database(path)?)),
            _ => Err("names several hosts, which only redis+sentinel:// and redis+cluster:// may".to_owned()),
        },
    }
}

/// `/PATH?db=1&user=NAME&pass=PASSWORD`
fn socket(rest: &str) -> Result<RedisAddress, String> {
    let (path, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    if path.is_empty() {
        return Err("names no socket: give its path, as in unix:///run/redis/redis.sock".to_owned());
    }
    let mut address = RedisAddress {
        place: Place::Socket(PathBuf::from(decoded(path)?)),
        is_tls: false,
        credentials: Credentials::default(),
        database: 0,
    };
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match name {
            "db" => address.database = database(value)?,
            "user" => address.credentials.user = Some(decoded(value)?),
            "pass" => address.credentials.password = Some(Secret(decoded(value)?)),
            _ => return Err("may have the parameters db, user and pass behind `?`, and no other".to_owned()),
        }
    }
    Ok(address)
}

fn host(text: &str, port_default: u16) -> Result<Host, String> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, port) = rest
                .split_once(']')
                .ok_or("has an IPv6 address without the closing `]`")?;
            if name.parse::<std::net::Ipv6Addr>().is_err() {
                return Err("has something other than an IPv6 address between `[` and `]`".to_owned());
            }
            (name, port.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err("has an IPv6 address without brackets: write [::1]:6379".to_owned());
            }
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err("names no host: it must be like redis://USER:PASSWORD@HOST:PORT/DATABASE".to_owned());
    }
    let port = match port {
        None => port_default,
        Some(port) => port
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or("has a port that is not a number from 1 to 65535")?,
    };
    let name = decoded(name)?;
    Ok(Host { name, port })
}

fn credentials(login: &str) -> Result<Credentials, String> {
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let some = |text: &str| {
        let text = decoded(text)?;
        Ok::<_, String>((!text.is_empty()).then_some(text))
    };
    Ok(Credentials {
        user: some(user)?,
        password: some(password)?.map(Secret),
    })
}

fn database(text: &str) -> Result<i64, String> {
    let text = text.trim_end_matches('/');
    if text.is_empty() {
        return Ok(0);
    }
    let number: Option<u32> = text.parse().ok();
    number
        .map(i64::from)
        .ok_or("must end with the number of a database, as in redis://HOST:6379/0".to_owned())
}

fn decoded(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    let is_plain = |text: &str| !text.contains(char::is_control);
    decoded
        .ok()
        .filter(|text| is_plain(text))
        .map(Into::into)
        .ok_or("has a part that is not UTF-8, or holds control characters".to_owned())
}

#[cfg(test)]
mod tests;
