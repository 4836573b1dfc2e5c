//! Choosing without stickiness: by load alone.

use super::Slot;

/// The next of the slots of equal load. Starts at slot 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoundRobin {
    next: u16,
}

/// The slot with the least load; among equals the next one in turn, by slot number. `None` if there is no candidate.
///
/// `loads` are the slots that will do, in any order, each with its number of connections in flight.
#[inline]
pub fn least_loaded(loads: impl IntoIterator<Item = (Slot, u64)>, round_robin: &mut RoundRobin) -> Option<Slot> {
    let turn = round_robin.next;
    // Wrapping puts the slots before `turn` behind all those from `turn` on.
    let (slot, _) = loads.into_iter().min_by_key(|(slot, load)| (*load, slot.0.wrapping_sub(turn)))?;
    round_robin.next = slot.0.wrapping_add(1);
    Some(slot)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn equal(slots: &[u16]) -> impl Iterator<Item = (Slot, u64)> {
        slots.iter().map(|slot| (Slot(*slot), 3))
    }

    #[test]
    fn equals_take_turns_from_slot_0_on_and_round_again() {
        let mut turn = RoundRobin::default();
        let picked: Vec<_> = (0..7).filter_map(|_| least_loaded(equal(&[0, 1, 2]), &mut turn)).map(|s| s.0).collect();
        assert_eq!(picked, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn a_slot_that_is_not_to_be_had_is_passed_over() {
        let mut turn = RoundRobin::default();
        let mut pick = |slots| least_loaded(equal(slots), &mut turn);
        assert_eq!(pick(&[0, 1, 2]), Some(Slot(0)));
        assert_eq!(pick(&[0, 2]), Some(Slot(2)));
        assert_eq!(pick(&[1]), Some(Slot(1)));
        assert_eq!(pick(&[]), None);
        assert_eq!(
            pick(&[2, 1, 0]),
            Some(Slot(2)),
            "an empty round takes no turn, and the order given does not matter"
        );
    }

    #[test]
    fn the_turn_goes_on_after_the_last_number_there_is() {
        let mut turn = RoundRobin { next: u16::MAX };
        let mut pick = || least_loaded(equal(&[0, 1, u16::MAX]), &mut turn);
        assert_eq!([pick(), pick(), pick()], [Some(Slot(u16::MAX)), Some(Slot(0)), Some(Slot(1))]);
    }

    proptest! {
        #[test]
        fn no_candidate_has_less_load_than_the_chosen_one(
            loads in prop::collection::btree_map(0_u16..1024, 0_u64..4, 1..64),
            next in any::<u16>(),
        ) {
            let slots = loads.iter().map(|(slot, load)| (Slot(*slot), *load));
            let chosen = least_loaded(slots, &mut RoundRobin { next }).expect("a candidate");
            prop_assert_eq!(loads.get(&chosen.0), loads.values().min());
        }

        #[test]
        fn every_equal_is_chosen_once_a_round(
            slots in prop::collection::btree_set(0_u16..1024, 1..64),
            next in any::<u16>(),
        ) {
            let slots: Vec<u16> = slots.into_iter().collect();
            let mut turn = RoundRobin { next };
            let round: BTreeSet<_> = slots.iter().filter_map(|_| least_loaded(equal(&slots), &mut turn)).collect();
            prop_assert_eq!(round.len(), slots.len());
        }
    }
}
