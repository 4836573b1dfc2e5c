//! Which slot a connection belongs to now, and which one it goes to when it cannot wait there any longer.

use std::time::{Duration, Instant};

use super::{Dispatch, MAX_HELD};
use crate::connection::{ClientConnection, RejectReason, RouteBy};
use crate::dispatch::link::{Link, ReportedLoad};
use crate::handover::ledger::RouteReason;
use crate::ids::WorkerId;
use crate::node::named::{OwnerLookup, SessionKey};
use crate::node::paths::Learnt;
use crate::node::primary::ClusterPrimary;
use crate::peek::Request;
use crate::pool::Availability;
use crate::route::{Slot, Steering, Tag, least_loaded, weight};

/// Where a connection waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    /// For the worker that fills the slot.
    Slot(Slot),
    /// For this worker of the slot alone, which does not fill it (any more).
    Worker(Slot, WorkerId),
}

impl Dispatch {
    /// The owner of a session without a tag, if a worker has named it.
    pub fn owner_of(&self, sid: &str) -> OwnerLookup {
        let Some(named) = self.node.as_ref().map(ClusterPrimary::named) else { return OwnerLookup::Unknown };
        let key = named.key(sid);
        match self.named(key) {
            Some(tag) => OwnerLookup::Known(tag),
            None if !named.is_full() && self.links.values().any(Link::names_sessions) => OwnerLookup::Awaited(key),
            None => OwnerLookup::Unknown,
        }
    }

    /// What the preload of Node workers has reported about a request's path.
    pub fn learnt(&self, request: &Request<'_>) -> Learnt {
        let workers = self.slots().filter_map(|slot| self.serving(slot));
        let tagging = workers.filter(|worker| self.links.get(worker).is_some_and(Link::reports_sessions));
        self.node.as_ref().map_or(Learnt::Nothing, |primary| primary.paths.look(request, tagging))
    }

    /// The worker that has named this session as its own.
    pub fn named(&self, key: SessionKey) -> Option<Tag> {
        let link = self.links.get(&self.node.as_ref()?.named().worker_of(key)?)?;
        Some(Tag { slot: link.slot, generation: link.generation })
    }

    /// The slot of a connection, and the reason; `None` if no slot has room for it.
    pub(super) fn choose(&mut self, connection: &ClientConnection, now: Instant) -> Option<(Destination, RouteReason)> {
        let by_key = |it: &Self, way| (Destination::Slot(it.by_key(connection)), way);
        Some(match connection.goal {
            RouteBy::Session(tag) => match self.of_session(tag, connection.listener) {
                Some((place, true)) => (place, RouteReason::Session),
                Some((place, false)) => (place, RouteReason::LostSession),
                None => by_key(self, RouteReason::LostSession),
            },
            RouteBy::RecentSessions => match self.fewest_sessions(None, connection.listener, now) {
                Some(slot) => (Destination::Slot(slot), RouteReason::RecentSessions),
                None => by_key(self, RouteReason::Address),
            },
            RouteBy::Load => (Destination::Slot(self.least_loaded(None, connection.listener)?), RouteReason::Load),
            RouteBy::Address => by_key(self, RouteReason::Address),
            RouteBy::Value(kind) => by_key(self, RouteReason::by_value(kind)),
        })
    }

    /// The first slot in the connection's order that takes it, or is expected to. If none does, it waits for the first
    /// one that is not bypassed.
    fn by_key(&self, connection: &ClientConnection) -> Slot {
        let own = self.table.choose(connection.key);
        if self.may_take(own, connection.listener) {
            return own;
        }
        let mut order = self.table.order(connection.key);
        if let Some(slot) = order.find(|slot| self.may_take(*slot, connection.listener)) {
            return slot;
        }
        let mut order = self.table.order(connection.key);
        order.find(|slot| self.standings[slot.index()] != Availability::OutOfRotation).unwrap_or(own)
    }

    /// Whether the slot's worker takes what comes to this listener: it has the server, or is to come and is expected to
    /// have it.
    pub(super) fn may_take(&self, slot: Slot, listener: u32) -> bool {
        match self.standings[slot.index()] {
            Availability::Serving(worker) => self.has_server(worker, listener),
            Availability::Pending => self.node.as_ref().is_none_or(|primary| primary.is_expected(slot, listener)),
            Availability::OutOfRotation => false,
        }
    }

    /// Whether the slot has a worker that takes what comes to this listener now.
    fn takes_now(&self, slot: Slot, listener: u32) -> bool {
        self.serving(slot).is_some_and(|worker| self.has_server(worker, listener))
    }

    /// Where a session is, and whether the very worker that it began with is there to take it. Another one in that slot
    /// does not know it, but is as good as any to say so.
    fn of_session(&self, tag: Tag, listener: u32) -> Option<(Destination, bool)> {
        let slot = tag.slot;
        let standing = self.standings.get(slot.index())?;
        let of_generation = |link: &&Link| link.slot == slot && link.generation == tag.generation;
        let own = match standing {
            Availability::Serving(worker) => self.links.get(worker).filter(of_generation),
            Availability::Pending | Availability::OutOfRotation => None,
        };
        if own.is_some() && self.may_take(slot, listener) {
            return Some((Destination::Slot(slot), true));
        }
        match self.links.values().filter(of_generation).rfind(|link| link.takes_sessions()) {
            Some(link) => Some((Destination::Worker(slot, link.worker), true)),
            None => self.may_take(slot, listener).then_some((Destination::Slot(slot), false)),
        }
    }

    /// Takes in how late the event loops of workers are, and how many connections they have, by their own words. One
    /// that reports nothing counts as the best.
    pub fn note_loads(&mut self, loads: &[(WorkerId, Duration, u64)]) {
        let least = loads.iter().map(|(_, delay, _)| *delay).min().unwrap_or_default();
        for link in self.links.values_mut() {
            let own = loads.iter().find(|(worker, ..)| *worker == link.worker);
            link.reported_load = own.map_or_else(ReportedLoad::default, |(_, delay, connections)| ReportedLoad {
                weight: weight(*delay, least),
                connections: *connections,
            });
        }
    }

    /// The ready slot whose worker has the fewest sessions, among workers that tag them (a session without a tag is
    /// found again by the address alone). A late worker's sessions weigh more.
    fn fewest_sessions(&mut self, except: Option<Slot>, listener: u32, now: Instant) -> Option<Slot> {
        let (queues, standings, links, node) = (&self.queues, &self.standings, &self.links, &self.node);
        let loads = self.table.slots().filter(|slot| Some(*slot) != except).filter_map(|slot| {
            let Availability::Serving(worker) = standings[slot.index()] else { return None };
            let link = links.get(&worker).filter(|link| link.reports_sessions())?;
            node.as_ref().is_none_or(|primary| primary.takes(worker, listener)).then_some(())?;
            (queues[slot.index()].len() < MAX_HELD).then(|| (slot, link.burden(now)))
        });
        let slot = least_loaded(loads, &mut self.round_robin)?;
        if let Some(link) = self.serving(slot).and_then(|worker| self.links.get_mut(&worker)) {
            link.opening(now);
        }
        Some(slot)
    }

    /// Gives a connection that cannot wait for `from` any longer to the first other slot in its order that is ready, or
    /// refuses it. Its own slot comes first, which may be ready by now; what is passed on as often as there are slots
    /// has had its chance of each.
    pub(super) fn pass_on(
        &mut self,
        mut connection: ClientConnection,
        from: Slot,
        refusal: RejectReason,
        now: Instant,
    ) -> Option<Slot> {
        let next = match connection.goal {
            _ if connection.moves >= self.table.count() => None,
            RouteBy::Load => self.least_loaded(Some(from), connection.listener),
            RouteBy::RecentSessions if let Some(slot) = self.fewest_sessions(Some(from), connection.listener, now) => {
                Some(slot)
            }
            RouteBy::Address | RouteBy::Value(_) | RouteBy::Session(_) | RouteBy::RecentSessions => {
                let queues = &self.queues;
                let mut order = self.table.order(connection.key).filter(|slot| *slot != from);
                let takes = |slot: &Slot| self.takes_now(*slot, connection.listener);
                order.find(|slot| takes(slot) && queues[slot.index()].len() < MAX_HELD)
            }
        };
        match next {
            Some(slot) => {
                connection.moves += 1;
                connection.held_since = now;
                self.ledger.assign(&mut connection, slot);
                self.queues[slot.index()].push_back(connection);
            }
            None => self.ledger.refuse(connection, refusal),
        }
        next
    }

    /// The slot with the least in flight, of the ready ones that are not full. If none is ready, a new connection may
    /// wait for a slot whose worker is expected, and only if there is none, for any slot; a connection passed on from
    /// the slot `except` would only wait again.
    fn least_loaded(&mut self, except: Option<Slot>, listener: u32) -> Option<Slot> {
        let rank = |slot: Slot| match self.standings[slot.index()] {
            Availability::Serving(worker) if self.has_server(worker, listener) => 3,
            Availability::Pending if self.may_take(slot, listener) => 2,
            Availability::Serving(_) | Availability::Pending => 1,
            Availability::OutOfRotation => 0,
        };
        let best = if except.is_some() { 3 } else { self.table.slots().map(rank).max().unwrap_or(0) };
        let loads = self.table.slots().filter_map(|slot| {
            let held = self.queues[slot.index()].len();
            let eligible = Some(slot) != except && held < MAX_HELD && rank(slot) == best;
            let worker = self.serving(slot).and_then(|worker| self.links.get(&worker));
            eligible.then(|| (slot, (held + worker.map_or(0, Link::in_flight)) as u64))
        });
        let mut round_robin = self.round_robin;
        let slot = least_loaded(loads, &mut round_robin);
        self.round_robin = round_robin;
        slot
    }

    /// Admits a connection that belongs to this slot, and returns the slot whose queue grew, unless it was refused.
    pub fn admit_to(&mut self, connection: ClientConnection, slot: Slot) -> Option<Slot> {
        self.ledger.accept();
        self.ledger.routed[RouteReason::Address as usize] += 1;
        let now = connection.accepted;
        self.queue(connection, Some(Destination::Slot(slot)), now)
    }

    /// Takes in a connection that waited for a slot in vain, for another one: see [`Dispatch::can_rescue`].
    pub fn rescue(&mut self, mut connection: ClientConnection, from: Slot) -> Option<Slot> {
        self.ledger.accept();
        self.ledger.assign(&mut connection, from);
        if !self.can_rescue(from, connection.listener) {
            self.ledger.refuse(connection, RejectReason::NoWorker);
            return None;
        }
        self.ledger.rescued += 1;
        self.ledger.routed[RouteReason::Address as usize] += 1;
        let now = connection.accepted;
        self.pass_on(connection, from, RejectReason::NoWorker, now)
    }

    /// Takes in a connection of our own, for this very worker. `false`: it is no more.
    pub fn admit_check(&mut self, worker: WorkerId, make: impl FnOnce(&Self) -> ClientConnection) -> bool {
        if !self.links.contains_key(&worker) {
            return false;
        }
        let mut connection = make(self);
        self.ledger.accept();
        self.ledger.routed[RouteReason::HealthCheck as usize] += 1;
        if let Some(link) = self.links.get_mut(&worker) {
            self.ledger.assign(&mut connection, link.slot);
            link.own.push_back(connection);
        }
        true
    }

    /// Whether another slot's worker would take the connections that come to this one at this listener.
    pub fn can_rescue(&self, from: Slot, listener: u32) -> bool {
        let takes =
            |worker| self.links.get(&worker).is_some_and(Link::takes_connections) && self.has_server(worker, listener);
        self.table.slots().any(|slot| slot != from && self.serving(slot).is_some_and(takes))
    }

    /// Whether the worker takes what comes to its slot at this listener.
    pub fn has_server(&self, worker: WorkerId, listener: u32) -> bool {
        self.node.as_ref().is_none_or(|primary| primary.takes(worker, listener))
    }

    /// What a slot is to its clients.
    pub fn standing(&self, slot: Slot) -> Availability {
        self.standings[slot.index()]
    }

    /// The steering where all slots serve the same servers: as we would choose.
    pub fn steering(&self) -> Steering {
        Steering::among(self.table.clone(), self.prefix, |slot| self.standing(slot) == Availability::OutOfRotation)
    }

    /// The steering among the listeners of this number: past the slots whose worker does not have their
    /// server. While none has it, clients wait at their own slots.
    pub fn steering_at(&self, listener: u32) -> Steering {
        let takes = |slot| self.may_take(slot, listener);
        if self.node.is_none() || !self.table.slots().any(takes) {
            return self.steering();
        }
        Steering::among(self.table.clone(), self.prefix, |slot| !takes(slot))
    }

    /// The kernel needs a new steering.
    pub fn steer_anew(&mut self) {
        self.steers_anew = true;
    }

    /// Whether the steering may have changed since the last call.
    pub fn take_steers_anew(&mut self) -> bool {
        std::mem::take(&mut self.steers_anew)
    }
}
