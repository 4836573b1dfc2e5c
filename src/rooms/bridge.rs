//! The rooms of several hosts: the messages between their relays, over Redis. Pure.
//!
//! Each relay publishes to a common channel, and subscribes to that and to its own. A relay publishes which members it has
//! whenever that changes and every [`BEAT`]. One that publishes nothing for [`SILENCE`] counts as dead, and its members with it.
//! It may only be late: with its next message its members are back.
//!
//! ```text
//! | version: 1 | kind: 1 | host: 4 | ...
//! kind 0, STATE    | asks: 1 | for each member: number: 8 | length: 2 | its READY body |
//! kind 1, MESSAGE  | to: 8 | a frame of MESSAGE, naming its sender |
//! kind 2, SENT     | total: 8 |
//! ```
//!
//! Numbers are big-endian. A relay that `asks` is new: the others publish at once what they have. SENT comes every [`BEAT`]: the
//! number of messages to all that its relay has published so far. A receiver compares it with what has arrived.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};

use haft_worker::protocol::rooms::{Frame, Reader};

/// The version of all this; it is in the channels' names, too, so that two of them can be on one Redis.
pub const VERSION: u8 = 1;
/// How often a relay publishes what it has.
pub const BEAT: Duration = Duration::from_millis(500);
/// After how long without a message it counts as dead. That is noticed within one [`BEAT`] more.
pub const SILENCE: Duration = Duration::from_millis(2000);
/// How long the members of such a host are remembered, in case it was only late.
const MEMORY: Duration = Duration::from_secs(60);

const STATE: u8 = 0;
const MESSAGE: u8 = 1;
const SENT: u8 = 2;
/// Length of what stands before a message's frame.
const MESSAGE_HEAD: usize = 14;
/// Most hosts that are known at a time; another's members are not heard of.
const MAX_HOSTS: usize = 1024;
/// Most members of one host.
const MAX_MEMBERS: usize = 4096;

/// The host of a member's number.
pub fn host_of(member: u64) -> u32 {
    (member >> 32) as u32
}

/// What a relay has received from another.
#[derive(Debug)]
pub enum BridgeMessage {
    /// Which members a host has.
    State {
        /// The host.
        host: u32,
        /// It asks the others for their members.
        asks: bool,
        /// Its members, each with its READY body.
        members: BTreeMap<u64, Bytes>,
    },
    /// A message for members here.
    Message {
        /// The host that sends it.
        host: u32,
        /// The member that it is for.
        to: u64,
        /// It names its sender.
        frame: Frame,
    },
    /// How many messages to all a host has published.
    Sent {
        /// The host.
        host: u32,
        /// Since it has started.
        total: u64,
    },
}

impl BridgeMessage {
    /// The host that has published it.
    pub fn host(&self) -> u32 {
        match self {
            Self::State { host, .. } | Self::Message { host, .. } | Self::Sent { host, .. } => *host,
        }
    }
}

/// Reads what was published; nothing if it is none of ours.
pub fn read(payload: &[u8]) -> Option<BridgeMessage> {
    let ([VERSION, kind], rest) = payload.split_first_chunk::<2>()? else { return None };
    let (host, mut rest) = rest.split_first_chunk::<4>()?;
    let host = u32::from_be_bytes(*host);
    match *kind {
        STATE => {
            let (asks, mut rest) = rest.split_first()?;
            let mut members = BTreeMap::new();
            while let Some((number, more)) = rest.split_first_chunk::<8>() {
                let (length, more) = more.split_first_chunk::<2>()?;
                let (body, more) = more.split_at_checked(u16::from_be_bytes(*length).into())?;
                let number = u64::from_be_bytes(*number);
                if host_of(number) != host || members.len() >= MAX_MEMBERS {
                    return None;
                }
                members.insert(number, Bytes::copy_from_slice(body));
                rest = more;
            }
            rest.is_empty().then_some(BridgeMessage::State { host, asks: *asks != 0, members })
        }
        MESSAGE => {
            let (to, frame) = rest.split_first_chunk::<8>()?;
            rest = frame;
            let mut reader = Reader::default();
            reader.room().extend_from_slice(rest);
            let frame = reader.take().ok()??;
            (host_of(frame.member) == host).then_some(BridgeMessage::Message {
                host,
                to: u64::from_be_bytes(*to),
                frame,
            })
        }
        SENT => Some(BridgeMessage::Sent { host, total: u64::from_be_bytes(rest.try_into().ok()?) }),
        _ => None,
    }
}

fn head(kind: u8, host: u32, room: usize) -> BytesMut {
    let mut payload = BytesMut::with_capacity(6 + room);
    payload.put_slice(&[VERSION, kind]);
    payload.put_u32(host);
    payload
}

/// A message, as it is published. `frame` names its sender.
pub fn message(host: u32, to: u64, frame: &[u8]) -> Bytes {
    let mut payload = head(MESSAGE, host, MESSAGE_HEAD + frame.len());
    payload.put_u64(to);
    payload.put_slice(frame);
    payload.freeze()
}

/// Which members this host has, as it is published.
pub fn state<'a>(host: u32, asks: bool, members: impl Iterator<Item = (u64, &'a Bytes)>) -> Bytes {
    let mut payload = head(STATE, host, 64);
    payload.put_u8(asks.into());
    for (number, body) in members.take(MAX_MEMBERS) {
        payload.put_u64(number);
        // It fits: the relay keeps no more than 1,024 bytes.
        payload.put_u16(body.len().min(usize::from(u16::MAX)) as u16);
        payload.put_slice(&body[..body.len().min(usize::from(u16::MAX))]);
    }
    payload.freeze()
}

/// How many messages to all this host has published, as it is published.
pub fn sent(host: u32, total: u64) -> Bytes {
    let mut payload = head(SENT, host, 8);
    payload.put_u64(total);
    payload.freeze()
}

/// What is known of the other hosts.
#[derive(Debug, Default)]
pub struct Hosts {
    hosts: BTreeMap<u32, Host>,
}

#[derive(Debug)]
struct Host {
    last_seen: Instant,
    members: BTreeMap<u64, Bytes>,
    /// It was silent for too long, and the members here were informed that its members are gone.
    is_given_up: bool,
    /// The total of its last SENT.
    published: Option<u64>,
    /// Messages to all that have arrived since.
    arrived: u64,
}

/// Members that have come and gone.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MemberChanges {
    /// Members that have come, each with its READY body.
    pub come: Vec<(u64, Bytes)>,
    /// Members that have gone.
    pub gone: Vec<u64>,
}

impl Hosts {
    /// A host has published its members.
    pub fn update(&mut self, host: u32, members: BTreeMap<u64, Bytes>, now: Instant) -> MemberChanges {
        if !self.hosts.contains_key(&host) && self.hosts.len() >= MAX_HOSTS {
            return MemberChanges::default();
        }
        let known = self.hosts.entry(host).or_insert_with(|| Host::new(now));
        known.last_seen = now;
        let before = std::mem::replace(&mut known.members, members);
        let before = if std::mem::take(&mut known.is_given_up) { BTreeMap::new() } else { before };
        let after = &known.members;
        MemberChanges {
            come: after
                .iter()
                .filter(|(number, _)| !before.contains_key(number))
                .map(|(n, t)| (*n, t.clone()))
                .collect(),
            gone: before.into_keys().filter(|number| !after.contains_key(number)).collect(),
        }
    }

    /// A message of this member's has arrived, so its host lives: the members of a host that was given up are back.
    pub fn update_by_message(&mut self, from: u64, to_all: bool, now: Instant) -> MemberChanges {
        let Some(host) = self.hosts.get_mut(&host_of(from)) else { return MemberChanges::default() };
        host.last_seen = now;
        host.arrived += u64::from(to_all);
        let come = std::mem::take(&mut host.is_given_up).then(|| host.members.clone());
        MemberChanges { come: come.into_iter().flatten().collect(), gone: Vec::new() }
    }

    /// A host has published `total` messages to all. Yields how many of them have not arrived here since it last said so.
    pub fn missed(&mut self, host: u32, total: u64) -> u64 {
        let Some(host) = self.hosts.get_mut(&host) else { return 0 };
        let arrived = std::mem::take(&mut host.arrived);
        host.published.replace(total).map_or(0, |before| total.saturating_sub(before).saturating_sub(arrived))
    }

    /// Gives up hosts that were silent for too long.
    pub fn expire(&mut self, now: Instant) -> MemberChanges {
        let silent = |host: &Host, limit| now.saturating_duration_since(host.last_seen) > limit;
        let mut gone = Vec::new();
        for host in self.hosts.values_mut().filter(|host| !host.is_given_up && silent(host, SILENCE)) {
            host.is_given_up = true;
            gone.extend(host.members.keys());
        }
        self.hosts.retain(|_, host| !silent(host, MEMORY));
        MemberChanges { come: Vec::new(), gone }
    }

    /// Until now nothing could arrive from them.
    pub fn excuse(&mut self, now: Instant) {
        self.hosts.values_mut().filter(|host| !host.is_given_up).for_each(|host| host.last_seen = now);
    }

    /// All their members.
    pub fn members(&self) -> impl Iterator<Item = (u64, &Bytes)> {
        self.living().flat_map(|host| host.members.iter().map(|(number, body)| (*number, body)))
    }

    /// Whether this member is known.
    pub fn has(&self, member: u64) -> bool {
        self.hosts.get(&host_of(member)).is_some_and(|host| !host.is_given_up && host.members.contains_key(&member))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.living().count()
    }

    fn living(&self) -> impl Iterator<Item = &Host> {
        self.hosts.values().filter(|host| !host.is_given_up)
    }
}

impl Host {
    fn new(last_seen: Instant) -> Self {
        Self { last_seen, members: BTreeMap::new(), is_given_up: false, published: None, arrived: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use haft_worker::protocol::rooms::{ALL, Kind, write};
    use proptest::prelude::*;

    const A: u64 = (7 << 32) | 1;
    const B: u64 = (7 << 32) | 2;

    fn members(of: &[u64]) -> BTreeMap<u64, Bytes> {
        of.iter().map(|number| (*number, Bytes::from(number.to_string()))).collect()
    }

    #[test]
    fn what_is_written_can_be_read() {
        let body = members(&[A, B]);
        let Some(BridgeMessage::State { host: 7, asks: true, members }) =
            read(&state(7, true, body.iter().map(|(number, body)| (*number, body))))
        else {
            panic!("a state")
        };
        assert_eq!(members, body);
        let frame = write(Kind::Message, A, b"hello");
        let Some(BridgeMessage::Message { host: 7, to: ALL, frame }) = read(&message(7, ALL, &frame)) else {
            panic!("a message")
        };
        assert_eq!((frame.member, frame.body()), (A, &b"hello"[..]));
        assert!(matches!(read(&sent(7, 1 << 40)), Some(BridgeMessage::Sent { host: 7, total }) if total == 1 << 40));
    }

    /// A relay cannot speak for another host, and another version is not understood.
    #[test]
    fn what_is_not_ours_is_nothing() {
        let body = members(&[A]);
        assert!(read(&state(8, false, body.iter().map(|(number, body)| (*number, body)))).is_none());
        assert!(read(&message(8, ALL, &write(Kind::Message, A, b""))).is_none());
        let mut other = state(7, false, std::iter::empty()).to_vec();
        other[0] = VERSION + 1;
        assert!(read(&other).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(0..4u8, 0..80)) {
            let _ = read(&bytes);
        }
    }

    #[test]
    fn members_come_and_go_and_a_silent_host_goes_with_all_of_them() {
        let (mut hosts, now) = (Hosts::default(), Instant::now());
        let come = |of: &[u64]| members(of).into_iter().collect::<Vec<_>>();
        assert_eq!(hosts.update(7, members(&[A]), now), MemberChanges { come: come(&[A]), gone: vec![] });
        assert_eq!(hosts.update(7, members(&[A, B]), now), MemberChanges { come: come(&[B]), gone: vec![] });
        assert_eq!(hosts.update(7, members(&[B]), now + BEAT), MemberChanges { come: vec![], gone: vec![A] });
        assert!(hosts.has(B) && !hosts.has(A));
        assert_eq!(hosts.expire(now + BEAT + SILENCE), MemberChanges::default());
        assert_eq!(hosts.expire(now + BEAT + SILENCE + BEAT), MemberChanges { come: vec![], gone: vec![B] });
        assert_eq!((hosts.count(), hosts.members().count()), (0, 0));
    }

    #[test]
    fn a_host_that_was_only_late_is_back_with_its_next_message() {
        let (mut hosts, now) = (Hosts::default(), Instant::now());
        let come: Vec<_> = members(&[A, B]).into_iter().collect();
        hosts.update(7, members(&[A, B]), now);
        let late = now + SILENCE + BEAT;
        assert_eq!(hosts.expire(late).gone, [A, B]);
        assert_eq!((hosts.count(), hosts.has(A)), (0, false));
        assert_eq!(hosts.update_by_message(A, true, late), MemberChanges { come: come.clone(), gone: vec![] });
        assert_eq!((hosts.count(), hosts.has(A)), (1, true));
        assert_eq!(hosts.update_by_message(A, true, late), MemberChanges::default());
        let later = late + SILENCE + BEAT;
        assert_eq!(hosts.expire(later).gone, [A, B]);
        assert_eq!(hosts.update(7, members(&[A, B]), later), MemberChanges { come, gone: vec![] });
        // One that stays away is forgotten.
        assert_eq!(hosts.expire(later + SILENCE + BEAT).gone, [A, B]);
        assert_eq!(hosts.expire(later + MEMORY + BEAT), MemberChanges::default());
        assert_eq!(hosts.update_by_message(A, true, later), MemberChanges::default());
        assert!(hosts.hosts.is_empty());
    }

    #[test]
    fn messages_that_have_not_arrived_are_counted() {
        let (mut hosts, now) = (Hosts::default(), Instant::now());
        assert_eq!(hosts.missed(7, 5), 0, "an unknown host");
        hosts.update(7, members(&[A]), now);
        assert_eq!(hosts.missed(7, 100), 0, "what was published before it was known");
        for _ in 0..3 {
            hosts.update_by_message(A, true, now);
            hosts.update_by_message(A, false, now);
        }
        assert_eq!(hosts.missed(7, 103), 0);
        hosts.update_by_message(A, true, now);
        assert_eq!(hosts.missed(7, 110), 6);
        assert_eq!(hosts.missed(7, 110), 0);
    }
}
