//! Rendezvous hashing (highest random weight; Thaler and Ravishankar, "Using name-based mappings to increase hit
//! rates", IEEE/ACM Transactions on Networking 6(1), 1998): each slot has a score for each key, and a key belongs to
//! the slot with the highest.
//!
//! Scores do not depend on the other slots. So a new slot takes clients from all the others evenly and moves no client
//! between them, and the clients of a slot that is not to be had spread evenly over the rest and come back later.

use std::iter::FusedIterator;

use super::Slot;
use super::hash::{absorb, finish};
use super::key::Key;

/// How many slots a [`Table`] can have at most.
pub const MAX_SLOTS: usize = 1024;

/// Where the hashing of slot numbers starts: any number would do.
const SLOTS: u64 = 1;

/// There cannot be a [`Table`] of so many slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there cannot be {0} slots: from 1 to {MAX_SLOTS} are possible")]
pub struct SlotCountError(usize);

/// The slots that keys are spread over: 0 to N - 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// What distinguishes the slots: a hash of the slot's number. Never empty, at most `MAX_SLOTS`.
    seeds: Box<[u64]>,
}

impl Table {
    /// A table of the slots 0 to `slots` - 1.
    ///
    /// # Errors
    /// When `slots` is 0 or more than [`MAX_SLOTS`].
    pub fn new(slots: usize) -> Result<Self, SlotCountError> {
        if !(1..=MAX_SLOTS).contains(&slots) {
            return Err(SlotCountError(slots));
        }
        Ok(Self { seeds: (0..slots as u64).map(|slot| absorb(SLOTS, slot)).collect() })
    }

    /// The slot that `key` belongs to: the first of [`Table::order`].
    #[inline]
    pub fn choose(&self, key: Key) -> Slot {
        // There is a best slot, since a table is never empty.
        best(bids(&self.seeds, key)).map_or(Slot(0), |bid| bid.slot)
    }

    /// All slots, each once, the one that `key` belongs to first, then where it goes if that is not to be had, and so
    /// on. Every step looks at all slots once: taking the first few is what this is made for.
    ///
    /// ```
    /// use haft::route::{Key, Prefix, Slot, Table};
    ///
    /// let key = Key::of_ip("192.0.2.7".parse()?, Prefix { ipv4: 32, ipv6: 64 });
    /// let table = Table::new(4)?;
    /// let own = table.choose(key);
    /// let in_its_place = table.order(key).find(|slot| *slot != own);
    /// assert_ne!(in_its_place, Some(own));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn order(&self, key: Key) -> Order<'_> {
        Order { seeds: &self.seeds, key, last: None }
    }

    /// What distinguishes the slots, by slot number.
    pub(super) fn seeds(&self) -> &[u64] {
        &self.seeds
    }

    /// How many slots there are, at least 1.
    pub fn count(&self) -> usize {
        self.seeds.len()
    }

    /// All slots by number.
    pub fn slots(&self) -> impl ExactSizeIterator<Item = Slot> + use<> {
        (0..self.seeds.len() as u16).map(Slot)
    }
}

/// Slots in falling order of preference: see [`Table::order`].
#[derive(Debug, Clone)]
pub struct Order<'a> {
    seeds: &'a [u64],
    key: Key,
    last: Option<Bid>,
}

impl Iterator for Order<'_> {
    type Item = Slot;

    #[inline]
    fn next(&mut self) -> Option<Slot> {
        let bids = bids(self.seeds, self.key);
        let bid = match self.last {
            None => best(bids),
            Some(last) => best(bids.filter(|bid| last.comes_before(*bid))),
        }?;
        self.last = Some(bid);
        Some(bid.slot)
    }
}

impl FusedIterator for Order<'_> {}

/// What a slot offers for a key.
#[derive(Debug, Clone, Copy)]
struct Bid {
    score: u64,
    slot: Slot,
}

impl Bid {
    /// Whether this slot comes before the other: by falling score, then by slot number.
    #[inline]
    fn comes_before(self, other: Self) -> bool {
        self.score > other.score || (self.score == other.score && self.slot < other.slot)
    }
}

/// The bids of all slots, by slot number.
#[inline]
fn bids(seeds: &[u64], key: Key) -> impl Iterator<Item = Bid> {
    seeds.iter().zip(0..).map(move |(seed, slot)| Bid { score: score(key, *seed), slot: Slot(slot) })
}

/// The first in order of `bids`. They come by slot number, so the first seen of equal scores is the first in order.
#[inline]
fn best(bids: impl Iterator<Item = Bid>) -> Option<Bid> {
    bids.reduce(|best, bid| if bid.score > best.score { bid } else { best })
}

/// Key and seed are finished hashes; finishing the two together makes the scores of one key as good as independent.
#[inline]
fn score(key: Key, seed: u64) -> u64 {
    finish(key.bits() ^ seed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_scores_go_by_slot_number() {
        let table = Table { seeds: [7, 7, 7, 7].into() };
        let order: Vec<_> = table.order(Key::ANYONE).map(Slot::index).collect();
        assert_eq!(order, [0, 1, 2, 3]);
    }

    #[test]
    fn a_number_of_slots_that_cannot_be_is_refused_with_the_limits() {
        for slots in [0, MAX_SLOTS + 1] {
            let message = Table::new(slots).expect_err("no such table").to_string();
            assert_eq!(message, format!("there cannot be {slots} slots: from 1 to 1024 are possible"));
        }
        assert_eq!(Table::new(1).map(|table| table.count()), Ok(1));
        assert_eq!(Table::new(MAX_SLOTS).map(|table| table.slots().last()), Ok(Some(Slot(1023))));
    }

    #[test]
    fn no_two_slots_share_a_seed() {
        let mut seeds = Table::new(MAX_SLOTS).expect("a table").seeds.into_vec();
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), MAX_SLOTS);
    }

    proptest! {
        #[test]
        fn an_order_starts_with_the_choice_and_falls_by_score(name: [u8; 16], slots in 1..=64_usize) {
            let (table, key) = (Table::new(slots).expect("a table"), Key::of_bytes(&name));
            let order: Vec<Slot> = table.order(key).collect();
            prop_assert_eq!(order.len(), slots);
            prop_assert_eq!(order[0], table.choose(key));
            let scores: Vec<u64> = order.iter().map(|slot| score(key, table.seeds[slot.index()])).collect();
            prop_assert!(scores.is_sorted_by(|one, next| one > next), "{:?}", scores);
        }
    }
}
