//! A reload reads the configuration file again: what takes effect, what needs a restart, what is refused.

use std::fs;
use std::net::Ipv4Addr;

use nix::sys::signal::Signal;

use crate::harness::{Client, Haft, Setup, addresses_of, eventually, is_running};

const PLACE: &str = "listen: 127.0.0.1:0\nadmin: unix:{dir}/admin.sock\n";

fn file(rest: &str) -> String {
    format!("{PLACE}{rest}")
}

/// What the built-in worker tells a client of its engine.
fn opened(haft: &Haft) -> String {
    let mut client = Client::connect(haft.address()).expect("connect");
    client.send("/socket.io/?EIO=4&transport=polling").expect("send");
    client.receive_body().expect("a session")
}

#[test]
fn an_option_of_the_engine_takes_effect_and_a_changed_number_of_workers_does_so_afterwards() {
    let mut haft = Setup::from_file(&file("workers: 1\nping-interval: 23456\n")).without_command().start_all();
    assert!(opened(&haft).contains("\"pingInterval\":23456"), "{}", opened(&haft));
    haft.write_file(&file("workers: 3\nping-interval: 12345\n"));
    haft.signal(Signal::SIGHUP);
    let status = haft.wait("three", |status| status.slots().count() == 3 && status.all_ready());
    assert_eq!((status.of_each("generation"), status.number("reloads_done")), (vec![1; 3], 1));
    assert!(opened(&haft).contains("\"pingInterval\":12345"), "{}", opened(&haft));
    haft.write_file(&file("workers: 2\nping-interval: 12345\n"));
    assert_eq!(haft.post("/reload").0, 202);
    haft.wait("two", |status| status.slots().count() == 2 && status.of_each("generation") == [2; 2]);
    haft.stop();
}

#[test]
fn a_number_of_workers_that_the_file_does_not_change_stays_as_the_operator_made_it() {
    let mut haft = Setup::from_file(&file("workers: 1\n")).start_all();
    assert_eq!(haft.post("/scale?workers=2").0, 202);
    haft.wait("two", |status| status.slots().count() == 2 && status.all_ready());
    assert_eq!(haft.post("/reload").0, 202);
    let status = haft.wait("it is done", |status| status.number("reloads_done") == 1);
    assert_eq!(status.of_each("generation"), [1, 1]);
    haft.stop();
}

#[test]
fn a_changed_drain_timeout_takes_effect_for_the_workers_that_leave() {
    let mut haft = Setup::from_file(&file("workers: 1\ndrain-timeout: 1h\n")).start_all();
    let mut busy = Client::half_asking(&haft, Ipv4Addr::LOCALHOST);
    haft.wait("it is taken", |status| status.delivered() == 1);
    let old = haft.worker(0);
    haft.write_file(&file("workers: 1\ndrain-timeout: 100ms\n"));
    assert_eq!(haft.post("/reload").0, 202);
    // It would have had an hour.
    eventually("the old worker is made to end", || (!is_running(old)).then_some(()));
    busy.wait_for_end().ok();
    haft.wait("the new one serves", |status| status.number("reloads_done") == 1 && status.all_ready());
    Client::asking(&haft, Ipv4Addr::LOCALHOST).receive().expect("an answer");
    haft.stop();
}

#[test]
fn a_changed_command_is_what_the_new_workers_run() {
    let command = |mode: &str| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/worker.py");
        file(&format!("workers: 1\ncommand: [python3, -S, -E, {script}, \"{{dir}}\", {mode}]\n"))
    };
    let runs = |haft: &Haft| fs::read_to_string(format!("/proc/{}/cmdline", haft.worker(0))).expect("a process");
    let mut haft = Setup::from_file(&command("plain")).without_command().start_all();
    assert!(runs(&haft).ends_with("plain\0"), "{}", runs(&haft));
    haft.write_file(&command("sick"));
    assert_eq!(haft.post("/reload").0, 202);
    haft.wait("it is done", |status| status.number("reloads_done") == 1);
    assert!(runs(&haft).ends_with("sick\0"), "{}", runs(&haft));
    haft.stop();
}

#[test]
fn a_new_worker_that_is_not_ready_in_time_stops_the_reload() {
    let setup = Setup::from_file(&file("workers: 1\n")).mode("gate");
    setup.open_gate("gate-1");
    let mut haft = setup.start_all();
    haft.write_file(&file("workers: 1\nstart-timeout: 200ms\n"));
    assert_eq!(haft.post("/reload").0, 202);
    haft.wait("it has failed", |status| status.number("reloads_failed") == 1);
    haft.log().line_with("the worker was not ready within --start-timeout");
    haft.log().line_with("slot 0 did not become ready; all old workers stay");
    assert_eq!(Client::asking(&haft, Ipv4Addr::LOCALHOST).receive().expect("an answer").worker, 1);
    haft.stop();
}

#[test]
fn what_needs_a_restart_is_named_and_stays_as_it_was_while_the_rest_takes_effect() {
    let mut haft = Setup::from_file(&file("workers: 1\n")).start_all();
    haft.write_file("listen: 127.0.0.1:1\nadmin: unix:{dir}/other.sock\nbacklog: 17\nworkers: 2\n");
    let (code, text) = haft.post("/reload");
    assert_eq!(code, 202, "{text}");
    let named = "these need a restart and stay as they were: admin, backlog, listen";
    assert!(text.trim_end().ends_with(named), "{text}");
    haft.log().line_with(named);
    haft.wait("the rest", |status| status.slots().count() == 2 && status.all_ready());
    Client::asking(&haft, Ipv4Addr::LOCALHOST).receive().expect("where it was");
    assert!(!haft.folder().join("other.sock").exists());
    haft.stop();
}

#[test]
fn a_file_that_is_wrong_changes_nothing_and_is_told_with_its_line() {
    let mut haft = Setup::from_file(&file("workers: 2\n")).after("ulimit -n 500").start_all();
    let before = haft.status();
    for (rest, says) in [
        ("workers: [2\n", "haft.yaml:"),
        ("workers: 2\nno-such-key: 1\n", "haft.yaml:4: "),
        ("workers: 2\ndrain-timeout: soon\n", "haft.yaml:4: "),
        ("workers: 0\n", "at least one worker is needed"),
        ("workers: 1024\n", "RLIMIT_NOFILE"),
    ] {
        haft.write_file(&file(rest));
        let (code, text) = haft.post("/reload");
        assert_eq!(code, 400, "{rest}: {text}");
        assert!(text.contains("nothing was changed: ") && text.contains(says), "{rest}: {text}");
    }
    haft.signal(Signal::SIGHUP);
    haft.log().line_with("SIGHUP, not done: nothing was changed: ");
    fs::remove_file(haft.folder().join("haft.yaml")).expect("remove");
    let (code, text) = haft.post("/reload");
    assert!(code == 400 && text.contains("haft.yaml"), "{code} {text}");

    let status = haft.status();
    assert_eq!((&status.0["reload"], status.number("generation")), (&serde_json::Value::Null, 0));
    assert_eq!(status.of_each("pid"), before.of_each("pid"));
    for from in addresses_of(1, 2).take(3) {
        Client::asking(&haft, from).receive().expect("an answer");
    }
    haft.write_file(&file("workers: 2\n"));
    assert_eq!(haft.post("/reload").0, 202);
    haft.wait("it is done", |status| status.number("reloads_done") == 1);
    haft.stop();
}
