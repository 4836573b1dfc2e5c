//! What goes wrong for a while is one line of the log, a metric, a part of the status, and over when it is over.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{Client, Haft, Setup, Status, addresses_of, end_worker, signal};

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
