//! Programs that know nothing of haft and take a listener over, as from systemd.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{Client, Haft, Setup, addresses_of, eventually, is_running, signal};
use crate::kernel_queues::{answers, ask};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/listen_fds.py");

pub fn setup(flags: &[&str], arguments: &[&str]) -> Setup {
    let command = [&["python3", "-S", "-E", SCRIPT, "{dir}"], arguments].concat();
    Setup::new(&[&["--dispatch", "kernel", "--dialect", "listen-fds"], flags].concat()).command(&command)
}

#[test]
fn each_client_is_served_by_the_process_of_its_slot_at_the_listener_it_came_to() {
    let haft = setup(&["-w", "3", "-l", "127.0.0.1:0", "-l", "0"], &[]).start_all();
    for (listener, to) in haft.addresses(2).iter().enumerate() {
        let to = format!("127.0.0.1:{}", to.rsplit(':').next().expect("a port")).parse().expect("an address");
        for slot in 0..3 {
            for from in addresses_of(slot, 3).take(20) {
                let answer = Client::connect_from(from, to).expect("connect").ask("/").expect("an answer");
                assert_eq!((answer.slot, answer.listener), (slot, listener), "{from}");
                assert_eq!(answer.client, format!("haft{listener}"), "the listener's name");
            }
        }
    }
    assert_eq!(haft.status().accepted(), 0);
    haft.stop();
}

#[test]
fn it_is_ready_when_it_says_so_or_has_lived_for_a_while() {
    let mut haft = setup(&["-w", "2", "--wait-ready"], &["notify"]).launch();
    haft.open_gate("gate-1");
    let status = haft.wait("one has said so", |status| status.state(1) == "ready");
    assert_eq!(status.state(0), "starting");
    haft.open_gate("gate-0");
    haft.wait("the other too", |status| status.all_ready());
    haft.stop();
    // Without a word.
    setup(&["-w", "2"], &[]).start_all().stop();
    let haft = setup(&["-w", "1", "--wait-ready", "--start-timeout", "300ms"], &[]).launch();
    haft.log().line_with("with --wait-ready it must say READY=1 (sd_notify) itself");
}

#[test]
fn who_does_not_take_its_listener_over_is_told_of_with_what_may_help() {
    let flags = ["--dispatch", "kernel", "--dialect", "listen-fds", "-w", "1", "--hang-timeout", "100ms"];
    let mut haft = Setup::new(&flags).command(&["sleep", "3600"]).start_all();
    let _waits = ask(&haft, 0, 1, 1);
    let line = haft.log().line_with("clients wait at the worker's own listener");
    assert!(line.contains("take descriptor 3 over (LISTEN_FDS)"), "{line}");
    assert_eq!(haft.wait("it waits", |status| status.all_ready()).of_slot(0, "accept_queue"), 1);
}

#[test]
fn the_queue_of_a_killed_one_is_served_by_its_replacement_and_nobody_is_rescued() {
    let mut haft = setup(&["-w", "2", "--hold-timeout", "0s", "--hang-timeout", "100ms"], &[]).start_all();
    let stopped = haft.stop_worker(0);
    let clients = ask(&haft, 0, 2, 200);
    haft.wait("all wait", |status| status.of_slot(0, "accept_queue") == 200);
    assert!(answers(ask(&haft, 1, 2, 5)).iter().all(|answer| answer.slot == 1), "others notice nothing");
    signal(stopped, Signal::SIGKILL);
    let answers = answers(clients);
    assert!(answers.iter().all(|answer| (answer.slot, answer.worker) == (0, 3)), "{answers:?}");
    let status = haft.wait("it is ready", |status| status.all_ready());
    assert_eq!((status.accepted(), status.number("rescued"), status.number("hung")), (0, 0, 0));
    haft.stop();
}

#[test]
fn it_finishes_what_it_has_when_it_is_replaced_and_when_haft_stops() {
    let mut haft = setup(&["-w", "2", "--drain-timeout", "1h"], &[]).start_all();
    let half = |haft: &Haft| Client::half_asking(haft, addresses_of(0, 2).next().expect("an address"));
    let busy = half(&haft);
    // Behind it in the same queue: when it is answered the other one was accepted.
    answers(ask(&haft, 0, 2, 1));
    assert_eq!(haft.post("/reload").0, 202);
    haft.wait("it is done", |status| status.number("reloads_done") == 1);
    assert_eq!(answers(ask(&haft, 0, 2, 1))[0].worker, 3);
    assert_eq!(busy.finish().worker, 1);
    let status = haft.wait("the old ones are gone", |status| status.of_each("draining_workers") == [0; 2]);
    assert!(status.slots().all(|slot| slot["deaths_by_reason"] == json!({"exit code 0": 1})), "{status:?}");

    let busy = half(&haft);
    answers(ask(&haft, 0, 2, 1));
    haft.note_workers();
    haft.signal(Signal::SIGTERM);
    haft.log().line_with("SIGTERM: accepting stops");
    assert_eq!(busy.finish().worker, 3);
    assert_eq!(haft.wait_for_exit().code(), Some(0));
    haft.assert_nothing_left();
}

#[test]
fn those_who_wait_when_haft_is_told_to_stop_are_served() {
    let mut haft = setup(&["-w", "2", "--drain-timeout", "1h", "--hold-timeout", "1h"], &[]).start_all();
    let stopped = haft.stop_worker(0);
    let clients = ask(&haft, 0, 2, 60);
    haft.wait("all wait", |status| status.of_slot(0, "accept_queue") == 60);
    haft.note_workers();
    haft.signal(Signal::SIGTERM);
    haft.log().line_with("SIGTERM: accepting stops");
    signal(stopped, Signal::SIGCONT);
    assert!(answers(clients).iter().all(|answer| answer.slot == 0));
    assert_eq!(haft.wait_for_exit().code(), Some(0));
    haft.assert_nothing_left();
}

#[test]
fn one_that_does_not_end_is_killed_after_the_drain_time() {
    let mut haft = setup(&["-w", "1", "--drain-timeout", "100ms"], &[]).start_all();
    haft.stop_worker(0);
    haft.note_workers();
    haft.signal(Signal::SIGTERM);
    assert_eq!(haft.wait_for_exit().code(), Some(0));
    haft.log().line_with("worker has left: signal SIGKILL");
    haft.assert_nothing_left();
}

#[test]
fn it_goes_with_its_master() {
    let mut haft = setup(&["-w", "1"], &[]).start_all();
    let (worker, to) = (haft.worker(0), haft.address());
    haft.signal(Signal::SIGKILL);
    haft.wait_for_exit();
    eventually("the worker's end", || (!is_running(worker)).then_some(()));
    // Another test's client may have been given the port meanwhile.
    eventually("nobody listens any more", || std::net::TcpListener::bind(to).ok());
}

#[test]
fn a_program_that_is_not_there_ends_haft_at_once() {
    let flags = ["--dispatch", "kernel", "--dialect", "listen-fds"];
    let mut haft = Setup::new(&flags).command(&["/no/such/program"]).launch();
    assert_eq!(haft.wait_for_exit().code(), Some(1));
    haft.log().line_with("/no/such/program: no such program");
}
