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
use crate::lifecycle::pool::WorkerId;
use crate::route::{Key, RoundRobin, Slot, SlotCountError, Table, least_loaded};

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
    /// What waits for each slot.
    queues: Vec<VecDeque<Connection>>,
    /// The worker that takes each slot's connections.
    serving: Vec<Option<WorkerId>>,
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
            serving: vec![None; config.workers],
            links: BTreeMap::new(),
            ledger: Ledger::new(config.workers),
            node: None,
        })
    }

    /// What must stick of a client.
    pub fn key(&self, client: &crate::addr::EndAddr) -> Key {
        Key::of_client(client, self.prefix)
    }

    /// Takes an accepted connection in and yields the slot whose queue has grown, unless it was refused.
    pub fn admit(&mut self, connection: Connection) -> Option<Slot> {
        self.ledger.accept();
        let slot = match self.affinity {
            Affinity::Ip => Some(self.table.choose(connection.key)),
            Affinity::None => self.least_loaded(None),
        };
        let Some(slot) = slot else {
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

    /// Gives a connection that cannot wait for `from` any longer to the first other slot in its order that is ready, or
    /// refuses it. Its own slot comes first, which may be ready by now; what is passed on as often as there are slots
    /// has had its chance of each.
    fn pass_on(&mut self, mut connection: Connection, from: Slot, refusal: Refusal, now: Instant) -> Option<Slot> {
        let next = match self.affinity {
            _ if connection.moves >= self.table.count() => None,
            Affinity::Ip => {
                let (queues, serving) = (&self.queues, &self.serving);
                let mut order = self.table.order(connection.key).filter(|slot| *slot != from);
                order.find(|slot| serving[slot.index()].is_some() && queues[slot.index()].len() < MOST_HELD)
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
    /// wait for any of them; one that is passed on, from the slot `except`, would only wait again.
    fn least_loaded(&mut self, except: Option<Slot>) -> Option<Slot> {
        let must_be_ready = except.is_some() || self.serving.iter().any(Option::is_some);
        let (queues, serving, links) = (&self.queues, &self.serving, &self.links);
        let loads = self.table.slots().filter_map(|slot| {
            let worker = serving[slot.index()];
            let held = queues[slot.index()].len();
            let eligible = Some(slot) != except && held < MOST_HELD && worker.is_some() == must_be_ready;
            let in_flight = worker.and_then(|worker| links.get(&worker)).map_or(0, Link::in_flight);
            eligible.then_some((slot, (held + in_flight) as u64))
        });
        least_loaded(loads, &mut self.round_robin)
    }

    /// Sends what waits for a slot, as far as its worker has room. Yields the worker if it cannot be sent to.
    pub fn send(&mut self, slot: Slot, now: Instant) -> Option<(WorkerId, LinkError)> {
        let link = self.links.get_mut(&self.serving[slot.index()]?)?;
        let held = &mut self.queues[slot.index()];
        let sent = link.send(held, self.node.as_ref(), self.max_in_flight, now);
        give_back_room(held);
        Some((link.worker, sent.err()?))
    }

    /// Delivers the messages of Node workers to each other, and sends what waits for workers' kernels.
    pub fn flush(&mut self) -> Vec<(WorkerId, Slot, LinkError)> {
        self.deliver_mail();
        let desk = self.node.as_ref();
        let failed = self.links.values_mut().filter_map(|link| {
            let error = link.flush(desk).err()?;
            Some((link.worker, link.slot, error))
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
        let Some(desk) = &self.node else { return Vec::new() };
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

    /// From now on this worker takes the slot's connections; or nobody does.
    pub fn serve(&mut self, slot: Slot, worker: Option<WorkerId>) {
        self.serving[slot.index()] = worker;
    }

    /// A worker is dead: what it had not taken goes back to the front of its slot's queue.
    pub fn detach(&mut self, worker: WorkerId, now: Instant) {
        if let Some(link) = self.links.remove(&worker) {
            let slot = link.slot;
            if self.serving[slot.index()] == Some(worker) {
                self.serving[slot.index()] = None;
            }
            link.reclaim(&mut self.queues[slot.index()], &mut self.ledger, self.node.as_mut(), now);
            if let Some(desk) = &mut self.node {
                desk.exited(worker);
            }
        }
    }

    /// Passes on what has waited too long. Yields the slots that have got something.
    pub fn expire(&mut self, now: Instant) -> Vec<Slot> {
        let mut grown = Vec::new();
        let mut expired = Vec::new();
        for slot in self.table.slots() {
            let hold_timeout = self.hold_timeout;
            let too_long = |held: &Connection| now.saturating_duration_since(held.held_since) >= hold_timeout;
            let queue = &mut self.queues[slot.index()];
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

    /// All links, to be changed.
    pub fn links_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.links.values_mut()
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

    /// All slots.
    pub fn slots(&self) -> impl ExactSizeIterator<Item = Slot> + use<> {
        self.table.slots()
    }
}

#[cfg(test)]
mod tests;
