//! What workers report of themselves, and what `/proc` shows of their processes. It is read on request, in a thread of
//! its own: the master's loop waits for none of it.

use std::sync::Arc;

use super::snapshot::Snapshot;
use super::usage::{ProcessFigures, Reported};
use crate::sys::page::Page;
use crate::sys::usage;
use haft_worker::protocol::scoreboard::{Figures, RECORD};

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

/// Reads a worker's page.
pub fn read(page: &Page) -> Option<Figures> {
    let mut bytes = [0; RECORD];
    (0..TRIES).find_map(|_| page.read(&mut bytes).ok().and_then(|()| Figures::decode(&bytes)))
}

/// Puts into a snapshot what only a look at the processes shows. May wait for the kernel.
pub(super) fn fill(mut snapshot: Snapshot, sources: Vec<Source>) -> Snapshot {
    snapshot.process = look(snapshot.pid);
    for source in sources {
        let Some(slot) = snapshot.slots.get_mut(source.slot) else { continue };
        slot.process = source.pid.and_then(look);
        slot.reported = Reported::new(source.page.as_deref().and_then(read), source.before);
    }
    snapshot
}

fn look(pid: u32) -> Option<ProcessFigures> {
    usage::of(pid).ok().flatten().map(ProcessFigures::from)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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
        let source = |page| Source { slot: 1, pid: Some(std::process::id()), page, before: before.clone() };
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
    fn what_is_no_record_is_nothing() {
        let page = Page::new(PAGE).expect("a page");
        assert_eq!(read(&page), None);
        page.write(&[0xff; RECORD]).expect("written");
        assert_eq!(read(&page), None);
    }
}
