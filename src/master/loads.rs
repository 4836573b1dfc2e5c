//! How late the event loops of workers are, for the choice of a worker for a new session.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::admin::figures;
use crate::config::Config;
use crate::dispatch::service::Service;
use crate::ids::WorkerId;
use crate::process::crew::Processes;
use haft_worker::protocol::scoreboard::{Field, Figures};

/// Workers write once a second; this is how often they are read at most, and only while connections come.
const READ_EVERY: Duration = Duration::from_millis(200);
/// A worker that has written nothing for so much longer than a second has not come to it: its event loop is that late.
const LATE: Duration = Duration::from_secs(3);

/// When workers' pages were read.
#[derive(Debug, Default)]
pub(super) struct Loads {
    due: Option<Instant>,
}

impl Loads {
    /// Reads the pages of the scoreboard, if a new session may depend on them and they were not read just now: a copy of 512
    /// bytes of memory for each worker.
    pub(super) fn read(&mut self, service: &mut Service, crew: &Processes, config: &Config, now: Instant) {
        if !config.affinity.has_sessions() || self.due.is_some_and(|due| now < due) {
            return;
        }
        self.due = Some(now + READ_EVERY);
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let reported = |worker: WorkerId| {
            let figures = figures::read(crew.page(worker)?)?;
            Some((worker, delay(&figures, clock), figures.get(Field::OpenConnections).unwrap_or(0)))
        };
        let loads: Vec<_> = service.pool.to_ask().filter_map(|(_, worker)| reported(worker)).collect();
        service.dispatch.note_loads(&loads);
    }
}

/// By how much the event loop is late: the median of the last second, or for how long nothing was written.
fn delay(figures: &Figures, clock: Duration) -> Duration {
    let silence = clock.saturating_sub(Duration::from_millis(figures.written));
    let reported = Duration::from_nanos(figures.get(Field::LoopDelayP50).unwrap_or(0));
    if silence > LATE { reported.max(silence) } else { reported }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_as_late_as_it_says_or_as_long_as_it_says_nothing() {
        let mut figures = Figures::at(10_000);
        let at = |figures: &Figures, millis| delay(figures, Duration::from_millis(millis));
        assert_eq!(at(&figures, 10_500), Duration::ZERO, "it does not measure");
        figures.set(Field::LoopDelayP50, 200_000_000);
        assert_eq!(at(&figures, 13_000), Duration::from_millis(200));
        assert_eq!(at(&figures, 14_000), Duration::from_secs(4));
        assert_eq!(at(&figures, 0), Duration::from_millis(200), "a clock that was set back");
    }
}
