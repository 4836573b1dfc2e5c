//! The master's turns: what was accepted together is handed over together, and nobody is woken for less than needed.

use std::time::{Duration, Instant};

use super::error::While;
use super::{Master, MasterError, channels, pace};
use crate::listen::kernel::FIRST_GROUP_TOKEN;
use crate::pending as peeking;
use crate::sys::poller::Ready;

/// How long, in milliseconds, the next event is waited for where one has just come.
const MOMENT_MS: u8 = 1;
/// How long a worker is not listened to at most.
const EARSHOT: Duration = Duration::from_millis(1);
/// How long turn may follow turn before signals, deaths and questions are looked at.
const LONGEST_ABSENCE: Duration = Duration::from_millis(5);

impl Master {
    /// Turns until nothing has been ready for a moment, but not so long that signals, deaths and questions are kept
    /// waiting. Where one event has come the next is near, and waiting for it here is far cheaper than to leave and come
    /// back through the event loop, whose other work can wait that moment.
    ///
    /// Once several connections have come within a moment, workers for whose words nobody waits ([`super::channels`]) are
    /// heard every [`EARSHOT`] only, for as long as that brings something. They are waited for again when `busy` ends.
    pub(super) fn turns(&mut self, ready: &mut Vec<Ready>) -> Result<(), MasterError> {
        let mut heard = Instant::now();
        let until = heard + LONGEST_ABSENCE;
        loop {
            self.turn(ready)?;
            // What is looked up must be taken in, since some of it is not told a second time.
            let is_over = Instant::now() >= until;
            let more = !is_over && self.look(until, ready)?;
            let (now, before) = (Instant::now(), self.service.dispatch.ledger.events());
            // Those who are waited for have been told of with the others.
            if self.busy && (!more || now >= heard + EARSHOT) {
                self.hear_lazily(now)?;
                heard = now;
            }
            let silent = !is_over && !more && self.service.dispatch.ledger.events() == before;
            if silent || is_over {
                self.busy &= !silent && self.service.dispatch.is_owed_words();
                self.busy |= now < self.awake_until || self.awaits_closing;
                self.service.send(now);
                return self.perform();
            }
        }
    }

    /// Looks whether anything is ready, for a moment; with `--busy-poll` without sleeping, but at most until `until`.
    fn look(&mut self, until: Instant, ready: &mut Vec<Ready>) -> Result<bool, MasterError> {
        loop {
            let now = Instant::now();
            let patience = if now < self.awake_until { 0 } else { MOMENT_MS };
            let found = self.poller.look(patience, ready).doing("waiting for connections")?;
            if found || patience > 0 || now >= until {
                return Ok(found);
            }
        }
    }

    /// One turn, and the pause after it in which more come together: one turn for many is what makes each cheap.
    fn turn(&mut self, ready: &[Ready]) -> Result<(), MasterError> {
        let ledger = &self.service.dispatch.ledger;
        let (events, accepted) = (ledger.events(), ledger.accepted());
        self.take_turn(ready)?;
        let ledger = &self.service.dispatch.ledger;
        let (events, accepted) = (ledger.events() - events, ledger.accepted() - accepted);
        let now = Instant::now();
        self.busy |= accepted > 0 && now < self.last_accept + EARSHOT;
        let mut pause = if events > 1 { pace::LONGEST } else { Duration::ZERO };
        if accepted > 0 {
            self.last_accept = now;
            self.awake_until = now + self.changes.config.busy_poll;
            self.pace.came(accepted, now);
        }
        let dispatch = &self.service.dispatch;
        if dispatch.node.is_some() && (accepted > 0 || dispatch.held() > 0) {
            pause = pause.max(self.gathering()?);
        }
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
        Ok(())
    }

    /// How long to let connections gather for workers of Node, which take them one by one; or, where connections wait for
    /// room already, the acknowledgements that make it.
    fn gathering(&mut self) -> Result<Duration, MasterError> {
        if self.service.dispatch.busy_for() > pace::LONGEST {
            // It counts what they have not taken yet.
            self.hear_lazily(Instant::now())?;
        }
        let busy = self.service.dispatch.busy_for();
        Ok(match self.service.dispatch.held() {
            0 => self.pace.pause(busy).unwrap_or_default(),
            _ => pace::unnoticed(busy),
        })
    }

    /// Hears those workers of whom it is enough to be heard after a moment.
    fn hear_lazily(&mut self, now: Instant) -> Result<(), MasterError> {
        for worker in self.channels.look().doing("waiting for a worker")? {
            self.service.hear(worker, now);
        }
        self.service.dispatch.ledger.close_delivered();
        Ok(())
    }

    /// One turn: takes in what workers said, then what clients want, then sends to each worker once.
    fn take_turn(&mut self, ready: &[Ready]) -> Result<(), MasterError> {
        let now = Instant::now();
        let worker_of = |event: &Ready| channels::worker_of(event.token);
        for worker in ready.iter().filter_map(worker_of) {
            self.service.hear(worker, now);
        }
        if ready.iter().any(|event| event.token == channels::TOKEN) {
            self.hear_lazily(now)?;
        }
        if ready.iter().any(|event| event.token != channels::TOKEN && worker_of(event).is_none()) {
            self.service.hear_namers(now);
        }
        self.settle_named(now);
        for event in ready.iter().filter(|event| event.token >= peeking::FIRST_TOKEN) {
            self.peek(*event, now);
        }
        for event in ready.iter().filter(|event| event.token < channels::TOKEN) {
            if self.doors.is_open() {
                self.accept(event.token)?;
            }
        }
        for event in ready.iter().filter(|event| (FIRST_GROUP_TOKEN..peeking::FIRST_TOKEN).contains(&event.token)) {
            self.rescue(event.token)?;
        }
        self.service.send(now);
        self.perform()?;
        self.keep_budget()
    }
}
