//! The end of a master that is to stop: closing the listeners behind the last connections, handing those over, and then
//! letting the workers finish.

use std::time::{Duration, Instant};

use super::error::Context;
use super::{Master, MasterError, Phase};
use crate::admin::Denied;
use crate::log;
use crate::pool::{Event, INTERRUPT_TIME};

/// Maximum number of turns at each listener before it is closed: more than a queue holds by default (4096) means that
/// clients come faster than they can be drained.
const MAX_LAST_TURNS: u32 = 128;

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

/// A stop that is under way.
#[derive(Debug)]
pub(super) struct Stop {
    /// When the last signal was dealt with.
    heard: Instant,
    /// How the workers learn of it.
    event: Event,
    /// When their time is over.
    until: Instant,
    /// When the log last stated what it waits for.
    logged: Instant,
}

impl Stop {
    /// When it is over, whatever is left.
    pub(super) fn until(&self) -> Instant {
        self.until
    }
}

/// How soon all is to be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Haste {
    /// Within the time that is configured.
    Paced,
    /// An operator sits at the terminal and waits.
    Soon,
}

impl Master {
    /// The operator stops haft: closes the listeners behind the last connections; a second call ends at once.
    pub(super) fn stop(&mut self, why: &str, haste: Haste) -> Result<(), MasterError> {
        if let Some(stop) = &mut self.stop {
            if stop.heard.elapsed() < ONE_SIGNAL {
                tracing::debug!("{why} again, within {ONE_SIGNAL:?}: it counts once");
                return Ok(());
            }
            stop.heard = Instant::now();
            tracing::warn!("{why} again: ending now");
            self.phase = Phase::Stopping;
            self.release_groups();
            self.supervisor.crew.remains.kill();
            return self.observe(Event::StopNow);
        }
        let time = self.changes.config.drain_timeout;
        let (event, flush, time) = match haste {
            Haste::Paced => (Event::Stop, self.changes.config.hold_timeout, time),
            Haste::Soon => (Event::Interrupt, INTERRUPT_FLUSH, time.min(INTERRUPT_TIME)),
        };
        let (now, flush) = (Instant::now(), flush.min(time / SHARE_FOR_FLUSH));
        let until = now + time;
        self.service.pool.end_by(self.service.time(now), self.service.time(until));
        self.supervisor.crew.remains.end_by(until);
        let within = humantime::format_duration(time);
        tracing::info!("{why}: accepting stops, the workers finish within {within} (once more: ends at once)");
        if self.phase == Phase::Serving && !self.doors.is_paused() && !self.over_budget {
            // Clients in the kernel's queue would get a reset when the listener is closed.
            self.gate.lift();
            let tokens: Vec<u64> = self.doors.listeners().map(|(number, _)| number.into()).collect();
            tokens.into_iter().try_for_each(|token| self.drain_backlog(token))?;
        }
        self.cut_reload_short();
        self.stop = Some(Stop { heard: now, event, until, logged: now });
        self.notify_stopping();
        self.phase = Phase::Flushing(now + flush);
        self.doors.close(&self.poller).context("closing the listeners")?;
        self.end_peeking(Instant::now());
        self.close_queues()?;
        self.service.send(Instant::now());
        self.perform()?;
        self.stop_when_flushed(Instant::now())?;
        // From here on, since the other one may have come while all this was done.
        self.stop.iter_mut().for_each(|stop| stop.heard = Instant::now());
        Ok(())
    }

    /// The operator wants an end, and has asked at an admin listener.
    pub(super) fn stop_as_asked(&mut self) -> Result<Result<String, Denied>, MasterError> {
        if self.stop.is_some() {
            return Ok(Err(Denied::Busy("haft is stopping already".to_owned())));
        }
        self.stop("control", Haste::Paced)?;
        let within = humantime::format_duration(self.changes.config.drain_timeout);
        Ok(Ok(format!("haft stops: the workers finish within {within}")))
    }

    /// Takes all that wait at a listener, as many turns as that takes.
    fn drain_backlog(&mut self, token: u64) -> Result<(), MasterError> {
        for _ in 0..MAX_LAST_TURNS {
            let before = self.service.dispatch.ledger.accepted();
            self.accept(token)?;
            if self.service.dispatch.ledger.accepted() == before {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn stop_when_flushed(&mut self, now: Instant) -> Result<(), MasterError> {
        self.log_what_stop_waits_for(now);
        if self.stop.is_some() {
            self.service.refuse_hopeless(now);
        }
        match self.phase {
            Phase::Flushing(until)
                if (self.service.dispatch.held() == 0 && self.queues_are_empty()) || now >= until =>
            {
                self.phase = Phase::Stopping;
                self.release_groups();
                let event = self.stop.as_ref().map_or(Event::Stop, |stop| stop.event);
                self.observe(event)
            }
            _ => Ok(()),
        }
    }

    /// Logs once a second for how many workers and sessions a stop waits.
    fn log_what_stop_waits_for(&mut self, now: Instant) {
        let Some(stop) = self.stop.as_mut().filter(|stop| now >= stop.logged + TELL_EVERY) else { return };
        stop.logged = now;
        if self.service.pool.worker_count() > 0
            && let Some(stop) = &self.stop
        {
            log::progress(&self.describe_stop(stop, now));
        }
    }

    /// What a stop waits for, in a line.
    pub(super) fn describe_stop(&self, stop: &Stop, now: Instant) -> String {
        let rest = stop.until.saturating_duration_since(now).as_secs_f64().ceil();
        let workers = self.service.pool.worker_count();
        let sessions: u64 = self.service.dispatch.links().map(|link| link.reported_sessions()).sum();
        waits_for(workers, sessions, self.service.dispatch.held(), rest as u64)
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
