//! Behind proxies: whose request it is, by the headers of HTTP and by the PROXY protocol, and under which path.

use anyhow::{Context, ensure};
use integration_tests::balancer::Balancer;
use integration_tests::eventually::{SOON, eventually};
use integration_tests::http::{raw, read_to_end};
use integration_tests::service::Service;
use integration_tests::world::World;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Where the proxies of these tests connect from. The tests themselves connect from 127.0.0.1, which is not trusted.
const PROXY: &str = "127.0.0.2";

/// A connection from this address of loopback.
async fn connect(service: &Service, from: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    let from = format!("{from}:0").parse().expect("an address");
    socket.bind(from).expect("loopback has more than one address");
    let address = service.address().parse().expect("an address");
    socket.connect(address).await.expect("a connection")
}

/// What comes back when these bytes are sent from this address.
async fn send(service: &Service, from: &str, bytes: &[u8]) -> String {
    let mut stream = connect(service, from).await;
    drop(stream.write_all(bytes).await);
    read_to_end(&mut stream, SOON).await.expect("the end of the connection")
}

/// A request that is the only one of its connection.
fn request(id: &str, headers: &str) -> String {
    format!("GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-request-id: {id}\r\n{headers}\r\n")
}

/// The client in the log line of a request.
async fn client_of(service: &Service, id: &str) -> String {
    eventually(SOON, async || {
        let log = service.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let line = lines.into_iter().find(|line| line["request.id"] == id);
        let line = line.with_context(|| format!("no line for {id}"))?;
        Ok(line["client"].as_str().context("no client")?.to_owned())
    })
    .await
}

#[tokio::test]
async fn only_trusted_proxies_name_their_clients() {
    let world = World::embedded();
    let settings = world
        .settings()
        .with("RUST_LOG", "debug")
        .with("EVENTSIEVE_TRUSTED_PROXIES", "127.0.0.2,10.0.0.0/8,fd00::/8");
    let forged = "forwarded: for=192.0.2.66\r\nx-forwarded-for: 192.0.2.66";
    let service = world.serve_with(settings.clone()).await;
    for (id, from, added, expected) in [
        ("direct", "127.0.0.3", "", "127.0.0.3"),
        ("named", PROXY, ", 198.51.100.7", "198.51.100.7"),
        (
            "chain",
            PROXY,
            ", 2001:db8::7, fd00::1\r\nx-forwarded-for: 10.1.2.3",
            "2001:db8::7",
        ),
        ("unknown", PROXY, ", unknown, 10.1.2.3", "10.1.2.3"),
    ] {
        let answer = send(&service, from, request(id, &format!("{forged}{added}\r\n")).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(client_of(&service, id).await, expected, "{id}");
    }
    drop(service);
    let service = world
        .serve_with(settings.with("EVENTSIEVE_FORWARDED_HEADER", "Forwarded"))
        .await;
    let headers = "x-forwarded-for: 192.0.2.66\r\nforwarded: for=192.0.2.66\r\nforwarded: for=\"[2001:db8::7]:1\";proto=https, for=10.1.2.3\r\n";
    send(&service, PROXY, request("forwarded", headers).as_bytes()).await;
    assert_eq!(client_of(&service, "forwarded").await, "2001:db8::7");
}

/// A trusted proxy's connections are not counted as those of one client.
#[tokio::test]
async fn proxy_has_more_connections_than_a_client() {
    let world = World::embedded();
    let settings = world
        .settings()
        .with("EVENTSIEVE_TRUSTED_PROXIES", PROXY)
        .with("EVENTSIEVE_MAX_CONNECTIONS_PER_CLIENT", "2");
    let service = world.serve_with(settings).await;
    for (from, is_limited) in [("127.0.0.3", true), (PROXY, false)] {
        let mut kept = Vec::new();
        let mut refused = 0;
        for _ in 0..5 {
            let mut stream = connect(&service, from).await;
            drop(
                stream
                    .write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
                    .await,
            );
            let mut status = [0; 12];
            stream.read_exact(&mut status).await.expect("an answer");
            refused += usize::from(&status == b"HTTP/1.1 503");
            kept.push(stream);
        }
        assert_eq!(refused, if is_limited { 3 } else { 0 }, "{from}");
    }
}

/// The settings of a listener with the PROXY protocol.
async fn with_proxy_protocol(world: &World) -> Service {
    let settings = world
        .settings()
        .with("RUST_LOG", "debug")
        .with("EVENTSIEVE_TRUSTED_PROXIES", PROXY)
        .with("EVENTSIEVE_PROXY_PROTOCOL", "true")
        .with("EVENTSIEVE_HEADER_TIMEOUT", "300ms")
        .with("EVENTSIEVE_MAX_CONNECTIONS_PER_CLIENT", "2");
    world.serve_with(settings).await
}

#[tokio::test]
async fn proxy_protocol_names_clients_of_real_haproxy() {
    let world = World::embedded();
    let service = with_proxy_protocol(&world).await;
    for option in ["send-proxy", "send-proxy-v2"] {
        let server = format!("{} source {PROXY} {option}", service.address());
        let haproxy = Balancer::haproxy(&server).await;
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind("127.0.0.7:0".parse().expect("an address"))
            .expect("an address of loopback");
        let mut stream = socket
            .connect(haproxy.address().parse().expect("an address"))
            .await
            .expect("a connection");
        let request = request(option, "x-forwarded-for: 192.0.2.66\r\n");
        stream.write_all(request.as_bytes()).await.expect("it is read");
        let answer = read_to_end(&mut stream, SOON).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(client_of(&service, option).await, "127.0.0.7", "{option}");
    }
    assert_eq!(service.metric("eventsieve_http_proxy_headers_invalid_total").await, 0.0);
}

#[tokio::test]
async fn proxy_protocol_is_required_of_trusted_proxies_alone() {
    let world = World::embedded();
    let service = with_proxy_protocol(&world).await;
    // Another client speaks HTTP from the first byte, and what looks like a header is none.
    let answer = send(&service, "127.0.0.3", request("plain", "").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let forged = format!("PROXY TCP4 192.0.2.66 127.0.0.1 1 2\r\n{}", request("forged", ""));
    let answer = send(&service, "127.0.0.3", forged.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");

    let version_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x07\x7f\0\0\x01\0\x01\0\x02";
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    for (id, header, expected) in [
        ("v1", &b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n"[..], "2001:db8::7"),
        ("v2", version_2, "198.51.100.7"),
        ("unknown", b"PROXY UNKNOWN\r\n", PROXY),
        ("local", local, PROXY),
    ] {
        let answer = send(&service, PROXY, &[header, request(id, "").as_bytes()].concat()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(client_of(&service, id).await, expected);
    }
    // Not even an answer: the other side does not speak HTTP yet.
    for (count, bytes) in [
        &request("none", "").into_bytes()[..],
        b"PROXY TCP4 198.51.100.7\r\n\r\nGET /",
        &[version_2, &[][..]].concat()[..20],
        b"PROXY",
    ]
    .into_iter()
    .enumerate()
    {
        let mut stream = connect(&service, PROXY).await;
        stream.write_all(bytes).await.expect("they are taken");
        assert_eq!(
            read_to_end(&mut stream, SOON).await.expect("the end of the connection"),
            ""
        );
        let counted = service.metric("eventsieve_http_proxy_headers_invalid_total").await;
        assert_eq!(
            counted,
            f64::from(u32::try_from(count).expect("a few") + 1),
            "{bytes:?}"
        );
    }
    // The log is written by a thread of its own.
    eventually(SOON, async || {
        let log = service.log();
        let warned = log.matches("must begin with a header of the PROXY protocol").count();
        ensure!(warned == 4, "{warned} lines: {log}");
        Ok(())
    })
    .await;
    // A check of the port alone is none of these.
    let mut check = connect(&service, PROXY).await;
    check.shutdown().await.expect("an open connection");
    assert_eq!(
        read_to_end(&mut check, SOON).await.expect("the end of the connection"),
        ""
    );
    assert_eq!(service.metric("eventsieve_http_proxy_headers_invalid_total").await, 4.0);
}

/// With the PROXY protocol, each client behind a proxy has connections of its own.
#[tokio::test]
async fn limit_of_connections_counts_clients_behind_a_proxy() {
    let world = World::embedded();
    let service = with_proxy_protocol(&world).await;
    let ask = async |client: &str| {
        let mut stream = connect(&service, PROXY).await;
        let bytes = format!("PROXY TCP4 {client} 127.0.0.1 1 2\r\nGET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.write_all(bytes.as_bytes()).await.expect("they are taken");
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.expect("an answer");
        (status == *b"HTTP/1.1 200", stream)
    };
    let (first, kept) = ask("198.51.100.7").await;
    let (second, _also) = ask("198.51.100.7").await;
    let (third, _) = ask("198.51.100.7").await;
    let (other, _) = ask("198.51.100.8").await;
    assert_eq!((first, second, third, other), (true, true, false, true));
    drop(kept);
    eventually(SOON, async || {
        ensure!(ask("198.51.100.7").await.0, "still refused");
        Ok(())
    })
    .await;
}

/// Monitoring reaches the second address without the proxies.
#[tokio::test]
async fn second_address_has_no_proxy_protocol() {
    let world = World::embedded();
    let port = integration_tests::postgres::free_port();
    let address = format!("127.0.0.1:{port}");
    let settings = world
        .settings()
        .with("EVENTSIEVE_TRUSTED_PROXIES", "127.0.0.1")
        .with("EVENTSIEVE_PROXY_PROTOCOL", "true")
        .with("EVENTSIEVE_METRICS_ADDRESS", &address);
    let service = Service::start(settings).await;
    let answer = raw(&address, request("metrics", "").as_bytes(), SOON)
        .await
        .expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(
        raw(service.address(), request("none", "").as_bytes(), SOON)
            .await
            .expect("the end"),
        ""
    );
}
