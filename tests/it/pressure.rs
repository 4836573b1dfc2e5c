//! Workers that are slow or short of something: each bound holds, others are not slowed down, and it recovers.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::PoisonError;

use nix::sys::signal::Signal;

use crate::harness::{
    Client, Haft, NEEDS_FILES, Setup, addresses_of, eventually, is_stopped, signal, user_of_this_run,
};

fn connect(haft: &Haft, slot: usize, slots: usize, count: usize) -> Vec<Client> {
    let clients = addresses_of(slot, slots).take(count).map(|from| {
        let mut client = Client::connect_from(from, haft.address()).expect("connect");
        client.send("/").expect("send");
        client
    });
    clients.collect()
}

fn stop_worker(haft: &Haft, slot: usize) -> u32 {
    let worker = haft.worker(slot);
    signal(worker, Signal::SIGSTOP);
    eventually("the worker is stopped", || is_stopped(worker).then_some(()));
    worker
}

#[test]
fn a_worker_that_does_not_read_gets_no_more_than_the_bound_and_slows_nobody_down() {
    let mut haft = Setup::new(&["-w", "2", "--max-in-flight", "8", "--hold-timeout", "1h"]).start_all();
    let worker = stop_worker(&haft, 0);
    let mut waiting = connect(&haft, 0, 2, 30);
    let status = haft.wait("all are there", |status| status.accepted() == 30);
    assert_eq!((status.of_slot(0, "in_flight"), status.of_slot(0, "held")), (8, 22));
    for mut client in connect(&haft, 1, 2, 30) {
        assert_eq!(client.receive().expect("an answer").slot, 1);
    }
    signal(worker, Signal::SIGCONT);
    for client in &mut waiting {
        assert_eq!(client.receive().expect("an answer").slot, 0);
    }
    haft.stop();
}

#[test]
fn a_worker_whose_promise_is_a_lie_returns_what_it_cannot_take_and_all_are_served() {
    let mut haft = Setup::new(&["-w", "1", "--hold-timeout", "1h"]).mode("liar:6").start_all();
    let clients = connect(&haft, 0, 1, 20);
    // Six find a place and keep it; what comes then is cut off by the kernel and given back.
    haft.wait("it returns some", |status| status.number("returned") >= 14 && status.delivered() == 6);
    std::thread::scope(|scope| {
        for mut client in clients {
            // Dropped as soon as it has its answer, in whatever order: its place is free for another.
            scope.spawn(move || client.receive().expect("an answer"));
        }
    });
    let status = haft.wait("all are settled", |status| status.in_flight() == 0);
    assert_eq!((status.delivered(), status.refused_in_all()), (20, 0));
    assert_eq!(status.of_slot(0, "respawned"), 0);
    haft.stop();
}

#[test]
fn a_worker_with_few_descriptors_gets_as_many_as_it_promised_and_all_are_served() {
    let script = concat!("ulimit -n 80; exec python3 -S -E ", env!("CARGO_MANIFEST_DIR"), "/examples/worker.py");
    let setup = Setup::new(&["-w", "1", "--hold-timeout", "1h"]).command(&["sh", "-c", script]);
    let mut haft = setup.start_all();
    let clients = connect(&haft, 0, 1, 60);
    // It keeps 64 for itself.
    haft.wait("it is full", |status| status.accepted() == 60 && status.delivered() == 16);
    assert_eq!(haft.status().held(), 44);
    for mut client in clients {
        client.receive().expect("an answer");
    }
    let status = haft.wait("all are settled", |status| status.in_flight() == 0);
    assert_eq!((status.delivered(), status.number("returned")), (60, 0));
    haft.stop();
}

#[test]
fn a_worker_that_closes_its_end_for_what_comes_is_replaced_and_its_clients_are_served() {
    let mut haft = Setup::new(&["-w", "2", "--hold-timeout", "1h"]).mode("shut:read").start_all();
    let mut clients = connect(&haft, 0, 2, 3);
    haft.wait("they are sent", |status| status.of_slot(0, "in_flight") == 3);
    haft.open_gate("shut");
    eventually("it is shut", || haft.folder().join("is-shut").exists().then_some(()));
    // The next one cannot be sent.
    clients.extend(connect(&haft, 0, 2, 1));
    haft.log().line_with("takes nothing any more: Broken pipe");
    for client in &mut clients {
        assert_eq!(client.receive().expect("an answer and no reset").worker, 3);
    }
    let status = haft.wait("all are settled", |status| status.in_flight() == 0);
    assert_eq!((status.number("redelivered_unread"), status.of_slot(1, "respawned")), (3, 0));
    haft.stop();
}

#[test]
fn a_worker_that_closes_its_end_both_ways_is_replaced_and_its_clients_are_served() {
    let mut haft = Setup::new(&["-w", "2", "--hold-timeout", "1h"]).mode("shut:both").start_all();
    let mut clients = connect(&haft, 0, 2, 3);
    haft.wait("they are sent", |status| status.of_slot(0, "in_flight") == 3);
    haft.open_gate("shut");
    for client in &mut clients {
        assert_eq!(client.receive().expect("an answer and no reset").worker, 3);
    }
    haft.log().line_with("the other end of the channel was closed");
    haft.stop();
}

#[test]
fn the_order_to_finish_reaches_a_worker_whose_channel_was_full() {
    let flags = ["-w", "1", "--max-in-flight", "20000", "--hold-timeout", "300ms", "--drain-timeout", "1h"];
    let mut haft = Setup::new(&flags).start_all();
    let worker = stop_worker(&haft, 0);
    // One by one, each is a message of its own; the kernel takes some hundreds of them.
    let mut clients = Vec::new();
    while haft.status().held() == 0 {
        clients.extend(connect(&haft, 0, 1, 20));
        assert!(clients.len() < 5000, "the channel is never full");
    }
    haft.signal(Signal::SIGTERM);
    haft.wait("it is to finish", |status| status.state(0) == "draining");
    signal(worker, Signal::SIGCONT);
    drop(clients);
    // It would wait for an hour otherwise.
    assert_eq!(haft.wait_for_exit().code(), Some(0));
    haft.log().line_with("worker has left: ended as asked (exit code 0)");
    haft.assert_nothing_left();
}

#[test]
fn too_many_descriptors_in_flight_on_the_host_hold_clients_up_until_it_is_over() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can run haft as another user, without the privilege to exceed the limit");
        return;
    }
    let _files = NEEDS_FILES.lock().unwrap_or_else(PoisonError::into_inner);
    // What is in flight is counted by user.
    let user = user_of_this_run();
    let setup = Setup::new(&["-w", "1", "--hold-timeout", "1h"]).after("ulimit -n 200").user(user);
    // Another process of the same user, with a limit of its own, sends more than haft's limit and reads nothing.
    let script = "import os, socket, sys, time
left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
for _ in range(4): socket.send_fds(left, [b'x'], [0] * 250)
open('full', 'w').close()
while not os.path.exists('over'): time.sleep(0.005)";
    let mut other = Command::new("python3");
    let mut other = other.args(["-c", script]).current_dir(setup.folder()).uid(user).spawn().expect("python3");
    eventually("many are in flight", || setup.folder().join("full").exists().then_some(()));

    let mut haft = setup.start_all();
    let mut clients = connect(&haft, 0, 1, 5);
    let status = haft.wait("they wait", |status| status.held() == 5);
    assert_eq!((status.state(0), status.of_slot(0, "in_flight")), ("ready", 0), "it could take them");
    haft.open_gate("over");
    assert!(other.wait().expect("wait").success());
    for client in &mut clients {
        client.receive().expect("an answer");
    }
    assert_eq!(haft.status().refused_in_all(), 0);
    haft.stop();
}
