//! What the queues of the slots get where the kernel assigns: those whom the master took out of the kernel's queues.

use super::{Connection, Dispatch, Link, Place, Refusal};
use crate::lifecycle::pool::{Standing, WorkerId};
use crate::master::ledger::Way;
use crate::route::{Slot, Steering};

impl Dispatch {
    /// Takes in a connection that belongs to this slot, and yields the slot whose queue has grown, unless it was refused.
    pub fn admit_to(&mut self, connection: Connection, slot: Slot) -> Option<Slot> {
        self.ledger.accept();
        self.ledger.routed[Way::Address as usize] += 1;
        let now = connection.accepted;
        self.queue(connection, Some(Place::Slot(slot)), now)
    }

    /// Takes in a connection that waited for a slot in vain, for another one: see [`Dispatch::can_rescue`].
    pub fn rescue(&mut self, mut connection: Connection, from: Slot) -> Option<Slot> {
        self.ledger.accept();
        self.ledger.assign(&mut connection, from);
        if !self.can_rescue(from) {
            self.ledger.refuse(connection, Refusal::NoWorker);
            return None;
        }
        self.ledger.rescued += 1;
        self.ledger.routed[Way::Address as usize] += 1;
        let now = connection.accepted;
        self.pass_on(connection, from, Refusal::NoWorker, now)
    }

    /// Whether another slot's worker would take the connections of this one.
    pub fn can_rescue(&self, from: Slot) -> bool {
        let takes = |worker| self.links.get(&worker).is_some_and(Link::takes_connections);
        self.table.slots().any(|slot| slot != from && self.serving(slot).is_some_and(takes))
    }

    /// Whether the worker takes what comes to its slot at this listener.
    pub fn has_server(&self, worker: WorkerId, listener: u32) -> bool {
        self.node.as_ref().is_none_or(|desk| desk.takes(worker, listener))
    }

    /// What a slot is to its clients.
    pub fn standing(&self, slot: Slot) -> Standing {
        self.standings[slot.index()]
    }

    /// How the kernel is to choose: as we would.
    pub fn steering(&self) -> Steering {
        Steering::among(self.table.clone(), self.prefix, |slot| self.standing(slot) == Standing::Bypassed)
    }
}
