//! `haft trace`: connections are followed as they come, by those who ask.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{Client, Haft, Setup, Status, addresses_of, eventually, signal};

/// A running `haft trace`; it ends with this value.
struct Trace {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Trace {
    fn start(haft: &Haft, words: &[&str]) -> Self {
        let admin = format!("unix:{}", haft.folder().join("admin.sock").display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_haft"));
        command.args(["trace", "--admin", &admin]).args(words).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("haft trace");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("a line").expect("text")
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn ask(haft: &Haft, slot: usize) {
    let from = addresses_of(slot, 2).next().expect("an address");
    Client::connect_from(from, haft.address()).and_then(|mut client| client.ask("/")).expect("an answer");
}

/// Goes on until somebody follows: a trace has no way to say that it has begun but its first line.
fn first_line(haft: &Haft, trace: Trace, slot: usize) -> (Trace, String) {
    let (told, line) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut trace = trace;
        told.send(trace.line()).ok();
        trace
    });
    let line = eventually("a line", || {
        ask(haft, slot);
        line.try_recv().ok()
    });
    (reader.join().expect("the reader"), line)
}

#[test]
fn a_delivered_connection_is_shown_with_its_slot_worker_and_key() {
    let haft = Setup::new(&["-w", "2"]).mode("plain").start_all();
    let (mut trace, first) =
        first_line(&haft, Trace::start(&haft, &["--json", "--slot", "1", "--client", "127.0.0.0/8"]), 1);
    ask(&haft, 0);
    let shown: Value = serde_json::from_str(&first).expect("JSON");
    assert_eq!((&shown["outcome"], &shown["slot"], &shown["by"]), (&"delivered".into(), &1.into(), &"address".into()));
    let worker = haft.status().of_slot(1, "worker");
    assert_eq!((shown["worker"].as_u64(), shown["moves"].as_u64()), (Some(worker), Some(0)));
    assert!(shown["client"].as_str().is_some_and(|client| client.starts_with("127.")), "{shown}");
    assert_eq!(shown["key"].as_str().map(str::len), Some(16));
    // Those of the other slot are left out.
    ask(&haft, 1);
    let next: Value = serde_json::from_str(&trace.line()).expect("JSON");
    assert_eq!((&next["slot"], &next["key"]), (&1.into(), &shown["key"]));
    drop(trace);

    let (_trace, line) = first_line(&haft, Trace::start(&haft, &["--one-in", "2"]), 0);
    let worker = haft.status().of_slot(0, "worker");
    assert!(line.contains(&format!("slot 0    worker {worker}")) && line.contains(" by address  key "), "{line}");
    haft.stop();
}

#[test]
fn a_refused_connection_is_shown_with_the_reason_and_a_trace_ends_after_its_count() {
    let setup = Setup::new(&["-w", "1", "--hold-timeout", "200ms"]).mode("gate");
    setup.open_gate("gate-1");
    let mut haft = setup.start();
    signal(haft.worker(0), Signal::SIGKILL);
    haft.wait("it is dead", |status| status.state(0) != "ready");
    let trace = Trace::start(&haft, &["--count", "1"]);
    let (told, line) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut trace = trace;
        told.send(trace.line()).ok();
        (trace.lines.next().is_none(), trace.child.wait().expect("its end").code())
    });
    let from = addresses_of(0, 1).next().expect("an address");
    let line = eventually("a line", || {
        let mut client = Client::connect_from(from, haft.address()).expect("connect");
        client.send("/").ok();
        client.wait_for_reset();
        line.try_recv().ok()
    });
    assert!(line.contains("slot 0    refused: no_worker"), "{line}");
    assert_eq!(reader.join().expect("the reader"), (true, Some(0)));
    haft.open_gate("gate-2");
    haft.wait("replaced", |status| status.all_ready());
    haft.stop();
}

#[test]
fn a_trace_that_is_interrupted_is_forgotten() {
    let mut haft = Setup::new(&["-w", "2"]).mode("plain").start_all();
    let follow = |status: &Status, count: u64| status.0["routing"]["traces"].as_u64() == Some(count);
    for round in 0..3 {
        let mut trace = Trace::start(&haft, &[]);
        haft.wait("it follows", |status| follow(status, 1));
        ask(&haft, round % 2);
        trace.line();
        signal(trace.child.id(), Signal::SIGINT);
        // A shell reports 130.
        let status = trace.child.wait().expect("its end");
        assert_eq!(status.signal(), Some(Signal::SIGINT as i32), "{status}");
        haft.wait("nothing is sampled any more", |status| follow(status, 0));
    }
    ask(&haft, 0);
    haft.stop();
}
