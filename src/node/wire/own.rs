//! Which servers of the program haft's own listeners (`--listen`) serve.
//!
//! One with `ADDR=PORT` serves the server that asks for that port. The others serve the one that asks for the very port
//! of one of them, and until such a one comes, the first TCP server of the program.

use std::collections::BTreeMap;

use super::say::Sockname;

/// A server's number. No other has or had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub(super) u64);

impl ServerId {
    /// The server that haft's own listeners (`--listen`) serve, if they name no other.
    pub const OWN: Self = Self(0);
}

/// How a server came to be served from `--listen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It asked for the port that the listener has, or names.
    Exact,
    /// It was the first one.
    First,
    /// It asked for the same port as this one, at another address: it is the same to clients.
    Beside(ServerId),
}

/// Haft's own listeners, by the server that they are for.
#[derive(Debug, Default)]
pub struct Own(BTreeMap<ServerId, PortGroup>);

#[derive(Debug)]
struct PortGroup {
    /// The program's port that they name.
    server_port: Option<u16>,
    listeners: Vec<Sockname>,
}

impl Own {
    /// From the listeners in their order, each with the port that it names. Yields the server of each, too.
    pub fn new(listeners: impl IntoIterator<Item = (Sockname, Option<u16>)>) -> (Self, Vec<ServerId>) {
        let mut groups: BTreeMap<ServerId, PortGroup> = BTreeMap::new();
        let servers = listeners.into_iter().map(|(sockname, server_port)| {
            let known = groups.iter_mut().find(|(_, group)| group.server_port == server_port);
            if let Some((server, group)) = known {
                group.listeners.push(sockname);
                return *server;
            }
            let named = groups.range(ServerId(1)..).count() as u64;
            let server = server_port.map_or(ServerId::OWN, |_| ServerId(named + 1));
            groups.insert(server, PortGroup { server_port, listeners: vec![sockname] });
            server
        });
        let servers = servers.collect();
        (Self(groups), servers)
    }

    /// The last number that is taken.
    pub(super) fn last(&self) -> ServerId {
        self.0.keys().last().copied().unwrap_or(ServerId::OWN)
    }

    /// Whether this server is one of them.
    pub(super) fn is_of(&self, server: ServerId) -> bool {
        self.0.contains_key(&server)
    }

    /// The server that a query for this port would be, and how well it fits.
    pub(super) fn server_for(&self, port: Option<i64>) -> Option<(ServerId, Fit)> {
        let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
        let named =
            |(server, group): (&ServerId, &PortGroup)| (port.is_some() && group.server_port == port).then_some(*server);
        if let Some(server) = self.0.iter().find_map(named) {
            return Some((server, Fit::Exact));
        }
        let group = self.0.get(&ServerId::OWN)?;
        let exact = port.is_some() && group.listeners.iter().any(|listener| listener.port() == port);
        Some((ServerId::OWN, if exact { Fit::Exact } else { Fit::First }))
    }

    /// The address that the program gets to see: the first one's.
    pub(super) fn sockname(&self, server: ServerId) -> Option<&Sockname> {
        self.0.get(&server)?.listeners.first()
    }

    /// The port of the first one.
    pub(super) fn port(&self, server: ServerId) -> Option<u16> {
        self.sockname(server)?.port()
    }
}
