//! What systemd is told, by a socket of the test's own, and the unit that the guide shows.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use integration_tests::eventually::SOON;
use integration_tests::service::{Service, Settings, Signal};
use integration_tests::world::World;
use tempfile::TempDir;

/// A service manager's end of the protocol.
struct Manager {
    socket: UnixDatagram,
    name: String,
    _folder: TempDir,
}

impl Manager {
    fn new(is_abstract: bool) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("notify").to_str().expect("UTF-8").to_owned();
        let address = if is_abstract {
            SocketAddr::from_abstract_name(&path)
        } else {
            SocketAddr::from_pathname(&path)
        };
        let socket = UnixDatagram::bind_addr(&address.expect("a short name")).expect("a socket");
        socket.set_read_timeout(Some(SOON)).expect("a time that is not zero");
        let at = if is_abstract { "@" } else { "" };
        Self {
            socket,
            name: format!("{at}{path}"),
            _folder: folder,
        }
    }

    /// The next report.
    async fn next(&self) -> String {
        let socket = self.socket.try_clone().expect("a descriptor more");
        let report = tokio::task::spawn_blocking(move || {
            let mut report = [0; 1024];
            let length = socket.recv(&mut report).expect("a report");
            String::from_utf8_lossy(&report[..length]).into_owned()
        });
        report.await.expect("it does not panic")
    }

    /// The next report but for the watchdog's.
    async fn next_state(&self) -> String {
        loop {
            let report = self.next().await;
            if report != "WATCHDOG=1" {
                return report;
            }
        }
    }

    /// Drops what has been reported and not been read.
    fn forget(&self) {
        self.socket.set_nonblocking(true).expect("a socket of our own");
        while self.socket.recv(&mut [0; 64]).is_ok() {}
        self.socket.set_nonblocking(false).expect("a socket of our own");
    }

    fn settings(&self, settings: &Settings) -> Settings {
        settings.clone().with("NOTIFY_SOCKET", &self.name)
    }
}

#[tokio::test]
async fn systemd_is_told_when_the_service_serves_and_stops() {
    let world = World::embedded();
    for is_abstract in [false, true] {
        let manager = Manager::new(is_abstract);
        let settings = manager
            .settings(&world.settings())
            .with("EVENTSIEVE_DRAIN_DELAY", "100ms");
        let mut service = Service::start(settings).await;
        assert_eq!(manager.next().await, "STATUS=waiting for the store");
        assert_eq!(manager.next().await, "READY=1\nSTATUS=serving");
        service.ready().await;
        service.signal(Signal::Term);
        assert!(manager.next().await.starts_with("STOPPING=1\n"));
        assert_eq!(service.ended_within(SOON).await.code(), Some(0));
    }
}

/// Without its store the service is alive and not ready, and may still be stopped.
#[tokio::test]
async fn service_without_a_store_is_alive_and_not_ready() {
    let manager = Manager::new(false);
    let port = integration_tests::postgres::free_port();
    let settings = Settings::new(&format!("postgres://nobody@127.0.0.1:{port}/nothing"));
    let mut service = Service::start(manager.settings(&settings).with("WATCHDOG_USEC", "200000")).await;
    assert_eq!(manager.next().await, "STATUS=waiting for the store");
    for _ in 0..3 {
        assert_eq!(manager.next().await, "WATCHDOG=1");
    }
    assert_eq!(service.fetch("/readyz").await.status, 503);
    service.signal(Signal::Term);
    assert!(manager.next_state().await.starts_with("STOPPING=1\n"));
    assert_eq!(service.ended_within(SOON).await.code(), Some(0));
}

#[tokio::test]
async fn watchdog_is_told_twice_in_its_time_until_the_process_is_stuck() {
    let world = World::embedded();
    let manager = Manager::new(false);
    let settings = manager.settings(&world.settings()).with("WATCHDOG_USEC", "1000000");
    let service = world.serve_with(settings).await;
    while !manager.next().await.starts_with("READY=1") {}
    manager.forget();
    let begun = std::time::Instant::now();
    for _ in 0..4 {
        assert_eq!(manager.next().await, "WATCHDOG=1");
    }
    // Three halves of a second at least; a busy machine may take longer.
    assert!(begun.elapsed() > Duration::from_millis(1400), "{:?}", begun.elapsed());
    service.signal(Signal::Stop);
    manager.forget();
    manager
        .socket
        .set_read_timeout(Some(Duration::from_millis(1200)))
        .expect("a time");
    assert!(manager.socket.recv(&mut [0; 64]).is_err(), "a stopped process reports");
    service.signal(Signal::Continue);
    manager.socket.set_read_timeout(Some(SOON)).expect("a time");
    assert_eq!(manager.next().await, "WATCHDOG=1");
}

/// A process that is meant by another's watchdog, or by none, reports nothing of the kind.
#[tokio::test]
async fn watchdog_of_another_process_is_not_told() {
    let world = World::embedded();
    let manager = Manager::new(false);
    let settings = manager
        .settings(&world.settings())
        .with("WATCHDOG_USEC", "1000")
        .with("WATCHDOG_PID", "1");
    let mut service = world.serve_with(settings).await;
    service.stop().await;
    let mut reports = Vec::new();
    manager.socket.set_nonblocking(true).expect("a socket of our own");
    let mut report = [0; 64];
    while let Ok(length) = manager.socket.recv(&mut report) {
        reports.push(String::from_utf8_lossy(&report[..length]).into_owned());
    }
    assert_eq!(reports.len(), 3, "{reports:?}");
    assert!(!reports.iter().any(|report| report.contains("WATCHDOG")), "{reports:?}");
}

#[tokio::test]
async fn manager_that_is_not_there_stops_nothing() {
    let world = World::embedded();
    let settings = world.settings().with("NOTIFY_SOCKET", "/nowhere/notify");
    let mut service = world.serve_with(settings).await;
    assert!(
        service.log().contains("failed to report to the service manager"),
        "{}",
        service.log()
    );
    service.stop().await;
}

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/eventsieve.service");

/// The unit, with a program that is on this machine.
fn unit(folder: &Path) -> String {
    let text = std::fs::read_to_string(UNIT).expect("the unit");
    assert!(text.contains("ExecStart=/usr/local/bin/eventsieve serve"), "{text}");
    let path = folder.join("eventsieve.service");
    std::fs::write(&path, text.replace("/usr/local/bin/eventsieve", "/bin/true"))
        .expect("a file in a folder of our own");
    path.to_str().expect("UTF-8").to_owned()
}

fn analyze(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("systemd-analyze")
        .args(arguments)
        .env("SYSTEMD_PAGER", "")
        .output();
    let output = output.expect("systemd-analyze is in Debian's package systemd, which `make test` installs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn unit_is_valid_and_exposes_little() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let unit = unit(folder.path());
    let (is_valid, text) = analyze(&["verify", "--recursive-errors=no", &unit]);
    assert!(is_valid && !text.contains("eventsieve.service"), "{text}");
    // In tenths; 10 is a service without any protection, and the threshold is what the unit has now.
    let (is_safe, text) = analyze(&["security", "--offline=true", "--threshold=15", &unit]);
    assert!(is_safe, "{text}");
    let misspelt = std::fs::read_to_string(&unit)
        .expect("the unit")
        .replace("ProtectHome", "ProtectHomes");
    std::fs::write(&unit, misspelt).expect("a file in a folder of our own");
    let (_, text) = analyze(&["verify", "--recursive-errors=no", &unit]);
    assert!(text.contains("ProtectHomes"), "{text}");
}

#[test]
fn guide_shows_the_unit_as_it_is() {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guides/kubernetes-systemd.md");
    let guide = std::fs::read_to_string(guide).expect("the guide");
    let unit = std::fs::read_to_string(UNIT).expect("the unit");
    assert!(guide.contains(&format!("```ini\n{unit}```\n")));
}
