//! Connections on their way in: accepted as far as there is room, looked at where that is wanted, and given to the
//! service.

use std::time::Instant;

use super::MasterError;
use super::budget::Budget;
use super::error::Context;
use super::stopping::Phase;
use crate::config::Config;
use crate::connection::{ClientConnection, RejectReason};
use crate::dispatch::Dispatch;
use crate::dispatch::service::Service;
use crate::listen::accept::{Arrival, Turn};
use crate::listen::gate::{Gate, Passage};
use crate::listen::listeners::Listeners;
use crate::pending::hints::ProxyWatch;
use crate::pending::{Outcome, Peeking, Rules};
use crate::pool::Pool;
use crate::route::TagKey;
use crate::sys::closing;
use crate::sys::listen::Listener;
use crate::sys::poller::{Poller, Ready};

/// Maximum number of turns at each listener before it is closed: more than a queue holds by default (4096) means that
/// clients come faster than they can be drained.
const MAX_LAST_TURNS: u32 = 128;

/// The way in: the listeners, and what a connection passes before a worker is chosen for it.
pub(super) struct Intake {
    pub(super) doors: Listeners,
    /// The limits for clients, and what waits because of them.
    pub(super) gate: Gate,
    /// Connections whose first request must be seen before they can be assigned.
    pub(super) peeking: Peeking,
    pub(super) proxy_watch: ProxyWatch,
    pub(super) budget: Budget,
    over_budget: bool,
    /// As many have come as `--max-rate` allows: the next ones wait in the kernel's queue.
    over_rate: bool,
    /// Accepting may go on once what waits to be closed is closed.
    awaits_closing: bool,
}

impl Intake {
    /// The listeners have numbers from `first` on. Nothing is accepted before [`Intake::open`].
    pub(super) fn new(
        config: &Config,
        tag_key: &TagKey,
        (listeners, first): (Vec<Listener>, u32),
        (budget, seed): (Budget, u64),
    ) -> Result<Self, MasterError> {
        let doors = Listeners::new(listeners, first, config.hold_timeout).context("keeping a descriptor in reserve")?;
        Ok(Self {
            doors,
            gate: Gate::new(config, budget.most(), seed, Instant::now()),
            peeking: Peeking::new(config, Rules::new(config, tag_key), budget.most_peeking()),
            proxy_watch: ProxyWatch::new(Instant::now(), config),
            budget,
            over_budget: false,
            over_rate: false,
            awaits_closing: false,
        })
    }

    /// Another configuration, from now on.
    pub(super) fn reconfigure(&mut self, config: &Config, tag_key: &TagKey) {
        self.doors.reconfigure(config);
        self.gate.reconfigure(config);
        self.peeking.reconfigure(config, Rules::new(config, tag_key), self.budget.most_peeking());
        self.proxy_watch.reconfigure(Instant::now(), config);
    }

    /// Workers have come or gone: what may be held besides depends on how many there are, or are about to be.
    pub(super) fn count_workers(&mut self, pool: &Pool) {
        self.budget.reconfigure(pool.most_workers());
        self.peeking.limit(self.budget.most_peeking());
    }

    /// Accepts what waits at a listener.
    pub(super) fn accept(&mut self, token: u64, service: &mut Service, poller: &Poller) -> Result<(), MasterError> {
        let now = Instant::now();
        let most = self.room(service).min(self.gate.room(now));
        let Self { doors, peeking, proxy_watch, gate, .. } = self;
        let turn = doors.accept(token, most, poller, |arrival| {
            let connection = connection(&service.dispatch, arrival, now);
            proxy_watch.saw(&connection, now);
            service.dispatch.ledger.accept();
            let passage = gate.arrived(connection, now);
            enter(service, peeking, gate, poller, passage, now);
        });
        count(service, &turn.context("accepting connections")?);
        Ok(())
    }

    /// How many more connections there are descriptors for.
    pub(super) fn room(&self, service: &Service) -> usize {
        self.budget.room(service.dispatch.ledger.outstanding() + closing::waiting() as u64)
    }

    /// Looks again at a connection of which more has come.
    pub(super) fn peek(&mut self, news: Ready, service: &mut Service, poller: &Poller, now: Instant) {
        if let Some(outcome) = self.peeking.look(news, &service.dispatch, poller, now) {
            settle(service, &mut self.gate, outcome, now);
        }
    }

    /// Assigns connections whose sessions have got an owner, and those that have waited for one long enough.
    pub(super) fn settle_named(&mut self, service: &mut Service, now: Instant) {
        while let Some(outcome) = self.peeking.named(now, &service.dispatch) {
            settle(service, &mut self.gate, outcome, now);
        }
    }

    /// Does what is due: opens again after a pause, lets in those that have waited at the gate as far as their turn has
    /// come, and assigns connections whose first request has not come in time.
    pub(super) fn tick(&mut self, service: &mut Service, poller: &Poller, now: Instant) {
        let Self { peeking, gate, .. } = self;
        for passage in gate.release(now) {
            enter(service, peeking, gate, poller, passage, now);
        }
        self.settle_named(service, now);
        while self.peeking.refuses() || service.dispatch.has_room() {
            let Some(outcome) = self.peeking.expired(now, poller) else { return };
            settle(service, &mut self.gate, outcome, now);
        }
    }

    /// Goes on after a pause for lack of descriptors, if it is over.
    pub(super) fn resume(&mut self, service: &mut Service, poller: &Poller, now: Instant) -> Result<(), MasterError> {
        if !self.doors.is_paused() {
            return Ok(());
        }
        let dispatch = &mut service.dispatch;
        let resumed = self.doors.resume(now, poller, |arrival| {
            let connection = connection(dispatch, arrival, now);
            dispatch.ledger.accept();
            dispatch.ledger.refuse(connection, RejectReason::NoDescriptor);
        });
        resumed.context("accepting connections")
    }

    /// Stops accepting while as many connections are held as there are descriptors for, or as wait well: then the next
    /// ones wait in the kernel's queue, where they cost nothing and are not refused.
    pub(super) fn keep_budget(&mut self, phase: Phase, service: &Service, poller: &Poller) -> Result<(), MasterError> {
        // What waits to be closed has its descriptor still.
        let closing = closing::waiting() as u64;
        let outstanding = service.dispatch.ledger.outstanding() + closing;
        let (held, most_held) = (service.dispatch.held(), service.dispatch.most_held());
        if self.over_budget {
            if outstanding <= self.budget.resuming() && held <= most_held / 2 {
                self.over_budget = false;
                self.open(phase, poller)?;
            }
        } else if (outstanding >= self.budget.most() || held >= most_held) && self.doors.is_open() {
            if outstanding >= self.budget.most() {
                tracing::warn!(outstanding, "as many connections wait as there are descriptors for: accepting pauses");
            }
            self.over_budget = true;
            self.doors.shut(poller).context("leaving the listeners alone")?;
        }
        self.keep_rate(phase, poller)?;
        self.awaits_closing = self.over_budget && closing > 0;
        Ok(())
    }

    /// Stops accepting while as many have come as may, for all together.
    fn keep_rate(&mut self, phase: Phase, poller: &Poller) -> Result<(), MasterError> {
        let is_over = self.gate.room(Instant::now()) == 0;
        if is_over && !self.over_rate && self.doors.is_open() {
            self.over_rate = true;
            self.doors.shut(poller).context("leaving the listeners alone")?;
        } else if !is_over && self.over_rate {
            self.over_rate = false;
            self.open(phase, poller)?;
        }
        Ok(())
    }

    /// Accepts from now on, if haft serves and nothing else stands against it.
    pub(super) fn open(&mut self, phase: Phase, poller: &Poller) -> Result<(), MasterError> {
        if phase == Phase::Serving && self.has_descriptors() && !self.over_rate {
            self.doors.open(poller).context("waiting for connections")?;
        }
        Ok(())
    }

    /// Whether there are descriptors for more connections.
    pub(super) fn has_descriptors(&self) -> bool {
        !self.over_budget && !self.doors.is_paused()
    }

    /// Whether accepting may go on once what waits to be closed is closed: no event reports that.
    pub(super) fn awaits_closing(&self) -> bool {
        self.awaits_closing
    }

    /// Whether something happens without an event.
    pub(super) fn depends_on_time(&self) -> bool {
        self.peeking.len() > 0
            || self.gate.depends_on_time()
            || self.over_rate
            || self.doors.is_paused()
            || self.awaits_closing
    }

    /// Connections that wait at the gate, or for their first request.
    pub(super) fn held(&self) -> usize {
        self.peeking.len() + self.gate.len()
    }

    /// Takes all that wait in the kernel's queues: they would get a reset when the listeners are closed.
    pub(super) fn drain_backlogs(&mut self, service: &mut Service, poller: &Poller) -> Result<(), MasterError> {
        if !self.has_descriptors() {
            return Ok(());
        }
        self.gate.lift();
        let tokens: Vec<u64> = self.doors.listeners().map(|(number, _)| number.into()).collect();
        for token in tokens {
            for _ in 0..MAX_LAST_TURNS {
                let before = service.dispatch.ledger.accepted();
                self.accept(token, service, poller)?;
                if service.dispatch.ledger.accepted() == before {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Closes the listeners, and assigns all that wait by what is known of them.
    pub(super) fn close(&mut self, service: &mut Service, poller: &Poller) -> Result<(), MasterError> {
        self.doors.close(poller).context("closing the listeners")?;
        let now = Instant::now();
        for connection in self.gate.end() {
            service.assign(connection, now);
        }
        while let Some(connection) = self.peeking.take_oldest(poller) {
            service.assign(connection, now);
        }
        Ok(())
    }
}

/// Counts what else one turn at a listener brought.
pub(super) fn count(service: &mut Service, turn: &Turn) {
    service.dispatch.ledger.aborted += turn.aborted;
    service.dispatch.ledger.exhausted += u64::from(turn.exhausted.is_some());
}

/// What came through the gate is looked at, if need be, and assigned.
fn enter(
    service: &mut Service,
    peeking: &mut Peeking,
    gate: &mut Gate,
    poller: &Poller,
    passage: Passage,
    now: Instant,
) {
    match passage {
        // It was looked at before it had to wait.
        Passage::In(connection) if connection.client_is_stated || !peeking.is_wanted() => {
            service.assign(connection, now)
        }
        Passage::In(connection) => {
            if let Some(outcome) = peeking.arrived(connection, &service.dispatch, poller) {
                settle(service, gate, outcome, now);
            }
        }
        Passage::Waits => {}
        Passage::Refused(connection, why) => service.dispatch.ledger.refuse(connection, why),
    }
}

fn settle(service: &mut Service, gate: &mut Gate, outcome: Outcome, now: Instant) {
    match outcome {
        // The client is now known from the proxy.
        Outcome::Assign(connection) if connection.client_is_stated => match gate.known(connection, now) {
            Passage::In(connection) => service.assign(connection, now),
            Passage::Waits => {}
            Passage::Refused(connection, why) => service.dispatch.ledger.refuse(connection, why),
        },
        Outcome::Assign(connection) => service.assign(connection, now),
        Outcome::Refuse(connection, why) => service.dispatch.ledger.refuse(connection, why),
    }
}

/// What was accepted, as a connection.
pub(super) fn connection(dispatch: &Dispatch, arrival: Arrival, now: Instant) -> ClientConnection {
    let Arrival { descriptor, listener, client, local } = arrival;
    ClientConnection::new(descriptor, listener, (client, local), dispatch.key(&client), now)
}
