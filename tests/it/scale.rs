//! More slots, fewer slots: only the clients that must move do, and nothing is lost on the way.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use nix::sys::signal::Signal;

use crate::harness::{Client, Haft, Setup, addresses_of, eventually, signal, slot_of};

const CLIENTS: u32 = 200;

/// Who serves each of many clients.
fn served(haft: &Haft) -> BTreeMap<Ipv4Addr, usize> {
    let first = Ipv4Addr::new(127, 0, 3, 1).to_bits();
    let ask = |from: Ipv4Addr| (from, Client::asking(haft, from).receive().expect("an answer").slot);
    (first..first + CLIENTS).map(Ipv4Addr::from_bits).map(ask).collect()
}

/// Who should, with so many slots.
fn predicted(served: &BTreeMap<Ipv4Addr, usize>, slots: usize) -> BTreeMap<Ipv4Addr, usize> {
    served.keys().map(|from| (*from, slot_of(*from, slots))).collect()
}

/// How many clients have moved from one distribution to another.
fn moved(one: &BTreeMap<Ipv4Addr, usize>, other: &BTreeMap<Ipv4Addr, usize>) -> usize {
    one.iter().filter(|(from, slot)| other[from] != **slot).count()
}

fn wait_for_slots(haft: &mut Haft, slots: usize) {
    haft.wait("so many slots, all ready", |status| status.slots().count() == slots && status.all_ready());
}

#[test]
fn only_the_predicted_clients_move_and_all_of_them_to_the_new_slot_and_back() {
    let mut haft = Setup::new(&["-w", "3"]).start_all();
    let three = served(&haft);
    assert_eq!(three, predicted(&three, 3));

    haft.signal(Signal::SIGTTIN);
    haft.log().line_with("from 3 to 4 workers");
    wait_for_slots(&mut haft, 4);
    let four = served(&haft);
    assert_eq!(four, predicted(&four, 4));
    assert!(four.iter().all(|(from, slot)| *slot == 3 || three[from] == *slot), "nobody moves between old slots");
    // A fourth of them is 50.
    assert!((30..=70).contains(&moved(&three, &four)), "{} of {CLIENTS}", moved(&three, &four));

    let (code, text) = haft.post("/scale?workers=6");
    assert_eq!((code, text.trim_end()), (202, "from 4 to 6 workers"));
    wait_for_slots(&mut haft, 6);
    let six = served(&haft);
    assert_eq!(six, predicted(&six, 6));

    assert_eq!(haft.post("/scale?workers=4").0, 202);
    wait_for_slots(&mut haft, 4);
    assert_eq!(served(&haft), four);
    haft.signal(Signal::SIGTTOU);
    haft.log().line_with("from 4 to 3 workers");
    wait_for_slots(&mut haft, 3);
    assert_eq!(served(&haft), three);
    let status = haft.wait("all are settled", |status| status.in_flight() == 0);
    assert_eq!((status.delivered(), status.refused_in_all()), (5 * u64::from(CLIENTS), 0));
    assert_eq!(status.of_each("respawned"), [0; 3]);
    haft.log().lines_with("worker has left: ended as asked (exit code 0)", 3);
    haft.stop();
}

#[test]
fn a_new_slot_gets_clients_only_when_it_is_ready_and_open_connections_stay_where_they_are() {
    for dispatch in ["handover", "kernel"] {
        let setup = Setup::new(&["-w", "2", "--hold-timeout", "1h", "--dispatch", dispatch]).mode("gate");
        (1..=2).for_each(|worker| setup.open_gate(&format!("gate-{worker}")));
        let mut haft = setup.start_all();
        let movers: Vec<Ipv4Addr> = addresses_of(2, 3).take(5).collect();
        let mut open: Vec<Client> = movers.iter().map(|from| Client::asking(&haft, *from)).collect();
        let before: Vec<u32> = open.iter_mut().map(|client| client.receive().expect("an answer").pid).collect();

        assert_eq!(haft.post("/scale?workers=3").0, 202);
        let status = haft.wait("it starts", |status| status.slots().count() == 3);
        assert_eq!(status.state(2), "starting");
        for from in &movers {
            let answer = Client::asking(&haft, *from).receive().expect("nobody waits for the new one");
            assert_eq!(answer.slot, slot_of(*from, 2));
        }
        haft.open_gate("gate-3");
        wait_for_slots(&mut haft, 3);
        for from in &movers {
            assert_eq!(Client::asking(&haft, *from).receive().expect("an answer").slot, 2);
        }
        let after: Vec<u32> = open.iter_mut().map(|client| client.ask("/").expect("still open").pid).collect();
        assert_eq!(before, after);
        if dispatch == "kernel" {
            assert_eq!(haft.status().accepted(), 0);
        }
        haft.stop();
    }
}

#[test]
fn a_slot_that_is_no_more_finishes_what_it_has() {
    let mut haft = Setup::new(&["-w", "2", "--drain-timeout", "1h"]).start_all();
    let from = addresses_of(1, 2).next().expect("an address");
    let busy = Client::half_asking(&haft, from);
    haft.wait("it is taken", |status| status.delivered() == 1);
    assert_eq!(haft.post("/scale?workers=1").0, 202);
    assert_eq!(Client::asking(&haft, from).receive().expect("an answer").slot, 0);
    assert_eq!(haft.children().len(), 2, "the old worker is there");
    let answer = busy.finish();
    assert_eq!((answer.slot, answer.worker), (1, 2));
    haft.log().line_with("worker has left: ended as asked (exit code 0)");
    let status = haft.wait("all are settled", |status| status.in_flight() == 0);
    assert_eq!((status.slots().count(), status.of_slot(0, "respawned")), (1, 0));
    // What the slot had delivered is still in the books, which `status` has checked.
    assert_eq!(status.delivered(), 2);
    haft.stop();
}

#[test]
fn what_a_slot_that_is_no_more_had_not_taken_is_served_by_others() {
    let flags = ["-w", "2", "--max-in-flight", "4", "--hold-timeout", "1h", "--hang-timeout", "0"];
    let mut haft = Setup::new(&[&flags[..], &["--drain-timeout", "100ms"]].concat()).start_all();
    haft.stop_worker(1);
    let mut clients: Vec<Client> = addresses_of(1, 2).take(10).map(|from| Client::asking(&haft, from)).collect();
    haft.wait("all are there", |status| (status.of_slot(1, "in_flight"), status.of_slot(1, "held")) == (4, 6));
    haft.signal(Signal::SIGTTOU);
    for client in &mut clients {
        assert_eq!(client.receive().expect("an answer and no reset").slot, 0);
    }
    haft.log().line_with("worker has left: signal SIGKILL");
    let status = haft.wait("all are settled", |status| status.in_flight() == 0);
    assert_eq!((status.delivered(), status.number("redelivered_unread")), (10, 4));
    haft.stop();
}

#[test]
fn none_and_too_many_are_refused_with_the_reason() {
    let haft = Setup::new(&["-w", "1"]).after("ulimit -n 400").start_all();
    for (query, says) in [
        ("workers=0", "workers is not a number from 1 to 1024"),
        ("workers=1025", "workers is not a number from 1 to 1024"),
        ("workers=some", "workers is not a number from 1 to 1024"),
        ("", "workers is missing"),
        ("workers=1000", "RLIMIT_NOFILE is 400"),
    ] {
        let (code, text) = haft.post(&format!("/scale?{query}"));
        assert!(code == 400 && text.contains(says), "{query}: {code} {text}");
    }
    haft.signal(Signal::SIGTTOU);
    haft.log().line_with("SIGTTOU, not done: there cannot be 0 workers: from 1 to 1024");
    let (code, text) = haft.post("/scale?workers=1");
    assert!(code == 202 && text.contains("there are 1 workers already"), "{code} {text}");
    let status = haft.status();
    assert_eq!((status.slots().count(), haft.children().len()), (1, 1));
    haft.stop();
}

#[test]
fn slots_come_and_go_during_a_reload_and_all_that_are_there_get_the_new_version() {
    let setup = Setup::new(&["-w", "3"]).mode("gate");
    (1..=3).for_each(|worker| setup.open_gate(&format!("gate-{worker}")));
    let mut haft = setup.start_all();
    assert_eq!(haft.post("/reload").0, 202);
    eventually("the newcomer is started", || (haft.children().len() == 4).then_some(()));
    // The newcomer of slot 0 is number 4.
    assert_eq!(haft.post("/scale?workers=2").0, 202);
    assert_eq!(haft.post("/scale?workers=4").0, 202);
    (4..30).for_each(|worker| haft.open_gate(&format!("gate-{worker}")));
    let status = haft.wait("it is done", |status| status.number("reloads_done") == 1 && status.all_ready());
    assert_eq!((status.of_each("generation"), status.number("reloads_failed")), (vec![1; 4], 0));
    haft.stop();
}

#[test]
fn a_slot_that_goes_while_its_new_worker_starts_is_no_failed_reload() {
    let setup = Setup::new(&["-w", "2"]).mode("gate");
    (1..=3).for_each(|worker| setup.open_gate(&format!("gate-{worker}")));
    let mut haft = setup.start_all();
    assert_eq!(haft.post("/reload").0, 202);
    haft.wait("slot 0 is done", |status| status.of_each("generation") == [1, 0]);
    haft.signal(Signal::SIGTTOU);
    let status = haft.wait("it is done", |status| status.number("reloads_done") == 1);
    assert_eq!((status.of_each("generation"), status.number("reloads_failed")), (vec![1], 0));
    eventually("the others are gone", || (haft.children().len() == 1).then_some(()));
    signal(haft.worker(0), Signal::SIGKILL);
    haft.open_gate("gate-5");
    let status = haft.wait("replaced", |status| status.all_ready() && status.of_slot(0, "respawned") == 1);
    assert_eq!(status.of_each("generation"), [1]);
    haft.stop();
}
