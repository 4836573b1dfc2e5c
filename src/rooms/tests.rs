//! The relay as its members see it, over real sockets.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::{RoomsThread, RoomsTotals};
use haft_worker::protocol::rooms::{self as frame, ALL, Kind, Reader};

/// Far more than it ever takes: it bounds a failure.
const DEADLINE: Duration = Duration::from_secs(30);

struct Member {
    stream: UnixStream,
    reader: Reader,
    number: u64,
}

impl Member {
    /// One that was welcomed.
    fn new(rooms: &mut RoomsThread) -> Self {
        let stream = UnixStream::from(rooms.attach().expect("a link"));
        stream.set_nonblocking(false).expect("blocking");
        stream.set_read_timeout(Some(DEADLINE)).expect("a limit");
        stream.set_write_timeout(Some(DEADLINE)).expect("a limit");
        let mut member = Self { stream, reader: Reader::default(), number: 0 };
        let (kind, number, body) = member.next();
        assert_eq!((kind, &body[..]), (Kind::Welcome, &[frame::VERSION][..]));
        member.number = number;
        member
    }

    /// One that has sent READY, and knows `others`.
    fn ready(rooms: &mut RoomsThread, body: &str, others: &mut [&mut Self]) -> Self {
        let mut member = Self::new(rooms);
        member.say(Kind::Ready, 0, body.as_bytes());
        let mut received: Vec<_> = others.iter().map(|_| member.next()).map(|(kind, other, _)| (kind, other)).collect();
        received.sort_by_key(|(_, other)| *other);
        assert_eq!(received, others.iter().map(|other| (Kind::Ready, other.number)).collect::<Vec<_>>());
        for other in others {
            assert_eq!(other.next(), (Kind::Ready, member.number, body.into()));
        }
        member
    }

    fn say(&mut self, kind: Kind, member: u64, body: &[u8]) {
        self.stream.write_all(&frame::write(kind, member, body)).expect("written");
    }

    fn next(&mut self) -> (Kind, u64, Vec<u8>) {
        loop {
            if let Some(frame) = self.reader.take().expect("a frame") {
                return (frame.kind, frame.member, frame.body().to_vec());
            }
            let mut bytes = [0; 65536];
            let count = self.stream.read(&mut bytes).expect("something to read");
            assert!(count > 0, "the relay has let go of this member");
            self.reader.room().extend_from_slice(&bytes[..count]);
        }
    }
}

fn wait_for(rooms: &RoomsThread, state: impl Fn(&RoomsTotals) -> bool) {
    let until = Instant::now() + DEADLINE;
    while !state(&rooms.totals()) {
        assert!(Instant::now() < until, "{:?}", rooms.totals());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn dropped(totals: &RoomsTotals, why: &str) -> u64 {
    totals.dropped.get(why).copied().unwrap_or_default()
}

#[test]
fn a_message_goes_to_all_others_or_to_one_in_the_order_of_its_sender() {
    let mut rooms = RoomsThread::default();
    let mut a = Member::ready(&mut rooms, "a", &mut []);
    let mut b = Member::ready(&mut rooms, "b", &mut [&mut a]);
    let mut c = Member::ready(&mut rooms, "c", &mut [&mut a, &mut b]);
    for number in 0..1000_u32 {
        a.say(Kind::Message, if number % 3 == 0 { b.number } else { ALL }, &number.to_be_bytes());
    }
    for number in 0..1000_u32 {
        let expected = (Kind::Message, a.number, number.to_be_bytes().to_vec());
        assert_eq!(b.next(), expected);
        if number % 3 > 0 {
            assert_eq!(c.next(), expected);
        }
    }
    c.say(Kind::Message, ALL, b"long".repeat(1 << 20).as_slice());
    assert_eq!(a.next().2.len(), 4 << 20);
    assert_eq!(b.next().2.len(), 4 << 20);
    let totals = rooms.totals();
    assert_eq!((totals.members, totals.messages, totals.deliveries), (3, 1001, 1000 + 666 + 2));
    assert!(totals.dropped.values().all(|count| *count == 0), "{totals:?}");
}

#[test]
fn an_end_is_body_to_those_who_read_behind_what_the_member_has_sent() {
    let mut rooms = RoomsThread::default();
    let mut a = Member::ready(&mut rooms, "a", &mut []);
    let mut b = Member::ready(&mut rooms, "b", &mut [&mut a]);
    let number = b.number;
    b.say(Kind::Message, ALL, b"last");
    drop(b);
    assert_eq!(a.next(), (Kind::Message, number, b"last".to_vec()));
    assert_eq!(a.next(), (Kind::Lost, number, Vec::new()));
    a.say(Kind::Message, number, b"too late");
    wait_for(&rooms, |totals| dropped(totals, "left") == 1 && totals.members == 1);
    // One that never sent READY comes and goes unnoticed.
    drop(Member::new(&mut rooms));
    let mut c = Member::ready(&mut rooms, "c", &mut [&mut a]);
    c.say(Kind::Message, a.number, b"hello");
    assert_eq!(a.next(), (Kind::Message, c.number, b"hello".to_vec()));
}

#[test]
fn what_is_sent_before_a_member_reads_is_kept_for_it() {
    let mut rooms = RoomsThread::default();
    let mut a = Member::ready(&mut rooms, "a", &mut []);
    let mut b = Member::new(&mut rooms);
    a.say(Kind::Message, ALL, b"early");
    wait_for(&rooms, |totals| totals.deliveries == 1);
    b.say(Kind::Ready, 0, b"b");
    assert_eq!(b.next(), (Kind::Message, a.number, b"early".to_vec()));
    assert_eq!(b.next(), (Kind::Ready, a.number, b"a".to_vec()));
    // To be ready twice is to be ready.
    b.say(Kind::Ready, 0, b"again");
    assert_eq!(a.next(), (Kind::Ready, b.number, b"b".to_vec()));
    b.say(Kind::Message, ALL, b"hello");
    assert_eq!(a.next().0, Kind::Message);
}

/// The others get everything meanwhile, and the one that does not read gets the rest in order once it reads.
#[test]
fn a_member_that_does_not_read_loses_its_own_alone() {
    let mut rooms = RoomsThread::default();
    let mut a = Member::ready(&mut rooms, "a", &mut []);
    let mut b = Member::ready(&mut rooms, "b", &mut [&mut a]);
    let mut c = Member::ready(&mut rooms, "c", &mut [&mut a, &mut b]);
    let body = vec![7; 1 << 20];
    let count = 50;
    for _ in 0..count {
        a.say(Kind::Message, ALL, &body);
        assert_eq!(b.next().2.len(), body.len());
    }
    wait_for(&rooms, |totals| totals.messages == count);
    let lost = dropped(&rooms.totals(), "unread");
    assert!(lost > 0 && lost < count, "{lost}");
    for _ in 0..count - lost {
        assert_eq!(c.next().2.len(), body.len());
    }
    a.say(Kind::Message, ALL, b"after");
    assert_eq!(c.next(), (Kind::Message, a.number, b"after".to_vec()));
    assert_eq!(rooms.totals().deliveries, 2 * count - lost + 2);
}

/// A worker that was given a link, and never uses it: nothing waits for it, and nothing is lost.
#[test]
fn a_link_that_is_not_used_costs_nothing() {
    let mut rooms = RoomsThread::default();
    let mut a = Member::ready(&mut rooms, "a", &mut []);
    let mut b = Member::ready(&mut rooms, "b", &mut [&mut a]);
    let unused = UnixStream::from(rooms.offer().expect("a link"));
    let body = vec![7; 1 << 20];
    for _ in 0..40 {
        a.say(Kind::Message, ALL, &body);
        assert_eq!(b.next().2.len(), body.len());
    }
    let totals = rooms.totals();
    assert_eq!((totals.members, totals.messages, totals.deliveries), (2, 40, 40));
    assert!(totals.dropped.values().all(|count| *count == 0), "{totals:?}");
    drop(unused);
    a.say(Kind::Message, ALL, b"after");
    assert_eq!(b.next(), (Kind::Message, a.number, b"after".to_vec()));
}

#[test]
fn what_is_no_frame_costs_its_sender_alone() {
    let mut rooms = RoomsThread::default();
    let mut a = Member::ready(&mut rooms, "a", &mut []);
    let mut b = Member::ready(&mut rooms, "b", &mut [&mut a]);
    b.stream.write_all(&[0xff; 64]).expect("written");
    assert_eq!(a.next(), (Kind::Lost, b.number, Vec::new()));
    assert_eq!(b.stream.read(&mut [0; 16]).expect("the end"), 0);
    let mut c = Member::ready(&mut rooms, "c", &mut [&mut a]);
    c.say(Kind::Lost, 5, &[]);
    c.say(Kind::Welcome, 5, &[]);
    c.say(Kind::Message, ALL, b"hello");
    assert_eq!(a.next(), (Kind::Message, c.number, b"hello".to_vec()));
    assert_eq!(dropped(&rooms.totals(), "unsent"), 5);
}
