//! Connections on a lane beside those on the channel.

use super::{body_of, with_frame};
use crate::node::wire::{
    Delivery, Handle, IpcEffect, IpcViolation, ListenOutcome, ListenReply, ReturnReason, Serialization, ServerId,
    Session,
};

const KEY: &str = "null:3000:4:undefined";
const ACK: &str = r#"{"cmd":"NODE_HANDLE_ACK"}"#;
const BOTH: [Serialization; 2] = [Serialization::Json, Serialization::Advanced];

struct Worker {
    serialization: Serialization,
    session: Session,
}

impl Worker {
    fn new(serialization: Serialization) -> Self {
        Self { serialization, session: Session::new(serialization, b"unused\n".as_slice().into()) }
    }

    /// One that has a lane, with a server that takes its connections from there.
    fn with_lane(serialization: Serialization) -> Self {
        let mut worker = Self::new(serialization);
        assert_eq!(worker.say(r#"{"cmd":"NODE_HAFT","act":"lane"}"#), Ok("wanted".to_owned()));
        worker.session.offer_lane();
        assert_eq!(worker.send_all(), [Handle::Lane]);
        assert_eq!(worker.say(ACK), Ok("nothing".to_owned()));
        assert_eq!(worker.say(r#"{"cmd":"NODE_HAFT","act":"open"}"#), Ok("open".to_owned()));
        worker.listen();
        worker
    }

    fn listen(&mut self) {
        let outcome = ListenOutcome::HandOver { sockname: None, port: None };
        self.session.answer(1, ServerId::OWN, &ListenReply { key: KEY, data: None, outcome });
        self.send_all();
        assert_eq!(self.say(r#"{"cmd":"NODE_HAFT","act":"serves","server":1}"#), Ok("nothing".to_owned()));
    }

    fn say(&mut self, json: &str) -> Result<String, IpcViolation> {
        let session = &mut self.session;
        with_frame(self.serialization, &body_of(self.serialization, json), |frame| {
            Ok(match session.receive(frame)? {
                IpcEffect::Nothing => "nothing".to_owned(),
                IpcEffect::LaneWanted => "wanted".to_owned(),
                IpcEffect::LaneOpen => "open".to_owned(),
                IpcEffect::Took { count } => format!("took {count}"),
                IpcEffect::Returned { connection, why: ReturnReason::NotAccepted } => format!("back {connection}"),
                IpcEffect::Taken { connection } => format!("taken {connection}"),
                other => format!("{other:?}"),
            })
        })
    }

    fn connect(&mut self) -> u64 {
        self.session.connection(Delivery::Server { key: KEY }, None)
    }

    fn send_all(&mut self) -> Vec<Handle> {
        let mut handles = Vec::new();
        while let Some((bytes, handle)) = self.session.next() {
            handles.extend(handle);
            let len = bytes.len();
            self.session.sent(len).expect("whole");
        }
        handles
    }

    /// Sends so many on the lane; which ones those are.
    fn send_on_lane(&mut self, count: usize) -> Vec<u64> {
        let records = self.session.on_lane().take(count).map(|(record, number)| (record.len(), number));
        let (lengths, numbers): (Vec<_>, Vec<_>) = records.unzip();
        lengths.into_iter().for_each(|taken| self.session.sent_on_lane(taken).expect("whole"));
        numbers
    }
}

impl PartialEq for IpcViolation {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

#[test]
fn connections_on_a_lane_are_taken_together_or_come_back_one_by_one() {
    for serialization in BOTH {
        let mut worker = Worker::with_lane(serialization);
        assert_eq!([worker.connect(), worker.connect(), worker.connect(), worker.connect()], [0, 1, 2, 3]);
        assert_eq!(worker.send_all(), [], "nothing of it is on the channel");
        assert_eq!(worker.send_on_lane(4), [0, 1, 2, 3]);
        assert_eq!((worker.session.in_flight(), worker.session.room(9)), (4, 5));
        assert_eq!(worker.say(r#"{"cmd":"NODE_HAFT","act":"took","count":2}"#), Ok("took 2".to_owned()));
        assert_eq!([worker.session.next_taken(), worker.session.next_taken()], [Some(0), Some(1)]);
        assert_eq!(worker.say(r#"{"cmd":"NODE_HAFT","act":"back"}"#), Ok("back 2".to_owned()));
        assert_eq!(worker.session.in_flight(), 1);
    }
}

#[test]
fn a_server_that_was_not_named_or_is_closed_gets_its_connections_over_the_channel() {
    for serialization in BOTH {
        let mut worker = Worker::with_lane(serialization);
        let other = worker.session.connection(Delivery::Server { key: "another" }, None);
        assert_eq!(worker.send_all(), [Handle::Connection(other)]);
        let ours = worker.connect();
        let close = format!(r#"{{"cmd":"NODE_CLUSTER","act":"close","key":"{KEY}","seq":5}}"#);
        worker.say(&close).expect("a proper message");
        let late = worker.connect();
        assert_eq!((worker.send_on_lane(1), worker.send_all()), (vec![ours], vec![Handle::Connection(late)]));
        assert_eq!(worker.say(r#"{"cmd":"NODE_HAFT","act":"back"}"#), Ok(format!("back {ours}")));
    }
}

#[test]
fn a_worker_cannot_take_what_was_not_sent() {
    for serialization in BOTH {
        let mut worker = Worker::with_lane(serialization);
        assert_eq!([worker.connect(), worker.connect(), worker.connect()], [0, 1, 2]);
        worker.send_on_lane(1);
        for claim in [
            r#"{"cmd":"NODE_HAFT","act":"took","count":2}"#,
            r#"{"cmd":"NODE_HAFT","act":"took","count":9007199254740991}"#,
        ] {
            assert_eq!(worker.say(claim), Err(IpcViolation::NothingToAcknowledge));
        }
        assert_eq!(worker.say(r#"{"cmd":"NODE_HAFT","act":"back"}"#), Ok("back 0".to_owned()));
        assert_eq!(worker.say(r#"{"cmd":"NODE_HAFT","act":"back"}"#), Err(IpcViolation::NothingToAcknowledge));
    }
}

#[test]
fn without_a_lane_all_goes_over_the_channel() {
    for serialization in BOTH {
        let mut worker = Worker::new(serialization);
        for message in [r#"{"cmd":"NODE_HAFT","act":"open"}"#, r#"{"cmd":"NODE_HAFT","act":"serves","server":1}"#] {
            worker.say(message).expect("a proper message");
        }
        worker.listen();
        let number = worker.connect();
        assert_eq!(worker.send_all(), [Handle::Connection(number)]);
        assert!(!worker.session.has_on_lane());
    }
}

#[test]
fn a_second_lane_is_not_given() {
    let mut worker = Worker::with_lane(Serialization::Json);
    assert_eq!(worker.say(r#"{"cmd":"NODE_HAFT","act":"lane"}"#), Ok("nothing".to_owned()));
}
