//! The frames of the `haft` dialect as bytes. Pure: see the folder's page for the wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use crate::addr::EndAddr;

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
pub const CONNECTIONS_MAX_LEN: usize = HEADER_LEN + MAX_CONNECTIONS * ENTRY_LEN;
/// Length of the longest frame that a worker sends.
pub const WORKER_FRAME_MAX_LEN: usize = HEADER_LEN + 20;

const CONNECTIONS: u8 = 1;
const DRAIN: u8 = 2;
const PING: u8 = 4;
const READY: u8 = 129;
const TAKEN: u8 = 130;
const RETURNED: u8 = 131;

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
    /// A worker has no descriptors to send.
    #[error("a frame of kind {0} with descriptors")]
    Descriptors(u8),
    /// An address of an unknown family.
    #[error("unknown address family {0}")]
    Family(u8),
}

/// What the master tells of one connection.
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
        out[..HEADER_LEN].copy_from_slice(&header(CONNECTIONS, count));
    }

    /// A DRAIN frame.
    pub fn drain(within_ms: u32) -> [u8; HEADER_LEN + 4] {
        let mut frame = [0; HEADER_LEN + 4];
        frame[..HEADER_LEN].copy_from_slice(&header(DRAIN, 0));
        frame[HEADER_LEN..].copy_from_slice(&within_ms.to_le_bytes());
        frame
    }

    /// A PING frame.
    pub fn ping() -> [u8; HEADER_LEN] {
        header(PING, 0)
    }

    /// Reads a frame.
    pub fn read(frame: &[u8]) -> Result<Self, FrameError> {
        let (kind, count, body) = split(frame)?;
        let length = FrameError::Length { kind, len: frame.len() };
        match kind {
            CONNECTIONS => {
                let count = usize::from(count);
                if !(1..=MAX_CONNECTIONS).contains(&count) || body.len() != count * ENTRY_LEN {
                    return Err(length);
                }
                body.as_chunks::<ENTRY_LEN>().0.iter().map(read_entry).collect::<Result<_, _>>().map(Self::Connections)
            }
            DRAIN => Ok(Self::Drain { within_ms: u32::from_le_bytes(body.try_into().map_err(|_| length)?) }),
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
}

impl FromWorker {
    /// Writes the frame in place of what `out` held.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        match *self {
            Self::Ready { limit } => {
                out.extend_from_slice(&header(READY, 0));
                out.extend_from_slice(&limit.to_le_bytes());
            }
            Self::Taken { below, limit, open } => {
                out.extend_from_slice(&header(TAKEN, 0));
                out.extend_from_slice(&below.to_le_bytes());
                out.extend_from_slice(&limit.to_le_bytes());
                out.extend_from_slice(&open.to_le_bytes());
            }
            Self::Returned { first, count } => {
                out.extend_from_slice(&header(RETURNED, 0));
                out.extend_from_slice(&first.to_le_bytes());
                out.extend_from_slice(&count.to_le_bytes());
            }
        }
    }

    /// Reads a frame.
    pub fn read(frame: &[u8]) -> Result<Self, FrameError> {
        let (kind, _, body) = split(frame)?;
        let mut fields = Fields { body, error: FrameError::Length { kind, len: frame.len() } };
        let frame = match kind {
            READY => Self::Ready { limit: fields.u64()? },
            TAKEN => Self::Taken { below: fields.u64()?, limit: fields.u64()?, open: fields.u32()? },
            RETURNED => Self::Returned { first: fields.u64()?, count: fields.u32()? },
            _ => return Err(FrameError::Kind(kind)),
        };
        fields.end()?;
        Ok(frame)
    }
}

fn header(kind: u8, count: u16) -> [u8; HEADER_LEN] {
    let [low, high] = count.to_le_bytes();
    [VERSION, kind, low, high, 0, 0, 0, 0]
}

/// Kind, count and what follows the header.
fn split(frame: &[u8]) -> Result<(u8, u16, &[u8]), FrameError> {
    let Some((header, body)) = frame.split_first_chunk::<HEADER_LEN>() else {
        return Err(FrameError::Length { kind: frame.get(1).copied().unwrap_or(0), len: frame.len() });
    };
    let [version, kind, low, high, ..] = *header;
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    Ok((kind, u16::from_le_bytes([low, high]), body))
}

/// Takes numbers off the front of a frame's body.
struct Fields<'a> {
    body: &'a [u8],
    error: FrameError,
}

impl Fields<'_> {
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address() -> impl Strategy<Value = EndAddr> {
        prop_oneof![
            Just(EndAddr::Unix),
            (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| EndAddr::Ip((ip, port).into())),
            (any::<[u8; 16]>(), any::<u16>(), any::<u32>())
                .prop_map(|(ip, port, scope)| { EndAddr::Ip(SocketAddrV6::new(ip.into(), port, 0, scope).into()) }),
        ]
    }

    fn entry() -> impl Strategy<Value = Entry> {
        (any::<u64>(), any::<u16>(), address(), address()).prop_map(|(sequence, listener, client, local)| Entry {
            sequence,
            listener,
            client,
            local,
        })
    }

    proptest! {
        #[test]
        fn connections_come_back_as_they_were(entries in prop::collection::vec(entry(), 1..=MAX_CONNECTIONS)) {
            let mut bytes = Vec::new();
            FromMaster::write_connections(entries.iter().copied(), &mut bytes);
            prop_assert!(bytes.len() <= CONNECTIONS_MAX_LEN);
            prop_assert_eq!(FromMaster::read(&bytes).expect("frame"), FromMaster::Connections(entries));
        }

        #[test]
        fn a_worker_s_frames_come_back_as_they_were(a: u64, b: u64, c: u32, kind in 0..3) {
            let frame = match kind {
                0 => FromWorker::Ready { limit: a },
                1 => FromWorker::Taken { below: a, limit: b, open: c },
                _ => FromWorker::Returned { first: a, count: c },
            };
            let mut bytes = Vec::new();
            frame.write(&mut bytes);
            prop_assert!(bytes.len() <= WORKER_FRAME_MAX_LEN);
            prop_assert_eq!(FromWorker::read(&bytes).expect("frame"), frame);
            bytes.push(0);
            prop_assert!(FromWorker::read(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_a_frame_or_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            FromWorker::read(&bytes).ok();
            FromMaster::read(&bytes).ok();
            for kind in [CONNECTIONS, DRAIN, READY, TAKEN, RETURNED] {
                if let [version, at, ..] = bytes.as_mut_slice() {
                    (*version, *at) = (VERSION, kind);
                }
                FromWorker::read(&bytes).ok();
                FromMaster::read(&bytes).ok();
            }
        }
    }

    #[test]
    fn the_documented_bytes_are_the_bytes() {
        let client = EndAddr::Ip("127.0.0.7:258".parse().expect("address"));
        let local = EndAddr::Ip("[2001:db8::1]:3000".parse().expect("address"));
        let mut bytes = Vec::new();
        FromMaster::write_connections([Entry { sequence: 5, listener: 1, client, local }].into_iter(), &mut bytes);
        assert_eq!(bytes[..16], [1, 1, 1, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[16..36], [1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 2, 1, 127, 0, 0, 7, 0, 0, 0, 0]);
        assert_eq!(bytes[48..56], [6, 0, 0xb8, 0x0b, 0x20, 0x01, 0x0d, 0xb8]);
        assert_eq!(bytes.len(), 72);
        assert_eq!(FromMaster::drain(258), [1, 2, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0]);
        assert_eq!(FromMaster::ping(), [1, 4, 0, 0, 0, 0, 0, 0]);
        assert_eq!(FromMaster::read(&FromMaster::ping()), Ok(FromMaster::Ping));
        assert!(FromMaster::read(&[1, 4, 0, 0, 0, 0, 0, 0, 0]).is_err());
        FromWorker::Taken { below: 3, limit: 9, open: 2 }.write(&mut bytes);
        assert_eq!(bytes[..8], [1, 130, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[8..], [3, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]);
    }

    #[test]
    fn another_version_and_an_unknown_kind_are_named() {
        assert_eq!(FromWorker::read(&[2, READY, 0, 0, 0, 0, 0, 0]), Err(FrameError::Version(2)));
        assert_eq!(FromWorker::read(&[1, 9, 0, 0, 0, 0, 0, 0]), Err(FrameError::Kind(9)));
        assert_eq!(FromWorker::read(&[]), Err(FrameError::Length { kind: 0, len: 0 }));
    }
}
