//! Sessions with workers that behave and with workers that do not.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::{body_of, with_frame};
use crate::ids::WorkerId;
use crate::node::wire::{Decision, Serialization, Servers};
use crate::node::wire::{
    Delivery, Handle, IpcEffect, IpcViolation, ListenOutcome, ListenRefusal, ListenReply, MAX_FRAME, MAX_QUEUED,
    ReturnReason, ServerId, Session, SharedKind,
};

const KEY: &str = "null:3000:4:undefined";

fn session(serialization: Serialization) -> Session {
    Session::new(serialization, b"a message with a descriptor\n".as_slice().into())
}

/// What a message, given as JSON, does to a session; connections by their number.
fn receive(
    session: &mut Session,
    serialization: Serialization,
    json: &str,
) -> Result<IpcEffect<'static>, IpcViolation> {
    with_frame(serialization, &body_of(serialization, json), |frame| {
        Ok(match session.receive(frame)? {
            IpcEffect::Nothing => IpcEffect::Nothing,
            IpcEffect::Taken { connection } => IpcEffect::Taken { connection },
            IpcEffect::Returned { connection, why } => IpcEffect::Returned { connection, why },
            IpcEffect::ServerReturned { server, query } => IpcEffect::ServerReturned { server, query },
            IpcEffect::Ask(_) => IpcEffect::Online,
            IpcEffect::Leaving => IpcEffect::Leaving,
            IpcEffect::Descriptor => IpcEffect::Descriptor,
            IpcEffect::Pong => IpcEffect::Pong,
            IpcEffect::LaneWanted => IpcEffect::LaneWanted,
            IpcEffect::LaneOpen => IpcEffect::LaneOpen,
            IpcEffect::Took { count } => IpcEffect::Took { count },
            _ => IpcEffect::Message,
        })
    })
}

/// Gives everything that waits to the kernel: what was sent, and the descriptors in their order.
fn send_all(session: &mut Session) -> (Vec<u8>, Vec<Handle>) {
    let (mut sent, mut handles) = (Vec::new(), Vec::new());
    while let Some((bytes, handle)) = session.next() {
        sent.extend_from_slice(bytes);
        handles.extend(handle);
        let len = bytes.len();
        session.sent(len).expect("whole");
    }
    (sent, handles)
}

const ACK: &str = r#"{"cmd":"NODE_HANDLE_ACK"}"#;
const NACK: &str = r#"{"cmd":"NODE_HANDLE_NACK"}"#;

fn accepted(ack: u64, accepted: bool) -> String {
    format!(r#"{{"cmd":"NODE_CLUSTER","ack":{ack},"accepted":{accepted},"seq":1}}"#)
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Connect {
        by_message: bool,
    },
    Disconnect,
    SendOne,
    /// The worker gets to the next descriptor, and then to its answer, if it gives one.
    Arrive {
        has_descriptor: bool,
    },
    Answer {
        accepts: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => any::<bool>().prop_map(|by_message| Step::Connect { by_message }),
        1 => Just(Step::Disconnect),
        4 => Just(Step::SendOne),
        4 => prop::bool::weighted(0.8).prop_map(|has_descriptor| Step::Arrive { has_descriptor }),
        4 => prop::bool::weighted(0.8).prop_map(|accepts| Step::Answer { accepts }),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    /// With a worker that answers as Node does, each connection is taken or comes back exactly once, for the right
    /// reason, and what is in flight is what is neither.
    #[test]
    fn each_connection_is_settled_once(steps in steps(), advanced: bool) {
        let serialization = if advanced { Serialization::Advanced } else { Serialization::Json };
        let mut session = session(serialization);
        // What the worker has before it: connections with their messages' numbers, then those whose answer is due.
        let (mut arriving, mut answering) = (VecDeque::new(), VecDeque::new());
        let (mut seq, mut seqs, mut settled) = (0, Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Connect { by_message } => {
                    let delivery = if by_message { Delivery::Message } else { Delivery::Server { key: KEY } };
                    prop_assert_eq!(session.connection(delivery, None), seqs.len() as u64);
                    seqs.push((!by_message).then_some(seq));
                    seq += u64::from(!by_message);
                }
                Step::Disconnect => {
                    session.disconnect(Duration::from_secs(9), None);
                    seq += 1;
                }
                Step::SendOne => if let Some((bytes, handle)) = session.next() {
                    let len = bytes.len();
                    session.sent(len).expect("whole");
                    if let Some(Handle::Connection(number)) = handle {
                        arriving.push_back(number);
                    }
                },
                Step::Arrive { has_descriptor } => if let Some(number) = arriving.pop_front() {
                    let effect = receive(&mut session, serialization, if has_descriptor { ACK } else { NACK });
                    let expected = match (has_descriptor, seqs[number as usize]) {
                        (false, _) => IpcEffect::Returned { connection: number, why: ReturnReason::NoDescriptor },
                        (true, None) => IpcEffect::Taken { connection: number },
                        (true, Some(seq)) => {
                            answering.push_back((number, seq));
                            IpcEffect::Nothing
                        }
                    };
                    if expected != IpcEffect::Nothing {
                        settled.push(number);
                    }
                    prop_assert_eq!(effect.expect("received"), expected);
                },
                Step::Answer { accepts } => if let Some((number, seq)) = answering.pop_front() {
                    let effect = receive(&mut session, serialization, &accepted(seq, accepts)).expect("received");
                    prop_assert_eq!(effect, match accepts {
                        true => IpcEffect::Taken { connection: number },
                        false => IpcEffect::Returned { connection: number, why: ReturnReason::NotAccepted },
                    });
// A repeated answer has no effect.
                    prop_assert_eq!(receive(&mut session, serialization, &accepted(seq, true)).expect("received"), IpcEffect::Nothing);
                    settled.push(number);
                },
            }
            prop_assert_eq!(session.in_flight() + settled.len(), seqs.len());
            prop_assert_eq!(session.room(500), 500 - session.in_flight());
        }
        let all = settled.len();
        settled.sort_unstable();
        settled.dedup();
        prop_assert_eq!(settled.len(), all);
    }

    /// A worker may say anything: it gives an effect or an error, and what is in flight never becomes more.
    #[test]
    fn any_worker_is_survived(
        lines in prop::collection::vec(
            prop_oneof![
                Just(ACK.to_owned()),
                Just(NACK.to_owned()),
                (0..30u64, any::<bool>()).prop_map(|(ack, yes)| accepted(ack, yes)),
                (0..4u64).prop_map(|seq| format!(r#"{{"cmd":"NODE_CLUSTER","act":"exitedAfterDisconnect","seq":{seq}}}"#)),
                Just(r#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":1}"#.to_owned()),
            ],
            0..60,
        ),
        connections in 0..20usize,
        sent in 0..30usize,
    ) {
        let mut session = session(Serialization::Json);
        for at in 0..connections {
            let stated = (at % 2 == 0).then(|| SocketAddr::from(([203, 0, 113, 9], 4711)));
            session.connection(if at % 3 == 0 { Delivery::Message } else { Delivery::Server { key: KEY } }, stated);
        }
        for _ in 0..sent {
            let Some(len) = session.next().map(|(bytes, _)| bytes.len()) else { break };
            session.sent(len).expect("whole");
        }
        let mut settled = Vec::new();
        for line in lines {
            match receive(&mut session, Serialization::Json, &line) {
                Ok(IpcEffect::Taken { connection } | IpcEffect::Returned { connection, .. }) => settled.push(connection),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        prop_assert_eq!(session.in_flight() + settled.len(), connections);
        prop_assert!(settled.iter().all(|number| (*number as usize) < sent.min(connections)));
    }
}

#[test]
fn what_was_never_sent_cannot_be_answered() {
    for line in [ACK, NACK] {
        let mut session = session(Serialization::Json);
        session.connection(Delivery::Message, None);
        assert!(matches!(receive(&mut session, Serialization::Json, line), Err(IpcViolation::NothingToAcknowledge)));
    }
    let mut session = session(Serialization::Json);
    session.connection(Delivery::Server { key: KEY }, None);
    assert_eq!(
        receive(&mut session, Serialization::Json, &accepted(0, true)).expect("not sent yet"),
        IpcEffect::Nothing
    );
    let error = receive(&mut session, Serialization::Json, &accepted(1, true)).expect_err("never sent");
    assert!(matches!(error, IpcViolation::AnsweredUnsent { ack: 1, sent: 1 }), "{error}");
    assert_eq!(session.in_flight(), 1);
    let error =
        with_frame(Serialization::Json, b"", |frame| session.receive(frame).map(drop)).expect_err("an empty line");
    assert!(matches!(error, IpcViolation::Malformed(_)), "{error}");
}

#[test]
fn a_worker_that_leaves_is_answered_and_asks_no_more() {
    for serialization in [Serialization::Json, Serialization::Advanced] {
        let query = r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"port":3000,"addressType":4,"seq":5}"#;
        let leaves = r#"{"cmd":"NODE_CLUSTER","act":"exitedAfterDisconnect","seq":32}"#;
        let mut session = session(serialization);
        assert_eq!(receive(&mut session, serialization, query).expect("asks"), IpcEffect::Online);
        assert_eq!(receive(&mut session, serialization, leaves).expect("leaves"), IpcEffect::Leaving);
        assert_eq!(receive(&mut session, serialization, query).expect("asks"), IpcEffect::Nothing);
        assert!(session.is_leaving());
        let (sent, _) = send_all(&mut session);
        if serialization == Serialization::Json {
            assert_eq!(sent, b"{\"cmd\":\"NODE_CLUSTER\",\"ack\":32,\"seq\":0}\n");
        }
    }
}

#[test]
fn a_descriptor_of_the_worker_s_is_acknowledged_once() {
    let mut session = session(Serialization::Json);
    let line = r#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{"cmd":"NODE_HANDLE_ACK"}}"#;
    assert_eq!(receive(&mut session, Serialization::Json, line).expect("received"), IpcEffect::Descriptor);
    assert_eq!(send_all(&mut session).0, b"{\"cmd\":\"NODE_HANDLE_ACK\"}\n");
}

#[test]
fn a_shared_socket_that_did_not_arrive_is_sent_again() {
    let mut session = session(Serialization::Json);
    let answer = ListenReply { key: "k", data: None, outcome: ListenOutcome::Shared(SharedKind::Udp) };
    let handle = Handle::Server { server: ServerId::OWN, query: 4 };
    session.answer(4, ServerId::OWN, &answer);
    assert_eq!(send_all(&mut session).1, [handle]);
    let effect = receive(&mut session, Serialization::Json, NACK).expect("received");
    assert_eq!(effect, IpcEffect::ServerReturned { server: ServerId::OWN, query: 4 });
    session.answer(4, ServerId::OWN, &answer);
    assert_eq!(send_all(&mut session).1, [handle]);
    assert_eq!(receive(&mut session, Serialization::Json, ACK).expect("received"), IpcEffect::Nothing);
    assert_eq!(session.in_flight(), 0);
}

#[test]
fn a_refusal_reaches_the_worker_as_a_negative_number() {
    let mut servers = Servers::new(Default::default(), "/".into());
    let line = r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"fd":7,"port":null,"addressType":null,"seq":3}"#;
    let refusal: ListenRefusal = with_frame(Serialization::Json, line.as_bytes(), |frame| {
        let Ok(IpcEffect::Ask(query)) = session(Serialization::Json).receive(frame) else { panic!("asks") };
        match servers.ask(WorkerId(1), &query) {
            Decision::Refuse(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    });
    let mut session = session(Serialization::Json);
    session.refuse(3, &refusal);
    let expected =
        "{\"cmd\":\"NODE_CLUSTER\",\"errno\":-95,\"key\":\"null:null:null:7\",\"ack\":3,\"data\":null,\"seq\":0}\n";
    assert_eq!(String::from_utf8_lossy(&send_all(&mut session).0), expected);
}

#[test]
fn what_waits_for_a_worker_that_does_not_read_is_bounded() {
    let mut session = session(Serialization::Json);
    let long = vec![b' '; 1 << 20];
    let mut forwarded = 0;
    while session.forward(&long) {
        forwarded += 1;
    }
    assert_eq!(forwarded, MAX_QUEUED / long.len());
    // Room again, messages again.
    session.sent(long.len()).expect("plain");
    assert!(session.forward(&long));
    let line = r#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":1}"#;
    assert_eq!(receive(&mut session, Serialization::Json, line).expect("little"), IpcEffect::Descriptor);
}

#[test]
fn a_worker_that_asks_and_does_not_read_is_given_up() {
    let mut session = session(Serialization::Json);
    // As much as may wait, and the longest message on top: that alone is no reason.
    assert!(session.forward(&vec![b' '; MAX_QUEUED - 1]));
    assert!(session.forward(&vec![b' '; MAX_FRAME]));
    let line = r#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":1}"#;
    let asked = (1..100_000).find(|_| match receive(&mut session, Serialization::Json, line) {
        Ok(effect) => effect != IpcEffect::Descriptor,
        Err(violation) => matches!(violation, IpcViolation::DoesNotRead { .. }),
    });
    assert!(asked.is_some_and(|asked| asked > 10_000), "{asked:?}");
}

/// Warm, a connection is written without a new allocation: the room stays where it was.
#[test]
fn connections_are_written_into_the_room_that_is_there() {
    let mut session = session(Serialization::Json);
    for round in 0..50 {
        for _ in 0..64 {
            session.connection(Delivery::Server { key: KEY }, None);
        }
        let before = session.held();
        send_all(&mut session);
        for at in 0..64 {
            receive(&mut session, Serialization::Json, ACK).expect("ack");
            receive(&mut session, Serialization::Json, &accepted(round * 64 + at, true)).expect("accepted");
        }
        assert_eq!((session.in_flight(), session.held()), (0, before));
    }
}

#[test]
fn a_ping_is_answered_behind_the_descriptors_before_it_and_none_may_follow_it_until_then() {
    for serialization in [Serialization::Json, Serialization::Advanced] {
        let mut session = session(serialization);
        session.connection(Delivery::Message, None);
        session.connection(Delivery::Message, None);
        session.ping();
        session.ping();
        assert!(session.is_pinging());
        assert_eq!(session.room(100), 0);
        assert_eq!(send_all(&mut session).1.len(), 2, "no descriptor goes with it");
        let mut say = |json| receive(&mut session, serialization, json).expect("no violation");
        assert_eq!(say(ACK), IpcEffect::Taken { connection: 0 });
        assert_eq!(say(NACK), IpcEffect::Returned { connection: 1, why: ReturnReason::NoDescriptor });
        assert_eq!(say(NACK), IpcEffect::Pong);
        assert_eq!((session.is_pinging(), session.room(100)), (false, 100));
        assert!(receive(&mut session, serialization, NACK).is_err(), "only once");
        session.ping();
        assert!(receive(&mut session, serialization, ACK).is_err(), "there is no descriptor to arrive");
    }
}
