//! A world of processes that live and die as they please: whatever happens, the pool keeps its promises.
//!
//! A failing history is shrunk to the shortest that fails.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SLOTS: usize = 3;
const TICK: Duration = Duration::from_millis(50);

/// What happens.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Wait(Duration),
    GetsReady(usize),
    Dies(usize),
    Misbehaves(usize),
    /// Of its own will, having said so or not.
    Leaves(usize, bool),
    /// An event about a worker that may be there, gone, or yet to come.
    Rumour(u64, u8),
    Stop,
    StopNow,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => (0..40_000_u64).prop_map(|millis| Happening::Wait(Duration::from_millis(millis))),
        6 => (0..400_u64).prop_map(|millis| Happening::Wait(Duration::from_millis(millis))),
        6 => (0..SLOTS).prop_map(Happening::GetsReady),
        4 => (0..SLOTS).prop_map(Happening::Dies),
        1 => (0..SLOTS).prop_map(Happening::Misbehaves),
        1 => (0..SLOTS, any::<bool>()).prop_map(|(slot, told)| Happening::Leaves(slot, told)),
        1 => (0..20_u64, 0..5_u8).prop_map(|(worker, what)| Happening::Rumour(worker, what)),
    ]
}

/// What a process was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Nothing,
    /// To finish: by the pool, or by itself.
    ToDrain,
    ToTerminate,
    Killed,
}

#[derive(Debug)]
struct Process {
    slot: usize,
    started: Time,
    ready: bool,
    told: (Told, Time),
    misbehaved: bool,
}

/// The processes as they are, and the pool that supervises them.
struct World {
    rig: Rig,
    processes: BTreeMap<WorkerId, Process>,
    youngest: u64,
    died: [Option<Time>; SLOTS],
    given_up: [bool; SLOTS],
    stopping: bool,
    now_or_never: bool,
    finished: bool,
}

impl World {
    fn new() -> Self {
        Self {
            rig: Rig::new(SLOTS),
            processes: BTreeMap::new(),
            youngest: 0,
            died: [None; SLOTS],
            given_up: [false; SLOTS],
            stopping: false,
            now_or_never: false,
            finished: false,
        }
    }

    fn in_slot(&self, slot: usize) -> Option<WorkerId> {
        self.processes.iter().find(|(_, process)| process.slot == slot).map(|(worker, _)| *worker)
    }

    fn observe(&mut self, event: Event) {
        let settled = self.rig.pool.is_settled();
        let actions = self.rig.event(event);
        assert!(event != Event::Tick || !settled || actions.is_empty(), "settled, and yet time brought {actions:?}");
        actions.into_iter().for_each(|action| self.act(action));
        for slot in 0..SLOTS {
            let expected = self.in_slot(slot).filter(|worker| {
                let process = &self.processes[worker];
                process.ready && process.told.0 == Told::Nothing
            });
            assert_eq!(self.rig.pool.ready_worker(Slot(slot as u16)), expected, "who serves slot {slot}");
        }
    }

    fn act(&mut self, action: Action) {
        let now = self.rig.now;
        assert!(!self.finished, "{action:?} after the end");
        match action {
            Action::Start { slot, worker, .. } => self.start(slot.index(), worker),
            Action::Drain { worker, .. } => {
                assert!(self.stopping && self.processes[&worker].ready, "told to drain for no reason");
                self.tell(worker, Told::ToDrain);
            }
            Action::Terminate(worker) => {
                let process = &self.processes[&worker];
                let drained = process.told.0 == Told::ToDrain && now >= process.told.1 + POLICY.drain_timeout;
                let had_nothing = self.stopping && !process.ready;
                assert!(drained || had_nothing, "terminated for no reason: {process:?}");
                self.tell(worker, Told::ToTerminate);
            }
            Action::NotReadyInTime(worker) => {
                let process = &self.processes[&worker];
                assert!(!process.ready && now >= process.started + POLICY.start_timeout, "{process:?}");
            }
            Action::Kill(worker) => {
                let process = &self.processes[&worker];
                let overdue = !process.ready && now >= process.started + POLICY.start_timeout;
                let stubborn = process.told.0 == Told::ToTerminate && now >= process.told.1 + TERMINATION_GRACE;
                assert!(process.misbehaved || overdue || stubborn || self.now_or_never, "killed for no reason");
                self.tell(worker, Told::Killed);
            }
            Action::GiveUp(slot) => {
                assert!(!self.processes.values().any(|process| process.ready && process.told.0 == Told::Nothing));
                self.given_up[slot.index()] = true;
            }
            Action::Finished => {
                assert!(self.stopping && self.processes.is_empty(), "finished with {:?}", self.processes);
                self.finished = true;
            }
        }
    }

    fn start(&mut self, slot: usize, worker: WorkerId) {
        assert!(worker.0 > self.youngest, "a number is used twice");
        assert_eq!(self.in_slot(slot), None, "two workers in one slot");
        assert!(!self.stopping && !self.given_up[slot], "nobody is wanted there");
        let now = self.rig.now;
        if let Some(died) = self.died[slot] {
            assert!(now >= died + FIRST_BACK_OFF, "no rest after a death");
        }
        self.youngest = worker.0;
        let process = Process { slot, started: now, ready: false, told: (Told::Nothing, now), misbehaved: false };
        self.processes.insert(worker, process);
    }

    fn tell(&mut self, worker: WorkerId, what: Told) {
        let now = self.rig.now;
        let told = &mut self.processes.get_mut(&worker).expect("a living process").told;
        assert!(what > told.0, "told {what:?} after {told:?}");
        *told = (what, now);
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Wait(time) => self.wait(time),
            Happening::GetsReady(slot) => {
                let Some(worker) = self.in_slot(slot) else { return };
                let process = self.processes.get_mut(&worker).expect("a living process");
                // What it says after it was told to go is not heeded.
                process.ready |= process.told.0 == Told::Nothing;
                self.observe(Event::Ready(worker));
            }
            Happening::Dies(slot) => self.dies(slot),
            Happening::Misbehaves(slot) => {
                let Some(worker) = self.in_slot(slot) else { return };
                self.processes.get_mut(&worker).expect("a living process").misbehaved = true;
                self.observe(Event::Misbehaved(worker));
            }
            Happening::Leaves(slot, told) => {
                let Some(worker) = self.in_slot(slot) else { return };
                let now = self.rig.now;
                let process = self.processes.get_mut(&worker).expect("a living process");
                if process.told.0 == Told::Nothing {
                    process.told = (Told::ToDrain, now);
                }
                self.observe(if told { Event::Leaving(worker) } else { Event::Left(worker) });
            }
            Happening::Rumour(worker, what) if !self.processes.contains_key(&WorkerId(worker)) => {
                let events = [Event::Ready, Event::Exited, Event::Misbehaved, Event::Leaving, Event::Left];
                self.observe(events[usize::from(what)](WorkerId(worker)));
            }
            Happening::Rumour(..) => {}
            Happening::Stop => {
                self.stopping = true;
                self.observe(Event::Stop);
            }
            Happening::StopNow => {
                (self.stopping, self.now_or_never) = (true, true);
                self.observe(Event::StopNow);
            }
        }
    }

    fn dies(&mut self, slot: usize) {
        if let Some(worker) = self.in_slot(slot) {
            self.processes.remove(&worker);
            self.died[slot] = Some(self.rig.now);
            self.observe(Event::Exited(worker));
        }
    }

    /// Lets time pass as the master does: looks once a tick.
    fn wait(&mut self, time: Duration) {
        let until = self.rig.now + time;
        while self.rig.now < until {
            self.rig.now = (self.rig.now + TICK).min(until);
            self.observe(Event::Tick);
        }
    }

    /// From now on processes do as they should: then every slot must be filled, or everybody be gone.
    fn comes_to_rest(&mut self) {
        let longest = LONGEST_BACK_OFF + POLICY.drain_timeout + POLICY.start_timeout + TERMINATION_GRACE;
        for _ in 0..(longest.as_millis() / TICK.as_millis()) + 8 {
            self.wait(TICK);
            for slot in 0..SLOTS {
                match self.in_slot(slot).map(|worker| self.processes[&worker].told.0) {
                    Some(Told::Nothing) => self.happens(Happening::GetsReady(slot)),
                    Some(Told::Killed) => self.dies(slot),
                    _ => {}
                }
            }
        }
        if self.stopping {
            assert!(self.finished, "not finished: {:?}", self.processes);
        } else {
            let gap = (0..SLOTS)
                .find(|slot| self.rig.pool.ready_worker(Slot(*slot as u16)).is_none() && !self.given_up[*slot]);
            assert_eq!(gap, None, "a slot stays empty: {:?}", self.processes);
        }
        assert!(self.rig.pool.is_settled(), "there is nothing left to wait for");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_slot_is_filled_again(history in prop::collection::vec(happening(), 0..60)) {
        let mut world = World::new();
        world.observe(Event::Tick);
        history.into_iter().for_each(|happening| world.happens(happening));
        world.comes_to_rest();
    }

    #[test]
    fn whatever_happens_before_and_after_stopping_everybody_is_gone_in_the_end(
        before in prop::collection::vec(happening(), 0..30),
        after in prop::collection::vec(prop_oneof![9 => happening(), 1 => Just(Happening::Stop)], 0..30),
        at_once in any::<bool>(),
    ) {
        let mut world = World::new();
        world.observe(Event::Tick);
        before.into_iter().for_each(|happening| world.happens(happening));
        world.happens(Happening::Stop);
        after.into_iter().for_each(|happening| world.happens(happening));
        if at_once && !world.finished {
            world.happens(Happening::StopNow);
        }
        world.comes_to_rest();
    }
}
