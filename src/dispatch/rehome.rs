//! Connections that wait where no worker has their server any more.

use std::time::{Duration, Instant};

use super::{Connection, Dispatch, NodeDesk};
use crate::pool::Standing;
use crate::route::Slot;

impl Dispatch {
    /// Moves connections to slots that take them, where workers have opened or closed servers since the last call. Yields
    /// the slots to be sent to.
    pub fn rehome(&mut self, now: Instant) -> Vec<Slot> {
        if !self.node.as_mut().is_some_and(NodeDesk::take_changed) {
            return Vec::new();
        }
        self.steers_anew = true;
        let serving: Vec<_> = self.slots().filter_map(|slot| self.serving(slot)).collect();
        if let Some(desk) = &mut self.node {
            desk.compare(&serving, now);
        }
        for slot in self.all_slots() {
            let misplaced = |held: &Connection| {
                let may_take = |slot: Slot| self.may_take(slot, held.listener);
                !may_take(slot) && self.table.slots().any(may_take)
            };
            if self.queues[slot.index()].iter().any(misplaced) {
                let waiting = std::mem::take(&mut self.queues[slot.index()]);
                for connection in waiting {
                    self.requeue(connection, now);
                }
            }
        }
        self.all_slots().filter(|slot| self.held_for(*slot) > 0).collect()
    }

    /// Does what time changes of the servers of Node programs. `patience`: for how long a port stays open that no worker
    /// asks for.
    pub fn tick_servers(&mut self, patience: Duration, now: Instant) {
        let expected: Vec<Slot> = self.slots().filter(|it| self.standings[it.index()] == Standing::Expected).collect();
        if let Some(desk) = &mut self.node {
            desk.tick(now, patience, |desk, listener| expected.iter().any(|slot| desk.is_expected(*slot, listener)));
        }
    }
}
