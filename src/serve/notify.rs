//! Reports to systemd (sd_notify(3)): when the service serves, when it stops, and that its runtime is not stuck.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::config::NotifyConfig;
use crate::http::Phase;
use crate::lifecycle::Tasks;

/// A watchdog is told so many times in its interval that the process is alive.
const WATCHDOG_TIMES: u32 = 2;

/// How long a report waits for a manager that does not read.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the service manager is told, if there is one.
pub(super) struct Reports(Option<Arc<Notifier>>);

impl Reports {
    /// Reports until the process ends. The task is one of the runtime's, so it runs only while the runtime does.
    pub(super) fn begin(config: &NotifyConfig, phase: watch::Receiver<Phase>) -> Self {
        let notifier = Notifier::open(config).map(Arc::new);
        if let Some(notifier) = notifier.clone() {
            Tasks::default().spawn("reports", notifier.run(phase));
        }
        Self(notifier)
    }

    /// Says that the process is about to end. It may end before a task has run again, so this waits until it is said.
    pub(super) async fn stopping(&self) {
        if let Some(notifier) = &self.0 {
            let report = "STOPPING=1\nSTATUS=completing the requests that have begun";
            notifier.send(report).await;
        }
    }
}

/// Reports to a socket.
struct Notifier {
    address: SocketAddr,
    watchdog: Option<Duration>,
}

impl Notifier {
    fn open(config: &NotifyConfig) -> Option<Self> {
        let name = config.socket.as_deref()?;
        match address(name) {
            Ok(address) => Some(Self {
                address,
                watchdog: config.watchdog,
            }),
            Err(error) => {
                tracing::warn!(%error, socket = ?name, "cannot report to the service manager");
                None
            }
        }
    }

    async fn run(self: Arc<Self>, mut phase: watch::Receiver<Phase>) {
        self.send("STATUS=waiting for the store").await;
        let mut is_serving = false;
        let interval = self.watchdog.map(|interval| interval / WATCHDOG_TIMES);
        loop {
            let pause = async {
                match interval {
                    Some(interval) => tokio::time::sleep(interval).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                is_known = serving(&mut phase), if !is_serving => {
                    is_serving = true;
                    // Otherwise the service ends, and this task with it.
                    if is_known {
                        self.send("READY=1\nSTATUS=serving").await;
                    }
                }
                () = pause => self.send("WATCHDOG=1").await,
            }
        }
    }

    /// Sends one report, by a socket of its own: the manager may have been started anew. Waits while its queue is full, and not for long.
    async fn send(&self, report: &str) {
        let sending = async {
            let socket = UnixDatagram::unbound()?;
            socket.connect_addr(&self.address)?;
            socket.set_nonblocking(true)?;
            let socket = tokio::net::UnixDatagram::from_std(socket)?;
            socket.send(report.as_bytes()).await
        };
        let late = |_| Err(io::ErrorKind::TimedOut.into());
        if let Err(error) = timeout(PATIENCE, sending).await.unwrap_or_else(late) {
            tracing::warn!(%error, report, "failed to report to the service manager");
        }
    }
}

/// Waits until the service serves; `false`: it never will.
async fn serving(phase: &mut watch::Receiver<Phase>) -> bool {
    phase.wait_for(|phase| *phase == Phase::Serving).await.is_ok()
}

/// The address of a socket by its path, or of one without a file by its name behind an `@`.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}
