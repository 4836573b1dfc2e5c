//! What is counted of a slot goes on from one of its workers to the next.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Master;
use super::report::unix_time;
use crate::admin::figures::{self, FiguresSource};
use crate::process::crew::Exit;
use crate::route::Slot;
use haft_worker::protocol::scoreboard::Figures;

/// What became of the workers of a slot that have ended.
#[derive(Debug, Default)]
pub struct History {
    /// Deaths by how the process ended.
    pub deaths: BTreeMap<String, u64>,
    /// The last death, and when (seconds since 1970).
    pub last_exit: Option<(String, u64)>,
    /// What they have counted of themselves.
    pub figures: Figures,
    /// Their time on a CPU.
    pub cpu: Duration,
}

impl Master {
    /// A worker has ended: keeps what it has counted.
    pub(super) fn note_death(&mut self, exit: &Exit, slot: Slot, description: String) {
        let crew = &self.supervisor.crew;
        let figures = crew.page(exit.worker).and_then(|page| figures::read(page));
        let cpu = crew.cpu_at_end(exit.worker, exit.cpu);
        let history = self.supervisor.history.entry(slot).or_default();
        figures.iter().for_each(|figures| history.figures.add_counters(figures));
        history.cpu += cpu;
        *history.deaths.entry(description.clone()).or_default() += 1;
        history.last_exit = Some((description, unix_time()));
    }

    /// Where more is to be had of each slot's workers.
    pub(super) fn sources(&self) -> Vec<FiguresSource> {
        self.service.dispatch.slots().enumerate().map(|(at, slot)| self.source(at, slot)).collect()
    }

    fn source(&self, at: usize, slot: Slot) -> FiguresSource {
        let (supervisor, pool) = (&self.supervisor, &self.service.pool);
        let shown = pool.worker(slot, self.service.time(Instant::now())).map(|worker| worker.id);
        let sight = |worker| supervisor.crew.sight(worker).cloned();
        FiguresSource {
            slot: at,
            shown: shown.and_then(sight),
            others: pool.workers_of(slot).filter(|worker| Some(*worker) != shown).filter_map(sight).collect(),
            before: supervisor.history.get(&slot).map(|history| history.figures.clone()).unwrap_or_default(),
        }
    }

    /// What the slot's workers have counted of themselves, those that have ended too.
    pub(super) fn counted(&self, slot: Slot) -> Figures {
        let history = self.supervisor.history.get(&slot);
        let mut counted = history.map(|history| history.figures.clone()).unwrap_or_default();
        let pages = self.service.pool.workers_of(slot).filter_map(|worker| self.supervisor.crew.page(worker));
        pages.filter_map(|page| figures::read(page)).for_each(|figures| counted.add_counters(&figures));
        counted
    }
}
