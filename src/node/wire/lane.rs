//! The lane: a second socket to a Node worker, on which connections come with a few bytes each instead of a message of
//! Node's own. Pure.
//!
//! The preload asks for it, reports when it is open, and names the servers that it gets connections for (`lane.cjs`,
//! which describes what goes over it too). It acknowledges what it has taken on Node's channel, in the order of
//! sending, so a dead worker's channel holds everything that is known, as without a lane.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::net::SocketAddr;

use super::outgoing::Split;
use super::violation::IpcViolation;

/// What goes with each connection: as many bytes as the preload reads at once.
pub const RECORD: usize = 56;

/// The version of a record's layout.
const LAYOUT: u8 = 1;

/// The preload's messages about the lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneMessage {
    /// It wants one.
    Wanted,
    /// It reads from the one that it was given.
    Open,
    /// A server takes its connections from there.
    Serves {
        /// The number in the answer to the server's query.
        server: u32,
    },
    /// It has taken the next connections.
    Took {
        /// How many.
        count: u64,
    },
    /// It has not taken the next connection, and will not.
    Back,
}

/// The servers that the lane serves, what waits for the kernel, and what is in flight.
#[derive(Debug, Default)]
pub struct Lane {
    is_wanted: bool,
    is_open: bool,
    next_server: u32,
    /// By key: the number that the worker knows the server by, and whether connections may come this way.
    servers: BTreeMap<String, (u32, bool)>,
    waiting: VecDeque<(u64, [u8; RECORD])>,
    in_flight: VecDeque<u64>,
}

impl Lane {
    /// The worker asks for a lane. `false`: it has asked before.
    pub fn want(&mut self) -> bool {
        !std::mem::replace(&mut self.is_wanted, true)
    }

    /// The worker reads from the lane.
    pub fn open(&mut self) {
        self.is_open = self.is_wanted;
    }

    /// The worker gets a server with this key. Returns the number to send to it, if it has asked for a lane.
    pub fn number(&mut self, key: &str) -> Option<u32> {
        if !self.is_wanted {
            return None;
        }
        self.next_server += 1;
        self.servers.insert(key.to_owned(), (self.next_server, false));
        Some(self.next_server)
    }

    /// The worker can be sent connections for the server with this number, if it is one.
    pub fn serves(&mut self, number: u32) {
        self.servers.values_mut().filter(|(own, _)| *own == number).for_each(|(_, serves)| *serves = true);
    }

    /// The worker has closed the server with this key.
    pub fn closed(&mut self, key: &str) {
        self.servers.remove(key);
    }

    /// Takes a connection for a server in, if it may go this way. `stated`: the client's address, where the kernel does
    /// not know it.
    pub fn push(&mut self, connection: u64, key: &str, stated: Option<SocketAddr>) -> bool {
        let server = self.servers.get(key).filter(|(_, serves)| self.is_open && *serves);
        let Some((number, _)) = server else { return false };
        self.waiting.push_back((connection, record(*number, stated)));
        true
    }

    /// What waits for the kernel: each record, with the connection that goes with it.
    pub fn waiting(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.waiting.iter().map(|(connection, record)| (&record[..], *connection))
    }

    /// Whether anything does.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The kernel took so many bytes of the first record that waits.
    ///
    /// # Errors
    ///
    /// It took a part of it: where the next record begins is not known any more.
    pub fn sent(&mut self, taken: usize) -> Result<(), Split> {
        if taken != RECORD {
            return Err(Split { taken, len: RECORD });
        }
        self.in_flight.extend(self.waiting.pop_front().map(|(connection, _)| connection));
        Ok(())
    }

    /// The next connection that the worker answers for.
    ///
    /// # Errors
    ///
    /// None is in flight on the lane.
    pub fn answered(&mut self) -> Result<u64, IpcViolation> {
        self.in_flight.pop_front().ok_or(IpcViolation::NothingToAcknowledge)
    }

    /// How many are in flight on the lane.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }
}

/// What goes with a connection. Without a stated client address the rest is empty.
fn record(server: u32, stated: Option<SocketAddr>) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[0] = LAYOUT;
    record[4..8].copy_from_slice(&server.to_le_bytes());
    if let Some(stated) = stated {
        record[1] = if stated.is_ipv4() { 4 } else { 6 };
        record[2..4].copy_from_slice(&stated.port().to_le_bytes());
        let mut rest = &mut record[9..];
        let room = rest.len();
        // It fits: an address has at most 45 characters.
        write!(rest, "{}", stated.ip()).ok();
        record[8] = (room - rest.len()) as u8;
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_lane(key: &str) -> Lane {
        let mut lane = Lane::default();
        assert!(lane.want() && !lane.want(), "one for each worker");
        lane.open();
        let number = lane.number(key).expect("a number");
        lane.serves(number);
        lane
    }

    #[test]
    fn nothing_goes_this_way_before_the_worker_has_said_all_that_it_must() {
        let mut lane = Lane::default();
        lane.open();
        assert_eq!(lane.number("a"), None, "no worker asked for a lane");
        assert!(lane.want());
        let number = lane.number("a").expect("a number");
        lane.serves(number);
        assert!(!lane.push(0, "a", None), "it is not open");
        lane.open();
        assert!(lane.push(0, "a", None) && !lane.push(1, "b", None));
        let again = lane.number("a").expect("a server of the same name");
        assert_ne!(again, number);
        assert!(!lane.push(1, "a", None), "the new server has not been named");
        lane.serves(again);
        lane.serves(99);
        assert!(lane.push(1, "a", None));
        lane.closed("a");
        assert!(!lane.push(2, "a", None));
    }

    #[test]
    fn connections_are_answered_for_in_their_order_and_only_once_sent() {
        let mut lane = open_lane("a");
        assert!([5, 6, 9].into_iter().all(|connection| lane.push(connection, "a", None)));
        assert!(matches!(lane.answered(), Err(IpcViolation::NothingToAcknowledge)), "none was sent");
        assert_eq!(lane.sent(RECORD - 1), Err(Split { taken: RECORD - 1, len: RECORD }));
        lane.sent(RECORD).expect("whole");
        lane.sent(RECORD).expect("whole");
        assert_eq!(
            (lane.waiting().map(|(_, connection)| connection).collect::<Vec<_>>(), lane.in_flight()),
            (vec![9], 2)
        );
        assert_eq!([lane.answered().ok(), lane.answered().ok(), lane.answered().ok()], [Some(5), Some(6), None]);
    }

    #[test]
    fn a_record_tells_the_server_and_the_address_that_a_proxy_told() {
        let mut lane = open_lane("a");
        for stated in ["203.0.113.7:65535", "[2001:db8:1111:2222:3333:4444:5555:6666]:1"] {
            assert!(lane.push(0, "a", Some(stated.parse().expect("an address"))));
        }
        let records: Vec<Vec<u8>> = lane.waiting().map(|(record, _)| record.to_vec()).collect();
        assert_eq!(records[0][..20], *b"\x01\x04\xff\xff\x01\0\0\0\x0b203.0.113.7");
        assert_eq!(records[1][..9], *b"\x01\x06\x01\0\x01\0\0\0\x26");
        assert_eq!(records[1][9..48], *b"2001:db8:1111:2222:3333:4444:5555:6666\0");
        assert!(records.iter().all(|record| record.len() == RECORD));
    }
}
