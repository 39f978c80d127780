//! The fault proxy: a TCP proxy between the service and its PostgreSQL or its Redis. A test can make it slow, unreachable or silent,
//! and let it lose the reply of a chosen commit.
//!
//! It understands just enough of PostgreSQL's protocol to recognise a *group commit*: the execution of a prepared statement whose
//! SQL contains `append`. Redis traffic is only forwarded. It supports no TLS, and the URL of [`Proxy::through`] disables it.

use std::collections::{HashSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, mem};

use reqwest::Url;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::eventually::SOON;
use crate::postgres::free_port;

/// The part of a statement's SQL that identifies it as a group commit.
const COMMIT_SQL: &[u8] = b"append";

/// How much of a `Bind` is inspected: the names of the portal and of the statement come first.
const BIND_PREFIX: usize = 256;

/// The most bytes that are forwarded at once.
const CHUNK: usize = 64 * 1024;

/// The interval at which a port in use is tried again.
const AGAIN: Duration = Duration::from_millis(5);

/// The state of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Everything is forwarded.
    Pass,
    /// Everything from the service is forwarded with this delay.
    Slow(Duration),
    /// New connections are refused. Existing ones are not affected.
    Refuse,
    /// Connections are accepted, and all bytes are dropped in both directions. A connection that has lost bytes stays silent.
    BlackHole,
}

/// What happens to the reply of a group commit that the server has executed and committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitFault {
    /// The reply is dropped and the connection closed.
    LoseReply,
    /// Once the server has received the group commit, the network is a [`Network::BlackHole`].
    BlackHole,
}

#[derive(Debug, Clone, Copy)]
struct State {
    network: Network,
    cuts: u64,
}

/// The protocol of the forwarded traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Postgres,
    Redis,
}

impl Protocol {
    fn of(url: &Url) -> Self {
        match url.scheme() {
            "redis" => Protocol::Redis,
            _ => Protocol::Postgres,
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Protocol::Postgres => 5432,
            Protocol::Redis => 6379,
        }
    }
}

#[derive(Debug)]
struct Control {
    protocol: Protocol,
    upstream: Mutex<(String, u16)>,
    state: watch::Sender<State>,
    faults: Mutex<VecDeque<CommitFault>>,
    commits: AtomicUsize,
    lost_replies: AtomicUsize,
}

impl Control {
    fn set(&self, network: Network) {
        self.state.send_modify(|state| state.network = network);
    }

    fn network(&self) -> Network {
        self.state.borrow().network
    }

    fn arm(&self, fault: CommitFault) {
        self.faults().push_back(fault);
    }

    fn next_fault(&self) -> Option<CommitFault> {
        self.faults().pop_front()
    }

    fn upstream(&self) -> (String, u16) {
        self.upstream.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn forward_to(&self, upstream: (String, u16)) {
        *self.upstream.lock().unwrap_or_else(PoisonError::into_inner) = upstream;
    }

    fn faults(&self) -> MutexGuard<'_, VecDeque<CommitFault>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A proxy to one server. All its connections are reset when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    control: Arc<Control>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// A proxy to the server of a database's or a Redis's URL, which forwards everything.
    pub async fn to(url: &str) -> Self {
        Self::with(url, Network::Pass).await
    }

    /// A proxy to the server of a database's or a Redis's URL, in this state from the start.
    pub async fn with(url: &str, network: Network) -> Self {
        let (protocol, upstream) = server_of(url);
        let port = free_port();
        let control = Arc::new(Control {
            protocol,
            upstream: Mutex::new(upstream),
            state: watch::Sender::new(State { network, cuts: 0 }),
            faults: Mutex::default(),
            commits: AtomicUsize::new(0),
            lost_replies: AtomicUsize::new(0),
        });
        let mut tasks = JoinSet::new();
        // Bound before this returns, so that the test can connect at once.
        let listener = match network {
            Network::Refuse => None,
            _ => Some(bind(port).await),
        };
        tasks.spawn(accept(port, listener, Arc::clone(&control)));
        Proxy {
            port,
            control,
            _tasks: tasks,
        }
    }

    /// The same URL through this proxy.
    pub fn through(&self, url: &str) -> String {
        let mut url = Url::parse(url).expect("a server has a URL");
        url.set_host(Some("127.0.0.1")).expect("an address is a host");
        url.set_port(Some(self.port)).expect("this kind of URL has a port");
        if self.control.protocol == Protocol::Postgres {
            url.set_query(Some("sslmode=disable"));
        }
        url.into()
    }

    /// Forwards new connections to the server of this URL. Existing ones are not affected.
    pub fn forward_to(&self, url: &str) {
        let (protocol, upstream) = server_of(url);
        assert_eq!(protocol, self.control.protocol, "a server of another kind");
        self.control.forward_to(upstream);
    }

    /// Changes the state of the network, for new connections and (except for [`Network::Refuse`]) for existing ones.
    pub fn set(&self, network: Network) {
        self.control.set(network);
    }

    /// Resets every connection, now.
    pub fn cut(&self) {
        self.control.state.send_modify(|state| state.cuts += 1);
    }

    /// Injects this fault into the next group commit. Faults of further calls apply to the group commits after it.
    pub fn arm(&self, fault: CommitFault) {
        self.control.arm(fault);
    }

    /// The number of group commits seen.
    pub fn commits(&self) -> usize {
        self.control.commits.load(Ordering::SeqCst)
    }

    /// The number of replies of group commits that were dropped.
    pub fn lost_replies(&self) -> usize {
        self.control.lost_replies.load(Ordering::SeqCst)
    }
}

fn server_of(url: &str) -> (Protocol, (String, u16)) {
    let url = Url::parse(url).expect("a server has a URL");
    let protocol = Protocol::of(&url);
    let host = url.host_str().expect("the URL of a server names its host").to_owned();
    (protocol, (host, url.port().unwrap_or(protocol.default_port())))
}

/// Listens on the port, once no process that is just being started holds our previous listener any more ([`free_port`]). It does not
/// use `eventually`, whose future is not `Send`.
async fn bind(port: u16) -> TcpListener {
    let end = Instant::now() + SOON;
    loop {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < end => sleep(AGAIN).await,
            bound => return bound.expect("the port is free, and below those of outgoing connections"),
        }
    }
}

/// Accepts connections, and listens only while the network allows it.
async fn accept(port: u16, mut listener: Option<TcpListener>, control: Arc<Control>) {
    let mut connections = JoinSet::new();
    let mut state = control.state.subscribe();
    loop {
        if state.borrow_and_update().network == Network::Refuse {
            listener = None;
        } else if listener.is_none() {
            listener = Some(bind(port).await);
        }
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Ok((client, _)) = accepted => {
                let now = *state.borrow();
                // A connection from before the listener was closed is not accepted any more.
                if now.network != Network::Refuse {
                    connections.spawn(connect(client, Arc::clone(&control), now.cuts));
                }
            }
            Ok(()) = state.changed() => {}
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Serves one connection, accepted after so many `cuts`, until one side closes it or it is cut.
async fn connect(mut client: TcpStream, control: Arc<Control>, cuts: u64) {
    let mut state = control.state.subscribe();
    let Ok(mut server) = TcpStream::connect(control.upstream()).await else {
        return;
    };
    let connection = Connection {
        control: &control,
        losing_reply: AtomicBool::new(false),
        deaf: AtomicBool::new(false),
    };
    let cut = tokio::select! {
        _ = connection.forward(&mut client, &mut server) => false,
        _ = state.wait_for(|state| state.cuts != cuts) => true,
    };
    if cut {
        // Without linger, dropping the stream sends a reset.
        client.set_zero_linger().expect("a socket of our own takes options");
    }
}

struct Connection<'a> {
    control: &'a Control,
    /// Set before the server can receive a group commit whose reply is to be dropped.
    losing_reply: AtomicBool,
    /// Set when the first bytes are lost in a black hole.
    deaf: AtomicBool,
}

impl Connection<'_> {
    /// Forwards both ways until one side closes.
    async fn forward(&self, client: &mut TcpStream, server: &mut TcpStream) -> io::Result<()> {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            ended = self.forward_requests(from_client, to_server) => ended,
            ended = self.forward_replies(from_server, to_client) => ended,
        }
    }

    async fn forward_requests(&self, mut client: ReadHalf<'_>, mut server: WriteHalf<'_>) -> io::Result<()> {
        let mut requests = Requests::default();
        let mut buffer = vec![0; CHUNK];
        let mut fault = None;
        loop {
            let length = client.read(&mut buffer).await?;
            if length == 0 {
                return Ok(());
            }
            if self.loses_bytes() {
                continue;
            }
            if let Network::Slow(delay) = self.control.network() {
                sleep(delay).await;
            }
            let seen = match self.control.protocol {
                Protocol::Postgres => requests.read(&buffer[..length]),
                Protocol::Redis => Seen::default(),
            };
            for _ in 0..seen.commits {
                self.control.commits.fetch_add(1, Ordering::SeqCst);
                fault = fault.or_else(|| self.control.next_fault());
            }
            if fault == Some(CommitFault::LoseReply) {
                self.losing_reply.store(true, Ordering::SeqCst);
                fault = None;
            }
            server.write_all(&buffer[..length]).await?;
            if seen.synced && fault.take() == Some(CommitFault::BlackHole) {
                // The server has the whole group commit, and its reply was not forwarded yet.
                self.deaf.store(true, Ordering::SeqCst);
                self.control.set(Network::BlackHole);
            }
        }
    }

    async fn forward_replies(&self, mut server: ReadHalf<'_>, mut client: WriteHalf<'_>) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        let mut withheld = Reply::default();
        loop {
            let length = server.read(&mut buffer).await?;
            if self.loses_bytes() {
                if length == 0 {
                    // The end of the connection is lost as well.
                    std::future::pending::<()>().await;
                }
                continue;
            }
            if length == 0 {
                return Ok(());
            }
            if !self.losing_reply.load(Ordering::SeqCst) {
                client.write_all(&buffer[..length]).await?;
                continue;
            }
            withheld.bytes.extend_from_slice(&buffer[..length]);
            match withheld.outcome() {
                None => {}
                Some(Outcome::Committed) => {
                    self.control.lost_replies.fetch_add(1, Ordering::SeqCst);
                    return Ok(());
                }
                Some(Outcome::Failed) => {
                    // Nothing was committed: the reply is forwarded, and the fault applies to the next group commit.
                    self.control.arm(CommitFault::LoseReply);
                    self.losing_reply.store(false, Ordering::SeqCst);
                    client.write_all(&mem::take(&mut withheld).bytes).await?;
                }
            }
        }
    }

    fn loses_bytes(&self) -> bool {
        if self.control.network() == Network::BlackHole {
            self.deaf.store(true, Ordering::SeqCst);
        }
        self.deaf.load(Ordering::SeqCst)
    }
}

/// What a chunk of the stream from the service contained.
#[derive(Debug, Default)]
struct Seen {
    /// The number of group commits that it completed.
    commits: usize,
    /// Whether a `Sync` followed the last of them.
    synced: bool,
}

/// The messages from the service to the server: a type byte (except for the first message), a length, and a body.
#[derive(Debug, Default)]
struct Requests {
    started: bool,
    header: Vec<u8>,
    remaining: usize,
    kept: Vec<u8>,
    commit_statements: HashSet<Vec<u8>>,
}

impl Requests {
    fn read(&mut self, mut bytes: &[u8]) -> Seen {
        let mut seen = Seen::default();
        while !bytes.is_empty() {
            let header_length = if self.started { 5 } else { 4 };
            if self.header.len() < header_length {
                let (head, rest) = bytes.split_at(bytes.len().min(header_length - self.header.len()));
                self.header.extend_from_slice(head);
                bytes = rest;
                if self.header.len() < header_length {
                    break;
                }
                self.remaining = body_length(&self.header[header_length - 4..]);
            } else {
                let (body, rest) = bytes.split_at(bytes.len().min(self.remaining));
                let free = self.kept_length().saturating_sub(self.kept.len());
                self.kept.extend_from_slice(&body[..body.len().min(free)]);
                self.remaining -= body.len();
                bytes = rest;
            }
            if self.remaining == 0 {
                self.end_message(&mut seen);
            }
        }
        seen
    }

    /// How much of the body of the current message is needed.
    fn kept_length(&self) -> usize {
        match self.kind() {
            Some(b'P') => usize::MAX,
            Some(b'B') => BIND_PREFIX,
            _ => 0,
        }
    }

    fn kind(&self) -> Option<u8> {
        self.started.then(|| self.header[0])
    }

    fn end_message(&mut self, seen: &mut Seen) {
        let mut texts = self.kept.split(|byte| *byte == 0);
        let (first, second) = (texts.next().unwrap_or_default(), texts.next().unwrap_or_default());
        match self.kind() {
            // Parse: the name of the statement, and its SQL.
            Some(b'P') => {
                if second.windows(COMMIT_SQL.len()).any(|part| part == COMMIT_SQL) {
                    self.commit_statements.insert(first.to_vec());
                } else {
                    self.commit_statements.remove(first);
                }
            }
            // Bind: the name of the portal, and that of the statement.
            Some(b'B') if self.commit_statements.contains(second) => {
                seen.commits += 1;
                seen.synced = false;
            }
            Some(b'S') => seen.synced = true,
            _ => {}
        }
        self.started = true;
        self.header.clear();
        self.kept.clear();
    }
}

/// The outcome of a group commit.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Committed,
    Failed,
}

/// The reply of the server to one group commit, as far as received.
#[derive(Debug, Default)]
struct Reply {
    bytes: Vec<u8>,
}

impl Reply {
    /// The outcome, once the server is ready for the next query.
    fn outcome(&self) -> Option<Outcome> {
        let mut rest = &self.bytes[..];
        let mut outcome = Outcome::Failed;
        while rest.len() >= 5 {
            let message_length = 5 + body_length(&rest[1..5]);
            if rest.len() < message_length {
                return None;
            }
            match rest[0] {
                b'C' => outcome = Outcome::Committed,
                b'Z' => return Some(outcome),
                _ => {}
            }
            rest = &rest[message_length..];
        }
        None
    }
}

/// The length of a message's body: the protocol's own counts its four bytes as well.
fn body_length(bytes: &[u8]) -> usize {
    let bytes: [u8; 4] = bytes.try_into().expect("a length is four bytes");
    usize::try_from(u32::from_be_bytes(bytes))
        .expect("a usize holds 32 bits")
        .saturating_sub(4)
}
