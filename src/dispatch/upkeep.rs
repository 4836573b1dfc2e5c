//! What is done for the queues and the links as time passes: what waits too long or in the wrong place goes elsewhere,
//! the messages of Node workers to each other are delivered, and the channels to poll are chosen. And the ledger of
//! each slot: `assigned = delivered + refused + moved + in flight + held` holds at every moment.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{ClientConnection, ClusterPrimary, Dispatch, Link, RejectReason, RouteBy};
use crate::admin::SlotBalance;
use crate::ids::WorkerId;
use crate::node::primary::Relayed;
use crate::node::wire::To;
use crate::pool::Availability;
use crate::route::{Slot, Tag};
use crate::sys::poller::Interest;

/// How a worker's channel is listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    /// What it is waited for with.
    pub interest: Interest,
    /// The channel can be polled lazily where there is much else to do: no client waits for its answers.
    pub lazily: bool,
}

impl Dispatch {
    /// Passes on what has waited too long. Yields the slots that have got something.
    pub fn expire(&mut self, now: Instant) -> Vec<Slot> {
        let mut grown = Vec::new();
        let mut expired = Vec::new();
        for (slot, queue) in (0..).map(Slot).zip(&mut self.queues) {
            let hold_timeout = self.hold_timeout;
            let too_long = |held: &ClientConnection| now.saturating_duration_since(held.held_since) >= hold_timeout;
            if queue.iter().any(too_long) {
                for connection in std::mem::take(queue) {
                    if too_long(&connection) { expired.push((slot, connection)) } else { queue.push_back(connection) }
                }
            }
        }
        for (slot, connection) in expired {
            grown.extend(self.pass_on(connection, slot, RejectReason::NoWorker, now));
        }
        grown.extend(self.expire_own(now));
        grown
    }

    /// Refuses what no worker will take before the master has stopped. `workers_come`: slots without a worker get one.
    /// Yields the slots that have got something.
    pub fn refuse_hopeless(&mut self, workers_come: bool, now: Instant) -> Vec<Slot> {
        let mut homeless = Vec::new();
        let node = self.node.as_ref();
        for link in self.links.values_mut().filter(|link| !link.own.is_empty()) {
            let (ended, worker) = (link.has_ended(), link.worker);
            let takes = |it: &ClientConnection| !ended && node.is_none_or(|primary| primary.takes(worker, it.listener));
            for connection in std::mem::take(&mut link.own) {
                if takes(&connection) { link.own.push_back(connection) } else { homeless.push(connection) }
            }
        }
        let mut grown = Vec::new();
        for mut connection in homeless {
            connection.goal = RouteBy::Address;
            grown.extend(self.requeue(connection, now));
        }
        let takes = |it: &Self, listener: u32| {
            let takes = |slot: Slot| match it.standing(slot) {
                Availability::Pending => workers_come && it.may_take(slot, listener),
                Availability::Serving(_) | Availability::OutOfRotation => it.may_take(slot, listener),
            };
            it.slots().any(takes)
        };
        for slot in self.all_slots().filter(|slot| !self.queues[slot.index()].is_empty()).collect::<Vec<_>>() {
            for connection in std::mem::take(&mut self.queues[slot.index()]) {
                match takes(self, connection.listener) {
                    true => self.queues[slot.index()].push_back(connection),
                    false => self.ledger.refuse(connection, RejectReason::Stopping),
                }
            }
        }
        grown
    }

    /// Takes connections from workers that do not fill their slots and have not taken them in time: another worker does
    /// not know their sessions, but can say so.
    fn expire_own(&mut self, now: Instant) -> Vec<Slot> {
        let hold_timeout = self.hold_timeout;
        let too_long = |held: &mut ClientConnection| now.saturating_duration_since(held.held_since) >= hold_timeout;
        let mut expired = Vec::new();
        for link in self.links.values_mut() {
            while let Some(mut connection) = link.own.pop_front_if(too_long) {
                connection.goal = RouteBy::Address;
                expired.push(connection);
            }
        }
        expired.into_iter().filter_map(|connection| self.requeue(connection, now)).collect()
    }

    /// Moves connections to slots that take them, where workers have opened or closed servers since the last call.
    /// Yields the slots to be sent to.
    pub fn rehome(&mut self, now: Instant) -> Vec<Slot> {
        if !self.node.as_mut().is_some_and(ClusterPrimary::take_changed) {
            return Vec::new();
        }
        self.steers_anew = true;
        let serving: Vec<_> = self.slots().filter_map(|slot| self.serving(slot)).collect();
        if let Some(primary) = &mut self.node {
            primary.compare(&serving, now);
        }
        for slot in self.all_slots() {
            let misplaced = |held: &ClientConnection| {
                let may_take = |slot: Slot| self.may_take(slot, held.listener);
                !may_take(slot) && self.table.slots().any(may_take)
            };
            if self.queues[slot.index()].iter().any(misplaced) {
                let waiting = std::mem::take(&mut self.queues[slot.index()]);
                for connection in waiting {
                    self.requeue(connection, now);
                }
            }
        }
        self.all_slots().filter(|slot| self.held_for(*slot) > 0).collect()
    }

    /// Does what time changes of the servers of Node programs. `patience`: for how long a port stays open that no
    /// worker asks for.
    pub fn tick_servers(&mut self, patience: Duration, now: Instant) {
        let expected: Vec<Slot> =
            self.slots().filter(|it| self.standings[it.index()] == Availability::Pending).collect();
        if let Some(primary) = &mut self.node {
            primary.tick(now, patience, |primary, listener| {
                expected.iter().any(|slot| primary.is_expected(*slot, listener))
            });
        }
    }

    /// Gives each message to the workers that it is for. What no worker gets is counted.
    pub(super) fn deliver_mail(&mut self) {
        for mail in self.node.as_mut().map(ClusterPrimary::take_mail).unwrap_or_default() {
            let named = if let Relayed::Pass(tag, _) = &mail { self.named_by(*tag) } else { None };
            let is_lost = matches!(mail, Relayed::Pass(..)) && named.is_none();
            self.node.iter_mut().for_each(|primary| primary.dropped += u64::from(is_lost));
            for link in self.links.values_mut() {
                let is_for = match &mail {
                    Relayed::Message(To::One(worker), _) => link.worker == *worker,
                    Relayed::Message(To::AllBut(worker), _) => link.worker != *worker,
                    Relayed::Message(To::Nowhere, _) => false,
                    Relayed::Pass(..) => named == Some(link.worker),
                    Relayed::WorkerDied(_) => true,
                };
                if is_for && !link.mail(&mail) {
                    self.node.iter_mut().for_each(|primary| primary.dropped += 1);
                }
            }
        }
    }

    /// The worker of a tag, or else the one that fills its slot.
    fn named_by(&self, tag: Tag) -> Option<WorkerId> {
        let of_tag = |link: &&Link| link.slot == tag.slot && link.generation == tag.generation && !link.has_ended();
        let own = self.links.values().rfind(of_tag).map(|link| link.worker);
        own.or_else(|| match self.standings.get(tag.slot.index())? {
            Availability::Serving(worker) => Some(*worker),
            Availability::Pending | Availability::OutOfRotation => None,
        })
    }

    /// All links, each with how its channel is to be listened to, if at all.
    pub fn listenings(&mut self) -> impl Iterator<Item = (&mut Link, Option<Listening>)> {
        let (queues, most) = (&self.queues, self.max_in_flight);
        self.links.values_mut().map(move |link| {
            let wanted = link.wanted_interest().map(|interest| {
                let ample = link.has_ample_room(most) && queues[link.slot.index()].is_empty();
                Listening { interest, lazily: ample && interest == Interest::Readable }
            });
            (link, wanted)
        })
    }

    /// Whether a worker that is listened to lazily has something to acknowledge.
    pub fn is_owed_words(&self) -> bool {
        self.links.values().any(|link| link.in_flight() > 0 && link.listening.is_some_and(|it| it.lazily))
    }

    /// For how long, at least, every slot's worker is busy with connections sent to it before: new ones would wait
    /// behind them.
    pub fn busy_for(&self) -> Duration {
        let links = self.slots().map(|slot| self.links.get(&self.serving(slot)?));
        links.map(|link| link.map_or(Duration::ZERO, Link::busy_for)).min().unwrap_or_default()
    }

    /// The books of all slots there ever were. What is on its way or waits is counted where it is, over all workers of
    /// the slot, those that only finish what they have too.
    pub fn balances(&self) -> Vec<SlotBalance> {
        let books = self.ledger.by_slot().zip(&self.queues).enumerate();
        let mut balances: Vec<SlotBalance> = books
            .map(|(slot, (book, queue))| SlotBalance {
                slot,
                assigned: book.assigned,
                delivered: book.delivered,
                refused: book.refused,
                moved: book.moved,
                in_flight: 0,
                held: VecDeque::len(queue) as u64,
            })
            .collect();
        for link in self.links.values() {
            let balance = &mut balances[link.slot.index()];
            balance.in_flight += link.in_flight() as u64;
            balance.held += link.own.len() as u64;
        }
        balances
    }
}
