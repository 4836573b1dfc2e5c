//! Telling haft how this worker is: its page of the scoreboard, written about once a second.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use haft_sys::page::Page;
use tokio::time::{Instant, sleep_until};

use super::drain::Drain;
pub use crate::protocol::scoreboard::Field;
use crate::protocol::scoreboard::Figures;

/// How often the page is written.
const EVERY: Duration = Duration::from_secs(1);
/// How often is looked whether the event loop is late. tokio's timers are exact to a millisecond.
const LOOK: Duration = Duration::from_millis(25);
const EXACT_TO: Duration = Duration::from_millis(1);

/// The figures of this worker, which haft shows in `/status`, `/metrics` and `haft top`. Cheap to clone.
///
/// What this library knows it writes by itself: connections, bytes, the delay of the event loop, sessions that are
/// counted by [`Drain::session`]. A program adds what it knows.
#[derive(Debug, Clone)]
pub struct Scoreboard(Arc<[AtomicU64; Field::ALL.len()]>);

impl Default for Scoreboard {
    fn default() -> Self {
        Self(Arc::new(std::array::from_fn(|_| AtomicU64::new(u64::MAX))))
    }
}

impl Scoreboard {
    /// Sets a figure.
    pub fn set(&self, field: Field, figure: u64) {
        self.0[field as usize].store(figure, Ordering::Relaxed);
    }

    /// Counts so many more.
    pub fn add(&self, field: Field, count: u64) {
        let figure = &self.0[field as usize];
        if figure.load(Ordering::Relaxed) == u64::MAX {
            // The first one to write. Of two threads that are first at once, one is lost by the other at most.
            figure.store(0, Ordering::Relaxed);
        }
        figure.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts so many fewer, of what is there now.
    pub fn remove(&self, field: Field, count: u64) {
        let fewer = |figure: u64| Some(if figure == u64::MAX { figure } else { figure.saturating_sub(count) });
        self.0[field as usize].fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).ok();
    }

    /// A figure, if it was written.
    pub fn get(&self, field: Field) -> Option<u64> {
        Some(self.0[field as usize].load(Ordering::Relaxed)).filter(|figure| *figure != u64::MAX)
    }

    fn figures(&self) -> Figures {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut figures = Figures::at(now.as_millis() as u64);
        Field::ALL.into_iter().filter_map(|field| Some((field, self.get(field)?))).for_each(|(field, figure)| {
            figures.set(field, figure);
        });
        figures
    }

    /// Writes the page that haft has given to this process, as long as the process lives. To be called within a
    /// runtime.
    pub(super) fn keep_written(&self, drain: Drain) {
        if let Some(page) = env::var("HAFT_SCOREBOARD").ok().and_then(|name| Page::inherited(&name)) {
            [Field::Connections, Field::BytesIn, Field::BytesOut].iter().for_each(|field| self.add(*field, 0));
            tokio::spawn(keep_written(page, self.clone(), drain));
        }
    }
}

async fn keep_written(page: Page, scoreboard: Scoreboard, drain: Drain) {
    let (mut sequence, mut delays) = (0, Vec::new());
    loop {
        scoreboard.set(Field::OpenConnections, drain.open_connections() as u64);
        // A program that knows the transports writes them itself.
        if scoreboard.get(Field::PollingSessions).is_none() && drain.counts_sessions() {
            scoreboard.set(Field::OtherSessions, drain.sessions() as u64);
        }
        write_delays(&scoreboard, &mut delays);
        sequence += 1;
        if page.write(&scoreboard.figures().encode(sequence)).is_err() {
            return;
        }
        let until = Instant::now() + EVERY;
        while Instant::now() < until {
            let due = Instant::now() + LOOK;
            sleep_until(due).await;
            delays.push(Instant::now().saturating_duration_since(due).saturating_sub(EXACT_TO));
        }
    }
}

fn write_delays(scoreboard: &Scoreboard, delays: &mut Vec<Duration>) {
    delays.sort_unstable();
    let at = |share: usize| delays.get((delays.len() * share / 100).min(delays.len().saturating_sub(1)));
    for (field, share) in [(Field::LoopDelayP50, 50), (Field::LoopDelayP99, 99), (Field::LoopDelayMax, 100)] {
        if let Some(delay) = at(share) {
            scoreboard.set(field, delay.as_nanos() as u64);
        }
    }
    delays.clear();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::scoreboard::{PAGE, RECORD};

    #[test]
    fn a_count_begins_at_nothing_and_what_nobody_told_is_not_there() {
        let board = Scoreboard::default();
        assert_eq!((board.get(Field::BytesIn), board.figures().get(Field::BytesIn)), (None, None));
        board.add(Field::BytesIn, 0);
        board.clone().add(Field::BytesIn, 7);
        assert_eq!((board.get(Field::BytesIn), board.figures().get(Field::BytesIn)), (Some(7), Some(7)));
    }

    #[test]
    fn the_delays_of_a_second_are_told_by_rank() {
        let board = Scoreboard::default();
        let mut delays: Vec<Duration> = (1..=40).rev().map(Duration::from_micros).collect();
        write_delays(&board, &mut delays);
        let read = [Field::LoopDelayP50, Field::LoopDelayP99, Field::LoopDelayMax].map(|field| board.get(field));
        assert_eq!(read, [Some(21_000), Some(40_000), Some(40_000)]);
        assert!(delays.is_empty());
        write_delays(&board, &mut delays);
    }

    /// A loop that is blocked is seen to be late.
    #[tokio::test]
    async fn the_page_is_written_and_tells_of_a_blocked_loop() {
        let (page, board) = (Page::new(PAGE).expect("a page"), Scoreboard::default());
        let copy = page.try_clone().expect("a copy");
        let drain = super::super::drain::DrainSource::new().subscribe();
        let task = tokio::spawn(keep_written(page, board.clone(), drain));
        let mut most = 0;
        while most < 150_000_000 {
            tokio::task::yield_now().await;
            std::thread::sleep(Duration::from_millis(200));
            let mut bytes = [0; RECORD];
            copy.read(&mut bytes).expect("read");
            let figures = Figures::decode(&bytes);
            most = figures.and_then(|figures| figures.get(Field::LoopDelayMax)).unwrap_or(0);
        }
        task.abort();
    }
}
