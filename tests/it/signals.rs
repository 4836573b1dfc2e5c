//! Signals: what each means to the master, and what becomes of the programs below it.

use std::fs;

use nix::sys::signal::Signal;

use crate::harness::{Client, Haft, Setup, eventually, is_stopped, signal};

const TERMINAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/terminal.py");

/// A client in the middle of its first request, which keeps its worker from finishing.
fn half_a_request(haft: &mut Haft) -> Client {
    let mut client = Client::connect(haft.address()).expect("connect");
    client.write(b"GET /slow HTTP/1.1\r\n").expect("half a request");
    haft.wait("it is taken", |status| status.delivered() == 1);
    client
}

/// haft with a program of Node's. What it does beside serving is in `code`.
fn node(flags: &[&str], code: &str) -> Setup {
    let setup = Setup::new(&[&["-w", "1", "--drain-timeout", "1h"], flags].concat());
    let program = format!(
        "const server = require('node:http').createServer((_, response) => response.end('hello'));\n\
         server.listen(3000);\nconst handles = (signals) => process.send({{ cmd: 'NODE_HAFT', act: 'handles', signals }});\n{code}"
    );
    fs::write(setup.folder().join("server.cjs"), program).expect("a program");
    setup.command(&["node", "{dir}/server.cjs"])
}

fn raw_signal(pid: u32, number: i32) {
    let status = std::process::Command::new("kill").args([format!("-{number}"), pid.to_string()]).status();
    assert!(status.expect("kill").success(), "{number}");
}

#[test]
fn a_signal_stops_haft_is_answered_with_a_line_or_does_nothing() {
    let mut haft = Setup::new(&["-w", "1"]).start_all();
    let others = [
        Signal::SIGALRM,
        Signal::SIGVTALRM,
        Signal::SIGPROF,
        Signal::SIGWINCH,
        Signal::SIGCONT,
        Signal::SIGIO,
        Signal::SIGSTKFLT,
        Signal::SIGPWR,
        Signal::SIGXFSZ,
        Signal::SIGURG,
        Signal::SIGPIPE,
        Signal::SIGCHLD,
    ];
    others.into_iter().for_each(|other| haft.signal(other));
    (34..=64).for_each(|real_time| raw_signal(haft.pid(), real_time));
    for (noted, says) in [
        (Signal::SIGUSR1, "SIGUSR1 does nothing: haft writes its log to standard error"),
        (Signal::SIGUSR2, "SIGUSR2 does nothing: to put new workers in place of the old ones send SIGHUP"),
        (Signal::SIGXCPU, "SIGXCPU: the limit on processor time is reached"),
    ] {
        haft.signal(noted);
        haft.log().line_with(says);
    }
    let worker = haft.worker(0);
    Client::connect(haft.address()).expect("connect").ask("/").expect("it serves on, with the same worker");
    assert_eq!(haft.worker(0), worker);
    haft.note_workers();
    haft.signal(Signal::SIGQUIT);
    haft.log().line_with("SIGQUIT: accepting stops");
    assert_eq!(haft.wait_for_exit().code(), Some(0));
    haft.assert_nothing_left();
}

#[test]
fn a_worker_starts_with_no_signal_ignored_or_blocked() {
    let worker = concat!(
        "grep -E 'SigIgn|SigBlk' /proc/self/status >{dir}/signals; exec python3 -S -E ",
        env!("CARGO_MANIFEST_DIR"),
        "/examples/worker.py"
    );
    let setup = Setup::new(&["-w", "1"]).command(&["sh", "-c", worker]);
    let block = "import os, signal, sys\n\
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGALRM])\n\
        [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGUSR2, signal.SIGQUIT, signal.SIGTSTP, 40)]\n\
        os.execvp(sys.argv[1], sys.argv[1:])";
    let haft = setup.under(&["python3", "-c", block]).start_all();
    let signals = fs::read_to_string(haft.folder().join("signals")).expect("what the worker has seen");
    for line in signals.lines() {
        let mask = line.split_whitespace().nth(1).expect("a mask");
        // 32 and 33 are the C library's own, which it lets nobody touch.
        assert_eq!(u64::from_str_radix(mask, 16).expect("a mask") & !0x1_8000_0000, 0, "{signals}");
    }
    assert_eq!(signals.lines().count(), 2);
    haft.stop();
}

#[test]
fn two_signals_at_once_are_one() {
    let mut haft = Setup::new(&["-w", "1", "--drain-timeout", "1h"]).start_all();
    let mut busy = half_a_request(&mut haft);
    haft.note_workers();
    // It finds both when it goes on.
    haft.signal(Signal::SIGSTOP);
    eventually("the master is stopped", || is_stopped(haft.pid()).then_some(()));
    haft.signal(Signal::SIGTERM);
    haft.signal(Signal::SIGINT);
    haft.signal(Signal::SIGCONT);
    haft.log().line_with("accepting stops");
    haft.log().line_with("stopping: 1 worker, 1 session, ");
    busy.write(b"\r\n").expect("the other half");
    assert_eq!(busy.receive().expect("its answer").request, "GET /slow HTTP/1.1");
    assert_eq!(haft.wait_for_exit().code(), Some(0));
    let log = haft.log().whole();
    assert!(!log.contains("ending now"), "{log}");
    haft.assert_nothing_left();
}

#[test]
fn at_a_terminal_ctrl_c_does_not_wait_for_the_drain_time() {
    let setup = Setup::new(&["-w", "2", "--drain-timeout", "1h"]).without_command();
    let mut haft = setup.under(&["python3", TERMINAL, "{dir}/closed", "default"]).start_all();
    let mut sessions: Vec<Client> = (0..5)
        .map(|_| {
            let mut client = Client::connect(haft.address()).expect("connect");
            client.send("/socket.io/?EIO=4&transport=polling").expect("send");
            let opened = client.receive_body().expect("a session");
            let sid = opened.split('"').nth(3).expect("its id").to_owned();
            client.send(&format!("/socket.io/?EIO=4&transport=polling&sid={sid}")).expect("send");
            client
        })
        .collect();
    let mut silent = Client::connect(haft.address()).expect("connect");
    silent.write(b"GET /slow HTTP/1.1\r\n").expect("half a request");
    haft.wait("all are taken", |status| status.delivered() == 6 && status.in_flight() == 0);
    haft.note_workers();
    haft.open_gate("ctrl-c");
    // The poll that waits, or the next one, ends with a close packet: a goodbye, and no reset.
    for client in &mut sessions {
        let body = client.receive_body().expect("an answer");
        assert!(body.starts_with('2') || body.contains('1'), "{body}");
    }
    assert_eq!(haft.wait_for_exit().code(), Some(0));
    haft.log().line_with("SIGINT: accepting stops, the workers finish within 2s");
    haft.assert_nothing_left();
}

#[test]
fn at_a_terminal_ctrl_c_reaches_a_program_of_node_at_once() {
    for (code, end) in
        [("", "ended as asked (SIGINT)"), ("process.on('SIGINT', () => process.exit(7));", "exit code 7")]
    {
        let mut haft = node(&[], code).under(&["python3", TERMINAL, "{dir}/closed", "default"]).start_all();
        let mut busy = half_a_request(&mut haft);
        haft.note_workers();
        haft.open_gate("ctrl-c");
        assert_eq!(haft.wait_for_exit().code(), Some(0));
        busy.wait_for_end().ok();
        haft.log().line_with(&format!("worker has left: {end}"));
        haft.assert_nothing_left();
    }
}

#[test]
fn a_program_that_handles_sigterm_gets_it_when_haft_stops_and_not_when_the_time_is_over() {
    for (flags, code, end) in [
        (&[][..], "handles(['SIGINT', 'SIGTERM']); process.on('SIGTERM', () => process.exit(7));", "exit code 7"),
        // What shutdown plugins do. The close of a server that haft had closed before would be an error.
        (
            &[],
            "handles(['SIGTERM']);\nprocess.on('SIGTERM', () => {\n  server.close((error) => (process.exitCode = error ? 1 : 7));\n\
             \x20 server.closeAllConnections && server.closeAllConnections();\n});",
            "exit code 7",
        ),
        (&["--drain-signal", "USR2"], "process.on('SIGUSR2', () => process.exit(7));", "exit code 7"),
    ] {
        let mut haft = node(flags, code).start_all();
        let mut busy = half_a_request(&mut haft);
        haft.note_workers();
        haft.signal(Signal::SIGTERM);
        assert_eq!(haft.wait_for_exit().code(), Some(0), "{code}");
        busy.wait_for_end().ok();
        haft.log().line_with(&format!("worker has left: {end}"));
        haft.assert_nothing_left();
    }
}

#[test]
fn a_program_that_handles_no_signal_or_is_to_get_none_finishes_what_it_has() {
    for (flags, code) in [
        (&[][..], ""),
        (&[], "handles(['SIGTERM']); handles([]);"),
        (&["--drain-signal", "none"], "handles(['SIGTERM']); process.on('SIGTERM', () => process.exit(7));"),
    ] {
        let mut haft = node(flags, code).start_all();
        let mut busy = half_a_request(&mut haft);
        haft.note_workers();
        haft.signal(Signal::SIGTERM);
        haft.log().line_with("stopping: 1 worker");
        busy.write(b"Host: x\r\nConnection: close\r\n\r\n").expect("the other half");
        assert_eq!(busy.receive_body().expect("its answer"), "hello");
        assert_eq!(haft.wait_for_exit().code(), Some(0));
        haft.log().line_with("worker has left: ended as asked (exit code 0)");
        haft.assert_nothing_left();
    }
}

#[test]
fn a_second_signal_lets_a_handler_run_and_then_kills() {
    // Its own handler, which haft does not know of, since it speaks haft's own dialect.
    let mut haft = Setup::new(&["-w", "1", "--drain-timeout", "1h"]).start_all();
    let mut busy = half_a_request(&mut haft);
    haft.note_workers();
    haft.signal(Signal::SIGTERM);
    // By then the second one is no echo of the first.
    haft.log().line_with("stopping: 1 worker");
    haft.signal(Signal::SIGTERM);
    assert_eq!(haft.wait_for_exit().code(), Some(0));
    busy.wait_for_end().ok();
    haft.log().line_with("worker has left: ended as asked (exit code 0)");
    haft.assert_nothing_left();

    let mut haft = Setup::new(&["-w", "1", "--drain-timeout", "1h"]).start_all();
    let worker = haft.worker(0);
    signal(worker, Signal::SIGSTOP);
    haft.note_workers();
    haft.signal(Signal::SIGTERM);
    haft.log().line_with("stopping: 1 worker");
    haft.signal(Signal::SIGTERM);
    assert_eq!(haft.wait_for_exit().code(), Some(0));
    haft.log().line_with("worker has left: signal SIGKILL");
    haft.assert_nothing_left();
}
