//! What is counted of a slot goes on from one of its workers to the next.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::admin::figures::{self, FiguresSource};
use crate::dispatch::service::Service;
use crate::process::crew::{Exit, Processes};
use crate::route::Slot;
use haft_worker::protocol::scoreboard::Figures;

/// What became of the workers of a slot that have ended.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Deaths by how the process ended.
    pub(super) deaths: BTreeMap<String, u64>,
    /// The last death, and when (seconds since 1970).
    pub(super) last_exit: Option<(String, u64)>,
    /// What they have counted of themselves.
    figures: Figures,
    /// Their time on a CPU.
    pub(super) cpu: Duration,
}

/// The history of each slot whose workers have ended.
#[derive(Debug, Default)]
pub(super) struct Histories(BTreeMap<Slot, History>);

impl Histories {
    /// What became of the slot's earlier workers, if there were any.
    pub(super) fn of(&self, slot: Slot) -> Option<&History> {
        self.0.get(&slot)
    }

    /// How the slot's last worker ended.
    pub(super) fn last_exit(&self, slot: Slot) -> Option<&str> {
        let (description, _) = self.of(slot)?.last_exit.as_ref()?;
        Some(description)
    }

    /// A worker has ended: keeps what it has counted.
    pub(super) fn note(&mut self, exit: &Exit, slot: Slot, description: String, crew: &Processes) {
        let figures = crew.page(exit.worker).and_then(|page| figures::read(page));
        let history = self.0.entry(slot).or_default();
        figures.iter().for_each(|figures| history.figures.add_counters(figures));
        history.cpu += crew.cpu_at_end(exit.worker, exit.cpu);
        *history.deaths.entry(description.clone()).or_default() += 1;
        history.last_exit = Some((description, unix_time()));
    }

    /// Where more is to be had of each slot's workers.
    pub(super) fn sources(&self, service: &Service, crew: &Processes) -> Vec<FiguresSource> {
        let slots = service.dispatch.slots().enumerate();
        slots.map(|(at, slot)| self.source(at, slot, service, crew)).collect()
    }

    fn source(&self, at: usize, slot: Slot, service: &Service, crew: &Processes) -> FiguresSource {
        let pool = &service.pool;
        let shown = pool.worker(slot, service.time(Instant::now())).map(|worker| worker.id);
        let sight = |worker| crew.sight(worker).cloned();
        FiguresSource {
            slot: at,
            shown: shown.and_then(sight),
            others: pool.workers_of(slot).filter(|worker| Some(*worker) != shown).filter_map(sight).collect(),
            before: self.before(slot),
        }
    }

    /// What the slot's workers have counted of themselves, those that have ended too.
    pub(super) fn counted(&self, slot: Slot, service: &Service, crew: &Processes) -> Figures {
        let mut counted = self.before(slot);
        let pages = service.pool.workers_of(slot).filter_map(|worker| crew.page(worker));
        pages.filter_map(|page| figures::read(page)).for_each(|figures| counted.add_counters(&figures));
        counted
    }

    fn before(&self, slot: Slot) -> Figures {
        self.of(slot).map(|history| history.figures.clone()).unwrap_or_default()
    }
}

/// Now, in seconds since 1970; a clock that stands before counts as 1970.
pub(super) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
