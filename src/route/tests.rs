//! The promises of routing, over generated clients: load is even, no client moves without need, and a choice is the
//! same in every process.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::Prefix;
use super::*;

const CLIENTS: usize = 60_000;
pub(super) const WHOLE: Prefix = Prefix { ipv4: 32, ipv6: 128 };

fn table(slots: usize) -> Table {
    Table::new(slots).expect("a number of slots that is possible")
}

pub(super) fn strided_ipv4(stride: u32) -> Vec<IpAddr> {
    (0..CLIENTS as u32).map(|i| Ipv4Addr::from_bits(0x0a00_0000 + i * stride).into()).collect()
}

pub(super) fn random_ipv4(seed: u8) -> Vec<IpAddr> {
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    (0..CLIENTS).map(|_| Ipv4Addr::from_bits(rng.next_u32()).into()).collect()
}

pub(super) fn sequential_ipv6_hosts() -> Vec<IpAddr> {
    (1..=CLIENTS as u128).map(|host| Ipv6Addr::from_bits(0x2001_0db8 << 96 | host).into()).collect()
}

pub(super) fn random_ipv6_subnets(seed: u8) -> Vec<IpAddr> {
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    (0..CLIENTS).map(|_| Ipv6Addr::from_bits(u128::from(rng.next_u64()) << 64 | 1).into()).collect()
}

/// Checks all the promises for one set of clients.
fn promises_hold(set: &str, clients: &[IpAddr]) {
    let keys: Vec<Key> = clients.iter().map(|ip| Key::of_ip(*ip, WHOLE)).collect();
    let distinct_clients = clients.iter().collect::<HashSet<_>>().len();
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), distinct_clients, "{set}: clients share keys");
    for slots in [2, 3, 4, 8, 16, 64] {
        let chosen = choose_all(slots, &keys);
        load_is_even(set, slots, &chosen);
        a_new_slot_moves_only_its_share(set, &chosen, &choose_all(slots + 1, &keys), slots);
    }
    both_choices_are_even(set, &keys);
}

fn choose_all(slots: usize, keys: &[Key]) -> Vec<Slot> {
    let table = table(slots);
    keys.iter().map(|key| table.choose(*key)).collect()
}

/// The greatest load is at most 1.05 of the mean, and at most 5 standard deviations over it.
///
/// Both are as much as can be promised of any placement that does not know the other clients. One slot's load has a
/// standard deviation of `sqrt((slots - 1) / clients)` of the mean: perfect chance passes 5 of them for one in 50,000
/// sets with 64 slots. With 16 slots 1.05 is 3.2 of them, which perfect chance passes for one set in 80: hence it is
/// promised for the sets named here, which are those that come to mind first, as are the constants of the hash.
pub(super) fn load_is_even(set: &str, slots: usize, chosen: &[Slot]) {
    let mut loads = vec![0_u32; slots];
    chosen.iter().for_each(|slot| loads[slot.index()] += 1);
    let mean = CLIENTS as f64 / slots as f64;
    let ratio = f64::from(loads.into_iter().max().expect("a slot")) / mean;
    let chance = 1.0 + 5.0 * ((slots - 1) as f64 / CLIENTS as f64).sqrt();
    let bound = if slots <= 16 { chance.min(1.05) } else { chance };
    assert!(ratio <= bound, "{set}, {slots} slots: max/mean load {ratio:.4}, at most {bound:.4} is promised");
}

/// Read the other way round: when the last slot goes, only its own clients move.
fn a_new_slot_moves_only_its_share(set: &str, before: &[Slot], after: &[Slot], new: usize) {
    let moved: Vec<Slot> = before.iter().zip(after).filter(|(was, is)| was != is).map(|(_, is)| *is).collect();
    assert!(moved.iter().all(|to| to.index() == new), "{set}, {new} slots and one more: moved between old slots");
    let (share, bound) = (moved.len() as f64 / CLIENTS as f64, 1.0 / (new + 1) as f64 + 0.01);
    assert!(share <= bound, "{set}, {new} slots and one more: {share:.4} move, at most {bound:.4} is promised");
}

/// Of 8 slots, each pair of first and second choice is as frequent as any other, so the clients of a slot that is not
/// to be had spread evenly over the rest. Pearson's chi-squared over the 56 pairs: 55 degrees of freedom, mean 55,
/// standard deviation 10.5; perfect chance passes 118 once in 500,000 sets.
fn both_choices_are_even(set: &str, keys: &[Key]) {
    const SLOTS: usize = 8;
    let (table, mut counts) = (table(SLOTS), [[0_u32; SLOTS]; SLOTS]);
    for key in keys {
        let mut order = table.order(*key);
        let (first, second) = (order.next().expect("a first slot"), order.next().expect("a second slot"));
        counts[first.index()][second.index()] += 1;
    }
    let mean = CLIENTS as f64 / (SLOTS * (SLOTS - 1)) as f64;
    let pairs = (0..SLOTS * SLOTS).map(|pair| (pair / SLOTS, pair % SLOTS)).filter(|(first, second)| first != second);
    let chi_squared: f64 = pairs.map(|(a, b)| (f64::from(counts[a][b]) - mean).powi(2) / mean).sum();
    assert!(chi_squared <= 118.0, "{set}: chi-squared of first and second choices {chi_squared:.1}, at most 118");
}

#[test]
fn promises_hold_for_sequential_and_strided_ipv4() {
    for stride in [1, 4, 16, 256] {
        promises_hold(&format!("IPv4, every {stride}."), &strided_ipv4(stride));
    }
}

#[test]
fn promises_hold_for_random_ipv4() {
    for seed in 1..=3 {
        promises_hold(&format!("IPv4, random, seed {seed}"), &random_ipv4(seed));
    }
}

#[test]
fn promises_hold_for_sequential_ipv6_hosts() {
    promises_hold("IPv6, sequential hosts", &sequential_ipv6_hosts());
}

#[test]
fn promises_hold_for_random_ipv6_subnets() {
    for seed in 1..=3 {
        promises_hold(&format!("IPv6, random /64s, seed {seed}"), &random_ipv6_subnets(seed));
    }
}

/// Orders from an implementation of the same formulas in another language.
#[test]
fn orders_are_the_same_in_every_process() {
    for (ip, of_4, first_of_16, first_of_1024) in [
        ("127.0.0.1", [3, 1, 2, 0], [7, 6, 4, 10], 425),
        ("10.0.0.1", [0, 1, 2, 3], [13, 7, 0, 14], 935),
        ("10.0.0.2", [2, 1, 0, 3], [6, 2, 7, 13], 399),
        ("192.0.2.255", [1, 0, 2, 3], [5, 10, 14, 6], 275),
        ("::1", [0, 2, 3, 1], [0, 2, 13, 4], 49),
        ("2001:db8::1", [2, 1, 0, 3], [11, 14, 8, 2], 33),
    ] {
        let key = Key::of_ip(ip.parse().expect(ip), WHOLE);
        let first = |slots, count| table(slots).order(key).take(count).map(|slot| slot.0).collect::<Vec<_>>();
        assert_eq!(first(4, 5), of_4, "{ip}");
        assert_eq!(first(16, 4), first_of_16, "{ip}");
        assert_eq!(table(1024).choose(key), Slot(first_of_1024), "{ip}");
    }
}

#[test]
fn an_order_names_each_of_1024_slots_once_and_then_ends() {
    let table = table(MAX_SLOTS);
    let mut order = table.order(Key::of_bytes(b"a client"));
    let seen: HashSet<Slot> = order.by_ref().collect();
    assert_eq!(seen, table.slots().collect());
    assert_eq!((order.next(), order.next()), (None, None));
}

proptest! {
    /// So whatever slots are out, the others keep their order: a client whose slot is in stays.
    #[test]
    fn a_new_slot_leaves_the_order_of_the_others_as_it_was(name: [u8; 16], slots in 1..=64_usize) {
        let key = Key::of_bytes(&name);
        let (before, after) = (table(slots), table(slots + 1));
        let old: Vec<Slot> = after.order(key).filter(|slot| slot.index() != slots).collect();
        prop_assert_eq!(before.order(key).collect::<Vec<_>>(), old);
    }
}
