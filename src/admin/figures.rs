//! What workers report of themselves, and what `/proc` shows of their processes. It is read on request, in a thread of
//! its own: the master's loop waits for none of it.

use std::time::Duration;

use super::snapshot::Snapshot;
use super::usage::{ProcessFigures, ReportedUsage};
use crate::process::crew::Sight;
use crate::sys::page::Page;
use crate::sys::usage;
use haft_worker::protocol::scoreboard::{Figures, RECORD};

/// How often a page is read again that is being written at that moment.
const TRIES: usize = 3;

/// Where the figures of a slot's workers are.
#[derive(Debug, Clone)]
pub struct FiguresSource {
    /// The slot's place in [`Snapshot::slots`].
    pub slot: usize,
    /// Those of the worker that the slot shows.
    pub shown: Option<Sight>,
    /// Those of its other workers, which finish or start.
    pub others: Vec<Sight>,
    /// The counters of its workers that have ended.
    pub before: Figures,
}

/// Reads a worker's page.
pub fn read(page: &Page) -> Option<Figures> {
    let mut bytes = [0; RECORD];
    (0..TRIES).find_map(|_| page.read(&mut bytes).ok().and_then(|()| Figures::decode(&bytes)))
}

/// Puts into a snapshot what only a look at the processes shows. May wait for the kernel.
pub(super) fn fill(mut snapshot: Snapshot, sources: Vec<FiguresSource>) -> Snapshot {
    snapshot.process = look(snapshot.pid);
    for source in sources {
        let Some(slot) = snapshot.slots.get_mut(source.slot) else { continue };
        let mut before = source.before;
        for other in &source.others {
            let cpu = look(other.pid).map(|process| process.cpu);
            slot.cpu += other.cpu.see(cpu);
            reported(other).iter().for_each(|figures| before.add_counters(figures));
        }
        slot.process = source.shown.as_ref().and_then(|shown| look(shown.pid));
        slot.cpu +=
            source.shown.as_ref().map_or(Duration::ZERO, |it| it.cpu.see(slot.process.map(|process| process.cpu)));
        slot.reported = ReportedUsage::new(source.shown.as_ref().and_then(reported), before);
    }
    snapshot
}

fn reported(worker: &Sight) -> Option<Figures> {
    worker.page.as_deref().and_then(read)
}

fn look(pid: u32) -> Option<ProcessFigures> {
    usage::of(pid).ok().flatten().map(ProcessFigures::from)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use haft_worker::protocol::scoreboard::Field;

    use super::super::example;
    use super::*;
    use haft_worker::protocol::scoreboard::PAGE;

    #[test]
    fn a_slot_shows_what_its_worker_tells_and_the_counters_of_those_before_it() {
        let page = Page::new(PAGE).expect("a page");
        let (mut now, mut before) = (Figures::default(), Figures::default());
        before.set(Field::Upgrades, 5);
        before.set(Field::HeapUsed, 9);
        let worker = |page| Sight { page, ..Sight::new(std::process::id()) };
        let source =
            |page| FiguresSource { slot: 1, shown: Some(worker(page)), others: Vec::new(), before: before.clone() };
        let filled = fill(example::snapshot(), vec![source(None)]);
        assert_eq!(
            filled.slots[1].reported.as_ref().expect("former workers").figures,
            BTreeMap::from([("upgrades", 5)])
        );
        now.set(Field::Upgrades, 2);
        now.set(Field::LoopDelayMax, 7);
        page.write(&now.encode(1)).expect("written");
        let filled = fill(example::snapshot(), vec![source(Some(Arc::new(page)))]);
        let reported = filled.slots[1].reported.as_ref().expect("reported");
        assert_eq!((reported.get(Field::Upgrades), reported.get(Field::LoopDelayMax)), (Some(7), Some(7)));
        assert_eq!(reported.get(Field::HeapUsed), None, "a dead worker has no heap");
        assert!(filled.slots[1].process.expect("this process").resident_bytes > 0);
        assert_eq!(filled.slots[0].reported, example::snapshot().slots[0].reported, "left as it was");
    }

    #[test]
    fn one_that_finishes_still_counts_and_no_counter_goes_back_when_it_ends() {
        let worker = |upgrades, delay| {
            let (page, mut figures) = (Page::new(PAGE).expect("a page"), Figures::default());
            figures.set(Field::Upgrades, upgrades);
            figures.set(Field::LoopDelayMax, delay);
            page.write(&figures.encode(1)).expect("written");
            // Of a process that is gone: what was seen of it stays.
            let sight = Sight { page: Some(Arc::new(page)), ..Sight::new(5_000_000) };
            sight.cpu.see(Some(Duration::from_secs(upgrades)));
            sight
        };
        let source = FiguresSource {
            slot: 1,
            shown: Some(worker(2, 7)),
            others: vec![worker(30, 9)],
            before: Figures::default(),
        };
        let mut before = example::snapshot();
        before.slots[1].cpu = Duration::from_secs(400);
        let filled = fill(before, vec![source]);
        let reported = filled.slots[1].reported.as_ref().expect("reported");
        assert_eq!((reported.get(Field::Upgrades), reported.get(Field::LoopDelayMax)), (Some(32), Some(7)));
        assert_eq!(filled.slots[1].cpu, Duration::from_secs(432));
    }

    #[test]
    fn what_is_no_record_is_nothing() {
        let page = Page::new(PAGE).expect("a page");
        assert_eq!(read(&page), None);
        page.write(&[0xff; RECORD]).expect("written");
        assert_eq!(read(&page), None);
    }
}
