//! A master without descriptors: clients wait where it costs nothing, nothing spins, and it recovers.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::PoisonError;
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::harness::{
    Client, Haft, NEEDS_FILES, Setup, addresses_of, cpu_time, descriptors, eventually, is_stopped, signal,
};

const WARNING: &str = "no descriptor left to accept with";

fn connect(haft: &Haft, count: usize) -> Vec<Client> {
    let clients = addresses_of(0, 1).take(count).map(|from| {
        let mut client = Client::connect_from(from, haft.address()).expect("the kernel takes it");
        client.send("/").ok();
        client
    });
    clients.collect()
}

/// Leaves the master no descriptor: the lowest free number is above its limit.
fn starve(haft: &Haft) {
    let open = descriptors(haft.pid());
    let lowest_free = (0..).find(|number| !open.contains_key(number)).expect("a number");
    haft.limit_descriptors(lowest_free);
}

fn feed(haft: &Haft) {
    haft.limit_descriptors(1000);
}

fn assert_all_served(clients: &mut [Client]) {
    clients.iter_mut().for_each(|client| drop(client.receive().expect("an answer and no reset")));
}

#[test]
fn clients_wait_in_the_kernel_s_queue_and_are_served_when_there_are_descriptors_again() {
    let haft = Setup::new(&["-w", "1", "--hold-timeout", "1h"]).start_unasked(1);
    starve(&haft);
    let mut clients = connect(&haft, 10);
    haft.log().line_with(WARNING);
    feed(&haft);
    assert_all_served(&mut clients);
    let status = haft.status();
    assert_eq!((status.accepted(), status.refused_in_all()), (10, 0));
    assert!(status.0["accept_errors"]["no_descriptor"].as_u64() > Some(0));
    haft.stop();
}

#[test]
fn a_host_without_files_is_waited_for_in_the_same_way() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/enfile.py");
    let setup = Setup::new(&["-w", "1", "--hold-timeout", "1h"]).under(&["python3", script, "{dir}/shortage"]);
    let haft = setup.start_unasked(1);
    assert_waits_for_files(&haft, || haft.open_gate("shortage"), |_| haft.close_gate("shortage"));
    haft.stop();
}

/// The limit of the whole host, which holds for whoever has no CAP_SYS_ADMIN: here for haft and its worker alone. If
/// this process dies, its child still puts the limit back.
#[test]
fn a_host_at_its_limit_of_files_is_waited_for_in_the_same_way() {
    const FILE_MAX: &str = "/proc/sys/fs/file-max";
    let script =
        format!("old=$(cat {FILE_MAX}); echo 1 > {FILE_MAX} || exit 1; echo; read line; echo $old > {FILE_MAX}");
    let may = std::fs::OpenOptions::new().write(true).open(FILE_MAX);
    if let Err(error) = may {
        println!("skipped: {FILE_MAX} cannot be written: {error}");
        return;
    }
    let _alone = NEEDS_FILES.lock().unwrap_or_else(PoisonError::into_inner);
    let without = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"];
    let haft = Setup::new(&["-w", "1", "--hold-timeout", "1h"]).under(&without).start_unasked(1);
    let lower = || {
        let mut shell = Command::new("sh");
        let shell = shell.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = shell.spawn().expect("sh");
        let mut lowered = String::new();
        BufReader::new(shell.stdout.take().expect("a pipe")).read_line(&mut lowered).expect("read");
        assert_eq!(lowered, "\n", "it is lowered");
        shell
    };
    let put_back = |mut shell: Child| {
        drop(shell.stdin.take());
        assert!(shell.wait().expect("sh").success());
    };
    assert_waits_for_files(&haft, lower, put_back);
    haft.stop();
}

/// Clients wait while there is a shortage of files, with few looks whether it is over, and are served afterwards.
fn assert_waits_for_files<S>(haft: &Haft, shortage: impl FnOnce() -> S, relief: impl FnOnce(S)) {
    let start = Instant::now();
    let shortage = shortage();
    let mut clients = connect(haft, 10);
    haft.log().line_with("Too many open files in system");
    relief(shortage);
    assert_all_served(&mut clients);
    let passed = start.elapsed();
    let status = haft.status();
    assert_eq!((status.accepted(), status.refused_in_all()), (10, 0));
    let looks = status.0["accept_errors"]["no_descriptor"].as_u64().expect("a number");
    assert!((1..=passed.as_millis() / 50 + 2).contains(&looks.into()), "{looks} looks in {passed:?}");
}

#[test]
fn past_the_hold_time_they_are_refused_with_the_spare_descriptor_and_nothing_spins() {
    let haft = Setup::new(&["-w", "1", "--hold-timeout", "2s"]).start_unasked(1);
    starve(&haft);
    let (start, before) = (Instant::now(), cpu_time(haft.pid()));
    let mut clients = connect(&haft, 10);
    clients.iter_mut().for_each(Client::wait_for_reset);
    let (passed, used) = (start.elapsed(), cpu_time(haft.pid()) - before);
    assert!(used < passed / 5, "{used:?} of processor time in {passed:?}");
    feed(&haft);
    // Those who come at the heels of the refused are still refused with them.
    eventually("clients are served again", || Client::connect(haft.address()).ok()?.ask("/").ok());
    let status = haft.status();
    assert!(status.refused("no_descriptor") >= 10);
    // One look each 50 ms, as long as it lasted.
    let looks = status.0["accept_errors"]["no_descriptor"].as_u64().expect("a number");
    assert!(u128::from(looks) <= passed.as_millis() / 50 + 2, "{looks} looks in {passed:?}");
    haft.stop();
}

#[test]
fn each_shortage_has_its_own_hold_time() {
    let haft = Setup::new(&["-w", "1", "--hold-timeout", "1s"]).start_unasked(1);
    starve(&haft);
    connect(&haft, 1).iter_mut().for_each(Client::wait_for_reset);
    // Those who come at the heels of the first are still refused with it. Once nobody waits any more, the next one meets
    // a new shortage, which is told anew.
    let mut clients = eventually("another shortage", || {
        let clients = connect(&haft, 1);
        (haft.log().so_far().matches(WARNING).count() == 2).then_some(clients)
    });
    feed(&haft);
    assert_all_served(&mut clients);
    haft.stop();
}

#[test]
fn a_worker_that_dies_meanwhile_is_replaced_when_there_are_descriptors_again() {
    let mut haft = Setup::new(&["-w", "2"]).start_all();
    let worker = haft.worker(0);
    haft.limit_descriptors(3);
    signal(worker, Signal::SIGKILL);
    haft.log().line_with("Too many open files");
    feed(&haft);
    haft.wait("replaced", |status| status.all_ready());
    haft.stop();
}

#[test]
fn a_low_limit_bounds_what_is_accepted_and_all_are_served_in_the_end() {
    let mut haft = Setup::new(&["-w", "1", "--hold-timeout", "1h"]).after("ulimit -n 100").start_all();
    let worker = haft.worker(0);
    signal(worker, Signal::SIGSTOP);
    eventually("the worker is stopped", || is_stopped(worker).then_some(()));
    let clients = connect(&haft, 100);
    haft.log().line_with("accepting pauses");
    // Of 100 it keeps 64 for itself and 7 for its worker.
    haft.wait("as many as there are descriptors for", |status| status.accepted() == 29);
    signal(worker, Signal::SIGCONT);
    for mut client in clients {
        client.receive().expect("an answer");
    }
    let status = haft.wait("all are settled", |status| status.in_flight() == 0);
    assert_eq!((status.delivered(), status.refused_in_all()), (100, 0));
    haft.stop();
}

#[test]
fn a_reload_without_descriptors_ends_and_the_old_workers_stay() {
    let mut haft = Setup::new(&["-w", "2"]).start_all();
    let workers = [haft.worker(0), haft.worker(1)];
    haft.limit_descriptors(3);
    haft.signal(Signal::SIGHUP);
    haft.log().line_with("slot 0 did not become ready; all old workers stay");
    feed(&haft);
    connect(&haft, 5).iter_mut().for_each(|client| drop(client.receive().expect("an answer")));
    assert_eq!([haft.worker(0), haft.worker(1)], workers);
    haft.signal(Signal::SIGHUP);
    let status = haft.wait("it is done", |status| status.number("reloads_done") == 1);
    assert_eq!(status.number("reloads_failed"), 1);
    haft.stop();
}
