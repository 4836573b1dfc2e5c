//! Whatever workers make of the sockets that they have, closing them never keeps the master waiting. Here each close of
//! a last copy would sleep for an hour, much longer than anything is waited for.

use std::net::TcpStream;

use socket2::{Domain, Socket, Type};

use crate::harness::{Client, Haft, Setup, addresses_of, descriptors, eventually};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/sleepers.py");

fn setup(dialect: &str, flags: &[&str]) -> Setup {
    Setup::new(&[&["-w", "2"], flags].concat()).command(&["python3", "-S", "-E", SCRIPT, "{dir}", dialect])
}

/// Clients of slot 0 that ask nothing and read nothing.
fn silent(haft: &Haft, count: usize) -> Vec<TcpStream> {
    let connect = |from| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(1 << 12).expect("a small buffer");
        socket.bind(&std::net::SocketAddr::new(from, 0).into()).expect("bind");
        socket.connect(&haft.address().into()).expect("connect");
        socket.into()
    };
    addresses_of(0, 2).take(count).map(|from| connect(from.into())).collect()
}

fn wait_until_done(haft: &Haft) {
    eventually("the worker has done it", || haft.folder().join("done").exists().then_some(()));
}

fn assert_served(haft: &Haft) {
    for from in addresses_of(1, 2).take(20) {
        Client::connect_from(from, haft.address()).expect("connect").ask("/").expect("an answer");
    }
}

fn unread_are_closed(haft: &mut Haft) {
    let before = descriptors(haft.pid()).len();
    let clients = silent(haft, 12);
    wait_until_done(haft);
    assert_served(haft);
    let status = haft.wait("all are settled", |status| status.in_flight() == 0);
    assert_eq!((status.delivered(), status.refused_in_all()), (32, 0));
    // None waits behind another: each of these could have been closed by its worker alone, for its client to see.
    eventually("no copy is left", || (descriptors(haft.pid()).len() <= before).then_some(()));
    drop(clients);
}

#[test]
fn connections_that_a_worker_closes_unread() {
    let mut haft = setup("answers", &[]).start_all();
    unread_are_closed(&mut haft);
    haft.stop();
}

#[test]
fn descriptors_with_frames_that_break_the_rules() {
    let mut haft = setup("breaks", &[]).start_all();
    let clients = silent(&haft, 1);
    haft.log().line_with("a frame of kind 130 with descriptors");
    assert_served(&haft);
    haft.wait("it is replaced", |status| status.of_slot(0, "respawned") == 1 && status.all_ready());
    let status = haft.wait("all are settled", |status| status.in_flight() == 0);
    assert_eq!((status.delivered(), status.refused_in_all()), (21, 0));
    drop(clients);
    haft.stop();
}

/// Descriptors that were not asked for, and have no use.
fn unasked(mut haft: Haft) {
    wait_until_done(&haft);
    eventually("most of 120 are closed", || {
        haft.status();
        (descriptors(haft.pid()).len() < 100).then_some(())
    });
    haft.note_workers();
}

#[test]
fn descriptors_that_a_program_of_node_s_sends() {
    unasked(setup("node", &["--dialect", "node", "--no-preload"]).launch());
}

#[test]
fn descriptors_that_a_program_sends_to_its_notify_socket() {
    unasked(setup("notify", &["--dispatch", "kernel", "--dialect", "listen-fds"]).launch());
}
