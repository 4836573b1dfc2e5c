//! What the documentation promises of where haft is started: a terminal, a policy of the scheduler, a program that says
//! itself when it is ready.

use std::fs;

use nix::sys::signal::Signal;

use crate::harness::{Client, Haft, Setup, addresses_of, children, eventually, is_running, is_stopped, signal};

/// haft as a job of a terminal: see `tests/it/in_terminal.py`. Its own process is the harness's only child.
fn in_terminal(how: &str) -> Haft {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/in_terminal.py");
    let setup = Setup::new(&["-w", "2", "-l", "unix:{dir}/clients.sock", "--drain-timeout", "1h"]);
    setup.under(&["python3", "-S", "-E", script, "{dir}", how]).start_all()
}

fn screen(haft: &Haft, what: &str, wanted: impl Fn(&str) -> bool) -> String {
    let read = || fs::read(haft.folder().join("screen")).ok();
    let text = || read().map(|screen| String::from_utf8_lossy(&screen).into_owned());
    eventually(what, || text().filter(|screen| wanted(screen)))
}

fn client(haft: &Haft) -> Client {
    Client::connect_unix(&haft.folder().join("clients.sock")).expect("connect")
}

/// With `stty tostop` a terminal stops a job in the background that writes to it.
#[test]
fn a_terminal_that_stops_writers_in_the_background_does_not_stop_haft() {
    let mut haft = in_terminal("background");
    let master = children(haft.pid())[0];
    assert_eq!(children(master).len(), 2);
    for respawned in 1..=3 {
        signal(haft.worker(0), Signal::SIGKILL);
        haft.wait("replaced", |status| status.of_slot(0, "respawned") == respawned && status.all_ready());
        client(&haft).ask("/").expect("an answer");
    }
    screen(&haft, "its log", |screen| screen.matches("worker died: signal SIGKILL").count() == 3);
    assert!(!is_stopped(master));
    haft.signal(Signal::SIGTERM);
    assert_eq!(haft.wait_for_exit().code(), Some(0));
}

#[test]
fn on_a_terminal_what_a_stop_waits_for_is_told_in_one_line_that_is_written_over() {
    let mut haft = in_terminal("foreground");
    let mut busy = client(&haft);
    busy.write(b"GET /slow HTTP/1.1\r\n").expect("half a request");
    haft.wait("it is taken", |status| status.delivered() == 1);
    haft.signal(Signal::SIGTERM);
    let told = "\x1b[Kstopping: ";
    screen(&haft, "how far the stop has come, twice", |screen| screen.matches(told).count() >= 2);
    busy.write(b"\r\n").expect("the other half");
    busy.receive().expect("an answer");
    assert_eq!(haft.wait_for_exit().code(), Some(0));
    let screen = screen(&haft, "the end", |screen| screen.contains("stopped: accepted 1"));
    let begin = screen.find(told).expect("a line");
    let (lines, _) = screen[begin..].split_once("worker has left").expect("a line of the log behind them");
    // Each ends with the cursor at its beginning, and the log's line takes its place.
    let lines: Vec<&str> = lines.split('\r').collect();
    let (last, told_of) = lines.split_last().expect("lines");
    assert!(
        told_of.len() >= 2 && told_of.iter().all(|line| line.starts_with(told) && !line.contains('\n')),
        "{screen:?}"
    );
    assert!(last.starts_with("\x1b[K"), "{screen:?}");
}

/// proc_pid_stat(5): the policy is the 41st field.
fn policy(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(38)?.parse().ok()
}

#[test]
fn behind_chrt_master_and_workers_have_its_policy() {
    const SCHED_BATCH: u32 = 3;
    for setup in [Setup::new(&["-w", "2"]), Setup::new(&["-w", "2"]).node(), Setup::new(&["-w", "2"]).without_command()]
    {
        let mut haft = setup.under(&["chrt", "--batch", "0"]).start_all();
        assert_eq!(policy(haft.pid()), Some(SCHED_BATCH));
        let first = haft.worker(0);
        signal(first, Signal::SIGKILL);
        haft.wait("replaced", |status| status.all_ready() && status.pid(0).is_some_and(|pid| pid != first));
        for worker in [0, 1].map(|slot| haft.worker(slot)) {
            assert_eq!(policy(worker), Some(SCHED_BATCH), "also of a replacement");
        }
        let mut client = Client::connect(haft.address()).expect("connect");
        client.send("/").expect("send");
        client.receive_body().expect("an answer");
        haft.stop();
    }
}

#[test]
fn with_wait_ready_a_node_program_that_listens_is_not_ready_before_it_says_so() {
    let setup = Setup::new(&["-w", "2", "--wait-ready", "--start-timeout", "1h", "--hold-timeout", "1h"]);
    let program = "const { existsSync } = require('node:fs');
        require('node:http').createServer((_, to) => to.end(String(process.pid))).listen(3000, () => {
          console.error('it listens');
          const timer = setInterval(() => {
            if (!existsSync(`${__dirname}/gate-${process.env.HAFT_SLOT}`)) return;
            clearInterval(timer);
            process.send('ready');
          }, 5);
        });";
    fs::write(setup.folder().join("server.cjs"), program).expect("a file");
    let mut haft = setup.command(&["node", "{dir}/server.cjs"]).launch();
    // What several write alike while they start is shown once.
    haft.log().line_with("it listens");
    let mut clients: Vec<Client> =
        (0..2).map(|slot| Client::asking(&haft, addresses_of(slot, 2).next().expect("an address"))).collect();
    let status = haft.status();
    assert_eq!([0, 1].map(|slot| status.state(slot).to_owned()), ["starting", "starting"]);
    haft.open_gate("gate-1");
    let status = haft.wait("one is ready", |status| status.state(1) == "ready");
    assert_eq!(status.state(0), "starting");
    haft.open_gate("gate-0");
    haft.wait("the other too", |status| status.all_ready());
    for (slot, client) in clients.iter_mut().enumerate() {
        let pid: u32 = client.receive_body().expect("an answer").parse().expect("a process");
        assert!(pid == haft.worker(slot) && is_running(pid));
    }
    haft.stop();
}
