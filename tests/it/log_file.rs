//! The log in a file: appended to, and opened anew when that is asked for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::harness::{Setup, eventually};

fn wait_for(path: &Path, part: &str) {
    eventually(part, || fs::read_to_string(path).ok().filter(|text| text.contains(part)));
}

#[test]
fn a_renamed_log_file_is_opened_anew_on_usr1() {
    let setup = Setup::new(&["-w", "1", "--log-file", "{dir}/haft.log"]).mode("plain");
    let log = setup.folder().join("haft.log");
    let rotated = |number: u32| log.with_extension(number.to_string());
    fs::write(&log, "what was there before\n").expect("a file");
    let mut haft = setup.start_all();
    wait_for(&log, "what was there before\n");
    wait_for(&log, "worker is ready");
    for turn in 1..=2 {
        fs::rename(&log, rotated(turn)).expect("renamed");
        haft.signal(Signal::SIGUSR1);
        wait_for(&log, "the log file is opened anew");
        assert_eq!(fs::metadata(&log).expect("a file").permissions().mode() & 0o777, 0o640, "turn {turn}");
        assert_eq!(
            fs::read_to_string(rotated(turn)).expect("a file").matches("opened anew").count(),
            turn as usize - 1
        );
    }
    // Where it cannot be opened, the old one is written on.
    fs::rename(&log, rotated(3)).expect("renamed");
    fs::create_dir(&log).expect("a folder in its place");
    haft.signal(Signal::SIGUSR1);
    wait_for(&rotated(3), "the log file stays the old one");
    haft.signal(Signal::SIGUSR2);
    wait_for(&rotated(3), "SIGUSR2 does nothing");
    haft.signal(Signal::SIGTERM);
    assert!(haft.wait_for_exit().success());
    wait_for(&rotated(3), "SIGTERM: accepting stops");
    assert_eq!(haft.log().whole(), "", "standard error has none of it");
    haft.assert_nothing_left();
}

#[test]
fn a_log_file_that_cannot_be_opened_is_told_of_on_standard_error() {
    let mut haft = Setup::new(&["-w", "1", "--log-file", "{dir}/no/such.log"]).mode("plain").launch();
    assert_eq!(haft.wait_for_exit().code(), Some(2));
    let log = haft.log().whole();
    assert!(log.contains("no/such.log: No such file or directory; its folder must exist"), "{log}");
}
