//! However haft ends, clients get what they were promised, and nothing is left behind.

use nix::sys::signal::Signal;

use crate::harness::{Client, Setup, addresses_of, eventually, is_running, is_stopped, own_address, signal};

/// A client in the middle of its first request, which keeps its worker from finishing.
fn half_a_request(haft: &crate::harness::Haft) -> Client {
    let mut client = Client::connect(haft.address()).expect("connect");
    client.write(b"GET /slow HTTP/1.1\r\n").expect("half a request");
    client
}

#[test]
fn sigterm_lets_clients_finish_and_takes_no_new_ones() {
    let mut haft = Setup::new(&["-w", "2", "--drain-timeout", "1h"]).start_all();
    let mut idle = Client::connect(haft.address()).expect("connect");
    idle.ask("/").expect("answer");
    let mut busy = half_a_request(&haft);
    haft.wait("both are taken", |status| status.delivered() == 2);
    haft.note_workers();
    haft.signal(Signal::SIGTERM);
    haft.log().line_with("SIGTERM: accepting stops");
    idle.wait_for_end().expect("an orderly end");
    assert!(Client::connect(haft.address()).is_err(), "nobody listens any more");
    let (code, text) = eventually("readyz", || haft.page("/readyz"));
    assert!(code == 503 && text.contains("stopping"), "{code} {text}");

    busy.write(b"\r\n").expect("the other half");
    assert_eq!(busy.receive().expect("its answer").request, "GET /slow HTTP/1.1");
    busy.wait_for_end().expect("an orderly end");
    assert_eq!(haft.wait_for_exit().code(), Some(0));
    haft.log().line_with("stopped: accepted 2, delivered 2, refused 0");
    haft.assert_nothing_left();
}

#[test]
fn those_whom_a_built_in_worker_takes_together_with_the_word_to_finish_are_answered() {
    let mut haft = Setup::new(&["-w", "1", "--drain-timeout", "1h"]).without_command().start_all();
    // It finds both in its channel when it goes on.
    let worker = haft.stop_worker(0);
    let mut clients: Vec<Client> = (0..20)
        .map(|_| {
            let mut client = Client::connect(haft.address()).expect("connect");
            client.send("/haft/page.json").expect("a request");
            client
        })
        .collect();
    haft.wait("all are sent to it", |status| status.in_flight() == 20 && status.held() == 0);
    haft.note_workers();
    haft.signal(Signal::SIGTERM);
    haft.log().line_with("SIGTERM: accepting stops");
    let (code, text) = eventually("readyz", || haft.page("/readyz"));
    assert!(code == 503 && text.contains("stopping"), "{code} {text}");
    signal(worker, Signal::SIGCONT);
    for client in &mut clients {
        let body = client.receive_body().expect("an answer");
        assert!(body.contains("\"worker\""), "{body}");
        client.wait_for_end().expect("an orderly end");
    }
    assert_eq!(haft.wait_for_exit().code(), Some(0));
    haft.log().line_with("stopped: accepted 20, delivered 20, refused 0");
    haft.assert_nothing_left();
}

#[test]
fn a_client_that_does_not_finish_is_cut_off_after_the_drain_time() {
    let mut haft = Setup::new(&["-w", "1", "--drain-timeout", "300ms"]).start_all();
    let mut busy = half_a_request(&haft);
    haft.wait("it is taken", |status| status.delivered() == 1);
    haft.note_workers();
    haft.signal(Signal::SIGINT);
    assert_eq!(haft.wait_for_exit().code(), Some(0));
    busy.wait_for_end().ok();
    haft.assert_nothing_left();
}

#[test]
fn a_worker_that_heeds_nothing_is_killed_in_the_end() {
    let mut haft = Setup::new(&["-w", "1", "--drain-timeout", "100ms"]).start_all();
    let worker = haft.worker(0);
    signal(worker, Signal::SIGSTOP);
    eventually("it is stopped", || is_stopped(worker).then_some(()));
    haft.note_workers();
    haft.signal(Signal::SIGTERM);
    assert_eq!(haft.wait_for_exit().code(), Some(0));
    haft.log().line_with("worker has left: signal SIGKILL");
    haft.assert_nothing_left();
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut haft = Setup::new(&["-w", "2", "--drain-timeout", "1h"]).start_all();
    let mut busy = half_a_request(&haft);
    haft.wait("it is taken", |status| status.delivered() == 1);
    haft.note_workers();
    haft.signal(Signal::SIGTERM);
    // By then the second one is no echo of the first.
    haft.log().line_with("stopping: 1 worker");
    haft.signal(Signal::SIGTERM);
    haft.wait_for_exit();
    busy.wait_for_end().ok();
    haft.assert_nothing_left();
}

#[test]
fn sigterm_before_any_worker_is_ready_ends_too() {
    let mut haft = Setup::new(&["-w", "2"]).mode("gate").launch();
    haft.log().line_with("listening on");
    haft.signal(Signal::SIGTERM);
    assert_eq!(haft.wait_for_exit().code(), Some(0));
    haft.assert_nothing_left();
}

#[test]
fn those_who_had_come_before_the_signal_are_all_served() {
    let mut haft = Setup::new(&["-w", "2", "--hold-timeout", "1h"]).start_all();
    haft.note_workers();
    // While the master stands still, clients pile up in the kernel's queue, and the signal comes behind them.
    haft.signal(Signal::SIGSTOP);
    eventually("the master is stopped", || is_stopped(haft.pid()).then_some(()));
    let from = addresses_of(0, 2).zip(addresses_of(1, 2)).flat_map(|(one, other)| [one, other]);
    let mut clients: Vec<Client> =
        from.take(400).map(|from| Client::connect_from(from, haft.address()).expect("connect")).collect();
    haft.signal(Signal::SIGTERM);
    haft.signal(Signal::SIGCONT);
    for client in &mut clients {
        client.ask("/").expect("an answer and no reset");
        client.wait_for_end().expect("an orderly end");
    }
    assert_eq!(haft.wait_for_exit().code(), Some(0));
    haft.log().line_with("stopped: accepted 400, delivered 400, refused 0");
    haft.assert_nothing_left();
}

#[test]
fn workers_of_a_killed_master_finish_what_they_have_and_leave() {
    let mut haft = Setup::new(&["-w", "1"]).mode("deaf").start_all();
    let address = haft.address();
    let mut idle = Client::connect(address).expect("connect");
    idle.ask("/").expect("answer");
    let mut busy = half_a_request(&haft);
    haft.wait("both are taken", |status| status.delivered() == 2);
    haft.open_gate("deaf");
    let mut unread = Client::connect(address).expect("connect");
    unread.send("/unread").expect("send");
    haft.wait("it is sent and not received", |status| status.of_slot(0, "in_flight") == 1);

    let worker = haft.worker(0);
    haft.signal(Signal::SIGKILL);
    haft.wait_for_exit();
    assert!(Client::connect(address).is_err(), "nobody listens any more");
    haft.close_gate("deaf");
    assert_eq!(unread.receive().expect("an answer").request, "GET /unread HTTP/1.1");
    idle.wait_for_end().expect("an orderly end");
    busy.write(b"\r\n").expect("the other half");
    assert_eq!(busy.receive().expect("its answer").request, "GET /slow HTTP/1.1");
    eventually("the worker leaves by itself", || (!is_running(worker)).then_some(()));
}

/// A polling session of the built-in worker, on this connection.
fn session(client: &mut Client) -> String {
    client.send(POLLING).expect("send");
    let opened = client.receive_body().expect("a session");
    opened.split('"').nth(3).unwrap_or_else(|| panic!("no session: {opened}")).to_owned()
}

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

#[test]
fn sessions_outlive_a_killed_master_and_the_next_one_starts_beside_them() {
    let mut first = Setup::new(&["-w", "1", "--drain-timeout", "24h"]).command(&[]).start_all();
    let mut client = Client::connect(first.address()).expect("connect");
    let sid = session(&mut client);
    let (address, worker) = (first.address(), first.worker(0));
    // It stands still at that moment, and the kernel wakes it with SIGHUP.
    signal(worker, Signal::SIGSTOP);
    eventually("the worker is stopped", || is_stopped(worker).then_some(()));
    first.signal(Signal::SIGKILL);
    first.wait_for_exit();

    let second = Setup::new(&["-w", "1", "-l", &address.to_string()]).command(&[]).start_all();
    session(&mut Client::connect(address).expect("connect"));
    client.send(&format!("{POLLING}&sid={sid}")).expect("send");
    assert_eq!(client.receive_body().expect("the session goes on"), "2");
    assert!(is_running(worker));
    drop(client);
    eventually("the worker leaves when nobody is left", || (!is_running(worker)).then_some(()));
    second.stop();
}

#[test]
fn a_built_in_worker_of_a_killed_master_ends_with_the_drain_time() {
    let mut haft = Setup::new(&["-w", "1", "--drain-timeout", "300ms"]).command(&[]).start_all();
    let mut busy = half_a_request(&haft);
    haft.wait("it is taken", |status| status.delivered() == 1);
    let worker = haft.worker(0);
    haft.signal(Signal::SIGKILL);
    haft.wait_for_exit();
    busy.wait_for_end().ok();
    eventually("the worker ends", || (!is_running(worker)).then_some(()));
}

#[test]
fn the_next_master_takes_the_place_of_a_killed_one_at_once() {
    let first = Setup::new(&["-w", "1", "-l", &own_address(), "-l", "unix:{dir}/clients.sock"]).start_all();
    let mut client = Client::connect(first.addresses(2)[0].parse().expect("an address")).expect("connect");
    client.ask("/").expect("answer");
    first.signal(Signal::SIGKILL);
    let address = first.addresses(2)[0].clone();
    let (path, folder) = (first.folder().join("clients.sock"), first.end_and_keep_folder());
    assert!(path.exists(), "a killed master leaves its socket's file");
    // The client's old connection is still there, and so is the file.
    let unix = format!("unix:{}", path.display());
    let second = Setup::new(&["-w", "1", "-l", &address, "-l", &unix]).start_all();
    Client::connect(address.parse().expect("an address")).expect("connect").ask("/").expect("TCP");
    Client::connect_unix(&path).expect("connect").ask("/").expect("Unix");
    second.stop();
    assert!(!path.exists());
    drop(folder);
}
