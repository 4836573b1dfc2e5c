//! Connections wait for their own worker, within bounds, and then go to another or are refused.

use nix::sys::signal::Signal;

use crate::harness::{Client, Haft, Setup, addresses_of, signal};

/// So many connections from addresses of a slot, each with a request sent.
fn ask(haft: &Haft, slot: usize, slots: usize, count: usize) -> Vec<Client> {
    let clients = addresses_of(slot, slots).take(count).map(|from| {
        let mut client = Client::connect_from(from, haft.address()).expect("connect");
        // One that is refused may know it already.
        client.send("/").ok();
        client
    });
    clients.collect()
}

fn slots_that_serve(clients: &mut [Client]) -> Vec<usize> {
    clients.iter_mut().map(|client| client.receive().expect("an answer").slot).collect()
}

#[test]
fn clients_wait_for_a_worker_that_starts_slowly_while_others_are_served() {
    let setup = Setup::new(&["-w", "2", "--hold-timeout", "1h"]).mode("gate");
    setup.open_gate("gate-2");
    let mut haft = setup.start();
    let mut waiting = ask(&haft, 0, 2, 5);
    haft.wait("they wait", |status| status.of_slot(0, "held") == 5);
    assert_eq!(slots_that_serve(&mut ask(&haft, 1, 2, 5)), [1; 5]);
    haft.open_gate("gate-1");
    assert_eq!(slots_that_serve(&mut waiting), [0; 5]);
    haft.stop();
}

#[test]
fn past_the_hold_time_clients_go_to_the_next_slot() {
    let setup = Setup::new(&["-w", "2", "--hold-timeout", "200ms"]).mode("gate");
    setup.open_gate("gate-2");
    let haft = setup.start();
    assert_eq!(slots_that_serve(&mut ask(&haft, 0, 2, 5)), [1; 5]);
    assert_eq!(haft.status().refused_in_all(), 0);
    haft.stop();
}

#[test]
fn without_any_ready_worker_clients_are_refused_and_the_reason_is_counted() {
    let setup = Setup::new(&["-w", "1", "--hold-timeout", "200ms"]).mode("gate");
    setup.open_gate("gate-1");
    let mut haft = setup.start();
    signal(haft.worker(0), Signal::SIGKILL);
    haft.wait("it is dead", |status| status.state(0) != "ready");
    ask(&haft, 0, 1, 5).iter_mut().for_each(Client::wait_for_reset);
    assert_eq!(haft.status().refused("no_worker"), 5);
    haft.open_gate("gate-2");
    haft.wait("replaced", |status| status.all_ready());
    assert_eq!(slots_that_serve(&mut ask(&haft, 0, 1, 1)), [0]);
    haft.stop();
}

#[test]
fn no_more_is_accepted_than_can_wait_well_and_all_are_served_in_the_end() {
    let setup = Setup::new(&["-w", "1", "--hold-timeout", "1h"]).mode("gate");
    setup.open_gate("gate-1");
    let mut haft = setup.start();
    signal(haft.worker(0), Signal::SIGKILL);
    haft.wait("it is dead", |status| status.state(0) != "ready");
    let mut waiting = ask(&haft, 0, 1, 1030);
    // Half of what the queue holds, and a turn's worth.
    let status = haft.wait("accepting pauses", |status| status.held() >= 512);
    assert!(status.held() <= 512 + 64 && status.accepted() == status.held(), "{}", status.held());
    haft.open_gate("gate-2");
    assert_eq!(slots_that_serve(&mut waiting), [0; 1030]);
    assert_eq!(haft.status().refused_in_all(), 0);
    haft.stop();
}

#[test]
fn a_client_that_was_passed_on_comes_back_when_only_its_own_slot_can_serve_it() {
    // One in flight fills slot 1, which then stops: its queue grows although it is ready.
    let setup = Setup::new(&["-w", "2", "--hold-timeout", "2s", "--max-in-flight", "1"]).mode("gate");
    setup.open_gate("gate-2");
    let mut haft = setup.start();
    let stopped = haft.worker(1);
    signal(stopped, Signal::SIGSTOP);
    let mut first = ask(&haft, 1, 2, 1);
    haft.wait("slot 1 is full", |status| status.of_slot(1, "in_flight") == 1);
    let mut waiting = ask(&haft, 0, 2, 3);
    haft.wait("they have been passed on", |status| status.of_slot(1, "held") == 3);
    haft.open_gate("gate-1");
    assert_eq!(slots_that_serve(&mut waiting), [0; 3]);
    signal(stopped, Signal::SIGCONT);
    assert_eq!(slots_that_serve(&mut first), [1]);
    haft.stop();
}

#[test]
fn without_affinity_too_clients_are_refused_when_nobody_is_ready() {
    let setup = Setup::new(&["-w", "2", "--affinity", "none", "--hold-timeout", "200ms"]).mode("gate");
    setup.open_gate("gate-1");
    setup.open_gate("gate-2");
    let mut haft = setup.start_all();
    [0, 1].into_iter().for_each(|slot| signal(haft.worker(slot), Signal::SIGKILL));
    haft.wait("both are dead", |status| status.slots().all(|slot| slot["state"] != "ready"));
    ask(&haft, 0, 1, 5).iter_mut().for_each(Client::wait_for_reset);
    assert_eq!(haft.status().refused("no_worker"), 5);
    haft.open_gate("gate-3");
    haft.open_gate("gate-4");
    haft.wait("replaced", |status| status.all_ready());
    haft.stop();
}
