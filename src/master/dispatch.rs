//! Who assigns: each accepted connection to a slot, each slot's waiting connections to its worker.
//!
//! Nothing here waits. What cannot be sent now is held in the queue of its slot, bounded in number and time; after that
//! it goes to the next ready slot in its order, and when there is none it is refused.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::connection::{Connection, Refusal};
use super::ledger::Ledger;
use super::link::{Link, LinkError, News};
use super::node::{Mail, NodeDesk};
use super::queue::give_back_room;
use crate::config::{Affinity, Config, Prefix};
use crate::handover::node::To;
use crate::lifecycle::pool::{Standing, WorkerId};
use crate::route::{Key, RoundRobin, Slot, SlotCountError, Table, least_loaded};
use crate::sys::poller::Interest;

/// Most connections that wait for one slot.
const MOST_HELD: usize = 1024;

/// The queues of the slots, and the links to the workers.
#[derive(Debug)]
pub struct Dispatch {
    table: Table,
    affinity: Affinity,
    prefix: Prefix,
    round_robin: RoundRobin,
    max_in_flight: usize,
    hold_timeout: Duration,
    /// What waits for each slot, and for those there were: workers that leave may still give connections back.
    queues: Vec<VecDeque<Connection>>,
    /// What each of them is to its clients.
    standings: Vec<Standing>,
    links: BTreeMap<WorkerId, Link>,
    /// The books.
    pub ledger: Ledger,
    /// What Node workers have in common, if the workers are such.
    pub node: Option<NodeDesk>,
}

impl Dispatch {
    /// Empty queues for the configured slots.
    pub fn new(config: &Config) -> Result<Self, SlotCountError> {
        let table = Table::new(config.workers)?;
        Ok(Self {
            table,
            affinity: config.affinity,
            prefix: config.prefix,
            round_robin: RoundRobin::default(),
            max_in_flight: config.max_in_flight,
            hold_timeout: config.hold_timeout,
            queues: (0..config.workers).map(|_| VecDeque::new()).collect(),
            standings: vec![Standing::Expected; config.workers],
            links: BTreeMap::new(),
            ledger: Ledger::new(config.workers),
            node: None,
        })
    }

    /// The times and limits of another configuration, from now on.
    pub fn adopt(&mut self, config: &Config) {
        self.affinity = config.affinity;
        self.prefix = config.prefix;
        self.max_in_flight = config.max_in_flight;
        self.hold_timeout = config.hold_timeout;
        if let Some(desk) = &mut self.node {
            desk.adopt(config.start_timeout);
        }
    }

    /// What must stick of a client.
    pub fn key(&self, client: &crate::addr::EndAddr) -> Key {
        Key::of_client(client, self.prefix)
    }

    /// Takes an accepted connection in and yields the slot whose queue has grown, unless it was refused.
    pub fn admit(&mut self, connection: Connection) -> Option<Slot> {
        self.ledger.accept();
        let Some(slot) = self.choose(&connection) else {
            self.ledger.refuse(connection, Refusal::QueueFull);
            return None;
        };
        if self.queues[slot.index()].len() < MOST_HELD {
            self.queues[slot.index()].push_back(connection);
            return Some(slot);
        }
        let now = connection.accepted;
        self.pass_on(connection, slot, Refusal::QueueFull, now)
    }

    /// The slot that a connection belongs to now: the first in its order that is not bypassed, and if all are, the first.
    fn choose(&mut self, connection: &Connection) -> Option<Slot> {
        if self.affinity == Affinity::None {
            return self.least_loaded(None);
        }
        let own = self.table.choose(connection.key);
        if self.standings[own.index()] != Standing::Bypassed {
            return Some(own);
        }
        let mut order = self.table.order(connection.key);
        Some(order.find(|slot| self.standings[slot.index()] != Standing::Bypassed).unwrap_or(own))
    }

    /// Gives a connection that cannot wait for `from` any longer to the first other slot in its order that is ready, or
    /// refuses it. Its own slot comes first, which may be ready by now; what is passed on as often as there are slots
    /// has had its chance of each.
    fn pass_on(&mut self, mut connection: Connection, from: Slot, refusal: Refusal, now: Instant) -> Option<Slot> {
        let next = match self.affinity {
            _ if connection.moves >= self.table.count() => None,
            Affinity::Ip => {
                let queues = &self.queues;
                let mut order = self.table.order(connection.key).filter(|slot| *slot != from);
                order.find(|slot| self.serving(*slot).is_some() && queues[slot.index()].len() < MOST_HELD)
            }
            Affinity::None => self.least_loaded(Some(from)),
        };
        match next {
            Some(slot) => {
                connection.moves += 1;
                connection.held_since = now;
                self.queues[slot.index()].push_back(connection);
            }
            None => self.ledger.refuse(connection, refusal),
        }
        next
    }

    /// The slot with the least in flight, of the ready ones that are not full. If none is ready, a new connection may
    /// wait for any whose worker is to come, and only if there is none such, for any at all; one that is passed on, from
    /// the slot `except`, would only wait again.
    fn least_loaded(&mut self, except: Option<Slot>) -> Option<Slot> {
        let rank = |standing: &Standing| match standing {
            Standing::Serving(_) => 2,
            Standing::Expected => 1,
            Standing::Bypassed => 0,
        };
        let best = if except.is_some() { 2 } else { self.standings.iter().map(rank).max().unwrap_or(0) };
        let (queues, standings, links) = (&self.queues, &self.standings, &self.links);
        let loads = self.table.slots().filter_map(|slot| {
            let standing = &standings[slot.index()];
            let held = queues[slot.index()].len();
            let eligible = Some(slot) != except && held < MOST_HELD && rank(standing) == best;
            let Standing::Serving(worker) = standing else { return eligible.then_some((slot, held as u64)) };
            let in_flight = links.get(worker).map_or(0, Link::in_flight);
            eligible.then_some((slot, (held + in_flight) as u64))
        });
        least_loaded(loads, &mut self.round_robin)
    }

    /// The worker that takes the slot's connections now.
    fn serving(&self, slot: Slot) -> Option<WorkerId> {
        match self.standings[slot.index()] {
            Standing::Serving(worker) => Some(worker),
            Standing::Expected | Standing::Bypassed => None,
        }
    }

    /// Sends what waits for a slot, as far as its worker has room. Yields the worker if it cannot be sent to.
    pub fn send(&mut self, slot: Slot, now: Instant) -> Option<(WorkerId, LinkError)> {
        let link = self.links.get_mut(&self.serving(slot)?)?;
        let held = &mut self.queues[slot.index()];
        let sent = link.send(held, self.node.as_ref(), self.max_in_flight, now);
        give_back_room(held);
        Some((link.worker, sent.err()?))
    }

    /// Delivers the messages of Node workers to each other, and sends what waits for workers' kernels.
    pub fn flush(&mut self) -> Vec<(WorkerId, LinkError)> {
        self.deliver_mail();
        let desk = self.node.as_ref();
        let failed = self.links.values_mut().filter_map(|link| {
            let error = link.flush(desk).err()?;
            Some((link.worker, error))
        });
        failed.collect()
    }

    fn deliver_mail(&mut self) {
        let Some(desk) = &mut self.node else { return };
        for mail in desk.take_mail() {
            for link in self.links.values_mut() {
                let is_for = match &mail {
                    Mail::Message(To::One(worker), _) => link.worker == *worker,
                    Mail::Message(To::AllBut(worker), _) => link.worker != *worker,
                    Mail::Message(To::Nobody, _) => false,
                    Mail::Notice(_) => true,
                };
                if is_for && !link.mail(&mail) {
                    desk.dropped += 1;
                }
            }
        }
    }

    /// The workers that have become ready because nothing was heard of them for long enough.
    pub fn ready_by_silence(&mut self, now: Instant) -> Vec<WorkerId> {
        let desk = self.node.as_ref();
        let ready = self.links.values_mut().filter_map(|link| link.ready_by_silence(desk, now).then_some(link.worker));
        ready.collect()
    }

    /// Takes in what a worker has said. Yields its slot; what others must know is added to `news`.
    pub fn receive(
        &mut self,
        worker: WorkerId,
        news: &mut Vec<News>,
        now: Instant,
    ) -> Option<(Slot, Result<bool, LinkError>)> {
        let link = self.links.get_mut(&worker)?;
        let held = &mut self.queues[link.slot.index()];
        Some((link.slot, link.receive(held, &mut self.ledger, self.node.as_mut(), news, now)))
    }

    /// A worker was started.
    pub fn attach(&mut self, link: Link) {
        self.links.insert(link.worker, link);
    }

    /// From now on there are so many slots. Those that are no more are bypassed.
    pub fn resize(&mut self, slots: usize) -> Result<(), SlotCountError> {
        self.table = Table::new(slots)?;
        let ever = slots.max(self.queues.len());
        self.queues.resize_with(ever, VecDeque::new);
        self.standings.resize(ever, Standing::Bypassed);
        self.standings[slots..].fill(Standing::Bypassed);
        self.ledger.resize(ever);
        Ok(())
    }

    /// What the slot is to its clients from now on. Says whether that is news.
    pub fn stand(&mut self, slot: Slot, standing: Standing) -> bool {
        std::mem::replace(&mut self.standings[slot.index()], standing) != standing
    }

    /// Sends what waits for a slot that is bypassed to those that take its place, if there are any. Yields them.
    pub fn reassign(&mut self, slot: Slot, now: Instant) -> Vec<Slot> {
        let elsewhere = |(at, standing): (usize, &Standing)| at != slot.index() && *standing != Standing::Bypassed;
        if self.standings[slot.index()] != Standing::Bypassed || !self.standings.iter().enumerate().any(elsewhere) {
            return Vec::new();
        }
        let mut grown = Vec::new();
        for mut connection in std::mem::take(&mut self.queues[slot.index()]) {
            connection.held_since = now;
            match self.choose(&connection) {
                Some(next) if self.queues[next.index()].len() < MOST_HELD => {
                    self.queues[next.index()].push_back(connection);
                    grown.push(next);
                }
                _ => grown.extend(self.pass_on(connection, slot, Refusal::QueueFull, now)),
            }
        }
        grown
    }

    /// Tells a worker to finish.
    pub fn drain(&mut self, worker: WorkerId, within: Duration) -> Result<(), LinkError> {
        self.links.get_mut(&worker).map_or(Ok(()), |link| link.drain(within))
    }

    /// A worker is dead: what it had not taken goes back to the front of its slot's queue. Yields the slot.
    pub fn detach(&mut self, worker: WorkerId, now: Instant) -> Option<Slot> {
        let link = self.links.remove(&worker)?;
        let slot = link.slot;
        if self.serving(slot) == Some(worker) {
            self.standings[slot.index()] = Standing::Expected;
        }
        link.reclaim(&mut self.queues[slot.index()], &mut self.ledger, self.node.as_mut(), now);
        if let Some(desk) = &mut self.node {
            desk.exited(worker);
        }
        Some(slot)
    }

    /// Passes on what has waited too long. Yields the slots that have got something.
    pub fn expire(&mut self, now: Instant) -> Vec<Slot> {
        let mut grown = Vec::new();
        let mut expired = Vec::new();
        for (slot, queue) in (0..).map(Slot).zip(&mut self.queues) {
            let hold_timeout = self.hold_timeout;
            let too_long = |held: &Connection| now.saturating_duration_since(held.held_since) >= hold_timeout;
            if queue.iter().any(too_long) {
                for connection in std::mem::take(queue) {
                    if too_long(&connection) { expired.push((slot, connection)) } else { queue.push_back(connection) }
                }
            }
        }
        for (slot, connection) in expired {
            grown.extend(self.pass_on(connection, slot, Refusal::NoWorker, now));
        }
        grown
    }

    /// The master ends: refuses what waits, since nobody will take it any more. What was sent to a worker that lives is
    /// that worker's, who finishes without a master.
    pub fn close(&mut self, refusal: Refusal) {
        std::mem::take(&mut self.links).into_values().for_each(Link::abandon);
        for queue in &mut self.queues {
            queue.drain(..).for_each(|connection| self.ledger.refuse(connection, refusal));
        }
    }

    /// The link to a worker.
    pub fn link(&mut self, worker: WorkerId) -> Option<&mut Link> {
        self.links.get_mut(&worker)
    }

    /// All slots there ever were.
    pub fn all_slots(&self) -> impl ExactSizeIterator<Item = Slot> + use<> {
        (0..self.queues.len() as u16).map(Slot)
    }

    /// All links, to be changed.
    pub fn links_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.links.values_mut()
    }

    /// All links, each with what the poller is to wait for.
    ///
    /// `busy`: of acknowledgements that nobody waits for, only the worker's end is, and [`Dispatch::unheard`] tells whom
    /// to listen to after a moment.
    pub fn interests(&mut self, busy: bool) -> impl Iterator<Item = (&mut Link, Option<Interest>)> {
        let (queues, most) = (&self.queues, self.max_in_flight);
        self.links.values_mut().map(move |link| {
            let few = (1..most / 2).contains(&link.in_flight()) && queues[link.slot.index()].is_empty();
            let interest = match link.wanted_interest() {
                Some(Interest::Readable) if busy && few && link.acknowledges_singly() => Some(Interest::HangUp),
                wanted => wanted,
            };
            (link, interest)
        })
    }

    /// The workers that are not waited for although they have something to acknowledge. `all`, or only those that have
    /// so much that they must be listened to now.
    pub fn unheard(&self, all: bool) -> impl Iterator<Item = WorkerId> {
        let unheard = self.links.values().filter(|link| link.interest == Some(Interest::HangUp));
        let most = self.max_in_flight;
        unheard.filter(move |link| all || link.in_flight() >= most / 2).map(|link| link.worker)
    }

    /// All links.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// Connections that wait for a slot.
    pub fn held_for(&self, slot: Slot) -> usize {
        self.queues[slot.index()].len()
    }

    /// Connections that wait for any slot.
    pub fn held(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    /// Connections sent and not yet acknowledged, as counted one by one.
    pub fn in_flight(&self) -> usize {
        self.links.values().map(Link::in_flight).sum()
    }

    /// Whether sending must be tried again without an event that says when.
    pub fn must_retry(&self) -> bool {
        self.links.values().any(Link::must_retry)
    }

    /// All slots there are now.
    pub fn slots(&self) -> impl ExactSizeIterator<Item = Slot> + use<> {
        self.table.slots()
    }
}

mod by_kernel;
#[cfg(test)]
mod tests;
