//! What was sent to a worker and not yet acknowledged: sequence numbers, credits, and the kept copies. Pure.

use std::collections::VecDeque;

/// A worker sent something impossible: it is not to be trusted any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// It took what was never sent.
    #[error("took connections below {below}, but only those below {sent} were sent")]
    TookUnsent {
        /// What it sent.
        below: u64,
        /// What is true.
        sent: u64,
    },
    /// It took back an acknowledgement.
    #[error("took connections below {below} after it had taken those below {before}")]
    TookLess {
        /// What it sent.
        below: u64,
        /// What it had sent before.
        before: u64,
    },
    /// It took back a promise.
    #[error("lowered its limit from {before} to {limit}")]
    LoweredLimit {
        /// What it sent.
        limit: u64,
        /// What it had sent before.
        before: u64,
    },
    /// It gave back what it did not have.
    #[error("returned {count} connections from {first} on, which are not all in flight to it")]
    ReturnedUnsent {
        /// First sequence number that it named.
        first: u64,
        /// How many it named.
        count: u32,
    },
}

/// Connections that there is room for from the start: room that is made in the midst of a rush ends up behind what the
/// rush itself takes, and keeps the allocator from giving that back.
const ROOM: usize = 64;

/// The connections in flight to one worker, in the order of their sequence numbers, which start at 0.
#[derive(Debug)]
pub struct Outbox<T> {
    /// Those from `first` on; `None` was returned.
    sent: VecDeque<Option<T>>,
    first: u64,
    in_flight: usize,
    limit: u64,
}

impl<T> Outbox<T> {
    /// An outbox for a worker that has promised nothing yet.
    pub fn new() -> Self {
        Self { sent: VecDeque::with_capacity(ROOM), first: 0, in_flight: 0, limit: 0 }
    }

    /// The sequence number of the next connection.
    pub fn next_sequence(&self) -> u64 {
        self.first + self.sent.len() as u64
    }

    /// How many connections are sent and not yet acknowledged.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many were sent and are settled: acknowledged, or given back.
    pub fn settled(&self) -> u64 {
        self.next_sequence() - self.in_flight as u64
    }

    /// How many more may be sent, if at most `most` may be in flight.
    pub fn room(&self, most: usize) -> usize {
        let credit = self.limit.saturating_sub(self.next_sequence());
        // Entries that were returned count until they are passed: they are few, and the bound stays simple.
        most.saturating_sub(self.sent.len()).min(usize::try_from(credit).unwrap_or(usize::MAX))
    }

    /// Notes that a connection was sent under [`Outbox::next_sequence`].
    pub fn push(&mut self, connection: T) {
        self.sent.push_back(Some(connection));
        self.in_flight += 1;
    }

    /// The worker has room for those below `limit`.
    pub fn raise_limit(&mut self, limit: u64) -> Result<(), Violation> {
        if limit < self.limit {
            return Err(Violation::LoweredLimit { limit, before: self.limit });
        }
        self.limit = limit;
        Ok(())
    }

    /// The worker has taken everything below `below`: yields what it took, oldest first.
    pub fn taken(&mut self, below: u64) -> Result<impl Iterator<Item = T> + '_, Violation> {
        if below < self.first {
            return Err(Violation::TookLess { below, before: self.first });
        }
        if below > self.next_sequence() {
            return Err(Violation::TookUnsent { below, sent: self.next_sequence() });
        }
        // It fits: `below - first` is at most the number of entries.
        let count = (below - self.first) as usize;
        self.first = below;
        self.in_flight -= self.sent.iter().take(count).flatten().count();
        Ok(self.sent.drain(..count).flatten())
    }

    /// The worker gives `count` connections from `first` on back: yields them, oldest first.
    pub fn returned(&mut self, first: u64, count: u32) -> Result<Vec<T>, Violation> {
        let violation = Violation::ReturnedUnsent { first, count };
        let start = first.checked_sub(self.first).ok_or(violation)?;
        let end = start.checked_add(u64::from(count)).filter(|end| *end <= self.sent.len() as u64).ok_or(violation)?;
        let range = start as usize..end as usize;
        if self.sent.range(range.clone()).any(Option::is_none) {
            return Err(violation);
        }
        self.in_flight -= range.len();
        Ok(self.sent.range_mut(range).filter_map(Option::take).collect())
    }

    /// The connection in flight under this sequence number.
    pub fn get(&self, sequence: u64) -> Option<&T> {
        self.sent.get(self.index(sequence)?)?.as_ref()
    }

    /// The worker has taken, or given back, this one alone, in whatever order: yields it, unless it is not in flight.
    pub fn settle(&mut self, sequence: u64) -> Option<T> {
        let at = self.index(sequence)?;
        let connection = self.sent.get_mut(at)?.take()?;
        self.in_flight -= 1;
        while self.sent.pop_front_if(|oldest| oldest.is_none()).is_some() {
            self.first += 1;
        }
        Some(connection)
    }

    /// The worker is gone: yields all that it had not taken with their sequence numbers, oldest first.
    pub fn reclaim(&mut self) -> impl Iterator<Item = (u64, T)> + '_ {
        let first = self.first;
        self.first = self.next_sequence();
        self.in_flight = 0;
        self.sent.drain(..).enumerate().filter_map(move |(at, entry)| Some((first + at as u64, entry?)))
    }

    fn index(&self, sequence: u64) -> Option<usize> {
        usize::try_from(sequence.checked_sub(self.first)?).ok()
    }
}

impl<T> Default for Outbox<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn outbox(limit: u64, sent: u64) -> Outbox<u64> {
        let mut outbox = Outbox::new();
        outbox.raise_limit(limit).expect("limit");
        (0..sent).for_each(|connection| outbox.push(connection));
        outbox
    }

    #[test]
    fn room_is_the_lesser_of_credit_and_bound() {
        assert_eq!(Outbox::<u64>::new().room(64), 0);
        assert_eq!(outbox(10, 4).room(64), 6);
        assert_eq!(outbox(1000, 4).room(64), 60);
        assert_eq!(outbox(2, 4).room(64), 0);
    }

    #[test]
    fn what_cannot_be_is_a_violation_and_changes_nothing() {
        let mut outbox = outbox(10, 4);
        assert_eq!(outbox.taken(5).err(), Some(Violation::TookUnsent { below: 5, sent: 4 }));
        assert_eq!(outbox.taken(2).expect("taken").collect::<Vec<_>>(), [0, 1]);
        assert_eq!(outbox.taken(1).err(), Some(Violation::TookLess { below: 1, before: 2 }));
        assert_eq!(outbox.raise_limit(9), Err(Violation::LoweredLimit { limit: 9, before: 10 }));
        for (first, count) in [(1, 1), (3, 2), (4, 1), (u64::MAX, u32::MAX), (2, u32::MAX)] {
            assert_eq!(outbox.returned(first, count), Err(Violation::ReturnedUnsent { first, count }));
        }
        assert_eq!(outbox.returned(3, 1), Ok(vec![3]));
        assert_eq!(outbox.returned(3, 1), Err(Violation::ReturnedUnsent { first: 3, count: 1 }));
        assert_eq!(outbox.reclaim().collect::<Vec<_>>(), [(2, 2)]);
        assert_eq!(outbox.in_flight(), 0);
        assert_eq!(outbox.next_sequence(), 4);
    }

    #[test]
    fn one_alone_is_settled_in_any_order_and_only_once() {
        let mut outbox = outbox(u64::MAX, 5);
        assert_eq!(outbox.get(3), Some(&3));
        assert_eq!([3, 3, 5, u64::MAX].map(|sequence| outbox.settle(sequence)), [Some(3), None, None, None]);
        assert_eq!((outbox.get(3), outbox.in_flight(), outbox.room(64)), (None, 4, 59));
        // What was settled out of order stops counting once those before it are settled, too.
        assert_eq!([0, 2, 1].map(|sequence| outbox.settle(sequence)), [Some(0), Some(2), Some(1)]);
        assert_eq!((outbox.in_flight(), outbox.room(64), outbox.next_sequence()), (1, 63, 5));
        assert_eq!(outbox.settle(0), None);
        assert_eq!(outbox.reclaim().collect::<Vec<_>>(), [(4, 4)]);
    }

    proptest! {
        /// Whatever a worker sends, each connection comes out exactly once.
        #[test]
        fn no_connection_is_lost_or_doubled(steps in prop::collection::vec((0..5u8, 0..30u64, 0..8u32), 0..200)) {
            let mut outbox = outbox(u64::MAX, 0);
            let (mut sent, mut out) = (0, Vec::new());
            for (step, number, count) in steps {
                match step {
                    0 => (0..count).for_each(|_| { outbox.push(sent); sent += 1; }),
                    1 => if let Ok(taken) = outbox.taken(sent.saturating_sub(number)) { out.extend(taken) },
                    2 => if let Ok(back) = outbox.returned(sent.saturating_sub(number), count) { out.extend(back) },
                    3 => out.extend(outbox.settle(sent.saturating_sub(number))),
                    _ if number == 0 => out.extend(outbox.reclaim().map(|(sequence, connection)| {
                        assert_eq!(sequence, connection);
                        connection
                    })),
                    _ => {}
                }
                prop_assert_eq!(out.len() + outbox.in_flight(), sent as usize);
                prop_assert_eq!(outbox.next_sequence(), sent);
            }
            out.extend(outbox.reclaim().map(|(_, connection)| connection));
            out.sort_unstable();
            prop_assert_eq!(out, (0..sent).collect::<Vec<_>>());
        }
    }
}
