//! Finds the server that a connection must lead to: the one of the URL, the master that a Sentinel names, or the node of a Cluster that
//! has a key. It is looked up for each new connection, so that a failover is followed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisResult,
    TlsCertificates, Value, cmd,
};

use super::cluster::Slots;
use super::commands::check_role;
use super::error::sink_error;
use crate::config::{Credentials, Host, Place, RedisAccess};
use crate::sink::contract::{SinkError, SinkErrorKind};

/// How long opening a connection may take at most; less where an answer may take less.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How many nodes of a Cluster are remembered to ask for the others.
const NODES_MAX: usize = 64;

/// The Redis of a configuration.
#[derive(Debug)]
pub(crate) struct Servers {
    access: RedisAccess,
    timeout: Duration,
    /// With which of the Sentinels or nodes the next search begins. It moves on after each search that failed: the first that answers
    /// may be the one that a network has cut off, and does not know of a failover.
    turn: AtomicUsize,
    /// The nodes that the Cluster named last.
    nodes: Mutex<Vec<Host>>,
}

impl Servers {
    /// Opens no connection yet. An answer of a server may take as long as `timeout`.
    pub(crate) fn new(access: RedisAccess, timeout: Duration) -> Self {
        Self {
            access,
            timeout,
            turn: AtomicUsize::new(0),
            nodes: Mutex::default(),
        }
    }

    /// Whether the URL leads to a Cluster.
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.access.address.place, Place::Cluster(_))
    }

    /// A client of the server that has `key`, or of the only one that takes writes.
    pub(crate) async fn find(&self, key: &str) -> Result<Client, SinkError> {
        match &self.access.address.place {
            Place::Server(host) => self.client(host),
            Place::Socket(path) => {
                let login = &self.access.address.credentials;
                self.client_of(ConnectionAddr::Unix(path.clone()), login, self.access.address.database)
            }
            Place::Sentinels { sentinels, service } => {
                self.first_of(sentinels.clone(), |sentinel| self.master(sentinel, service))
                    .await
            }
            Place::Cluster(_) => self.client(self.slots().await?.node_of(key)?),
        }
    }

    /// A client of this server.
    pub(crate) fn client(&self, host: &Host) -> Result<Client, SinkError> {
        let address = &self.access.address;
        self.client_of(self.addr(host), &address.credentials, address.database)
    }

    /// Opens a connection, or says that `doing` so failed.
    pub(super) async fn connect(&self, client: &Client, doing: &str) -> Result<MultiplexedConnection, SinkError> {
        let settings = self.settings();
        let connected = client.get_multiplexed_async_connection_with_config(&settings);
        connected.await.map_err(|error| {
            if error.is_timeout() {
                return SinkError::new(SinkErrorKind::Unreachable, format!("{doing}: {}", self.no_answer()));
            }
            sink_error(doing, &error)
        })
    }

    /// What it may mean that a connection is not answered in time.
    pub(crate) fn no_answer(&self) -> &'static str {
        if self.access.address.is_tls {
            "no answer in time; does this port use TLS?"
        } else {
            "no answer in time"
        }
    }

    /// The time limits of a connection.
    pub(crate) fn settings(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT.min(self.timeout)))
            .set_response_timeout(Some(self.timeout))
    }

    /// Which nodes of the Cluster have which slots.
    pub(super) async fn slots(&self) -> Result<Slots, SinkError> {
        let Place::Cluster(seeds) = &self.access.address.place else {
            return Err(SinkError::new(SinkErrorKind::WrongScheme, "REDIS_URL names no Cluster"));
        };
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let unknown: Vec<Host> = seeds.iter().filter(|seed| !nodes.contains(seed)).cloned().collect();
        nodes.extend(unknown);
        let slots = self.first_of(nodes, |node| self.slots_by(node)).await?;
        let mut known = slots.nodes();
        known.truncate(NODES_MAX);
        *self.nodes.lock().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(slots)
    }

    /// What the first of the hosts answers that knows an answer. Each has its part of the time, so that those that are down leave some to
    /// the others.
    async fn first_of<T, A>(&self, hosts: Vec<Host>, ask: impl Fn(Host) -> A) -> Result<T, SinkError>
    where
        A: Future<Output = Result<T, SinkError>>,
    {
        let count = hosts.len().max(1);
        let limit = self.timeout / u32::try_from(count).unwrap_or(u32::MAX);
        let mut worst: Option<SinkError> = None;
        for offset in 0..hosts.len() {
            let host = &hosts[(self.turn.load(Ordering::Relaxed) + offset) % count];
            let asked = tokio::time::timeout(limit, ask(host.clone()))
                .await
                .unwrap_or_else(|_| {
                    let line = format!("failed to connect to {host}: {}", self.no_answer());
                    Err(SinkError::new(SinkErrorKind::Unreachable, line))
                });
            match asked {
                Ok(found) => return Ok(found),
                // What no wait can cure says more than that another one is down.
                Err(error) if worst.as_ref().is_some_and(|worst| worst.kind.is_lasting()) => drop(error),
                Err(error) => worst = Some(error),
            }
        }
        self.turn.fetch_add(1, Ordering::Relaxed);
        Err(worst.unwrap_or_else(|| SinkError::new(SinkErrorKind::Unreachable, "REDIS_URL names no host")))
    }

    /// A client of the master that this Sentinel names, if that is one.
    async fn master(&self, sentinel: Host, service: &str) -> Result<Client, SinkError> {
        let client = self.client_of(self.addr(&sentinel), &self.access.sentinel_credentials, 0)?;
        let doing = format!("failed to ask the Sentinel {sentinel}");
        let mut connection = self.connect(&client, &doing).await?;
        let mut question = cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
        let answer: Option<(String, u16)> = question.query_async(&mut connection).await.map_err(|error| {
            let is_none = error.detail().is_some_and(|detail| detail.contains("unknown command"));
            match is_none {
                true => SinkError::new(
                    SinkErrorKind::WrongScheme,
                    format!("{sentinel} is no Sentinel: for the server itself, REDIS_URL must begin with redis:// or rediss://"),
                ),
                false => sink_error(&doing, &error),
            }
        })?;
        let Some((name, port)) = answer else {
            let line = format!("the Sentinel {sentinel} knows no service with the name {service:?} of REDIS_URL");
            return Err(SinkError::new(SinkErrorKind::UnknownService, line));
        };
        let master = Host { name, port };
        let client = self.client(&master)?;
        let doing = format!("failed to connect to {master}, which is the master by the Sentinel {sentinel}");
        let mut connection = self.connect(&client, &doing).await?;
        // A Sentinel may not know yet that this one is no longer the master.
        match cmd("ROLE").query_async::<Value>(&mut connection).await {
            Ok(role) => check_role(&role)?,
            Err(error) if error.code() == Some("NOPERM") => {}
            Err(error) => return Err(sink_error(&doing, &error)),
        }
        Ok(client)
    }

    async fn slots_by(&self, node: Host) -> Result<Slots, SinkError> {
        let doing = format!("failed to ask {node} for the nodes of the Cluster");
        let client = self.client(&node)?;
        let mut connection = self.connect(&client, &doing).await?;
        let answer: RedisResult<Value> = cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await;
        let answer = answer.map_err(|error| sink_error(&doing, &error))?;
        Slots::read(&answer, &node)
    }

    fn addr(&self, host: &Host) -> ConnectionAddr {
        let (host, port) = (host.name.clone(), host.port);
        if self.access.address.is_tls {
            ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                tls_params: None,
            }
        } else {
            ConnectionAddr::Tcp(host, port)
        }
    }

    fn client_of(&self, addr: ConnectionAddr, login: &Credentials, database: i64) -> Result<Client, SinkError> {
        let client = || {
            let is_tls = matches!(addr, ConnectionAddr::TcpTls { .. });
            let info = addr.into_connection_info()?;
            let mut redis = info.redis_settings().clone().set_db(database);
            if let Some(user) = &login.user {
                redis = redis.set_username(user);
            }
            if let Some(password) = &login.password {
                redis = redis.set_password(password.expose());
            }
            let tcp = info.tcp_settings().clone().set_nodelay(true);
            let info = info.set_redis_settings(redis).set_tcp_settings(tcp);
            if !is_tls {
                return Client::open(info);
            }
            let certificates = &self.access.certificates;
            let client_tls = certificates.client.clone();
            let certificates = TlsCertificates {
                client_tls: client_tls.map(|(client_cert, client_key)| ClientTlsConfig {
                    client_cert,
                    client_key,
                }),
                root_cert: certificates.authorities.clone(),
            };
            Client::build_with_tls(info, certificates)
        };
        client().map_err(|error| sink_error("failed to prepare a connection to Redis", &error))
    }
}

/// The same client with the protocol of Redis 6, by which a connection gets messages beside answers.
pub(crate) fn with_pushes(client: &Client) -> RedisResult<Client> {
    let info = client.get_connection_info().clone();
    let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Client::open(info.set_redis_settings(redis))
}
