//! Too much for too few: each shortage is waited out, then passed on, then refused with its reason. Nothing spins
//! meanwhile, and all is well when the cause is gone. (A master without descriptors: `starving`.)

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{Client, Haft, Setup, addresses_of, cpu_time, eventually, is_stopped, signal};

fn ask(haft: &Haft, slot: usize, slots: usize, count: usize) -> Vec<Client> {
    addresses_of(slot, slots).take(count).map(|from| Client::asking(haft, from)).collect()
}

fn assert_served(clients: &mut [Client]) {
    clients.iter_mut().for_each(|client| drop(client.receive().expect("an answer and no reset")));
}

/// What the master used of a processor while `happens`, which must take some seconds and ask the master nothing.
fn assert_rests(haft: &Haft, happens: impl FnOnce()) {
    let (start, before) = (Instant::now(), cpu_time(haft.pid()));
    happens();
    let (passed, used) = (start.elapsed(), cpu_time(haft.pid()) - before);
    assert!(passed >= Duration::from_secs(1), "too short to tell: {passed:?}");
    assert!(used < passed / 5, "{used:?} of processor time in {passed:?}");
}

#[test]
fn past_the_hold_time_a_worker_without_descriptors_is_relieved_by_the_next_slot() {
    let mut haft = Setup::new(&["-w", "2", "--hold-timeout", "1s"]).mode("liar:6").start_all();
    let mut clients = ask(&haft, 0, 2, 20);
    let mut by_slot = [0; 2];
    for client in &mut clients {
        by_slot[client.receive().expect("an answer and no reset").slot] += 1;
    }
    assert_eq!(by_slot, [6, 14]);
    let status = haft.wait("all are settled", |status| status.in_flight() == 0);
    assert!(status.number("returned") >= 14, "{status:?}");
    assert_eq!((status.delivered(), status.refused_in_all(), status.of_slot(0, "respawned")), (20, 0, 0));
    // The places are free again.
    drop(clients);
    eventually("its own worker serves again", || {
        (ask(&haft, 0, 2, 1)[0].receive().expect("an answer").slot == 0).then_some(())
    });
    haft.stop();
}

#[test]
fn without_a_next_slot_those_for_whom_it_has_no_descriptor_are_refused_and_nothing_spins() {
    let mut haft = Setup::new(&["-w", "1", "--hold-timeout", "3s"]).mode("liar:6").start_all();
    let mut clients = ask(&haft, 0, 1, 20);
    let mut rest = clients.split_off(6);
    assert_served(&mut clients);
    assert_rests(&haft, || rest.iter_mut().for_each(Client::wait_for_reset));
    let status = haft.wait("all are settled", |status| status.in_flight() == 0);
    assert_eq!((status.delivered(), status.refused("no_worker"), status.refused_in_all()), (6, 14, 14));
    // One attempt each 100 ms, of all that wait.
    assert!(status.number("returned") >= 14, "{status:?}");
    drop(clients);
    eventually("it serves again", || ask(&haft, 0, 1, 1)[0].receive().ok());
    haft.stop();
}

#[test]
fn when_no_worker_takes_what_is_in_flight_clients_wait_then_are_refused_and_nothing_spins() {
    let flags = ["-w", "2", "--max-in-flight", "2", "--hold-timeout", "2s", "--hang-timeout", "0"];
    let mut haft = Setup::new(&flags).start_all();
    let stopped = [haft.stop_worker(0), haft.stop_worker(1)];
    let mut in_flight: Vec<Client> = (0..2).flat_map(|slot| ask(&haft, slot, 2, 2)).collect();
    haft.wait("both are full", |status| status.of_each("in_flight") == [2, 2]);
    let mut waiting: Vec<Client> = (0..2).flat_map(|slot| ask(&haft, slot, 2, 10)).collect();
    haft.wait("the others wait", |status| status.held() == 20);
    assert_rests(&haft, || waiting.iter_mut().for_each(Client::wait_for_reset));
    let status = haft.status();
    assert_eq!((status.refused("no_worker"), status.refused_in_all(), status.in_flight()), (20, 20, 4));
    stopped.iter().for_each(|worker| signal(*worker, Signal::SIGCONT));
    assert_served(&mut in_flight);
    assert_served(&mut ask(&haft, 0, 2, 10));
    assert_eq!(haft.wait("all are settled", |status| status.in_flight() == 0).refused_in_all(), 20);
    haft.stop();
}

#[test]
fn the_same_when_all_of_them_hang() {
    let flags = ["-w", "2", "--max-in-flight", "2", "--hold-timeout", "4s", "--hang-timeout", "500ms"];
    let mut haft = Setup::new(&flags).start_all();
    let stopped = [haft.stop_worker(0), haft.stop_worker(1)];
    let mut in_flight: Vec<Client> = (0..2).flat_map(|slot| ask(&haft, slot, 2, 2)).collect();
    haft.wait("both hang", |status| status.number("hung") == 2);
    let mut waiting: Vec<Client> = (0..2).flat_map(|slot| ask(&haft, slot, 2, 10)).collect();
    assert_rests(&haft, || waiting.iter_mut().for_each(Client::wait_for_reset));
    assert_eq!(haft.status().refused("no_worker"), 20);
    stopped.iter().for_each(|worker| signal(*worker, Signal::SIGCONT));
    assert_served(&mut in_flight);
    haft.wait("both are taken in again", |status| !status.is(0, "hung") && !status.is(1, "hung"));
    assert_served(&mut ask(&haft, 1, 2, 10));
    haft.stop();
}

/// A worker takes nothing for three seconds, with few in flight to it and no client waiting: nothing is left to be
/// done.
fn rests_until_it_is_told_of(setup: Setup) {
    let mut haft = setup.start_all();
    let stopped = haft.stop_worker(0);
    // One by one, so that each is an event of its own.
    let mut clients = Vec::new();
    for n in 1..=5 {
        clients.extend(addresses_of(0, 1).skip(n).take(1).map(|from| Client::asking(&haft, from)));
        haft.wait("it is sent", |status| status.of_slot(0, "in_flight") == n as u64);
    }
    assert_rests(&haft, || drop(haft.log().line_with("has acknowledged nothing for 3s: it hangs")));
    signal(stopped, Signal::SIGCONT);
    clients.iter_mut().for_each(|client| drop(client.receive_body().expect("an answer and no reset")));
    haft.wait("it is taken in again", |status| !status.is(0, "hung") && status.in_flight() == 0);
    haft.stop();
}

const HANGS_AFTER_3_S: [&str; 4] = ["-w", "1", "--hang-timeout", "3s"];

#[test]
fn with_few_in_flight_to_a_stopped_worker_nothing_spins() {
    rests_until_it_is_told_of(Setup::new(&HANGS_AFTER_3_S));
}

#[test]
fn with_few_in_flight_to_a_stopped_node_worker_nothing_spins() {
    rests_until_it_is_told_of(Setup::new(&HANGS_AFTER_3_S).node());
}

/// Connections to an address that the kernel has not answered yet: proc_pid_net_tcp(5), state 02 is SYN_SENT.
fn unanswered(to: SocketAddr) -> usize {
    let SocketAddr::V4(to) = to else { panic!("{to} is not IPv4") };
    let remote = format!("{:08X}:{:04X}", u32::from_ne_bytes(to.ip().octets()), to.port());
    let table = fs::read_to_string("/proc/net/tcp").expect("the table");
    let lines = table.lines().filter(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[2] == remote && fields[3] == "02"
    });
    lines.count()
}

#[test]
fn past_a_full_backlog_clients_try_again_by_themselves_and_all_are_served() {
    let mut haft = Setup::new(&["-w", "1", "--backlog", "8"]).start_all();
    let address = haft.address();
    haft.signal(Signal::SIGSTOP);
    eventually("the master is stopped", || is_stopped(haft.pid()).then_some(()));
    std::thread::scope(|scope| {
        // Those that find no room get no answer: their kernel asks again, after one second at first.
        let clients: Vec<_> = (0..30)
            .map(|n| {
                scope.spawn(move || {
                    let mut client = Client::connect_from(Ipv4Addr::new(127, 0, 4, n + 1), address).expect("connect");
                    client.ask("/").expect("an answer and no reset")
                })
            })
            .collect();
        // One more than the backlog fits, and some more have half of their handshake done.
        eventually("the backlog is full", || (unanswered(address) > 0).then_some(()));
        haft.signal(Signal::SIGCONT);
        clients.into_iter().for_each(|client| drop(client.join().expect("a client")));
    });
    let status = haft.wait("all are settled", |status| status.in_flight() == 0);
    assert_eq!((status.accepted(), status.delivered(), status.refused_in_all()), (30, 30, 0));
    haft.stop();
}

#[test]
fn a_worker_at_its_memory_limit_dies_and_is_replaced_and_nobody_else_notices() {
    let script = concat!(
        "[ $HAFT_SLOT = 0 ] && ulimit -v 200000; exec python3 -S -E ",
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it/worker.py \"$0\" fated"
    );
    let setup = Setup::new(&["-w", "2", "--hold-timeout", "1h"]).command(&["sh", "-c", script, "{dir}"]);
    let mut haft = setup.start_all();
    let mut other = ask(&haft, 1, 2, 1).remove(0);
    let before = other.receive().expect("an answer").pid;
    let from = addresses_of(0, 2).next().expect("an address");
    let mut greedy = Client::connect_from(from, haft.address()).expect("connect");
    greedy.send("/grow").expect("send");
    greedy.wait_for_end().ok();
    assert_served(&mut ask(&haft, 0, 2, 5));
    haft.log().line_with("MemoryError");
    haft.log().line_with("worker died: exit code 1; replacing it");
    assert_eq!(other.ask("/").expect("still open").pid, before);
    let status = haft.wait("all are settled", |status| status.in_flight() == 0);
    assert_eq!((status.of_each("respawned"), status.refused_in_all()), (vec![1, 0], 0));
    haft.stop();
}
