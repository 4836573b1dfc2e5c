//! A client's address decides which worker serves it, and only that.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::harness::{Client, Haft, Setup, slot_of};

/// Addresses of this host that differ in more than the last byte.
fn addresses(count: u8) -> impl Iterator<Item = Ipv4Addr> {
    (0..count).map(|n| Ipv4Addr::new(127, 0, 1 + n % 7, 1 + n))
}

fn slot_that_serves(haft: &Haft, from: Ipv4Addr) -> usize {
    let answer = Client::connect_from(from, haft.address()).expect("connect").ask("/").expect("answer");
    assert!(answer.client.starts_with(&format!("{from}:")), "{answer:?}");
    answer.slot
}

#[test]
fn every_connection_of_an_address_goes_to_its_slot() {
    let haft = Setup::new(&["-w", "4"]).start_all();
    let mut by_slot = BTreeMap::new();
    for _ in 0..3 {
        for from in addresses(60) {
            let slot = slot_that_serves(&haft, from);
            assert_eq!(slot, slot_of(from, 4), "{from}");
            *by_slot.entry(slot).or_insert(0) += 1;
        }
    }
    assert_eq!(by_slot.len(), 4, "every slot has clients: {by_slot:?}");
    let status = haft.status();
    assert_eq!((status.accepted(), status.delivered()), (180, 180));
    haft.stop();
}

#[test]
fn without_affinity_one_address_is_spread_evenly() {
    let haft = Setup::new(&["-w", "4", "--affinity", "none"]).start_all();
    let mut by_slot = [0; 4];
    for _ in 0..200 {
        by_slot[slot_that_serves(&haft, Ipv4Addr::LOCALHOST)] += 1;
    }
    assert!(by_slot.iter().all(|count| (40..=60).contains(count)), "{by_slot:?}");
    haft.stop();
}

#[test]
fn with_a_prefix_a_network_stays_together() {
    let haft = Setup::new(&["-w", "4", "--ipv4-prefix", "24"]).start_all();
    let mut slots = Vec::new();
    for network in 1..=8 {
        let of_network: Vec<_> =
            [1, 77, 254].map(|host| slot_that_serves(&haft, Ipv4Addr::new(127, 0, network, host))).into();
        assert!(of_network.iter().all(|slot| *slot == of_network[0]), "{network}: {of_network:?}");
        slots.push(of_network[0]);
    }
    slots.sort_unstable();
    slots.dedup();
    assert!(slots.len() > 1, "networks are told apart: {slots:?}");
    haft.stop();
}
