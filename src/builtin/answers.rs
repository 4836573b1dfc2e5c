//! Answers of the polling transport that the engine does not write.

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Collected};

/// Separates the packets of a payload (Engine.IO protocol 4).
pub(super) const SEPARATOR: u8 = 0x1e;

/// The last answer of a polling session: what was waiting for the client, then a close packet, on a connection that is
/// not used again.
pub(super) async fn farewell(response: Response<Body>) -> Response<Body> {
    with_close(payload(closing_payload(&bytes_of(response).await)))
}

/// A body that the engine made: it is there and cannot fail.
pub(super) async fn bytes_of(response: Response<Body>) -> Bytes {
    response.into_body().collect().await.map(Collected::to_bytes).unwrap_or_default()
}

/// A payload whose last packet is a close: it replaces the noop with which the engine released the poll.
pub(super) fn closing_payload(body: &[u8]) -> Bytes {
    let packets = match body {
        b"6" => b"",
        [packets @ .., SEPARATOR, b'6'] => packets,
        packets => packets,
    };
    let mut closing = packets.to_vec();
    if !closing.is_empty() {
        closing.push(SEPARATOR);
    }
    closing.push(b'1');
    Bytes::from(closing)
}

pub(super) fn payload(packets: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(packets));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    response
}

pub(super) fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

pub(super) fn with_close(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// No session begins on a worker that is ending: the client asks again on a new connection, which goes elsewhere.
pub(super) fn closing_down() -> Response<Body> {
    let mut response = with_close(status(StatusCode::SERVICE_UNAVAILABLE));
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
