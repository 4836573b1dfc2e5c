//! Connections on their way in: accepted, looked at where that is wanted, and given to the service.

use std::time::Instant;

use super::error::Context;
use super::{Master, MasterError};
use crate::connection::ClientConnection;
use crate::dispatch::Dispatch;
use crate::dispatch::service::Service;
use crate::listen::accept::{Arrival, Turn};
use crate::listen::gate::{Gate, Passage};
use crate::pending::{Outcome, Peeking};
use crate::sys::closing;
use crate::sys::poller::{Poller, Ready};

impl Master {
    /// Accepts what waits at a listener.
    pub(super) fn accept(&mut self, token: u64) -> Result<(), MasterError> {
        let now = Instant::now();
        self.read_loads(now);
        let Self { service, peeking, proxy_watch, gate, poller, .. } = self;
        let most = self.budget.room(service.dispatch.ledger.outstanding() + closing::waiting() as u64);
        let most = most.min(gate.room(now));
        let turn = self.doors.accept(token, most, poller, |arrival| {
            let connection = connection(&service.dispatch, arrival, now);
            proxy_watch.saw(&connection, now);
            service.dispatch.ledger.accept();
            let passage = gate.arrived(connection, now);
            enter(service, peeking, gate, poller, passage, now);
        });
        let turn = turn.context("accepting connections")?;
        self.count(&turn);
        Ok(())
    }

    /// Counts what else one turn at a listener brought.
    pub(super) fn count(&mut self, turn: &Turn) {
        self.service.dispatch.ledger.aborted += turn.aborted;
        self.service.dispatch.ledger.exhausted += u64::from(turn.exhausted.is_some());
    }

    /// Looks again at a connection of which more has come.
    pub(super) fn peek(&mut self, news: Ready, now: Instant) {
        if let Some(outcome) = self.peeking.look(news, &self.service.dispatch, &self.poller, now) {
            settle(&mut self.service, &mut self.gate, outcome, now);
        }
    }

    /// Assigns connections whose sessions have got an owner, and those that have waited for one long enough.
    pub(super) fn settle_named(&mut self, now: Instant) {
        while let Some(outcome) = self.peeking.named(now, &self.service.dispatch) {
            settle(&mut self.service, &mut self.gate, outcome, now);
        }
    }

    /// Assigns connections whose first request has not come in time.
    pub(super) fn expire_peeking(&mut self, now: Instant) {
        self.settle_named(now);
        while self.peeking.refuses() || self.service.dispatch.has_room() {
            let Some(outcome) = self.peeking.expired(now, &self.poller) else { return };
            settle(&mut self.service, &mut self.gate, outcome, now);
        }
    }

    /// Lets in those that have waited at the gate, as far as their turn has come.
    pub(super) fn release_from_gate(&mut self, now: Instant) {
        let Self { service, peeking, gate, poller, .. } = self;
        for passage in gate.release(now) {
            enter(service, peeking, gate, poller, passage, now);
        }
    }

    /// Assigns all that wait at the gate, and all whose first request is waited for, by what is known of them.
    pub(super) fn end_peeking(&mut self, now: Instant) {
        for connection in self.gate.end() {
            self.service.assign(connection, now);
        }
        while let Some(connection) = self.peeking.take_oldest(&self.poller) {
            self.service.assign(connection, now);
        }
    }
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

pub(super) fn connection(dispatch: &Dispatch, arrival: Arrival, now: Instant) -> ClientConnection {
    let Arrival { descriptor, listener, client, local } = arrival;
    ClientConnection::new(descriptor, listener, (client, local), dispatch.key(&client), now)
}
