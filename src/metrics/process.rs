//! What the system says of this process: `/proc/self`, which is memory, too.

use procfs::process::{LimitValue, Process};
use procfs::{ProcResult, page_size, ticks_per_second};

use super::Metrics;

impl Metrics {
    /// Sets the figures of the process. Where the system does not tell them they stay as they are.
    pub(super) fn look_at_the_process(&self) {
        if let Err(error) = self.set_process_figures() {
            tracing::debug!(%error, "the system does not tell the figures of this process");
        }
    }

    fn set_process_figures(&self) -> ProcResult<()> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let seconds = (stat.utime + stat.stime) as f64 / ticks_per_second() as f64;
        // A counter can only be added to; whoever looks is alone.
        self.process_cpu.inc_by((seconds - self.process_cpu.get()).max(0.0));
        self.process_memory.set(whole(stat.rss * page_size()));
        self.process_threads.set(stat.num_threads);
        self.process_files.set(whole(process.fd_count()? as u64));
        if let LimitValue::Value(max) = process.limits()?.max_open_files.soft_limit {
            self.process_files_max.set(whole(max));
        }
        Ok(())
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_tells_its_memory_its_time_its_handles_and_its_threads() {
        let metrics = Metrics::default();
        metrics.look_at_the_process();
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
            metrics.look_at_the_process();
        }
        assert!(std::hint::black_box(sum) > 0);
    }
}
