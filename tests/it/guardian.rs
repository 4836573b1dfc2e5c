//! The master dies, and no worker keeps its ports or stays, whatever it has made of itself.

use std::net::SocketAddr;

use nix::sys::signal::Signal;

use crate::harness::{Client, Haft, Setup, addresses_of, eventually, is_running, is_stopped, signal};
use crate::listen_fds;

/// A program that takes its listener over and heeds no signal.
const STUBBORN: &str = "import signal, time; \
    [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]; \
    open('{dir}/heedless', 'w'); time.sleep(3600)";

fn by_kernel(flags: &[&str]) -> Setup {
    let flags = [&["-w", "2", "--dispatch", "kernel", "--dialect", "listen-fds"], flags].concat();
    Setup::new(&flags)
}

/// listen_fds.py as another user, where the test may have one.
const ANOTHER_USER: &str = concat!(
    "import os, sys; imports, split, rest = open('",
    env!("CARGO_MANIFEST_DIR"),
    // Another user may not read what it imports.
    "/tests/it/listen_fds.py').read().partition('FOLDER,'); sys.argv = ['x', '/']; exec(imports); \
     os.getuid() or os.setuid(65534); exec(split + rest)"
);

/// Kills the master; the next one binds and serves at once.
fn kill_and_replace(first: &mut Haft) -> SocketAddr {
    let address = first.address();
    first.note_workers();
    first.signal(Signal::SIGKILL);
    first.wait_for_exit();
    let second = listen_fds::setup(&["-w", "1", "-l", &address.to_string()], &[]).start_all();
    Client::connect(address).expect("connect").ask("/").expect("the next master's worker");
    second.stop();
    address
}

#[test]
fn the_next_master_binds_at_once_though_the_workers_of_a_killed_one_heed_nothing() {
    let shell = format!("python3 -S -E -c \"{STUBBORN}\"; true");
    let plain = ["python3", "-S", "-E", "-c", STUBBORN];
    let behind_a_shell = ["sh", "-c", &shell];
    for command in [&plain[..], &behind_a_shell] {
        let mut first = by_kernel(&["--drain-timeout", "100ms"]).command(command).start_all();
        eventually("it heeds nothing", || first.folder().join("heedless").exists().then_some(()));
        let workers = first.children();
        assert_eq!(workers.len(), 2, "the guardian is none of them, nor a child");
        kill_and_replace(&mut first);
        for worker in workers {
            eventually("it is killed with the drain time", || (!is_running(worker)).then_some(()));
        }
    }
}

#[test]
fn a_worker_of_another_user_is_told_of_the_masters_death_and_answers_what_it_was_asked() {
    let mut first =
        by_kernel(&["--drain-timeout", "1h"]).command(&["python3", "-S", "-E", "-c", ANOTHER_USER]).start_all();
    let from = addresses_of(0, 2).next().expect("an address");
    let mut client = Client::connect_from(from, first.address()).expect("connect");
    client.write(b"GET /late HTTP/1.1\r\n").expect("half a request");
    first.wait("it is accepted", |status| status.of_slot(0, "accept_queue") == 0);
    let workers = first.children();
    kill_and_replace(&mut first);
    client.write(b"\r\n").expect("the other half");
    assert_eq!(client.receive().expect("its answer").request, "GET /late HTTP/1.1");
    drop(client);
    for worker in workers {
        eventually("it ends by itself", || (!is_running(worker)).then_some(()));
    }
}

#[test]
fn a_worker_of_haft_s_own_dialect_that_stands_still_keeps_no_port() {
    let mut first = Setup::new(&["-w", "1", "--dispatch", "kernel", "--drain-timeout", "100ms"]).start_all();
    let worker = first.worker(0);
    first.note_workers();
    // It ignores the signal by which the kernel would wake it, too.
    signal(worker, Signal::SIGSTOP);
    eventually("the worker is stopped", || is_stopped(worker).then_some(()));
    kill_and_replace(&mut first);
    eventually("it ends", || (!is_running(worker)).then_some(()));
}

/// While the threads of a killed master end one after the other, the kernel would send it several times, and getppid()
/// would still name the master: to a worker that looks like an operator who asks twice for the end.
#[test]
fn the_kernel_sends_no_signal_in_the_guardians_place() {
    let asked = "import ctypes, os, time; number = ctypes.c_int(-1); \
        ctypes.CDLL(None).prctl(2, ctypes.byref(number)); \
        open('{dir}/.asked', 'w').write(str(number.value)); \
        os.rename('{dir}/.asked', '{dir}/asked'); time.sleep(3600)";
    for dialect in ["haft", "listen-fds"] {
        let flags = ["-w", "1", "--dialect", dialect, "--dispatch", "kernel", "--drain-timeout", "100ms"];
        let haft = Setup::new(&flags).command(&["python3", "-S", "-E", "-c", asked]).launch();
        let answer = eventually("its answer", || std::fs::read_to_string(haft.folder().join("asked")).ok());
        assert_eq!(answer, "0", "{dialect}: PR_GET_PDEATHSIG");
    }
}

/// The guardian of a master.
pub fn guardian_of(master: u32) -> Option<u32> {
    let name = format!("haft: guardian of {master}\0");
    let processes =
        std::fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_it = |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words == name.as_bytes());
    processes.filter_map(|pid| pid.parse().ok()).find(is_it)
}

#[test]
fn the_guardian_ends_with_haft_and_another_takes_its_place_if_it_is_ended() {
    let mut haft =
        by_kernel(&["--drain-timeout", "100ms"]).command(&["python3", "-S", "-E", "-c", STUBBORN]).start_all();
    let master = haft.pid();
    let first = guardian_of(master).expect("a guardian");
    for heeded_by_none in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1] {
        signal(first, heeded_by_none);
    }
    assert_eq!(guardian_of(master), Some(first));
    signal(first, Signal::SIGKILL);
    eventually("its end", || (!is_running(first)).then_some(()));
    // Another worker is started, and with it another guardian, which knows of the worker that was there before.
    let workers = first_and_replacement(&mut haft);
    let second = eventually("another guardian", || guardian_of(master).filter(|second| *second != first));
    kill_and_replace(&mut haft);
    for worker in workers {
        eventually("it is killed with the drain time", || (!is_running(worker)).then_some(()));
    }
    eventually("it has nothing left to do", || (!is_running(second)).then_some(()));

    let mut haft = Setup::new(&["-w", "1"]).start_all();
    let guardian = guardian_of(haft.pid()).expect("a guardian");
    haft.note_workers();
    haft.signal(Signal::SIGTERM);
    assert_eq!(haft.wait_for_exit().code(), Some(0));
    assert!(!is_running(guardian), "haft has waited for it");
}

/// Kills the worker of slot 0, and yields that of slot 1 and the replacement.
fn first_and_replacement(haft: &mut Haft) -> [u32; 2] {
    let [dies, stays] = [0, 1].map(|slot| haft.worker(slot));
    signal(dies, Signal::SIGKILL);
    let status = haft.wait("replaced", |status| status.all_ready() && status.pid(0).is_some_and(|pid| pid != dies));
    [stays, status.pid(0).expect("a replacement")]
}
