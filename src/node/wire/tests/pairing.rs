//! Each descriptor reaches the message it belongs to: against a model of the kernel's and Node's ends of the channel.

use std::collections::VecDeque;

use proptest::prelude::*;

use crate::node::wire::outgoing::{Chunk, Outgoing};
use crate::node::wire::{Delivery, Handle, IpcEffect, IpcFrame, IpcReader, MAX_FRAME, Piece, Serialization, Session};

/// What Node reads at once.
const NODE_READS: usize = 64 << 10;
/// Longest pieces of one write in the kernel's queue (unix_stream_sendmsg): a page's room and 32 KiB, or what half of the
/// smallest send buffer leaves.
const PIECES: [usize; 2] = [36 << 10, 2240];

/// A piece in the queue of the socket; a descriptor comes out with its first byte.
struct Queued {
    bytes: Vec<u8>,
    descriptor: Option<u64>,
}

/// The kernel's queue and Node's reading end.
struct Node {
    most_piece: usize,
    queue: VecDeque<Queued>,
    /// The beginning of a line whose end was not read yet.
    line: Vec<u8>,
    pending: Option<u64>,
    /// For each NODE_HANDLE, in its order: what it was sent with by its own word, and what it got.
    paired: Vec<(u64, Option<u64>)>,
    plain: usize,
}

impl Node {
    fn new(most_piece: usize) -> Self {
        Self { most_piece, queue: VecDeque::new(), line: Vec::new(), pending: None, paired: Vec::new(), plain: 0 }
    }

    /// The kernel takes one system call's worth.
    fn take(&mut self, bytes: &[u8], mut descriptor: Option<u64>) {
        for piece in bytes.chunks(self.most_piece) {
            self.queue.push_back(Queued { bytes: piece.to_vec(), descriptor: descriptor.take() });
        }
    }

    /// One read: as much as there is, at most [`NODE_READS`], ending behind a piece that had a descriptor.
    fn read(&mut self) {
        let mut read = Vec::new();
        while let Some(piece) = self.queue.front_mut().filter(|_| read.len() < NODE_READS) {
            let taken = piece.bytes.len().min(NODE_READS - read.len());
            read.extend(piece.bytes.drain(..taken));
            let descriptor = piece.descriptor.take();
            if let Some(descriptor) = descriptor {
                // One is kept, the one before is lost.
                self.pending = Some(descriptor);
            }
            if !piece.bytes.is_empty() {
                break;
            }
            self.queue.pop_front();
            if descriptor.is_some() {
                break;
            }
        }
        let mut rest = read.as_slice();
        while let Some(end) = memchr::memchr(b'\n', rest) {
            self.line.extend_from_slice(&rest[..end]);
            self.message();
            rest = &rest[end + 1..];
        }
        self.line.extend_from_slice(rest);
    }

    fn message(&mut self) {
        let line = std::mem::take(&mut self.line);
        match line.strip_prefix(b"handle ") {
            Some(number) => {
                let number = String::from_utf8_lossy(number).trim_end_matches('.').parse().expect("number");
                self.paired.push((number, self.pending.take()));
            }
            None => self.plain += 1,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Plain(usize),
    /// A descriptor whose message has about this length.
    Handle(usize),
    /// The kernel takes up to so many bytes.
    Send(usize),
    Read,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Lengths over several magnitudes, as broadcasts have them.
    let long = prop_oneof![10..300usize, 300..10_000usize, 10_000..130_000usize];
    let step = prop_oneof![
        3 => long.prop_map(Step::Plain),
        4 => prop_oneof![20 => 12..400usize, 1 => 400..4_000usize, 1 => 4_000..60_000usize].prop_map(Step::Handle),
        4 => prop_oneof![1..5_000usize, 5_000..200_000usize].prop_map(Step::Send),
        3 => Just(Step::Read),
    ];
    prop::collection::vec(step, 1..120)
}

fn send(outgoing: &mut Outgoing<u64>, node: &mut Node, mut most: usize) {
    while let Some(Chunk { bytes, handle }) = outgoing.next() {
        // A message with a descriptor is taken whole or not at all; a plain one may be cut anywhere.
        let taken = if handle.is_some() { bytes.len() } else { bytes.len().min(most) };
        if taken > most || taken == 0 {
            break;
        }
        node.take(&bytes[..taken], handle.copied());
        most -= taken;
        outgoing.sent(taken).expect("whole");
    }
}

/// Runs the steps and then lets everything through. Yields the pairs, and how many plain messages came.
fn run(mut outgoing: Outgoing<u64>, most_piece: usize, steps: &[Step]) -> (Vec<(u64, Option<u64>)>, usize) {
    let (mut node, mut number) = (Node::new(most_piece), 0);
    for step in steps {
        match *step {
            Step::Plain(len) => outgoing.plain(|out| {
                out.extend(std::iter::repeat_n(b'x', len - 1));
                out.push(b'\n');
            }),
            Step::Handle(len) => {
                outgoing.with_handle(number, |out| {
                    let start = out.len();
                    out.extend_from_slice(format!("handle {number}").as_bytes());
                    out.resize(out.len().max(start + len - 1), b'.');
                    out.push(b'\n');
                });
                number += 1;
            }
            Step::Send(most) => send(&mut outgoing, &mut node, most),
            Step::Read => node.read(),
        }
    }
    while outgoing.len() > 0 {
        send(&mut outgoing, &mut node, usize::MAX);
    }
    while !node.queue.is_empty() {
        node.read();
    }
    (node.paired, node.plain)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever goes between, and however sending and reading take turns, each message gets its own descriptor.
    #[test]
    fn each_descriptor_reaches_its_message(steps in steps(), most_piece in prop::sample::select(PIECES.as_slice())) {
        let (paired, plain) = run(Outgoing::new(), most_piece, &steps);
        let handles = steps.iter().filter(|step| matches!(step, Step::Handle(_))).count() as u64;
        prop_assert_eq!(paired, (0..handles).map(|number| (number, Some(number))).collect::<Vec<_>>());
        prop_assert_eq!(plain, steps.iter().filter(|step| matches!(step, Step::Plain(_))).count());
    }
}

/// The model can fail: sent the simple way, the same sequences are mixed up.
#[test]
fn without_the_rule_descriptors_are_mixed_up() {
    let mut steps = Vec::new();
    for at in 0..1000usize {
        // A third of them end where a read that began behind the last descriptor does.
        let len = if at % 3 == 0 { NODE_READS - at % 150 } else { 10 + at * 7919 % 130_000 };
        steps.push(Step::Plain(len));
        steps.push(Step::Handle(150));
        if at % 5 == 0 {
            steps.push(Step::Send(usize::MAX));
            steps.push(Step::Read);
        }
    }
    let wrong = |(paired, _): (Vec<(u64, Option<u64>)>, usize)| {
        let lost = paired.iter().filter(|(_, got)| got.is_none()).count();
        let swapped = paired.iter().filter(|(own, got)| got.is_some_and(|got| got != *own)).count();
        (lost, swapped)
    };
    let (lost, swapped) = wrong(run(Outgoing::without_the_rule(), PIECES[0], &steps));
    assert!(lost > 20 && swapped > 20, "{lost} without a descriptor, {swapped} with another's");
    assert_eq!(wrong(run(Outgoing::new(), PIECES[0], &steps)), (0, 0));
}

#[test]
fn a_second_system_call_is_spent_only_where_a_read_could_cut() {
    let calls = |outgoing: &Outgoing<u64>| {
        outgoing.chunks().map(|chunk| (chunk.bytes.len(), chunk.handle.copied())).collect::<Vec<_>>()
    };
    let mut outgoing = Outgoing::new();
    let line = |len: usize| move |out: &mut Vec<u8>| out.extend(std::iter::repeat_n(b'x', len));
    outgoing.with_handle(0, line(150));
    outgoing.plain(line(300));
    outgoing.with_handle(1, line(150));
    outgoing.plain(line(40_000));
    outgoing.with_handle(2, line(150));
    outgoing.with_handle(3, line(150));
    outgoing.with_handle(4, line(2_500));
    let expected = [
        (150, Some(0)),
        (300, None),
        (150, Some(1)),
        // Plain bytes and all of the message but its last byte go in one call.
        (40_149, None),
        (1, Some(2)),
        (150, Some(3)),
        (2_499, None),
        (1, Some(4)),
    ];
    assert_eq!(calls(&outgoing), expected);
    for (taken, handle) in expected {
        assert_eq!(outgoing.sent(taken), Ok(handle));
    }
    assert_eq!(calls(&outgoing), []);
}

#[test]
fn memory_for_what_waits_is_given_back_and_a_split_message_is_an_error() {
    let mut outgoing = Outgoing::<u64>::new();
    outgoing.plain(|out| out.extend(std::iter::repeat_n(b'x', 10 << 20)));
    while outgoing.len() > 0 {
        let len = outgoing.next().map_or(0, |chunk| chunk.bytes.len()).min(200_000);
        outgoing.sent(len).expect("plain");
        assert!(outgoing.held() <= 2 * outgoing.len().max(1 << 20), "{} for {}", outgoing.held(), outgoing.len());
    }
    assert!(outgoing.held() <= 64 << 10);
    let mut outgoing = Outgoing::new();
    outgoing.with_handle(1, |out| out.extend_from_slice(b"handle\n"));
    let split = outgoing.sent(3).expect_err("split");
    assert_eq!((split.taken, split.len), (3, 7));
}

/// The same with the session's own messages: the worker's answers settle exactly the connection that was meant.
#[test]
fn a_session_s_connections_are_answered_one_by_one() {
    let mut session = Session::new(Serialization::Json, b"{\"m\":1}\n".as_slice().into());
    let mut reader = IpcReader::new(Serialization::Json, MAX_FRAME);
    let key = "null:3000:4:undefined";
    let mut sent = Vec::new();
    for at in 0..4 {
        let delivery = if at % 2 == 0 { Delivery::Server { key } } else { Delivery::Message };
        assert_eq!(session.connection(delivery, None), at);
        assert!(session.forward(&[&vec![b' '; 50_000][..], b"1\n"].concat()));
    }
    while let Some((bytes, handle)) = session.next() {
        let len = bytes.len();
        sent.extend(handle);
        session.sent(len).expect("sent");
    }
    assert_eq!(sent, [0, 1, 2, 3].map(Handle::Connection));
    let answers = [
        (r#"{"cmd":"NODE_HANDLE_ACK"}"#, IpcEffect::Nothing),
        (r#"{"cmd":"NODE_HANDLE_ACK"}"#, IpcEffect::Taken { connection: 1 }),
        (r#"{"cmd":"NODE_HANDLE_ACK"}"#, IpcEffect::Nothing),
        (r#"{"cmd":"NODE_CLUSTER","ack":1,"accepted":true,"seq":9}"#, IpcEffect::Taken { connection: 2 }),
        (r#"{"cmd":"NODE_CLUSTER","ack":0,"accepted":true,"seq":9}"#, IpcEffect::Taken { connection: 0 }),
        (r#"{"cmd":"NODE_HANDLE_ACK"}"#, IpcEffect::Taken { connection: 3 }),
    ];
    for (line, effect) in answers {
        let bytes = [line.as_bytes(), b"\n"].concat();
        let mut frames = reader.take_in(&bytes);
        let Ok(Some(Piece::Frame(frame))) = frames.next() else { panic!("a frame") };
        let frame: IpcFrame<'_> = frame;
        assert_eq!(session.receive(&frame).expect("received"), effect);
    }
    assert_eq!(session.in_flight(), 0);
}
