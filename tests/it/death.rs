//! Workers die: what they had not taken goes to their replacement, and no other client moves.

use std::fs;
use std::net::Ipv4Addr;

use nix::sys::signal::Signal;

use crate::harness::{Answer, Client, Haft, Setup, addresses_of, eventually, is_stopped, signal};

/// Connects and sends a request that only this client sends.
fn ask_from(haft: &Haft, from: Ipv4Addr, n: usize) -> Client {
    let mut client = Client::connect_from(from, haft.address()).expect("connect");
    client.send(&request(n)).expect("send");
    client
}

/// Long enough that a lost part would be noticed.
fn request(n: usize) -> String {
    format!("/{n}/{}", format!("{n:04}").repeat(700))
}

fn assert_answered(clients: Vec<Client>) -> Vec<Answer> {
    let answers: Vec<Answer> =
        clients.into_iter().map(|mut client| client.receive().expect("an answer and no reset")).collect();
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.request, format!("GET {} HTTP/1.1", request(n)));
    }
    answers
}

#[test]
fn what_a_dead_worker_had_not_taken_is_served_by_its_replacement() {
    let mut haft = Setup::new(&["-w", "2", "--hold-timeout", "1h"]).mode("mute:3").start_all();
    let from: Vec<_> = addresses_of(0, 2).take(10).collect();
    let worker = haft.worker(0);
    // Three are received and not acknowledged, then it stops, and seven stay unread.
    let mut clients: Vec<_> = (0..3).map(|n| ask_from(&haft, from[n], n)).collect();
    eventually("the worker stops", || is_stopped(worker).then_some(()));
    clients.extend((3..10).map(|n| ask_from(&haft, from[n], n)));
    haft.wait("all ten are sent", |status| status.of_slot(0, "in_flight") == 10);

    signal(worker, Signal::SIGKILL);
    let answers = assert_answered(clients);
    assert!(answers.iter().all(|answer| (answer.slot, answer.worker) == (0, 3)), "{answers:?}");
    let status = haft.wait("all are acknowledged", |status| status.in_flight() == 0);
    assert_eq!(status.number("redelivered_unacknowledged"), 3);
    assert_eq!(status.number("redelivered_unread"), 7);
    assert_eq!((status.delivered(), status.refused_in_all()), (10, 0));
    haft.stop();
}

#[test]
fn a_dead_worker_is_replaced_in_its_slot_and_nobody_else_moves() {
    let mut haft = Setup::new(&["-w", "4", "--hold-timeout", "1h"]).start_all();
    let mut others: Vec<(Client, Answer)> = (0..4)
        .flat_map(|slot| addresses_of(slot, 4).take(3))
        .map(|from| {
            let mut client = Client::connect_from(from, haft.address()).expect("connect");
            let answer = client.ask("/").expect("answer");
            (client, answer)
        })
        .collect();
    let mut orphans = others.drain(6..9).collect::<Vec<_>>();

    signal(haft.worker(2), Signal::SIGKILL);
    for (client, _) in &mut orphans {
        client.wait_for_end().ok();
    }
    for from in addresses_of(2, 4).take(3) {
        let answer = Client::connect_from(from, haft.address()).expect("connect").ask("/").expect("answer");
        assert_eq!((answer.slot, answer.worker), (2, 5));
    }
    for (client, before) in &mut others {
        let now = client.ask("/").expect("the connection is still open");
        assert_eq!((now.slot, now.pid), (before.slot, before.pid));
    }
    let status = haft.wait("ready", |status| status.all_ready());
    assert_eq!((0..4).map(|slot| status.of_slot(slot, "respawned")).collect::<Vec<_>>(), [0, 0, 1, 0]);
    assert_eq!(status.0["slots"][2]["deaths_by_reason"]["signal SIGKILL"], 1);
    haft.stop();
}

#[test]
fn a_program_that_cannot_be_started_for_a_while_is_tried_again() {
    let setup = Setup::new(&["-w", "2"]);
    let program = setup.folder().join("program");
    let away = setup.folder().join("away");
    let worker = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/worker.py");
    fs::copy(worker, &program).expect("copy");
    let mut haft = setup.command(&["{dir}/program"]).start_all();

    fs::rename(&program, &away).expect("rename");
    signal(haft.worker(0), Signal::SIGKILL);
    haft.log().lines_with("no such program", 3);
    let from = addresses_of(1, 2).next().expect("an address");
    Client::connect_from(from, haft.address()).expect("connect").ask("/").expect("the other slot serves");
    fs::rename(&away, &program).expect("rename");
    haft.wait("replaced", |status| status.all_ready());
    haft.stop();
}

#[test]
fn a_program_that_cannot_be_started_any_more_is_given_up_in_the_end() {
    let setup = Setup::new(&["-w", "1"]);
    let program = setup.folder().join("program");
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/worker.py"), &program).expect("copy");
    let mut haft = setup.command(&["{dir}/program"]).start_all();
    fs::remove_file(&program).expect("remove");
    signal(haft.worker(0), Signal::SIGKILL);
    assert_eq!(haft.wait_for_exit().code(), Some(1));
    haft.log().line_with("giving up");
    haft.assert_nothing_left();
}

#[test]
fn a_pool_without_any_worker_that_starts_is_given_up_and_those_who_wait_are_refused() {
    let script = concat!(
        "[ $HAFT_WORKER = 1 ] && exec python3 -S -E ",
        env!("CARGO_MANIFEST_DIR"),
        "/examples/worker.py; echo 'there is no second life' >&2"
    );
    let mut haft = Setup::new(&["-w", "1"]).command(&["sh", "-c", script]).start_all();
    signal(haft.worker(0), Signal::SIGKILL);
    haft.wait("a replacement is tried", |status| status.state(0) != "ready");
    let mut clients: Vec<_> = (0..3).map(|n| ask_from(&haft, Ipv4Addr::LOCALHOST, n)).collect();
    let status = haft.wait_for_exit();
    assert_eq!(status.code(), Some(1));
    clients.iter_mut().for_each(Client::wait_for_reset);
    let log = haft.log().whole();
    assert!(log.contains("worker exited before it was ready (5 times): giving up"), "{log}");
    assert!(log.contains("there is no second life"), "the last lines it wrote: {log}");
    haft.assert_nothing_left();
}
