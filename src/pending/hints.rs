//! Hints for the operator, each logged once.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::connection::ClientConnection;
use crate::peek::{ClientHeader, MAX_PEEKED, NotHttp, request};
use crate::route::HostId;
use crate::sys::peek::{Peeked, peek};

/// For so long clients are counted before their addresses are judged.
const PERIOD: Duration = Duration::from_secs(60);
/// Fewer clients than this say nothing.
const FEW: u64 = 100;
/// Of this many connections the first request is looked at, when nearly all clients of a period had one address.
const SAMPLES: u32 = 50;

/// What a message calls the other way of telling it.
const PROXY_HEADER: &str = "PROXY headers";

/// What was logged already.
#[derive(Debug, Default)]
pub struct Hints {
    tls: bool,
    http2: bool,
    proxy_header: bool,
    other: bool,
    other_host: bool,
}

impl Hints {
    /// A client began with TLS.
    pub(crate) fn tls(&mut self) {
        if !std::mem::replace(&mut self.tls, true) {
            tracing::warn!(
                "clients speak TLS, in which no request can be seen: they go by their address. Let a proxy end TLS \
                 before haft (and say so with --proxy-protocol or --client-ip-header), or use --affinity ip"
            );
        }
    }

    /// A client began with HTTP/2.
    pub(crate) fn http2(&mut self) {
        if !std::mem::replace(&mut self.http2, true) {
            tracing::warn!(
                "clients speak HTTP/2 without TLS, in which nothing is looked for: they go by their address"
            );
        }
    }

    /// A client began with a PROXY header that is not taken.
    pub(crate) fn proxy_header(&mut self, taken_of_some: bool) {
        if !std::mem::replace(&mut self.proxy_header, true) {
            let cure = match taken_of_some {
                true => "its peer is not one of --trusted-proxy",
                false => "give --proxy-protocol and --trusted-proxy",
            };
            tracing::warn!("a connection begins with a PROXY header, which workers do not understand: {cure}");
        }
    }

    /// A client's session belongs to another host.
    pub(crate) fn other_host(&mut self, host: HostId) {
        if !std::mem::replace(&mut self.other_host, true) {
            tracing::warn!(
                "a client came here with a session of host {host}: the proxy in front does not route by the host's name in \
                 session ids, or that host is down. Its requests get 400 and the client comes anew (`haft front` writes a \
                 configuration that routes)"
            );
        }
    }

    /// A client began with what is no HTTP.
    pub(crate) fn not_http_at_all(&mut self) {
        if !std::mem::replace(&mut self.other, true) {
            tracing::info!("a client speaks no HTTP: such connections go by their address");
        }
    }
}

/// Detects that all clients come through one proxy that haft does not know of.
#[derive(Debug)]
pub struct ProxyWatch {
    since: Instant,
    clients: u64,
    /// The address that most clients have, if one has more than half of them (Boyer and Moore's majority vote). None:
    /// those of a Unix socket.
    candidate: Option<IpAddr>,
    /// By how many it leads.
    lead: u64,
    /// The address whose connections are examined, and how many are still to be.
    suspect: Option<IpAddr>,
    samples: u32,
    /// Whether the clients' addresses decide where they go.
    sticks: bool,
    /// The line about it, once it was detected.
    found: Option<String>,
    /// The address of most clients of the last period, if most had one.
    leader: Option<IpAddr>,
    /// Whether proxies are configured, so that there is nothing to detect.
    knows: bool,
}

impl ProxyWatch {
    /// Nothing has been seen.
    pub fn new(now: Instant, config: &Config) -> Self {
        let (candidate, suspect) = (None, None);
        let sticks = config.affinity.is_address_alone();
        let knows = config.proxies.protocol || config.proxies.header.is_some();
        let (found, leader) = (None, None);
        Self { since: now, clients: 0, candidate, lead: 0, suspect, samples: 0, sticks, found, leader, knows }
    }

    /// Applies another configuration: whether haft knows of the proxy now is to be seen anew.
    pub fn reconfigure(&mut self, now: Instant, config: &Config) {
        *self = Self::new(now, config);
    }

    /// What is wrong, and the flags that help, once such a proxy was detected.
    pub fn found(&self) -> Option<&str> {
        self.found.as_deref()
    }

    /// The address of most clients, if most have one.
    pub fn leader(&self) -> Option<IpAddr> {
        if self.clients >= FEW { self.most() } else { self.leader }
    }

    /// It leads by a fifth: six of ten clients have it.
    fn most(&self) -> Option<IpAddr> {
        self.candidate.filter(|_| self.lead >= self.clients / 5)
    }

    /// A connection has come.
    pub fn saw(&mut self, connection: &ClientConnection, now: Instant) {
        if self.knows {
            return;
        }
        let client = connection.client.ip().map(|client| client.ip());
        if self.samples > 0 && client == self.suspect {
            self.samples -= 1;
            self.sample(connection);
        }
        if client == self.candidate {
            self.lead += 1;
        } else if self.lead == 0 {
            (self.candidate, self.lead) = (client, 1);
        } else {
            self.lead -= 1;
        }
        self.clients += 1;
        if now.saturating_duration_since(self.since) >= PERIOD {
            // It leads by nine tenths: it has 95 of 100 at least.
            let is_one = self.clients >= FEW && self.lead >= self.clients / 10 * 9;
            let is_suspect = is_one && self.found.is_none();
            (self.suspect, self.samples) = (self.candidate, if is_suspect { SAMPLES } else { 0 });
            self.leader = self.most().filter(|_| self.clients >= FEW);
            (self.since, self.clients, self.lead) = (now, 0, 0);
        }
    }

    fn sample(&mut self, connection: &ClientConnection) {
        let mut room = [0; MAX_PEEKED];
        let Peeked::Bytes(count) = peek(connection.as_fd(), &mut room) else { return };
        let header = match request::look(&room[..count], 0, true) {
            request::RequestParse::Request(request) => {
                ClientHeader::found_in(request.headers).map(|header| header.to_string())
            }
            request::RequestParse::NotHttp(NotHttp::ProxyHeader) => Some(PROXY_HEADER.to_owned()),
            request::RequestParse::NotHttp(_) | request::RequestParse::More => None,
        };
        let Some(header) = header else { return };
        self.samples = 0;
        let client = self.suspect.map_or("unix".to_owned(), |client| client.to_string());
        let flag = if header == PROXY_HEADER { "--proxy-protocol" } else { &format!("--client-ip-header {header}") };
        let sticks = if self.sticks { " (so they all stick to one worker; see also --affinity session)" } else { "" };
        self.found = Some(format!(
            "nearly all clients have the address {client} and bring {header}: haft is behind a proxy, and takes its \
             address for theirs{sticks}. Use {flag} --trusted-proxy {client}"
        ));
    }
}
