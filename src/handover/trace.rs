//! Following connections: the outcome of each, for commands that ask for it. It costs nothing while none does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::mpsc;

use crate::addr::EndAddr;
use crate::connection::{ClientConnection, RejectReason, RouteBy};
use crate::ids::WorkerId;
use crate::route::{Key, Slot};

/// Followers at once.
const MAX_FOLLOWERS: usize = 4;
/// Connections that are kept for one follower; past them, further ones are dropped and counted.
const MAX_KEPT: usize = 1024;

/// The connections to follow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of clients with these addresses. None: of all.
    pub client: Option<IpNet>,
    /// Assigned to this slot at last. None: to any.
    pub slot: Option<Slot>,
    /// One of so many of them. 0 and 1: each.
    pub one_in: u64,
}

/// What became of one connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Traced {
    /// Its client: the peer, or the one that a trusted proxy named.
    pub client: EndAddr,
    /// Whether a proxy has named it.
    pub client_is_stated: bool,
    /// The listener that it came to, in the order of `--listen`.
    pub listener: u32,
    /// What decided where it goes, from the address or from what was peeked at.
    pub goal: RouteBy,
    /// The key that was hashed, where an address or a value decides.
    pub key: Key,
    /// The slot that it was assigned to at last, if to any.
    pub slot: Option<Slot>,
    /// How often it was passed on to another slot.
    pub moves: usize,
    /// From accept to its end here.
    pub took: Duration,
    /// How it ended.
    pub outcome: DeliveryOutcome,
}

/// How a connection ended here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// This worker has taken it.
    Delivered(WorkerId),
    /// No worker has had it.
    Refused(RejectReason),
}

/// There are as many followers as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_FOLLOWERS} others trace already: end one of them")]
pub struct TooManyFollowers;

/// The followers of connections.
#[derive(Debug, Default)]
pub struct Trace(Vec<Follower>);

#[derive(Debug)]
struct Follower {
    filter: Filter,
    matching: u64,
    dropped: Arc<AtomicU64>,
    sender: mpsc::Sender<Traced>,
}

/// What a follower receives.
#[derive(Debug)]
pub struct Following {
    /// What became of connections, in the order in which they ended.
    pub connections: mpsc::Receiver<Traced>,
    /// How many were dropped because they were too many at once.
    pub dropped: Arc<AtomicU64>,
}

impl Trace {
    /// Whether there is a follower: all that a connection costs otherwise.
    #[inline]
    pub fn is_on(&self) -> bool {
        !self.0.is_empty()
    }

    /// How many follow.
    pub fn followers(&self) -> usize {
        self.0.iter().filter(|follower| !follower.sender.is_closed()).count()
    }

    /// One follower more, until it drops what it gets.
    ///
    /// # Errors
    ///
    /// If there are too many.
    pub fn follow(&mut self, filter: Filter) -> Result<Following, TooManyFollowers> {
        self.0.retain(|follower| !follower.sender.is_closed());
        if self.0.len() >= MAX_FOLLOWERS {
            return Err(TooManyFollowers);
        }
        let (sender, connections) = mpsc::channel(MAX_KEPT);
        let dropped = Arc::default();
        self.0.push(Follower { filter, matching: 0, dropped: Arc::clone(&dropped), sender });
        Ok(Following { connections, dropped })
    }

    /// Publishes the outcome of a connection, which took so long.
    #[cold]
    pub fn publish(&mut self, connection: &ClientConnection, took: Duration, outcome: DeliveryOutcome) {
        let traced = Traced {
            client: connection.client,
            client_is_stated: connection.client_is_stated,
            listener: connection.listener,
            goal: connection.goal,
            key: connection.key,
            slot: connection.assigned,
            moves: connection.moves,
            took,
            outcome,
        };
        self.0.retain_mut(|follower| follower.push(traced));
    }
}

impl Follower {
    /// Returns whether it is still there.
    fn push(&mut self, traced: Traced) -> bool {
        if self.sender.is_closed() {
            return false;
        }
        if self.filter.takes(&traced) {
            self.matching += 1;
            if self.matching.is_multiple_of(self.filter.one_in.max(1)) && self.sender.try_send(traced).is_err() {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        true
    }
}

impl Filter {
    fn takes(&self, traced: &Traced) -> bool {
        let address = traced.client.ip().map(|addr| addr.ip().to_canonical());
        let is_client = self.client.is_none_or(|net| address.is_some_and(|address| net.contains(&address)));
        is_client && self.slot.is_none_or(|slot| traced.slot == Some(slot))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use super::*;

    fn connection(client: &str, slot: u16) -> ClientConnection {
        let (ours, _) = UnixStream::pair().expect("a pair");
        let client = EndAddr::from_ip(client.parse().expect("an address"));
        let mut connection =
            ClientConnection::new(OwnedFd::from(ours), 0, (client, EndAddr::Unix), Key::ANYONE, Instant::now());
        connection.assigned = Some(Slot(slot));
        connection
    }

    fn publish(trace: &mut Trace, client: &str, slot: u16) {
        let connection = connection(client, slot);
        trace.publish(&connection, Duration::from_micros(7), DeliveryOutcome::Delivered(WorkerId(3)));
        connection.close_delivered();
    }

    fn clients(following: &mut Following) -> Vec<String> {
        std::iter::from_fn(|| following.connections.try_recv().ok()).map(|traced| traced.client.to_string()).collect()
    }

    #[test]
    fn a_follower_is_sender_what_it_asks_for_and_nobody_else_costs_anything() {
        let mut trace = Trace::default();
        assert!(!trace.is_on());
        let net = Filter { client: "10.0.0.0/8".parse().ok(), ..Filter::default() };
        let mut by_net = trace.follow(net).expect("a place");
        let mut by_slot = trace.follow(Filter { slot: Some(Slot(2)), ..Filter::default() }).expect("a place");
        let mut sampled = trace.follow(Filter { one_in: 2, ..Filter::default() }).expect("a place");
        assert!(trace.is_on());
        for (client, slot) in [("10.1.2.3:4", 1), ("192.0.2.1:5", 2), ("[::ffff:10.0.0.9]:6", 2)] {
            publish(&mut trace, client, slot);
        }
        assert_eq!(clients(&mut by_net), ["10.1.2.3:4", "10.0.0.9:6"]);
        assert_eq!(clients(&mut by_slot), ["192.0.2.1:5", "10.0.0.9:6"]);
        assert_eq!(clients(&mut sampled), ["192.0.2.1:5"]);
        assert_eq!(trace.followers(), 3);
        drop((by_net, by_slot, sampled));
        assert_eq!(trace.followers(), 0, "as soon as they are gone");
        publish(&mut trace, "10.0.0.1:1", 0);
        assert!(!trace.is_on(), "they are gone");
    }

    #[test]
    fn what_a_follower_does_not_take_is_bounded_and_counted_and_so_are_followers() {
        let mut trace = Trace::default();
        let mut slow = trace.follow(Filter::default()).expect("a place");
        for _ in 0..MAX_KEPT + 5 {
            publish(&mut trace, "10.0.0.1:1", 0);
        }
        assert_eq!((clients(&mut slow).len(), slow.dropped.load(Ordering::Relaxed)), (MAX_KEPT, 5));
        let others: Vec<_> = (1..MAX_FOLLOWERS).map(|_| trace.follow(Filter::default()).expect("a place")).collect();
        assert!(trace.follow(Filter::default()).is_err());
        drop(others);
        assert!(trace.follow(Filter::default()).is_ok(), "those that have gone make room");
    }
}
