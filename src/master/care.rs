//! Looks how much memory workers have and how old they are, and replaces those that are over a limit.
//!
//! `/proc` is read beside the loop, every two seconds and only with `--max-memory`. What follows is the pool's to decide.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};

use super::budget::Budget;
use super::health::{Finding, Health};
use super::loads::Loads;
use super::stopping::Phase;
use crate::config::{self, Config, Size};
use crate::dispatch::service::Service;
use crate::ids::WorkerId;
use crate::pool::{Event, Renewal};
use crate::process::crew::Processes;
use crate::route::Slot;
use crate::sys::usage;

/// How often it is looked whether something is due.
const EVERY: Duration = Duration::from_millis(500);
/// How often workers' size and age are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How many bytes of memory each worker has that could be looked at.
pub(super) type Weights = Vec<(WorkerId, u64)>;

/// When workers are looked at, if there is a limit for them.
pub(super) fn rounds() -> Interval {
    let mut rounds = tokio::time::interval(EVERY);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    rounds
}

/// The looks at workers' memory.
#[derive(Debug)]
pub(super) struct Care {
    answers: mpsc::UnboundedSender<Weights>,
    /// When workers' size and age are looked at next.
    due: Option<Instant>,
    /// The last look is not over.
    is_looking: bool,
    /// It was logged that there are too many workers to start more.
    is_crowded: bool,
    pub(super) health: Health,
    pub(super) loads: Loads,
}

/// What comes of the looks.
pub(super) struct CareInbox {
    pub(super) weights: mpsc::UnboundedReceiver<Weights>,
    pub(super) findings: mpsc::UnboundedReceiver<Finding>,
}

impl Care {
    /// No look yet; answers come out of the receivers.
    pub(super) fn new() -> (Self, CareInbox) {
        let (answers, weights) = mpsc::unbounded_channel();
        let (health, findings) = Health::new();
        (
            Self { answers, due: None, is_looking: false, is_crowded: false, health, loads: Loads::default() },
            CareInbox { weights, findings },
        )
    }

    /// Whether workers have limits that are looked after.
    pub(super) fn is_due(config: &Config, phase: Phase) -> bool {
        let care = &config.care;
        phase == Phase::Serving
            && *care != config::CareConfig { restarts: care.restarts, ..config::CareConfig::default() }
    }

    /// Looks after the workers of a haft that serves. Must be called within a `LocalSet`.
    pub(super) fn look(&mut self, service: &mut Service, crew: &Processes, config: &Config, budget: &Budget) {
        let now = Instant::now();
        self.health.ask_workers(service, config, now);
        if self.due.is_some_and(|due| now < due) {
            return;
        }
        self.due = Some(now + LOOK_EVERY);
        let pool = &service.pool;
        let room = budget.allows_reload(pool.worker_count(), pool.wanted());
        let was_crowded = std::mem::replace(&mut self.is_crowded, room.is_err());
        if let Err(why) = room {
            if !was_crowded {
                tracing::warn!("workers that are too large or too old stay for now: {why}");
            }
            return;
        }
        if config.care.max_memory.is_some() && !self.is_looking {
            self.weigh(service, crew);
        }
        service.observe(Event::CheckAges, now);
    }

    /// Asks `/proc` how much memory the workers have.
    fn weigh(&mut self, service: &Service, crew: &Processes) {
        let workers: Vec<(WorkerId, u32)> =
            service.pool.to_weigh().filter_map(|worker| Some((worker, crew.serving_pid(worker)?))).collect();
        self.is_looking = true;
        let answers = self.answers.clone();
        tokio::task::spawn_local(async move {
            let look = move || {
                let weigh = |(worker, pid)| Some((worker, usage::resident_of_largest(pid)?));
                workers.into_iter().filter_map(weigh).collect::<Weights>()
            };
            // The receiver lives as long as the master.
            answers.send(tokio::task::spawn_blocking(look).await.unwrap_or_default()).ok();
        });
    }

    /// Takes in how much memory workers have.
    pub(super) fn weighed(&mut self, weights: &Weights, service: &mut Service, (config, phase): (&Config, Phase)) {
        self.is_looking = false;
        let Some(most) = config.care.max_memory.filter(|_| phase == Phase::Serving) else { return };
        for (worker, bytes) in weights.iter().filter(|(_, bytes)| *bytes > most.bytes()) {
            service.observe(Event::TooLarge(*worker, *bytes), Instant::now());
        }
    }
}

/// A worker that serves is being replaced.
pub(super) fn log_renewal(slot: Slot, worker: WorkerId, why: Renewal, age: Duration, config: &Config) {
    let age = humantime::format_duration(Duration::from_secs(age.as_secs()));
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let care = &config.care;
    match why {
        Renewal::Asked => {}
        Renewal::Memory(bytes) => tracing::warn!(
            %slot, worker = worker.0,
            "the worker has {:.1} MiB of resident memory after {age}, and may have {} (--max-memory): the slot gets a new one",
            mebibytes(bytes), care.max_memory.map_or_else(String::new, |most: Size| most.to_string())
        ),
        Renewal::Age(_) => tracing::info!(
            %slot, worker = worker.0,
            "the worker has lived for {age}, as long as it may (--max-age): the slot gets a new one"
        ),
    }
}

/// A slot's workers have ended more often than they may, in words.
pub(super) fn too_often(slot: Slot, last: Option<&str>, config: &Config) -> String {
    let limit = config.care.restarts;
    let limit = limit.map_or_else(String::new, |limit| {
        format!("more than {} times within {}", limit.most, humantime::format_duration(limit.within))
    });
    format!(
        "the workers of slot {slot} ended {limit} (--max-restarts), the last one with {}",
        last.unwrap_or("no trace")
    )
}
