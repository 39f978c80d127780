//! A Redis Cluster of a test's own: three masters, and a replica of each.

use anyhow::{Context, ensure};
use redis::Value;

use crate::eventually::{SOON, eventually};
use crate::postgres::free_port;
use crate::redis::{RedisServer, command};

const MASTERS: usize = 3;
const SLOTS: usize = 16384;

/// The nodes of a Cluster. They end when this is dropped.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts it, and waits until every node knows all others and the replicas follow their masters.
    pub async fn new() -> Self {
        let mut nodes = Vec::new();
        for _ in 0..2 * MASTERS {
            let bus = free_port().to_string();
            let arguments = [
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                "1500",
                "--repl-diskless-sync-delay",
                "0",
            ];
            let node = RedisServer::with(&arguments).await;
            if let Some(first) = nodes.first() {
                let meeting = first_contact(first, &node).await;
                assert_eq!(meeting, "OK");
            }
            nodes.push(node);
        }
        let cluster = Self { nodes };
        for (number, node) in cluster.masters().iter().enumerate() {
            let (first, last) = (number * SLOTS / MASTERS, (number + 1) * SLOTS / MASTERS - 1);
            node.command::<()>(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()])
                .await;
        }
        let ids = cluster.ids().await;
        for (number, node) in cluster.nodes[MASTERS..].iter().enumerate() {
            eventually(SOON, async || {
                let mut connection = crate::redis::connect(&node.url()).await?;
                let mut replicate = redis::cmd("CLUSTER");
                replicate.arg("REPLICATE").arg(&ids[number]);
                Ok(replicate.query_async::<()>(&mut connection).await?)
            })
            .await;
        }
        for node in &cluster.nodes {
            eventually(SOON, async || {
                let info: String = node.command(&["CLUSTER", "INFO"]).await;
                let size = format!("cluster_known_nodes:{}", 2 * MASTERS);
                ensure!(info.contains("cluster_state:ok") && info.contains(&size), "{info}");
                let shards: Vec<Value> = node.command(&["CLUSTER", "SLOTS"]).await;
                let have_replicas = shards
                    .iter()
                    .all(|shard| matches!(shard, Value::Array(parts) if parts.len() == 4));
                ensure!(have_replicas, "{shards:?}");
                Ok(())
            })
            .await;
        }
        for node in &cluster.nodes[MASTERS..] {
            eventually(SOON, async || {
                let info: String = node.command(&["INFO", "replication"]).await;
                ensure!(info.contains("master_link_status:up"), "{info}");
                Ok(())
            })
            .await;
        }
        cluster
    }

    /// The URL for `REDIS_URL`, which names two of the nodes.
    pub fn url(&self) -> String {
        format!(
            "redis+cluster://127.0.0.1:{},127.0.0.1:{}",
            self.nodes[0].port(),
            self.nodes[1].port()
        )
    }

    /// The masters at the beginning.
    pub fn masters(&self) -> &[RedisServer] {
        &self.nodes[..MASTERS]
    }

    /// The number of the node that has a key or a sharded channel, as the first of the `asked` nodes knows it.
    pub async fn owner(&self, key: &str) -> usize {
        self.owner_by(0, key).await.expect("a node has every slot")
    }

    async fn owner_by(&self, asked: usize, key: &str) -> anyhow::Result<usize> {
        let slot: i64 = command(&self.nodes[asked].url(), &["CLUSTER", "KEYSLOT", key]).await;
        let ranges: Vec<(i64, i64, (String, u16, String))> = self.nodes[asked]
            .command::<Vec<Vec<Value>>>(&["CLUSTER", "SLOTS"])
            .await
            .into_iter()
            .map(|range| {
                let [first, last, master] = [0, 1, 2].map(|part| range[part].clone());
                let Value::Array(master) = master else {
                    panic!("a node is an array")
                };
                let number = |value| redis::from_redis_value(value).expect("slots are numbers");
                let text = |value: &Value| redis::from_redis_value(value.clone()).expect("it is text");
                let port: i64 = redis::from_redis_value(master[1].clone()).expect("a port is a number");
                let port = u16::try_from(port).expect("a port");
                (number(first), number(last), (text(&master[0]), port, text(&master[2])))
            })
            .collect();
        let (.., (_, port, _)) = ranges
            .iter()
            .find(|(first, last, _)| (*first..=*last).contains(&slot))
            .context("no node has the slot")?;
        let owner = self.nodes.iter().position(|node| node.port() == *port);
        owner.context("an unknown node has the slot")
    }

    /// The same after the node with the number `dead` was killed.
    pub async fn owner_now(&self, dead: usize, key: &str) -> usize {
        let owner = self.owner_by(usize::from(dead == 0), key).await;
        owner.expect("a node has every slot")
    }

    /// Waits until the replica of a master has all that the master has.
    pub async fn replicated(&self, master: usize) {
        eventually(SOON, async || {
            let info: String = self.nodes[master].command(&["INFO", "replication"]).await;
            let field = |name: &str| {
                let found = info.split(['\n', ',']).find_map(|part| part.trim().strip_prefix(name));
                found.unwrap_or_default().to_owned()
            };
            let (own, replica) = (field("master_repl_offset:"), field("offset="));
            ensure!(!own.is_empty() && own == replica, "{info}");
            Ok(())
        })
        .await;
    }

    /// A node by its number.
    pub fn node(&self, number: usize) -> &RedisServer {
        &self.nodes[number]
    }

    /// Kills the node with this number, and waits until another one has its slots.
    pub async fn fail_over(&mut self, number: usize, key: &str) -> usize {
        self.nodes[number].kill();
        let asked = usize::from(number == 0);
        eventually(SOON, async || {
            let owner = self.owner_by(asked, key).await?;
            ensure!(owner != number, "{number} still has the slot of {key}");
            Ok(owner)
        })
        .await
    }

    /// Moves the slot of a key, with the key, to another master, whose number it returns.
    pub async fn move_slot(&self, key: &str) -> usize {
        let from = self.owner(key).await;
        let to = (from + 1) % MASTERS;
        let slot: i64 = self.nodes[0].command(&["CLUSTER", "KEYSLOT", key]).await;
        let (slot, ids) = (slot.to_string(), self.ids().await);
        let set = async |node: usize, words: &[&str]| {
            let command = [&["CLUSTER", "SETSLOT", &slot], words].concat();
            self.nodes[node].command::<()>(&command).await;
        };
        set(to, &["IMPORTING", &ids[from]]).await;
        set(from, &["MIGRATING", &ids[to]]).await;
        let port = self.nodes[to].port().to_string();
        let migrate = ["MIGRATE", "127.0.0.1", &port, "", "0", "10000", "KEYS", key];
        self.nodes[from].command::<String>(&migrate).await;
        for node in [
            to,
            from,
            (0..MASTERS)
                .find(|node| ![to, from].contains(node))
                .expect("there are three"),
        ] {
            set(node, &["NODE", &ids[to]]).await;
        }
        to
    }

    async fn ids(&self) -> Vec<String> {
        let mut ids = Vec::new();
        for node in &self.nodes {
            ids.push(node.command(&["CLUSTER", "MYID"]).await);
        }
        ids
    }
}

/// Introduces a node to another one.
async fn first_contact(known: &RedisServer, node: &RedisServer) -> String {
    let bus: Vec<String> = known.command(&["CONFIG", "GET", "cluster-port"]).await;
    let port = known.port().to_string();
    node.command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus[1]]).await
}
