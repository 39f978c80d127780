//! What systemd tells a process that it has started.

use std::ffi::OsString;
use std::time::Duration;

/// Where the process reports to its service manager, and how often.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NotifyConfig {
    /// The socket; `None`: nothing waits for reports.
    pub socket: Option<OsString>,
    /// The process is ended when it has not reported for so long.
    pub watchdog: Option<Duration>,
}

impl NotifyConfig {
    /// The variables that systemd sets. One that cannot be read is as one that is not set: they are not this service's settings.
    #[expect(clippy::disallowed_methods, reason = "this is config, where the environment is read")]
    pub(super) fn read() -> Self {
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        Self {
            socket: std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()),
            watchdog: Self::interval(number("WATCHDOG_USEC"), number("WATCHDOG_PID")),
        }
    }

    /// The interval in microseconds, unless it is meant for another process.
    fn interval(microseconds: Option<u64>, pid: Option<u64>) -> Option<Duration> {
        let is_meant = pid.is_none_or(|pid| pid == u64::from(std::process::id()));
        let interval = microseconds.filter(|microseconds| *microseconds > 0 && is_meant);
        interval.map(Duration::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watchdog_is_the_one_of_this_process() {
        let own = u64::from(std::process::id());
        let second = Some(Duration::from_secs(1));
        assert_eq!(NotifyConfig::interval(Some(1_000_000), Some(own)), second);
        assert_eq!(NotifyConfig::interval(Some(1_000_000), None), second);
        assert_eq!(NotifyConfig::interval(Some(1_000_000), Some(own + 1)), None);
        assert_eq!(NotifyConfig::interval(Some(0), Some(own)), None);
    }
}
