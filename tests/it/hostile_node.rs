//! A Node program that breaks the rules of its channel costs itself only: it is ended and replaced, or what it says is
//! dropped; either is counted, and no other worker's client notices.

use crate::harness::{Client, Haft, Setup, addresses_of};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/hostile_node.cjs");

/// A client of a slot, and the process that serves it.
fn client(haft: &Haft, slot: usize, path: &str) -> (Client, u32) {
    let from = addresses_of(slot, 2).next().expect("an address");
    let mut client = Client::connect_from(from, haft.address()).expect("connect");
    let pid = ask(&mut client, path);
    (client, pid)
}

fn ask(client: &mut Client, path: &str) -> u32 {
    client.send(path).expect("send");
    client.receive_body().expect("an answer").parse().expect("a process")
}

/// Has the bad process do `how`.
fn after(how: &str) -> Haft {
    let haft = Setup::new(&["-w", "2", "--hold-timeout", "1h"]).command(&["node", PROGRAM]).start_all();
    let (mut other, served_by) = client(&haft, 1, "/");
    let first = haft.worker(0);
    assert_eq!(client(&haft, 0, &format!("/break/{how}")).1, first);
    assert_eq!(ask(&mut other, "/"), served_by, "another worker's client");
    haft
}

fn is_replaced(how: &str, complaint: &str) {
    let mut haft = after(how);
    let status = haft.wait("replaced", |status| status.of_slot(0, "respawned") == 1 && status.all_ready());
    if !complaint.is_empty() {
        haft.log().line_with(complaint);
        assert_eq!(status.0["slots"][0]["deaths_by_reason"]["signal SIGKILL"], 1);
    }
    assert_eq!((status.of_slot(1, "respawned"), status.refused_in_all()), (0, 0));
    assert_eq!(client(&haft, 0, "/").1, haft.worker(0));
    haft.stop();
}

fn lives_on(how: &str, metric: &str) {
    let mut haft = after(how);
    let (_, bad) = client(&haft, 0, "/");
    let counted = |haft: &Haft| haft.page("/metrics").is_some_and(|(_, text)| text.contains(&format!("\n{metric}\n")));
    crate::harness::eventually(metric, || counted(&haft).then_some(()));
    assert_eq!(client(&haft, 0, "/").1, bad, "the same process");
    haft.wait("no worker died", |status| status.all_ready() && status.of_each("respawned") == [0; 2]);
    haft.stop();
}

#[test]
fn what_is_no_message_ends_it() {
    is_replaced("no-json", "a line that is not JSON");
    is_replaced("bytes", "a line that is not JSON");
    is_replaced("empty-lines", "a line that is not JSON");
}

#[test]
fn answers_to_what_was_never_said_end_it() {
    is_replaced("ack", "acknowledged a descriptor that was never sent");
    is_replaced("nack", "acknowledged a descriptor that was never sent");
    is_replaced("reply", "answered message 99999, but only those below");
}

#[test]
fn one_that_closes_its_channel_is_replaced() {
    is_replaced("disconnect", "");
    is_replaced("half", "");
}

#[test]
fn values_that_mean_nothing_are_counted() {
    // Those that are marked as Node's own reach no program.
    lives_on("values", "haft_node_messages_total 6");
}

#[test]
fn a_line_that_is_too_long_is_dropped_and_counted() {
    lives_on("huge", "haft_node_messages_dropped_total 1");
}

#[test]
fn descriptors_for_the_master_are_closed_and_their_messages_counted() {
    lives_on("descriptors", "haft_node_messages_total 20");
}
