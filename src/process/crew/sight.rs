//! Where a worker's figures are: its process, its page of the scoreboard.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::process::Child;

use super::Processes;
use crate::ids::WorkerId;
use crate::sys::page::Page;
use crate::sys::usage;

/// Where the figures of a worker are. Its copies know the same time on a CPU.
#[derive(Debug, Clone)]
pub struct Sight {
    /// The process that serves.
    pub pid: u32,
    /// Its page of the scoreboard.
    pub page: Option<Arc<Page>>,
    /// Its time on a CPU, as it was seen last.
    pub cpu: Arc<CpuTime>,
}

/// A time that only grows, in microseconds.
#[derive(Debug, Default)]
pub struct CpuTime(AtomicU64);

impl CpuTime {
    /// Notes what was seen. Yields the most that was seen so far: another process of the worker may have been seen before.
    pub fn see(&self, time: Option<Duration>) -> Duration {
        let micros = u64::try_from(time.unwrap_or_default().as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.0.fetch_max(micros, Ordering::Relaxed).max(micros))
    }
}

/// Waits for a process's end: how it ended, and what it had used of CPUs by then ([`usage::cpu_times`]).
pub(super) async fn end(child: &mut Child, pid: u32) -> (io::Result<ExitStatus>, Option<(Duration, Duration)>) {
    let (mut wait, mut cpu) = (pin!(child.wait()), None);
    let status = poll_fn(|context| {
        // It is known until the wait takes its end.
        cpu = usage::cpu_times(pid);
        wait.as_mut().poll(context)
    });
    (status.await, cpu)
}

impl Sight {
    /// Of a worker that tells nothing of itself yet.
    pub fn new(pid: u32) -> Self {
        Self { pid, page: None, cpu: Arc::default() }
    }
}

impl Processes {
    /// The process that serves for the worker.
    pub fn serving_pid(&self, worker: WorkerId) -> Option<u32> {
        self.sight(worker).map(|sight| sight.pid)
    }

    /// Keeps the page in which the worker tells how it is.
    pub fn keep_page(&mut self, worker: WorkerId, page: Option<Page>) {
        if let Some(member) = self.members.get_mut(&worker) {
            member.sight.page = page.map(Arc::new);
        }
    }

    /// Where the worker's figures are.
    pub fn sight(&self, worker: WorkerId) -> Option<&Sight> {
        self.members.get(&worker).map(|member| &member.sight)
    }

    /// The page in which the worker tells how it is.
    pub fn page(&self, worker: WorkerId) -> Option<&Arc<Page>> {
        self.sight(worker)?.page.as_ref()
    }

    /// The worker's time on a CPU, once it has ended: `used` by its first process, and by those that this has waited for.
    pub fn cpu_at_end(&self, worker: WorkerId, used: Option<(Duration, Duration)>) -> Duration {
        let Some(member) = self.members.get(&worker) else { return Duration::ZERO };
        // Below npm and the like it is the time of what npm has started.
        let is_first = member.sight.pid == member.pid;
        member.sight.cpu.see(used.map(|(own, waited_for)| if is_first { own } else { waited_for }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_never_goes_back() {
        let sight = Sight::new(1);
        assert_eq!(sight.cpu.see(None), Duration::ZERO);
        assert_eq!(sight.cpu.see(Some(Duration::from_millis(5))), Duration::from_millis(5));
        assert_eq!(sight.clone().cpu.see(Some(Duration::from_millis(3))), Duration::from_millis(5));
        assert_eq!(sight.cpu.see(None), Duration::from_millis(5));
    }
}
