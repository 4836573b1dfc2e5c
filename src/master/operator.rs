//! What the operator asks for, by a signal or at an admin listener: a reload, another number of slots, a slot left alone,
//! the end.

use std::time::Instant;

use super::reload::Prepared;
use super::stopping::{Haste, Phase, Stop, Wish};
use super::{Master, MasterError, care};
use crate::admin::{Change, ControlRequest, Denied};
use crate::config::{Config, MAX_WORKERS};
use crate::listen::kernel::Kernel;
use crate::pool::Event;
use crate::route::{Reading, Slot, Tagger};

impl Master {
    /// Answers a request from the admin listener.
    pub(super) fn answer(&mut self, request: ControlRequest) -> Result<(), MasterError> {
        match request {
            // The asking task may be gone.
            ControlRequest::Snapshot(reply) => {
                let histories = &self.supervisor.histories;
                let sources = histories.sources(&self.service, &self.supervisor.crew);
                drop(reply.send((self.view().snapshot(&self.watch.alarms), sources)));
            }
            ControlRequest::Trace(filter, reply) => {
                drop(reply.send(self.service.dispatch.ledger.trace.follow(filter)));
            }
            ControlRequest::Logs(wanted, reply) => drop(reply.send(self.view().lines(wanted))),
            ControlRequest::Session(sid, reply) => {
                let tagger = Tagger::new(&self.reloads.tag_key);
                reply.send(tagger.reading(sid.as_bytes()) != Reading::Untagged).ok();
            }
            // The client already got 503; do not apply the change behind its back.
            ControlRequest::Change(_, reply) if reply.is_closed() => {}
            ControlRequest::Change(change, reply) => {
                let outcome = match change {
                    Change::Reload => self.reload(),
                    Change::Scale { workers } => self.scale(workers),
                    Change::Restart { slot } => self.restart(slot),
                    Change::Stop => self.stop_as_asked()?,
                    Change::Drain { slot } => self.drain(slot),
                    Change::Undrain { slot } => self.undrain(slot),
                };
                reply.send(outcome).ok();
            }
        }
        self.perform()
    }

    /// Does what a signal asks for, and logs the result. Requests at the admin listener are logged there.
    pub(super) fn on_signal(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut Self) -> Result<String, Denied>,
    ) -> Result<(), MasterError> {
        match change(self) {
            Ok(text) => tracing::info!("{name}: {text}"),
            Err(Denied::Busy(why) | Denied::Impossible(why)) => tracing::warn!("{name}, not done: {why}"),
        }
        self.perform()
    }

    /// Reads the configuration again and starts to replace all workers. Returns the answer for the operator.
    pub(super) fn reload(&mut self) -> Result<String, Denied> {
        self.must_serve()?;
        self.manager.notify_reloading();
        self.settling.reload_begins();
        let prepared = self.reloads.prepare(&self.service, &self.intake.budget, self.about.descriptor_limit);
        let outcome = prepared.map(|prepared| self.begin_reload(prepared));
        if !self.service.pool.is_reloading() {
            self.notify_reload_over(Some("; the last reload was refused (see the log)"));
        }
        outcome
    }

    fn begin_reload(&mut self, prepared: Prepared) -> String {
        let (config, now) = (&prepared.config, Instant::now());
        self.service.reconfigure(config);
        self.supervisor.crew.guardian.iter_mut().for_each(|guardian| guardian.set_drain_time(config.drain_timeout));
        self.intake.reconfigure(config, &self.reloads.tag_key);
        let slots = self.service.pool.wanted();
        self.service.observe(Event::Reload, now);
        self.intake.count_workers(&self.service.pool);
        let generation = self.service.pool.newest();
        let (plan, text) = self.reloads.begin(prepared, generation, slots);
        self.supervisor.add_plan(generation, plan);
        self.care.health.reconfigure(&mut self.service, &self.reloads.config, now);
        text
    }

    /// Every slot has its new worker.
    pub(super) fn reloaded(&mut self, generation: u32) {
        let slots_afterwards = self.reloads.end(generation);
        self.supervisor.forget_plans(&self.service.pool);
        self.notify_reload_over(None);
        let Some(slots) = slots_afterwards else { return };
        match self.scale(slots) {
            Ok(text) => {
                self.reloads.config.workers = slots;
                tracing::info!("{text}");
            }
            // It still differs from what is configured, so the next reload tries again.
            Err(Denied::Busy(why) | Denied::Impossible(why)) => {
                tracing::error!("the number of workers stays as it was: {why}");
            }
        }
    }

    /// A slot's new worker did not become ready.
    pub(super) fn reload_failed(&mut self, slot: Slot, generation: u32) {
        self.reloads.fail(slot, generation);
        self.notify_reload_over(Some("; the last reload has failed (see the log)"));
        self.supervisor.forget_plans(&self.service.pool);
    }

    fn notify_reload_over(&mut self, why: Option<&'static str>) {
        self.manager.note_reload(why);
        if self.life.phase() == Phase::Serving {
            self.notify_ready();
        }
    }

    /// Changes the number of slots.
    pub(super) fn scale(&mut self, slots: usize) -> Result<String, Denied> {
        self.must_serve()?;
        let before = self.service.pool.wanted();
        if !(1..=MAX_WORKERS).contains(&slots) {
            return Err(Denied::Impossible(format!("there cannot be {slots} workers: from 1 to {MAX_WORKERS}")));
        }
        if slots == before {
            return Ok(format!("there are {slots} workers already"));
        }
        if self.drained_among(slots) == slots {
            let why = format!("all of the first {slots} slots are drained: undrain one of them first");
            return Err(Denied::Impossible(why));
        }
        let config = Config { workers: slots, ..self.reloads.config.clone() };
        let groups = self.queues.kernel().map_or(0, Kernel::count);
        let enough = config.check_descriptors_with(self.about.descriptor_limit, groups);
        enough.map_err(|error| Denied::Impossible(error.to_string()))?;
        let grown = self.queues.grow(&config, &mut self.service).map_err(Denied::Impossible)?;
        self.intake.budget.lose(grown as u64);
        self.queues.guard(&mut self.supervisor.crew.guardian);
        self.service.observe(Event::Scale(slots), Instant::now());
        self.intake.count_workers(&self.service.pool);
        Ok(format!("from {before} to {slots} workers"))
    }

    /// Gives one slot, or each, a new worker of the same version: one slot at a time.
    fn restart(&mut self, slot: Option<usize>) -> Result<String, Denied> {
        self.must_serve()?;
        let slots = match slot {
            Some(slot) => vec![self.known(slot)?],
            None => self.service.dispatch.slots().collect(),
        };
        let pool = &self.service.pool;
        if pool.is_reloading() {
            return Err(Denied::Busy("a reload is under way, which gives every slot a new worker".to_owned()));
        }
        self.intake.budget.allows_reload(pool.worker_count(), pool.wanted()).map_err(Denied::Busy)?;
        for slot in &slots {
            self.service.observe(Event::Renew(*slot), Instant::now());
        }
        self.intake.count_workers(&self.service.pool);
        Ok(match slots[..] {
            [slot] => format!("slot {slot} gets a new worker, and keeps the old one until that is ready"),
            _ => format!("{} slots get new workers, one slot after another", slots.len()),
        })
    }

    /// Takes a slot out: no new client comes to it.
    fn drain(&mut self, slot: usize) -> Result<String, Denied> {
        let slot = self.known(slot)?;
        if self.service.pool.is_drained(slot) {
            return Ok(format!("slot {slot} is drained already"));
        }
        let slots = self.service.pool.wanted();
        if self.drained_among(slots) + 1 == slots {
            let why = format!("slot {slot} is the last that takes clients: undrain another one first");
            return Err(Denied::Impossible(why));
        }
        self.service.observe(Event::Drain(slot), Instant::now());
        Ok(format!("slot {slot} is drained: new clients go to other slots, its worker keeps what it has"))
    }

    /// Takes a slot back in.
    fn undrain(&mut self, slot: usize) -> Result<String, Denied> {
        let slot = self.known(slot)?;
        if !self.service.pool.is_drained(slot) {
            return Ok(format!("slot {slot} is not drained"));
        }
        self.service.observe(Event::Undrain(slot), Instant::now());
        Ok(format!("slot {slot} takes its clients again"))
    }

    fn must_serve(&self) -> Result<(), Denied> {
        match self.life.phase() {
            Phase::Serving => Ok(()),
            Phase::Starting => Err(Denied::Busy("no worker has been ready yet: wait for the first".to_owned())),
            Phase::Flushing | Phase::Stopping => Err(Denied::Busy("haft is stopping".to_owned())),
        }
    }

    fn known(&self, slot: usize) -> Result<Slot, Denied> {
        self.must_serve()?;
        let mut slots = self.service.dispatch.slots();
        let last = slots.len() - 1;
        slots.nth(slot).ok_or_else(|| Denied::Impossible(format!("there is no slot {slot}: they are 0 to {last}")))
    }

    /// How many are disabled by an operator, or get no worker until an operator enables them.
    fn drained_among(&self, slots: usize) -> usize {
        let pool = &self.service.pool;
        let is_out = |slot: &Slot| pool.is_drained(*slot) || pool.is_kept_out(*slot);
        self.service.dispatch.all_slots().take(slots).filter(is_out).count()
    }

    /// A slot's workers have ended too often: haft stops, and the other workers finish what they have.
    pub(super) fn give_up_slot(&mut self, slot: Slot) -> Result<(), MasterError> {
        let why = self.too_often(slot);
        self.supervisor.gave_up.get_or_insert(MasterError::TooManyRestarts { why });
        if self.life.stop().is_some() { Ok(()) } else { self.stop("--max-restarts", Haste::Paced) }
    }

    pub(super) fn too_often(&self, slot: Slot) -> String {
        care::too_often(slot, self.supervisor.histories.last_exit(slot), &self.reloads.config)
    }

    /// The operator stops haft: closes the listeners behind the last connections; a second call ends at once.
    pub(super) fn stop(&mut self, why: &str, haste: Haste) -> Result<(), MasterError> {
        match self.life.wish(why) {
            Wish::Begin => self.begin_stop(why, haste),
            Wish::Repeated => Ok(()),
            Wish::EndNow => {
                self.release_queues();
                self.supervisor.crew.remains.kill();
                self.observe(Event::StopNow)
            }
        }
    }

    fn begin_stop(&mut self, why: &str, haste: Haste) -> Result<(), MasterError> {
        let now = Instant::now();
        let stop = Stop::new(haste, &self.reloads.config, now);
        let until = stop.until();
        self.service.pool.end_by(self.service.time(now), self.service.time(until));
        self.supervisor.crew.remains.end_by(until);
        let within = humantime::format_duration(until - now);
        tracing::info!("{why}: accepting stops, the workers finish within {within} (once more: ends at once)");
        if self.life.phase() == Phase::Serving {
            self.read_loads(now);
            self.intake.drain_backlogs(&mut self.service, &self.poller)?;
        }
        if self.service.pool.is_reloading() {
            self.reloads.cut_short();
        }
        self.life.begin_stop(stop);
        self.manager.notify_stopping();
        self.manager.beat(&self.service, &self.life);
        self.intake.close(&mut self.service, &self.poller)?;
        self.queues.close(&mut self.service, self.intake.has_descriptors())?;
        self.service.send(Instant::now());
        self.perform()?;
        self.stop_when_flushed(Instant::now())?;
        self.life.stop_has_begun();
        Ok(())
    }

    /// The operator wants an end, and has asked at an admin listener.
    fn stop_as_asked(&mut self) -> Result<Result<String, Denied>, MasterError> {
        if self.life.stop().is_some() {
            return Ok(Err(Denied::Busy("haft is stopping already".to_owned())));
        }
        self.stop("control", Haste::Paced)?;
        let within = humantime::format_duration(self.reloads.config.drain_timeout);
        Ok(Ok(format!("haft stops: the workers finish within {within}")))
    }

    /// Lets the workers finish once all connections that were accepted are handed over.
    pub(super) fn stop_when_flushed(&mut self, now: Instant) -> Result<(), MasterError> {
        self.life.log_what_stop_waits_for(&self.service, now);
        if self.life.stop().is_some() {
            self.service.refuse_hopeless(now);
        }
        let is_flushed = || self.service.dispatch.held() == 0 && self.queues.are_empty();
        let Some(event) = self.life.end_flushing(is_flushed, now) else { return Ok(()) };
        self.release_queues();
        self.observe(event)
    }

    /// From now on the kernel's queues are the workers' alone.
    fn release_queues(&mut self) {
        self.queues.release(&mut self.service, &self.poller);
        self.queues.guard(&mut self.supervisor.crew.guardian);
        self.supervisor.send_deferred(&mut self.service, &self.queues, Instant::now());
    }
}
