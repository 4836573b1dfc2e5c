//! Workers that do to their listener what they must not, where the kernel steers: clients of other slots go on coming to
//! their own workers, and none of those that wait is lost.

use std::net::{Ipv4Addr, SocketAddr};

use nix::sys::signal::Signal;

use crate::harness::{Client, Haft, Status, addresses_of, eventually, signal, slot_of};
use crate::kernel_queues::{answers, ask, waiting};
use crate::listen_fds;

const SLOTS: usize = 4;
/// The slot whose worker is hostile. It is not the last, which the kernel moves.
const HOSTILE: usize = 1;

fn start(flags: &[&str]) -> Haft {
    let workers = SLOTS.to_string();
    let hold = ["-w", &workers, "--hold-timeout", "1h", "--hang-timeout", "1h"];
    listen_fds::setup(&[&hold, flags].concat(), &[]).start_all()
}

/// Where clients of IPv4 connect to.
fn address(haft: &Haft) -> SocketAddr {
    // So the log names it where haft listens on every interface.
    haft.addresses(1)[0].replace("localhost", "127.0.0.1").parse().expect("an address")
}

/// Has the hostile worker do something, and yields what it says of that.
fn spoil(haft: &Haft, how: &str) -> String {
    let from = addresses_of(HOSTILE, SLOTS).next().expect("an address");
    let mut client = Client::connect_from(from, address(haft)).expect("connect");
    client.ask(&format!("/spoil/{how}")).expect("an answer").request
}

fn repairs(status: &Status, fault: &str) -> u64 {
    status.0["listener_repairs"][fault].as_u64().expect("a number")
}

fn assert_all_in_their_slots(haft: &Haft) {
    for n in 1..=80 {
        let from = Ipv4Addr::new(127, 0, 9, n);
        let mut client = Client::connect_from(from, address(haft)).expect("connect");
        let answer = client.ask("/").expect("an answer and no reset");
        assert_eq!(answer.slot, slot_of(from, SLOTS), "{from}");
    }
}

#[test]
fn what_a_worker_does_to_its_listener_is_put_right_counted_and_told() {
    for listen in ["127.0.0.1:0", "0", "0.0.0.0:0"] {
        let mut haft = start(&["-l", listen]);
        for (how, fault) in [
            // The first to be moved, since what is the last stays where it is.
            ("again", "steering"),
            ("detach", "steering"),
            ("join", "steering"),
            ("shutdown", "shut"),
            ("disconnect", "shut"),
            ("shutdown", "shut"),
        ] {
            let before = repairs(&haft.status(), fault);
            assert_eq!(spoil(&haft, how), "done", "{how}");
            haft.wait(how, |status| repairs(status, fault) > before);
            assert_all_in_their_slots(&haft);
        }
        haft.log().line_with("clients came to the wrong workers");
        let (_, metrics) = haft.page("/metrics").expect("metrics");
        assert!(metrics.contains("haft_listener_repairs_total{fault=\"shut\"} 3"), "{metrics}");
        assert_eq!(haft.status().of_each("respawned"), [0; SLOTS]);
        haft.stop();
    }
}

#[test]
fn a_worker_cannot_attach_a_program_by_its_listener() {
    let haft = start(&[]);
    assert!(spoil(&haft, "attach").contains("not permitted"));
    assert_all_in_their_slots(&haft);
    assert_eq!(repairs(&haft.status(), "steering"), 0, "there was nothing to put right");
    haft.stop();
}

#[test]
fn who_waits_for_another_slot_keeps_its_place_when_a_worker_shuts_its_listener_down() {
    for how in ["shutdown", "detach", "again"] {
        let mut haft = start(&[]);
        let others = [2, 3];
        let stopped = others.map(|slot| haft.stop_worker(slot));
        let clients = others.map(|slot| ask(&haft, slot, SLOTS, 20));
        haft.wait("all wait", |status| others.iter().all(|slot| waiting(status, *slot) == 20));
        assert_eq!(spoil(&haft, how), "done");
        haft.wait("it is put right", |status| repairs(status, "shut") + repairs(status, "steering") == 1);
        // They come behind the others.
        let late = others.map(|slot| ask(&haft, slot, SLOTS, 5));
        haft.wait("all wait", |status| others.iter().all(|slot| waiting(status, *slot) == 25));
        stopped.into_iter().for_each(|worker| signal(worker, Signal::SIGCONT));
        for (slot, clients) in others.into_iter().zip(clients).chain(others.into_iter().zip(late)) {
            assert!(answers(clients).iter().all(|answer| answer.slot == slot), "{how}");
        }
        haft.stop();
    }
}

#[test]
fn several_workers_that_shut_their_listeners_down_at_once_are_told_apart() {
    let mut haft = start(&[]);
    for slots in [[0, 1], [3, 2], [1, 3]] {
        let before = repairs(&haft.status(), "shut") + repairs(&haft.status(), "steering");
        let mut asked: Vec<Client> = slots
            .into_iter()
            .map(|slot| {
                let from = addresses_of(slot, SLOTS).next().expect("an address");
                Client::connect_from(from, haft.address()).expect("connect")
            })
            .collect();
        asked.iter_mut().for_each(|client| client.send("/spoil/shutdown").expect("send"));
        for client in &mut asked {
            assert_eq!(client.receive().expect("an answer").request, "done");
        }
        haft.wait("it is put right", |status| repairs(status, "shut") + repairs(status, "steering") >= before + 2);
        assert_all_in_their_slots(&haft);
    }
    haft.stop();
}

#[test]
fn a_listener_that_was_made_something_else_is_replaced_and_its_worker_with_it() {
    let mut haft = start(&[]);
    let hostile = haft.worker(HOSTILE);
    assert_eq!(spoil(&haft, "connect"), "done");
    haft.log().line_with("made its listener something else");
    haft.wait("it is replaced", |status| status.all_ready() && status.pid(HOSTILE) != Some(hostile));
    assert_eq!(repairs(&haft.status(), "replaced"), 1);
    assert_all_in_their_slots(&haft);
    haft.stop();
}

#[test]
fn slots_can_be_added_and_removed_after_a_listener_was_shut_down() {
    let mut haft = start(&[]);
    assert_eq!(spoil(&haft, "shutdown"), "done");
    haft.wait("it is put right", |status| repairs(status, "shut") == 1);
    for slots in [7, 2, 4] {
        assert_eq!(haft.post(&format!("/scale?workers={slots}")).0, 202);
        haft.wait("all ready", |status| status.slots().count() == slots && status.all_ready());
        for n in 1..=40 {
            let from = Ipv4Addr::new(127, 0, 9, n);
            let answer = Client::asking(&haft, from).receive().expect("an answer");
            assert_eq!(answer.slot, slot_of(from, slots), "{from}, {slots} slots");
        }
    }
    assert_eq!(repairs(&haft.status(), "shut") + repairs(&haft.status(), "steering"), 1, "nothing else was wrong");
    haft.stop();
}

#[test]
fn over_ipv6_too() {
    let haft = start(&["-l", "[::1]:0"]);
    // There is one address only, and its slot's worker does it.
    let ask = |path: &str| {
        let to = haft.addresses(1)[0].parse().expect("an address");
        Client::connect(to).expect("connect").ask(path).expect("an answer")
    };
    let slot = ask("/").slot;
    for (how, fault) in [("again", "steering"), ("detach", "steering"), ("join", "steering"), ("shutdown", "shut")] {
        let before = repairs(&haft.status(), fault);
        assert_eq!(ask(&format!("/spoil/{how}")).request, "done");
        eventually(how, || (repairs(&haft.status(), fault) > before).then_some(()));
        (0..20).for_each(|_| assert_eq!(ask("/").slot, slot, "{how}"));
    }
    haft.stop();
}
