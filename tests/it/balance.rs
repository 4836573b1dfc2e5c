//! The books balance slot by slot at every moment: while workers are replaced, slots come and go, and former workers hold
//! what they have not acknowledged. Reading the status asserts it (`harness/status.rs`).

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Client, Haft, Setup, Status, addresses_of};
use crate::kernel_queues::{answers, while_clients_come};

/// With workers that do not look at their channel while there is a file `deaf`.
fn deaf(flags: &[&str]) -> Haft {
    let patient = ["--hang-timeout", "1h", "--hold-timeout", "1h", "--drain-timeout", "1h"];
    let haft = Setup::new(&[flags, &patient].concat()).mode("deaf").start_all();
    haft.open_gate("deaf");
    haft
}

/// Clients of a slot, whose connections are sent to its worker and not acknowledged.
fn send(haft: &Haft, slot: usize, count: usize) -> Vec<Client> {
    addresses_of(slot, 2).take(count).map(|from| Client::asking(haft, from)).collect()
}

fn draining(status: &Status) -> Vec<&Value> {
    status.0["draining"].as_array().expect("rows").iter().collect()
}

#[test]
fn what_a_former_worker_holds_is_in_its_slot_s_books_and_in_a_row_of_its_own() {
    let mut haft = deaf(&["-w", "2"]);
    let former = haft.worker(0);
    let mut clients = send(&haft, 0, 3);
    haft.wait("they are sent", |status| status.of_slot(0, "in_flight") == 3);
    assert_eq!(haft.post("/reload").0, 202);
    let status = haft.wait("it is done", |status| status.number("reloads_done") == 1);
    assert_eq!((status.of_slot(0, "in_flight"), status.of_slot(0, "worker")), (3, 3), "by the former worker");
    let rows = draining(&status);
    let row = rows.iter().find(|row| row["slot"] == 0).expect("a row");
    assert_eq!((row["pid"].as_u64(), row["worker"].as_u64()), (Some(former.into()), Some(1)), "{row}");
    assert_eq!((row["generation"].as_u64(), row["in_flight"].as_u64()), (Some(0), Some(3)), "{row}");
    clients.extend(send(&haft, 0, 2));
    haft.wait("those are sent to the new one", |status| status.of_slot(0, "in_flight") == 5);
    let (_, metrics) = haft.page("/metrics").expect("metrics");
    assert!(metrics.contains("haft_worker_connections_in_flight{slot=\"0\"} 5"), "{metrics}");
    haft.close_gate("deaf");
    assert!(answers(clients).iter().all(|answer| answer.slot == 0));
    let status = haft.wait("the old ones are gone", |status| draining(status).is_empty());
    assert_eq!((status.in_flight(), status.delivered()), (0, 5));
    haft.stop();
}

#[test]
fn what_the_worker_of_a_removed_slot_holds_stays_in_the_books() {
    let mut haft = deaf(&["-w", "2"]);
    let clients = send(&haft, 1, 3);
    haft.wait("they are sent", |status| status.of_slot(1, "in_flight") == 3);
    assert_eq!(haft.post("/scale?workers=1").0, 202);
    let status = haft.wait("the slot is gone", |status| status.slots().count() == 1);
    assert_eq!(status.0["balance"][1]["in_flight"], 3, "{status:?}");
    assert_eq!(draining(&status).len(), 1);
    haft.close_gate("deaf");
    assert!(answers(clients).iter().all(|answer| answer.slot == 1));
    haft.wait("its worker is gone", |status| draining(status).is_empty() && status.in_flight() == 0);
    haft.stop();
}

#[test]
fn who_has_not_said_whom_it_wants_is_in_no_slot_s_books() {
    let mut haft = Setup::new(&["-w", "2", "--affinity", "session", "--peek-timeout", "1h"]).start_all();
    let silent: Vec<Client> = (0..3).map(|_| Client::connect(haft.address()).expect("connect")).collect();
    let status = haft.wait("they are looked at", |status| status.0["routing"]["peeking"] == 3);
    assert_eq!((status.in_flight(), status.held()), (3, 3));
    drop(silent);
    haft.stop();
}

#[test]
fn at_every_step_of_a_reload_and_of_scaling_under_load() {
    let haft = Setup::new(&["-w", "2", "--drain-timeout", "1h"]).start_all();
    while_clients_come(
        &haft,
        |_, _| (),
        || {
            let until = Instant::now() + Duration::from_secs(60);
            for (change, slots) in [("/reload", 2), ("/scale?workers=4", 4), ("/scale?workers=1", 1), ("/reload", 1)] {
                let reloads = haft.status().number("reloads_done") + u64::from(change == "/reload");
                assert_eq!(haft.post(change).0, 202, "{change}");
                // Each read asserts the books.
                while Instant::now() < until {
                    let status = haft.status();
                    let is_done = status.slots().count() == slots && status.number("reloads_done") == reloads;
                    if is_done && status.all_ready() && draining(&status).is_empty() {
                        break;
                    }
                }
            }
        },
    );
    assert_eq!(haft.status().refused_in_all(), 0);
    haft.stop();
}
