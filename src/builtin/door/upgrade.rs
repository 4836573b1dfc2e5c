//! From HTTP to a WebSocket.
//!
//! A polling session that upgrades is probed first (Engine.IO protocol 4, "Upgrade"): the client sends `2probe`, the
//! server answers `3probe` and releases the pending poll, the client sends `5`. Until that `5` the session goes on
//! polling, whatever becomes of the WebSocket: a proxy that accepts WebSockets and then swallows their frames costs the
//! client nothing. That is why the probe is done here and not by the engine, which ends the session when a probe fails
//! or times out. The engine gets the WebSocket once the client has sent `5`, and the probe is replayed to it.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tungstenite::handshake::derive_accept_key;

use crate::builtin::bounded::Bounded;
use crate::builtin::counted::CountedSession;
use crate::builtin::door::{EngineService, without_luggage};
use crate::builtin::drain::{Conn, Probing, SessionGate};
use crate::builtin::handshake;
use crate::builtin::heartbeat::FirstPing;
use crate::builtin::reason::Reasoned;
use crate::builtin::wire::{WsGuard, WsLife, WsStream};
use haft_worker::EndAddr;

/// How often the pending poll of an upgrading session is released (engine.io 6 checks every 100 ms).
const RELEASE_EVERY: Duration = Duration::from_millis(100);

/// How long a client may take to answer our close frame.
const LINGER: Duration = Duration::from_secs(1);

/// `2probe` and `5` as the client sent them, for the engine (text frames with a zero mask).
const PROBE_AGAIN: &[u8] = b"\x81\x86\0\0\0\x002probe\x81\x81\0\0\0\x005";

/// `3probe`: what we answer, and what the engine will answer again.
const PONG: &[u8] = b"\x81\x063probe";

/// A close frame without a code (engine.io closes so).
const CLOSE: &[u8] = b"\x88\x00";

/// A WebSocket whose handshake is done.
type Socket = Reasoned<TokioIo<Upgraded>>;

/// Accepts a WebSocket that is a session of its own.
pub(in crate::builtin) fn open(
    door: &EngineService,
    conn: &Conn,
    client: EndAddr,
    request: Request<Incoming>,
) -> Response<Body> {
    let door = door.clone();
    let max_payload = door.max_payload as u64;
    accept(max_payload, conn, client, request, move |io, guard, mut request| async move {
        // The engine keeps it as long as the session.
        request.extensions_mut().insert(Arc::new(CountedSession::new(&door.outboxes.scoreboard, true)));
        let stream = WsStream::new(bounded(&door, io, &guard, BytesMut::new()), guard, Bytes::new(), 0);
        door.engine.adopt(FirstPing::new(stream, door.ping_interval), request);
    })
}

/// Accepts a WebSocket to which the polling session behind `gate` may move.
pub(in crate::builtin) fn probe(
    door: &EngineService,
    conn: &Conn,
    client: EndAddr,
    request: Request<Incoming>,
    gate: Arc<SessionGate>,
) -> Response<Body> {
    let door = door.clone();
    let max_payload = door.max_payload as u64;
    accept(max_payload, conn, client, request, move |mut io, guard, request| async move {
        // One attempt at a time, as in engine.io ("transport has already been trying to upgrade").
        let probing = gate.probe();
        let packet = match &probing {
            Some(probing) => timeout(door.upgrade_timeout, upgraded(&mut io, probing)).await,
            None => Ok(Err(io::ErrorKind::AlreadyExists.into())),
        };
        match packet {
            Ok(Ok(rest)) => {
                let first = [PROBE_AGAIN, &rest].concat();
                let waiting = match door.outboxes.of(gate.sid()) {
                    Some(outbox) => {
                        outbox.settled().await;
                        outbox.moves()
                    }
                    None => BytesMut::new(),
                };
                let stream = bounded(&door, io, &guard, waiting);
                door.engine.adopt(WsStream::new(stream, guard, first.into(), PONG.len()), request);
                gate.over();
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "the client did not complete its upgrade");
                farewell(io).await;
            }
            Err(_) => {
                tracing::debug!("the client did not complete its upgrade in time");
                farewell(io).await;
            }
        }
    })
}

/// Accepts a WebSocket that can lead to nothing, and closes it.
pub(in crate::builtin) fn farewell_to(
    door: &EngineService,
    conn: &Conn,
    client: EndAddr,
    request: Request<Incoming>,
) -> Response<Body> {
    let max_payload = door.max_payload as u64;
    accept(max_payload, conn, client, request, |io, guard, _| async move {
        farewell(io).await;
        drop(guard);
    })
}

/// The connection with a bound on what waits there.
fn bounded(door: &EngineService, io: Socket, guard: &WsGuard, waiting: BytesMut) -> Bounded<Socket> {
    Bounded::new(io, guard.another(), door.outboxes.budget.hold(), waiting)
}

/// Answers 101, and gives the stream to `then` once it is ours.
fn accept<F, Fut>(
    max_payload: u64,
    conn: &Conn,
    client: EndAddr,
    mut request: Request<Incoming>,
    then: F,
) -> Response<Body>
where
    F: FnOnce(Socket, WsGuard, Request<()>) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let key = request.headers().get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let accept = key.and_then(|key| HeaderValue::try_from(key).ok());
    let subprotocol = handshake::judge(&request).ok().flatten();
    let (life, guard) = WsLife::begin();
    conn.becomes(life);
    let upgraded = hyper::upgrade::on(&mut request);
    let request = without_luggage(request, client).map(|_| ());
    tokio::spawn(async move {
        match upgraded.await {
            Ok(io) => then(Reasoned::new(TokioIo::new(io), max_payload), guard, request).await,
            Err(error) => tracing::debug!(%error, "the client left before its WebSocket was open"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Some(accept) = accept {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(subprotocol) = subprotocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    response
}

/// Does the probe. Returns what the client sent after its `5`.
async fn upgraded(io: &mut Socket, probing: &Probing) -> io::Result<Bytes> {
    let gate = &probing.0;
    let exchange = async {
        let mut frames = ProbeFrames::default();
        frames.expect(io, b"2probe").await?;
        io.write_all(PONG).await?;
        io.flush().await?;
        {
            let mut packet = pin!(frames.expect(io, b"5"));
            let mut release = interval(RELEASE_EVERY);
            release.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    result = &mut packet => break result?,
                    _ = release.tick() => gate.release.notify_waiters(),
                }
            }
        }
        Ok(frames.unread.freeze())
    };
    tokio::select! {
        result = exchange => result,
        () = gate.until_not_live() => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the session has ended")),
    }
}

/// Closes a WebSocket that led to nothing: a close frame, then until the client has closed too.
async fn farewell(mut io: Socket) {
    let closing = async {
        io.write_all(CLOSE).await?;
        io.shutdown().await?;
        tokio::io::copy(&mut io, &mut tokio::io::sink()).await
    };
    // Whatever comes of it, the connection is done.
    let _ = timeout(LINGER, closing).await;
}

/// The frames of a probe: whole, masked, short.
#[derive(Debug, Default)]
struct ProbeFrames {
    unread: BytesMut,
}

impl ProbeFrames {
    /// Reads the text frame `text`; answers pings on the way, and takes anything else for an error.
    async fn expect(&mut self, io: &mut Socket, text: &[u8]) -> io::Result<()> {
        loop {
            match take_frame(&mut self.unread)? {
                None if io.read_buf(&mut self.unread).await? == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                None | Some((Opcode::Pong, _)) => {}
                Some((Opcode::Text, payload)) if payload == text => return Ok(()),
                Some((Opcode::Ping, payload)) => {
                    let header = [0x8a, payload.len() as u8];
                    io.write_all(&[&header, payload.as_slice()].concat()).await?;
                    io.flush().await?;
                }
                Some((Opcode::Text, _)) => return Err(not_a_probe("another packet than the probe's")),
                Some((Opcode::Close, _)) => return Err(io::ErrorKind::ConnectionReset.into()),
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opcode {
    Text,
    Close,
    Ping,
    Pong,
}

/// Takes one frame with at most 125 bytes from the front of `unread`; `None` if it is not all there.
fn take_frame(unread: &mut BytesMut) -> io::Result<Option<(Opcode, Vec<u8>)>> {
    let Some(&[first, second]) = unread.first_chunk() else { return Ok(None) };
    let opcode = match first {
        0x81 => Opcode::Text,
        0x88 => Opcode::Close,
        0x89 => Opcode::Ping,
        0x8a => Opcode::Pong,
        _ => return Err(not_a_probe("a frame that is no text")),
    };
    let length = match second {
        0x80..=0xfd => usize::from(second & 0x7f),
        _ => return Err(not_a_probe("a frame that is long or not masked")),
    };
    if unread.len() < 6 + length {
        return Ok(None);
    }
    unread.advance(2);
    let mask = unread.split_to(4);
    let payload = unread.split_to(length).iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    Ok(Some((opcode, payload)))
}

fn not_a_probe(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
