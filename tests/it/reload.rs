//! New workers in place of the old ones: slot by slot, and no client notices.

use std::net::Ipv4Addr;
use std::{fs, thread};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::harness::{Client, Haft, Load, Setup, Status, addresses_of, eventually, is_running, signal};

fn ask(haft: &Haft, slot: usize, slots: usize) -> (usize, u64) {
    let from = addresses_of(slot, slots).next().expect("an address");
    let answer = Client::asking(haft, from).receive().expect("an answer");
    (answer.slot, answer.worker)
}

fn is_under_way(status: &Status) -> bool {
    status.0["reload"]["state"] == "under_way"
}

/// With workers of which the first `count` get ready at once, and the others when their gate is opened.
fn gated(flags: &[&str], count: usize) -> Haft {
    let setup = Setup::new(flags).mode("gate");
    (1..=count).for_each(|worker| setup.open_gate(&format!("gate-{worker}")));
    setup.start_all()
}

#[test]
fn slot_by_slot_the_new_worker_serves_new_clients_and_the_old_one_finishes_what_it_has() {
    let mut haft = gated(&["-w", "3", "--drain-timeout", "1h"], 3);
    let busy: Vec<Client> =
        (0..3).map(|slot| Client::half_asking(&haft, addresses_of(slot, 3).next().expect("an address"))).collect();
    haft.wait("they are taken", |status| status.delivered() == 3);
    let (code, text) = haft.post("/reload");
    assert_eq!(code, 202, "{text}");
    assert!(text.contains("reload to generation 1 has begun, 3 slots one after another"), "{text}");

    for slot in 0..3 {
        let done: Vec<u64> = (0..3).map(|at| u64::from(at < slot)).collect();
        let status = haft.wait("those before it are done", |status| status.of_each("generation") == done);
        assert!(is_under_way(&status) && status.all_ready(), "{status:?}");
        // Those who fill the slots, those who finish, and one that is to be ready.
        eventually("the newcomer is started", || (haft.children().len() == 3 + slot + 1).then_some(()));
        assert_eq!(ask(&haft, slot, 3), (slot, slot as u64 + 1), "the old worker serves meanwhile");
        let newcomer = slot as u64 + 4;
        haft.open_gate(&format!("gate-{newcomer}"));
        let status = haft.wait("it takes over", |status| status.of_slot(slot, "worker") == newcomer);
        assert_eq!(status.of_slot(slot, "draining_workers"), 1);
        assert_eq!(ask(&haft, slot, 3), (slot, newcomer));
    }
    let status = haft.wait("it is done", |status| status.number("reloads_done") == 1);
    assert_eq!((&status.0["reload"]["state"], status.number("generation")), (&"done".into(), 1));
    haft.log().line_with("reloaded: all new clients are served by generation 1");

    for (slot, client) in busy.into_iter().enumerate() {
        let answer = client.finish();
        assert_eq!((answer.slot, answer.worker), (slot, slot as u64 + 1), "by the old worker");
    }
    haft.log().lines_with("worker has left: ended as asked (exit code 0)", 3);
    let status = haft.wait("the old ones are gone", |status| status.of_each("draining_workers") == [0; 3]);
    assert!(status.slots().all(|slot| slot["deaths_by_reason"] == serde_json::json!({"exit code 0": 1})), "{status:?}");
    assert_eq!(status.of_each("respawned"), [0; 3]);
    haft.stop();
}

#[test]
fn by_sighup_too_and_again_and_again_while_clients_come() {
    const RELOADS: u64 = 3;
    let haft = Setup::new(&["-w", "2", "--drain-timeout", "1h", "--hold-timeout", "1h"]).start_all();
    let load = Load::default();
    let asked = thread::scope(|scope| {
        let until = load.until();
        let clients: Vec<_> = (0..2_u8)
            .map(|thread| {
                let (haft, load) = (&haft, &load);
                scope.spawn(move || {
                    let mut asked = 0;
                    while load.goes_on() {
                        let from = Ipv4Addr::new(127, 0, 2 + thread, (asked % 250) as u8 + 1);
                        Client::asking(haft, from).receive().expect("an answer and no reset");
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        for reload in 1..=RELOADS {
            haft.signal(Signal::SIGHUP);
            eventually("it is done", || {
                let over = clients.iter().any(|client| client.is_finished());
                (over || haft.status().number("reloads_done") == reload).then_some(())
            });
        }
        until.over();
        clients.into_iter().map(|client| client.join().expect("a client")).sum::<u64>()
    });
    let status = eventually("the old ones are gone", || {
        Some(haft.status()).filter(|status| status.of_each("draining_workers") == [0; 2] && status.in_flight() == 0)
    });
    assert_eq!((status.delivered(), status.refused_in_all()), (asked, 0));
    assert_eq!(status.of_each("generation"), [RELOADS; 2]);
    let left = serde_json::json!({"exit code 0": RELOADS});
    assert!(status.slots().all(|slot| slot["deaths_by_reason"] == left), "{status:?}");
    haft.stop();
}

#[test]
fn a_second_request_meanwhile_is_refused_and_told_why() {
    let mut haft = gated(&["-w", "1"], 1);
    assert_eq!(haft.post("/reload").0, 202);
    let (code, text) = haft.post("/reload");
    assert_eq!(code, 409);
    assert!(text.contains("a reload is under way: wait for its end"), "{text}");
    haft.signal(Signal::SIGHUP);
    haft.log().line_with("SIGHUP, not done: a reload is under way");
    haft.open_gate("gate-2");
    let status = haft.wait("it is done", |status| status.number("reloads_done") == 1);
    assert_eq!((status.number("generation"), status.number("reloads_failed")), (1, 0));
    haft.open_gate("gate-3");
    assert_eq!(haft.post("/reload").0, 202, "and then another one");
    haft.wait("it is done", |status| status.number("reloads_done") == 2);
    haft.stop();
}

#[test]
fn old_workers_that_never_finish_do_not_pile_up() {
    // One process each, and the last to come finds that there are as many as there may be.
    const MOST: u64 = 31;
    let mut haft = Setup::new(&["-w", "1", "--drain-timeout", "1h"]).start_all();
    let mut busy = Vec::new();
    for reload in 1..=MOST {
        busy.push(Client::half_asking(&haft, Ipv4Addr::LOCALHOST));
        haft.wait("it is taken", |status| status.delivered() == reload);
        let (code, text) = haft.post("/reload");
        assert_eq!(code, 202, "old workers are no reason to refuse: {text}");
        haft.wait("it is done", |status| status.number("reloads_done") == reload);
    }
    let (code, text) = haft.post("/reload");
    assert!(code == 409 && text.contains("31 old workers still finish what they have"), "{code} {text}");
    assert!(text.contains("wait for some of them to end") && text.contains("--drain-timeout"), "{text}");
    busy.swap_remove(0).finish();
    haft.wait("one has finished", |status| status.of_slot(0, "draining_workers") == MOST - 1);
    assert_eq!(haft.post("/reload").0, 202);
    haft.wait("it is done", |status| status.number("reloads_done") == MOST + 1);
    busy.into_iter().for_each(|client| drop(client.finish()));
    haft.stop();
}

#[test]
fn a_new_version_that_does_not_become_ready_stops_the_reload_and_the_old_workers_stay() {
    let mut haft = Setup::new(&["-w", "2", "--drain-timeout", "1h"]).mode("sick").start_all();
    let workers = [haft.worker(0), haft.worker(1)];
    let mut open = Client::asking(&haft, Ipv4Addr::LOCALHOST);
    open.receive().expect("an answer");
    haft.open_gate("sick-0");
    assert_eq!(haft.post("/reload").0, 202);
    let status = haft.wait("it has failed", |status| status.number("reloads_failed") == 1);
    let told = "the new worker of slot 0 did not become ready; all old workers stay";
    assert_eq!(status.0["reload"]["state"], "failed");
    assert!(status.0["reload"]["description"].as_str().is_some_and(|text| text.contains(told)), "{status:?}");
    haft.log().line_with(told);
    haft.log().line_with("worker exited before it was ready: exit code 1");
    assert_eq!(haft.log().lines_with("slot 0: the new version is broken", 1).len(), 1);
    eventually("nobody else is there", || (haft.children() == workers).then_some(()));
    assert!(status.all_ready());
    assert_eq!((ask(&haft, 0, 2), ask(&haft, 1, 2)), ((0, 1), (1, 2)));
    open.ask("/").expect("the connection is still open");

    haft.close_gate("sick-0");
    assert_eq!(haft.post("/reload").0, 202, "the cured one");
    haft.wait("it is done", |status| status.number("reloads_done") == 1);
    for worker in workers {
        eventually("the old worker is gone", || (!is_running(worker)).then_some(()));
    }
    haft.stop();
}

#[test]
fn a_reload_that_stops_half_way_leaves_each_slot_with_its_own_version() {
    let mut haft = Setup::new(&["-w", "2"]).mode("sick").start_all();
    haft.open_gate("sick-1");
    assert_eq!(haft.post("/reload").0, 202);
    let status = haft.wait("it has failed", |status| status.number("reloads_failed") == 1);
    haft.log().line_with("slot 1 did not become ready; slot 0 has its new worker, all others keep the old ones");
    assert_eq!(status.of_each("generation"), [1, 0]);
    haft.close_gate("sick-1");
    // A worker that dies is replaced by one of its slot's own version.
    (0..2).for_each(|slot| signal(haft.worker(slot), Signal::SIGKILL));
    let replaced = |status: &Status| status.all_ready() && status.of_each("respawned") == [1, 1];
    assert_eq!(haft.wait("replaced", replaced).of_each("generation"), [1, 0]);
    haft.stop();
}

#[test]
fn a_node_program_is_reloaded_too_and_its_old_process_finishes_what_it_has() {
    let mut haft = Setup::new(&["-w", "1", "--drain-timeout", "1h"]).node().start_all();
    let old = haft.worker(0);
    let mut busy = Client::connect(haft.address()).expect("connect");
    busy.write(b"GET /slow HTTP/1.1\r\nHost: haft\r\n").expect("half a request");
    haft.wait("it is taken", |status| status.delivered() == 1);
    haft.signal(Signal::SIGHUP);
    haft.wait("it is done", |status| status.number("reloads_done") == 1);
    let new = haft.worker(0);
    assert_ne!(old, new);
    let mut client = Client::asking(&haft, Ipv4Addr::LOCALHOST);
    assert_eq!(client.receive_body().expect("an answer"), new.to_string());
    busy.write(b"\r\n").expect("the other half");
    assert_eq!(busy.receive_body().expect("its answer"), old.to_string());
    drop(busy);
    eventually("the old one leaves", || (!is_running(old)).then_some(()));
    haft.log().line_with("worker has left: ended as asked (exit code 0)");
    haft.stop();
}

#[test]
fn a_configuration_that_stalls_costs_the_reload_and_not_the_service() {
    let setup = Setup::new(&["-w", "1", "-c", "{dir}/haft.yaml"]);
    let file = setup.folder().join("haft.yaml");
    fs::write(&file, "hold-timeout: 5s\n").expect("write");
    let haft = setup.start_all();
    fs::remove_file(&file).expect("remove");
    // Opening it waits for a writer, and there is none.
    mkfifo(&file, Mode::S_IRUSR | Mode::S_IWUSR).expect("a pipe");
    let (code, text) = haft.post("/reload");
    assert!(code >= 400 && text.contains("the configuration could not be read in time"), "{code} {text}");
    haft.signal(Signal::SIGHUP);
    haft.log().line_with("an earlier reload waits for it still");
    assert_eq!(ask(&haft, 0, 1), (0, 1));
    // The reader goes on, and the next reload with it.
    fs::write(&file, "hold-timeout: 6s\n").expect("a reader");
    fs::remove_file(&file).expect("remove");
    fs::write(&file, "hold-timeout: 7s\n").expect("write");
    let (code, text) = eventually("the reader has ended", || {
        let (code, text) = haft.post("/reload");
        (!text.contains("earlier reload")).then_some((code, text))
    });
    assert_eq!(code, 202, "{text}");
}
