//! The frames of the `haft` dialect as bytes. Pure: see the folder's page for the wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use haft_sys::addr::EndAddr;

/// The version this code speaks.
const VERSION: u8 = 1;
/// Length of what every frame starts with.
const HEADER_LEN: usize = 8;
/// Length of one connection's entry.
const ENTRY_LEN: usize = 64;
/// Length of an address in an entry.
const ADDRESS_LEN: usize = 24;

/// Most connections in one frame: as many descriptors as the kernel passes in one message (SCM_MAX_FD).
pub const MAX_CONNECTIONS: usize = 253;
/// Length of the longest frame that the master sends.
pub const MAX_CONNECTIONS_LEN: usize = HEADER_LEN + MAX_CONNECTIONS * ENTRY_LEN;
/// Length of the longest frame that a worker sends.
pub const MAX_WORKER_FRAME_LEN: usize = HEADER_LEN + 20;

const CONNECTIONS: u8 = 1;
const DRAIN: u8 = 2;
const LINGER: u8 = 3;
const PING: u8 = 4;
const READY: u8 = 129;
const TAKEN: u8 = 130;
const RETURNED: u8 = 131;
const IDLE: u8 = 132;

/// In the flags of READY: the worker tags its sessions.
const TAGS: u32 = 1;

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Another version of the dialect.
    #[error("version {0} of the hand-over protocol is not spoken here (this is version 1)")]
    Version(u8),
    /// A kind that this end does not receive.
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// The length does not fit the kind.
    #[error("a frame of kind {kind} with {len} bytes")]
    Length {
        /// The frame's kind.
        kind: u8,
        /// The frame's length in bytes.
        len: usize,
    },
    /// Descriptors with a frame that takes none.
    #[error("a frame of kind {0} with descriptors")]
    Descriptors(u8),
    /// An address of an unknown family.
    #[error("unknown address family {0}")]
    Family(u8),
}

/// What the master states about one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Counts the connections of this channel, from 0.
    pub sequence: u64,
    /// Which listener took it, in the order of `--listen`.
    pub listener: u16,
    /// The client's address.
    pub client: EndAddr,
    /// The address at our end.
    pub local: EndAddr,
}

/// A frame from the master, as the worker reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromMaster {
    /// Connections; their descriptors came with the frame, in this order.
    Connections(Vec<Entry>),
    /// Finish and exit within this many milliseconds.
    Drain {
        /// Milliseconds until the worker is made to end.
        within_ms: u32,
    },
    /// Keep the sessions that there are; no new one is sent.
    Linger {
        /// Milliseconds until DRAIN comes at the latest.
        within_ms: u32,
    },
    /// Say something, with TAKEN.
    Ping,
}

impl FromMaster {
    /// Writes a CONNECTIONS frame in place of what `out` held. At most [`MAX_CONNECTIONS`] entries.
    pub fn write_connections(entries: impl Iterator<Item = Entry>, out: &mut Vec<u8>) {
        out.clear();
        out.resize(HEADER_LEN, 0);
        let mut count: u16 = 0;
        for entry in entries.take(MAX_CONNECTIONS) {
            out.extend_from_slice(&entry.sequence.to_le_bytes());
            out.extend_from_slice(&entry.listener.to_le_bytes());
            out.extend_from_slice(&[0; 6]);
            write_address(entry.client, out);
            write_address(entry.local, out);
            count += 1;
        }
        out[..HEADER_LEN].copy_from_slice(&header(CONNECTIONS, count, 0));
    }

    /// A DRAIN frame.
    pub(super) fn drain(within_ms: u32) -> [u8; HEADER_LEN + 4] {
        with_time(DRAIN, within_ms)
    }

    /// A LINGER frame.
    pub(super) fn linger(within_ms: u32) -> [u8; HEADER_LEN + 4] {
        with_time(LINGER, within_ms)
    }

    /// A PING frame.
    pub(super) fn ping() -> [u8; HEADER_LEN] {
        header(PING, 0, 0)
    }

    /// Reads a frame.
    pub fn read(frame: &[u8]) -> Result<Self, FrameError> {
        let (Header { kind, count, .. }, body) = split(frame)?;
        let length = FrameError::Length { kind, len: frame.len() };
        let within_ms = || body.try_into().map(u32::from_le_bytes).map_err(|_| length);
        match kind {
            CONNECTIONS => {
                let count = usize::from(count);
                if !(1..=MAX_CONNECTIONS).contains(&count) || body.len() != count * ENTRY_LEN {
                    return Err(length);
                }
                body.as_chunks::<ENTRY_LEN>().0.iter().map(read_entry).collect::<Result<_, _>>().map(Self::Connections)
            }
            DRAIN => Ok(Self::Drain { within_ms: within_ms()? }),
            LINGER => Ok(Self::Linger { within_ms: within_ms()? }),
            PING => body.is_empty().then_some(Self::Ping).ok_or(length),
            _ => Err(FrameError::Kind(kind)),
        }
    }
}

/// A frame from a worker, as the master reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromWorker {
    /// The worker can serve, and has room for the connections with sequence numbers below `limit`.
    Ready {
        /// First sequence number that must not be sent.
        limit: u64,
        /// It tags its sessions, and understands LINGER.
        tags: bool,
    },
    /// Every connection below `below` is the worker's.
    Taken {
        /// First sequence number that is not the worker's.
        below: u64,
        /// First sequence number that must not be sent.
        limit: u64,
        /// Connections that the worker has open.
        open: u32,
    },
    /// The worker gives back untouched what it could not take.
    Returned {
        /// First sequence number given back.
        first: u64,
        /// How many.
        count: u32,
    },
    /// No session is left in a worker that lingers.
    Idle,
}

impl FromWorker {
    /// Writes the frame in place of what `out` held.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        match *self {
            Self::Ready { limit, tags } => {
                out.extend_from_slice(&header(READY, 0, if tags { TAGS } else { 0 }));
                out.extend_from_slice(&limit.to_le_bytes());
            }
            Self::Taken { below, limit, open } => {
                out.extend_from_slice(&header(TAKEN, 0, 0));
                out.extend_from_slice(&below.to_le_bytes());
                out.extend_from_slice(&limit.to_le_bytes());
                out.extend_from_slice(&open.to_le_bytes());
            }
            Self::Returned { first, count } => {
                out.extend_from_slice(&header(RETURNED, 0, 0));
                out.extend_from_slice(&first.to_le_bytes());
                out.extend_from_slice(&count.to_le_bytes());
            }
            Self::Idle => out.extend_from_slice(&header(IDLE, 0, 0)),
        }
    }

    /// Reads a frame.
    pub fn read(frame: &[u8]) -> Result<Self, FrameError> {
        let (Header { kind, flags, .. }, body) = split(frame)?;
        let mut fields = BodyReader { body, error: FrameError::Length { kind, len: frame.len() } };
        let frame = match kind {
            READY => Self::Ready { limit: fields.u64()?, tags: flags & TAGS != 0 },
            TAKEN => Self::Taken { below: fields.u64()?, limit: fields.u64()?, open: fields.u32()? },
            RETURNED => Self::Returned { first: fields.u64()?, count: fields.u32()? },
            IDLE => Self::Idle,
            _ => return Err(FrameError::Kind(kind)),
        };
        fields.end()?;
        Ok(frame)
    }
}

fn header(kind: u8, count: u16, flags: u32) -> [u8; HEADER_LEN] {
    let ([low, high], [a, b, c, d]) = (count.to_le_bytes(), flags.to_le_bytes());
    [VERSION, kind, low, high, a, b, c, d]
}

/// A frame whose body is a time in milliseconds.
fn with_time(kind: u8, within_ms: u32) -> [u8; HEADER_LEN + 4] {
    let mut frame = [0; HEADER_LEN + 4];
    frame[..HEADER_LEN].copy_from_slice(&header(kind, 0, 0));
    frame[HEADER_LEN..].copy_from_slice(&within_ms.to_le_bytes());
    frame
}

/// What every frame starts with.
struct Header {
    kind: u8,
    count: u16,
    flags: u32,
}

/// The header and what follows it.
fn split(frame: &[u8]) -> Result<(Header, &[u8]), FrameError> {
    let Some((header, body)) = frame.split_first_chunk::<HEADER_LEN>() else {
        return Err(FrameError::Length { kind: frame.get(1).copied().unwrap_or(0), len: frame.len() });
    };
    let [version, kind, low, high, a, b, c, d] = *header;
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    Ok((Header { kind, count: u16::from_le_bytes([low, high]), flags: u32::from_le_bytes([a, b, c, d]) }, body))
}

/// Takes numbers off the front of a frame's body.
struct BodyReader<'a> {
    body: &'a [u8],
    error: FrameError,
}

impl BodyReader<'_> {
    fn take<const LEN: usize>(&mut self) -> Result<[u8; LEN], FrameError> {
        let (field, rest) = self.body.split_first_chunk::<LEN>().ok_or(self.error)?;
        self.body = rest;
        Ok(*field)
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        self.take().map(u64::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        self.take().map(u32::from_le_bytes)
    }

    fn end(&self) -> Result<(), FrameError> {
        if self.body.is_empty() { Ok(()) } else { Err(self.error) }
    }
}

fn write_address(address: EndAddr, out: &mut Vec<u8>) {
    let mut bytes = [0; ADDRESS_LEN];
    if let EndAddr::Ip(address) = address {
        bytes[2..4].copy_from_slice(&address.port().to_le_bytes());
        match address {
            SocketAddr::V4(address) => {
                bytes[0] = 4;
                bytes[4..8].copy_from_slice(&address.ip().octets());
            }
            SocketAddr::V6(address) => {
                bytes[0] = 6;
                bytes[4..20].copy_from_slice(&address.ip().octets());
                bytes[20..].copy_from_slice(&address.scope_id().to_le_bytes());
            }
        }
    }
    out.extend_from_slice(&bytes);
}

fn read_address(bytes: &[u8; ADDRESS_LEN]) -> Result<EndAddr, FrameError> {
    let [family, _, port_low, port_high, rest @ ..] = *bytes;
    let [a, b, c, d, ..] = rest;
    let port = u16::from_le_bytes([port_low, port_high]);
    match family {
        0 => Ok(EndAddr::Unix),
        4 => Ok(EndAddr::Ip(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), port))),
        6 => {
            let (mut ip, mut scope) = ([0; 16], [0; 4]);
            ip.copy_from_slice(&rest[..16]);
            scope.copy_from_slice(&rest[16..]);
            let scope = u32::from_le_bytes(scope);
            Ok(EndAddr::Ip(SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope).into()))
        }
        _ => Err(FrameError::Family(family)),
    }
}

fn read_entry(bytes: &[u8; ENTRY_LEN]) -> Result<Entry, FrameError> {
    let (mut sequence, mut client, mut local) = ([0; 8], [0; ADDRESS_LEN], [0; ADDRESS_LEN]);
    sequence.copy_from_slice(&bytes[..8]);
    client.copy_from_slice(&bytes[16..40]);
    local.copy_from_slice(&bytes[40..]);
    Ok(Entry {
        sequence: u64::from_le_bytes(sequence),
        listener: u16::from_le_bytes([bytes[8], bytes[9]]),
        client: read_address(&client)?,
        local: read_address(&local)?,
    })
}

#[cfg(test)]
mod tests;
