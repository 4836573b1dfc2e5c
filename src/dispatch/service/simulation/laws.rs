//! What must hold, whatever happens.

use super::*;
use crate::admin::SlotBalance;
use crate::handover::channel::Blocked;
use crate::handover::ledger::RouteReason;
use crate::pool::SlotState;

/// What becomes of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// No worker has acknowledged it yet.
    Open,
    /// This worker has.
    Served(WorkerId),
}

/// How much has happened, by name.
#[derive(Debug, Default)]
pub(super) struct Totals(BTreeMap<&'static str, u64>);

impl Totals {
    pub fn add(&mut self, name: &'static str, count: u64) {
        *self.0.entry(name).or_default() += count;
    }

    /// A simulation in which something never happens proves nothing of it.
    pub fn must_cover_everything(&self) {
        let never: Vec<_> = self.0.iter().filter(|(_, count)| **count == 0).collect();
        assert!(never.is_empty() && self.0.len() == 19, "never: {never:?}, of {self:?}");
    }
}

impl std::iter::Sum for Totals {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, one| {
            one.0.into_iter().for_each(|(name, count)| sum.add(name, count));
            sum
        })
    }
}

/// What has happened, and what may.
pub(super) struct Laws {
    clients: Vec<Fate>,
    max_in_flight: usize,
    start_timeout: Duration,
    /// By slot: the newest generation that has served it.
    newest: BTreeMap<Slot, u32>,
    /// By worker: how many connections had been sent to it.
    sent: BTreeMap<WorkerId, u64>,
    youngest: u64,
    reloads: u32,
    stopping: bool,
    given_up: bool,
    looks: u64,
    pub totals: Totals,
}

impl Laws {
    pub fn new(config: &Config) -> Self {
        Self {
            clients: Vec::new(),
            max_in_flight: config.max_in_flight,
            start_timeout: config.start_timeout,
            newest: BTreeMap::new(),
            sent: BTreeMap::new(),
            youngest: 0,
            reloads: 0,
            stopping: false,
            given_up: false,
            looks: 0,
            totals: Totals::default(),
        }
    }

    /// A client comes: its number.
    pub fn admit(&mut self) -> u16 {
        self.clients.push(Fate::Open);
        u16::try_from(self.clients.len() - 1).expect("fewer clients than ports")
    }

    /// A worker has received a client that no worker serves yet.
    pub fn received(&mut self, client: u16) {
        assert_eq!(self.clients[usize::from(client)], Fate::Open, "client {client} is sent to a second worker");
    }

    /// A worker acknowledges a client.
    pub fn serve(&mut self, client: u16, worker: WorkerId) {
        let fate = &mut self.clients[usize::from(client)];
        assert_eq!(*fate, Fate::Open, "client {client} is served twice, now by {worker:?}");
        *fate = Fate::Served(worker);
    }

    pub fn exited(&mut self, worker: WorkerId) {
        self.sent.remove(&worker);
    }

    pub fn reload(&mut self) {
        self.reloads += 1;
    }

    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// The operator wants something.
    pub fn wanted(&mut self, event: Event) {
        if let Event::Scale(slots) = event {
            // A slot that goes and comes back begins anew, with the generation that holds by then.
            self.newest.retain(|slot, _| slot.index() < slots);
        }
    }

    /// Whether there is a reason for what the pool wants done.
    pub fn act(&mut self, action: Action, puppets: &BTreeMap<WorkerId, FakeWorker>, now: Time) {
        match action {
            Action::Reloaded { .. } => self.totals.add("reloads done", 1),
            Action::ReloadFailed { .. } => self.totals.add("reloads failed", 1),
            Action::RenewalFailed(_) => self.totals.add("renewals failed", 1),
            Action::Start { worker, generation, .. } => {
                assert!(worker.0 > self.youngest, "a number is used twice");
                assert!(!self.stopping && !self.given_up, "no worker is wanted any more");
                assert!(generation <= self.reloads, "a generation that no reload asked for");
                self.youngest = worker.0;
            }
            Action::Kill(worker) => {
                assert!(!puppets[&worker].killed, "killed twice");
                self.totals.add("kills", 1);
            }
            Action::NotReadyInTime(worker) => {
                let puppet = &puppets[&worker];
                assert!(now >= puppet.since + self.start_timeout, "it had time left");
            }
            Action::Terminate(worker) => {
                let puppet = &puppets[&worker];
                assert!(!puppet.terminated && !puppet.killed, "asked to leave twice");
            }
            Action::GiveUp(_) => self.given_up = true,
            _ => {}
        }
    }

    /// What holds after every step.
    pub fn check(&mut self, service: &Service, now: Instant) {
        let dispatch = &service.dispatch;
        let somewhere = (dispatch.held() + dispatch.in_flight()) as u64;
        assert_eq!(dispatch.ledger.outstanding(), somewhere, "the books differ from what is there");
        let balances = dispatch.balances();
        assert!(balances.iter().all(SlotBalance::is_balanced), "the books of a slot: {balances:?}");
        let by_slot: u64 = balances.iter().map(|slot| slot.in_flight + slot.held).sum();
        assert_eq!(by_slot, somewhere, "what is somewhere is in a slot");
        assert_eq!(dispatch.ledger.accepted(), self.clients.len() as u64);
        for link in dispatch.links() {
            self.totals.add("full channels", u64::from(link.obstacle == Blocked::ChannelFull));
            assert!(link.in_flight() <= self.max_in_flight, "{} in flight", link.in_flight());
            let before = self.sent.insert(link.worker, link.sent()).unwrap_or(0);
            let generation = service.pool.generation_of(link.worker);
            // One that tags its sessions gets what is for them as long as it lingers.
            if let Some(generation) = generation.filter(|_| link.sent() > before && !link.reports_sessions()) {
                let newest = self.newest.get(&link.slot).copied().unwrap_or(0);
                assert!(generation >= newest, "{:?} of generation {generation} gets what is {newest}'s", link.worker);
            }
        }
        for slot in dispatch.slots() {
            if let Availability::Serving(worker) = service.pool.standing(slot)
                && let Some(generation) = service.pool.generation_of(worker)
            {
                let newest = self.newest.entry(slot).or_default();
                assert!(generation >= *newest, "slot {slot} goes back from generation {newest} to {generation}");
                *newest = generation;
            }
        }
        // It is a costly question, and an unlikely answer would come again.
        self.looks += 1;
        if self.looks.is_multiple_of(16) && service.pool.is_settled() {
            let (mut pool, mut actions) = (service.pool.clone(), Vec::new());
            pool.step(service.time(now) + LONG_ENOUGH, Event::Tick, &mut actions);
            assert_eq!(actions, [], "settled, and yet time brings something");
        }
    }

    /// What holds when all workers have behaved for long enough.
    pub fn at_rest(&self, service: &Service) {
        for slot in service.dispatch.slots() {
            assert_eq!(service.pool.state(slot), SlotState::Ready, "slot {slot} stays empty");
            assert_eq!(service.pool.leaving(slot), 0, "an old worker of slot {slot} stays");
        }
        assert!(!service.pool.is_reloading() && service.pool.is_settled());
        assert_eq!(service.dispatch.held() + service.dispatch.in_flight(), 0, "a connection still waits");
    }

    /// What holds when all is over: no client was lost.
    pub fn at_end(mut self, service: &Service, under_way: u64) -> Totals {
        let served = self.clients.iter().filter(|fate| **fate != Fate::Open).count() as u64;
        let ledger = &service.dispatch.ledger;
        let delivered: u64 = ledger.delivered().iter().sum();
        let refused: u64 = ledger.refused().map(|(_, count)| count).sum();
        assert_eq!(delivered + refused + under_way, ledger.accepted());
        assert!(self.given_up || under_way == 0, "{under_way} are under way to no worker");
        // An acknowledgement may be under way as well.
        assert!((delivered..=delivered + under_way).contains(&served), "served: {served}, delivered: {delivered}");
        for (name, count) in [
            ("clients", ledger.accepted()),
            ("served", served),
            ("refused", refused),
            ("redelivered unread", ledger.redelivered_unread),
            ("redelivered unacknowledged", ledger.redelivered_unacknowledged),
            ("returned", ledger.returned),
            ("sessions found", ledger.routed[RouteReason::Session as usize]),
            ("sessions lost", ledger.routed[RouteReason::LostSession as usize]),
            ("hung", ledger.hung),
            ("given up", self.given_up.into()),
        ] {
            self.totals.add(name, count);
        }
        self.totals
    }
}
