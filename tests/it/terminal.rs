//! SIGHUP has two meanings: "read your configuration again", and "your terminal is gone".

use std::net::Ipv4Addr;

use nix::sys::signal::Signal;

use crate::harness::{Client, Haft, Setup};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/terminal.py");

/// haft, started from a terminal that is closed when there is a file `closed`.
fn in_a_terminal(hangup: &str) -> Haft {
    let setup = Setup::new(&["-w", "1", "--drain-timeout", "1h"]);
    setup.under(&["python3", SCRIPT, "{dir}/closed", hangup]).start_all()
}

#[test]
fn as_long_as_there_is_a_terminal_sighup_reloads_and_without_it_haft_stops() {
    let mut haft = in_a_terminal("default");
    haft.signal(Signal::SIGHUP);
    haft.wait("a reload", |status| status.number("reloads_done") == 1);
    haft.note_workers();
    haft.open_gate("closed");
    assert_eq!(haft.wait_for_exit().code(), Some(0));
    haft.log().line_with("SIGHUP (the terminal was closed): accepting stops");
    haft.assert_nothing_left();
}

#[test]
fn under_nohup_haft_outlives_its_terminal() {
    let mut haft = in_a_terminal("ignored");
    haft.open_gate("closed");
    haft.wait("a reload", |status| status.number("reloads_done") == 1);
    Client::asking(&haft, Ipv4Addr::LOCALHOST).receive().expect("an answer");
    haft.stop();
}
