//! What goes wrong for a while is one line of the log, a metric, a part of the status, and over when it is over.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{Client, Haft, Setup, Status, addresses_of, end_worker, eventually, signal};

/// What is judged by the minute is judged every ten seconds.
const SOONER: &str = "export HAFT_TEST_ALARM_SPEED=6";

fn alarm<'a>(status: &'a Status, name: &str) -> &'a Value {
    let alarms = status.0["alarms"].as_array().expect("alarms");
    alarms.iter().find(|alarm| alarm["alarm"] == name).expect("each kind is there")
}

/// Waits until the alarm is active; yields its line.
fn active(haft: &mut Haft, name: &str) -> String {
    let status = haft.wait(name, |status| alarm(status, name)["active"] == true);
    alarm(&status, name)["line"].as_str().expect("a line").to_owned()
}

fn metric(haft: &Haft, name: &str, alarm: &str) -> Option<String> {
    let page = haft.page("/metrics")?.1;
    let begin = format!("{name}{{alarm=\"{alarm}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&begin)).map(str::to_owned)
}

#[test]
fn a_slot_that_loses_its_worker_again_and_again_is_named_with_what_helps() {
    let mut haft = Setup::new(&["-w", "2"]).mode("fated").start_all();
    for deaths in 1..=4 {
        assert_eq!(metric(&haft, "haft_alarm_active", "restarts").as_deref(), Some("0"));
        end_worker(&mut haft, "/exit/7", deaths);
    }
    let line = active(&mut haft, "restarts");
    assert!(line.starts_with("slot 0 has lost its worker again and again (the last: exit code 7)"), "{line}");
    assert!(line.contains("`haft logs 0`"), "{line}");
    haft.log().line_with(&line);
    assert_eq!(metric(&haft, "haft_alarm_active", "restarts").as_deref(), Some("1"));
    assert_eq!(metric(&haft, "haft_alarms_raised_total", "restarts").as_deref(), Some("1"));
    haft.stop();
}

#[test]
fn refusals_are_told_with_their_reason_and_are_no_other_alarm() {
    let setup = Setup::new(&["-w", "1", "--hold-timeout", "200ms"]).mode("gate");
    setup.open_gate("gate-1");
    let mut haft = setup.start();
    signal(haft.worker(0), Signal::SIGKILL);
    haft.wait("it is dead", |status| status.state(0) != "ready");
    let from = addresses_of(0, 1).next().expect("an address");
    let mut client = Client::connect_from(from, haft.address()).expect("connect");
    client.send("/").ok();
    client.wait_for_reset();
    let line = active(&mut haft, "refusals");
    assert!(line.starts_with("connections are refused: 1, most of them for no_worker; no worker was ready"), "{line}");
    haft.log().line_with(&line);
    let status = haft.status();
    for other in ["skew", "one_address", "restarts", "loop_delay"] {
        assert_eq!(alarm(&status, other)["active"], false, "{other}: {status:?}");
    }
    haft.open_gate("gate-2");
    haft.wait("replaced", |status| status.all_ready());
    haft.stop();
}

#[test]
fn a_slot_that_gets_twice_the_mean_is_named_with_what_helps() {
    let mut haft = Setup::new(&["-w", "2"]).mode("plain").after(SOONER).start_all();
    let line = eventually("skew", || {
        for from in addresses_of(0, 2).take(20) {
            Client::connect_from(from, haft.address()).and_then(|mut client| client.ask("/")).expect("an answer");
        }
        alarm(&haft.status(), "skew")["line"].as_str().map(str::to_owned)
    });
    assert!(line.starts_with("slot 0 gets 2.0 times the mean: "), "{line}");
    assert!(line.contains("--affinity session spreads them"), "{line}");
    haft.log().line_with(&line);
    haft.wait("it is over", |status| alarm(status, "skew")["active"] == false);
    assert_eq!(metric(&haft, "haft_alarms_raised_total", "skew").as_deref(), Some("1"));
    haft.stop();
}

/// Stands still, as if it computed, until there is a file.
const BUSY: &str = "
const fs = require('node:fs');
const word = new Int32Array(new SharedArrayBuffer(4));
require('node:http').createServer((request, response) => {
  while (request.url === '/busy' && !fs.existsSync(`${process.argv[2]}/go-on`)) Atomics.wait(word, 0, 0, 20);
  response.end();
}).listen(0);
";

#[test]
fn a_worker_whose_event_loop_stands_still_is_named_until_it_goes_on() {
    let setup = Setup::new(&["-w", "2"]).after(SOONER);
    fs::write(setup.folder().join("busy.cjs"), BUSY).expect("a file");
    let mut haft = setup.command(&["node", "{dir}/busy.cjs", "{dir}"]).start_all();
    let from = addresses_of(1, 2).next().expect("an address");
    let mut client = Client::connect_from(from, haft.address()).expect("connect");
    client.send("/busy").expect("send");
    let line = active(&mut haft, "loop_delay");
    assert!(line.starts_with("the event loop of slot 1 has been late for 30 seconds, now by "), "{line}");
    haft.log().line_with("the event loop of slot 1 has been late");
    haft.open_gate("go-on");
    haft.wait("it is over", |status| alarm(status, "loop_delay")["active"] == false);
    haft.stop();
}

#[test]
fn few_descriptors_are_told_before_there_is_none() {
    // Of 400, accepting pauses at 328 connections that wait.
    let flags = ["-w", "1", "--hold-timeout", "1h", "--hang-timeout", "0"];
    let mut haft = Setup::new(&flags).mode("plain").after("ulimit -n 400").start_all();
    let worker = haft.stop_worker(0);
    let waiting: Vec<Client> = (0..320).map(|_| Client::connect(haft.address()).expect("connect")).collect();
    let line = active(&mut haft, "descriptors");
    assert!(line.contains(" of 400 descriptors are open") && line.contains("LimitNOFILE="), "{line}");
    haft.log().line_with("of 400 descriptors are open");
    signal(worker, Signal::SIGCONT);
    haft.wait("it is over", |status| alarm(status, "descriptors")["active"] == false);
    drop(waiting);
    haft.stop();
}

#[test]
fn a_full_queue_of_the_kernel_is_told_with_its_listener() {
    // What is over --max-rate waits in the kernel.
    let flags = ["-w", "1", "--max-rate", "1/m:1", "--hold-timeout", "1h", "--backlog", "8"];
    let mut haft = Setup::new(&flags).mode("plain").start_all();
    let _waiting: Vec<Client> = (0..8).map(|_| Client::connect(haft.address()).expect("connect")).collect();
    let line = active(&mut haft, "accept_queue");
    let expected = format!("of 8 connections wait in the kernel's queue of {}", haft.address());
    assert!(line.contains(&expected), "{line}");
    haft.log().line_with(&expected);
    haft.stop();
}
