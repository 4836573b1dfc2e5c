//! A Rust program as a worker: `examples/socketio.rs`, built with the library.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::harness::{Client, Setup, addresses_of, slot_of};

/// Builds the example, which costs nothing when it is up to date, and yields its path.
fn example(name: &str) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--example", name]);
    let folder = PathBuf::from(env!("CARGO_BIN_EXE_haft")).parent().expect("a folder").to_owned();
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    assert!(cargo.status().expect("cargo").success());
    folder.join("examples").join(name)
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
    haft.log().line_with("worker has left: exit code 0");
    haft.assert_nothing_left();
}
