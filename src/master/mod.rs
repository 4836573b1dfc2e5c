//! The master: the only loop that waits. It accepts, assigns, hands over and supervises, and keeps nothing of a
//! connection once its worker has taken it.
//!
//! Everything runs in one thread, so that each decision is taken on one consistent state. Nothing here reads a byte of
//! a client's.
//!
//! `doors` accept, `dispatch` assigns over the `link`s to the workers, `service` joins that with the pool of slots and
//! is free of processes; `supervise` and `reload` carry out its decisions, `batching` decides when to poll. Where the
//! kernel assigns (`kernel`), the master does not accept, and takes only from queues that no worker serves (`rescue`).

mod admin_pages;
mod alarms;
mod arrivals;
mod batching;
mod boot;
mod budget;
mod care;
mod error;
mod farewell;
mod finished;
mod health;
mod history;
mod loads;
mod manager;
mod not_ready;
mod opened;
mod orphans;
mod plan;
mod preload;
mod reload;
mod report;
mod rereading;
mod rescue;
mod setup;
mod signals;
mod stopping;
mod supervise;
mod ticking;

pub use self::boot::{cannot_start, check, main};
pub use self::error::MasterError;
pub use self::rereading::Reread;

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use self::batching::Batching;
use self::budget::Budget;
use self::care::Care;
use self::error::Context;
use self::finished::Finished;
use self::manager::ServiceManager;
use self::plan::Plan;
use self::reload::Changes;
use self::setup::{announce, cluster_primary, listen, tag_key};
use self::signals::{Signals, received};
use self::stopping::{Haste, Stop};
use self::supervise::Supervisor;
use crate::addr::PassedAddr;
use crate::admin::socket::Called;
use crate::admin::{self, ControlRequest};
use crate::alarms::Alarms;
use crate::config::Config;
use crate::connection::RejectReason;
use crate::dispatch::service::Service;
use crate::listen::gate::Gate;
use crate::listen::kernel::{FIRST_GROUP_TOKEN, Kernel};
use crate::listen::listeners::Listeners;
use crate::pending::hints::ProxyWatch;
use crate::pending::{Peeking, Rules};
use crate::pool::Event;
use crate::process::crew::Exit;
use crate::process::guardian::Guardian;
use crate::route::TagKey;
use crate::sys::account::Account;
use crate::sys::closing;
use crate::sys::listen::Listener;
use crate::sys::poller::Poller;
use crate::sys::signals::is_in_foreground;

/// How often time is looked at while something depends on it.
const TICK: Duration = Duration::from_millis(50);
/// Descriptors that the master needs for itself and for starting workers.
const DESCRIPTOR_RESERVE: u64 = 64;
/// Tokens from here on are workers, up to [`FIRST_GROUP_TOKEN`]; below are [`batching::channels::TOKEN`] and listeners.
const FIRST_WORKER_TOKEN: u64 = (1 << 32) + 1;

/// How far the master's life has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No worker has been ready yet: clients wait in the kernel's queue.
    Starting,
    /// Connections are accepted.
    Serving,
    /// The listeners are closed; what was accepted before is still handed over, until the instant.
    Flushing(Instant),
    /// The workers finish.
    Stopping,
}

/// The master's state.
struct Master {
    poller: Poller,
    batching: Batching,
    doors: Listeners,
    /// With `--dispatch kernel`, until the master stops.
    kernel: Option<Kernel>,
    /// From then on, what keeps its port shut until all have left.
    keepers: Vec<Rc<Listener>>,
    service: Service,
    supervisor: Supervisor,
    phase: Phase,
    /// Since the stop began.
    stop: Option<Stop>,
    changes: Changes,
    manager: ServiceManager,
    finished: Finished,
    care: Care,
    budget: Budget,
    over_budget: bool,
    /// As many have come as `--max-rate` allows: the next ones wait in the kernel's queue.
    over_rate: bool,
    /// Accepting may go on once what waits to be closed is closed.
    awaits_closing: bool,
    /// The limits for clients, and what waits because of them.
    gate: Gate,
    /// Connections whose first request must be seen before they can be assigned.
    peeking: Peeking,
    proxy_watch: ProxyWatch,
    alarms: Alarms,
    alarm_clock: alarms::Clock,
    /// The code that the start or a reload took is not in memory any more.
    is_settled: bool,
    /// What sessions are tagged with.
    tag_key: TagKey,
    about: report::About,
    /// The end of a process may still have to be taken.
    reap_again: bool,
    /// The kernel's queues are to be looked at without waiting for their time.
    look_soon: bool,
    /// The files of admin listeners that are Unix sockets.
    admin_files: admin_pages::AdminFiles,
}

/// The soft limit on this process's descriptors (RLIMIT_NOFILE).
#[derive(Debug, Clone, Copy)]
pub struct DescriptorLimits {
    /// As haft was started: its workers get the same.
    pub at_start: u64,
    /// As it is now.
    pub now: u64,
}

/// Runs the master until it is stopped. Must be called within a `LocalSet` of a single-threaded runtime.
///
/// `passed` are the sockets that a service manager has passed, `limits` are those on this process's descriptors;
/// `reread` yields the configuration anew for a reload; `account` is the user that workers run as.
pub async fn run(
    config: Config,
    passed: Vec<(PassedAddr, Listener)>,
    limits: DescriptorLimits,
    reread: Reread,
    guardian: Option<Guardian>,
    account: Option<Account>,
) -> Result<(), MasterError> {
    // Before the log states that haft listens: its reader may send a signal at once.
    let signals = Signals::listen()?;
    let (mut master, inbox) = Master::new(config, passed, limits, reread, (guardian, account))?;
    let outcome = master.run(signals, inbox).await;
    // However it ends.
    master.service.dispatch.close(RejectReason::Stopping);
    master.supervisor.crew.remains.kill();
    let guardian = master.supervisor.crew.guardian.take();
    if outcome.is_ok() {
        tracing::info!("stopped: {}", master.summary());
        // No worker is left. After a failure some may be, and then it ends them as it would if this process was killed.
        guardian.into_iter().for_each(Guardian::end);
    }
    outcome.and_then(|()| master.supervisor.gave_up.take().map_or(Ok(()), Err))
}

/// What comes to the loop from beside it.
struct Inbox {
    exits: mpsc::UnboundedReceiver<Exit>,
    found: mpsc::UnboundedReceiver<finished::HeldCounts>,
    looks: care::CareInbox,
    requests: mpsc::Receiver<ControlRequest>,
}

impl Master {
    fn new(
        config: Config,
        passed: Vec<(PassedAddr, Listener)>,
        limits: DescriptorLimits,
        reread: Reread,
        (guardian, account): (Option<Guardian>, Option<Account>),
    ) -> Result<(Self, Inbox), MasterError> {
        let (control, requests) = admin::channel();
        let (mut finished, found) = Finished::new();
        let (care, looks) = Care::new();
        let tag_key = tag_key(&config)?;
        let plan = Plan::new(&config, &tag_key)?;
        let preload = preload::first_preload(&plan)?;
        announce(&config, &plan);
        let passed_addrs = passed.iter().map(|(addr, _)| addr.clone()).collect();
        let (listeners, kernel) = listen(&config, &plan, passed)?;
        let bound: Vec<_> = listeners.iter().map(Listener::addr).chain(kernel.iter().flat_map(Kernel::addrs)).collect();
        bound.iter().for_each(|addr| finished.opened(addr));
        let called = Called::new(&config, bound.iter().copied());
        let admin_files = admin_pages::serve(&config, called.name(), &control)?;
        let about = report::About::new(called, limits.now);
        let own_listeners = kernel.iter().map(|kernel| kernel.places().count() + kernel.count()).sum::<usize>() as u64;
        let mut service = setup::service(&config)?;
        service.dispatch.node = cluster_primary(&plan, kernel.as_ref(), &listeners);
        let of_kernel = kernel.iter().map(|kernel| kernel.own().count() as u32).sum();
        let doors =
            Listeners::new(listeners, of_kernel, config.hold_timeout).context("keeping a descriptor in reserve")?;
        let (supervisor, exits) = Supervisor::new(&config, plan, preload, (limits.at_start, guardian, account));
        let budget = Budget::new(limits.now.saturating_sub(own_listeners), config.workers);
        let poller = Poller::new(256).context("making an epoll set")?;
        let mut master = Self {
            batching: Batching::new(&poller).context("making an epoll set")?,
            poller,
            doors,
            kernel,
            keepers: Vec::new(),
            service,
            supervisor,
            phase: Phase::Starting,
            stop: None,
            budget,
            over_budget: false,
            over_rate: false,
            awaits_closing: false,
            gate: Gate::new(&config, budget.most(), setup::seed()?, Instant::now()),
            peeking: Peeking::new(&config, Rules::new(&config, &tag_key), budget.most_peeking()),
            proxy_watch: ProxyWatch::new(Instant::now(), &config),
            alarms: Alarms::default(),
            alarm_clock: alarms::Clock::new(),
            is_settled: false,
            tag_key,
            about,
            changes: Changes::new(config, passed_addrs, reread),
            manager: ServiceManager::find(),
            finished,
            care,
            reap_again: false,
            look_soon: false,
            admin_files,
        };
        master.guard_listeners();
        Ok((master, Inbox { exits, found, looks, requests }))
    }

    async fn run(&mut self, mut signals: Signals, mut inbox: Inbox) -> Result<(), MasterError> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut looks = rescue::looks();
        let mut alarm_looks = self.alarm_clock.looks();
        let mut beats = tokio::time::interval(self.manager.period());
        beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut rounds = care::rounds();
        let mut ready = Vec::new();
        let mut ends = orphans::adopt()?;
        self.observe(Event::Tick)?;
        while !self.has_ended() {
            tokio::select! {
                            waited = self.poller.wait(&mut ready) => {
                                waited.context("waiting for connections")?;
                                self.turns(&mut ready)?;
                            }
            // Lazily polled channels are due soon: give the other tasks one turn only.
                            () = tokio::task::yield_now(), if self.batching.busy => {
                                ready.clear();
                                self.turns(&mut ready)?;
                            }
                            Some(exit) = inbox.exits.recv() => self.exited(&exit)?,
                            Some(answer) = inbox.found.recv() => self.found_finished(answer)?,
                            Some(weights) = inbox.looks.weights.recv() => self.weighed(&weights)?,
                            Some(finding) = inbox.looks.findings.recv() => self.found_health(finding)?,
                            _ = rounds.tick(), if self.cares() => self.look_after_workers()?,
                            Some(request) = inbox.requests.recv() => self.answer(request)?,
                            _ = ends.recv() => self.reap(),
                            _ = beats.tick(), if self.manager.is_there() => self.beat(),
                            _ = ticks.tick(), if self.depends_on_time() => self.tick()?,
                            () = tokio::task::yield_now(), if self.look_soon => self.look_at_queues(Instant::now())?,
                            _ = alarm_looks.tick() => self.look_around(Instant::now()),
                            _ = looks.tick(), if self.looks_at_queues() => self.look_at_queues(Instant::now())?,
                            _ = signals.terminate.recv() => self.stop("SIGTERM", Haste::Paced)?,
                            _ = signals.quit.recv() => self.stop("SIGQUIT", Haste::Paced)?,
                            _ = signals.interrupt.recv() => match is_in_foreground() {
                                true => self.stop("SIGINT", Haste::Soon)?,
                                false => self.stop("SIGINT", Haste::Paced)?,
                            },
                            _ = signals.hangup.recv() => match signals.terminal.is_gone() {
                                true => self.stop("SIGHUP (the terminal was closed)", Haste::Paced)?,
                                false => self.on_signal("SIGHUP", Self::reload)?,
                            },
                            never = signals.noted.note() => match never {},
                            () = received(&mut signals.more) => self.on_signal("SIGTTIN", |it| it.scale(it.service.pool.wanted() + 1))?,
                            () = received(&mut signals.fewer) => self.on_signal("SIGTTOU", |it| it.scale(it.service.pool.wanted() - 1))?,
                        }
        }
        Ok(())
    }

    /// Passes an event to the service, and does what follows from it.
    fn observe(&mut self, event: Event) -> Result<(), MasterError> {
        self.service.observe(event, Instant::now());
        self.perform()
    }

    /// Stops accepting while as many connections are held as there are descriptors for, or as wait well: then the next
    /// ones wait in the kernel's queue, where they cost nothing and are not refused.
    fn keep_budget(&mut self) -> Result<(), MasterError> {
        // What waits to be closed has its descriptor still.
        let closing = closing::waiting() as u64;
        let outstanding = self.service.dispatch.ledger.outstanding() + closing;
        let (held, most_held) = (self.service.dispatch.held(), self.service.dispatch.most_held());
        if self.over_budget {
            if outstanding <= self.budget.resuming() && held <= most_held / 2 {
                self.over_budget = false;
                self.open_doors()?;
            }
        } else if (outstanding >= self.budget.most() || held >= most_held) && self.doors.is_open() {
            if outstanding >= self.budget.most() {
                tracing::warn!(outstanding, "as many connections wait as there are descriptors for: accepting pauses");
            }
            self.over_budget = true;
            self.doors.shut(&self.poller).context("leaving the listeners alone")?;
        }
        self.keep_rate()?;
        // No event reports that they are closed.
        self.awaits_closing = self.over_budget && closing > 0;
        self.batching.busy |= self.awaits_closing;
        Ok(())
    }

    /// Stops accepting while as many have come as may, for all together.
    fn keep_rate(&mut self) -> Result<(), MasterError> {
        let is_over = self.gate.room(Instant::now()) == 0;
        if is_over && !self.over_rate && self.doors.is_open() {
            self.over_rate = true;
            self.doors.shut(&self.poller).context("leaving the listeners alone")?;
        } else if !is_over && self.over_rate {
            self.over_rate = false;
            self.open_doors()?;
        }
        Ok(())
    }

    fn open_doors(&mut self) -> Result<(), MasterError> {
        let may_accept = !self.over_budget && !self.over_rate && !self.doors.is_paused();
        if self.phase == Phase::Serving && may_accept {
            self.doors.open(&self.poller).context("waiting for connections")?;
        }
        Ok(())
    }
}
