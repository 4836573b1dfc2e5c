//! The books of each slot: `assigned = delivered + refused + moved + in flight + held` holds at every moment.

use std::collections::VecDeque;

use super::Dispatch;
use crate::admin::SlotBalance;

impl Dispatch {
    /// The books of all slots there ever were. What is on its way or waits is counted where it is, over all workers of the
    /// slot, those that only finish what they have too.
    pub fn balances(&self) -> Vec<SlotBalance> {
        let books = self.ledger.by_slot().zip(&self.queues).enumerate();
        let mut balances: Vec<SlotBalance> = books
            .map(|(slot, (book, queue))| SlotBalance {
                slot,
                assigned: book.assigned,
                delivered: book.delivered,
                refused: book.refused,
                moved: book.moved,
                in_flight: 0,
                held: VecDeque::len(queue) as u64,
            })
            .collect();
        for link in self.links.values() {
            let balance = &mut balances[link.slot.index()];
            balance.in_flight += link.in_flight() as u64;
            balance.held += link.own.len() as u64;
        }
        balances
    }
}
