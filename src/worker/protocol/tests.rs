//! The two ends of a channel, over a real one.

use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use super::*;
use haft_sys::scm;

fn ends() -> (MasterEnd, WorkerEnd) {
    let (master, worker) = MasterEnd::pair().expect("pair");
    (master, WorkerEnd::new(worker))
}

/// A frame with these descriptors, as the master takes it.
fn send_with(bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<Option<FromWorker>, ChannelError> {
    let (mut master, worker) = ends();
    scm::send(worker.as_fd(), bytes, descriptors.iter().copied()).expect("send");
    master.receive()
}

/// Whatever they are, and whether or not the frame would be one without them.
#[test]
fn no_frame_of_a_worker_s_brings_descriptors() {
    let null = File::open("/dev/null").expect("open");
    let (pipe, _write) = std::io::pipe().expect("pipe");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    let (unix, _peer) = UnixStream::pair().expect("pair");
    let any: Vec<BorrowedFd<'_>> = vec![null.as_fd(), pipe.as_fd(), listener.as_fd(), client.as_fd(), unix.as_fd()];
    let with: Vec<Vec<BorrowedFd<'_>>> =
        any.iter().map(|one| vec![*one]).chain([any.clone(), vec![null.as_fd(); MAX_CONNECTIONS]]).collect();
    for frame in [
        FromWorker::Idle,
        FromWorker::Ready { limit: 1, tags: true },
        FromWorker::Taken { below: 1, limit: 2, open: 1 },
        FromWorker::Returned { first: 0, count: 1 },
    ] {
        let mut bytes = Vec::new();
        frame.write(&mut bytes);
        assert!(matches!(send_with(&bytes, &[]), Ok(Some(sent)) if sent == frame));
        for descriptors in &with {
            let error = send_with(&bytes, descriptors).expect_err("descriptors");
            assert!(matches!(error, ChannelError::Frame(FrameError::Descriptors(kind)) if kind == bytes[1]), "{error}");
        }
    }
    // 133 was a kind that brought a connection.
    for kind in [1, 77, 133] {
        let bytes = [&[1, kind][..], &[0; 20]].concat();
        let error = send_with(&bytes, &[]).expect_err("no kind of a worker's");
        assert!(matches!(error, ChannelError::Frame(FrameError::Kind(wrong)) if wrong == kind), "{error}");
        for descriptors in &with {
            send_with(&bytes, descriptors).expect_err("descriptors");
        }
    }
}

#[test]
fn descriptors_that_come_against_the_rules_are_closed() {
    let mut idle = Vec::new();
    FromWorker::Idle.write(&mut idle);
    for bytes in [&[1, 133, 0][..], &idle, &[0; 300]] {
        let (mut client, connection) = UnixStream::pair().expect("a descriptor");
        send_with(bytes, &[connection.as_fd()]).expect_err("descriptors");
        drop(connection);
        assert_eq!(client.read(&mut [0]).expect("the end"), 0, "no other process holds it");
    }
}

#[test]
fn a_worker_hears_linger_and_then_drain() {
    let (master, mut worker) = ends();
    master.send_linger(40_000).expect("send");
    master.send_drain(10_000).expect("send");
    assert!(matches!(worker.receive(), Ok(Some(MasterMessage::Linger { within_ms: 40_000 }))));
    assert!(matches!(worker.receive(), Ok(Some(MasterMessage::Drain { within_ms: 10_000 }))));
    assert!(matches!(worker.receive(), Ok(None)));
}
