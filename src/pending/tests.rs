//! Connections that send what they have to say in pieces, or nothing.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown};
use std::os::unix::net::UnixStream;

use super::*;
use crate::addr::EndAddr;
use crate::config::Config;
use crate::dispatch::link::Link;
use crate::flags::{self, ParseOutcome as Parsed};
use crate::ids::WorkerId;
use crate::node::primary::{ClusterPrimary, NodePlan};
use crate::node::wire::Serialization;
use crate::route::{Slot, Tag, TagKey, Tagger};
use crate::sys::poller::Ready;

mod aims;
mod naming;

struct Fixture {
    peeking: Peeking,
    dispatch: Dispatch,
    poller: Poller,
    now: Instant,
    tagger: Tagger,
}

impl Fixture {
    fn new(flags: &[&str]) -> Self {
        Self::with_most(flags, 1000)
    }

    fn with_most(flags: &[&str], most: usize) -> Self {
        let words = ["haft"].iter().chain(flags).chain(&["--", "true"]);
        let Parsed::Run(config) = flags::parse_from(words) else { panic!("{flags:?}") };
        let config: Config = *config;
        let key = TagKey::of_text("a key for tests");
        Self {
            peeking: Peeking::new(&config, Rules::new(&config, &key), most),
            dispatch: Dispatch::new(&config).expect("slots"),
            poller: Poller::new(8).expect("a poller"),
            now: Instant::now(),
            tagger: Tagger::new(&key),
        }
    }

    /// A connection from 127.0.0.9 comes, having sent so much.
    fn arrive(&mut self, sent: &[u8]) -> (UnixStream, Option<Outcome>) {
        self.arrive_from(9, sent)
    }

    /// The same from 127.0.0.`number`.
    fn arrive_from(&mut self, number: u8, sent: &[u8]) -> (UnixStream, Option<Outcome>) {
        let (mut client, connection) = UnixStream::pair().expect("pair");
        client.write_all(sent).expect("write");
        let from = EndAddr::Ip((Ipv4Addr::new(127, 0, 0, number), 7).into());
        let key = self.dispatch.key(&from);
        let connection = ClientConnection::new(connection.into(), 0, (from, EndAddr::Unix), key, self.now);
        let outcome = self.peeking.arrived(connection, &self.dispatch, &self.poller);
        (client, outcome)
    }

    /// What the poller has news of, looked at.
    fn look(&mut self) -> Option<Outcome> {
        let mut ready = Vec::new();
        self.poller.look(0, &mut ready).expect("look");
        let outcomes: Vec<_> = ready
            .iter()
            .filter_map(|news: &Ready| self.peeking.look(*news, &self.dispatch, &self.poller, self.now))
            .collect();
        assert!(outcomes.len() <= 1);
        outcomes.into_iter().next()
    }

    /// A worker of slot 1 that names its sessions by messages, if it is of that kind.
    fn attach_node(&mut self, names_sessions: bool) -> (WorkerId, UnixStream) {
        let plan = NodePlan {
            serialization: Serialization::Json,
            names_sessions,
            message: None,
            listens: true,
            wait_ready: false,
            relay_messages: false,
            rooms: false,
            redis: None,
            start_timeout: Duration::from_secs(30),
            backlog: 1,
            server_ports: Vec::new(),
            tells_ports: false,
        };
        let desk = ClusterPrimary::new(plan, &[]);
        let (ours, theirs) = UnixStream::pair().expect("pair");
        let worker = WorkerId(7);
        self.dispatch.attach(Link::node(worker, Slot(1), ours.into(), &desk));
        self.dispatch.node = Some(desk);
        (worker, theirs)
    }

    fn name(&mut self, sid: &str, worker: WorkerId) {
        self.dispatch.node.as_mut().expect("a desk").session_opened(worker, sid);
    }

    fn tagged(&self, tag: Tag) -> String {
        self.tagger.append("lgy5fjW0yVKcPbBnAAAC", tag)
    }
}

/// Its destination and client; the connection must still have exactly `unread` to read.
fn assigned(outcome: Option<Outcome>, unread: &[u8]) -> (RouteBy, String) {
    let Some(Outcome::Assign(connection)) = outcome else { panic!("{outcome:?}") };
    let mut reader = UnixStream::from(connection.as_fd().try_clone_to_owned().expect("a copy"));
    reader.set_nonblocking(true).expect("non-blocking");
    let mut read = Vec::new();
    // It ends with EAGAIN where the client has not closed.
    reader.read_to_end(&mut read).ok();
    assert_eq!(String::from_utf8_lossy(&read), String::from_utf8_lossy(unread));
    let decided = (connection.goal, connection.client.to_string());
    connection.close_delivered();
    decided
}

const TAG: Tag = Tag { slot: Slot(1), generation: 3 };

#[tokio::test]
async fn a_request_that_is_there_decides_at_once_and_is_left_there() {
    let mut rig = Fixture::new(&["-w", "2", "--affinity", "session", "--sticky-path", "/socket.io/"]);
    let sid = rig.tagged(TAG);
    let forged = Tagger::new(&TagKey::of_text("another key")).append("lgy5fjW0yVKcPbBnAAAC", TAG);
    for (target, goal) in [
        ("/socket.io/?EIO=4&transport=polling".to_owned(), RouteBy::RecentSessions),
        (format!("/socket.io/?EIO=4&transport=polling&sid={sid}"), RouteBy::Session(TAG)),
        (format!("/socket.io/?EIO=4&transport=polling&sid={forged}"), RouteBy::Address),
        ("/socket.io/?EIO=4&transport=polling&sid=lgy5fjW0yVKcPbBnAAAC".to_owned(), RouteBy::Address),
        ("/socket.io/socket.io.js".to_owned(), RouteBy::Address),
        (format!("/?sid={sid}"), RouteBy::Load),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\nbody");
        let (_client, outcome) = rig.arrive(request.as_bytes());
        assert_eq!(assigned(outcome, request.as_bytes()), (goal, "127.0.0.9:7".to_owned()), "{target}");
    }
    // Nothing is opened by a POST.
    let (_client, outcome) = rig.arrive(b"POST /socket.io/ HTTP/1.1\r\n");
    assert_eq!(assigned(outcome, b"POST /socket.io/ HTTP/1.1\r\n").0, RouteBy::Address);
    assert_eq!(rig.peeking.len(), 0);
}

#[tokio::test]
async fn sessions_are_opened_at_each_path_of_a_program() {
    let mut rig = Fixture::new(&["-w", "2", "--affinity", "session", "--path", "/a/", "--path", "/b/", "--", "x"]);
    for (path, goal) in
        [("/a/", RouteBy::RecentSessions), ("/b/", RouteBy::RecentSessions), ("/socket.io/", RouteBy::Address)]
    {
        let request = format!("GET {path}?EIO=4&transport=polling HTTP/1.1\r\n\r\n");
        let (_client, outcome) = rig.arrive(request.as_bytes());
        assert_eq!(assigned(outcome, request.as_bytes()).0, goal, "{path}");
    }
}

#[tokio::test]
async fn a_request_may_come_byte_by_byte() {
    let mut rig = Fixture::new(&["--affinity", "session"]);
    let request = format!("GET /socket.io/?sid={} HTTP/1.1\r\n", rig.tagged(TAG));
    let (mut client, outcome) = rig.arrive(b"");
    assert!(outcome.is_none() && rig.look().is_none());
    let (last, rest) = request.as_bytes().split_last().expect("bytes");
    for byte in rest {
        client.write_all(&[*byte]).expect("write");
        assert!(rig.look().is_none());
        assert!(rig.look().is_none(), "no news without news");
    }
    client.write_all(&[*last]).expect("write");
    let outcome = rig.look();
    assert_eq!(assigned(outcome, request.as_bytes()).0, RouteBy::Session(TAG));
    assert_eq!(rig.peeking.len(), 0);
}

#[tokio::test]
async fn a_proxy_header_is_consumed_to_the_byte_and_its_client_is_the_client() {
    let flags = ["--proxy-protocol", "--client-ip-header=x-forwarded-for", "--trusted-proxy=127.0.0.0/8"];
    let mut rig = Fixture::new(&flags);
    let header = b"PROXY TCP4 127.0.0.77 127.0.0.1 4711 3000\r\n";
    let request = b"GET / HTTP/1.1\r\nX-Forwarded-For: 192.0.2.1, 203.0.113.5, 127.0.0.2\r\n\r\n";
    let (_client, outcome) = rig.arrive(&[&header[..], request].concat());
    assert_eq!(assigned(outcome, request).1, "203.0.113.5:0", "of the list, the last one that is not trusted");
    // The PROXY header alone, in two pieces, with the request following later.
    let (mut client, outcome) = rig.arrive(&header[..20]);
    assert!(outcome.is_none());
    client.write_all(&header[20..]).expect("write");
    assert!(rig.look().is_none(), "the header of the request is to be read, too");
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("write");
    let outcome = rig.look();
    assert_eq!(assigned(outcome, b"GET / HTTP/1.1\r\n\r\n").1, "127.0.0.77:4711");
    // Malformed: an unknown client's, but not the peer's own.
    for header in [&b"PROXY nonsense\r\n"[..], b"PROXY nonsense\n", b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x02no"] {
        let (_client, outcome) = rig.arrive(&[header, b"GET / HTTP/1.1\r\n\r\n"].concat());
        assert_eq!(assigned(outcome, b"GET / HTTP/1.1\r\n\r\n").1, "0.0.0.0:0");
    }
    let (_client, outcome) = rig.arrive(b"GET / HTTP/1.1\r\nX-Forwarded-For: nobody\r\n\r\n");
    assert_eq!(assigned(outcome, b"GET / HTTP/1.1\r\nX-Forwarded-For: nobody\r\n\r\n").1, "0.0.0.0:0");
    let counts = &rig.peeking.counts;
    assert_eq!((counts.proxy_taken, counts.proxy_malformed, counts.proxy_absent), (2, 3, 1));
    assert_eq!((counts.header_taken, counts.header_absent, counts.header_malformed), (1, 4, 1));
}

#[tokio::test]
async fn a_proxy_header_may_be_longer_than_what_is_peeked_and_come_in_pieces() {
    let mut rig = Fixture::new(&["--proxy-protocol", "--trusted-proxy=127.0.0.0/8"]);
    let block = [203, 0, 113, 5, 127, 0, 0, 1, 0x12, 0x67, 0x0b, 0xb8];
    let header = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x75\x30", &block[..], &[b'x'; 30_000 - 12]].concat();
    let (mut client, outcome) = rig.arrive(&header[..20]);
    assert!(outcome.is_none());
    for piece in header[20..].chunks(7_000) {
        assert!(rig.look().is_none());
        client.write_all(piece).expect("write");
    }
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("write");
    let outcome = rig.look();
    assert_eq!(assigned(outcome, b"GET / HTTP/1.1\r\n\r\n").1, "203.0.113.5:4711");
    assert_eq!(rig.peeking.counts.proxy_taken, 1);
}

#[tokio::test]
async fn who_is_not_trusted_is_not_believed() {
    let mut rig = Fixture::new(&["--proxy-protocol", "--client-ip-header=forwarded", "--trusted-proxy=10.0.0.0/8"]);
    let sent = b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 3000\r\nGET / HTTP/1.1\r\nForwarded: for=192.0.2.2\r\n\r\n";
    let (_client, outcome) = rig.arrive(sent);
    assert_eq!(assigned(outcome, sent).1, "127.0.0.9:7");
}

#[tokio::test]
async fn what_is_no_http_or_too_long_or_over_goes_by_its_address() {
    let mut rig = Fixture::new(&["--affinity", "session"]);
    let long = [b"GET /", &[b'a'; MAX_PEEKED][..]].concat();
    for sent in [&b"\x16\x03\x01\x02\x00"[..], b"PRI * HTTP/2.0\r\n", b"\x00\x01", &long] {
        let (_client, outcome) = rig.arrive(sent);
        assert_eq!(assigned(outcome, sent).0, RouteBy::Address);
    }
    let (client, outcome) = rig.arrive(b"GET /so");
    assert!(outcome.is_none());
    client.shutdown(Shutdown::Write).expect("shutdown");
    let outcome = rig.look();
    assert_eq!(assigned(outcome, b"GET /so").0, RouteBy::Address, "half a line and the end");
    let (client, outcome) = rig.arrive(b"");
    assert!(outcome.is_none());
    drop(client);
    let outcome = rig.look();
    assert_eq!(assigned(outcome, b"").0, RouteBy::Address);
    let counts = &rig.peeking.counts;
    assert_eq!((counts.not_http, counts.too_long, counts.over), (3, 1, 2));
    assert_eq!(rig.peeking.len(), 0);
}

/// A trusted proxy, and first bytes from it that do not state the client.
#[tokio::test]
async fn whose_client_is_not_told_is_never_taken_for_the_proxy() {
    let header = ["--client-ip-header=x-forwarded-for", "--trusted-proxy=127.0.0.9"];
    let line = ["--proxy-protocol", "--trusted-proxy=127.0.0.9"];
    let padding = "a".repeat(MAX_PEEKED);
    let far = format!("GET / HTTP/1.1\r\nCookie: {padding}\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n");
    let malformed = "GET / HTTP/1.1\r\nX-Forwarded-For: 192.0.2.1, unknown\r\n\r\n";
    for action in ["serve", "close"] {
        for (flags, sent, unread) in [
            (header, far.as_str(), far.as_str()),
            (header, malformed, malformed),
            (header, "\x16\x03\x01\x02", "\x16\x03\x01\x02"),
            (line, "PROXY TCP4 nobody\r\nGET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"),
        ] {
            let mut rig = Fixture::new(&[&flags[..], &["--unattributed", action]].concat());
            match (rig.arrive(sent.as_bytes()).1, action) {
                (Some(Outcome::Refuse(connection, RejectReason::Unattributed)), "close") => connection.refuse(),
                (outcome, _) => assert_eq!(assigned(outcome, unread.as_bytes()).1, "0.0.0.0:0", "{sent:.40}"),
            }
            assert_eq!(rig.peeking.counts.unattributed, 1, "{sent:.40}");
        }
        // Nor is one that sends nothing in time, or only half a request.
        for sent in ["", "GET / HT"] {
            let mut rig = Fixture::new(&[&header[..], &["--unattributed", action, "--peek-timeout=2s"]].concat());
            let (_client, outcome) = rig.arrive(sent.as_bytes());
            assert!(outcome.is_none());
            match (rig.peeking.expired(rig.now + Duration::from_secs(2), &rig.poller), action) {
                (Some(Outcome::Refuse(connection, RejectReason::Unattributed)), "close") => connection.refuse(),
                (outcome, _) => assert_eq!(assigned(outcome, sent.as_bytes()).1, "0.0.0.0:0"),
            }
        }
    }
    // A header that is far back, but not too far; and the proxy itself, which asks whether we are well.
    let back = format!("GET / HTTP/1.1\r\nCookie: {}\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n", "a".repeat(15 << 10));
    let (_client, outcome) = Fixture::new(&header).arrive(back.as_bytes());
    assert_eq!(assigned(outcome, back.as_bytes()).1, "192.0.2.1:0");
    let own = b"GET /health HTTP/1.1\r\n\r\n";
    let (_client, outcome) = Fixture::new(&header).arrive(own);
    assert_eq!(assigned(outcome, own).1, "127.0.0.9:7");
}

#[tokio::test]
async fn past_its_time_a_connection_goes_by_its_address_or_is_refused() {
    for (action, refused) in [("hand-over", false), ("close", true)] {
        let mut rig = Fixture::new(&["--affinity=session", "--peek-timeout=2s", "--peek-timeout-action", action]);
        let (_client, outcome) = rig.arrive(b"");
        assert!(outcome.is_none());
        assert!(rig.peeking.expired(rig.now + Duration::from_millis(1999), &rig.poller).is_none());
        match rig.peeking.expired(rig.now + Duration::from_secs(2), &rig.poller) {
            Some(Outcome::Assign(connection)) if !refused => connection.close_delivered(),
            Some(Outcome::Refuse(connection, _)) if refused => connection.refuse(),
            other => panic!("{other:?}"),
        }
        assert_eq!((rig.peeking.len(), rig.peeking.counts.timed_out), (0, 1));
    }
}

#[tokio::test]
async fn where_too_many_wait_the_first_of_them_waits_no_longer() {
    let mut rig = Fixture::with_most(&["--affinity=session", "--max-peeking=3"], 2);
    let clients: Vec<_> = (0..2).map(|_| rig.arrive(b"GE")).collect();
    assert!(clients.iter().all(|(_, outcome)| outcome.is_none()));
    let (_client, outcome) = rig.arrive(b"GET");
    assert_eq!(assigned(outcome, b"GE").0, RouteBy::Address);
    assert_eq!((rig.peeking.len(), rig.peeking.counts.crowded), (2, 1));
    end(rig);
}

#[tokio::test]
async fn where_descriptors_are_short_the_silent_ones_of_a_client_with_very_many_are_refused_and_nobody_else_s() {
    for (flag, by_descriptors) in [("--max-peeking=16384", true), ("--max-peeking=64", false)] {
        let mut rig = Fixture::with_most(&["--affinity=session", flag], if by_descriptors { 64 } else { 1000 });
        let (other, outcome) = rig.arrive_from(8, b"GE");
        assert!(outcome.is_none());
        let mut clients: Vec<_> = (0..63).map(|_| rig.arrive(b"G")).collect();
        assert!(clients.iter().all(|(_, outcome)| outcome.is_none()));
        clients.push(rig.arrive(b"G"));
        let (_, outcome) = clients.last_mut().expect("one");
        assert_eq!(assigned(outcome.take(), b"GE").1, "127.0.0.8:7", "it has waited longest");
        for _ in 0..47 {
            let (client, outcome) = rig.arrive_from(8, b"GE");
            match outcome {
                Some(Outcome::Refuse(connection, RejectReason::OverLimit)) if by_descriptors => connection.refuse(),
                outcome => assert_eq!((assigned(outcome, b"G").1.as_str(), by_descriptors), ("127.0.0.9:7", false)),
            }
            clients.push((client, None));
        }
        // Now the other one has most.
        let (last, outcome) = rig.arrive(b"G");
        match by_descriptors {
            true => assert!(matches!(outcome, Some(Outcome::Refuse(..))), "17 of 64 are more than a quarter"),
            false => assert!(outcome.is_some()),
        }
        match outcome {
            Some(Outcome::Refuse(connection, _) | Outcome::Assign(connection)) => connection.refuse(),
            None => {}
        }
        assert_eq!(rig.peeking.len(), 64);
        drop((other, last));
        end(rig);
    }
}

#[tokio::test]
async fn one_that_cannot_be_waited_for_pushes_nobody_out() {
    let mut rig = Fixture::with_most(&["--affinity=session", "--max-peeking=1"], 1);
    let (_first, outcome) = rig.arrive(b"GE");
    assert!(outcome.is_none());
    let (_client, connection) = UnixStream::pair().expect("pair");
    // The kernel takes no descriptor twice.
    rig.poller.add(&connection, 7, Interest::Readable).expect("once");
    let ends = (EndAddr::Unix, EndAddr::Unix);
    let connection = ClientConnection::new(connection.into(), 0, ends, rig.dispatch.key(&EndAddr::Unix), rig.now);
    let outcome = rig.peeking.arrived(connection, &rig.dispatch, &rig.poller);
    assert_eq!(assigned(outcome, b"").1, "unix", "the one that came, not the one that waits");
    assert_eq!((rig.peeking.len(), rig.peeking.counts.crowded), (1, 1));
    end(rig);
}

/// So that no connection is dropped unsettled.
fn end(mut rig: Fixture) {
    while let Some(connection) = rig.peeking.take_oldest(&rig.poller) {
        connection.close_delivered();
    }
}
