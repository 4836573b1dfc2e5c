//! Descriptors through sockets.

use super::*;
use std::fs::File;
use std::io::{Read, Write};
use std::iter;
use std::os::fd::AsFd;

/// A pipe whose content identifies it.
fn marked_pipe(mark: u8) -> OwnedFd {
    let (read, write) = nix::unistd::pipe().expect("pipe");
    File::from(write).write_all(&[mark]).expect("mark");
    read
}

#[test]
fn the_most_descriptors_of_one_message_arrive_in_order() {
    let (left, right) = seqpacket_pair().expect("pair");
    let pipes: Vec<OwnedFd> = (0..MAX_DESCRIPTORS).map(|mark| marked_pipe(mark as u8)).collect();
    let borrowed = pipes.iter().map(AsFd::as_fd);
    assert_eq!(send(left.as_fd(), b"x", borrowed).expect("send"), Sent::Bytes(1));
    let mut received = Vec::new();
    let outcome = receive(right.as_fd(), &mut [0; 16], &mut received).expect("receive");
    assert_eq!(outcome, Received::Message { len: 1, descriptors_lost: false, cut: false });
    assert_eq!(received.len(), MAX_DESCRIPTORS);
    for (mark, pipe) in received.into_iter().enumerate() {
        let mut byte = [0];
        File::from(pipe).read_exact(&mut byte).expect("mark");
        assert_eq!(byte[0], mark as u8);
    }
}

#[test]
fn one_descriptor_too_many_is_refused_before_the_kernel_sees_it() {
    let (left, _right) = seqpacket_pair().expect("pair");
    let pipe = marked_pipe(0);
    let many = vec![pipe.as_fd(); MAX_DESCRIPTORS + 1];
    assert_eq!(send(left.as_fd(), b"x", many.into_iter()).expect_err("too many").kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn a_full_queue_an_empty_queue_and_a_gone_peer_are_told_apart() {
    let (left, right) = seqpacket_pair().expect("pair");
    assert_eq!(receive(right.as_fd(), &mut [0; 1], &mut Vec::new()).expect("receive"), Received::Empty);
    let message = [0u8; 4096];
    while send(left.as_fd(), &message, iter::empty()).expect("send") != Sent::Full {}
    drop(right);
    // What the peer had not read makes the first answer a reset.
    let kinds = [(); 2].map(|()| send(left.as_fd(), b"x", iter::empty()).expect_err("gone").kind());
    assert_eq!(kinds, [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe]);
}

/// Promises one more than it yields.
struct Short<'a>(std::slice::Iter<'a, OwnedFd>);

impl<'a> Iterator for Short<'a> {
    type Item = BorrowedFd<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(AsFd::as_fd)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0.len() + 1, Some(self.0.len() + 1))
    }
}

impl ExactSizeIterator for Short<'_> {}

#[test]
fn fewer_descriptors_than_promised_are_an_error_and_nothing_is_sent() {
    let (left, right) = seqpacket_pair().expect("pair");
    let descriptors = [right.try_clone().expect("a copy")];
    let error = send(left.as_fd(), b"x", Short(descriptors.iter())).expect_err("too few");
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!(receive(right.as_fd(), &mut [0; 1], &mut Vec::new()).expect("receive"), Received::Empty);
}

#[test]
fn what_sendmmsg_may_not_send_is_sent_one_by_one_and_nothing_behind_a_part() {
    let (left, right) = stream_pair().expect("pair");
    let messages = |texts: [&'static [u8]; 3]| texts.into_iter().map(|text| (text, Some(left.as_fd())));
    HAS_SENDMMSG.store(false, Ordering::Relaxed);
    let sent = send_many(left.as_fd(), messages([b"one", b"two", b"three"])).expect("send").expect("sent");
    assert_eq!(sent.taken().collect::<Vec<_>>(), [3, 3, 5]);
    let mut descriptors = Vec::new();
    while receive(right.as_fd(), &mut [0; 16], &mut descriptors).expect("receive") != Received::Empty {}
    assert_eq!(descriptors.len(), 3);
    static LONG: [u8; 1 << 21] = [7; 1 << 21];
    let sent = send_many(left.as_fd(), messages([b"one", &LONG, b"three"])).expect("send").expect("sent");
    HAS_SENDMMSG.store(true, Ordering::Relaxed);
    let taken: Vec<usize> = sent.taken().collect();
    assert!(taken.len() == 2 && taken[1] < LONG.len(), "{taken:?}");
    let again = send_many(left.as_fd(), messages([b"one"; 3])).expect("send");
    assert!(matches!(again, Err(Sent::Full)), "{again:?}");
}

#[test]
fn the_end_of_the_stream_is_an_empty_message() {
    let (left, right) = seqpacket_pair().expect("pair");
    drop(left);
    let outcome = receive(right.as_fd(), &mut [0; 1], &mut Vec::new()).expect("receive");
    assert_eq!(outcome, Received::Message { len: 0, descriptors_lost: false, cut: false });
}

#[test]
fn the_kernel_tells_who_sent_what_and_descriptors_come_all_the_same() {
    let (left, right) = stream_pair().expect("pair");
    ask_for_senders(right.as_fd()).expect("asked");
    let pipes: Vec<OwnedFd> = (0..MAX_DESCRIPTORS).map(|mark| marked_pipe(mark as u8)).collect();
    send(left.as_fd(), b"xyz", pipes.iter().map(AsFd::as_fd)).expect("send");
    let mut received = Vec::new();
    let (outcome, sender) = receive_from(right.as_fd(), &mut [0; 16], &mut received).expect("receive");
    assert_eq!(outcome, Received::Message { len: 3, descriptors_lost: false, cut: false });
    assert_eq!(received.len(), MAX_DESCRIPTORS);
    let own = Sender {
        pid: nix::unistd::getpid().as_raw(),
        uid: nix::unistd::getuid().as_raw(),
        gid: nix::unistd::getgid().as_raw(),
    };
    assert_eq!(sender, Some(own));
    // Not requested, so not reported.
    send(right.as_fd(), b"x", iter::empty()).expect("send");
    assert_eq!(receive_from(left.as_fd(), &mut [0; 1], &mut received).expect("receive").1, None);
}
