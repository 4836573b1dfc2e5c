//! The Socket.IO engine (socketioxide) as the door needs it: answer a request, take over a WebSocket, and look up or
//! end a session by its id.
//!
//! The engine has no call for the last two, so it is asked in its own language: with requests made here.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use socketioxide::service::SocketIoService;
use socketioxide::socket::Sid;
use socketioxide::{ParserConfig, SocketIo, TransportType};
use tokio::io::{AsyncRead, AsyncWrite};
use tower::Service;

use crate::config::EngineConfig as Settings;

/// Packets that may wait for one client. Socket.IO's own server sets no limit; a client that is so far behind loses
/// messages here instead of taking all memory.
const BUFFERED_PACKETS: usize = 1024;

/// Attachments of one packet: the default of Socket.IO's own parser (`maxAttachments` of socket.io-parser 4).
const MAX_ATTACHMENTS: usize = 10;

/// How long a client may take to join a namespace (`connectTimeout` of socket.io 4).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(45);

/// What the engine knows about a session id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SidState {
    No,
    Polling,
    Websocket,
}

/// The engine. Clones share their sessions.
#[derive(Clone)]
pub(super) struct Engine {
    service: SocketIoService<Unrouted>,
    path: String,
}

impl Engine {
    /// The engine, and the handle by which an application is put on it.
    pub(super) fn new(settings: &Settings) -> (Self, SocketIo) {
        let max = usize::try_from(settings.max_payload).unwrap_or(usize::MAX);
        let parser = ParserConfig::common().max_incoming_binaries(MAX_ATTACHMENTS).max_incoming_binary_buf_size(max);
        let (service, io) = SocketIo::builder()
            .req_path(settings.path.clone())
            // The door judges transports, so that the refusal is the one of Socket.IO's own server.
            .transports([TransportType::Polling, TransportType::Websocket])
            .ping_interval(settings.ping_interval)
            .ping_timeout(settings.ping_timeout)
            .upgrade_timeout(settings.upgrade_timeout)
            .max_payload(settings.max_payload)
            .ws_max_message_size(max)
            .ws_max_frame_size(max)
            .max_buffer_size(BUFFERED_PACKETS)
            .connect_timeout(CONNECT_TIMEOUT)
            .with_parser(parser)
            .build_with_inner_svc(Unrouted);
        (Self { service, path: settings.path.clone() }, io)
    }

    /// Answers a request of the polling transport.
    pub(super) fn answer<B>(&self, request: Request<B>) -> impl Future<Output = Response<Body>> + Send + use<B>
    where
        B: hyper::body::Body + Unpin + Send + std::fmt::Debug + 'static,
        B::Data: Send,
        B::Error: std::fmt::Debug,
    {
        let answer = Service::<Request<B>>::call(&mut self.service.clone(), request);
        async move {
            match answer.await {
                Ok(response) => response.map(Body::new),
                Err(never) => match never {},
            }
        }
    }

    /// Gives the engine a WebSocket whose handshake is done. With a session id in the request the engine expects the
    /// probe and the upgrade packet first.
    pub(super) fn adopt<S>(&self, stream: S, request: Request<()>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // The engine serves it in a task of its own; what it refuses here, the door has refused before.
        let mut service = self.service.clone();
        let refused = at_once(Service::<(S, Request<()>)>::call(&mut service, (stream, request)));
        if let Some(Err(error)) = refused {
            tracing::debug!(%error, "the engine refused a WebSocket");
        }
    }

    /// Asks for a session by posting nothing to it.
    pub(super) fn known(&self, sid: Sid) -> SidState {
        match self.post(sid, Bytes::new()) {
            Some(answer) if answer.status() == StatusCode::OK => SidState::Polling,
            Some(answer) => match error_code(answer) {
                Some(3) => SidState::Websocket,
                _ => SidState::No,
            },
            None => SidState::No,
        }
    }

    /// Ends a polling session by posting a close packet in the client's name. A pending poll returns at once, its last
    /// packet a noop.
    pub(super) fn close(&self, sid: Sid) {
        self.post(sid, Bytes::from_static(b"1"));
    }

    /// Waits for the next packets of a polling session that is not being polled. `None`: there is no such session (any
    /// more).
    pub(super) fn poll(&self, sid: Sid) -> impl Future<Output = Option<Bytes>> + Send + use<> {
        let answer = self.request(Method::GET, sid, Bytes::new()).map(|request| self.answer(request));
        async move {
            let answer = answer?.await;
            if answer.status() != StatusCode::OK {
                return None;
            }
            let packets = answer.into_body().collect().await.ok()?.to_bytes();
            (!packets.is_empty()).then_some(packets)
        }
    }

    /// What waits for a polling session that is not being polled.
    pub(super) fn queued(&self, sid: Sid) -> Option<Bytes> {
        at_once(self.poll(sid))?
    }

    /// Answers a ping in the client's name.
    pub(super) fn pong(&self, sid: Sid) {
        self.post(sid, Bytes::from_static(b"3"));
    }

    /// Gives a polling session what its client posted.
    pub(super) fn post(&self, sid: Sid, body: Bytes) -> Option<Response<Body>> {
        at_once(self.answer(self.request(Method::POST, sid, body)?))
    }

    fn request(&self, method: Method, sid: Sid, body: Bytes) -> Option<Request<Full<Bytes>>> {
        let uri = format!("{}?EIO=4&transport=polling&sid={sid}", self.path);
        let request = Request::builder().method(method).uri(uri).body(Full::new(body));
        request.inspect_err(|error| tracing::debug!(%error, "a path that is no URI")).ok()
    }
}

/// The code in an error that the engine answered, if it is one (`{"code":"1","message":"Session ID unknown"}`).
pub(super) fn error_code(response: Response<Body>) -> Option<u8> {
    #[derive(serde::Deserialize)]
    struct ErrorBody {
        // A text in engineioxide 0.17, a number in engine.io.
        code: String,
    }
    let body = at_once(response.into_body().collect())?.ok()?.to_bytes();
    serde_json::from_slice::<ErrorBody>(&body).ok()?.code.parse().ok()
}

/// The result of a future that has nothing to wait for.
fn at_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Where the engine sends a request that is not below its path. The door lets none through.
#[derive(Debug, Clone)]
struct Unrouted;

impl<B> Service<Request<B>> for Unrouted {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_FOUND;
        ready(Ok(response))
    }
}
