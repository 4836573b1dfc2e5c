//! The master's messages to a worker, appended to the caller's buffer.
//!
//! Node dies of malformed JSON, of an empty line, of an acknowledgement that it does not expect, of an unknown type of
//! descriptor and of a `newconn` without a descriptor around it: none of them can be written here.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Serialization;
use super::compose::{Composer, write_number};
use super::message::PRELOAD;

/// The answer to a worker that wants to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenReply<'a> {
    /// The server's name between us and the worker, unique among the servers that the worker has.
    pub key: &'a str,
    /// What the first worker's query brought for all, as it stood in its frame.
    pub data: Option<&'a [u8]>,
    /// The answer itself.
    pub outcome: ListenOutcome<'a>,
}

/// How a worker gets its connections, or why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenOutcome<'a> {
    /// One by one from us.
    HandOver {
        /// The address that the program gets to see.
        sockname: Option<&'a Sockname>,
        /// The port that it gets to see, if that is not the socket's own.
        ///
        /// A program that asks for a port other than 0 must get that one: Node would take the server for another's,
        /// and fail it with EADDRINUSE (`checkBindError` in `lib/net.js`).
        port: Option<u16>,
    },
    /// From the socket that comes with the answer.
    Shared(SharedKind),
    /// Not at all; the program gets this as its server's `error` event.
    Failed {
        /// As the kernel numbers errors, positive.
        errno: i32,
    },
}

/// What kind of socket comes with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedKind {
    /// A listener of which the worker accepts itself.
    Listener,
    /// The same, on another port than this, which the program asked for. Node would fail the server (`checkBindError`),
    /// but
    /// for haft's preload, which shows it this port for as long as it compares.
    ListenerAs(u16),
    /// A UDP socket.
    Udp,
}

/// The result of the program's `server.address()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sockname {
    /// An address and port.
    Ip(SocketAddr),
    /// A Unix socket of haft's own, where the program asked for a port: it has none, but `address()` must not be `null`
    /// for a program that only prints it.
    Unix(String),
}

impl Sockname {
    /// The port, if it is an address with one.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Ip(addr) => Some(addr.port()),
            Self::Unix(_) => None,
        }
    }
}

/// The master's voice on one channel: it counts the messages.
#[derive(Debug)]
pub struct Voice {
    serialization: Serialization,
    seq: u64,
    usual: Usual,
}

/// What gave the last connection to a server, but for its number: almost always it is the same again.
#[derive(Debug, Default)]
struct Usual {
    key: String,
    before: Vec<u8>,
}

impl Voice {
    /// A voice that has sent nothing.
    pub fn new(serialization: Serialization) -> Self {
        Self { serialization, seq: 0, usual: Usual::default() }
    }

    /// The number of the next message that has one.
    pub fn next_seq(&self) -> u64 {
        self.seq
    }

    /// Answers the query with the number `ack`. A shared socket must go with it. `server`: the number that the server
    /// has on the worker's lane.
    pub fn answer(&mut self, ack: u64, answer: &ListenReply<'_>, server: Option<u32>, out: &mut Vec<u8>) {
        let mut message = Composer::begin(self.serialization, out);
        let shared = match answer.outcome {
            ListenOutcome::Shared(SharedKind::Listener | SharedKind::ListenerAs(_)) => Some("net.Native"),
            ListenOutcome::Shared(SharedKind::Udp) => Some("dgram.Native"),
            ListenOutcome::HandOver { .. } | ListenOutcome::Failed { .. } => None,
        };
        if let Some(kind) = shared {
            message.text("cmd", "NODE_HANDLE").text("type", kind).open("msg");
        }
        message.text("cmd", "NODE_CLUSTER");
        match answer.outcome {
            ListenOutcome::HandOver { .. } => message.null("errno"),
            ListenOutcome::Shared(_) => message.number("errno", 0),
            ListenOutcome::Failed { errno } => message.number("errno", -i64::from(errno)),
        };
        message.text("key", answer.key).number("ack", number(ack));
        match answer.data {
            Some(data) => message.raw("data", data),
            None => message.null("data"),
        };
        if let ListenOutcome::HandOver { sockname: Some(sockname), port } = answer.outcome {
            write_sockname(sockname, port, &mut message);
        }
        self.count(&mut message);
        // Node fails a server that gets another port than it asked for; haft's preload corrects it once that check is past.
        let true_port = match answer.outcome {
            ListenOutcome::HandOver { sockname: Some(Sockname::Ip(addr)), port: Some(port) } => {
                Some(addr.port()).filter(|own| *own != port)
            }
            _ => None,
        };
        if server.is_some() || true_port.is_some() {
            message.open("haft");
            server.map(|server| message.number("server", server.into()));
            true_port.map(|port| message.number("port", port.into()));
            message.close();
        }
        if let ListenOutcome::Shared(SharedKind::ListenerAs(port)) = answer.outcome {
            message.open("haft").number("asked", port.into()).close();
        }
        if shared.is_some() {
            message.close();
        }
        message.finish();
    }

    /// Gives the worker's link for rooms to haft's preload. The link must go with it.
    pub fn rooms(&self, out: &mut Vec<u8>) {
        let mut message = Composer::begin(self.serialization, out);
        message.text("cmd", "NODE_HANDLE").text("type", "net.Native").open("msg");
        message.text("cmd", PRELOAD).text("act", "rooms").close();
        message.finish();
    }

    /// Gives a connection to the server `key`, with the client's address as a proxy stated it. The connection must
    /// go with it.
    pub fn connection(&mut self, key: &str, stated: Option<SocketAddr>, out: &mut Vec<u8>) {
        let start = out.len();
        self.server_s_connection(key, out);
        if let Some(stated) = stated {
            write_stated(self.serialization, stated, start, out);
        }
    }

    /// Gives a connection with the message that is in `frame`, of [`super::ConnectionMessage::frame`].
    pub fn message(&self, frame: &[u8], stated: Option<SocketAddr>, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(frame);
        if let Some(stated) = stated {
            write_stated(self.serialization, stated, start, out);
        }
    }

    fn server_s_connection(&mut self, key: &str, out: &mut Vec<u8>) {
        const NUMBER: &[u8] = b"\"seq\":";
        if self.serialization == Serialization::Json && self.usual.key == key && !self.usual.before.is_empty() {
            out.extend_from_slice(&self.usual.before);
            write_number(self.serialization, number(self.seq), out);
            out.extend_from_slice(b"}}\n");
            self.seq += 1;
            return;
        }
        let start = out.len();
        let mut message = Composer::begin(self.serialization, out);
        message.text("cmd", "NODE_HANDLE").text("type", "net.Native").open("msg");
        message.text("cmd", "NODE_CLUSTER").text("act", "newconn").text("key", key);
        self.count(&mut message);
        message.close().finish();
        // The number is the last field.
        if self.serialization == Serialization::Json
            && let Some(at) = out[start..].windows(NUMBER.len()).rposition(|part| part == NUMBER)
        {
            self.usual = Usual { key: key.to_owned(), before: out[start..start + at + NUMBER.len()].to_vec() };
        }
    }

    /// Asks the worker to leave: it closes its servers, and exits when their connections have ended. haft's preload
    /// reads within which time, and which signal the program is sent later, if any. Node pays no heed to that.
    pub fn disconnect(&mut self, within: Duration, signal: Option<&str>, out: &mut Vec<u8>) {
        let mut message = Composer::begin(self.serialization, out);
        message.text("cmd", "NODE_CLUSTER").text("act", "disconnect");
        self.count(&mut message);
        message.open("haft").number("within", milliseconds(within));
        if let Some(signal) = signal {
            message.text("signal", signal);
        }
        message.close().finish();
    }

    /// Gives haft's preload its end of a lane, which must go with it.
    pub fn lane(&self, out: &mut Vec<u8>) {
        let mut message = Composer::begin(self.serialization, out);
        message.text("cmd", "NODE_HANDLE").text("type", "net.Native").open("msg");
        message.text("cmd", PRELOAD).text("act", "lane");
        message.close().finish();
    }

    /// Announces to haft's preload that the worker gets no new session, and is asked to leave within this time.
    pub fn linger(&self, within: Duration, out: &mut Vec<u8>) {
        let mut message = Composer::begin(self.serialization, out);
        message.text("cmd", PRELOAD).text("act", "linger").number("within", milliseconds(within)).finish();
    }

    /// Answers a worker that announced that it leaves.
    pub fn acknowledge(&mut self, ack: u64, out: &mut Vec<u8>) {
        let mut message = Composer::begin(self.serialization, out);
        message.text("cmd", "NODE_CLUSTER").number("ack", number(ack));
        self.count(&mut message);
        message.finish();
    }

    /// Pings the worker: it answers that a descriptor did not arrive, since none goes with this.
    ///
    /// The next descriptor must not be sent before that answer. The two could come in one read, and the descriptor
    /// would be taken for that of this message.
    pub fn ping(&self, out: &mut Vec<u8>) {
        let mut message = Composer::begin(self.serialization, out);
        message.text("cmd", "NODE_HANDLE").text("type", "net.Native").open("msg");
        message.close().finish();
    }

    /// Acknowledges a descriptor of the worker's: once for each, or the worker dies.
    pub fn acknowledge_handle(&self, out: &mut Vec<u8>) {
        Composer::begin(self.serialization, out).text("cmd", "NODE_HANDLE_ACK").finish();
    }

    fn count(&mut self, message: &mut Composer<'_>) {
        message.number("seq", number(self.seq));
        self.seq += 1;
    }
}

/// Adds the client's address as a proxy stated it to the message that begins at `start` and ends `out`.
///
/// It stands behind all that Node reads, so that what is written in front of it stays what it is without.
fn write_stated(serialization: Serialization, stated: SocketAddr, start: usize, out: &mut Vec<u8>) {
    if let Some(mut message) = Composer::reopen(serialization, start, out) {
        message.open("haft").brief("address", stated.ip()).text("family", family(stated.ip()));
        message.number("port", i64::from(stated.port())).close().finish();
    }
}

/// As `net.Socket` names it.
fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn write_sockname(sockname: &Sockname, port: Option<u16>, message: &mut Composer<'_>) {
    message.open("sockname");
    let own = match sockname {
        Sockname::Ip(addr) => {
            message.brief("address", addr.ip()).text("family", family(addr.ip()));
            Some(addr.port())
        }
        Sockname::Unix(path) => {
            message.text("address", path).text("family", "Unix");
            None
        }
    };
    if let Some(port) = port.or(own) {
        message.number("port", i64::from(port));
    }
    message.close();
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// A counter never comes near the end of i64.
fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
