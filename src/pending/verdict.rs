//! What a connection's first bytes decide.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use super::aim::{Aim, Aims};
use super::counts::PeekCounts;
use super::hints::Hints;
use crate::addr::EndAddr;
use crate::config::{Config, Proxies, Unattributed};
use crate::connection::ClientConnection;
use crate::dispatch::Dispatch;
use crate::node::named::SessionKey;
use crate::peek::{MAX_PEEKED, NotHttp, Request, proxy, request};
use crate::route::{Key, Prefix, TagKey};
use crate::sys::peek::{self, Peeked};

/// What is looked for, and what follows from it.
#[derive(Debug)]
pub struct Rules {
    proxies: Proxies,
    aims: Aims,
    prefix: Prefix,
}

/// How far the looking at one connection has come.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    /// Whether its PROXY header is still to come.
    proxy_header: bool,
    /// How many bytes of it have still to be taken away.
    to_consume: usize,
    /// How many bytes were looked at in vain.
    seen: u16,
}

impl Progress {
    /// Nothing was looked at in vain.
    pub(super) fn look_anew(&mut self) {
        self.seen = 0;
    }

    /// Takes away what has come of that which is to be. What is left of it then: nothing, if some bytes are the answer.
    fn consume(&mut self, connection: &ClientConnection, room: &mut [u8]) -> Peeked {
        while self.to_consume > 0 {
            let most = room.len().min(self.to_consume);
            match peek::consume(connection.as_fd(), &mut room[..most]) {
                Peeked::Bytes(count) => self.to_consume -= count,
                none => return none,
            }
        }
        Peeked::Bytes(0)
    }
}

/// Whether enough was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PeekVerdict {
    More,
    Decided,
    /// Decided, but that a worker may be about to name this session.
    AwaitingOwner(SessionKey),
}

impl Rules {
    /// The rules of a configuration. `key`: what tags are made with.
    pub fn new(config: &Config, key: &TagKey) -> Self {
        Self { proxies: config.proxies.clone(), aims: Aims::new(config, key), prefix: config.prefix }
    }

    /// Counts from now on by the criteria that there are now.
    pub(super) fn keep_books(&self, counts: &mut PeekCounts) {
        self.aims.books(&mut counts.criteria);
    }

    /// Nothing has been seen of a connection yet.
    pub(super) fn begin(&self, connection: &ClientConnection) -> Progress {
        Progress { proxy_header: self.proxies.protocol && self.trusts(connection), ..Progress::default() }
    }

    /// The connection is decided without its first request, which was to name its client.
    pub(super) fn give_up(&self, connection: &mut ClientConnection, progress: &Progress) {
        let awaited = progress.proxy_header || self.proxies.header.is_some();
        connection.unattributed |= awaited && !connection.client_is_stated && self.trusts(connection);
    }

    /// Whether a connection may be served: one without a stated client is served as an unknown client's, never as the
    /// proxy's own.
    pub(super) fn may_serve(&self, connection: &mut ClientConnection, counts: &mut PeekCounts) -> bool {
        if !connection.unattributed {
            return true;
        }
        counts.unattributed += 1;
        let anyone = match connection.client {
            EndAddr::Ip(SocketAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
            EndAddr::Ip(SocketAddr::V4(_)) | EndAddr::Unix => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        };
        (connection.client, connection.client_is_stated) = (EndAddr::Ip(SocketAddr::new(anyone, 0)), true);
        self.proxies.unattributed == Unattributed::Serve
    }

    /// Whether its peer is a proxy that names its client.
    pub(super) fn trusts(&self, connection: &ClientConnection) -> bool {
        self.proxies.trusted.contains(&connection.client)
    }

    /// Looks at what a connection has to read. When that is enough, the connection knows where it goes.
    pub(super) fn look_at(
        &self,
        connection: &mut ClientConnection,
        progress: &mut Progress,
        room: &mut [u8],
        counts: &mut PeekCounts,
        dispatch: &Dispatch,
    ) -> PeekVerdict {
        loop {
            match progress.consume(connection, room) {
                Peeked::Nothing => return PeekVerdict::More,
                Peeked::Over => {
                    counts.over += 1;
                    return PeekVerdict::Decided;
                }
                Peeked::Bytes(_) => {}
            }
            // Of the header, too, the last hop is believed only if it is trusted; behind a PROXY header that is the
            // address it names.
            let reads_header = !progress.proxy_header && self.proxies.header.is_some() && self.trusts(connection);
            if !progress.proxy_header && !reads_header && !self.aims.needs_request() {
                return PeekVerdict::Decided;
            }
            let bytes = match peek::peek(connection.as_fd(), room) {
                Peeked::Nothing => return PeekVerdict::More,
                Peeked::Over => {
                    counts.over += 1;
                    return PeekVerdict::Decided;
                }
                Peeked::Bytes(count) => &room[..count],
            };
            let seen = usize::from(progress.seen);
            let looked = if progress.proxy_header {
                self.look_for_proxy_header(connection, bytes, counts)
            } else {
                let needs_headers = reads_header || self.aims.begins_with_headers();
                let view = View { bytes, seen, headers: if needs_headers { Awaited::All } else { Awaited::IfNeeded } };
                self.look_for_request(connection, view, reads_header, counts, dispatch)
            };
            match looked {
                PeekStep::More if bytes.len() >= MAX_PEEKED => {
                    counts.too_long += 1;
                    connection.unattributed |= reads_header;
                    // What its first line and the headers so far say holds, however long the rest is.
                    let view = View { bytes, seen: 0, headers: Awaited::None };
                    self.look_for_request(connection, view, false, counts, dispatch);
                    return PeekVerdict::Decided;
                }
                PeekStep::More => {
                    progress.seen = bytes.len() as u16;
                    return PeekVerdict::More;
                }
                PeekStep::Consume(len) => *progress = Progress { to_consume: len, ..Progress::default() },
                PeekStep::NoProxyHeader => *progress = Progress::default(),
                PeekStep::Decided => return PeekVerdict::Decided,
                PeekStep::AwaitingOwner(key) => return PeekVerdict::AwaitingOwner(key),
            }
        }
    }

    fn look_for_proxy_header(
        &self,
        connection: &mut ClientConnection,
        bytes: &[u8],
        counts: &mut PeekCounts,
    ) -> PeekStep {
        match proxy::look(bytes) {
            proxy::ProxyParse::More => PeekStep::More,
            proxy::ProxyParse::Absent => {
                counts.proxy_absent += 1;
                PeekStep::NoProxyHeader
            }
            proxy::ProxyParse::Malformed { len } => {
                counts.proxy_malformed += 1;
                connection.unattributed = true;
                // Its worker would take it for the client's request, and answer that.
                len.map_or(PeekStep::NoProxyHeader, PeekStep::Consume)
            }
            proxy::ProxyParse::Header(header) => {
                counts.proxy_taken += 1;
                if let Some(ends) = header.ends {
                    self.learn(connection, EndAddr::from_ip(ends.client));
                }
                PeekStep::Consume(header.len)
            }
        }
    }

    fn look_for_request(
        &self,
        connection: &mut ClientConnection,
        view: View<'_>,
        reads_header: bool,
        counts: &mut PeekCounts,
        dispatch: &Dispatch,
    ) -> PeekStep {
        match request::look(view.bytes, view.seen, view.headers == Awaited::All) {
            request::RequestParse::More => PeekStep::More,
            request::RequestParse::NotHttp(kind) => {
                counts.not_http += 1;
                connection.unattributed |= reads_header;
                counts.hints.not_http(kind, self.proxies.protocol);
                PeekStep::Decided
            }
            request::RequestParse::Request(request) => {
                if reads_header {
                    self.read_header(connection, &request, counts);
                }
                let has_headers = view.headers != Awaited::IfNeeded;
                match self.aims.take(connection, &request, has_headers, counts, dispatch) {
                    Aim::Decided => PeekStep::Decided,
                    Aim::AwaitingOwner(key) => PeekStep::AwaitingOwner(key),
                    Aim::Headers => {
                        let view = View { headers: Awaited::All, ..view };
                        self.look_for_request(connection, view, reads_header, counts, dispatch)
                    }
                }
            }
        }
    }

    fn read_header(&self, connection: &mut ClientConnection, request: &Request<'_>, counts: &mut PeekCounts) {
        let Some(header) = &self.proxies.header else { return };
        match header.client(request.headers, &self.proxies.trusted) {
            Ok(Some(client)) => {
                counts.header_taken += 1;
                self.learn(connection, EndAddr::from_ip(client));
            }
            Ok(None) => counts.header_absent += 1,
            Err(_) => {
                counts.header_malformed += 1;
                connection.unattributed = true;
            }
        }
    }

    fn learn(&self, connection: &mut ClientConnection, client: EndAddr) {
        connection.client = client;
        (connection.client_is_stated, connection.unattributed) = (true, false);
        connection.key = Key::of_client(&client, self.prefix);
    }
}

/// What has come of a request so far.
#[derive(Debug, Clone, Copy)]
struct View<'b> {
    bytes: &'b [u8],
    /// How many of them were looked at in vain.
    seen: usize,
    headers: Awaited,
}

/// Which headers are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// All, where the request line does not decide.
    IfNeeded,
    /// All.
    All,
    /// None: those that are there are all that will be looked at.
    None,
}

/// What one look has come to.
enum PeekStep {
    More,
    /// So many bytes are a PROXY header.
    Consume(usize),
    NoProxyHeader,
    Decided,
    /// Decided, but that a worker may be about to name this session.
    AwaitingOwner(SessionKey),
}

impl Hints {
    fn not_http(&mut self, kind: NotHttp, takes_proxy_headers: bool) {
        match kind {
            NotHttp::Tls => self.tls(),
            NotHttp::Http2 => self.http2(),
            NotHttp::ProxyHeader => self.proxy_header(takes_proxy_headers),
            NotHttp::Other => self.not_http_at_all(),
        }
    }
}
