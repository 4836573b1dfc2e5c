//! What haft and its workers write: nothing waits for a reader, nobody floods it, and no foreign text forges a line.

use std::net::Ipv4Addr;

use nix::sys::signal::Signal;

use crate::harness::{Client, Setup, eventually, full_pipe, signal};

#[test]
fn a_log_that_nobody_reads_stops_nothing_and_what_was_dropped_is_told_when_somebody_does() {
    let (reader, writer) = full_pipe();
    // The log would tell the port, and another test might be given one that is let go.
    let flags = ["-w", "2", "-l", "unix:{dir}/clients.sock", "--log-level", "info,haft::ledger=trace"];
    let mut haft = Setup::new(&flags).launch_onto(writer);
    haft.wait_until_ready();
    let socket = haft.folder().join("clients.sock");
    let ask = || Client::connect_unix(&socket).expect("connect").ask("/").expect("an answer");
    signal(haft.worker(0), Signal::SIGKILL);
    haft.wait("replaced", |status| status.all_ready() && status.of_slot(0, "respawned") == 1);
    assert_eq!(haft.post("/drain?slot=0").0, 200);
    assert_eq!(haft.post("/undrain?slot=0").0, 200);
    haft.signal(Signal::SIGHUP);
    haft.wait("a reload", |status| status.number("reloads_done") == 1);
    // More lines than fit the queue.
    while haft.metric("haft_log_lines_dropped_total ") == 0 {
        (0..100).for_each(|_| drop(ask()));
    }
    assert_eq!(haft.page("/healthz").expect("an answer").0, 200);
    haft.note_workers();

    haft.read_log(reader);
    let line = haft.log().line_with("log lines were dropped: standard error was not read");
    assert!(line.contains(" WARN ") && line.contains("lines="), "{line}");
    haft.log().line_with("worker died: signal SIGKILL");
    haft.stop();
}

#[test]
fn a_log_that_nobody_reads_does_not_hold_the_end() {
    let (_reader, writer) = full_pipe();
    let mut haft = Setup::new(&["-w", "1"]).launch_onto(writer);
    haft.wait_until_ready();
    haft.stop();

    let (_reader, writer) = full_pipe();
    let mut haft = Setup::new(&["-l", "192.0.2.1:0"]).launch_onto(writer);
    assert_eq!(haft.wait_for_exit().code(), Some(1));
}

#[test]
fn a_worker_whose_output_nobody_reads_goes_on_and_its_lines_are_counted() {
    let (_reader, writer) = full_pipe();
    let mut haft = Setup::new(&["-w", "2"]).mode("shouting").launch_onto(writer);
    haft.wait_until_ready();
    eventually("lines that were dropped", || {
        (haft.metric("haft_worker_output_lines_dropped_total{slot=\"0\"}") > 0).then_some(())
    });
    haft.stop();
}

#[test]
fn a_worker_that_writes_without_end_is_slowed_down_and_costs_others_no_line() {
    let haft = Setup::new(&["-w", "2", "--prefix-output=false"]).mode("shouting").start_all();
    let line = haft.log().line_with("the worker writes more than");
    assert!(line.contains("to standard error") && line.contains("slot=0"), "{line}");
    assert!(haft.metric("haft_worker_output_pauses_total{slot=\"0\"}") > 0);
    assert_eq!(haft.metric("haft_worker_output_pauses_total{slot=\"1\"}"), 0);
    // The other one's, every one of them and whole.
    let quiet = haft.log().lines_with("quiet line", 100);
    for (number, line) in quiet.iter().enumerate() {
        assert_eq!(*line, format!("quiet line {number}"));
    }
    Client::asking(&haft, Ipv4Addr::LOCALHOST).receive().expect("an answer");
    haft.stop();
}

#[test]
fn a_worker_that_provokes_the_same_line_again_and_again_gets_a_few_and_how_many_there_were() {
    const TIMES: u64 = 2000;
    let flood = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/flood.cjs");
    let haft =
        Setup::new(&["-w", "1", "--log-format", "json"]).command(&["node", flood, &TIMES.to_string()]).start_all();
    let kinds = ["the program wants to listen, but 192.0.2.1:1", "the program's request to listen is refused"];
    for kind in kinds {
        let (mut lines, mut suppressed) = (0, 0);
        eventually("all lines, written or counted", || {
            (lines, suppressed) = (0, 0);
            for line in haft.log().so_far().lines().filter(|line| line.contains(kind)) {
                let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
                match line["count"].as_u64() {
                    Some(count) => suppressed += count,
                    None => lines += 1,
                }
            }
            (lines + suppressed >= TIMES).then_some(())
        });
        assert!(lines + suppressed == TIMES && suppressed > lines, "{kind}: {lines} and {suppressed}");
    }
    assert!(haft.metric("haft_log_lines_suppressed_total ") > TIMES);
    haft.stop();
}

#[test]
fn foreign_text_forges_no_line() {
    const FORGED: &str = "2026-01-01T00:00:00.000000Z  INFO forged \u{1b}[2J\u{9b}1m";
    for format in ["text", "json"] {
        let listen = format!("unix:{{dir}}/a\n{FORGED}");
        let haft = Setup::new(&["-w", "1", "-l", &listen, "--log-format", format]).start_all();
        haft.log().line_with("listening on unix:");
        let log = haft.log().so_far();
        let is_own = |line: &str| !line.starts_with("2026-01-01") && !line.contains(['\u{1b}', '\u{9b}']);
        assert!(log.lines().all(is_own), "{log}");
        haft.stop();
    }
    let mut haft = Setup::new(&[]).command(&[&format!("no-such\n{FORGED}")]).launch();
    assert_eq!(haft.wait_for_exit().code(), Some(1));
    let log = haft.log().whole();
    assert!(log.lines().all(|line| !line.starts_with("2026-01-01") && !line.contains('\u{1b}')), "{log}");
    assert!(log.contains(r"no-such\n2026-01-01"), "{log}");
}
