//! Nothing is kept of a connection, and nothing is passed on that is not meant to be.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;

use nix::sys::signal::Signal;

use crate::harness::{Client, Haft, Setup, descriptors, eventually, signal};

fn assert_descriptors(haft: &Haft, expected: &BTreeMap<u32, String>, what: &str) {
    let settled = eventually(what, || {
        let now = descriptors(haft.pid());
        (now.len() == expected.len()).then_some(now)
    });
    assert_eq!(settled.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
}

#[test]
fn after_many_connections_the_master_has_the_descriptors_it_had() {
    let mut haft = Setup::new(&["-w", "2"]).start_unasked(2);
    let before = descriptors(haft.pid());
    let mut open = Vec::new();
    for n in 0..2000_u32 {
        let from = Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 1, 1).to_bits() + n % 100);
        let mut client = Client::connect_from(from, haft.address()).expect("connect");
        client.ask("/").expect("answer");
        // Some stay open: a connection that is served is nothing to the master either.
        if n % 10 == 0 {
            open.push(client);
        }
    }
    assert_descriptors(&haft, &before, "no descriptor is left of 2000 connections, 200 of them open");
    let status = haft.wait("all are settled", |status| status.in_flight() == 0);
    assert_eq!((status.accepted(), status.delivered()), (2000, 2000));
    haft.stop();
}

#[test]
fn after_a_worker_s_death_the_master_has_as_many_descriptors_as_before() {
    let mut haft = Setup::new(&["-w", "2"]).start_unasked(2);
    let before = descriptors(haft.pid());
    for worker in 3..6 {
        let victim = haft.worker(0);
        signal(victim, Signal::SIGKILL);
        haft.wait("replaced", |status| status.of_slot(0, "worker") == worker && status.all_ready());
    }
    let count = before.len();
    eventually("no descriptor is left of a dead worker", || (descriptors(haft.pid()).len() == count).then_some(()));
    haft.stop();
}

#[test]
fn a_worker_inherits_its_streams_and_its_channel_and_clean_signals() {
    let script = "for fd in /proc/$$/fd/*; do echo \"${fd##*/} $(readlink $fd)\"; done > {dir}/fds-$HAFT_SLOT; \
                  echo $HAFT_CHANNEL_FD > {dir}/channel-$HAFT_SLOT; grep ^Sig /proc/$$/status > {dir}/signals-$HAFT_SLOT; \
                  exec python3 {worker}";
    let passed_on = inheritable();
    let script = script.replace("{worker}", concat!(env!("CARGO_MANIFEST_DIR"), "/examples/worker.py"));
    let haft = Setup::new(&["-w", "2", "-l", "127.0.0.1:0", "-l", "unix:{dir}/clients.sock"])
        .command(&["sh", "-c", &script])
        .start_all();
    for slot in 0..2 {
        let read = |name: &str| fs::read_to_string(haft.folder().join(format!("{name}-{slot}"))).expect(name);
        let channel = read("channel");
        let inherited: BTreeMap<u32, String> = read("fds")
            .lines()
            .map(|line| line.split_once(' ').expect("number and target"))
            .map(|(number, target)| (number.parse().expect("number"), target.to_owned()))
            // What the shell itself opened for the redirection.
            .filter(|(_, target): &(u32, String)| !target.contains("/fds-") && !target.is_empty())
            // What this test was started with, and so haft.
            .filter(|(number, _)| *number < 3 || !passed_on.contains(number))
            .collect();
        let channel: u32 = channel.trim().parse().expect("number");
        assert_eq!(inherited.keys().copied().collect::<Vec<_>>(), [0, 1, 2, channel], "{inherited:?}");
        assert_eq!(inherited[&0], "/dev/null");
        assert!(inherited[&channel].starts_with("socket:"), "{inherited:?}");
        for line in read("signals").lines().filter(|line| line.starts_with("SigBlk") || line.starts_with("SigIgn")) {
            assert!(line.ends_with("0000000000000000"), "{line}");
        }
    }
    haft.stop();
}

/// Descriptors that this process was started with and passes on: all that Rust opens is close-on-exec.
fn inheritable() -> Vec<u32> {
    let numbers = fs::read_dir("/proc/self/fdinfo").expect("fdinfo").filter_map(|entry| {
        let entry = entry.expect("entry");
        // It may be gone by now: other tests run beside this one.
        let info = fs::read_to_string(entry.path()).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        let flags = u32::from_str_radix(flags.trim(), 8).expect("octal flags");
        (flags & 0o2_000_000 == 0).then(|| entry.file_name().to_string_lossy().parse().expect("number"))
    });
    numbers.collect()
}
