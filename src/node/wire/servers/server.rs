//! One server of a program: its name, its workers, and where its connections come from.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::WorkerId;
use crate::node::wire::message::{AddressType, Query};
use crate::node::wire::own::Fit;
use crate::node::wire::say::{SharedKind, Sockname};
use crate::node::wire::spec::{self, Spec};
use crate::route::Slot;

#[derive(Debug)]
pub(super) struct Server {
    pub(super) key: String,
    pub(super) data: Option<Vec<u8>>,
    pub(super) source: ServerSource,
    /// What the first query for it asks to be opened.
    pub(super) spec: Option<Spec>,
    /// How it came to be served from `--listen`, if it is.
    pub(super) fit: Option<Fit>,
    pub(super) holders: BTreeSet<WorkerId>,
    /// The last worker of each slot that had it.
    pub(super) last_of_slot: BTreeMap<Slot, WorkerId>,
}

#[derive(Debug)]
pub(super) enum ServerSource {
    /// Connections are handed over. The program gets this address, with this port if that is not its own.
    Stream { sockname: Option<Sockname>, port: Option<u16> },
    /// Every worker gets a copy of the socket.
    Shared(SharedKind),
}

impl Server {
    /// Whether the worker has it now and had it not before. The first data that a worker brings is kept for all.
    pub(super) fn join(&mut self, worker: WorkerId, slot: Option<Slot>, query: &Query<'_>) -> bool {
        self.last_of_slot.extend(slot.map(|slot| (slot, worker)));
        if self.data.is_none() {
            self.data = query.data.map(|data| data.bytes().to_vec());
        }
        self.holders.insert(worker)
    }

    /// If the worker had it: whether no worker has it now.
    pub(super) fn leave(&mut self, worker: WorkerId) -> Option<bool> {
        self.holders.remove(&worker).then_some(())?;
        Some(self.holders.is_empty())
    }
}

fn is_udp(query: &Query<'_>) -> bool {
    matches!(query.address_type, AddressType::Udp4 | AddressType::Udp6)
}

/// Node's own name for a server (22 and later): with the count only where it distinguishes servers, that is for port 0
/// (as many ports as servers, the same in every worker) and for UDP sockets that may share a port.
pub(in crate::node::wire) fn key(query: &Query<'_>) -> String {
    let number = |number: Option<i64>, none: &str| number.map_or_else(|| none.to_owned(), |number| number.to_string());
    let mut key = format!(
        "{}:{}:{}:{}",
        query.address.as_deref().unwrap_or("null"),
        number(query.port, "null"),
        query.address_type.name(),
        number(query.fd, "undefined"),
    );
    if query.port == Some(0) || (is_udp(query) && query.flags & spec::UDP_REUSE_ADDR != 0) {
        key = format!("{key}:{}", query.index);
    }
    key
}
