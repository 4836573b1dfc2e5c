//! System calls that are newer than the oldest kernel that haft runs on, or that a container's profile may refuse: haft
//! does without each of them.

use std::net::Ipv4Addr;

use libc::{ENOSYS, EPERM, c_int, c_long};
use nix::sys::signal::Signal;

use crate::harness::{Client, Haft, Setup, descriptors, eventually, signal};

/// What haft, or what it is built on, asks for where it can be had.
const NEWER: [c_long; 12] = [
    libc::SYS_close_range,
    libc::SYS_epoll_pwait2,
    libc::SYS_faccessat2,
    libc::SYS_getrandom,
    libc::SYS_memfd_create,
    libc::SYS_openat2,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_rseq,
    libc::SYS_sendmmsg,
    libc::SYS_statx,
    libc::SYS_timer_create,
];

fn without(setup: Setup, refused: &[c_long], error: c_int) -> Haft {
    let numbers = refused.iter().map(c_long::to_string).collect::<Vec<_>>().join(",");
    let launcher = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/refuse.py");
    setup.under(&["python3", "-S", "-E", launcher, &error.to_string(), &numbers]).start_unasked(2)
}

/// Connections that come together, so that their descriptors are neighbours, are served; and nothing is left of them.
fn serves_and_closes(haft: &mut Haft) {
    let before = descriptors(haft.pid()).len();
    for _ in 0..5 {
        let from = |n| Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 1, 1).to_bits() + n);
        let mut clients: Vec<Client> = (0..60).map(|n| Client::asking(haft, from(n))).collect();
        clients.iter_mut().for_each(|client| drop(client.receive().expect("an answer")));
    }
    eventually("no copy is left", || (descriptors(haft.pid()).len() <= before).then_some(()));
}

fn replaces(haft: &mut Haft) {
    signal(haft.worker(0), Signal::SIGKILL);
    haft.wait("replaced", |status| status.of_slot(0, "respawned") == 1 && status.all_ready());
    assert_eq!(haft.status().0["slots"][0]["deaths_by_reason"]["signal SIGKILL"], 1);
}

#[test]
fn everything_newer_is_refused() {
    for error in [ENOSYS, EPERM] {
        let mut haft = without(Setup::new(&["-w", "2"]), &NEWER, error);
        serves_and_closes(&mut haft);
        haft.log().line_with("close_range(2) is refused");
        replaces(&mut haft);
        serves_and_closes(&mut haft);
        haft.stop();
    }
}

#[test]
fn with_programs_of_node_s() {
    for error in [ENOSYS, EPERM] {
        // Node itself does not do without getrandom.
        let refused: Vec<c_long> = NEWER.into_iter().filter(|number| *number != libc::SYS_getrandom).collect();
        let mut haft = without(Setup::new(&["-w", "2"]).node(), &refused, error);
        replaces(&mut haft);
        let before = descriptors(haft.pid()).len();
        for n in 0..20 {
            Client::asking(&haft, Ipv4Addr::new(127, 0, 1, n)).receive_body().expect("an answer");
        }
        eventually("no copy is left", || (descriptors(haft.pid()).len() <= before).then_some(()));
        haft.wait("all are delivered", |status| status.delivered() == 20);
        haft.stop();
    }
}

#[test]
fn with_kernel_dispatch() {
    for error in [ENOSYS, EPERM] {
        let mut haft = without(Setup::new(&["-w", "2", "--dispatch", "kernel"]), &NEWER, error);
        serves_and_closes(&mut haft);
        replaces(&mut haft);
        haft.stop();
    }
}

/// A thread is made with clone3 by newer C libraries, which do without it only where the kernel does not know it.
#[test]
fn on_a_kernel_without_clone3() {
    let mut haft = without(Setup::new(&["-w", "2"]), &[libc::SYS_clone3], ENOSYS);
    serves_and_closes(&mut haft);
    haft.stop();
}
