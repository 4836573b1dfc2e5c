//! One slot is disabled, so that its worker can be examined, and is enabled again.

use std::net::Ipv4Addr;

use nix::sys::signal::Signal;

use crate::harness::{Client, Haft, Setup, addresses_of, order_of, signal};

fn slot_that_serves(haft: &Haft, from: Ipv4Addr) -> usize {
    Client::asking(haft, from).receive().expect("an answer").slot
}

#[test]
fn new_clients_go_to_the_next_slot_and_come_back_while_open_connections_stay() {
    let mut haft = Setup::new(&["-w", "3"]).start_all();
    let of_one: Vec<Ipv4Addr> = addresses_of(1, 3).take(20).collect();
    let others: Vec<Ipv4Addr> = [0, 2].into_iter().flat_map(|slot| addresses_of(slot, 3).take(10)).collect();
    let mut open = Client::asking(&haft, of_one[0]);
    let before = open.receive().expect("an answer");

    let (code, text) = haft.post("/drain?slot=1");
    assert_eq!(code, 200, "{text}");
    assert!(text.contains("slot 1 is drained: new clients go to other slots, its worker keeps what it has"), "{text}");
    haft.log().line_with("slot 1 is drained");
    let next: Vec<usize> = of_one.iter().map(|from| slot_that_serves(&haft, *from)).collect();
    let order: Vec<usize> = of_one.iter().map(|from| order_of(*from, 3)[1]).collect();
    assert_eq!(next, order, "each to the next slot in its own order");
    assert!(next.contains(&0) && next.contains(&2), "they are spread");
    for from in &others {
        assert_eq!(slot_that_serves(&haft, *from), order_of(*from, 3)[0], "no other client moves");
    }
    let now = open.ask("/").expect("the connection is still open");
    assert_eq!((now.slot, now.pid), (1, before.pid));

    let status = haft.status();
    assert_eq!((0..3).map(|slot| status.is(slot, "drained")).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!((status.state(1), status.pid(1)), ("ready", Some(before.pid)));
    assert_eq!((status.of_slot(1, "delivered"), status.of_slot(1, "draining_workers")), (1, 0));
    let (_, metrics) = haft.page("/metrics").expect("metrics");
    assert!(metrics.contains("haft_slot_drained{slot=\"1\"} 1"), "{metrics}");
    assert!(metrics.contains("haft_slot_drained{slot=\"0\"} 0"), "{metrics}");

    let (code, text) = haft.post("/undrain?slot=1");
    assert_eq!((code, text.trim_end()), (200, "slot 1 takes its clients again"));
    assert!(of_one.iter().all(|from| slot_that_serves(&haft, *from) == 1));
    assert_eq!(open.ask("/").expect("the connection is still open").pid, before.pid);
    let status = haft.wait("all are settled", |status| status.in_flight() == 0);
    assert!(!status.is(1, "drained"));
    assert_eq!((status.refused_in_all(), status.of_slot(1, "delivered")), (0, 21));
    let asked = &status.0["control"]["requests"];
    assert_eq!((&asked["drain"], &asked["undrain"]), (&1.into(), &1.into()), "{asked}");
    haft.stop();
}

#[test]
fn the_last_slot_is_not_drained_and_what_is_not_there_neither() {
    let haft = Setup::new(&["-w", "2"]).start_all();
    for (path, code, says) in [
        ("/drain?slot=2", 400, "there is no slot 2: they are 0 to 1"),
        ("/undrain?slot=2", 400, "there is no slot 2"),
        ("/drain", 400, "slot is missing"),
        ("/undrain?slot=0", 200, "slot 0 is not drained"),
        ("/drain?slot=0", 200, "slot 0 is drained"),
        ("/drain?slot=0", 200, "slot 0 is drained already"),
        ("/drain?slot=1", 400, "slot 1 is the last that takes clients: undrain another one first"),
        ("/scale?workers=1", 400, "all of the first 1 slots are drained: undrain one of them first"),
    ] {
        let (found, text) = haft.post(path);
        assert!(found == code && text.contains(says), "{path}: {found} {text}");
    }
    let status = haft.status();
    assert_eq!((status.is(0, "drained"), status.is(1, "drained"), status.slots().count()), (true, false, 2));
    assert!(
        [0, 1].into_iter().flat_map(|slot| addresses_of(slot, 2).take(3)).all(|it| slot_that_serves(&haft, it) == 1)
    );
    haft.stop();
}

#[test]
fn those_who_wait_for_a_slot_go_elsewhere_when_it_is_drained() {
    let setup = Setup::new(&["-w", "2", "--hold-timeout", "1h"]).mode("gate");
    setup.open_gate("gate-2");
    let mut haft = setup.start();
    let mut waiting: Vec<Client> = addresses_of(0, 2).take(5).map(|from| Client::asking(&haft, from)).collect();
    haft.wait("they wait", |status| status.of_slot(0, "held") == 5);
    assert_eq!(haft.post("/drain?slot=0").0, 200);
    for client in &mut waiting {
        assert_eq!(client.receive().expect("an answer").slot, 1);
    }
    haft.open_gate("gate-1");
    haft.wait("it is ready", |status| status.all_ready());
    haft.stop();
}

#[test]
fn a_drained_slot_s_worker_is_replaced_when_it_dies_and_the_slot_stays_drained_after_a_reload_too() {
    let mut haft = Setup::new(&["-w", "2"]).start_all();
    let from = addresses_of(0, 2).next().expect("an address");
    assert_eq!(haft.post("/drain?slot=0").0, 200);
    signal(haft.worker(0), Signal::SIGKILL);
    let status = haft.wait("replaced", |status| status.all_ready() && status.of_slot(0, "respawned") == 1);
    assert!(status.is(0, "drained"));
    assert_eq!(slot_that_serves(&haft, from), 1);
    assert_eq!(haft.post("/reload").0, 202);
    let status = haft.wait("it is done", |status| status.number("reloads_done") == 1);
    assert!(status.is(0, "drained"));
    assert_eq!(slot_that_serves(&haft, from), 1);
    assert_eq!(haft.post("/undrain?slot=0").0, 200);
    assert_eq!(slot_that_serves(&haft, from), 0);
    haft.stop();
}
