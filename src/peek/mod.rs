//! Pure looking: the first bytes of a connection in, what they say about its client out.
//!
//! ```text
//!           ┌ proxy::look ──▶ the exact length to consume, the client's address   (--proxy-protocol)
//! bytes ────┤
//!           └ request::look ─▶ method, path, session id, headers                  (--affinity session)
//!                                                ├ ClientHeader::client ──▶ the client's address, as proxies state it
//!                                                └ ValueSource::value ──▶ what else sticks (--affinity query:NAME ...)
//! ```
//!
//! The caller that peeks (recv with MSG_PEEK) calls a parser with all that has come so far, and again with more of it
//! while the answer is `More`. An answer that is not `More` is final: no byte that comes later would change it.
//!
//! Nothing here asks a clock or the system, reads or consumes by itself, or remembers a connection. Nothing panics,
//! whatever comes, and nothing allocates: all answers borrow from the bytes that were given. The work is bounded by the
//! length of what was given; how much that is at most, and how long to wait for it, is for the caller to say.

#![forbid(unsafe_code)]

mod forwarded;
mod headers;
pub mod proxy;
pub mod request;
mod source;
mod trusted;

pub use forwarded::{ClientHeader, ClientHeaderError, MalformedForwarded};
pub use headers::Headers;
pub use request::{NotHttp, Request};
pub use source::{MAX_VALUE, NoValue, SourceError, SourceKind, ValueRoom, ValueSource};
pub use trusted::{TrustedProxies, TrustedProxy, TrustedProxyError};

/// Maximum number of bytes that are ever peeked: haft does not wait for what comes later. Node takes no longer head of
/// a request (`http.maxHeaderSize`).
pub const MAX_PEEKED: usize = 16 << 10;
