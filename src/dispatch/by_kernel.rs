//! What the queues of the slots get where the kernel assigns: those whom the master took out of the kernel's queues.

use super::{Connection, Dispatch, Link, Place, Refusal};
use crate::handover::ledger::Way;
use crate::ids::WorkerId;
use crate::pool::Standing;
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
        if !self.can_rescue(from, connection.listener) {
            self.ledger.refuse(connection, Refusal::NoWorker);
            return None;
        }
        self.ledger.rescued += 1;
        self.ledger.routed[Way::Address as usize] += 1;
        let now = connection.accepted;
        self.pass_on(connection, from, Refusal::NoWorker, now)
    }

    /// Whether another slot's worker would take the connections that come to this one at this listener.
    pub fn can_rescue(&self, from: Slot, listener: u32) -> bool {
        let takes =
            |worker| self.links.get(&worker).is_some_and(Link::takes_connections) && self.has_server(worker, listener);
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

    /// How the kernel is to choose where no server tells the slots apart: as we would.
    pub fn steering(&self) -> Steering {
        Steering::among(self.table.clone(), self.prefix, |slot| self.standing(slot) == Standing::Bypassed)
    }

    /// How the kernel is to choose among the listeners of this number: past the slots whose worker does not have their
    /// server. While none has it, clients wait at their own slots.
    pub fn steering_at(&self, listener: u32) -> Steering {
        let takes = |slot| self.may_take(slot, listener);
        if self.node.is_none() || !self.table.slots().any(takes) {
            return self.steering();
        }
        Steering::among(self.table.clone(), self.prefix, |slot| !takes(slot))
    }

    /// The kernel is to be told anew how to choose.
    pub fn steer_anew(&mut self) {
        self.steers_anew = true;
    }

    /// Whether the kernel may have to choose in another way than it was told after the last call.
    pub fn take_steers_anew(&mut self) -> bool {
        std::mem::take(&mut self.steers_anew)
    }
}
