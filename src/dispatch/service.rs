//! Joins the pool's decisions with the hand-over.
//!
//! Everything that is observed comes in here, with the time; what is to be done to the world comes out as effects. No
//! process is started here and nothing is waited for, so the whole can be simulated: only the channels are real.

mod hanging;
mod lingering;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::link::Link;
use crate::config::{Config, DrainSignal};
use crate::connection::ClientConnection;
use crate::dispatch::Dispatch;
use crate::handover::channel::WorkerEvent;
use crate::handover::error::LinkError;
use crate::ids::WorkerId;
use crate::node::primary::ClusterPrimary;
use crate::pool::{Action, Availability, Event, Policy, Pool, Time};
use crate::route::{Slot, SlotCountError};

/// A master that looks at the time less often than this was kept from it (stopped, or without a CPU): what others did
/// not do meanwhile is not evidence against them.
const ABSENCE: Duration = Duration::from_secs(1);

/// How long a program that is ready may take until it has asked for all its servers.
const MAX_PATIENCE: Duration = Duration::from_secs(5);

/// What is to be done to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The worker has become ready.
    Ready(WorkerId),
    /// The pool's decision; never [`Action::Drain`], which is done here.
    Act(Action),
}

/// The slots, their workers, and the connections that wait for them.
#[derive(Debug)]
pub struct Service {
    /// The workers that fill the slots.
    pub pool: Pool,
    /// What waits for them, and what is under way.
    pub dispatch: Dispatch,
    started: Instant,
    /// When the time was looked at last.
    looked: Instant,
    hang_timeout: Option<Duration>,
    /// For how long a port stays open that no worker asks for.
    patience: Duration,
    /// Whether workers that are replaced go on with their sessions.
    lingers: bool,
    /// How programs learn that they are to finish.
    pub drain_signal: DrainSignal,
    /// Slots whose queue or worker has changed since they were last sent to.
    dirty: Vec<Slot>,
    /// The events of the last read.
    news: Vec<WorkerEvent>,
    actions: Vec<Action>,
    effects: VecDeque<Effect>,
}

impl Service {
    /// Empty slots, as configured; the first [`Event::Tick`] fills them.
    pub fn new(config: &Config, now: Instant) -> Result<Self, SlotCountError> {
        Ok(Self {
            pool: Pool::new(config.workers, policy(config)),
            dispatch: Dispatch::new(config)?,
            started: now,
            looked: now,
            hang_timeout: config.hang_timeout,
            patience: config.hold_timeout.min(MAX_PATIENCE),
            lingers: config.affinity.has_sessions(),
            drain_signal: config.drain_signal,
            dirty: Vec::new(),
            news: Vec::new(),
            actions: Vec::new(),
            effects: VecDeque::new(),
        })
    }

    /// The times and limits of another configuration, from now on.
    pub fn reconfigure(&mut self, config: &Config) {
        self.pool.set_policy(policy(config));
        self.dispatch.reconfigure(config);
        self.hang_timeout = config.hang_timeout;
        self.patience = config.hold_timeout.min(MAX_PATIENCE);
        self.lingers = config.affinity.has_sessions();
        self.drain_signal = config.drain_signal;
    }

    /// Time since the start.
    pub fn time(&self, now: Instant) -> Time {
        now.saturating_duration_since(self.started)
    }

    /// The next thing to be done.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Passes an event to the pool, and the pool's decisions to the hand-over.
    pub fn observe(&mut self, event: Event, now: Instant) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut actions = std::mem::take(&mut self.actions);
            self.pool.step(self.time(now), event, &mut actions);
            // One that was given up meanwhile is ready too late.
            if let Event::Ready(worker) = event
                && self.pool.was_ready(worker)
            {
                self.effects.push_back(Effect::Ready(worker));
            }
            for action in actions.drain(..) {
                let Action::Drain { worker, within } = action else {
                    self.effects.push_back(Effect::Act(action));
                    continue;
                };
                // A worker without a channel message gets a signal.
                if self.dispatch.link(worker).is_some_and(|link| !link.takes_connections()) {
                    self.effects.push_back(Effect::Act(Action::Signal(worker)));
                    continue;
                }
                events.extend(self.retire(worker, within, now));
            }
            self.actions = actions;
            if matches!(event, Event::Stop | Event::Interrupt) {
                events.extend(self.shorten(now));
                // A worker that would go on is reached by no client any more.
                events.extend(self.finish_lingering(true, now));
            }
        }
        self.refresh(now);
        self.send(now);
    }

    /// Updates each slot's availability, and moves clients that wait without need.
    fn refresh(&mut self, now: Instant) {
        // The number of slots was judged before it was wanted.
        if self.pool.wanted() != self.dispatch.slots().len()
            && let Err(error) = self.dispatch.resize(self.pool.wanted())
        {
            tracing::error!("{error}");
        }
        for slot in self.dispatch.all_slots() {
            let standing = self.pool.standing(slot);
            if self.dispatch.stand(slot, standing) && matches!(standing, Availability::Serving(_)) {
                self.mark(slot);
            }
        }
        for slot in self.dispatch.all_slots() {
            self.reassign(slot, now);
        }
        self.rehome(now);
    }

    /// Moves connections where workers have opened or closed servers.
    fn rehome(&mut self, now: Instant) {
        self.dispatch.rehome(now).into_iter().for_each(|slot| self.mark(slot));
    }

    /// The master stops: refuses what waits for a server that no worker has, nor is likely to have in time.
    pub fn refuse_hopeless(&mut self, now: Instant) {
        let workers_come = !self.pool.is_stopping();
        let grown = self.dispatch.refuse_hopeless(workers_come, now);
        grown.into_iter().for_each(|slot| self.mark(slot));
        self.send(now);
    }

    fn reassign(&mut self, slot: Slot, now: Instant) {
        if self.dispatch.held_for(slot) > 0 {
            let grown = self.dispatch.reassign(slot, now);
            grown.into_iter().for_each(|slot| self.mark(slot));
        }
    }

    /// Takes a connection in that was counted when it came.
    pub fn assign(&mut self, connection: ClientConnection, now: Instant) {
        if let Some(slot) = self.dispatch.assign(connection, now) {
            self.mark(slot);
        }
    }

    /// Takes in an accepted connection that belongs to this slot.
    pub fn admit_to(&mut self, connection: ClientConnection, slot: Slot) {
        let grown = self.dispatch.admit_to(connection, slot);
        grown.into_iter().for_each(|slot| self.mark(slot));
    }

    /// Takes in a connection that waited for a slot in vain, for another one.
    pub fn rescue(&mut self, connection: ClientConnection, from: Slot) {
        let grown = self.dispatch.rescue(connection, from);
        grown.into_iter().for_each(|slot| self.mark(slot));
    }

    /// The worker that takes what comes to a slot at this listener, where workers accept by themselves.
    pub fn served_by(&self, listener: u32, slot: Slot) -> Option<WorkerId> {
        self.pool.accepting(slot).filter(|worker| self.dispatch.has_server(*worker, listener))
    }

    /// Whether the connections that wait in the slot's queue at this listener are to be let in by the master: others
    /// can take them, or no worker ever will.
    pub fn can_empty(&self, slot: Slot, listener: u32) -> bool {
        self.dispatch.can_rescue(slot, listener) || self.pool.is_abandoned(slot)
    }

    /// Asks a worker to say something, unless it was asked already.
    pub fn ping(&mut self, worker: WorkerId, now: Instant) {
        if let Some(Err(error)) = self.dispatch.link_mut(worker).map(|link| link.ping(now)) {
            self.mistrust(worker, &error, now);
        }
    }

    /// Reads what a worker sent.
    pub fn read_channel(&mut self, worker: WorkerId, now: Instant) {
        let mut news = std::mem::take(&mut self.news);
        let received = self.dispatch.receive(worker, &mut news, now);
        for news in news.drain(..) {
            match news {
                WorkerEvent::Ready => self.observe(Event::Ready(worker), now),
                WorkerEvent::Leaving => {
                    self.dispatch.link_mut(worker).into_iter().for_each(|link| link.leaves());
                    self.observe(Event::Leaving(worker), now);
                }
                WorkerEvent::Left => self.left(worker, now),
                WorkerEvent::Idle => self.idle(worker, now),
            }
        }
        self.news = news;
        let Some((slot, received)) = received else { return };
        for slot in self.dispatch.take_grown() {
            self.mark(slot);
        }
        self.mark(slot);
        self.reassign(slot, now);
        self.rehome(now);
        match received {
            Ok(_) => self.look_for_recovery(worker, now),
            Err(error) => self.mistrust(worker, &error, now),
        }
    }

    /// Reads the workers that name their sessions: a client can come with an id as soon as it has it, and that is when its
    /// worker names it to us.
    pub fn read_namers(&mut self, now: Instant) {
        if self.dispatch.node.as_ref().is_some_and(ClusterPrimary::names_sessions) {
            let namers = self.dispatch.links().filter(|link| link.names_sessions()).map(|link| link.worker);
            namers.collect::<Vec<_>>().into_iter().for_each(|worker| self.read_channel(worker, now));
        }
    }

    /// The worker's process has ended, or could not be started: what it had not taken goes to others.
    pub fn exited(&mut self, worker: WorkerId, now: Instant) {
        if let Some(slot) = self.dispatch.detach(worker, now) {
            self.mark(slot);
        }
        for slot in self.dispatch.take_grown() {
            self.mark(slot);
        }
        self.observe(Event::Exited(worker), now);
    }

    /// Sends what waits for the slots that have changed, and what waits for the workers' kernels. Lets go of what they
    /// have taken.
    pub fn send(&mut self, now: Instant) {
        while let Some(slot) = self.dirty.pop() {
            if let Some((worker, error)) = self.dispatch.send(slot, now) {
                self.mistrust(worker, &error, now);
            }
        }
        if let Some((worker, error)) = self.dispatch.send_own(now) {
            self.mistrust(worker, &error, now);
        }
        for (worker, error) in self.dispatch.flush() {
            self.mistrust(worker, &error, now);
        }
        self.dispatch.ledger.close_delivered();
    }

    /// Does what is to be done because time has passed.
    pub fn tick(&mut self, now: Instant) {
        let absence = now.saturating_duration_since(self.looked);
        self.looked = now;
        if absence > ABSENCE {
            // What hung before hangs until it acknowledges something.
            let links = self.dispatch.links_mut().filter(|link| !self.pool.is_silent(link.worker));
            links.for_each(|link| link.forgive(now));
        }
        for worker in self.dispatch.ready_by_silence(now) {
            self.observe(Event::Ready(worker), now);
        }
        self.end_those_that_listen_in_vain(now);
        self.look_for_hung(now);
        self.dispatch.links_mut().for_each(|link| link.drain_if_due(now));
        for event in self.finish_lingering(false, now) {
            self.observe(event, now);
        }
        for slot in self.dispatch.expire(now) {
            self.mark(slot);
        }
        if self.dispatch.must_retry() {
            self.dirty = self.dispatch.slots().collect();
        }
        self.dispatch.tick_servers(self.patience, now);
        self.observe(Event::Tick, now);
    }

    /// Whether something happens without an event.
    pub fn depends_on_time(&self) -> bool {
        !self.pool.is_settled()
            || self.dispatch.held() > 0
            || self.dispatch.must_retry()
            || (self.hang_timeout.is_some() && self.dispatch.links().any(Link::is_awaited))
            || self.dispatch.node.as_ref().is_some_and(ClusterPrimary::depends_on_time)
    }

    /// A worker has closed its channel: it can be given nothing any more, and its process will end.
    fn left(&mut self, worker: WorkerId, now: Instant) {
        if let Some(link) = self.dispatch.link_mut(worker) {
            link.end();
        }
        self.observe(Event::Left(worker), now);
    }

    /// A worker broke the rules, or its channel did: it is not read any more and will be ended; no other worker notices.
    fn distrust(&mut self, worker: WorkerId, error: &LinkError) -> Option<Event> {
        let link = self.dispatch.link_mut(worker)?;
        link.end();
        tracing::warn!(slot = %link.slot, worker = worker.0, "the worker {error}; it is ended");
        Some(Event::Misbehaved(worker))
    }

    /// A program that got nothing to listen on will not be ready, though it lives: it has died before it was ready.
    fn end_those_that_listen_in_vain(&mut self, now: Instant) {
        let Some(primary) = self.dispatch.node.as_ref() else { return };
        let in_vain = self.dispatch.links().filter(|link| link.listens_in_vain(primary, now)).map(|link| link.worker);
        for worker in in_vain.collect::<Vec<_>>() {
            if let Some(link) = self.dispatch.link_mut(worker) {
                link.end();
                let (slot, why) = (link.slot, link.why_refused().unwrap_or_default());
                tracing::error!(
                    %slot,
                    worker = worker.0,
                    "the program lives and listens on nothing, since it was refused all that it asked for ({why}); it is \
                     ended"
                );
            }
            self.observe(Event::Misbehaved(worker), now);
        }
    }

    /// The slot has another listener now, which the worker that fills it does not have: it is ended.
    pub fn lost_listener(&mut self, slot: Slot, now: Instant) {
        if let Some(worker) = self.pool.worker(slot, self.time(now)) {
            self.dispatch.link_mut(worker.id).into_iter().for_each(|link| link.end());
            self.observe(Event::Misbehaved(worker.id), now);
        }
    }

    /// As [`Service::distrust`], and notifies the pool. But if it has only closed its end, as programs of Node do while
    /// they finish, and something was sent before we knew, then its last messages are read, and it has left.
    fn mistrust(&mut self, worker: WorkerId, error: &LinkError, now: Instant) {
        if error.is_closed_end() && self.dispatch.link(worker).is_some_and(|link| link.may_leave()) {
            self.read_channel(worker, now);
            if self.dispatch.link(worker).is_some_and(|link| !link.has_ended()) {
                self.left(worker, now);
            }
            return;
        }
        if let Some(event) = self.distrust(worker, error) {
            self.observe(event, now);
        }
    }

    fn mark(&mut self, slot: Slot) {
        if !self.dirty.contains(&slot) {
            self.dirty.push(slot);
        }
    }
}

fn policy(config: &Config) -> Policy {
    Policy {
        start_timeout: config.start_timeout,
        drain_timeout: config.drain_timeout,
        hang_kill: config.hang_kill,
        max_age: config.care.max_age,
        restarts: config.care.restarts,
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
