//! The answer to a request.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;

/// The answer to a request, whole.
pub(super) type Answer = Response<Full<Bytes>>;

const PLAIN: &str = "text/plain; charset=utf-8";

pub(super) fn plain(status: StatusCode, text: String) -> Answer {
    answer(status, PLAIN, text.into())
}

pub(super) fn answer(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    const FIXED: [(HeaderName, &str); 2] =
        [(header::X_CONTENT_TYPE_OPTIONS, "nosniff"), (header::CACHE_CONTROL, "no-store")];
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in FIXED {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}
