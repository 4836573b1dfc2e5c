//! A worker that breaks the rules is ended and replaced; no connection is lost and no other slot notices.

use crate::harness::{Client, Setup, addresses_of};

/// A worker of slot 0 that says what `detail` names instead of its first acknowledgement.
fn breaks_the_rules(detail: &str, complaint: &str) {
    let mut haft = Setup::new(&["-w", "2", "--hold-timeout", "1h"]).mode(&format!("hostile:{detail}")).start_all();
    let mut others: Vec<Client> =
        addresses_of(1, 2).take(3).map(|from| Client::connect_from(from, haft.address()).expect("connect")).collect();
    let before: Vec<u32> = others.iter_mut().map(|client| client.ask("/").expect("answer").pid).collect();

    let mut victims: Vec<Client> = addresses_of(0, 2)
        .take(5)
        .map(|from| {
            let mut client = Client::connect_from(from, haft.address()).expect("connect");
            client.send("/").expect("send");
            client
        })
        .collect();
    for victim in &mut victims {
        let answer = victim.receive().expect("an answer and no reset");
        assert_eq!((answer.slot, answer.worker), (0, 3), "by the replacement");
    }
    haft.log().line_with(complaint);
    let after: Vec<u32> = others.iter_mut().map(|client| client.ask("/").expect("still open").pid).collect();
    assert_eq!(before, after);
    let status = haft.wait("all are settled", |status| status.in_flight() == 0);
    assert_eq!((status.delivered(), status.refused_in_all()), (8, 0));
    assert_eq!((status.of_slot(0, "respawned"), status.of_slot(1, "respawned")), (1, 0));
    assert_eq!(status.0["slots"][0]["deaths_by_reason"]["signal SIGKILL"], 1);
    haft.stop();
}

macro_rules! each {
    ($($name:ident: $detail:literal => $complaint:literal),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                breaks_the_rules($detail, $complaint);
            }
        )+
    };
}

each! {
    another_version: "wrong-version" => "version 9 of the hand-over protocol",
    an_unknown_kind: "unknown-kind" => "unknown frame kind 77",
    a_frame_of_the_master_s: "kind-of-the-master" => "broke the hand-over protocol",
    a_frame_too_long: "too-long" => "a frame of kind 130 with",
    a_frame_too_short: "too-short" => "a frame of kind 0 with 1 bytes",
    an_empty_frame: "empty" => "the other end of the channel was closed",
    more_taken_than_sent: "taken-beyond" => "took connections below",
    a_limit_lowered: "limit-lowered" => "lowered its limit",
    ready_twice: "ready-twice" => "it sent READY a second time",
    returned_twice: "returned-twice" => "returned 1 connections from",
    returned_more_than_sent: "returned-unsent" => "which are not all in flight to it",
    descriptors_for_the_master: "with-descriptors" => "a frame of kind 130 with descriptors",
    a_connection_sent_back: "returned-with-its-own" => "a frame of kind 131 with descriptors",
    no_socket_sent_back: "returned-with-null" => "a frame of kind 131 with descriptors",
    a_listener_sent_back: "returned-with-a-listener" => "a frame of kind 131 with descriptors",
    a_pipe_sent_back: "returned-with-a-pipe" => "a frame of kind 131 with descriptors",
    as_many_sent_back_as_can_be: "returned-with-many" => "a frame of kind 131 with descriptors",
    what_is_no_connection_for_another_slot: "given-another-s" => "a frame of kind 133 with",
}

#[test]
fn words_before_ready() {
    let mut haft = Setup::new(&["-w", "2"]).mode("hasty").start();
    haft.log().line_with("it sent a message before it was ready");
    let status = haft.wait("replaced", |status| status.all_ready());
    assert_eq!(status.of_slot(0, "respawned"), 1);
    haft.stop();
}
