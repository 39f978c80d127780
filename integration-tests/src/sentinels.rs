//! Three Redis Sentinels of a test's own, which watch a master and its replica.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

use anyhow::ensure;
use tempfile::TempDir;

use crate::eventually::{SOON, eventually};
use crate::postgres::free_port;
use crate::redis::{RedisServer, command};

/// The name under which the master is watched.
pub const SERVICE: &str = "shop";

/// The password of the Sentinels' own.
pub const PASSWORD: &str = "of-the-sentinels";

/// The user and the password of the servers, whose default user may do everything, too.
pub const USER: &str = "eventsieve";
/// The password of that user.
pub const USER_PASSWORD: &str = "of-the-servers";

/// A master, a replica, and three Sentinels.
#[derive(Debug)]
pub struct Sentinels {
    /// The master at the beginning.
    pub first: RedisServer,
    /// Its replica at the beginning.
    pub second: RedisServer,
    sentinels: Vec<Sentinel>,
}

#[derive(Debug)]
struct Sentinel {
    port: u16,
    process: Child,
    _folder: TempDir,
}

impl Sentinels {
    /// Starts them, and waits until each Sentinel knows the others and the replica.
    pub async fn new() -> Self {
        let password = format!(">{USER_PASSWORD}");
        let delay = ["--repl-diskless-sync-delay", "0"];
        let user = ["--user", USER, "on", &password, "~*", "&*", "+@all"];
        let arguments = [&delay[..], &user].concat();
        let first = RedisServer::with(&arguments).await;
        let second = RedisServer::with(&arguments).await;
        second.replicate(&first).await;
        let sentinels = (0..3).map(|_| Sentinel::start(first.port())).collect();
        let found = Self {
            first,
            second,
            sentinels,
        };
        for sentinel in &found.sentinels {
            eventually(SOON, async || {
                let mut connection = crate::redis::connect(&sentinel.url()).await?;
                // They look at each other often, not every ten seconds.
                let mut look = redis::cmd("SENTINEL");
                look.arg(&["DEBUG", "INFO-PERIOD", "200", "PUBLISH-PERIOD", "200"]);
                look.query_async::<()>(&mut connection).await?;
                let mut question = redis::cmd("INFO");
                let info: String = question.arg("sentinel").query_async(&mut connection).await?;
                ensure!(info.contains("slaves=1,sentinels=3"), "{info}");
                Ok(())
            })
            .await;
        }
        found
    }

    /// The URL for `REDIS_URL`. The first Sentinel of it does not exist.
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self
            .sentinels
            .iter()
            .map(|sentinel| format!("127.0.0.1:{}", sentinel.port))
            .collect();
        format!(
            "redis+sentinel://{USER}:{USER_PASSWORD}@127.0.0.1:{},{}/{SERVICE}/0",
            free_port(),
            hosts.join(",")
        )
    }

    /// The port of one of the Sentinels.
    pub fn port(&self) -> u16 {
        self.sentinels[0].port
    }

    /// Lets the Sentinels make the replica the master while the first one runs, and waits until that is its replica.
    pub async fn step_down(&self) {
        command::<()>(&self.sentinels[0].url(), &["SENTINEL", "FAILOVER", SERVICE]).await;
        eventually(SOON, async || {
            let info: String = self.first.command(&["INFO", "replication"]).await;
            ensure!(info.contains("master_link_status:up"), "{info}");
            Ok(())
        })
        .await;
    }

    /// The port of the master that a Sentinel names.
    pub async fn master(&self) -> u16 {
        let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE];
        let (_, port): (String, u16) = command(&self.sentinels[0].url(), &words).await;
        port
    }
}

impl Sentinel {
    fn start(master: u16) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let config = folder.path().join("sentinel.conf");
        // It writes what it finds into its file.
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nrequirepass {PASSWORD}\nsentinel sentinel-pass {PASSWORD}\n\
             sentinel monitor {SERVICE} 127.0.0.1 {master} 2\nsentinel down-after-milliseconds {SERVICE} 1000\n\
             sentinel failover-timeout {SERVICE} 5000\n",
            folder.path().display()
        );
        fs::write(&config, text).expect("a file in a folder of our own");
        let log = File::create(folder.path().join("log")).expect("a file in a folder of our own");
        let process = Command::new("redis-server")
            .arg(&config)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed: deploy/test-services.sh installs it");
        Self {
            port,
            process,
            _folder: folder,
        }
    }

    fn url(&self) -> String {
        format!("redis://:{PASSWORD}@127.0.0.1:{}", self.port)
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // Killing it fails only if it has ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
