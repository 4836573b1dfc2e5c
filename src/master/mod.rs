//! The master: the only loop that waits. It accepts, assigns, hands over and supervises, and keeps nothing of a
//! connection once its worker has taken it.
//!
//! Everything runs in one thread, so that each decision is taken on one consistent state. Nothing here reads a byte of
//! a client's.
//!
//! It has parts, each of which owns what it decides by:
//!
//! * `intake`: the listeners, the limits for clients, what waits for its first request, the budget of descriptors;
//! * `service`: queues, the choice of a worker, links and the pool of slots. It knows no process. What it decides comes
//!   out as effects, which the loop carries out (`Master::perform`);
//! * `supervise`: the workers' processes, the signals to them, what became of those that have ended;
//! * `queues`: where the kernel assigns, its queues, and taking from those that no worker serves;
//! * `reload`: the configuration that is in force, and the way to another one;
//! * `stopping`: how far the master's life has come;
//! * `care`: looks at workers' memory, health and load; `finished`: old ones that have nothing left to finish;
//! * `alarms`, `report`, `manager`: what is seen from outside.
//!
//! A part takes what else it needs as arguments. `Master` itself stands in three files: here the loop and what it
//! carries out, in `operator` what the operator asks for, in `batching` when connections are polled.

mod admin_pages;
mod alarms;
mod batching;
mod boot;
mod budget;
mod care;
mod error;
mod farewell;
mod finished;
mod finishing;
mod health;
mod history;
mod intake;
mod loads;
mod manager;
mod not_ready;
mod operator;
mod orphans;
mod plan;
mod preload;
mod queues;
mod reload;
mod report;
mod rereading;
mod settling;
mod setup;
mod signals;
mod stopping;
mod supervise;

pub use self::boot::{cannot_start, check, main};
pub use self::error::MasterError;
pub use self::rereading::Reread;
pub use self::setup::DescriptorLimits;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::sync::mpsc;

use self::alarms::Watch;
use self::batching::Batching;
use self::care::Care;
use self::error::Context;
use self::finished::Finished;
use self::intake::Intake;
use self::manager::ServiceManager;
use self::queues::KernelQueues;
use self::reload::Reloads;
use self::report::MasterView;
use self::settling::Settling;
use self::signals::{Signals, received};
use self::stopping::{Haste, Life, Phase};
use self::supervise::Supervisor;
use crate::addr::{ListenAddr, PassedAddr};
use crate::admin::ControlRequest;
use crate::admin::socket::Called;
use crate::config::Config;
use crate::connection::RejectReason;
use crate::dispatch::service::{Effect, Service};
use crate::ids::WorkerId;
use crate::pool::{Action, Event};
use crate::process::crew::Exit;
use crate::process::guardian::Guardian;
use crate::sys::account::Account;
use crate::sys::listen::Listener;
use crate::sys::poller::Poller;
use crate::sys::signals::is_in_foreground;

/// How often time is looked at while something depends on it.
const TICK: Duration = Duration::from_millis(50);

/// The loop, and the parts that it joins.
struct Master {
    poller: Poller,
    batching: Batching,
    life: Life,
    intake: Intake,
    queues: KernelQueues,
    service: Service,
    supervisor: Supervisor,
    reloads: Reloads,
    care: Care,
    finished: Finished,
    settling: Settling,
    watch: Watch,
    about: report::About,
    manager: ServiceManager,
    /// The files of admin listeners that are Unix sockets.
    admin_files: admin_pages::AdminFiles,
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
    let (mut master, inbox) = setup::master(config, passed, limits, reread, (guardian, account))?;
    let outcome = master.run(signals, inbox).await;
    // However it ends.
    master.service.dispatch.close(RejectReason::Stopping);
    master.supervisor.crew.remains.kill();
    let guardian = master.supervisor.crew.guardian.take();
    if outcome.is_ok() {
        tracing::info!("stopped: {}", master.view().summary());
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
    async fn run(&mut self, mut signals: Signals, mut inbox: Inbox) -> Result<(), MasterError> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut looks = queues::looks();
        let mut alarm_looks = self.watch.looks();
        let mut beats = tokio::time::interval(self.manager.period());
        beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut rounds = care::rounds();
        let mut ready = Vec::new();
        let mut ends = orphans::adopt()?;
        self.observe(Event::Tick)?;
        while !self.supervisor.has_ended() {
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
                _ = rounds.tick(), if Care::is_due(&self.reloads.config, self.life.phase()) => self.look_after_workers()?,
                Some(request) = inbox.requests.recv() => self.answer(request)?,
                _ = ends.recv() => self.supervisor.reap(),
                _ = beats.tick(), if self.manager.is_there() => self.manager.beat(&self.service, &self.life),
                _ = ticks.tick(), if self.depends_on_time() => self.tick()?,
                () = tokio::task::yield_now(), if self.queues.look_soon() => self.look_at_queues(Instant::now())?,
                _ = alarm_looks.tick() => self.look_around(Instant::now()),
                _ = looks.tick(), if self.queues.kernel().is_some() => self.look_at_queues(Instant::now())?,
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

    /// Does all that is to be done to the world, and then waits for it as it now is.
    fn perform(&mut self) -> Result<(), MasterError> {
        loop {
            // First, so that no new connection comes to a worker that then gets DRAIN.
            self.queues.steer(&mut self.service);
            let Some(effect) = self.service.next_effect() else { break };
            match effect {
                Effect::Ready(worker) => self.worker_ready(worker)?,
                Effect::Act(action) => self.act(action)?,
            }
        }
        let channels = self.batching.channels.refresh(&mut self.service.dispatch, &self.poller, self.batching.busy);
        channels.context("waiting for a worker")?;
        self.refresh_listeners()
    }

    fn act(&mut self, action: Action) -> Result<(), MasterError> {
        let until = Instant::now() + self.reloads.config.hold_timeout;
        match action {
            Action::Start { slot, worker, generation } => {
                let phase = self.life.phase();
                let (service, queues) = (&mut self.service, &self.queues);
                self.supervisor.start(slot, (worker, generation), service, (queues, phase))?;
            }
            Action::Signal(worker) => {
                self.supervisor.signal_to_finish(worker, &mut self.service, &self.queues, until);
            }
            Action::Terminate(worker) => {
                self.supervisor.terminate(worker, &mut self.service, &self.queues, until);
            }
            Action::Kill(worker) => self.supervisor.crew.signal(worker, Signal::SIGKILL),
            Action::NotReadyInTime(worker) => {
                let why = not_ready::why(worker, &mut self.service, &self.supervisor.crew);
                tracing::error!(worker = worker.0, "the worker was not ready within --start-timeout: {why}");
            }
            Action::Reloaded { generation } => self.reloaded(generation),
            Action::ReloadFailed { slot, generation } => self.reload_failed(slot, generation),
            Action::RenewalFailed(slot) => {
                tracing::error!(%slot, "the slot's new worker did not become ready: the slot keeps its old one");
            }
            Action::Renewing { slot, worker, why, age } => {
                self.intake.count_workers(&self.service.pool);
                care::log_renewal(slot, worker, why, age, &self.reloads.config);
            }
            Action::TooManyRestarts(slot) => self.give_up_slot(slot)?,
            Action::KeptOut(slot) => tracing::error!(
                "{}: it gets no worker until it is restarted (haft restart {slot}), its clients go to other slots",
                self.too_often(slot)
            ),
            Action::GiveUp(_) => return Err(self.supervisor.give_up()),
            Action::Finished => self.supervisor.finished = true,
            // The service sends it to the worker.
            Action::Drain { .. } => {}
        }
        Ok(())
    }

    fn worker_ready(&mut self, worker: WorkerId) -> Result<(), MasterError> {
        self.supervisor.ready(worker, &self.service);
        if self.life.begin_serving() {
            self.intake.open(self.life.phase(), &self.poller)?;
            self.notify_ready();
        }
        Ok(())
    }

    /// A worker's process has ended.
    fn exited(&mut self, exit: &Exit) -> Result<(), MasterError> {
        let (within, now) = (self.reloads.config.drain_timeout, Instant::now());
        let left = self.life.stop().map(|stop| stop.until().saturating_duration_since(now));
        let within = left.map_or(within, |left| within.min(left));
        if let Some(link) = self.service.dispatch.link_mut(exit.worker) {
            self.batching.channels.forget(link, &self.poller).ok();
        }
        self.supervisor.exited(exit, &mut self.service, (&self.finished, self.life.phase()), within)?;
        self.service.exited(exit.worker, Instant::now());
        self.intake.count_workers(&self.service.pool);
        self.perform()
    }

    /// Opens and closes the listeners that programs have asked for.
    fn refresh_listeners(&mut self) -> Result<(), MasterError> {
        let ways = (&mut self.intake.doors, &self.poller);
        let opened = |addr: &ListenAddr| {
            self.finished.opened(addr);
            if let Some(name) = self.about.called.on(addr) {
                self.admin_files.rename(&name);
                self.about.called = Called::Finally(name);
            }
        };
        if self.queues.refresh(&mut self.service, ways, opened)? {
            self.service.dispatch.steer_anew();
            self.queues.steer(&mut self.service);
            self.queues.guard(&mut self.supervisor.crew.guardian);
        }
        Ok(())
    }

    /// Whether something happens without an event.
    fn depends_on_time(&self) -> bool {
        self.service.depends_on_time()
            || self.intake.depends_on_time()
            || self.supervisor.depends_on_time()
            || self.life.stop().is_some()
    }

    /// Does what is due.
    fn tick(&mut self) -> Result<(), MasterError> {
        let now = Instant::now();
        self.intake.resume(&mut self.service, &self.poller, now)?;
        self.supervisor.tick(now);
        self.intake.tick(&mut self.service, &self.poller, now);
        self.service.tick(now);
        self.perform()?;
        self.finished.look(&self.service, &self.supervisor.crew, now);
        self.keep_budget()?;
        self.stop_when_flushed(now)
    }

    /// Accepts as far as there is room.
    fn keep_budget(&mut self) -> Result<(), MasterError> {
        self.intake.keep_budget(self.life.phase(), &self.service, &self.poller)?;
        self.batching.busy |= self.intake.awaits_closing();
        Ok(())
    }

    /// Looks at the kernel's queues, and does what follows from it.
    fn look_at_queues(&mut self, now: Instant) -> Result<(), MasterError> {
        let ways = (self.intake.has_descriptors(), &self.poller);
        self.queues.look(&mut self.service, &self.reloads.config, ways, now);
        self.supervisor.send_deferred(&mut self.service, &self.queues, now);
        self.service.send(now);
        self.perform()
    }

    /// Does what every few seconds is enough for.
    fn look_around(&mut self, now: Instant) {
        let sample = self.view().sample(now);
        self.watch.look(&sample, now);
        if self.life.phase() == Phase::Serving {
            self.settling.look(&self.service);
        }
    }

    fn look_after_workers(&mut self) -> Result<(), MasterError> {
        let (crew, budget) = (&self.supervisor.crew, &self.intake.budget);
        self.care.look(&mut self.service, crew, &self.reloads.config, budget);
        self.perform()
    }

    fn read_loads(&mut self, now: Instant) {
        self.care.loads.read(&mut self.service, &self.supervisor.crew, &self.reloads.config, now);
    }

    /// Takes in how much memory workers have.
    fn weighed(&mut self, weights: &care::Weights) -> Result<(), MasterError> {
        self.care.weighed(weights, &mut self.service, (&self.reloads.config, self.life.phase()));
        self.perform()
    }

    /// Takes in what a health check has come to.
    fn found_health(&mut self, finding: health::Finding) -> Result<(), MasterError> {
        let ways = (&self.intake, &self.queues);
        self.care.health.found(finding, &mut self.service, ways, self.life.phase());
        self.perform()
    }

    /// Takes in which old workers have nothing left to finish. A program that learns by a signal that it is to finish
    /// gets that, once, and then has its time for what it does at it.
    fn found_finished(&mut self, answer: finished::HeldCounts) -> Result<(), MasterError> {
        let until = Instant::now() + self.reloads.config.hold_timeout;
        for worker in self.finished.found(answer, &self.service) {
            if !self.supervisor.signal_to_finish(worker, &mut self.service, &self.queues, until) {
                tracing::debug!(worker = worker.0, "the worker has no client left and does not end: SIGTERM");
                self.observe(Event::Finished(worker))?;
            }
        }
        Ok(())
    }

    fn notify_ready(&mut self) {
        let status = self.manager.status_line(&self.service, &self.life);
        self.manager.notify_ready(status);
    }

    fn view(&self) -> MasterView<'_> {
        MasterView {
            about: &self.about,
            phase: self.life.phase(),
            config: &self.reloads.config,
            reloads: &self.reloads,
            service: &self.service,
            supervisor: &self.supervisor,
            intake: &self.intake,
            queues: &self.queues,
            care: &self.care,
        }
    }
}
