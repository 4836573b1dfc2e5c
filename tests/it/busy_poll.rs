//! A master that stays awake for the next connection: it neglects nothing meanwhile, and sleeps when its time is over.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::{Client, Setup, addresses_of, cpu_time, eventually, is_sleeping, signal};

#[test]
fn awake_it_serves_clients_answers_questions_reloads_and_replaces_the_dead() {
    let mut haft = Setup::new(&["-w", "2", "--busy-poll", "1h"]).start_all();
    eventually("it sleeps, since no client has come", || is_sleeping(haft.pid()).then_some(()));
    let from = addresses_of(1, 2).next().expect("an address");
    assert_eq!(Client::asking(&haft, from).receive().expect("an answer").slot, 1);
    let before = cpu_time(haft.pid());
    eventually("it is awake", || (cpu_time(haft.pid()) > before + Duration::from_millis(500)).then_some(()));

    assert_eq!(haft.post("/reload").0, 202);
    haft.wait("the reload is done", |status| (0..2).all(|slot| status.of_slot(slot, "generation") == 1));
    signal(haft.worker(1), Signal::SIGKILL);
    haft.wait("it is replaced", |status| status.of_slot(1, "respawned") == 1 && status.state(1) == "ready");
    for from in addresses_of(1, 2).take(20) {
        assert_eq!(Client::asking(&haft, from).receive().expect("an answer").slot, 1);
    }
    let status = haft.wait("all are acknowledged", |status| status.in_flight() == 0);
    assert_eq!((status.delivered(), status.refused_in_all()), (21, 0));
    haft.stop();
}

#[test]
fn when_its_time_is_over_it_sleeps() {
    let haft = Setup::new(&["-w", "1", "--busy-poll", "50ms"]).start_all();
    for from in addresses_of(0, 1).take(50) {
        Client::asking(&haft, from).receive().expect("an answer");
    }
    eventually("it sleeps", || is_sleeping(haft.pid()).then_some(()));
    haft.stop();
}
