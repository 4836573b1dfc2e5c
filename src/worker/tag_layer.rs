//! Tagging as a layer around a Socket.IO engine (tower).

use std::error::Error;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Either, Full};
use tower_layer::Layer;
use tower_service::Service;

use super::tags::{Tags, Untagged, sid};

/// Longest answer that may be an open packet: it holds a session id and a few numbers.
const OPEN_PACKET_MAX_LEN: u64 = 16 * 1024;

/// Tags the sessions of a Socket.IO engine, so that haft brings their clients to this worker without remembering them.
///
/// It belongs directly around the engine, inside of what compresses answers. It appends the tag to the session id in
/// the answer to a handshake over polling, and takes it out of the requests that bring it back, a WebSocket's upgrade
/// included: the engine never sees it. (A session that begins as a WebSocket needs none, for its id never comes back.)
///
/// A request for the session of another worker or host, which only a proxy brings that uses one connection for many
/// clients, is answered as an engine answers it that does not know the session, and the connection is closed. A worker
/// that lingers ([`super::Drain`]) opens no sessions any more, but for those that were on their way: 503, and the
/// client asks again on a new connection, which goes to another worker.
#[derive(Debug, Clone)]
pub struct TagLayer {
    tags: Option<Tags>,
    path: Arc<str>,
}

impl TagLayer {
    /// A layer that tags with what [`super::Incoming::tags`] gave; without, it changes nothing.
    pub fn new(tags: Option<Tags>) -> Self {
        Self { tags, path: "/socket.io".into() }
    }

    /// The engine answers below this path (`/socket.io` by default). What is elsewhere passes unchanged.
    pub fn below(self, path: &str) -> Self {
        Self { path: path.into(), ..self }
    }
}

impl<S> Layer<S> for TagLayer {
    type Service = TagService<S>;

    fn layer(&self, inner: S) -> TagService<S> {
        TagService { inner, layer: self.clone() }
    }
}

/// What [`TagLayer`] makes of a service.
#[derive(Debug, Clone)]
pub struct TagService<S> {
    inner: S,
    layer: TagLayer,
}

/// What becomes of a request.
enum Handling {
    /// The engine answers it.
    Through,
    /// The engine answers it, with an open packet if all is well.
    Handshake,
    /// The engine does not see it.
    Refused(Response<Full<Bytes>>),
}

type TaggedResponse<B> = Response<Either<B, Full<Bytes>>>;

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for TagService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    ResBody: Body<Data = Bytes> + Send + 'static,
    ResBody::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = TaggedResponse<ResBody>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<TaggedResponse<ResBody>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let Some(tags) = &self.layer.tags else {
            let answer = self.inner.call(request);
            return Box::pin(async move { Ok(answer.await?.map(Either::Left)) });
        };
        let fate = match request.uri().path().starts_with(&*self.layer.path) {
            true => judge(tags, &mut request),
            false => Handling::Through,
        };
        match fate {
            Handling::Refused(response) => Box::pin(ready(Ok(response.map(Either::Right)))),
            Handling::Through => {
                let answer = self.inner.call(request);
                Box::pin(async move { Ok(answer.await?.map(Either::Left)) })
            }
            Handling::Handshake => {
                let (answer, tags) = (self.inner.call(request), tags.clone());
                Box::pin(async move { Ok(opened(&tags, answer.await?).await) })
            }
        }
    }
}

/// Decides what becomes of a request below the engine's path, and takes this worker's tag out of it.
fn judge<B>(tags: &Tags, request: &mut Request<B>) -> Handling {
    match tags.untagged(request.uri()) {
        Untagged::Another(_) | Untagged::OtherHost(_) => return Handling::Refused(unknown_session()),
        Untagged::Ours(uri) => *request.uri_mut() = uri,
        Untagged::AsItWas => {}
    }
    let query = request.uri().query().unwrap_or_default();
    if request.method() != Method::GET || sid(query).is_some() || !query.contains("transport=") {
        return Handling::Through;
    }
    if tags.refuses_sessions() { Handling::Refused(not_here()) } else { Handling::Handshake }
}

/// The answer to a handshake, its open packet tagged. What holds none stays as it is.
async fn opened<B>(tags: &Tags, response: Response<B>) -> TaggedResponse<B>
where
    B: Body<Data = Bytes>,
{
    let short = response.body().size_hint().upper().is_some_and(|length| length <= OPEN_PACKET_MAX_LEN);
    if response.status() != StatusCode::OK || !short {
        return response.map(Either::Left);
    }
    let (mut parts, body) = response.into_parts();
    let Ok(body) = body.collect().await else {
        // Engines have it whole; a body that fails part-way opens no session.
        return refusal(StatusCode::INTERNAL_SERVER_ERROR, "").map(Either::Right);
    };
    let body = body.to_bytes();
    let body = tags.tag_open_packet(&body).map_or(body, Bytes::from);
    if parts.headers.contains_key(CONTENT_LENGTH) {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    Response::from_parts(parts, Either::Right(Full::new(body)))
}

/// What an engine answers that does not know the session (engine.io 6), on a connection that is not used again.
fn unknown_session() -> Response<Full<Bytes>> {
    let mut response = refusal(StatusCode::BAD_REQUEST, r#"{"code":1,"message":"Session ID unknown"}"#);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The client is to ask again, on a new connection.
fn not_here() -> Response<Full<Bytes>> {
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, "");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn refusal(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests;
