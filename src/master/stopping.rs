//! How far the master's life has come, and the end of it: the listeners are closed behind the last connections, those
//! are handed over, and then the workers finish.

use std::time::{Duration, Instant};

use crate::config::Config;
use crate::dispatch::service::Service;
use crate::log;
use crate::pool::{Event, INTERRUPT_TIME};

/// Two signals to stop within this time are one: timeout(1) sends its signal to haft and to haft's group, and a parent
/// passes on the Ctrl-C that haft has got from the terminal already.
const ONE_SIGNAL: Duration = Duration::from_millis(100);

/// How long connections that are not handed over yet are waited for after Ctrl-C.
const INTERRUPT_FLUSH: Duration = Duration::from_millis(300);

/// How often the log states what a stop waits for.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Of the time that a stop has, connections that are not handed over yet have this part at most: the rest is the
/// workers'.
const SHARE_FOR_FLUSH: u32 = 2;

/// How far the master's life has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No worker has been ready yet: clients wait in the kernel's queue.
    Starting,
    /// Connections are accepted.
    Serving,
    /// The listeners are closed; what was accepted before is still handed over.
    Flushing,
    /// The workers finish.
    Stopping,
}

/// The master's life: what it does now.
#[derive(Debug)]
pub(super) struct Life {
    phase: Phase,
    /// Since the stop began.
    stop: Option<Stop>,
}

/// A stop that is under way.
#[derive(Debug)]
pub(super) struct Stop {
    /// When the last signal was dealt with.
    heard: Instant,
    /// How the workers learn of it.
    event: Event,
    /// When connections that are not handed over yet have had their time.
    flushed: Instant,
    /// When the workers' time is over, whatever is left.
    until: Instant,
    /// When the log last stated what it waits for.
    logged: Instant,
}

/// How soon all is to be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Haste {
    /// Within the time that is configured.
    Paced,
    /// An operator sits at the terminal and waits.
    Soon,
}

/// What follows from a wish to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// It is the first: the stop begins.
    Begin,
    /// It is the same one, which came twice.
    Repeated,
    /// It is another one: all is to end at once.
    EndNow,
}

impl Life {
    /// It begins.
    pub(super) fn new() -> Self {
        Self { phase: Phase::Starting, stop: None }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Since the stop began.
    pub(super) fn stop(&self) -> Option<&Stop> {
        self.stop.as_ref()
    }

    /// A worker is ready. Yields whether it is the first.
    pub(super) fn begin_serving(&mut self) -> bool {
        let is_first = self.phase == Phase::Starting;
        if is_first {
            self.phase = Phase::Serving;
        }
        is_first
    }

    /// The operator wants an end.
    pub(super) fn wish(&mut self, why: &str) -> Wish {
        let Some(stop) = &mut self.stop else { return Wish::Begin };
        if stop.heard.elapsed() < ONE_SIGNAL {
            tracing::debug!("{why} again, within {ONE_SIGNAL:?}: it counts once");
            return Wish::Repeated;
        }
        stop.heard = Instant::now();
        tracing::warn!("{why} again: ending now");
        self.phase = Phase::Stopping;
        Wish::EndNow
    }

    /// No connection is accepted any more.
    pub(super) fn begin_stop(&mut self, stop: Stop) {
        self.phase = Phase::Flushing;
        self.stop = Some(stop);
    }

    /// All that follows from the wish to stop is done. Another signal counts from here on, since the other one may have
    /// come while this was done.
    pub(super) fn stop_has_begun(&mut self) {
        self.stop.iter_mut().for_each(|stop| stop.heard = Instant::now());
    }

    /// Whether the workers are to finish now, and how they learn of it: once, when all connections that were accepted
    /// are handed over, or have had their time.
    pub(super) fn end_flushing(&mut self, is_flushed: impl FnOnce() -> bool, now: Instant) -> Option<Event> {
        let stop = self.stop.as_ref().filter(|_| self.phase == Phase::Flushing)?;
        if now < stop.flushed && !is_flushed() {
            return None;
        }
        self.phase = Phase::Stopping;
        Some(stop.event)
    }

    /// Logs once a second for how many workers and sessions a stop waits.
    pub(super) fn log_what_stop_waits_for(&mut self, service: &Service, now: Instant) {
        let Some(stop) = self.stop.as_mut().filter(|stop| now >= stop.logged + TELL_EVERY) else { return };
        stop.logged = now;
        if service.pool.worker_count() > 0 {
            log::progress(&stop.describe(service, now));
        }
    }
}

impl Stop {
    /// It begins now.
    pub(super) fn new(haste: Haste, config: &Config, now: Instant) -> Self {
        let time = config.drain_timeout;
        let (event, flush, time) = match haste {
            Haste::Paced => (Event::Stop, config.hold_timeout, time),
            Haste::Soon => (Event::Interrupt, INTERRUPT_FLUSH, time.min(INTERRUPT_TIME)),
        };
        let flushed = now + flush.min(time / SHARE_FOR_FLUSH);
        Self { heard: now, event, flushed, until: now + time, logged: now }
    }

    /// When it is over, whatever is left.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// What it waits for, in a line.
    pub(super) fn describe(&self, service: &Service, now: Instant) -> String {
        let rest = self.until.saturating_duration_since(now).as_secs_f64().ceil();
        let workers = service.pool.worker_count();
        let sessions: u64 = service.dispatch.links().map(|link| link.reported_sessions()).sum();
        waits_for(workers, sessions, service.dispatch.held(), rest as u64)
    }
}

/// What a stop waits for, in words that fit a line of a terminal.
fn waits_for(workers: usize, sessions: u64, held: usize, rest: u64) -> String {
    let mut text = format!("stopping: {}", counted(workers as u64, "worker"));
    if sessions > 0 {
        text += &format!(", {}", counted(sessions, "session"));
    }
    if held > 0 {
        text += &format!(", {} to hand over", counted(held as u64, "connection"));
    }
    text + &format!(", {rest} s left")
}

/// So many of them: `1 session`, `1,203 sessions`.
pub(super) fn counted(number: u64, what: &str) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{text} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stop_waits_for_is_logged_in_a_short_line() {
        assert_eq!(waits_for(1, 0, 0, 1), "stopping: 1 worker, 1 s left");
        let longest = waits_for(1024, 9_999_999, 16384, 31_536_000);
        assert_eq!(
            longest,
            "stopping: 1,024 workers, 9,999,999 sessions, 16,384 connections to hand over, 31536000 s left"
        );
        assert_eq!(waits_for(2, 1, 0, 14), "stopping: 2 workers, 1 session, 14 s left");
    }
}
