//! Nothing is kept of a connection, and nothing is passed on that is not meant to be.

use std::collections::{BTreeMap, BTreeSet};
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
    for _ in 0..20 {
        let mut clients = Vec::new();
        for n in 0..100_u32 {
            let from = Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 1, 1).to_bits() + n);
            let mut client = Client::connect_from(from, haft.address()).expect("connect");
            client.send("/").expect("send");
            clients.push(client);
        }
        clients.iter_mut().for_each(|client| drop(client.receive().expect("answer")));
        // Some stay open: a connection that is served is nothing to the master either.
        open.extend(clients.into_iter().take(10));
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
    for worker in 3..5 {
        let victim = haft.worker(0);
        signal(victim, Signal::SIGKILL);
        haft.wait("replaced", |status| status.of_slot(0, "worker") == worker && status.all_ready());
    }
    let count = before.len();
    eventually("no descriptor is left of a dead worker", || (descriptors(haft.pid()).len() == count).then_some(()));
    haft.stop();
}

/// Writes down which signals it ignores, of which Python would change some.
const STARTER: &str = "cat /proc/$$/status > $1/shell-$HAFT_SLOT; exec python3 -S -E -c \"$0\" \"$@\"";

/// Writes down what it inherited, and becomes the worker.
const RECORDER: &str = "
import os, sys
folder, slot = sys.argv[1], os.environ['HAFT_SLOT']
numbers = [number for number in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{number}')]
lines = [f'{number} {os.readlink(f\"/proc/self/fd/{number}\")}\\n' for number in numbers]
with open(f'{folder}/status-{slot}', 'w') as status:
    status.write(open('/proc/self/status').read())
with open(f'{folder}/descriptors-{slot}', 'w') as descriptors:
    descriptors.write(os.environ['HAFT_CHANNEL_FD'] + ' ' + os.environ['HAFT_ROOMS_FD'] + '\\n' + ''.join(lines))
os.execvp('python3', ['python3', '-S', '-E', sys.argv[2]])";

#[test]
fn a_worker_inherits_its_streams_its_channel_and_its_link_and_clean_signals() {
    let worker = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/worker.py");
    let haft = Setup::new(&["-w", "2", "-l", "127.0.0.1:0", "-l", "unix:{dir}/clients.sock"])
        .command(&["sh", "-c", STARTER, RECORDER, "{dir}", worker])
        .start_all();
    // What this test itself has left open for its children is not haft's.
    let ours: Vec<String> = descriptors(std::process::id()).into_values().collect();
    for slot in 0..2 {
        let read = |name: &str| fs::read_to_string(haft.folder().join(format!("{name}-{slot}"))).expect(name);
        let text = read("descriptors");
        let mut lines = text.lines();
        let numbers = lines.next().expect("the numbers of the channel and of the link to the other workers").split(' ');
        let numbers: BTreeSet<u32> = numbers.map(|number| number.parse().expect("a number")).collect();
        assert_eq!(numbers.len(), 2, "{numbers:?}");
        let inherited: BTreeMap<u32, &str> = lines
            .map(|line| line.split_once(' ').expect("number and target"))
            .map(|(number, target)| (number.parse().expect("number"), target))
            .filter(|(number, target)| *number < 3 || !ours.iter().any(|ours| ours == target))
            .collect();
        let (pages, inherited): (BTreeMap<_, _>, BTreeMap<_, _>) =
            inherited.into_iter().partition(|(_, target)| target.contains("haft-scoreboard"));
        assert_eq!(pages.len(), 1, "the page on which the worker says how it is: {pages:?}");
        let expected: Vec<_> = [0, 1, 2].into_iter().chain(numbers.iter().copied()).collect();
        assert_eq!(inherited.keys().copied().collect::<Vec<_>>(), expected, "{inherited:?}");
        assert!(inherited[&0].starts_with("pipe:"), "it never ends: {inherited:?}");
        assert!(numbers.iter().all(|number| inherited[number].starts_with("socket:")), "{inherited:?}");
        let mask = |status, name| {
            let status = read(status);
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
            u64::from_str_radix(line.trim(), 16).expect("a mask")
        };
        assert_eq!(mask("status", "SigBlk:"), 0, "no signal is blocked");
        assert_eq!(
            mask("shell", "SigIgn:") & (1 << 12),
            0,
            "a Rust program ignores SIGPIPE (13), its children must not"
        );
    }
    haft.stop();
}
