//! Connections that have waited for too long where they are.

use std::time::Instant;

use super::{Connection, Dispatch, Goal, Refusal};
use crate::pool::Standing;
use crate::route::Slot;

impl Dispatch {
    /// Passes on what has waited too long. Yields the slots that have got something.
    pub fn expire(&mut self, now: Instant) -> Vec<Slot> {
        let mut grown = Vec::new();
        let mut expired = Vec::new();
        for (slot, queue) in (0..).map(Slot).zip(&mut self.queues) {
            let hold_timeout = self.hold_timeout;
            let too_long = |held: &Connection| now.saturating_duration_since(held.held_since) >= hold_timeout;
            if queue.iter().any(too_long) {
                for connection in std::mem::take(queue) {
                    if too_long(&connection) { expired.push((slot, connection)) } else { queue.push_back(connection) }
                }
            }
        }
        for (slot, connection) in expired {
            grown.extend(self.pass_on(connection, slot, Refusal::NoWorker, now));
        }
        grown.extend(self.expire_own(now));
        grown
    }

    /// Refuses what no worker will take before the master has stopped. `workers_come`: slots without a worker get one.
    /// Yields the slots that have got something.
    pub fn refuse_hopeless(&mut self, workers_come: bool, now: Instant) -> Vec<Slot> {
        let mut homeless = Vec::new();
        let node = self.node.as_ref();
        for link in self.links.values_mut().filter(|link| !link.own.is_empty()) {
            let (ended, worker) = (link.has_ended(), link.worker);
            let takes = |it: &Connection| !ended && node.is_none_or(|desk| desk.takes(worker, it.listener));
            for connection in std::mem::take(&mut link.own) {
                if takes(&connection) { link.own.push_back(connection) } else { homeless.push(connection) }
            }
        }
        let mut grown = Vec::new();
        for mut connection in homeless {
            connection.goal = Goal::Address;
            grown.extend(self.requeue(connection, now));
        }
        let takes = |it: &Self, listener: u32| {
            let takes = |slot: Slot| match it.standing(slot) {
                Standing::Expected => workers_come && it.may_take(slot, listener),
                Standing::Serving(_) | Standing::Bypassed => it.may_take(slot, listener),
            };
            it.slots().any(takes)
        };
        for slot in self.all_slots().filter(|slot| !self.queues[slot.index()].is_empty()).collect::<Vec<_>>() {
            for connection in std::mem::take(&mut self.queues[slot.index()]) {
                match takes(self, connection.listener) {
                    true => self.queues[slot.index()].push_back(connection),
                    false => self.ledger.refuse(connection, Refusal::Stopping),
                }
            }
        }
        grown
    }

    /// Takes connections from workers that do not fill their slots and have not taken them in time: another worker does
    /// not know their sessions, but can say so.
    fn expire_own(&mut self, now: Instant) -> Vec<Slot> {
        let hold_timeout = self.hold_timeout;
        let too_long = |held: &mut Connection| now.saturating_duration_since(held.held_since) >= hold_timeout;
        let mut expired = Vec::new();
        for link in self.links.values_mut() {
            while let Some(mut connection) = link.own.pop_front_if(too_long) {
                connection.goal = Goal::Address;
                expired.push(connection);
            }
        }
        expired.into_iter().filter_map(|connection| self.requeue(connection, now)).collect()
    }
}
