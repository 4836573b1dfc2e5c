//! Why a Socket.IO request is refused, and the form of the answer: the codes, texts and headers of engine.io 6 and ws
//! 8.

use axum::body::Body;
use http::header::{CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_VERSION};
use http::{HeaderValue, Response, StatusCode};

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    UnknownTransport,
    UnknownSid,
    BadHandshakeMethod,
    BadRequest,
    Forbidden,
    UnsupportedProtocol,
}

impl Refusal {
    pub(super) fn from_code(code: u8) -> Self {
        match code {
            0 => Self::UnknownTransport,
            1 => Self::UnknownSid,
            2 => Self::BadHandshakeMethod,
            4 => Self::Forbidden,
            5 => Self::UnsupportedProtocol,
            _ => Self::BadRequest,
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::UnknownTransport => 0,
            Self::UnknownSid => 1,
            Self::BadHandshakeMethod => 2,
            Self::BadRequest => 3,
            Self::Forbidden => 4,
            Self::UnsupportedProtocol => 5,
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::UnknownTransport => "Transport unknown",
            Self::UnknownSid => "Session ID unknown",
            Self::BadHandshakeMethod => "Bad handshake method",
            Self::BadRequest => "Bad request",
            Self::Forbidden => "Forbidden",
            Self::UnsupportedProtocol => "Unsupported protocol version",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Forbidden => StatusCode::FORBIDDEN,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The answer to a request of the polling transport.
    pub(super) fn response(self) -> Response<Body> {
        let body = format!(r#"{{"code":{},"message":"{}"}}"#, self.code(), self.message());
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    /// The answer to a request that asks for an upgrade: its connection is not used again.
    pub(super) fn of_upgrade(self) -> Response<Body> {
        closing(self.status(), self.message())
    }
}

/// What is wrong with a WebSocket's handshake (RFC 6455, 4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadHandshake {
    Http10,
    Method,
    Upgrade,
    Key,
    Version,
    Protocol,
}

impl BadHandshake {
    /// The answer. The versions that are spoken are named where the client's is not.
    pub(super) fn response(self) -> Response<Body> {
        match self {
            Self::Http10 => closing(StatusCode::BAD_REQUEST, "A WebSocket needs HTTP/1.1"),
            Self::Method => closing(StatusCode::METHOD_NOT_ALLOWED, "Invalid HTTP method"),
            Self::Upgrade => closing(StatusCode::BAD_REQUEST, "Invalid Upgrade header"),
            Self::Key => closing(StatusCode::BAD_REQUEST, "Missing or invalid Sec-WebSocket-Key header"),
            Self::Protocol => closing(StatusCode::BAD_REQUEST, "Invalid Sec-WebSocket-Protocol header"),
            Self::Version => {
                let message = "Missing or invalid Sec-WebSocket-Version header";
                let mut response = closing(StatusCode::BAD_REQUEST, message);
                response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13, 8"));
                response
            }
        }
    }
}

fn closing(status: StatusCode, message: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(message));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    response
}
