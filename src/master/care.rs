//! Looks how much memory workers have and how old they are, and replaces those that are over a limit.
//!
//! `/proc` is read beside the loop, every two seconds and only with `--max-memory`. What follows is the pool's to decide.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};

use super::health::{Finding, Health};
use super::loads::Loads;
use super::stopping::Haste;
use super::{Master, MasterError, Phase};
use crate::config::{self, Size};
use crate::ids::WorkerId;
use crate::pool::{Event, Renewal};
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
}

impl Master {
    /// Whether workers have limits that are looked after.
    pub(super) fn cares(&self) -> bool {
        let care = &self.changes.config.care;
        self.phase == Phase::Serving
            && *care != config::CareConfig { restarts: care.restarts, ..config::CareConfig::default() }
    }

    /// Looks after the workers. Must be called within a `LocalSet`.
    pub(super) fn look_after_workers(&mut self) -> Result<(), MasterError> {
        let now = Instant::now();
        self.ask_workers(now);
        if self.care.due.is_some_and(|due| now < due) {
            return Ok(());
        }
        self.care.due = Some(now + LOOK_EVERY);
        let pool = &self.service.pool;
        let room = self.budget.allows_reload(pool.worker_count(), pool.wanted());
        let was_crowded = std::mem::replace(&mut self.care.is_crowded, room.is_err());
        if let Err(why) = room {
            if !was_crowded {
                tracing::warn!("workers that are too large or too old stay for now: {why}");
            }
            return Ok(());
        }
        if self.changes.config.care.max_memory.is_some() && !self.care.is_looking {
            self.weigh();
        }
        self.observe(Event::CheckAges)
    }

    /// Asks `/proc` how much memory the workers have.
    fn weigh(&mut self) {
        let crew = &self.supervisor.crew;
        let workers: Vec<(WorkerId, u32)> =
            self.service.pool.to_weigh().filter_map(|worker| Some((worker, crew.serving_pid(worker)?))).collect();
        self.care.is_looking = true;
        let answers = self.care.answers.clone();
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
    pub(super) fn weighed(&mut self, weights: &Weights) -> Result<(), MasterError> {
        self.care.is_looking = false;
        let Some(most) = self.changes.config.care.max_memory else { return Ok(()) };
        for (worker, bytes) in weights {
            if *bytes > most.bytes() && self.phase == Phase::Serving {
                self.observe(Event::TooLarge(*worker, *bytes))?;
            }
        }
        Ok(())
    }

    /// A worker that serves is being replaced.
    pub(super) fn renewing(&mut self, slot: Slot, worker: WorkerId, why: Renewal, age: Duration) {
        self.count_workers();
        let age = humantime::format_duration(Duration::from_secs(age.as_secs()));
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let care = &self.changes.config.care;
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

    /// A slot's workers have ended too often: haft stops, and the other workers finish what they have.
    pub(super) fn gives_up(&mut self, slot: Slot) -> Result<(), MasterError> {
        let why = self.too_often(slot);
        self.supervisor.gave_up.get_or_insert(MasterError::TooManyRestarts { why });
        if self.stop.is_some() { Ok(()) } else { self.stop("--max-restarts", Haste::Paced) }
    }

    /// The same: the slot stays empty.
    pub(super) fn keep_out(&mut self, slot: Slot) {
        tracing::error!(
            "{}: it gets no worker until it is restarted (haft restart {slot}), its clients go to other slots",
            self.too_often(slot)
        );
    }

    fn too_often(&self, slot: Slot) -> String {
        let history = self.supervisor.history.get(&slot);
        let last = history.and_then(|history| history.last_exit.as_ref()).map(|(description, _)| description.as_str());
        let limit = self.changes.config.care.restarts;
        let limit = limit.map_or_else(String::new, |limit| {
            format!("more than {} times within {}", limit.most, humantime::format_duration(limit.within))
        });
        format!(
            "the workers of slot {slot} ended {limit} (--max-restarts), the last one with {}",
            last.unwrap_or("no trace")
        )
    }
}
