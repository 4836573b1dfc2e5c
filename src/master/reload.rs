//! The configuration that is in force, and the way to another one while clients are served.

use super::budget::Budget;
use super::history::unix_time;
use super::plan::Plan;
use super::rereading::{Reread, Rereading};
use crate::addr::PassedAddr;
use crate::admin::{Denied, ReloadState, ReloadStatus};
use crate::config::{Config, Program, Sessions};
use crate::dispatch::service::Service;
use crate::route::{Slot, TagKey};

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
pub(super) struct Reloads {
    /// In force.
    pub(super) config: Config,
    /// What sessions are tagged with: no reload changes it.
    pub(super) tag_key: TagKey,
    /// The sockets that a service manager has passed.
    passed: Vec<PassedAddr>,
    rereading: Rereading,
    /// So many slots, when the reload that is under way is done.
    slots_afterwards: Option<usize>,
    /// The reload that is under way, or else the last one.
    pub(super) status: Option<ReloadStatus>,
    /// Reloads that gave every slot a new worker.
    pub(super) done: u64,
    /// Reloads that ended early, since a new worker did not become ready.
    pub(super) failed: u64,
}

/// A reload that can be done.
pub(super) struct Prepared {
    /// In force from its beginning.
    pub(super) config: Config,
    /// What the new workers are started by.
    pub(super) plan: Plan,
    slots_afterwards: Option<usize>,
    /// Keys that differ, and need a restart.
    fixed: Vec<&'static str>,
}

/// A message for a terminal as one line, without its hint at `--help`.
fn in_one_line(message: &str) -> String {
    let lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.filter(|line| !line.starts_with("For more information")).collect::<Vec<_>>().join(" ")
}

impl Reloads {
    /// Nothing has changed yet.
    pub(super) fn new(config: Config, tag_key: TagKey, passed: Vec<PassedAddr>, reread: Reread) -> Self {
        let rereading = Rereading::new(reread);
        Self { config, tag_key, passed, rereading, slots_afterwards: None, status: None, done: 0, failed: 0 }
    }

    /// Reads the configuration again, and looks whether a reload to it can begin. Nothing is changed yet.
    pub(super) fn prepare(&mut self, service: &Service, budget: &Budget, descriptors: u64) -> Result<Prepared, Denied> {
        let pool = &service.pool;
        if pool.is_reloading() {
            return Err(Denied::Busy("a reload is under way: wait for its end (/status)".to_owned()));
        }
        budget.allows_reload(pool.worker_count(), pool.wanted()).map_err(Denied::Busy)?;
        let wrong = |error: String| Denied::Impossible(format!("nothing was changed: {}", in_one_line(&error)));
        let config = self.rereading.read(&self.passed).map_err(wrong)?;
        config.check_descriptors(descriptors).map_err(|error| wrong(error.to_string()))?;
        let differing = self.config.differences(&config);
        let fixed: Vec<&str> = differing.into_iter().filter(|key| !RELOADABLE.contains(key)).collect();
        let slots_afterwards = config.workers;
        let config = self.taking_from(config);
        if let Some(wish) = config.contradiction() {
            return Err(wrong(format!("{}: --dispatch is {}, and {}", wish.key, config.dispatch, wish.why)));
        }
        let plan = Plan::new(&config, &self.tag_key).map_err(|error| wrong(error.to_string()))?;
        if plan.node.is_some() != service.dispatch.node.is_some() {
            return Err(wrong("Node workers and others speak different dialects: that takes a restart".to_owned()));
        }
        let slots_afterwards = (slots_afterwards != config.workers).then_some(slots_afterwards);
        Ok(Prepared { config, plan, slots_afterwards, fixed })
    }

    /// It has begun. Yields what it is started by, and what to answer the operator.
    pub(super) fn begin(&mut self, prepared: Prepared, generation: u32, slots: usize) -> (Plan, String) {
        let Prepared { config, plan, slots_afterwards, fixed } = prepared;
        self.slots_afterwards = slots_afterwards;
        self.config = config;
        let mut text = format!("reload to generation {generation} has begun, {slots} slots one after another");
        if !fixed.is_empty() {
            text += &format!("; these need a restart and stay as they were: {}", fixed.join(", "));
        }
        self.note(ReloadState::UnderWay, text.clone());
        (plan, text)
    }

    /// Every slot has its new worker. Yields how many slots there are to be from now on, if the number changes.
    pub(super) fn end(&mut self, generation: u32) -> Option<usize> {
        self.done += 1;
        let text = format!("reloaded: all new clients are served by generation {generation}");
        tracing::info!("{text}");
        self.note(ReloadState::Done, text);
        self.slots_afterwards.take()
    }

    /// A slot's new worker did not become ready.
    pub(super) fn fail(&mut self, slot: Slot, generation: u32) {
        self.failed += 1;
        self.slots_afterwards = None;
        let done = match slot.0 {
            0 => "all old workers stay".to_owned(),
            1 => "slot 0 has its new worker, all others keep the old ones".to_owned(),
            done => format!("slots 0 to {} have new workers, all others keep the old ones", done - 1),
        };
        let text = format!(
            "reload to generation {generation} has failed: the new worker of slot {slot} did not become ready; {done}"
        );
        tracing::error!("{text}");
        self.note(ReloadState::Failed, text);
    }

    /// The master stops, and with it a reload that is under way.
    pub(super) fn cut_short(&mut self) {
        self.note(ReloadState::Failed, "cut short: haft is stopping".to_owned());
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
        let mut reloads = Reloads::new(config(&["-w2"]), TagKey::new([0; 32]), Vec::new(), reread);
        let differing = reloads.config.differences(&new);
        reloads.config = reloads.taking_from(new.clone());
        let still: Vec<&str> =
            differing.into_iter().filter(|key| !["hold-timeout", "affinity"].contains(key)).collect();
        assert_eq!(reloads.config.differences(&new), still, "the next reload names them again");
        assert!(still.contains(&"workers") && still.contains(&"node-serialization"));
        let fixed = still.iter().filter(|key| RELOADABLE.contains(key)).collect::<Vec<_>>();
        assert_eq!(fixed, [&"workers"]);
        assert_eq!(reloads.config.differences(&config(&["-w2"])), ["affinity", "hold-timeout"]);
    }
}
