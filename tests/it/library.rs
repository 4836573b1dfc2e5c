//! A Rust program as a worker: `examples/socketio.rs`, built with the library.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use nix::sys::signal::Signal;

use crate::harness::{Client, Setup, addresses_of, eventually, is_running, is_stopped, signal, slot_of};

/// The path of an example. `cargo test` builds them all; with `--test it` alone they are as they were built last.
pub fn example(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_BIN_EXE_haft")).parent().expect("a folder").to_owned();
    let program = folder.join("examples").join(name);
    assert!(program.exists(), "{} is missing: cargo build --examples makes it", program.display());
    program
}

#[test]
fn an_axum_and_socketioxide_application_answers_counts_and_drains() {
    let program = example("socketio");
    let setup = Setup::new(&["-w", "2", "--drain-timeout", "1h"]).command(&[program.to_str().expect("a path")]);
    let mut haft = setup.start_all();
    let mut clients: Vec<Client> = addresses_of(0, 2)
        .take(3)
        .chain(addresses_of(1, 2).take(2))
        .map(|from| {
            let mut client = Client::connect_from(from, haft.address()).expect("connect");
            client.send("/").expect("send");
            assert_eq!(client.receive_body().expect("answer"), format!("slot {}\n", slot_of(from, 2)));
            client
        })
        .collect();
    haft.wait("open connections are told", |status| (status.of_slot(0, "open"), status.of_slot(1, "open")) == (3, 2));

    let mut polling = Client::connect(haft.address()).expect("connect");
    polling.send("/socket.io/?EIO=4&transport=polling").expect("send");
    let opened = polling.receive_body().expect("a session");
    assert!(opened.starts_with("0{\"sid\":"), "{opened}");
    let slot = slot_of(Ipv4Addr::LOCALHOST, 2);
    haft.wait("one more", |status| status.of_slot(slot, "open") == if slot == 0 { 4 } else { 3 });

    haft.note_workers();
    haft.signal(Signal::SIGTERM);
    clients.iter_mut().for_each(|client| client.wait_for_end().expect("an orderly end"));
    assert_eq!(haft.wait_for_exit().code(), Some(0));
    haft.log().line_with("worker has left: ended as asked (exit code 0)");
    haft.assert_nothing_left();
}

#[test]
fn a_library_worker_of_a_killed_master_serves_who_is_there_and_leaves() {
    let program = example("socketio");
    let mut haft = Setup::new(&["-w", "1"]).command(&[program.to_str().expect("a path")]).start_all();
    let mut busy = Client::connect(haft.address()).expect("connect");
    busy.write(b"GET / HTTP/1.1\r\nHost: haft\r\n").expect("half a request");
    haft.wait("it is taken", |status| status.delivered() == 1);
    let worker = haft.worker(0);
    // It stands still at that moment, and the kernel wakes it with SIGHUP.
    signal(worker, Signal::SIGSTOP);
    eventually("the worker is stopped", || is_stopped(worker).then_some(()));
    haft.signal(Signal::SIGKILL);
    haft.wait_for_exit();
    busy.write(b"\r\n").expect("the other half");
    assert_eq!(busy.receive_body().expect("its answer"), "slot 0\n");
    busy.wait_for_end().expect("an orderly end");
    eventually("the worker leaves by itself", || (!is_running(worker)).then_some(()));
}
