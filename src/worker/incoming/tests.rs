//! A worker with the test as its master, over a real channel.

use std::iter;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use super::*;
use crate::protocol::MasterEnd;
use crate::tags::tests::{OWN, tagger};
use crate::testing::{soon, until};
use haft_sys::scm;

const UNIX: EndAddr = EndAddr::Unix;

/// A worker that was given a key, and its master.
fn rig() -> (MasterEnd, Incoming) {
    let (master, channel) = MasterEnd::pair().expect("pair");
    (master, Incoming::over(channel).expect("incoming").tagging(tagger(), OWN))
}

fn connection() -> (StdUnixStream, StdUnixStream) {
    let (client, connection) = StdUnixStream::pair().expect("connection");
    connection.set_nonblocking(true).expect("non-blocking");
    (client, connection)
}

fn hand_over(master: &mut MasterEnd, sequence: u64, client: EndAddr, local: EndAddr, connection: impl AsFd) {
    let entry = Entry { sequence, listener: 3, client, local };
    master.send_connections(iter::once(entry), iter::once(connection.as_fd())).expect("send");
}

/// The next frame of the worker's but for TAKEN, while it runs.
async fn sent_to(master: &mut MasterEnd) -> FromWorker {
    let mut received = None;
    let receives = || loop {
        match master.receive().expect("receive") {
            Some(FromWorker::Taken { .. }) => {}
            Some(frame) => {
                received = Some(frame);
                return true;
            }
            None => return false,
        }
    };
    until("the worker sends a message", receives).await;
    received.expect("a frame")
}

#[tokio::test]
async fn what_a_master_had_sent_before_it_died_is_yielded_although_it_had_not_heard_us_out() {
    let (mut master, channel) = MasterEnd::pair().expect("pair");
    let (_client, connection) = connection();
    // Unread, this makes the kernel report the master's death by a reset, ahead of what the master sent.
    scm::send(channel.as_fd(), b"unread", iter::empty()).expect("send");
    hand_over(&mut master, 0, UNIX, UNIX, connection);
    drop(master);

    let mut incoming = Incoming::over(channel).expect("incoming");
    incoming.announced = true;
    let connection = incoming.next().await.expect("no error").expect("a connection");
    assert_eq!(connection.peer.listener, 3);
    assert!(incoming.next().await.expect("no error").is_none(), "then the end");
    assert_eq!(incoming.drain().requested().await, None, "without a time");
}

#[tokio::test]
async fn a_worker_says_that_it_tags_if_it_was_asked_to_and_will() {
    for (given, asks) in [(true, true), (true, false), (false, true)] {
        let (mut master, mut incoming) = rig();
        if !given {
            incoming.tagging = None;
        }
        if asks {
            assert_eq!(incoming.tags().map(|tags| tags.own), given.then_some(OWN));
        }
        let running = tokio::spawn(async move {
            master.send_drain(1000).expect("send");
            (sent_to(&mut master).await, master)
        });
        assert!(incoming.next().await.expect("no error").is_none());
        let (frame, _master) = running.await.expect("task");
        assert!(matches!(frame, FromWorker::Ready { tags, .. } if tags == (given && asks)), "{frame:?}");
        assert!(incoming.tags().is_none(), "too late to say so");
    }
}

#[tokio::test]
async fn the_kind_of_a_connection_is_that_of_its_listener_whatever_a_proxy_says_of_the_client() {
    let (mut master, mut incoming) = rig();
    let (_client, unix) = connection();
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let _peer = std::net::TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    let (tcp, _) = listener.accept().expect("accept");
    tcp.set_nonblocking(true).expect("non-blocking");
    let behind_a_proxy = EndAddr::Ip("203.0.113.9:4711".parse().expect("address"));
    hand_over(&mut master, 0, behind_a_proxy, UNIX, unix);
    hand_over(&mut master, 1, UNIX, EndAddr::Ip(listener.local_addr().expect("address")), tcp);
    let unix = incoming.next().await.expect("no error").expect("a connection");
    assert_eq!((unix.peer.client, unix.stream.into_tcp().is_some()), (behind_a_proxy, false));
    let tcp = incoming.next().await.expect("no error").expect("a connection");
    assert!(tcp.stream.into_tcp().is_some());
}

#[tokio::test]
async fn a_connection_that_is_dropped_ends_for_its_client_though_the_master_has_its_copy_still() {
    let (mut master, mut incoming) = rig();
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let local = listener.local_addr().expect("address");
    for taken_out in [false, true] {
        let mut client = tokio::net::TcpStream::connect(local).await.expect("connect");
        let (copy, _) = listener.accept().expect("accept");
        copy.set_nonblocking(true).expect("non-blocking");
        hand_over(&mut master, u64::from(taken_out), UNIX, EndAddr::Ip(local), &copy);
        let stream = incoming.next().await.expect("no error").expect("a connection").stream;
        // The program that takes it out of the counting ends it as it likes.
        let kept = Some(stream).filter(|_| taken_out).and_then(Stream::into_tcp);
        let ended = match &kept {
            None => {
                soon("its end", tokio::io::AsyncReadExt::read(&mut client, &mut [0; 8])).await.expect("an orderly end")
                    == 0
            }
            Some(_) => client.try_read(&mut [0; 8]).is_ok_and(|count| count == 0),
        };
        assert_eq!(ended, !taken_out);
        drop(kept);
    }
}

#[tokio::test]
async fn a_worker_lingers_until_its_last_session_has_ended_and_serves_meanwhile() {
    let (mut master, mut incoming) = rig();
    let tags = incoming.tags().expect("tags");
    let mut drain = incoming.drain();
    let (one, two) = (drain.session(), drain.session());
    let also_two = two.clone();
    assert!(drain.lingers().is_none());
    master.send_linger(40_000).expect("send");
    let (_client, late) = connection();
    hand_over(&mut master, 0, UNIX, UNIX, late);
    let serving = tokio::spawn(async move {
        let late = incoming.next().await.expect("no error").expect("a connection");
        assert!(incoming.next().await.expect("no error").is_none(), "DRAIN");
        (late, incoming)
    });
    assert!(matches!(sent_to(&mut master).await, FromWorker::Ready { tags: true, .. }));
    let within = soon("it lingers", drain.lingering()).await.expect("a time");
    assert!((30..=40).contains(&within.as_secs()), "{within:?}");
    assert!(drain.lingers().is_some());
    drop((one, two));
    until("what was on its way has had its time", || tags.refuses_sessions()).await;
    tokio::task::yield_now().await;
    let unsaid = master.receive().expect("receive");
    assert!(matches!(unsaid, None | Some(FromWorker::Taken { .. })), "one session is left: {unsaid:?}");
    drop(also_two);
    assert_eq!(sent_to(&mut master).await, FromWorker::Idle);
    drop(drain.session());
    master.send_drain(5000).expect("send");
    soon("the end", drain.requested()).await.expect("a time");
    let (_late, incoming) = soon("the end", serving).await.expect("task");
    drop(incoming);
    while let Ok(Some(frame)) = master.receive() {
        assert!(matches!(frame, FromWorker::Taken { .. }), "IDLE is sent once: {frame:?}");
    }
}

#[tokio::test]
async fn a_worker_without_sessions_is_idle_as_soon_as_what_was_on_its_way_has_had_its_time() {
    let (mut master, mut incoming) = rig();
    incoming.tags().expect("tags");
    let drain = incoming.drain();
    master.send_linger(40_000).expect("send");
    let start = Instant::now();
    let serving = tokio::spawn(async move { incoming.next().await });
    assert!(matches!(sent_to(&mut master).await, FromWorker::Ready { .. }));
    assert_eq!(sent_to(&mut master).await, FromWorker::Idle);
    assert!(start.elapsed() >= SETTLE);
    assert!(drain.lingers().is_some());
    serving.abort();
}

#[tokio::test]
async fn a_shorter_time_to_finish_is_heard_after_the_first() {
    let (mut master, mut incoming) = rig();
    let mut drain = incoming.drain();
    master.send_drain(3_600_000).expect("send");
    assert!(incoming.next().await.expect("no error").is_none());
    assert!(drain.requested().await.is_some_and(|within| within.as_secs() > 3000));
    master.send_drain(10).expect("send");
    soon("the time is over", drain.expired()).await;
    assert!(matches!(master.receive(), Ok(Some(FromWorker::Ready { .. }))));
}
