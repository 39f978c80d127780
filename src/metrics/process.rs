//! What the operating system reports about this process.

use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::Metrics;

impl Metrics {
    /// Reads the process metrics. One that the system does not report keeps its last value.
    pub(super) fn read_process(&self) {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        let cpu = Duration::try_from(time).unwrap_or_default().as_secs_f64();
        // A counter can only be added to; `render` reads one at a time.
        self.process_cpu.inc_by((cpu - self.process_cpu.get()).max(0.0));
        if let Some(max) = getrlimit(Resource::Nofile).current {
            self.process_files_max.set(i64::try_from(max).unwrap_or(i64::MAX));
        }
        if let Err(error) = self.read_proc() {
            tracing::debug!(%error, "failed to read /proc/self, the process metrics keep their last values");
        }
    }

    /// What only `/proc` has: `proc_pid_status(5)`, `proc_pid_fd(5)`.
    fn read_proc(&self) -> std::io::Result<()> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        if let Some(kilobytes) = status_number(&status, "VmRSS:") {
            self.process_memory.set(kilobytes * 1024);
        }
        if let Some(threads) = status_number(&status, "Threads:") {
            self.process_threads.set(threads);
        }
        let files = std::fs::read_dir("/proc/self/fd")?.count();
        self.process_files.set(i64::try_from(files).unwrap_or(i64::MAX));
        Ok(())
    }
}

/// The number on the line of `/proc/self/status` that begins with `name`.
fn status_number(status: &str, name: &str) -> Option<i64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_memory_time_handles_and_threads() {
        let metrics = Metrics::default();
        metrics.read_process();
        assert!(metrics.process_memory.get() > 1 << 20);
        let files = metrics.process_files.get();
        assert!(files >= 3, "{files} handles: the standard ones are three");
        assert!(metrics.process_files_max.get() >= files);
        assert!(metrics.process_threads.get() >= 1);
        let before = metrics.process_cpu.get();
        // Some ticks' worth of work.
        let mut sum = 0_u64;
        while metrics.process_cpu.get() <= before {
            sum = (0..1_000_000).fold(sum, u64::wrapping_add);
            metrics.read_process();
        }
        assert!(std::hint::black_box(sum) > 0);
    }
}
