//! Connections on their way in: accepted, looked at where that is wanted, and given to the service.

use std::time::Instant;

use super::error::While;
use super::{Master, MasterError};
use crate::connection::Connection;
use crate::dispatch::Dispatch;
use crate::dispatch::service::Service;
use crate::listen::accept::{Arrival, Turn};
use crate::pending::Outcome;
use crate::sys::closing;
use crate::sys::poller::Ready;

impl Master {
    /// Accepts what waits at a listener.
    pub(super) fn accept(&mut self, token: u64) -> Result<(), MasterError> {
        let now = Instant::now();
        let (service, peeking, watch, poller) =
            (&mut self.service, &mut self.peeking, &mut self.proxy_watch, &self.poller);
        let most = self.budget.room(service.dispatch.ledger.outstanding() + closing::waiting() as u64);
        let turn = self.doors.accept(token, most, poller, |arrival| {
            let connection = connection(&service.dispatch, arrival, now);
            watch.saw(&connection, now);
            if !peeking.is_wanted() {
                return service.admit(connection, now);
            }
            service.dispatch.ledger.accept();
            if let Some(outcome) = peeking.arrived(connection, &service.dispatch, poller) {
                settle(service, outcome, now);
            }
        });
        let turn = turn.doing("accepting connections")?;
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
            settle(&mut self.service, outcome, now);
        }
    }

    /// Assigns connections whose sessions have got an owner, and those that have waited for one long enough.
    pub(super) fn settle_named(&mut self, now: Instant) {
        while let Some(outcome) = self.peeking.named(now, &self.service.dispatch) {
            settle(&mut self.service, outcome, now);
        }
    }

    /// Assigns connections whose first request has not come in time.
    pub(super) fn expire_peeking(&mut self, now: Instant) {
        self.settle_named(now);
        while self.peeking.refuses() || self.service.dispatch.has_room() {
            let Some(outcome) = self.peeking.expired(now, &self.poller) else { return };
            settle(&mut self.service, outcome, now);
        }
    }

    /// Assigns all connections that wait for their first request, by what is known of them.
    pub(super) fn end_peeking(&mut self, now: Instant) {
        while let Some(connection) = self.peeking.take_oldest(&self.poller) {
            self.service.assign(connection, now);
        }
    }
}

fn settle(service: &mut Service, outcome: Outcome, now: Instant) {
    match outcome {
        Outcome::Assign(connection) => service.assign(connection, now),
        Outcome::Refuse(connection, why) => service.dispatch.ledger.refuse(connection, why),
    }
}

pub(super) fn connection(dispatch: &Dispatch, arrival: Arrival, now: Instant) -> Connection {
    let Arrival { descriptor, listener, client, local } = arrival;
    Connection::new(descriptor, listener, (client, local), dispatch.key(&client), now)
}
