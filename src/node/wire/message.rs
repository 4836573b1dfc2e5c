//! A worker's messages: one frame, parsed. Only what is needed is kept or built.

use std::borrow::Cow;

use super::Serialization;
use super::frame::IpcFrame;
use super::lane::LaneMessage;
use super::preload_message::PreloadMessage;
use super::raw::{self, MalformedMessage, Outside, Raw};
use super::trouble::Trouble;
use crate::node::paths::EnginePath;

/// What the messages of `@socket.io/cluster-adapter` are marked with.
pub(super) const ADAPTER: &str = "_sio_adapter";

/// Types of 0.2 that are answers and name their receiver by `data.workerId`.
const ANSWERS_OF_02: [u64; 2] = [9, 11];

/// What the messages between haft and its preload are marked with. Node takes it for a message of its own, so that no
/// program sees it.
pub(super) const PRELOAD: &str = "NODE_HAFT";

/// One message of a worker.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerMessage<'f> {
    /// The worker's Node has started; the program has not.
    Online,
    /// The program wants to listen.
    QueryServer(Query<'f>),
    /// The program listens: the query again, with the port that it got.
    Listening(Query<'f>),
    /// The program closed a server.
    Close {
        /// Which one: the key of the answer to its query.
        key: Cow<'f, str>,
    },
    /// The program wants to leave, and waits for an answer to this.
    ExitedAfterDisconnect {
        /// What the answer must name.
        seq: u64,
    },
    /// The answer to a message of ours.
    Reply {
        /// The number of our message.
        ack: u64,
        /// Whether the worker took the connection.
        accepted: bool,
    },
    /// The oldest descriptor that is not answered yet has arrived.
    HandleAck,
    /// The oldest message that should have had a descriptor came without it: the worker is short of descriptors.
    HandleNack,
    /// A descriptor of the worker's. It must be acknowledged, or the worker sends nothing any more.
    Handle,
    /// A message of haft's preload about the process.
    Preload(PreloadMessage),
    /// haft's preload: of the second socket, on which connections come.
    Lane(LaneMessage),
    /// haft's preload: the program has a Socket.IO whose broadcasts are to reach the clients of all workers.
    Rooms {
        /// In place of `@socket.io/cluster-adapter`.
        replaces: bool,
    },
    /// Another message of Node's own: nothing to do.
    Internal,
    /// A message of `@socket.io/cluster-adapter` for other workers.
    Adapter(AdapterRouting<'f>),
    /// `"ready"`, as pm2 knows it, or `{cmd: "ready"}`, as recluster does.
    Ready,
    /// `@socket.io/sticky`: the worker has this session.
    SessionOpened {
        /// The session's id.
        sid: Cow<'f, str>,
    },
    /// `@socket.io/sticky`: the session has ended.
    SessionClosed {
        /// The session's id.
        sid: Cow<'f, str>,
    },
    /// `{type: "close"}` of the npm package sticky-session: the worker finishes and wants to be replaced.
    Closing,
    /// Anything else that the program sent.
    Other,
}

/// What the program wants to listen on.
#[derive(Debug, Clone, PartialEq)]
pub struct Query<'f> {
    /// What the answer must name.
    pub seq: u64,
    /// The address: an IP address, a Unix socket's absolute path, or none for all interfaces.
    pub address: Option<Cow<'f, str>>,
    /// The port; 0 for any, -1 for a Unix socket, nothing with `fd`.
    pub port: Option<i64>,
    /// What `address` is.
    pub address_type: AddressType,
    /// Counts the servers of one worker on the same address, port, type and descriptor.
    pub index: u64,
    /// A descriptor of the master's to listen on.
    pub fd: Option<i64>,
    /// libuv's flags; 1 is IPv6 only, of UDP 4 is SO_REUSEADDR.
    pub flags: u32,
    /// Length of the accept queue, if the program cares.
    pub backlog: Option<u32>,
    /// All users may read from the Unix socket.
    pub readable_all: bool,
    /// All users may write to the Unix socket.
    pub writable_all: bool,
    /// What all workers must share, such as the keys of TLS session tickets: sent back as it came.
    pub data: Option<Raw<'f>>,
}

/// What a queried address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressType {
    /// TCP over IPv4, or any interface.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// A Unix socket.
    Unix,
    /// UDP over IPv4.
    Udp4,
    /// UDP over IPv6.
    Udp6,
    /// Something else, such as nothing beside a descriptor.
    Other,
}

/// What decides where a message of the adapter goes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AdapterRouting<'f> {
    /// Its type.
    pub kind: u64,
    /// The sender (0.3): a namespace in a process.
    pub uid: Option<Cow<'f, str>>,
    /// The receiver of an answer (0.3).
    pub requester_uid: Option<Cow<'f, str>>,
    /// The namespace.
    pub nsp: Option<Cow<'f, str>>,
    /// The receiver of an answer (0.2): a worker's NODE_UNIQUE_ID.
    pub worker_id: Option<u64>,
}

impl<'f> WorkerMessage<'f> {
    /// Reads a frame.
    pub fn read(frame: &IpcFrame<'f>) -> Result<Self, MalformedMessage> {
        Self::of_body(frame.serialization(), frame.body())
    }

    /// Reads a message without what frames it.
    pub fn of_body(serialization: Serialization, body: &'f [u8]) -> Result<Self, MalformedMessage> {
        match usual(body) {
            Some(message) if serialization == Serialization::Json => Ok(message),
            _ => Self::walked(serialization, body),
        }
    }

    /// Reads any message, field by field.
    pub(super) fn walked(serialization: Serialization, body: &'f [u8]) -> Result<Self, MalformedMessage> {
        let mut fields = Fields::default();
        match raw::walk(serialization, body, |name, value| fields.keep(name, value))? {
            Outside::Object => Ok(fields.message()),
            Outside::Value(value) if value.is_text("ready") => Ok(Self::Ready),
            Outside::Value(_) | Outside::Unknown => Ok(Self::Other),
        }
    }
}

impl AddressType {
    /// As Node writes it in a key.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp4 => "4",
            Self::Tcp6 => "6",
            Self::Unix => "-1",
            Self::Udp4 => "udp4",
            Self::Udp6 => "udp6",
            Self::Other => "null",
        }
    }

    fn read(value: Option<Raw<'_>>) -> Self {
        let Some(value) = value else { return Self::Other };
        match (value.integer(), value.text().as_deref()) {
            (Some(4), _) => Self::Tcp4,
            (Some(6), _) => Self::Tcp6,
            (Some(-1), _) => Self::Unix,
            (_, Some("udp4")) => Self::Udp4,
            (_, Some("udp6")) => Self::Udp6,
            _ => Self::Other,
        }
    }
}

/// Declares the fields that matter, each with its name on the wire.
macro_rules! fields {
    ($($field:ident = $name:literal),+) => {
        /// The fields of a message that matter, unread. Of two with one name the later is kept, as `JSON.parse` does.
        #[derive(Default)]
        struct Fields<'f> { $($field: Option<Raw<'f>>),+ }

        impl<'f> Fields<'f> {
            fn keep(&mut self, name: &str, value: Raw<'f>) {
                match name {
                    $($name => self.$field = Some(value),)+
                    _ => {}
                }
            }
        }
    };
}

fields!(
    cmd = "cmd",
    act = "act",
    seq = "seq",
    ack = "ack",
    accepted = "accepted",
    key = "key",
    index = "index",
    data = "data",
    address = "address",
    port = "port",
    address_type = "addressType",
    fd = "fd",
    flags = "flags",
    backlog = "backlog",
    readable_all = "readableAll",
    writable_all = "writableAll",
    kind = "type",
    source = "source",
    uid = "uid",
    requester_uid = "requesterUid",
    nsp = "nsp",
    count = "count",
    signals = "signals",
    server = "server",
    slot = "slot",
    generation = "generation",
    replaces = "replaces"
);

impl<'f> Fields<'f> {
    fn message(self) -> WorkerMessage<'f> {
        let cmd = text(self.cmd);
        match cmd.as_deref() {
            Some("NODE_CLUSTER") => self.cluster().unwrap_or(WorkerMessage::Internal),
            Some(PRELOAD) => self.preload().unwrap_or(WorkerMessage::Internal),
            Some("NODE_HANDLE_ACK") => WorkerMessage::HandleAck,
            Some("NODE_HANDLE_NACK") => WorkerMessage::HandleNack,
            Some("NODE_HANDLE") => WorkerMessage::Handle,
            // Node's own test of what is internal.
            Some(cmd) if cmd.starts_with("NODE_") => WorkerMessage::Internal,
            _ if self.source.is_some_and(|source| source.is_text(ADAPTER)) => {
                self.adapter().map_or(WorkerMessage::Other, WorkerMessage::Adapter)
            }
            Some("ready") => WorkerMessage::Ready,
            _ => self.package().unwrap_or(WorkerMessage::Other),
        }
    }

    /// A message of Node's cluster module; `None` if it lacks what it must have.
    fn cluster(self) -> Option<WorkerMessage<'f>> {
        if let Some(ack) = self.ack.and_then(|ack| ack.count()) {
            return Some(WorkerMessage::Reply { ack, accepted: is_true(self.accepted) });
        }
        Some(match text(self.act)?.as_ref() {
            "online" => WorkerMessage::Online,
            "queryServer" => WorkerMessage::QueryServer(self.query()?),
            "listening" => WorkerMessage::Listening(self.query()?),
            "close" => WorkerMessage::Close { key: text(self.key)? },
            "exitedAfterDisconnect" => WorkerMessage::ExitedAfterDisconnect { seq: self.seq?.count()? },
            _ => WorkerMessage::Internal,
        })
    }

    /// A message of our own script in the program's process; `None` if it is none that is known.
    fn preload(self) -> Option<WorkerMessage<'f>> {
        Some(match text(self.act)?.as_ref() {
            "tags" => WorkerMessage::Preload(PreloadMessage::Tags),
            "sessions" => WorkerMessage::Preload(PreloadMessage::Sessions { count: self.count?.count()? }),
            "idle" => WorkerMessage::Preload(PreloadMessage::Idle),
            "left" => WorkerMessage::Preload(PreloadMessage::Left),
            "forked" => WorkerMessage::Preload(PreloadMessage::Forked),
            "pass" => WorkerMessage::Preload(PreloadMessage::Pass {
                slot: self.slot?.count()?.try_into().ok()?,
                generation: self.generation?.count()?.try_into().ok()?,
            }),
            "handles" => WorkerMessage::Preload(PreloadMessage::Handles { term: self.signals?.lists("SIGTERM") }),
            "trouble" => WorkerMessage::Preload(PreloadMessage::Trouble(Trouble::read(&text(self.kind)?)?)),
            "path" => WorkerMessage::Preload(PreloadMessage::Path(EnginePath::read(&text(self.kind)?)?)),
            "rooms" => WorkerMessage::Rooms { replaces: is_true(self.replaces) },
            "lane" => WorkerMessage::Lane(LaneMessage::Wanted),
            "open" => WorkerMessage::Lane(LaneMessage::Open),
            "serves" => WorkerMessage::Lane(LaneMessage::Serves { server: self.server?.count()?.try_into().ok()? }),
            "took" => WorkerMessage::Lane(LaneMessage::Took { count: self.count?.count()? }),
            "back" => WorkerMessage::Lane(LaneMessage::Back),
            _ => return None,
        })
    }

    fn query(self) -> Option<Query<'f>> {
        let integer = |value: Option<Raw<'f>>| value.and_then(|value| value.integer());
        let small = |value| integer(value).and_then(|number| u32::try_from(number).ok());
        Some(Query {
            seq: self.seq?.count()?,
            address: text(self.address),
            port: integer(self.port),
            address_type: AddressType::read(self.address_type),
            index: self.index.and_then(|index| index.count()).unwrap_or(0),
            fd: integer(self.fd).filter(|fd| *fd >= 0),
            flags: small(self.flags).unwrap_or(0),
            // It may be 0 or false: the program did not say.
            backlog: small(self.backlog).filter(|backlog| *backlog > 0),
            readable_all: is_true(self.readable_all),
            writable_all: is_true(self.writable_all),
            data: self.data.filter(|data| !data.is_nothing() && data.stands_alone()),
        })
    }

    fn adapter(self) -> Option<AdapterRouting<'f>> {
        let (kind, uid) = (self.kind?.count()?, text(self.uid));
        // `data` can be long: it is looked into only where it matters.
        let inside = self.data.filter(|_| uid.is_none() && is_answer_of_02(kind));
        let worker_id = inside.and_then(|data| data.field("workerId")?.count());
        Some(AdapterRouting { kind, uid, requester_uid: text(self.requester_uid), nsp: text(self.nsp), worker_id })
    }

    /// Messages of the sticky packages to their primary.
    fn package(self) -> Option<WorkerMessage<'f>> {
        match text(self.kind)?.as_ref() {
            "sticky:connection" => Some(WorkerMessage::SessionOpened { sid: text(self.data)? }),
            "sticky:disconnection" => Some(WorkerMessage::SessionClosed { sid: text(self.data)? }),
            "close" => Some(WorkerMessage::Closing),
            _ => None,
        }
    }
}

/// The messages that come with every connection, as every Node writes them in JSON: their bytes identify them.
fn usual(body: &[u8]) -> Option<WorkerMessage<'static>> {
    if body == br#"{"cmd":"NODE_HANDLE_ACK"}"# {
        return Some(WorkerMessage::HandleAck);
    }
    if let Some(rest) = body.strip_prefix(br#"{"cmd":"NODE_HAFT","act":"took","count":"#) {
        let (count, rest) = digits(rest)?;
        return (rest == b"}").then_some(WorkerMessage::Lane(LaneMessage::Took { count }));
    }
    let rest = body.strip_prefix(br#"{"cmd":"NODE_CLUSTER","ack":"#)?;
    let (ack, rest) = digits(rest)?;
    let (_, rest) = digits(rest.strip_prefix(br#","accepted":true,"seq":"#)?)?;
    (rest == b"}").then_some(WorkerMessage::Reply { ack, accepted: true })
}

/// A number as JSON writes it, of so few digits that JavaScript knows it exactly, and what follows it.
fn digits(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (digits, rest) = bytes.split_at(bytes.iter().position(|byte| !byte.is_ascii_digit())?);
    let is_number = (1..=15).contains(&digits.len()) && (digits[0] != b'0' || digits.len() == 1);
    is_number.then(|| (digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')), rest))
}

fn text(value: Option<Raw<'_>>) -> Option<Cow<'_, str>> {
    value?.text()
}

fn is_true(value: Option<Raw<'_>>) -> bool {
    value.is_some_and(|value| value.is_true())
}

/// Whether a message of 0.2 names the worker that it is for in its data.
pub(super) fn is_answer_of_02(kind: u64) -> bool {
    ANSWERS_OF_02.contains(&kind)
}
