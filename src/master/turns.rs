//! The master's turns: what was accepted together is handed over together, and nobody is woken for less than needed.

use std::time::{Duration, Instant};

use super::error::While;
use super::{FIRST_GROUP_TOKEN, FIRST_WORKER_TOKEN, Master, MasterError, pace, peeking};
use crate::lifecycle::pool::WorkerId;
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
    /// An acknowledgement would wake us for nothing: the connection is its worker's already, only our copy of the
    /// descriptor is kept until we know. So once several connections have come within a moment, workers that are far from
    /// their limit are listened to every [`EARSHOT`] only, for as long as that brings something. They are all listened to
    /// and waited for again when `busy` ends.
    pub(super) fn turns(&mut self, ready: &mut Vec<Ready>) -> Result<(), MasterError> {
        let mut heard = Instant::now();
        let until = heard + LONGEST_ABSENCE;
        loop {
            self.turn(ready)?;
            // What is looked up must be taken in, since some of it is not told a second time.
            let is_over = Instant::now() >= until;
            let more = !is_over && self.poller.look(MOMENT_MS, ready).doing("waiting for connections")?;
            let (now, before) = (Instant::now(), self.service.dispatch.ledger.events());
            let all = !more || now >= heard + EARSHOT;
            self.hear_unheard(all);
            if all {
                heard = now;
            }
            let silent = !is_over && !more && self.service.dispatch.ledger.events() == before;
            if silent || is_over {
                self.busy &= !silent && self.service.dispatch.unheard(true).next().is_some();
                self.service.send(now);
                return self.perform();
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
            self.pace.came(accepted, now);
        }
        let dispatch = &self.service.dispatch;
        if dispatch.node.is_some() && (accepted > 0 || dispatch.held() > 0) {
            pause = pause.max(self.gathering());
        }
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
        Ok(())
    }

    /// How long to let connections gather for workers of Node, which take them one by one; or, where connections wait for
    /// room already, the acknowledgements that make it.
    fn gathering(&mut self) -> Duration {
        if self.service.dispatch.busy_for() > pace::LONGEST {
            // It counts what they have not taken yet.
            self.hear_unheard(true);
        }
        let busy = self.service.dispatch.busy_for();
        match self.service.dispatch.held() {
            0 => self.pace.pause(busy).unwrap_or_default(),
            _ => pace::unnoticed(busy),
        }
    }

    /// Listens to workers that the poller does not wait for.
    fn hear_unheard(&mut self, all: bool) {
        let mut unheard = std::mem::take(&mut self.unheard);
        unheard.extend(self.service.dispatch.unheard(all));
        let now = Instant::now();
        unheard.drain(..).for_each(|worker| self.service.hear(worker, now));
        self.service.dispatch.ledger.close_delivered();
        self.unheard = unheard;
    }

    /// One turn: takes in what workers said, then what clients want, then sends to each worker once.
    fn take_turn(&mut self, ready: &[Ready]) -> Result<(), MasterError> {
        let now = Instant::now();
        let workers = FIRST_WORKER_TOKEN..FIRST_GROUP_TOKEN;
        for event in ready.iter().filter(|event| workers.contains(&event.token)) {
            self.service.hear(WorkerId(event.token - FIRST_WORKER_TOKEN), now);
        }
        if ready.iter().any(|event| !workers.contains(&event.token)) {
            self.service.hear_namers(now);
        }
        self.settle_named(now);
        for event in ready.iter().filter(|event| event.token >= peeking::FIRST_TOKEN) {
            self.peek(*event, now);
        }
        for event in ready.iter().filter(|event| event.token < FIRST_WORKER_TOKEN) {
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
