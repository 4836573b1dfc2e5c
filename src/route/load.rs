//! Choosing without stickiness: by load alone.

use std::time::Duration;

use super::Slot;

/// An event loop that is late by no more than this, beside the most punctual one, is as good as any.
const PUNCTUAL: Duration = Duration::from_millis(50);
/// By this much more, a session with its worker weighs twice as much; by twice as much more, five times.
const TWICE: Duration = Duration::from_millis(20);
/// The most that a session of a late worker weighs, against one of a punctual worker.
const MAX_WEIGHT: u64 = 64;
/// Connections that are of no session count as this part of one.
const CONNECTIONS_A_SESSION: u64 = 4;
/// Of those no more count than twice as many sessions would, and these beside.
const FEW_SESSIONS: u64 = 16;

/// How much a session weighs with a worker whose event loop is late by `delay`, where the most punctual worker's is late
/// by `least`: from 1, for all that are punctual, to `MAX_WEIGHT`.
pub fn weight(delay: Duration, least: Duration) -> u64 {
    let late = delay.saturating_sub(least).saturating_sub(PUNCTUAL).as_micros().min(1 << 30) as u64;
    let steps = TWICE.as_micros() as u64;
    (1 + late * late / (steps * steps)).min(MAX_WEIGHT)
}

/// What a new session is weighed against: the worker's sessions, the connections that it reports, and its weight. A
/// worker that lies attracts or repels no more than `MAX_WEIGHT` allows, and twice its own sessions.
pub fn burden(sessions: u64, connections: u64, weight: u64) -> u64 {
    let most = CONNECTIONS_A_SESSION * sessions.saturating_add(FEW_SESSIONS);
    let others = connections.saturating_sub(sessions).min(most);
    // The one that is to come counts, too: else a late worker without a session was as good as any.
    let own = CONNECTIONS_A_SESSION.saturating_mul(sessions.saturating_add(1));
    own.saturating_add(others).saturating_mul(weight.clamp(1, MAX_WEIGHT))
}

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

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// So many sessions of so many, where all stay and workers are late by these times.
    fn spread(delays: &[u64], sessions: usize) -> Vec<u64> {
        let least = millis(*delays.iter().min().expect("workers"));
        let (mut counts, mut turn) = (vec![0; delays.len()], RoundRobin::default());
        for _ in 0..sessions {
            let burdens =
                delays.iter().zip(&counts).map(|(delay, count)| burden(*count, 0, weight(millis(*delay), least)));
            let slots = (0..).map(Slot).zip(burdens.collect::<Vec<_>>());
            counts[least_loaded(slots, &mut turn).expect("a slot").index()] += 1;
        }
        counts
    }

    #[test]
    fn a_late_worker_gets_fewer_sessions_and_a_punctual_one_its_share() {
        assert_eq!(spread(&[0, 40, 20, 50], 400), [100; 4], "none of them is late");
        assert_eq!(spread(&[500, 510, 520, 530], 400), [100; 4], "all are");
        let counts = spread(&[0, 0, 0, 200], 1000);
        assert!(counts[3] * 100 < 1000 && counts[3] > 0, "one in a hundred: {counts:?}");
        let counts = spread(&[0, 0, 0, 80], 1000);
        assert!((50..150).contains(&counts[3]), "{counts:?}");
    }

    proptest! {
        #[test]
        fn a_worker_s_word_weighs_no_more_than_it_may(
            sessions in 0_u64..1 << 40, reported in any::<u64>(), delay in any::<u64>(), least in any::<u64>()
        ) {
            let weight = weight(Duration::from_nanos(delay), Duration::from_nanos(least));
            prop_assert!((1..=MAX_WEIGHT).contains(&weight));
            let honest = burden(sessions, 0, 1);
            let actual = burden(sessions, reported, weight);
            prop_assert!(actual >= honest && actual <= MAX_WEIGHT * (2 * honest + CONNECTIONS_A_SESSION * FEW_SESSIONS));
            prop_assert!(burden(sessions + 1, 0, weight) > burden(sessions, 0, weight));
        }

        #[test]
        fn who_is_later_never_weighs_less(a in 0_u64..5000, b in 0_u64..5000, least in 0_u64..5000) {
            prop_assert!(weight(millis(a.max(b)), millis(least)) >= weight(millis(a.min(b)), millis(least)));
        }

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
