//! Assigns each accepted connection to a slot, and each slot's waiting connections to its worker.
//!
//! Nothing here waits. What cannot be sent now is held in the queue of its slot, bounded in number and time; after that
//! it goes to the next ready slot in its order, and when there is none it is refused.

mod choose;
pub mod link;
mod queue;
pub mod service;
mod upkeep;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use self::choose::Destination;
pub use self::upkeep::Listening;
use super::connection::{ClientConnection, RejectReason, RouteBy};
use crate::config::{Config, Rest};
use crate::dispatch::link::Link;
use crate::dispatch::queue::give_back_room;
use crate::handover::channel::WorkerEvent;
use crate::handover::error::LinkError;
use crate::handover::ledger::Ledger;
use crate::ids::WorkerId;
use crate::node::primary::ClusterPrimary;
use crate::pool::Availability;
use crate::route::Prefix;
use crate::route::{Key, RoundRobin, Slot, SlotCountError, Table};

/// Most connections that wait for one slot.
const MAX_HELD: usize = 1024;

/// The queues of the slots, and the links to the workers.
#[derive(Debug)]
pub struct Dispatch {
    table: Table,
    /// What decides where nothing that sticks does.
    rest: Rest,
    prefix: Prefix,
    round_robin: RoundRobin,
    max_in_flight: usize,
    hold_timeout: Duration,
    /// What waits for each slot, and for those there were: workers that leave may still give connections back.
    queues: Vec<VecDeque<ClientConnection>>,
    /// What each of them is to its clients.
    standings: Vec<Availability>,
    links: BTreeMap<WorkerId, Link>,
    /// Slots for which more waits, since what waited elsewhere belongs there now.
    grown: Vec<Slot>,
    /// Which slots take what has changed.
    steers_anew: bool,
    /// The books.
    pub ledger: Ledger,
    /// What Node workers have in common, if the workers are such.
    pub node: Option<ClusterPrimary>,
}

impl Dispatch {
    /// Empty queues for the configured slots.
    pub fn new(config: &Config) -> Result<Self, SlotCountError> {
        let table = Table::new(config.workers)?;
        Ok(Self {
            table,
            rest: config.affinity.rest(),
            prefix: config.prefix,
            round_robin: RoundRobin::default(),
            max_in_flight: config.max_in_flight,
            hold_timeout: config.hold_timeout,
            queues: (0..config.workers).map(|_| VecDeque::new()).collect(),
            standings: vec![Availability::Pending; config.workers],
            links: BTreeMap::new(),
            grown: Vec::new(),
            steers_anew: true,
            ledger: Ledger::new(config.workers),
            node: None,
        })
    }

    /// The times and limits of another configuration, from now on.
    pub fn reconfigure(&mut self, config: &Config) {
        self.rest = config.affinity.rest();
        self.prefix = config.prefix;
        self.steers_anew = true;
        self.max_in_flight = config.max_in_flight;
        self.hold_timeout = config.hold_timeout;
        if let Some(primary) = &mut self.node {
            primary.reconfigure(config.start_timeout);
        }
    }

    /// What must stick of a client.
    pub fn key(&self, client: &crate::addr::EndAddr) -> Key {
        Key::of_client(client, self.prefix)
    }

    /// Takes a connection in that was counted when it came, and yields the slot for which more waits now, unless it was refused.
    pub fn assign(&mut self, mut connection: ClientConnection, now: Instant) -> Option<Slot> {
        if connection.goal == RouteBy::Address && self.rest == Rest::None {
            connection.goal = RouteBy::Load;
        }
        let chosen = self.choose(&connection, now);
        if let Some((_, way)) = chosen {
            self.ledger.routed[way as usize] += 1;
        }
        self.queue(connection, chosen.map(|(place, _)| place), now)
    }

    /// The slots whose queue grew, because of a worker's answer or its end.
    pub fn take_grown(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.grown)
    }

    /// Puts a connection where it belongs, and yields the slot for which more waits, unless it was refused.
    fn queue(&mut self, mut connection: ClientConnection, place: Option<Destination>, now: Instant) -> Option<Slot> {
        let Some(place) = place else {
            self.ledger.refuse(connection, RejectReason::QueueFull);
            return None;
        };
        let (slot, queue) = match place {
            Destination::Slot(slot) => (slot, &mut self.queues[slot.index()]),
            Destination::Worker(slot, worker) => match self.links.get_mut(&worker) {
                Some(link) => (slot, &mut link.own),
                None => (slot, &mut self.queues[slot.index()]),
            },
        };
        self.ledger.assign(&mut connection, slot);
        if queue.len() < MAX_HELD {
            queue.push_back(connection);
            return Some(slot);
        }
        self.pass_on(connection, slot, RejectReason::QueueFull, now)
    }

    /// Puts a connection that waited elsewhere where it belongs now.
    fn requeue(&mut self, mut connection: ClientConnection, now: Instant) -> Option<Slot> {
        connection.held_since = now;
        let place = self.choose(&connection, now).map(|(place, _)| place);
        self.queue(connection, place, now)
    }

    /// The worker that takes the slot's connections now.
    fn serving(&self, slot: Slot) -> Option<WorkerId> {
        match self.standings[slot.index()] {
            Availability::Serving(worker) => Some(worker),
            Availability::Pending | Availability::OutOfRotation => None,
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

    /// Sends what waits for workers that do not fill their slots. Yields a worker that cannot be sent to; the others'
    /// turn comes with the next call.
    pub fn send_own(&mut self, now: Instant) -> Option<(WorkerId, LinkError)> {
        let (node, most) = (self.node.as_ref(), self.max_in_flight);
        self.links.values_mut().filter(|link| !link.own.is_empty()).find_map(|link| {
            let mut own = std::mem::take(&mut link.own);
            let sent = link.send(&mut own, node, most, now);
            give_back_room(&mut own);
            link.own = own;
            Some((link.worker, sent.err()?))
        })
    }

    /// Delivers the messages of Node workers to each other, and sends what waits for workers' kernels.
    pub fn flush(&mut self) -> Vec<(WorkerId, LinkError)> {
        self.deliver_mail();
        let primary = self.node.as_ref();
        let failed = self.links.values_mut().filter_map(|link| {
            let error = link.flush(primary).err()?;
            Some((link.worker, error))
        });
        failed.collect()
    }

    /// The workers that have become ready because they have been silent for long enough.
    pub fn ready_by_silence(&mut self, now: Instant) -> Vec<WorkerId> {
        let primary = self.node.as_ref();
        let ready =
            self.links.values_mut().filter_map(|link| link.ready_by_silence(primary, now).then_some(link.worker));
        ready.collect()
    }

    /// Reads what a worker has sent. Yields its slot; what others must know is added to `news`.
    pub fn receive(
        &mut self,
        worker: WorkerId,
        news: &mut Vec<WorkerEvent>,
        now: Instant,
    ) -> Option<(Slot, Result<bool, LinkError>)> {
        let fills = self.links.get(&worker).is_some_and(|link| self.serving(link.slot) == Some(worker));
        let link = self.links.get_mut(&worker)?;
        let slot = link.slot;
        let returned = self.ledger.returned;
        if fills {
            let held = &mut self.queues[slot.index()];
            let received = link.receive(held, &mut self.ledger, self.node.as_mut(), news, now);
            // It may have closed its server before it gave back what was on its way.
            if self.ledger.returned != returned {
                self.node.as_mut().into_iter().for_each(ClusterPrimary::note_change);
            }
            return Some((slot, received));
        }
        // What it gives back is the slot's, but for sessions of its own.
        let mut back = VecDeque::new();
        let received = link.receive(&mut back, &mut self.ledger, self.node.as_mut(), news, now);
        for connection in back.into_iter().rev() {
            match connection.goal {
                RouteBy::Session(_) => {
                    let slot = self.requeue(connection, now);
                    self.grown.extend(slot);
                }
                _ => self.queues[slot.index()].push_front(connection),
            }
        }
        Some((slot, received))
    }

    /// A worker was started.
    pub fn attach(&mut self, link: Link) {
        if let Some(primary) = &mut self.node {
            primary.started(link.worker, link.slot);
        }
        self.links.insert(link.worker, link);
    }

    /// From now on there are so many slots. Those that are no more are bypassed.
    pub fn resize(&mut self, slots: usize) -> Result<(), SlotCountError> {
        self.table = Table::new(slots)?;
        self.steers_anew = true;
        let ever = slots.max(self.queues.len());
        self.queues.resize_with(ever, VecDeque::new);
        self.standings.resize(ever, Availability::OutOfRotation);
        self.standings[slots..].fill(Availability::OutOfRotation);
        self.ledger.resize(ever);
        Ok(())
    }

    /// Sets the slot's availability. Returns whether it changed.
    pub fn stand(&mut self, slot: Slot, standing: Availability) -> bool {
        let is_news = std::mem::replace(&mut self.standings[slot.index()], standing) != standing;
        self.steers_anew |= is_news;
        if is_news && let Some(primary) = &mut self.node {
            // Which servers the workers that serve have in common may be another matter now.
            primary.note_change();
        }
        is_news
    }

    /// Sends what waits for a slot that is bypassed to those that take its place, if there are any. Yields them.
    pub fn reassign(&mut self, slot: Slot, now: Instant) -> Vec<Slot> {
        let elsewhere =
            |(at, standing): (usize, &Availability)| at != slot.index() && *standing != Availability::OutOfRotation;
        if self.standings[slot.index()] != Availability::OutOfRotation
            || !self.standings.iter().enumerate().any(elsewhere)
        {
            return Vec::new();
        }
        let waiting = std::mem::take(&mut self.queues[slot.index()]);
        waiting.into_iter().filter_map(|connection| self.requeue(connection, now)).collect()
    }

    /// Sends LINGER: the worker was replaced and gets no new sessions, but goes on with those that it has until `until`;
    /// then it is to finish within `within`.
    pub fn linger(
        &mut self,
        worker: WorkerId,
        until: Instant,
        within: Duration,
        now: Instant,
    ) -> Result<(), LinkError> {
        self.links.get_mut(&worker).map_or(Ok(()), |link| link.linger(until, within, now))
    }

    /// The lingering workers whose time has come to finish (all of them: `always`), each with the time it has for it.
    pub fn lingered(&mut self, always: bool, now: Instant) -> Vec<(WorkerId, Duration)> {
        let over = self.links.values_mut().filter_map(|link| Some((link.worker, link.lingered(always, now)?)));
        over.collect()
    }

    /// A worker is dead: what it had not taken goes back to the front of its slot's queue. Yields the slot.
    pub fn detach(&mut self, worker: WorkerId, now: Instant) -> Option<Slot> {
        let mut link = self.links.remove(&worker)?;
        let slot = link.slot;
        if self.serving(slot) == Some(worker) {
            self.standings[slot.index()] = Availability::Pending;
            self.steers_anew = true;
        }
        for connection in std::mem::take(&mut link.own) {
            let slot = self.requeue(connection, now);
            self.grown.extend(slot);
        }
        link.reclaim(&mut self.queues[slot.index()], &mut self.ledger, self.node.as_mut(), now);
        if let Some(primary) = &mut self.node {
            primary.exited(worker);
        }
        Some(slot)
    }

    /// The master ends: refuses what waits, since no worker will take it any more. What was sent to a worker that lives
    /// is
    /// that worker's, which finishes without a master.
    pub fn close(&mut self, refusal: RejectReason) {
        for mut link in std::mem::take(&mut self.links).into_values() {
            link.own.drain(..).for_each(|connection| self.ledger.refuse(connection, refusal));
            link.abandon();
        }
        for queue in &mut self.queues {
            queue.drain(..).for_each(|connection| self.ledger.refuse(connection, refusal));
        }
    }

    /// The link to a worker.
    pub fn link(&self, worker: WorkerId) -> Option<&Link> {
        self.links.get(&worker)
    }

    /// The same, to change it.
    pub fn link_mut(&mut self, worker: WorkerId) -> Option<&mut Link> {
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

    /// All links.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// Connections that wait for a slot.
    pub fn held_for(&self, slot: Slot) -> usize {
        self.queues[slot.index()].len()
    }

    /// So many may wait for all slots together before no more should be accepted: less than their queues hold, so that
    /// a
    /// worker that takes nothing delays no other worker's clients, and a rush of clients fills no queue.
    pub fn most_held(&self) -> usize {
        MAX_HELD / 2 * self.table.count()
    }

    /// Connections that wait for any slot.
    pub fn held(&self) -> usize {
        let own = self.links.values().map(|link| link.own.len());
        self.queues.iter().map(VecDeque::len).chain(own).sum()
    }

    /// Whether there is room for connections that need not come now, and for others beside them.
    pub fn has_room(&self) -> bool {
        self.queues.iter().all(|queue| queue.len() < MAX_HELD / 2)
    }

    /// Connections sent and not yet acknowledged, as counted one by one.
    pub fn in_flight(&self) -> usize {
        self.links.values().map(Link::in_flight).sum()
    }

    /// Whether sending must be retried without an event that triggers it.
    pub fn must_retry(&self) -> bool {
        self.links.values().any(Link::must_retry)
    }

    /// All slots there are now.
    pub fn slots(&self) -> impl ExactSizeIterator<Item = Slot> + use<> {
        self.table.slots()
    }
}

#[cfg(test)]
mod tests;
