//! The privileges, networks and memory of the containers, and the durability settings of their servers.

use serde_json::Value;

use super::engine::{attempt, docker, inspect};
use super::stack::Stack;

/// The long-lived services.
const SERVERS: [&str; 5] = ["aggregator", "storage", "broker", "balancer", "prometheus"];

/// The most memory that an idle service may use, as the engine counts it.
const IDLE_MB: f64 = 30.0;

/// Checks the output of `docker inspect` for the containers of both deployments.
pub async fn containers_have_no_extra_privileges() {
    for (stack, published) in [
        (Stack::plain().await, "aggregator"),
        (Stack::scaled().await, "balancer"),
    ] {
        let filter = format!("name=^{}-", stack.project());
        let names = docker(&["ps", "-a", "--filter", &filter, "--format", "{{.Names}}"]).await;
        assert!(names.lines().count() >= 4, "{names}");
        for name in names.lines() {
            assert_confined(name, &inspect(name).await, name.contains(published));
        }
    }
    // Services of other profiles.
    let stack = Stack::plain().await;
    stack.observe().await;
    let prometheus = stack.container("prometheus").await;
    assert_confined(&prometheus, &inspect(&prometheus).await, false);
    let tester = format!("{}-tester-1", stack.project());
    stack
        .compose(&["run", "-d", "--no-deps", "--name", &tester, "tester", "--list"])
        .await;
    assert_confined(&tester, &inspect(&tester).await, false);
    docker(&["rm", "-f", &tester]).await;
}

fn assert_confined(name: &str, container: &Value, is_published: bool) {
    let (host, config) = (&container["HostConfig"], &container["Config"]);
    let user = config["User"].as_str().unwrap_or_default();
    assert!(
        !["", "root"].contains(&user) && !user.starts_with('0'),
        "{name} runs as {user:?}"
    );
    assert_eq!(host["ReadonlyRootfs"], true, "{name}");
    assert_eq!(host["CapDrop"], serde_json::json!(["ALL"]), "{name}");
    assert!(host["CapAdd"].is_null(), "{name}");
    assert_eq!(host["Privileged"], false, "{name}");
    assert_eq!(
        host["SecurityOpt"],
        serde_json::json!(["no-new-privileges:true"]),
        "{name}"
    );
    assert!(host["Memory"].as_u64() > Some(0), "{name} has no limit of memory");
    assert!(host["PidsLimit"].as_u64() > Some(0), "{name} has no limit of processes");
    assert_eq!(host["LogConfig"]["Config"]["max-size"], "10m", "{name}");
    let bindings = host["PortBindings"].as_object().expect("a container has bindings");
    let hosts: Vec<(&String, &Value)> = bindings.iter().map(|(port, list)| (port, &list[0]["HostIp"])).collect();
    if is_published {
        assert_eq!(hosts, [(&"8080/tcp".to_owned(), &Value::from("127.0.0.1"))], "{name}");
    } else {
        assert!(hosts.is_empty(), "{name} publishes {hosts:?}");
    }
    if SERVERS.iter().any(|server| name.contains(server)) {
        assert!(config["Healthcheck"]["Test"].is_array(), "{name} has no health check");
        assert_eq!(host["RestartPolicy"]["Name"], "unless-stopped", "{name}");
    }
}

/// Checks the settings of the running servers: an acknowledged event is on disk, and Redis evicts nothing.
pub async fn storage_and_broker_are_durable() {
    let stack = Stack::plain().await;
    for setting in ["fsync", "synchronous_commit", "full_page_writes", "data_checksums"] {
        assert_eq!(stack.sql(&format!("show {setting}")).await, "on", "{setting}");
    }
    for (setting, value) in [
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("maxmemory-policy", "noeviction"),
    ] {
        assert_eq!(
            stack.redis(&["CONFIG", "GET", setting]).await,
            format!("{setting}\n{value}")
        );
    }
}

/// By name and by address. `aggregator` can be reached, which shows that the method works.
pub async fn front_network_cannot_reach_back_ends() {
    let stack = Stack::plain().await;
    let (storage, broker) = (stack.container("storage").await, stack.container("broker").await);
    let (storage, broker) = (stack.address(&storage).await, stack.address(&broker).await);
    let reaches = async |network: &str, host: &str, port: u16| {
        let network = format!("{}_{network}", stack.project());
        let ask = format!("timeout 3 bash -c '</dev/tcp/{host}/{port}'");
        let run = [
            "run",
            "--rm",
            "--network",
            &network,
            "debian:trixie-slim",
            "bash",
            "-c",
            &ask,
        ];
        attempt(&run).await.code == Some(0)
    };
    assert!(reaches("front", "aggregator", 8080).await);
    for (host, port) in [("storage", 5432), (&*storage, 5432), ("broker", 6379), (&*broker, 6379)] {
        assert!(!reaches("front", host, port).await, "{host} can be reached from front");
        assert!(reaches("back", host, port).await, "{host} cannot be reached from back");
    }
    let network = inspect(&format!("{}_back", stack.project())).await;
    assert_eq!(network["Internal"], true, "the network back is not internal");
}

/// Checks the output of `docker stats` after the publisher has ended.
pub async fn idle_aggregator_uses_less_than_30_mb() {
    let stack = Stack::plain().await;
    let aggregator = stack.container("aggregator").await;
    let usage = docker(&["stats", "--no-stream", "--format", "{{.MemUsage}}", &aggregator]).await;
    let used = usage.split(" / ").next().expect("USED / LIMIT");
    println!("an idle aggregator uses {used}");
    // Mebibytes: of the rest, kibibytes are few enough, and gibibytes too many.
    let is_little = match used.strip_suffix("MiB") {
        Some(number) => number.parse::<f64>().expect("a number") * 1.048_576 < IDLE_MB,
        None => used.ends_with("KiB"),
    };
    assert!(is_little, "{usage}");
}
