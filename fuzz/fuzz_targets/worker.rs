//! A worker that says anything, and the master's side of it.

use std::net::SocketAddr;

use haft::ids::WorkerId;
use haft::node::wire::{
    AdapterRelay, ConnectionMessage, Decision, Delivery, IpcEffect, IpcReader, IpcViolation, Own, Piece, Serialization,
    ServerId, Servers, Session, Sockname,
};

/// Longest frame that is kept: short, so that longer ones come about.
const MAX_FRAME: usize = 4096;
const WORKER: WorkerId = WorkerId(7);

/// Takes in what a worker writes, as the master does.
pub fn receive(serialization: Serialization, bytes: &[u8]) {
    let Some((size, bytes)) = bytes.split_first() else { return };
    let mut reader = IpcReader::new(serialization, MAX_FRAME);
    let Ok(message) = ConnectionMessage::from_json("\"sticky:balance\"") else { return };
    let mut session = Session::new(serialization, message.frame(serialization).into());
    let mut sent = Vec::new();
    let (own, _) = Own::new([(Sockname::Ip(SocketAddr::from(([127, 0, 0, 1], 3000))), None)]);
    let (mut servers, mut relay) = (Servers::new(own, "/".into()), AdapterRelay::new());
    for at in 0..4 {
        let told = (at > 1).then(|| SocketAddr::from(([203, 0, 113, 9], at)));
        session.connection(if at % 2 == 0 { Delivery::Message } else { Delivery::Server { key: "k" } }, told);
    }
    flush(&mut session, &mut sent);
    let mut settled = 0;
    for piece in bytes.chunks(usize::from(*size) + 1) {
        let mut frames = reader.take_in(piece);
        while let Ok(Some(piece)) = frames.next() {
            let Piece::Frame(frame) = piece else { continue };
            match session.receive(&frame) {
                Ok(IpcEffect::Ask(query)) => match servers.ask(WORKER, &query) {
                    Decision::Join(server) => answer(&mut session, &servers, server, query.seq),
                    Decision::Displace(..) => answer(&mut session, &servers, ServerId::OWN, query.seq),
                    Decision::Refuse(refusal) => session.refuse(query.seq, &refusal),
                    Decision::Open(_) => match servers.opened(WORKER, &query, Ok(None)) {
                        Ok(server) => answer(&mut session, &servers, server, query.seq),
                        Err(refusal) => session.refuse(query.seq, &refusal),
                    },
                },
                Ok(IpcEffect::Taken { .. } | IpcEffect::Returned { .. }) => settled += 1,
                Ok(IpcEffect::ServerReturned { server, query }) => answer(&mut session, &servers, server, query),
                Ok(IpcEffect::Closed { key }) => _ = servers.closed(WORKER, &key),
                Ok(IpcEffect::Relay(routing)) => {
                    relay.route(WORKER, &routing);
                    assert!(session.forward(frame.whole()));
                }
                Ok(_) => {}
                Err(_) => return check(serialization, &sent),
            }
            flush(&mut session, &mut sent);
        }
        assert!(reader.held() <= 2 * (64 << 10), "{}", reader.held());
    }
    assert_eq!(session.in_flight() + settled, 4);
    for notice in relay.died(WORKER) {
        assert!(session.notify(&notice));
    }
    flush(&mut session, &mut sent);
    servers.exited(WORKER);
    check(serialization, &sent);
}

fn answer(session: &mut Session, servers: &Servers, server: ServerId, query: u64) {
    if let Some(answer) = servers.answer(server) {
        session.answer(query, server, &answer);
    }
}

/// The kernel takes everything.
fn flush(session: &mut Session, sent: &mut Vec<u8>) {
    while let Some(bytes) = session.next().map(|(bytes, _)| bytes.to_vec()) {
        assert!(session.sent(bytes.len()).is_ok());
        sent.extend(bytes);
    }
}

/// What is sent is messages, each of a known kind, whatever of a worker's own words is in them: Node dies of others.
fn check(serialization: Serialization, sent: &[u8]) {
    let mut reader = IpcReader::new(serialization, usize::MAX);
    let mut frames = reader.take_in(sent);
    while let Some(piece) = frames.next().expect("frames") {
        let Piece::Frame(frame) = piece else { panic!("{piece:?}") };
        let heard = Session::new(serialization, [].as_slice().into())
            .receive(&frame)
            .map(|effect| effect != IpcEffect::Message);
        assert!(!matches!(heard, Ok(false) | Err(IpcViolation::Malformed(_))), "{frame:?}");
    }
    assert!(!reader.is_within_frame());
}
