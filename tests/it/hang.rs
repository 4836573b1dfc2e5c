//! Workers that live and take nothing: they are noticed, they cost other clients nothing, and what they had not taken
//! is served.

use nix::sys::signal::Signal;

use crate::harness::{Client, Haft, Setup, Status, addresses_of, eventually, order_of, signal};

const FLAGS: [&str; 8] = ["--hang-timeout", "1s", "--hold-timeout", "1h", "--max-in-flight", "4", "-w", "3"];

fn ask(haft: &Haft, slot: usize, slots: usize, count: usize) -> Vec<Client> {
    addresses_of(slot, slots).take(count).map(|from| Client::asking(haft, from)).collect()
}

fn slots_that_serve(clients: &mut [Client]) -> Vec<usize> {
    clients.iter_mut().map(|client| client.receive().expect("an answer and no reset").slot).collect()
}

/// The slot that comes second for each of the first clients of slot 0.
fn next_in_order(slots: usize, count: usize) -> Vec<usize> {
    addresses_of(0, slots).take(count).map(|from| order_of(from, slots)[1]).collect()
}

fn hung_and_killed(status: &Status) -> (u64, u64) {
    (status.number("hung"), status.number("hang_kills"))
}

#[test]
fn a_stopped_worker_is_reported_its_clients_go_to_the_next_slot_and_it_is_taken_in_again() {
    let mut haft = Setup::new(&FLAGS).start_all();
    let stopped = haft.stop_worker(0);
    let mut clients = ask(&haft, 0, 3, 10);
    let status = haft.wait("it is found to be hung", |status| status.is(0, "hung"));
    assert_eq!(hung_and_killed(&status), (1, 0));
    haft.log().line_with("the worker has acknowledged nothing for 1s: it hangs; new clients go to other slots");
    // Four are in flight to it; the others are served elsewhere, and so are new clients.
    let mut first = clients.drain(..4).collect::<Vec<_>>();
    assert_eq!(slots_that_serve(&mut clients), next_in_order(3, 10)[4..]);
    assert_eq!(slots_that_serve(&mut ask(&haft, 0, 3, 10)), next_in_order(3, 10));
    let status = haft.wait("the others are settled", |status| status.in_flight() == 4);
    assert_eq!((status.of_slot(0, "in_flight"), status.held(), status.pid(0)), (4, 0, Some(stopped)));
    let (_, metrics) = haft.page("/metrics").expect("metrics");
    for line in ["haft_workers_hung_total 1", "haft_workers_hang_killed_total 0", "haft_worker_hung{slot=\"0\"} 1"] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }

    signal(stopped, Signal::SIGCONT);
    assert_eq!(slots_that_serve(&mut first), [0; 4]);
    haft.log().line_with("the worker acknowledges again");
    let status = haft.wait("it is taken in again", |status| !status.is(0, "hung") && status.in_flight() == 0);
    assert_eq!(slots_that_serve(&mut ask(&haft, 0, 3, 5)), [0; 5]);
    assert_eq!((hung_and_killed(&status), status.of_slot(0, "respawned")), ((1, 0), 0));
    assert_eq!((status.delivered(), status.refused_in_all()), (20, 0));
    haft.stop();
}

/// A worker of slot 0 that takes nothing is killed, and all its clients are served. Yields haft.
fn is_killed(mut haft: Haft, take_nothing: impl FnOnce(&Haft)) -> Haft {
    let mut others = ask(&haft, 1, 3, 3);
    let before: Vec<u32> = others.iter_mut().map(|client| client.receive().expect("an answer").pid).collect();
    take_nothing(&haft);
    let mut clients = ask(&haft, 0, 3, 10);
    for client in &mut clients {
        let answer = client.receive().expect("an answer and no reset");
        assert_eq!((answer.slot, answer.worker), (0, 4), "by the replacement");
    }
    haft.log().line_with("it hangs; it is killed and replaced");
    haft.log().line_with("worker has left: signal SIGKILL");
    let status = haft.wait("all are settled", |status| status.in_flight() == 0 && status.all_ready());
    assert_eq!((hung_and_killed(&status), status.of_each("respawned")), ((1, 1), vec![1, 0, 0]));
    assert_eq!(status.0["slots"][0]["deaths_by_reason"], serde_json::json!({"signal SIGKILL": 1}));
    assert_eq!((status.delivered(), status.refused_in_all()), (13, 0));
    // As many as were in flight when it was killed, at most four.
    assert!((1..=4).contains(&status.number("redelivered_unread")), "{status:?}");
    let after: Vec<u32> = others.iter_mut().map(|client| client.ask("/").expect("still open").pid).collect();
    assert_eq!(before, after);
    haft
}

#[test]
fn with_hang_kill_a_stopped_worker_is_killed_and_all_of_its_clients_are_served() {
    let haft = Setup::new(&[&FLAGS[..], &["--hang-kill"]].concat()).start_all();
    let stop = |haft: &Haft| {
        haft.stop_worker(0);
    };
    is_killed(haft, stop).stop();
}

#[test]
fn so_is_one_that_is_ready_and_never_reads_its_channel() {
    let haft = Setup::new(&[&FLAGS[..], &["--hang-kill"]].concat()).mode("absent").start_all();
    is_killed(haft, |_| {}).stop();
}

#[test]
fn so_is_one_that_closed_its_channel_s_descriptor_and_nothing_else() {
    // The master keeps the other end open to save what a dead worker has not read: so the kernel does not report it.
    let haft = Setup::new(&[&FLAGS[..], &["--hang-kill"]].concat()).mode("shut:descriptor").start_all();
    let shut = |haft: &Haft| {
        haft.open_gate("shut");
        eventually("it is shut", || haft.folder().join("is-shut").exists().then_some(()));
    };
    is_killed(haft, shut).stop();
}

#[test]
fn when_all_hang_clients_wait_and_are_served_when_one_goes_on() {
    let mut haft = Setup::new(&FLAGS).start_all();
    let slots = 3;
    let stopped: Vec<u32> = (0..slots).map(|slot| haft.stop_worker(slot)).collect();
    let mut clients: Vec<Client> = (0..slots).flat_map(|slot| ask(&haft, slot, slots, 6)).collect();
    haft.wait("all hang", |status| status.number("hung") == slots as u64);
    signal(stopped[0], Signal::SIGCONT);
    haft.wait("one goes on", |status| !status.is(0, "hung"));
    // The others have four each, which they keep.
    haft.wait("it has served what waited", |status| status.in_flight() == 4 * (slots as u64 - 1));
    stopped[1..].iter().for_each(|worker| signal(*worker, Signal::SIGCONT));
    clients.iter_mut().for_each(|client| drop(client.receive().expect("an answer and no reset")));
    let status = haft.wait("all are taken in again", |status| (0..slots).all(|slot| !status.is(slot, "hung")));
    assert_eq!((status.delivered(), status.refused_in_all()), (6 * slots as u64, 0));
    haft.stop();
}

#[test]
fn a_stopped_node_worker_is_killed_and_its_clients_are_served_too() {
    let flags = ["-w", "2", "--hang-timeout", "1s", "--hold-timeout", "1h", "--hang-kill", "--max-in-flight", "4"];
    let mut haft = Setup::new(&flags).node().start_all();
    let stopped = haft.stop_worker(0);
    let mut clients = ask(&haft, 0, 2, 10);
    let pids: Vec<u32> =
        clients.iter_mut().map(|it| it.receive_body().expect("an answer").parse().expect("a process")).collect();
    let status = haft.wait("all are settled", |status| status.in_flight() == 0 && status.all_ready());
    assert_eq!(pids, [status.pid(0).expect("a worker"); 10]);
    assert_ne!(status.pid(0), Some(stopped));
    assert_eq!((hung_and_killed(&status), status.refused_in_all()), ((1, 1), 0));
    haft.stop();
}
