//! A link over a real channel, with the worker's end in the test's hand.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use socket2::SockRef;

use super::*;
use crate::addr::EndAddr;
use crate::handover::haft::{Entry, FromWorker, MasterMessage, WorkerEnd};
use crate::handover::in_flight::REST;
use crate::route::Key;
use crate::route::Prefix;
use crate::sys::scm::Sent;

/// What receiving yields when there is no more.
const HEARD_OUT: bool = true;

/// A link whose worker is ready, with the ledger and the queue of its slot.
struct Fixture {
    link: Link,
    worker: WorkerEnd,
    held: VecDeque<ClientConnection>,
    ledger: Ledger,
    news: Vec<WorkerEvent>,
    now: Instant,
    /// How often the worker was asked to say something.
    pings: u32,
    /// Connections made; each is identified by its client's port.
    made: u16,
}

impl Fixture {
    fn new() -> Self {
        let (end, channel) = MasterEnd::pair().expect("pair");
        let link = Link::haft(WorkerId(1), Slot(0), end);
        let worker = WorkerEnd::new(channel);
        let ledger = Ledger::new(1);
        let mut rig = Self {
            link,
            worker,
            held: VecDeque::new(),
            ledger,
            news: Vec::new(),
            now: Instant::now(),
            pings: 0,
            made: 0,
        };
        rig.say(FromWorker::Ready { limit: 100_000, tags: false });
        assert_eq!(rig.receive().expect("ready"), HEARD_OUT);
        assert_eq!(rig.news, [WorkerEvent::Ready]);
        rig
    }

    /// A rig whose channel holds very little, as SO_SNDBUF can be set no lower.
    fn narrow() -> Self {
        let rig = Self::new();
        SockRef::from(&rig.link).set_send_buffer_size(1).expect("SO_SNDBUF");
        rig
    }

    fn hold(&mut self, count: u16) {
        for _ in 0..count {
            let client = EndAddr::Ip(SocketAddr::from((Ipv4Addr::LOCALHOST, self.made)));
            let descriptor: OwnedFd = UnixStream::pair().expect("pair").0.into();
            let key = Key::of_client(&client, Prefix { ipv4: 32, ipv6: 128 });
            self.ledger.accept();
            self.held.push_back(ClientConnection::new(descriptor, 0, (client, EndAddr::Unix), key, self.now));
            self.made += 1;
        }
    }

    fn send(&mut self) -> Result<Blocked, LinkError> {
        self.link.send(&mut self.held, None, 100_000, self.now).map(|()| self.link.obstacle)
    }

    /// Holds and sends one by one until the channel is full.
    fn fill(&mut self) {
        while self.send().expect("send") == Blocked::None {
            self.hold(1);
        }
        assert_eq!((self.link.obstacle, self.held.len()), (Blocked::ChannelFull, 1));
        assert_eq!(self.link.wanted_interest(), Some(Interest::ReadableOrWritable));
    }

    fn say(&self, frame: FromWorker) {
        assert!(matches!(self.worker.send(frame).expect("send"), Sent::Bytes(_)));
    }

    fn receive(&mut self) -> Result<bool, LinkError> {
        self.link.receive(&mut self.held, &mut self.ledger, None, &mut self.news, self.now)
    }

    /// Everything the worker finds in the channel: connections, by their clients' ports, and whether to drain after
    /// them.
    fn found(&mut self) -> (Vec<Entry>, bool) {
        let mut entries = Vec::new();
        while let Some(frame) = self.worker.receive().expect("receive") {
            match frame {
                MasterMessage::Connections(more, descriptors) => {
                    assert_eq!(more.len(), descriptors.len());
                    entries.extend(more);
                }
                MasterMessage::Drain { .. } => return (entries, true),
                MasterMessage::Linger { .. } => panic!("it was never sent"),
                MasterMessage::Ping => self.pings += 1,
            }
        }
        (entries, false)
    }
}

fn ports(entries: &[Entry]) -> Vec<u16> {
    entries.iter().map(|entry| entry.client.ip().expect("an address").port()).collect()
}

fn up_to(end: u16) -> Vec<u16> {
    (0..end).collect()
}

#[test]
fn a_full_channel_keeps_the_rest_waiting_and_goes_on_in_order_when_there_is_room() {
    let mut rig = Fixture::narrow();
    rig.fill();
    rig.hold(300);
    let (mut found, _) = rig.found();
    while rig.send().expect("send") == Blocked::ChannelFull {
        found.extend(rig.found().0);
    }
    found.extend(rig.found().0);
    assert_eq!(ports(&found), up_to(rig.made), "each once and in order");
    assert!(found.iter().map(|entry| entry.sequence).eq(0..u64::from(rig.made)));
    assert_eq!(rig.link.wanted_interest(), Some(Interest::Readable));
    assert_eq!((rig.held.len(), rig.link.in_flight()), (0, usize::from(rig.made)));
}

#[test]
fn a_frame_too_long_for_the_channel_is_sent_in_parts() {
    let mut rig = Fixture::narrow();
    // 253 entries are 16,200 bytes; the least SO_SNDBUF there can be is less.
    rig.hold(253);
    let mut found = Vec::new();
    while rig.send().expect("send") == Blocked::ChannelFull {
        found.extend(rig.found().0);
    }
    found.extend(rig.found().0);
    assert_eq!(ports(&found), up_to(253));
}

#[test]
fn a_worker_that_closed_its_end_is_an_error_and_loses_nothing() {
    let mut rig = Fixture::new();
    rig.hold(3);
    SockRef::from(&rig.worker).shutdown(std::net::Shutdown::Read).expect("shutdown");
    assert!(matches!(rig.send(), Err(LinkError::Send(error)) if error.kind() == io::ErrorKind::BrokenPipe));
    assert_eq!((rig.held.len(), rig.link.in_flight()), (3, 0));
}

#[test]
fn the_order_to_finish_comes_after_what_was_sent_however_full_the_channel() {
    let mut rig = Fixture::narrow();
    rig.fill();
    rig.link.drain(Duration::from_secs(1), None).expect("drain");
    assert_eq!(rig.link.wanted_interest(), Some(Interest::ReadableOrWritable), "it is still to be sent");
    let (found, stated) = rig.found();
    assert_eq!((found.len(), stated), (usize::from(rig.made) - 1, false));
    let mut nothing = VecDeque::new();
    rig.link.send(&mut nothing, None, 1, rig.now).expect("send");
    assert_eq!(rig.link.wanted_interest(), Some(Interest::Readable));
    assert!(rig.found().1);
}

#[test]
fn a_dead_worker_s_connections_come_back_in_order_those_unread_told_from_those_unacknowledged() {
    let mut rig = Fixture::new();
    for _ in 0..4 {
        rig.hold(5);
        rig.send().expect("send");
    }
    // It received two frames of four, and acknowledged one and a bit.
    for _ in 0..2 {
        rig.worker.receive().expect("receive").expect("a frame");
    }
    rig.say(FromWorker::Taken { below: 7, limit: 100_000, open: 7 });
    rig.hold(1);
    let Fixture { link, mut held, mut ledger, now, .. } = rig;
    link.reclaim(&mut held, &mut ledger, None, now);
    let waiting: Vec<u16> = held.iter().map(|held| held.client.ip().expect("an address").port()).collect();
    assert_eq!(waiting, (7..21).collect::<Vec<_>>(), "in front of what waited");
    assert_eq!((ledger.redelivered_unacknowledged, ledger.redelivered_unread), (3, 10));
    assert_eq!((ledger.delivered()[0], ledger.outstanding()), (7, 14));
}

#[test]
fn a_worker_that_gave_connections_back_is_left_alone_for_a_while() {
    let mut rig = Fixture::new();
    rig.hold(4);
    rig.send().expect("send");
    rig.say(FromWorker::Returned { first: 2, count: 2 });
    rig.receive().expect("receive");
    assert_eq!((rig.held.len(), rig.link.in_flight(), rig.ledger.returned), (2, 2, 2));
    assert_eq!(rig.send().expect("send"), Blocked::Resting);
    assert!(rig.link.must_retry());
    rig.now += REST;
    assert_eq!(rig.send().expect("send"), Blocked::None);
    let (found, _) = rig.found();
    assert_eq!(found.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5], "under new numbers");
    assert_eq!(ports(&found), [0, 1, 2, 3, 2, 3]);
}

#[test]
fn what_a_worker_gave_back_has_waited_all_the_time_and_what_a_dead_one_had_waits_anew() {
    let mut rig = Fixture::new();
    let start = rig.now;
    rig.hold(4);
    rig.send().expect("send");
    rig.now += 10 * REST;
    rig.say(FromWorker::Returned { first: 2, count: 2 });
    rig.receive().expect("receive");
    assert!(rig.held.len() == 2 && rig.held.iter().all(|held| held.held_since == start));
    rig.link.reclaim(&mut rig.held, &mut rig.ledger, None, rig.now);
    let since: Vec<Instant> = rig.held.iter().map(|held| held.held_since).collect();
    assert_eq!(since, [rig.now, rig.now, start, start]);
    rig.held.drain(..).for_each(ClientConnection::close_delivered);
}

#[test]
fn a_ping_is_waited_for_until_the_worker_says_something() {
    let mut rig = Fixture::new();
    let taken = |below| FromWorker::Taken { below, limit: 100_000, open: 0 };
    let silence = |rig: &Fixture| rig.link.silence(rig.now).as_millis();
    rig.link.ping(rig.now).expect("ping");
    rig.now += REST;
    rig.link.ping(rig.now).expect("ping");
    rig.found();
    assert_eq!((rig.pings, rig.link.is_awaited()), (1, true));
    assert_eq!(silence(&rig), REST.as_millis(), "since the first one");
    rig.say(taken(0));
    rig.receive().expect("receive");
    assert_eq!((rig.link.is_awaited(), silence(&rig)), (false, 0));
    // What is not taken counts whatever else the worker sends.
    rig.hold(1);
    rig.send().expect("send");
    rig.now += REST;
    rig.link.ping(rig.now).expect("ping");
    rig.say(taken(0));
    rig.receive().expect("receive");
    assert_eq!((rig.link.is_awaited(), silence(&rig)), (true, REST.as_millis()));
    rig.say(taken(1));
    rig.receive().expect("receive");
    assert_eq!((rig.link.is_awaited(), silence(&rig)), (false, 0));
}

#[test]
fn a_full_channel_keeps_a_ping_until_there_is_room() {
    let mut rig = Fixture::narrow();
    rig.fill();
    rig.link.ping(rig.now).expect("ping");
    assert_eq!(rig.link.obstacle, Blocked::ChannelFull);
    rig.found();
    assert_eq!(rig.pings, 0);
    rig.link.flush(None).expect("flush");
    rig.found();
    assert_eq!(rig.pings, 1);
    rig.link.reclaim(&mut rig.held, &mut rig.ledger, None, rig.now);
    rig.held.drain(..).for_each(ClientConnection::close_delivered);
}

#[test]
fn a_worker_that_never_stops_talking_is_heard_a_part_at_a_time() {
    let mut rig = Fixture::new();
    let frame = FromWorker::Taken { below: 0, limit: 100_000, open: 0 };
    let mut sent = 0;
    while matches!(rig.worker.send(frame).expect("send"), Sent::Bytes(_)) {
        sent += 1;
    }
    let mut turns = 1;
    while rig.receive().expect("receive") != HEARD_OUT {
        turns += 1;
        assert!(turns <= sent, "no end");
    }
    assert!(turns > 1, "{sent} frames in one turn");
    rig.link.reclaim(&mut rig.held, &mut rig.ledger, None, rig.now);
}

#[test]
fn the_last_words_of_a_dead_worker_are_heard_to_the_end() {
    let mut rig = Fixture::new();
    rig.hold(200);
    rig.send().expect("send");
    for below in 1..=200 {
        rig.say(FromWorker::Taken { below, limit: 100_000, open: 0 });
    }
    let Fixture { link, mut held, mut ledger, now, .. } = rig;
    link.reclaim(&mut held, &mut ledger, None, now);
    assert_eq!((ledger.delivered()[0], held.len()), (200, 0));
}

#[test]
fn a_session_that_was_just_sent_is_reckoned_with_and_shown_only_once_it_is_reported() {
    let mut rig = Fixture::new();
    rig.link.opening(rig.now);
    assert_eq!((rig.link.sessions(rig.now), rig.link.reported_sessions()), (1, 0));
    rig.say(FromWorker::Taken { below: 0, limit: 100_000, open: 4 });
    rig.receive().expect("receive");
    assert_eq!((rig.link.sessions(rig.now), rig.link.reported_sessions()), (5, 4));
}
