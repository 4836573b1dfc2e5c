//! What the words of a hand-over cost, without the system calls: writing a connection, reading that it was taken.
//!
//! `cargo bench --bench codec`. Everything here is done once for each connection, or (the frames of haft's own dialect)
//! once for many; the times are for one connection.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use haft::node::wire::{ConnectionMessage, Delivery, IpcReader, Piece, Serialization, Session};
use haft_sys::addr::EndAddr;
use haft_worker::protocol::{Entry, FromMaster, FromWorker};

fn entries(count: u64) -> impl Iterator<Item = Entry> {
    let end = |port| EndAddr::Ip((Ipv4Addr::LOCALHOST, port).into());
    (0..count).map(move |sequence| Entry { sequence, listener: 0, client: end(sequence as u16), local: end(3000) })
}

/// Frames of haft's own dialect.
fn haft(c: &mut Criterion) {
    let mut group = c.benchmark_group("haft: a connection in a frame of");
    for count in [1, 64] {
        // The time for one, out of so many.
        let each = |time: Duration| time / count as u32;
        let mut frame = Vec::new();
        group.bench_function(BenchmarkId::new("written", count), |b| {
            b.iter_custom(|times| {
                let start = Instant::now();
                for _ in 0..times {
                    FromMaster::write_connections(black_box(entries(count)), &mut frame);
                }
                each(start.elapsed())
            });
        });
        group.bench_function(BenchmarkId::new("read", count), |b| {
            b.iter_custom(|times| {
                let start = Instant::now();
                for _ in 0..times {
                    black_box(FromMaster::read(black_box(&frame))).expect("a frame");
                }
                each(start.elapsed())
            });
        });
    }
    group.finish();
    let mut taken = Vec::new();
    FromWorker::Taken { below: 7, limit: 1000, open: 3 }.write(&mut taken);
    c.bench_function("haft: TAKEN read", |b| b.iter(|| FromWorker::read(black_box(&taken)).expect("a frame")));
}

/// A connection of Node's, from the message that brings it to `accepted: true`.
fn node(c: &mut Criterion) {
    let mut group = c.benchmark_group("node: a connection sent and taken");
    let told = SocketAddr::from(([203, 0, 113, 9], 4711));
    for (name, told) in [("as it is", None), ("with an address that a proxy told", Some(told))] {
        group.bench_function(name, |b| {
            let serialization = Serialization::Json;
            let message = ConnectionMessage::from_json("1").expect("JSON").frame(serialization);
            let mut session = Session::new(serialization, message.into());
            let mut reader = IpcReader::new(serialization, 1 << 20);
            let mut seq = 0;
            b.iter(|| {
                session.connection(Delivery::Server { key: "null:3000:4:undefined:0" }, told);
                while let Some((bytes, _)) = session.next() {
                    let len = black_box(bytes).len();
                    session.sent(len).expect("whole");
                }
                let words = format!(
                    "{{\"cmd\":\"NODE_HANDLE_ACK\"}}\n{{\"cmd\":\"NODE_CLUSTER\",\"ack\":{seq},\"accepted\":true,\"seq\":{seq}}}\n"
                );
                seq += 1;
                let mut frames = reader.take_in(words.as_bytes());
                while let Ok(Some(Piece::Frame(frame))) = frames.next() {
                    black_box(session.receive(&frame)).expect("proper words");
                }
            });
            assert_eq!(session.in_flight(), 0);
        });
    }
    group.finish();
}

criterion_group!(benches, haft, node);
criterion_main!(benches);
