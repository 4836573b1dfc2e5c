//! The two ends of a channel, over a real one.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::*;
use crate::addr::EndAddr;
use crate::route::{Slot, Tag};
use crate::sys::scm;

fn ends() -> (MasterEnd, WorkerEnd) {
    let (master, worker) = MasterEnd::pair().expect("pair");
    (master, WorkerEnd::new(worker))
}

fn passed() -> Passed {
    let client = EndAddr::Ip("192.0.2.7:4711".parse().expect("address"));
    Passed { listener: 1, tag: Tag { slot: Slot(2), generation: 3 }, client, local: EndAddr::Unix }
}

#[test]
fn a_passed_connection_comes_with_what_is_told_of_it_and_unread() {
    let (mut master, worker) = ends();
    let (mut client, connection) = UnixStream::pair().expect("connection");
    client.write_all(b"a request").expect("write");
    worker.pass(passed(), connection.as_fd()).expect("pass");
    drop(connection);
    let (frame, connection) = master.receive().expect("receive").expect("a frame");
    assert_eq!(frame, FromWorker::Passed(passed()));
    let mut connection = UnixStream::from(connection.expect("the connection"));
    let mut request = [0; 9];
    connection.read_exact(&mut request).expect("read");
    assert_eq!(&request, b"a request");
    drop(connection);
    assert_eq!(client.read(&mut [0]).expect("the end"), 0, "nobody else holds it");
}

#[test]
fn descriptors_are_where_they_belong_or_it_is_no_frame() {
    let (channel, _other) = UnixStream::pair().expect("a descriptor");
    let send = |frame: FromWorker, count: usize| {
        let (mut master, worker) = ends();
        let mut bytes = Vec::new();
        frame.write(&mut bytes);
        scm::send(worker.as_fd(), &bytes, vec![channel.as_fd(); count].into_iter()).expect("send");
        master.receive()
    };
    for frame in [FromWorker::Idle, FromWorker::Ready { limit: 1, tags: true }] {
        let kind = if frame == FromWorker::Idle { 132 } else { 129 };
        assert!(matches!(send(frame, 0), Ok(Some((said, None))) if said == frame));
        let error = send(frame, 1).expect_err("a descriptor too many");
        assert!(matches!(error, ChannelError::Frame(FrameError::Descriptors(wrong)) if wrong == kind), "{error}");
    }
    for count in [0, 2, 3] {
        let error = send(FromWorker::Passed(passed()), count).expect_err("not one");
        assert!(matches!(error, ChannelError::Frame(FrameError::PassedWith(wrong)) if wrong == count), "{error}");
    }
}

#[test]
fn descriptors_with_what_is_no_frame_are_closed() {
    let (mut master, worker) = ends();
    let (mut client, connection) = UnixStream::pair().expect("a descriptor");
    scm::send(worker.as_fd(), &[1, 133, 0], [connection.as_fd()].into_iter()).expect("send");
    drop(OwnedFd::from(connection));
    master.receive().expect_err("no frame");
    assert_eq!(client.read(&mut [0]).expect("the end"), 0);
}

#[test]
fn a_worker_hears_linger_and_then_drain() {
    let (master, mut worker) = ends();
    master.send_linger(40_000).expect("send");
    master.send_drain(10_000).expect("send");
    assert!(matches!(worker.receive(), Ok(Some(Heard::Linger { within_ms: 40_000 }))));
    assert!(matches!(worker.receive(), Ok(Some(Heard::Drain { within_ms: 10_000 }))));
    assert!(matches!(worker.receive(), Ok(None)));
}
