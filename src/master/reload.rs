//! What the operator may change while clients are served: the configuration, the number of slots, a slot left alone.

use std::time::Instant;

use super::plan::Plan;
use super::report::unix_time;
use super::rereading::{Reread, Rereading};
use super::{Master, MasterError, Phase};
use crate::addr::PassedAddr;
use crate::admin::{Denied, ReloadState, ReloadStatus};
use crate::config::{Config, MAX_WORKERS, Program, Sessions};
use crate::listen::kernel::Kernel;
use crate::pending::Rules;
use crate::pool::Event;
use crate::route::{Slot, Steering};

/// Keys of the configuration that a reload puts into effect. All others need a restart.
#[rustfmt::skip]
const RELOADABLE: [&str; 45] = [
    "workers", "worker-nofile", "worker-env", "affinity", "ipv4-prefix", "ipv6-prefix", "sticky-path", "proxy-protocol", "client-ip-header",
    "trusted-proxy", "peek-timeout", "peek-timeout-action", "max-peeking", "max-rate-per-client", "max-waiting-per-client",
    "max-rate", "over-limit", "allow", "deny", "max-in-flight", "busy-poll", "hold-timeout", "start-timeout",
    "drain-timeout", "drain-signal", "hang-timeout", "hang-kill", "max-memory", "max-age", "max-restarts", "give-up", "health-check",
    "health-interval", "health-timeout", "command", "path", "no-serve-client", "transports", "ping-interval",
    "ping-timeout", "upgrade-timeout", "max-payload", "cors-origin", "static", "client-dist",
];

/// The configuration that is in force, and what became of the wish for another.
#[derive(Debug)]
pub struct Changes {
    /// In force.
    pub config: Config,
    /// The sockets that a service manager has passed.
    passed: Vec<PassedAddr>,
    rereading: Rereading,
    /// So many slots, when the reload that is under way is done.
    slots_afterwards: Option<usize>,
    /// The reload that is under way, or else the last one.
    pub status: Option<ReloadStatus>,
    /// Reloads that gave every slot a new worker.
    pub done: u64,
    /// Reloads that ended early, since a new worker did not become ready.
    pub failed: u64,
}

/// A message for a terminal as one line, without its hint at `--help`.
fn in_one_line(message: &str) -> String {
    let lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.filter(|line| !line.starts_with("For more information")).collect::<Vec<_>>().join(" ")
}

impl Changes {
    /// Nothing has changed yet.
    pub fn new(config: Config, passed: Vec<PassedAddr>, reread: Reread) -> Self {
        let rereading = Rereading::new(reread);
        Self { config, passed, rereading, slots_afterwards: None, status: None, done: 0, failed: 0 }
    }

    /// What is in force once a reload to this configuration has begun: what takes a restart stays as it is, and so does
    /// the number of slots until the reload is done.
    fn taking_from(&self, new: Config) -> Config {
        let old = self.config.clone();
        let program = match (old.program, new.program) {
            (Program::Command(old), Program::Command(mut new)) => {
                (new.dialect, new.node) = (old.dialect, old.node);
                Program::Command(new)
            }
            (_, program) => program,
        };
        Config {
            listen: old.listen,
            backlog: old.backlog,
            workers: old.workers,
            user: old.user,
            prefix_output: old.prefix_output,
            sessions: Sessions { tag_key: old.sessions.tag_key, host_id: old.sessions.host_id, ..new.sessions },
            dispatch: old.dispatch,
            admin: old.admin,
            name: old.name,
            admin_token_file: old.admin_token_file,
            log: old.log,
            program,
            ..new
        }
    }

    fn note(&mut self, state: ReloadState, description: String) {
        self.status = Some(ReloadStatus { state, description, unix_time: unix_time() });
    }
}

impl Master {
    /// Reads the configuration again and starts to replace all workers. Returns the answer for the operator.
    pub(super) fn reload(&mut self) -> Result<String, Denied> {
        self.must_serve()?;
        self.notify_reloading();
        let outcome = self.begin_reload();
        if !self.service.pool.is_reloading() {
            self.notify_reload_over(Some("; the last reload was refused (see the log)"));
        }
        outcome
    }

    fn begin_reload(&mut self) -> Result<String, Denied> {
        let pool = &self.service.pool;
        if pool.is_reloading() {
            return Err(Denied::Busy("a reload is under way: wait for its end (/status)".to_owned()));
        }
        let slots = pool.wanted();
        self.budget.allows_reload(pool.worker_count(), slots).map_err(Denied::Busy)?;
        let wrong = |error: String| Denied::Impossible(format!("nothing was changed: {}", in_one_line(&error)));
        self.is_settled = false;
        let config = self.changes.rereading.read(&self.changes.passed).map_err(wrong)?;
        config.check_descriptors(self.about.descriptor_limit).map_err(|error| wrong(error.to_string()))?;
        let differing = self.changes.config.differences(&config);
        let fixed: Vec<&str> = differing.into_iter().filter(|key| !RELOADABLE.contains(key)).collect();
        let slots_afterwards = config.workers;
        let config = self.changes.taking_from(config);
        if let Some(wish) = config.contradiction() {
            return Err(wrong(format!("{}: --dispatch is {}, and {}", wish.key, config.dispatch, wish.why)));
        }
        let plan = Plan::new(&config, &self.tag_key).map_err(|error| wrong(error.to_string()))?;
        if plan.node.is_some() != self.service.dispatch.node.is_some() {
            return Err(wrong("Node workers and others speak different dialects: that takes a restart".to_owned()));
        }

        self.service.reconfigure(&config);
        self.supervisor.crew.guardian.iter_mut().for_each(|guardian| guardian.set_drain_time(config.drain_timeout));
        self.doors.reconfigure(&config);
        self.gate.reconfigure(&config);
        self.peeking.reconfigure(&config, Rules::new(&config, &self.tag_key), self.budget.most_peeking());
        self.proxy_watch.reconfigure(Instant::now(), &config);
        self.service.observe(Event::Reload, Instant::now());
        self.count_workers();
        let generation = self.service.pool.newest();
        self.supervisor.plans.insert(generation, plan);
        self.changes.slots_afterwards = (slots_afterwards != config.workers).then_some(slots_afterwards);
        self.changes.config = config;
        self.health_changed(Instant::now());
        let mut text = format!("reload to generation {generation} has begun, {slots} slots one after another");
        if !fixed.is_empty() {
            text += &format!("; these need a restart and stay as they were: {}", fixed.join(", "));
        }
        self.changes.note(ReloadState::UnderWay, text.clone());
        Ok(text)
    }

    /// Every slot has its new worker.
    pub(super) fn reloaded(&mut self, generation: u32) {
        self.changes.done += 1;
        let text = format!("reloaded: all new clients are served by generation {generation}");
        tracing::info!("{text}");
        self.changes.note(ReloadState::Done, text);
        self.forget_plans();
        self.notify_reload_over(None);
        let Some(slots) = self.changes.slots_afterwards.take() else { return };
        match self.scale(slots) {
            Ok(text) => {
                self.changes.config.workers = slots;
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
        self.changes.failed += 1;
        self.changes.slots_afterwards = None;
        let done = match slot.0 {
            0 => "all old workers stay".to_owned(),
            1 => "slot 0 has its new worker, all others keep the old ones".to_owned(),
            done => format!("slots 0 to {} have new workers, all others keep the old ones", done - 1),
        };
        let text = format!(
            "reload to generation {generation} has failed: the new worker of slot {slot} did not become ready; {done}"
        );
        tracing::error!("{text}");
        self.changes.note(ReloadState::Failed, text);
        self.notify_reload_over(Some("; the last reload has failed (see the log)"));
        self.forget_plans();
    }

    /// The master stops, and with it a reload that is under way.
    pub(super) fn cut_reload_short(&mut self) {
        if self.service.pool.is_reloading() {
            self.changes.note(ReloadState::Failed, "cut short: haft is stopping".to_owned());
        }
    }

    /// Forgets what no worker will be started with any more.
    fn forget_plans(&mut self) {
        let used: Vec<u32> = self.service.pool.generations().collect();
        self.supervisor.plans.retain(|generation, _| used.contains(generation));
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
        let config = Config { workers: slots, ..self.changes.config.clone() };
        let limit = self.about.descriptor_limit;
        let groups = self.kernel.as_ref().map_or(0, Kernel::count);
        config.check_descriptors_with(limit, groups).map_err(|error| Denied::Impossible(error.to_string()))?;
        self.grow_groups(&config).map_err(Denied::Impossible)?;
        self.service.observe(Event::Scale(slots), Instant::now());
        self.count_workers();
        Ok(format!("from {before} to {slots} workers"))
    }

    /// Where the kernel assigns, the new slots need listeners.
    fn grow_groups(&mut self, config: &Config) -> Result<(), String> {
        let Some(kernel) = &mut self.kernel else { return Ok(()) };
        let steering = Steering::new(config.workers, config.prefix).map_err(|error| error.to_string())?;
        let primary = &mut self.service.dispatch.node;
        let regroup = |before: &_, after: &_| primary.iter_mut().for_each(|primary| primary.regroup(before, after));
        let grown = kernel.grow(&steering, regroup).map_err(|error| error.to_string())?;
        self.budget.lose(grown as u64);
        self.guard_listeners();
        Ok(())
    }

    /// Gives one slot, or each, a new worker of the same version: one slot at a time.
    pub(super) fn restart(&mut self, slot: Option<usize>) -> Result<String, Denied> {
        self.must_serve()?;
        let slots = match slot {
            Some(slot) => vec![self.known(slot)?],
            None => self.service.dispatch.slots().collect(),
        };
        let pool = &self.service.pool;
        if pool.is_reloading() {
            return Err(Denied::Busy("a reload is under way, which gives every slot a new worker".to_owned()));
        }
        self.budget.allows_reload(pool.worker_count(), pool.wanted()).map_err(Denied::Busy)?;
        for slot in &slots {
            self.service.observe(Event::Renew(*slot), Instant::now());
        }
        self.count_workers();
        Ok(match slots[..] {
            [slot] => format!("slot {slot} gets a new worker, and keeps the old one until that is ready"),
            _ => format!("{} slots get new workers, one slot after another", slots.len()),
        })
    }

    /// Takes a slot out: no new client comes to it.
    pub(super) fn drain(&mut self, slot: usize) -> Result<String, Denied> {
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
    pub(super) fn undrain(&mut self, slot: usize) -> Result<String, Denied> {
        let slot = self.known(slot)?;
        if !self.service.pool.is_drained(slot) {
            return Ok(format!("slot {slot} is not drained"));
        }
        self.service.observe(Event::Undrain(slot), Instant::now());
        Ok(format!("slot {slot} takes its clients again"))
    }

    /// Workers have come or gone: what may be held besides depends on how many there are, or are about to be.
    pub(super) fn count_workers(&mut self) {
        let pool = &self.service.pool;
        self.budget.reconfigure(pool.most_workers());
        self.peeking.limit(self.budget.most_peeking());
    }

    fn must_serve(&self) -> Result<(), Denied> {
        match self.phase {
            Phase::Serving => Ok(()),
            Phase::Starting => Err(Denied::Busy("no worker has been ready yet: wait for the first".to_owned())),
            Phase::Flushing(_) | Phase::Stopping => Err(Denied::Busy("haft is stopping".to_owned())),
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{self, ParseOutcome};

    fn config(flags: &[&str]) -> Config {
        let words = ["haft"].iter().chain(flags).chain(&["--", "node", "x.js"]);
        let ParseOutcome::Run(config) = flags::parse_from(words) else { panic!("{flags:?}") };
        *config
    }

    fn reread(_: &[PassedAddr]) -> Result<Config, String> {
        Err("no file".to_owned())
    }

    #[test]
    fn what_takes_a_restart_and_the_number_of_slots_differ_until_they_are_in_force() {
        let new = config(&[
            "-w3",
            "-l4000",
            "--backlog=7",
            "--prefix-output",
            "--user=app",
            "--admin=9090",
            "--log-format=json",
            "--log-level=debug",
            "--dialect=node",
            "--node-style=classic",
            "--node-serialization=advanced",
            "--wait-ready",
            "--hold-timeout=1s",
            "--affinity=none",
        ]);
        let mut changes = Changes::new(config(&["-w2"]), Vec::new(), reread);
        let differing = changes.config.differences(&new);
        changes.config = changes.taking_from(new.clone());
        let still: Vec<&str> =
            differing.into_iter().filter(|key| !["hold-timeout", "affinity"].contains(key)).collect();
        assert_eq!(changes.config.differences(&new), still, "the next reload names them again");
        assert!(still.contains(&"workers") && still.contains(&"node-serialization"));
        let fixed = still.iter().filter(|key| RELOADABLE.contains(key)).collect::<Vec<_>>();
        assert_eq!(fixed, [&"workers"]);
        assert_eq!(changes.config.differences(&config(&["-w2"])), ["affinity", "hold-timeout"]);
    }
}
