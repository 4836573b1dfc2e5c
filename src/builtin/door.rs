//! The door of the engine: judges each Socket.IO request as Socket.IO's own server does (`Server.verify` of engine.io 6),
//! and lets the good ones through to the engine.
//!
//! It also does what neither side can do alone: it answers polls of a session that is to end, releases polls of a
//! session that is about to upgrade, and ends a session whose poll was abandoned.

mod upgrade;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use socketioxide::socket::Sid;

use super::answers::{SEPARATOR, bytes_of, closing_down, closing_payload, farewell, payload, status, with_close};
use super::counted;
use super::drain::{Conn, Registry, SessionGate, SessionPhase};
use super::engine::{Engine, SidState, error_code};
use super::handshake::{self, Sites, asks_for_upgrade, has_token};
use super::heartbeat::settle;
use super::held::{self, Held};
use super::outbox::{Outboxes, PollingOutbox};
use super::posted::{self, Unread};
use super::query::{self, param};
use super::refusal::Refusal;
use crate::config::{EngineConfig as Settings, Transport};
use haft_worker::scoreboard::Field;
use haft_worker::{EndAddr, Tags, Untagged};

/// How long the body of a request that is refused may take to arrive.
const READ_OUT: Duration = Duration::from_secs(5);

/// What a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EngineRequest {
    /// A new polling session.
    Open,
    /// A new WebSocket session.
    OpenWebsocket,
    /// What the server has for this session.
    Poll(Sid),
    /// A message for this session.
    Post(Sid),
    /// To move this session to a WebSocket.
    Upgrade(Sid),
    /// A WebSocket that can lead to nothing: it is accepted and closed.
    Nothing,
}

/// The door.
#[derive(Clone)]
pub(super) struct EngineService {
    pub(super) engine: Engine,
    pub(super) upgrade_timeout: Duration,
    pub(super) ping_interval: Duration,
    pub(super) max_payload: usize,
    pub(super) outboxes: Arc<Outboxes>,
    registry: Arc<Registry>,
    polling: bool,
    websocket: bool,
    sites: Sites,
    tags: Option<Tags>,
}

impl EngineService {
    pub(super) fn new(
        outboxes: Arc<Outboxes>,
        engine: Engine,
        registry: Arc<Registry>,
        settings: &Settings,
        tags: Option<Tags>,
    ) -> Self {
        Self {
            engine,
            upgrade_timeout: settings.upgrade_timeout,
            ping_interval: settings.ping_interval,
            max_payload: usize::try_from(settings.max_payload).unwrap_or(usize::MAX),
            outboxes,
            registry,
            polling: settings.transports.contains(&Transport::Polling),
            websocket: settings.transports.contains(&Transport::Websocket),
            sites: Sites::new(&settings.cors_origin),
            tags,
        }
    }

    /// Answers one request below the engine's path.
    pub(super) async fn answer(
        &self,
        conn: Arc<Conn>,
        client: EndAddr,
        mut request: Request<Incoming>,
    ) -> Response<Body> {
        if let Some(plain) = query::plain(request.uri()) {
            *request.uri_mut() = plain;
        }
        let anothers = self.untag(&mut request);
        let upgrade = asks_for_upgrade(&request);
        let judged = self.judge(&request, upgrade);
        // A WebSocket is judged first by what it is for, as in engine.io and ws.
        let handshake = if upgrade && judged.is_ok() { handshake::judge(&request) } else { Ok(None) };
        if let Err(refusal) = judged {
            self.outboxes.scoreboard.add(counted::refused(refusal), 1);
        }
        let mut response = match judged {
            Err(refusal) if upgrade => refusal.of_upgrade(),
            Err(refusal) => {
                self.read_out(request.into_body()).await;
                // Its next request on this connection would be refused as well.
                if anothers { with_close(refusal.response()) } else { refusal.response() }
            }
            Ok(_) if let Err(bad) = handshake => bad.response(),
            Ok(EngineRequest::Nothing) => upgrade::farewell_to(self, &conn, client, request),
            Ok(EngineRequest::Open | EngineRequest::OpenWebsocket) if !self.registry.opens_sessions(&conn) => {
                self.outboxes.scoreboard.add(Field::RefusedOther, 1);
                closing_down()
            }
            Ok(EngineRequest::Open) => self.open(&conn, client, request).await,
            Ok(EngineRequest::OpenWebsocket) => upgrade::open(self, &conn, client, request),
            Ok(EngineRequest::Upgrade(sid)) => upgrade::probe(self, &conn, client, request, self.gate(&conn, sid)),
            Ok(EngineRequest::Poll(sid)) => self.poll(&conn, sid, request).await,
            Ok(EngineRequest::Post(sid)) => self.post(&conn, sid, request).await,
        };
        // As engine.io does, so that no cache on the way keeps a poll.
        response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        response
    }

    /// Takes this worker's tag out of the request: from here on a session has the name that the engine gave it. Returns
    /// whether it has another worker's tag, which stays and names no session here.
    fn untag<B>(&self, request: &mut Request<B>) -> bool {
        match self.tags.as_ref().map(|tags| tags.untagged(request.uri())) {
            Some(Untagged::Another(_) | Untagged::OtherHost(_)) => return true,
            Some(Untagged::Ours(uri)) => *request.uri_mut() = uri,
            Some(Untagged::AsItWas) | None => {}
        }
        false
    }

    fn judge<B>(&self, request: &Request<B>, upgrade: bool) -> Result<EngineRequest, Refusal> {
        let query = request.uri().query().unwrap_or_default();
        let websocket = match param(query, "transport") {
            Some("polling") if self.polling => false,
            Some("websocket") if self.websocket => true,
            _ => return Err(Refusal::UnknownTransport),
        };
        if upgrade && !self.sites.admit(request.headers()) {
            return Err(Refusal::Forbidden);
        }
        let current = param(query, "EIO") == Some("4");
        let Some(sid) = param(query, "sid").filter(|sid| !sid.is_empty()) else {
            return match (websocket, upgrade) {
                _ if request.method() != Method::GET => Err(Refusal::BadHandshakeMethod),
                (true, false) => Err(Refusal::BadRequest),
                (false, true) => Ok(EngineRequest::Nothing),
                _ if !current => Err(Refusal::UnsupportedProtocol),
                (true, true) => Ok(EngineRequest::OpenWebsocket),
                (false, false) => Ok(EngineRequest::Open),
            };
        };
        let sid: Sid = sid.parse().map_err(|_| Refusal::UnknownSid)?;
        // The common case: the engine's answer shows whether the session exists.
        match *request.method() {
            Method::GET if current && !websocket && !upgrade => return Ok(EngineRequest::Poll(sid)),
            Method::POST if current && !websocket && !upgrade => return Ok(EngineRequest::Post(sid)),
            _ => {}
        }
        match self.engine.known(sid) {
            SidState::No => Err(Refusal::UnknownSid),
            SidState::Polling | SidState::Websocket if !current || !upgrade => Err(Refusal::BadRequest),
            SidState::Polling if websocket => Ok(EngineRequest::Upgrade(sid)),
            // Its session has a WebSocket already, or it asked for one to poll with.
            SidState::Polling | SidState::Websocket => Ok(EngineRequest::Nothing),
        }
    }

    /// Reads the body of a refused request: otherwise the client would get a reset and might never see the answer.
    async fn read_out(&self, mut body: Incoming) {
        let mut left = self.max_payload;
        let reading = async {
            while let Some(Ok(frame)) = body.frame().await {
                let length = frame.data_ref().map_or(0, |data| data.len());
                match left.checked_sub(length) {
                    Some(less) => left = less,
                    None => return,
                }
            }
        };
        // A client that takes longer is answered anyway.
        tokio::time::timeout(READ_OUT, reading).await.ok();
    }

    fn gate(&self, conn: &Conn, sid: Sid) -> Arc<SessionGate> {
        let gate = conn.carries(sid, |sid| self.engine.known(sid) == SidState::Polling);
        conn.asked();
        gate
    }

    async fn open(&self, conn: &Conn, client: EndAddr, request: Request<Incoming>) -> Response<Body> {
        let mut request = without_luggage(request, client);
        let outbox = Arc::new(PollingOutbox::new(&self.outboxes));
        // The engine keeps it as long as the session.
        request.extensions_mut().insert(Arc::clone(&outbox));
        let response = self.engine.answer(request).await;
        let body = bytes_of(response).await;
        if let Some(sid) = opened_sid(&body) {
            self.gate(conn, sid);
            self.outboxes.enter(sid, &outbox);
            tokio::spawn(settle(self.engine.clone(), sid, outbox, self.ping_interval));
            if self.tags.is_some() {
                self.registry.began(sid, |sid| self.engine.known(sid) != SidState::No);
            }
        }
        let body = if self.websocket { body } else { without_upgrades(&body) };
        let tagged = self.tags.as_ref().and_then(|tags| tags.tag_open_packet(&body));
        payload(tagged.map_or(body, Bytes::from))
    }

    async fn post(&self, conn: &Conn, sid: Sid, request: Request<Incoming>) -> Response<Body> {
        let gate = self.gate(conn, sid);
        let Some(outbox) = self.outboxes.of(sid).filter(|outbox| !outbox.moved()) else {
            if self.registry.has_parted(sid) {
                conn.forget(sid);
                let body = posted::read(request.into_body(), self.max_payload, &self.outboxes.budget).await;
                return self.crossed(&body.unwrap_or_default());
            }
            return self.tidy(conn, sid, self.engine.answer(request).await).0;
        };
        outbox.settled().await;
        let Some(_posting) = outbox.post() else {
            // As in engine.io ("data request overlap from client").
            self.engine.close(sid);
            gate.over();
            return Refusal::BadRequest.response();
        };
        outbox.gather();
        match posted::read(request.into_body(), self.max_payload, &self.outboxes.budget).await {
            Ok(mut body) => {
                let answer = posted::give(&self.engine, sid, &outbox, &mut body, self.max_payload).await;
                match self.tidy(conn, sid, answer) {
                    (_, true) => self.crossed(&body),
                    (answer, false) => answer,
                }
            }
            Err(Unread::Late) => with_close(status(StatusCode::REQUEST_TIMEOUT)),
            Err(Unread::TooMuch) => closing_down(),
            Err(Unread::Broken) => {
                self.engine.close(sid);
                with_close(Refusal::BadRequest.response())
            }
        }
    }

    async fn poll(&self, conn: &Conn, sid: Sid, request: Request<Incoming>) -> Response<Body> {
        let gate = self.gate(conn, sid);
        let last = has_token(request.headers(), CONNECTION, "close");
        let outbox = self.outboxes.of(sid).filter(|outbox| !outbox.moved());
        if let Some(outbox) = &outbox {
            outbox.settled().await;
            if let Some(kept) = outbox.take() {
                let response = self.kept(&gate, sid, payload(kept), last).await;
                return self.held(sid, response).await;
            }
        }
        let polled = outbox.as_ref().map(PollingOutbox::polled);
        let mut abandoned = Abandoned(Some((self, sid)));
        let mut answer = pin!(self.engine.answer(request));
        let response = tokio::select! {
            biased;
            response = &mut answer => match last && self.registry.draining() && response.status() == StatusCode::OK {
                true => self.last_words(&gate, sid, response).await,
                false => self.polled(conn, sid, response),
            },
            () = gate.until(SessionPhase::Ending) => {
                self.registry.parted(sid);
                self.engine.close(sid);
                let response = farewell(answer.await).await;
                gate.over();
                response
            }
            () = gate.release.notified() => payload(Bytes::from_static(b"6")),
        };
        abandoned.0 = None;
        drop(polled);
        if let (Some(outbox), Some(bytes)) = (outbox, response.body().size_hint().exact()) {
            outbox.answered(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        self.held(sid, response).await
    }

    /// Counts an answer until its client reads it. If the worker holds too much, the session ends instead.
    async fn held(&self, sid: Sid, response: Response<Body>) -> Response<Body> {
        if response.body().size_hint().exact().is_some_and(|bytes| bytes <= held::UNCOUNTED as u64) {
            return response;
        }
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        match Held::new(bytes, &self.outboxes.budget) {
            Ok(held) => Response::from_parts(parts, Body::new(held)),
            Err(excess) => {
                self.outboxes.budget.close(excess);
                self.engine.close(sid);
                closing_down()
            }
        }
    }

    /// Answers a poll with what was kept for it.
    async fn kept(&self, gate: &SessionGate, sid: Sid, response: Response<Body>, last: bool) -> Response<Body> {
        match gate.is(SessionPhase::Ending) || last && self.registry.draining() {
            true => self.last_words(gate, sid, response).await,
            false => response,
        }
    }

    /// Ends a session whose client polls on a new connection each time: its next poll would go to another worker, which
    /// does not know the session.
    async fn last_words(&self, gate: &SessionGate, sid: Sid, response: Response<Body>) -> Response<Body> {
        self.registry.parted(sid);
        let mut packets = bytes_of(response).await.to_vec();
        while let Some(more) = self.engine.queued(sid) {
            packets.push(SEPARATOR);
            packets.extend_from_slice(&more);
        }
        self.engine.close(sid);
        gate.over();
        with_close(payload(closing_payload(&packets)))
    }

    /// The answer to a POST that crossed the goodbye of its session: there is no session any more, which this tells the
    /// client.
    fn crossed(&self, lost: &[u8]) -> Response<Body> {
        self.outboxes.scoreboard.add(Field::LostGoodbye, posted::messages(lost));
        with_close(payload(Bytes::from_static(b"ok")))
    }

    /// The answer to a poll.
    fn polled(&self, conn: &Conn, sid: Sid, response: Response<Body>) -> Response<Body> {
        match self.tidy(conn, sid, response) {
            (_, true) => with_close(payload(closing_payload(b""))),
            (response, false) => response,
        }
    }

    /// The engine's answer as Socket.IO's own server words it, and whether it calls a session unknown that has ended by
    /// a goodbye. That is no refusal.
    fn tidy(&self, conn: &Conn, sid: Sid, response: Response<Body>) -> (Response<Body>, bool) {
        let (response, refusal) = tidy(response);
        let is_unknown = refusal == Some(Refusal::UnknownSid);
        if is_unknown {
            conn.forget(sid);
        }
        let has_parted = is_unknown && self.registry.has_parted(sid);
        if let Some(refusal) = refusal.filter(|_| !has_parted) {
            self.outboxes.scoreboard.add(counted::refused(refusal), 1);
        }
        (response, has_parted)
    }
}

/// Ends the session if a poll is dropped before it is answered: the client went away, or opened the same session twice.
/// Socket.IO's own server does so too ("poll connection closed prematurely"); the engine by itself would keep the
/// session until its next heartbeat fails.
struct Abandoned<'a>(Option<(&'a EngineService, Sid)>);

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if let Some((door, sid)) = self.0
            && tokio::runtime::Handle::try_current().is_ok()
        {
            door.engine.close(sid);
        }
    }
}

/// The request as the engine keeps it for the life of the session: no headers, and of the extensions only the client's
/// address.
pub(super) fn without_luggage<B>(request: Request<B>, client: EndAddr) -> Request<B> {
    let (mut parts, body) = request.into_parts();
    parts.headers = HeaderMap::new();
    parts.extensions = http::Extensions::new();
    parts.extensions.insert(client);
    Request::from_parts(parts, body)
}

/// The engine writes error codes as texts; Socket.IO's own server writes numbers.
fn tidy(response: Response<Body>) -> (Response<Body>, Option<Refusal>) {
    if response.status() != StatusCode::BAD_REQUEST || !response.headers().contains_key(CONTENT_TYPE) {
        return (response, None);
    }
    let refusal = error_code(response).map_or(Refusal::BadRequest, Refusal::from_code);
    (refusal.response(), Some(refusal))
}

/// The session id in an open packet.
fn opened_sid(body: &[u8]) -> Option<Sid> {
    #[derive(serde::Deserialize)]
    struct Open<'a> {
        sid: &'a str,
    }
    serde_json::from_slice::<Open<'_>>(body.strip_prefix(b"0")?).ok()?.sid.parse().ok()
}

/// An open packet that offers no upgrade. (The engine always offers one.)
fn without_upgrades(body: &Bytes) -> Bytes {
    match std::str::from_utf8(body) {
        Ok(text) => Bytes::from(text.replacen(r#""upgrades":["websocket"]"#, r#""upgrades":[]"#, 1)),
        Err(_) => body.clone(),
    }
}
