//! Slots that come, go and are left alone while the kernel steers: it goes by what each is to its clients, as hand-over
//! does.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

use crate::harness::{Client, Haft, Setup, Status, addresses_of, eventually, order_of, signal, slot_of};
use crate::kernel_queues::{answers, ask, node, pids, setup, waiting, while_clients_come};
use crate::listen_fds;

/// Workers that take no connections from the master.
fn listen_fds(flags: &[&str]) -> Setup {
    listen_fds::setup(flags, &[])
}

/// Stops a worker that has shown that it has started.
fn stop_worker(haft: &Haft, slot: usize, slots: usize) -> u32 {
    assert_eq!(answers(ask(haft, slot, slots, 1))[0].slot, slot);
    haft.stop_worker(slot)
}

/// Who serves each of these clients.
fn served(haft: &Haft, clients: u8) -> BTreeMap<Ipv4Addr, usize> {
    let ask = |from: Ipv4Addr| (from, Client::asking(haft, from).receive().expect("an answer").slot);
    (1..=clients).map(|n| ask(Ipv4Addr::new(127, 0, 9, n))).collect()
}

/// Asserts that each is served by the slot that hand-over would choose.
fn assert_as_by_hand_over(haft: &Haft, slots: usize) {
    for (from, slot) in served(haft, 60) {
        assert_eq!(slot, slot_of(from, slots), "{from}, {slots} slots");
    }
}

fn scale(haft: &mut Haft, slots: usize) {
    let (code, text) = haft.post(&format!("/scale?workers={slots}"));
    assert_eq!(code, 202, "{text}");
    haft.wait("so many slots, all ready", |status| status.slots().count() == slots && status.all_ready());
}

#[test]
fn more_and_fewer_workers_take_the_clients_that_hand_over_would_give_them() {
    let flags = ["-w", "3", "--hold-timeout", "0s"];
    for mut haft in [setup(&flags).start_all(), listen_fds(&flags).start_all()] {
        assert_as_by_hand_over(&haft, 3);
        haft.signal(Signal::SIGTTIN);
        haft.log().line_with("SIGTTIN: from 3 to 4 workers");
        haft.wait("it is there", |status| status.slots().count() == 4 && status.all_ready());
        assert_as_by_hand_over(&haft, 4);
        for slots in [7, 2, 5, 1, 3] {
            scale(&mut haft, slots);
            assert_as_by_hand_over(&haft, slots);
        }
        let status = haft.wait("the others are gone", |status| status.of_each("draining_workers") == [0; 3]);
        assert_eq!((status.accepted(), status.refused_in_all()), (0, 0), "the master had no part in it");
        assert_eq!(status.of_each("respawned"), [0; 3]);
        let log = haft.log().so_far();
        // Tests may run as root.
        let mut others = log.lines().filter(|line| !line.contains("haft runs as root"));
        assert!(!others.any(|line| line.contains("WARN") || line.contains("ERROR")), "all is well: {log}");
        haft.stop();
    }
}

#[test]
fn servers_of_node_programs_get_listeners_for_new_slots() {
    let mut haft = node(&["-w", "2"]);
    for slots in [4, 1, 3] {
        scale(&mut haft, slots);
        let status = haft.status();
        for slot in 0..slots {
            let pid = status.pid(slot).expect("a worker");
            assert_eq!(pids(ask(&haft, slot, slots, 5)), [pid; 5], "{slots} slots");
        }
    }
    assert_eq!(haft.status().accepted(), 0);
    haft.stop();
}

#[test]
fn a_drained_slot_is_steered_past_and_its_worker_keeps_what_it_has() {
    for mut haft in [setup(&["-w", "3"]).start_all(), listen_fds(&["-w", "3"]).start_all()] {
        let clients: Vec<Ipv4Addr> = addresses_of(1, 3).take(20).collect();
        let mut busy = Client::half_asking(&haft, clients[0]);
        // Behind it in the same queue: when it is answered the other one was accepted.
        assert_eq!(Client::asking(&haft, clients[1]).receive().expect("an answer").slot, 1);
        assert_eq!(haft.post("/drain?slot=1").0, 200);
        haft.wait("it is drained", |status| status.is(1, "drained"));
        for from in &clients {
            let answer = Client::asking(&haft, *from).receive().expect("an answer");
            assert_eq!(answer.slot, order_of(*from, 3)[1], "{from}");
        }
        busy.write(b"\r\n").expect("the other half");
        assert_eq!(busy.receive().expect("an answer").slot, 1);
        assert_eq!(haft.post("/undrain?slot=1").0, 200);
        haft.wait("it takes them again", |status| !status.is(1, "drained"));
        assert_as_by_hand_over(&haft, 3);
        assert_eq!(haft.status().accepted(), 0);
        haft.stop();
    }
}

#[test]
fn a_worker_that_hangs_is_steered_past() {
    let mut haft = setup(&["-w", "3", "--hold-timeout", "1h", "--hang-timeout", "300ms"]).start_all();
    let stopped = haft.stop_worker(0);
    let clients: Vec<Ipv4Addr> = addresses_of(0, 3).take(20).collect();
    let first = Client::asking(&haft, clients[0]).receive().expect("an answer");
    assert_eq!(first.slot, order_of(clients[0], 3)[1], "who waited there was handed to another");
    haft.wait("it hangs", |status| status.is(0, "hung") && status.in_flight() == 0);
    for from in &clients {
        assert_eq!(Client::asking(&haft, *from).receive().expect("an answer").slot, order_of(*from, 3)[1], "{from}");
    }
    assert_eq!(haft.status().accepted(), 1, "those did not come through the master");
    signal(stopped, Signal::SIGCONT);
    haft.wait("it is taken in again", |status| !status.is(0, "hung"));
    assert_as_by_hand_over(&haft, 3);
    haft.stop();
}

#[test]
fn while_slots_come_and_go_nobody_is_lost() {
    for haft in [setup(&["-w", "2"]).start_all(), listen_fds(&["-w", "2"]).start_all()] {
        while_clients_come(
            &haft,
            |_, _| (),
            || {
                for slots in [4, 1, 3, 2] {
                    assert_eq!(haft.post(&format!("/scale?workers={slots}")).0, 202);
                    eventually("so many slots, all ready", || {
                        let status = haft.status();
                        (status.slots().count() == slots && status.all_ready()).then_some(())
                    });
                }
            },
        );
        assert_eq!(haft.status().refused_in_all(), 0);
        haft.stop();
    }
}

#[test]
fn who_waits_for_a_slot_that_is_no_more_is_served_by_its_worker_or_refused() {
    let mut haft = listen_fds(&["-w", "2", "--hold-timeout", "1h", "--drain-timeout", "1h"]).start_all();
    let stopped = stop_worker(&haft, 1, 2);
    let wait = |haft: &mut Haft| -> Vec<Client> {
        let clients = ask(haft, 1, 2, 20);
        haft.wait("all wait", |status| waiting(status, 1) == 20);
        clients
    };
    let clients = wait(&mut haft);
    haft.signal(Signal::SIGTTOU);
    haft.log().line_with("SIGTTOU: from 2 to 1 workers");
    signal(stopped, Signal::SIGCONT);
    assert!(answers(clients).iter().all(|answer| answer.slot == 1));
    haft.log().line_with("worker has left: ended as asked (exit code 0)");

    scale(&mut haft, 2);
    let stopped = stop_worker(&haft, 1, 2);
    let clients = wait(&mut haft);
    haft.signal(Signal::SIGTTOU);
    haft.log().lines_with("SIGTTOU: from 2 to 1 workers", 2);
    signal(stopped, Signal::SIGKILL);
    for mut client in clients {
        client.receive().expect_err("nobody can take it");
    }
    let status = haft.wait("they are in the books", |status| status.refused_in_all() == 20);
    assert_eq!(status.accepted(), 20);
    haft.stop();
}

#[test]
fn who_waits_for_a_slot_that_is_no_more_is_served_also_when_haft_stops() {
    let mut haft = listen_fds(&["-w", "2", "--hold-timeout", "1h", "--drain-timeout", "1h"]).start_all();
    let stopped = stop_worker(&haft, 1, 2);
    let clients = ask(&haft, 1, 2, 20);
    haft.wait("all wait", |status| waiting(status, 1) == 20);
    haft.note_workers();
    haft.signal(Signal::SIGTTOU);
    haft.log().line_with("SIGTTOU: from 2 to 1 workers");
    haft.signal(Signal::SIGTERM);
    haft.log().line_with("SIGTERM: accepting stops");
    // Meanwhile haft looks at the queues, several times.
    let uptime = |status: &Status| status.0["uptime_seconds"].as_f64().expect("a number");
    let then = uptime(&haft.status());
    haft.wait("a while", |status| uptime(status) > then + 1.0);
    assert!(!is_told_to_finish(stopped));
    signal(stopped, Signal::SIGCONT);
    assert!(answers(clients).iter().all(|answer| answer.slot == 1));
    assert_eq!(haft.wait_for_exit().code(), Some(0));
    haft.assert_nothing_left();
}

/// Whether a SIGTERM waits for a process that is stopped.
fn is_told_to_finish(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).expect("its pending signals");
    u64::from_str_radix(pending.trim(), 16).expect("a number") >> (Signal::SIGTERM as u64 - 1) & 1 == 1
}

#[test]
fn a_worker_for_which_somebody_waits_is_told_to_finish_when_its_time_is_over() {
    let mut haft = listen_fds(&["-w", "2", "--hold-timeout", "1h", "--drain-timeout", "300ms"]).start_all();
    let stopped = stop_worker(&haft, 1, 2);
    let _waits = ask(&haft, 1, 2, 1);
    haft.wait("it waits", |status| waiting(status, 1) == 1);
    haft.signal(Signal::SIGTTOU);
    eventually("it is told", || is_told_to_finish(stopped).then_some(()));
    signal(stopped, Signal::SIGCONT);
    haft.log().line_with("worker has left: ended as asked (exit code 0)");
    haft.stop();
}

#[test]
fn beside_a_stranger_at_the_port_no_slot_is_added() {
    let haft = setup(&["-w", "2", "-l", "127.0.0.1:0", "-l", "127.0.0.1:0"]).start_all();
    let stranger = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    stranger.set_reuse_port(true).expect("option");
    let [first, second] = &haft.addresses(2)[..] else { panic!("two listeners") };
    let to: SocketAddr = second.parse().expect("an address");
    stranger.bind(&to.into()).expect("bind");
    stranger.listen(16).expect("listen");
    let (code, text) = haft.post("/scale?workers=3");
    assert!(code == 400 && text.contains("another process listens there, too"), "{code} {text}");
    let listening = || {
        let sockets = std::fs::read_to_string("/proc/net/tcp").expect("the sockets");
        let port = first.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).expect("a port");
        sockets.matches(&format!("0100007F:{port:04X} 00000000:0000 0A")).count()
    };
    // The keeper, and one for each slot.
    assert_eq!(listening(), 1 + 2, "nothing was done at the other port either");
    drop(stranger);
    assert_eq!(haft.post("/scale?workers=3").0, 202);
    assert_eq!(listening(), 1 + 3);
    haft.stop();
}
