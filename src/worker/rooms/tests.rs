//! A worker's end of the link; the test is haft.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::*;
use crate::protocol::rooms::{Frame, Reader};

/// Far more than it ever takes: it bounds a failure.
const DEADLINE: Duration = Duration::from_secs(30);

/// haft's end.
struct Relay {
    stream: UnixStream,
    reader: Reader,
}

impl Relay {
    fn new() -> (Self, Rooms) {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        ours.set_read_timeout(Some(DEADLINE)).expect("a limit");
        let rooms = Rooms::over(theirs.into()).expect("a link");
        (Self { stream: ours, reader: Reader::default() }, rooms)
    }

    fn say(&mut self, kind: Kind, member: u64, body: &[u8]) {
        self.stream.write_all(&write(kind, member, body)).expect("written");
    }

    fn next(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.reader.take().expect("a frame") {
                return frame;
            }
            let mut bytes = [0; 65536];
            let count = tokio::task::block_in_place(|| self.stream.read(&mut bytes)).expect("something to read");
            assert!(count > 0, "the link has ended");
            self.reader.room().extend_from_slice(&bytes[..count]);
        }
    }

    fn expect(&mut self, member: u64, body: &[u8]) {
        let frame = self.next();
        assert_eq!((frame.kind, frame.member, frame.body()), (Kind::Message, member, body));
    }
}

async fn until(rooms: &Rooms, state: impl Fn(&Rooms) -> bool) {
    let mut changes = rooms.changes();
    let changed = async {
        while !state(rooms) {
            changes.changed().await.expect("the link's owner is here");
        }
    };
    tokio::time::timeout(DEADLINE, changed).await.expect("in time");
}

fn topics(of: &[&str]) -> Vec<u8> {
    body::topics(of.iter().copied(), false)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_goes_to_those_that_listen() {
    let (mut relay, rooms) = Relay::new();
    assert_eq!(relay.next().kind, Kind::Ready);
    let mut received = rooms.listen("a", 1);
    relay.expect(ALL, &topics(&["a"]));
    for member in [7, 8] {
        relay.say(Kind::Ready, member, b"{}");
        // Each that comes gets the topics that are listened to here, and is asked for its own.
        relay.expect(member, &body::topics(["a"].into_iter(), true));
    }
    relay.say(Kind::Message, 7, &body::topics(["c"].into_iter(), true));
    relay.expect(7, &topics(&["a"]));
    let sent = body::message("b", b"hello").expect("short");
    // There is no known listener.
    rooms.publish("b", b"too early").await.expect("nothing to do");
    relay.say(Kind::Message, 7, &topics(&["a", "b"]));
    until(&rooms, |rooms| rooms.listening("b") == Some(vec![7])).await;
    rooms.publish("b", b"hello").await.expect("sent");
    relay.expect(7, &sent);
    relay.say(Kind::Message, 8, &topics(&["b"]));
    until(&rooms, |rooms| rooms.listening("b") == Some(vec![ALL])).await;
    rooms.publish("b", b"hello").await.expect("sent");
    relay.expect(ALL, &sent);
    assert_eq!((rooms.listeners("a"), rooms.listeners("b"), rooms.listeners("c")), (2, 2, 0));

    relay.say(Kind::Message, 8, b"what another program sends");
    relay.say(Kind::Message, 8, &body::message("a", b"one").expect("short"));
    relay.say(Kind::Message, 7, &body::message("a", b"two").expect("short"));
    for (from, payload) in [(8, &b"one"[..]), (7, b"two")] {
        assert_eq!(received.recv().await, Some(RoomsMessage { from, payload: Bytes::copy_from_slice(payload) }));
    }
    relay.say(Kind::Lost, 8, b"");
    until(&rooms, |rooms| rooms.state().others.keys().eq([&7])).await;
    assert_eq!((rooms.listeners("b"), rooms.others("b"), rooms.others("c")), (1, BTreeSet::from([7]), BTreeSet::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_listened_to_any_more_is_told() {
    let (mut relay, rooms) = Relay::new();
    relay.next();
    let received = rooms.listen("a", 1);
    relay.expect(ALL, &topics(&["a"]));
    drop(received);
    relay.say(Kind::Message, 9, &body::message("a", b"hello").expect("short"));
    relay.expect(ALL, &topics(&[]));
}

/// However much is published, no more than the bound waits; the end of the link lets go of all that wait.
#[tokio::test(flavor = "multi_thread")]
async fn who_publishes_waits_for_room_and_is_let_go_of_at_the_end() {
    let (mut relay, rooms) = Relay::new();
    relay.next();
    relay.say(Kind::Ready, 7, b"{}");
    relay.say(Kind::Message, 7, &topics(&["a"]));
    until(&rooms, |rooms| rooms.listening("a").is_some()).await;
    let payload = vec![0; 1 << 20];
    let publishing = rooms.clone();
    let task = tokio::spawn(async move {
        for _ in 0..100 {
            publishing.publish("a", &payload).await.expect("sent, or over");
        }
    });
    while rooms.0.room.available_permits() > 1 << 20 {
        tokio::task::yield_now().await;
    }
    assert!(!task.is_finished());
    drop(relay);
    tokio::time::timeout(DEADLINE, task).await.expect("in time").expect("no panic");
    until(&rooms, |rooms| rooms.state().others.is_empty()).await;
    rooms.publish("a", b"no listener").await.expect("nothing to do");
}

#[tokio::test]
async fn alone_there_is_nobody() {
    let rooms = Rooms::default();
    let _heard = rooms.listen("a", 1);
    rooms.publish("a", b"hello").await.expect("nothing to do");
    assert_eq!((rooms.others("a").len(), rooms.listeners("a")), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_may_be_too_long() {
    let (mut relay, rooms) = Relay::new();
    relay.next();
    let topic = "x".repeat(70_000);
    relay.say(Kind::Ready, 7, b"{}");
    relay.say(Kind::Message, 7, &topics(&["a"]));
    until(&rooms, |rooms| rooms.listening("a").is_some()).await;
    rooms.state().others.insert(8, BTreeSet::from([topic.clone()]));
    assert_eq!(rooms.publish(&topic, b"").await, Err(RoomsError::TooLong(70_000)));
    let long = vec![0; MAX_FRAME];
    assert_eq!(rooms.publish("a", &long).await, Err(RoomsError::TooLong(MAX_FRAME + 1)));
}
