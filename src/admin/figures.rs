//! What workers tell of themselves, and what `/proc` tells of their processes. It is read when somebody asks, in a thread of
//! its own: the master's loop waits for none of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::snapshot::{Snapshot, seconds};
use crate::sys::page::Page;
use crate::sys::usage::{self, Usage};
use haft_worker::protocol::scoreboard::{Field, Figures, RECORD};

/// How often a page is read again that is being written at that moment.
const TRIES: usize = 3;

/// Where the figures of a slot's worker are.
#[derive(Debug, Clone)]
pub struct Source {
    /// The slot's place in [`Snapshot::slots`].
    pub slot: usize,
    /// The process that serves.
    pub pid: Option<u32>,
    /// Its page of the scoreboard.
    pub page: Option<Arc<Page>>,
    /// The counters of the slot's former workers.
    pub before: Figures,
}

/// What a process uses of this host.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ProcessFigures {
    /// Bytes of memory that are resident, shared ones counted.
    pub resident_bytes: u64,
    /// Time on a CPU since it began.
    #[serde(rename = "cpu_seconds", serialize_with = "seconds")]
    pub cpu: Duration,
    /// Its threads.
    pub threads: u64,
    /// Its open descriptors, if haft may look.
    pub descriptors: Option<u64>,
}

impl From<Usage> for ProcessFigures {
    fn from(usage: Usage) -> Self {
        let Usage { resident_bytes, cpu, threads, descriptors } = usage;
        Self { resident_bytes, cpu, threads, descriptors }
    }
}

/// What a slot's workers have told: the counters of all that there were, the rest of the one that is there now.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Told {
    /// Seconds since it was told.
    #[serde(rename = "age_seconds", serialize_with = "seconds")]
    pub age: Duration,
    /// The figures by their names.
    #[serde(flatten)]
    pub figures: BTreeMap<&'static str, u64>,
}

impl Told {
    /// A figure, if it is known.
    pub fn get(&self, field: Field) -> Option<u64> {
        self.figures.get(field.name()).copied()
    }

    fn new(now: Option<Figures>, before: Figures) -> Option<Self> {
        let written = now.as_ref().map(|figures| figures.written);
        let mut all = now.unwrap_or_default();
        all.add_counters(&before);
        let figures: BTreeMap<_, _> = all.known().map(|(field, figure)| (field.name(), figure)).collect();
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let age = written.map_or(Duration::ZERO, |written| clock.saturating_sub(Duration::from_millis(written)));
        (!figures.is_empty()).then_some(Self { age, figures })
    }
}

/// Reads a worker's page.
pub fn read(page: &Page) -> Option<Figures> {
    let mut bytes = [0; RECORD];
    (0..TRIES).find_map(|_| page.read(&mut bytes).ok().and_then(|()| Figures::decode(&bytes)))
}

/// Puts into a snapshot what only a look at the processes tells. May wait for the kernel.
pub(super) fn fill(mut snapshot: Snapshot, sources: Vec<Source>) -> Snapshot {
    snapshot.process = look(snapshot.pid);
    for source in sources {
        let Some(slot) = snapshot.slots.get_mut(source.slot) else { continue };
        slot.process = source.pid.and_then(look);
        slot.told = Told::new(source.page.as_deref().and_then(read), source.before);
    }
    snapshot
}

fn look(pid: u32) -> Option<ProcessFigures> {
    usage::of(pid).ok().flatten().map(ProcessFigures::from)
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;
    use haft_worker::protocol::scoreboard::PAGE;

    #[test]
    fn a_slot_shows_what_its_worker_tells_and_the_counters_of_those_before_it() {
        let page = Page::new(PAGE).expect("a page");
        let (mut now, mut before) = (Figures::default(), Figures::default());
        before.set(Field::Upgrades, 5);
        before.set(Field::HeapUsed, 9);
        let source = |page| Source { slot: 1, pid: Some(std::process::id()), page, before: before.clone() };
        let filled = fill(example::snapshot(), vec![source(None)]);
        assert_eq!(filled.slots[1].told.as_ref().expect("former workers").figures, BTreeMap::from([("upgrades", 5)]));
        now.set(Field::Upgrades, 2);
        now.set(Field::LoopDelayMax, 7);
        page.write(&now.encode(1)).expect("written");
        let filled = fill(example::snapshot(), vec![source(Some(Arc::new(page)))]);
        let told = filled.slots[1].told.as_ref().expect("told");
        assert_eq!((told.get(Field::Upgrades), told.get(Field::LoopDelayMax)), (Some(7), Some(7)));
        assert_eq!(told.get(Field::HeapUsed), None, "a dead worker has no heap");
        assert!(filled.slots[1].process.expect("this process").resident_bytes > 0);
        assert_eq!(filled.slots[0].told, example::snapshot().slots[0].told, "left as it was");
    }

    #[test]
    fn what_is_no_record_is_nothing() {
        let page = Page::new(PAGE).expect("a page");
        assert_eq!(read(&page), None);
        page.write(&[0xff; RECORD]).expect("written");
        assert_eq!(read(&page), None);
    }
}
