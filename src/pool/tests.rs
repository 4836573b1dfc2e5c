//! The life of workers without processes: time and events go in, actions are looked at.

mod care;
mod changes;

use super::place::{FIRST_BACK_OFF, MAX_BACK_OFF};
use super::worker::{LAST_GRACE, TERMINATION_GRACE};
use super::*;

const POLICY: Policy = Policy {
    start_timeout: Duration::from_secs(30),
    drain_timeout: Duration::from_secs(25),
    hang_kill: false,
    max_age: None,
    restarts: None,
};

fn signal(worker: u64) -> Action {
    Action::Signal(WorkerId(worker))
}

fn drain_of(worker: u64) -> Action {
    Action::Drain { worker: WorkerId(worker), within: POLICY.drain_timeout }
}

/// A pool with a clock that the test sets.
#[derive(Clone)]
struct Fixture {
    pool: Pool,
    now: Time,
}

impl Fixture {
    fn new(slots: usize) -> Self {
        Self { pool: Pool::new(slots, POLICY), now: Time::ZERO }
    }

    /// A pool whose first workers, 1 to `slots`, are ready.
    fn ready(slots: usize) -> Self {
        let mut rig = Self::new(slots);
        rig.tick();
        (1..=slots as u64).for_each(|worker| assert_eq!(rig.event(Event::Ready(WorkerId(worker))), []));
        rig
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.pool.step(self.now, event, &mut actions);
        actions
    }

    fn tick(&mut self) -> Vec<Action> {
        self.event(Event::Tick)
    }

    fn pass(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        self.tick()
    }

    /// The worker that takes the slot's clients.
    fn serving(&self, slot: u16) -> Option<WorkerId> {
        match self.pool.standing(Slot(slot)) {
            Availability::Serving(worker) => Some(worker),
            Availability::Pending | Availability::OutOfRotation => None,
        }
    }

    /// The worker dies; yields the time until its replacement is started.
    fn back_off_after_death_of(&mut self, worker: u64) -> Duration {
        assert_eq!(self.event(Event::Exited(WorkerId(worker))), []);
        let (died, step) = (self.now, millis(1));
        while self.pass(step).is_empty() {}
        self.now - died
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn start(slot: u16, worker: u64) -> Action {
    Action::Start { slot: Slot(slot), worker: WorkerId(worker), generation: 0 }
}

#[test]
fn all_slots_are_filled_at_once_and_each_by_one_worker() {
    let mut rig = Fixture::new(3);
    assert_eq!(rig.tick(), [start(0, 1), start(1, 2), start(2, 3)]);
    assert_eq!(rig.tick(), []);
    assert_eq!(rig.pool.state(Slot(1)), SlotState::Starting);
    assert_eq!(rig.serving(1), None);
    assert!(!rig.pool.is_settled(), "a start may time out");
    rig.event(Event::Ready(WorkerId(2)));
    assert_eq!(rig.serving(1), Some(WorkerId(2)));
    rig.event(Event::Ready(WorkerId(1)));
    rig.event(Event::Ready(WorkerId(3)));
    assert!(rig.pool.is_settled());
}

#[test]
fn back_off_doubles_from_death_to_death_up_to_a_bound() {
    let mut rig = Fixture::ready(1);
    let mut waits = Vec::new();
    for worker in 1..=9 {
        waits.push(rig.back_off_after_death_of(worker).as_millis());
        rig.event(Event::Ready(WorkerId(worker + 1)));
    }
    assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
}

#[test]
fn back_off_begins_anew_after_a_good_life_and_only_then() {
    let mut rig = Fixture::ready(1);
    assert_eq!(rig.back_off_after_death_of(1), millis(100));
    rig.event(Event::Ready(WorkerId(2)));
    rig.pass(Duration::from_secs(29));
    assert_eq!(rig.back_off_after_death_of(2), millis(200));
    rig.event(Event::Ready(WorkerId(3)));
    rig.pass(Duration::from_secs(30));
    assert_eq!(rig.back_off_after_death_of(3), millis(100));
}

#[test]
fn a_long_start_is_not_a_good_life() {
    let policy = Policy { start_timeout: Duration::from_secs(3600), ..POLICY };
    let mut rig = Fixture { pool: Pool::new(2, policy), now: Time::ZERO };
    rig.tick();
    rig.event(Event::Ready(WorkerId(2)));
    rig.pass(Duration::from_secs(60));
    assert_eq!(rig.back_off_after_death_of(1), millis(100));
    rig.pass(Duration::from_secs(60));
    assert_eq!(rig.back_off_after_death_of(3), millis(200));
}

#[test]
fn slots_back_off_each_for_itself() {
    let mut rig = Fixture::ready(2);
    assert_eq!(rig.back_off_after_death_of(1), millis(100));
    assert_eq!(rig.back_off_after_death_of(3), millis(200));
    assert_eq!(rig.back_off_after_death_of(2), millis(100));
}

#[test]
fn a_worker_that_is_not_ready_in_time_is_killed_and_replaced() {
    let mut rig = Fixture::new(1);
    rig.tick();
    assert_eq!(rig.pass(POLICY.start_timeout - millis(1)), []);
    assert_eq!(rig.pass(millis(1)), [Action::NotReadyInTime(WorkerId(1)), Action::Kill(WorkerId(1))]);
    assert_eq!(rig.tick(), [], "once");
    assert_eq!(rig.event(Event::Ready(WorkerId(1))), [], "too late");
    assert_eq!(rig.serving(0), None);
    rig.event(Event::Exited(WorkerId(1)));
    assert_eq!(rig.pass(millis(100)), [start(0, 2)]);
}

#[test]
fn a_worker_that_misbehaves_is_killed_once_and_replaced() {
    let mut rig = Fixture::ready(2);
    assert_eq!(rig.event(Event::Misbehaved(WorkerId(1))), [Action::Kill(WorkerId(1))]);
    assert_eq!(rig.event(Event::Misbehaved(WorkerId(1))), []);
    assert_eq!(rig.serving(0), None, "it gets no more connections");
    assert!(rig.pool.is_leaving(WorkerId(1)));
    assert!(rig.pool.was_ready(WorkerId(1)));
    rig.event(Event::Exited(WorkerId(1)));
    assert_eq!(rig.pass(millis(100)), [start(0, 3)]);
}

#[test]
fn a_worker_that_leaves_of_its_own_will_is_replaced_while_it_finishes_within_the_drain_time() {
    for (event, is_no_surprise) in [(Event::Leaving(WorkerId(1)), true), (Event::Left(WorkerId(1)), false)] {
        let mut rig = Fixture::ready(2);
        assert_eq!(rig.event(event), []);
        assert_eq!(rig.pool.standing(Slot(0)), Availability::Pending);
        assert_eq!(rig.pool.is_leaving(WorkerId(1)), is_no_surprise);
        assert_eq!(rig.pass(FIRST_BACK_OFF), [start(0, 3)]);
        rig.event(Event::Ready(WorkerId(3)));
        assert_eq!((rig.serving(0), rig.pool.leaving(Slot(0))), (Some(WorkerId(3)), 1));
        assert!(!rig.pool.is_settled());
        assert_eq!(rig.pass(POLICY.drain_timeout - FIRST_BACK_OFF - millis(1)), []);
        assert_eq!(rig.pass(millis(1)), [Action::Terminate(WorkerId(1))]);
        assert_eq!(rig.event(Event::Exited(WorkerId(1))), []);
        assert!(rig.pool.is_settled());
    }
}

#[test]
fn a_worker_that_has_nothing_left_to_finish_is_ended_before_its_time() {
    let mut rig = Fixture::ready(2);
    assert_eq!(rig.event(Event::Finished(WorkerId(1))), [], "it does not finish");
    rig.event(Event::Leaving(WorkerId(1)));
    assert_eq!(rig.event(Event::Finished(WorkerId(1))), [Action::Terminate(WorkerId(1))]);
    assert_eq!(rig.event(Event::Finished(WorkerId(1))), [], "once");
    assert_eq!(rig.pass(FIRST_BACK_OFF), [start(0, 3)]);
    rig.event(Event::Ready(WorkerId(3)));
    assert_eq!(
        rig.pass(POLICY.drain_timeout - FIRST_BACK_OFF),
        [],
        "what no client sees may take its time, if it minds SIGTERM"
    );
    assert_eq!(rig.pass(TERMINATION_GRACE), [Action::Kill(WorkerId(1))]);
}

#[test]
fn starts_that_fail_are_given_up_when_nobody_is_ready() {
    let mut rig = Fixture::new(2);
    rig.tick();
    let mut given_up = Vec::new();
    // Both slots fail in turn; each is counted for itself.
    for _ in 0..100 {
        for slot in 0..2 {
            if let Some(worker) = rig.pool.worker(Slot(slot), rig.now) {
                given_up.extend(rig.event(Event::Exited(worker.id)));
            }
        }
        rig.pass(Duration::from_secs(1));
    }
    assert_eq!(given_up, [Action::GiveUp(Slot(0)), Action::GiveUp(Slot(1))]);
    assert_eq!(rig.pool.last_worker, 2 * u64::from(MAX_FAILED_STARTS), "no endless loop");
    assert!(rig.pool.is_settled());
}

#[test]
fn starts_that_fail_are_tried_for_ever_while_somebody_is_ready() {
    let mut rig = Fixture::ready(2);
    rig.event(Event::Exited(WorkerId(1)));
    for worker in 3..20 {
        rig.pass(Duration::from_secs(10));
        assert_eq!(rig.pool.worker(Slot(0), rig.now).map(|it| it.id), Some(WorkerId(worker)));
        assert_eq!(rig.event(Event::Exited(WorkerId(worker))), []);
    }
    // The last one that was ready dies: the next failure is one too many.
    rig.event(Event::Exited(WorkerId(2)));
    assert_eq!(rig.pass(Duration::from_secs(10)), [start(0, 20), start(1, 21)]);
    assert_eq!(rig.event(Event::Exited(WorkerId(20))), [Action::GiveUp(Slot(0))]);
}

#[test]
fn a_ready_worker_forgives_the_failed_starts_before_it() {
    let mut rig = Fixture::new(1);
    rig.tick();
    for worker in 1..=20 {
        if worker % u64::from(MAX_FAILED_STARTS) == 0 {
            rig.event(Event::Ready(WorkerId(worker)));
        }
        assert_eq!(rig.event(Event::Exited(WorkerId(worker))), [], "worker {worker}");
        assert_eq!(rig.pass(Duration::from_secs(10)), [start(0, worker + 1)]);
    }
}

#[test]
fn stopping_escalates_from_asking_to_killing() {
    let mut rig = Fixture::ready(1);
    let drain = Action::Drain { worker: WorkerId(1), within: POLICY.drain_timeout };
    assert_eq!(rig.event(Event::Stop), [drain, signal(1)]);
    assert_eq!(rig.pool.state(Slot(0)), SlotState::Draining);
    assert!(rig.pool.is_leaving(WorkerId(1)));
    for (wait, action) in
        [(POLICY.drain_timeout, Action::Terminate(WorkerId(1))), (TERMINATION_GRACE, Action::Kill(WorkerId(1)))]
    {
        assert!(!rig.pool.is_settled(), "{action:?} is to come with time");
        assert_eq!(rig.pass(wait - millis(1)), []);
        assert_eq!(rig.pass(millis(1)), [action]);
    }
    assert!(rig.pool.is_settled(), "only its end is awaited");
    assert_eq!(rig.pass(Duration::from_secs(60)), []);
    assert_eq!(rig.event(Event::Exited(WorkerId(1))), [Action::Finished]);
    assert_eq!(rig.pass(Duration::from_secs(60)), [], "once, and no worker is replaced");
}

#[test]
fn stopping_does_not_drain_those_who_have_no_client() {
    let mut rig = Fixture::new(2);
    rig.tick();
    rig.event(Event::Ready(WorkerId(1)));
    let drain = Action::Drain { worker: WorkerId(1), within: POLICY.drain_timeout };
    assert_eq!(rig.event(Event::Stop), [drain, Action::Terminate(WorkerId(2)), signal(1)]);
    assert_eq!(rig.event(Event::Ready(WorkerId(2))), [], "too late");
    assert_eq!(rig.serving(1), None);
    assert_eq!(rig.event(Event::Exited(WorkerId(2))), []);
    assert_eq!(rig.event(Event::Exited(WorkerId(1))), [Action::Finished]);
}

#[test]
fn a_replaced_worker_is_sent_its_signal_when_its_connections_have_ended_or_a_fifth_of_its_time_is_left() {
    let (old, fifth) = (WorkerId(1), POLICY.drain_timeout / 5);
    let replaced = || {
        let mut rig = Fixture::ready(1);
        rig.event(Event::Reload);
        rig.event(Event::Ready(WorkerId(2)));
        rig
    };
    let mut rig = replaced();
    assert_eq!(rig.pass(4 * fifth - millis(1)), []);
    assert_eq!(rig.pass(millis(1)), [signal(1)]);
    assert_eq!(rig.event(Event::Left(old)), [signal(1)], "the sender knows that it was sent");
    rig.pool.note_signal(old, false);
    assert_eq!(rig.event(Event::Left(old)), []);
    assert_eq!(rig.pass(fifth), [Action::Terminate(old)]);

    let mut rig = replaced();
    assert_eq!(rig.event(Event::Left(old)), [signal(1)], "its connections have ended");
    let mut rig = replaced();
    assert_eq!(rig.event(Event::Stop), [drain_of(2), signal(1), signal(2)], "haft stops meanwhile");
    assert_eq!(rig.pass(POLICY.drain_timeout), [Action::Terminate(old), Action::Terminate(WorkerId(2))]);
}

#[test]
fn a_program_that_is_at_its_end_since_sigterm_does_not_get_it_again() {
    let (old, time) = (WorkerId(1), POLICY.drain_timeout);
    let mut rig = Fixture::ready(1);
    rig.event(Event::Reload);
    rig.event(Event::Ready(WorkerId(2)));
    assert_eq!(rig.pass(time - time / 5), [signal(1)]);
    rig.pool.note_signal(old, true);
    assert_eq!(rig.pass(time / 5), [], "its handler may be one that is called once");
    assert_eq!(rig.pass(TERMINATION_GRACE - millis(1)), []);
    assert_eq!(rig.pass(millis(1)), [Action::Kill(old)]);

    let mut rig = Fixture::ready(1);
    rig.pool.end_by(rig.now, rig.now + time);
    assert_eq!(rig.event(Event::Stop).last(), Some(&signal(1)));
    rig.pool.note_signal(old, true);
    assert_eq!(rig.pass(time - millis(1)), [], "the last tenth is the program's too");
    assert_eq!(rig.pass(millis(1)), [Action::Kill(old)]);
}

#[test]
fn an_operator_at_the_terminal_does_not_wait_for_the_drain_time() {
    let mut rig = Fixture::ready(2);
    rig.event(Event::Reload);
    rig.event(Event::Ready(WorkerId(3)));
    let within = INTERRUPT_TIME;
    let drain = |worker| Action::Drain { worker: WorkerId(worker), within };
    let asked = [drain(3), drain(2), Action::Terminate(WorkerId(4)), signal(1), signal(2), signal(3)];
    let actions = rig.event(Event::Interrupt);
    assert!(asked.iter().all(|action| actions.contains(action)) && actions.len() == asked.len(), "{actions:?}");
    assert!(rig.pool.is_interrupted());
    let ended = [1, 2, 3].map(|worker| Action::Terminate(WorkerId(worker)));
    let actions = rig.pass(within);
    assert!(ended.iter().all(|action| actions.contains(action)), "one that finished before, too: {actions:?}");
}

#[test]
fn stopping_now_kills_those_that_were_sent_a_signal_and_gives_the_others_a_moment() {
    let mut rig = Fixture::new(3);
    rig.tick();
    rig.event(Event::Ready(WorkerId(1)));
    rig.event(Event::Exited(WorkerId(3)));
    rig.event(Event::Stop);
    assert_eq!(rig.event(Event::StopNow), [Action::Terminate(WorkerId(1)), Action::Kill(WorkerId(2))]);
    assert_eq!(rig.pass(LAST_GRACE - millis(1)), []);
    assert_eq!(rig.clone().pass(millis(1)), [Action::Kill(WorkerId(1))]);
    assert_eq!(rig.event(Event::StopNow), [Action::Kill(WorkerId(1))], "a third time");
}

#[test]
fn stopping_now_kills_whatever_they_were_asked_before() {
    let mut rig = Fixture::new(3);
    rig.tick();
    rig.event(Event::Ready(WorkerId(1)));
    rig.event(Event::Exited(WorkerId(3)));
    rig.event(Event::Stop);
    rig.pool.note_signal(WorkerId(1), false);
    assert_eq!(rig.event(Event::StopNow), [Action::Kill(WorkerId(1)), Action::Kill(WorkerId(2))]);
    assert_eq!(rig.event(Event::StopNow), []);
    rig.event(Event::Exited(WorkerId(1)));
    assert_eq!(rig.event(Event::Exited(WorkerId(2))), [Action::Finished]);
}

#[test]
fn an_empty_pool_that_is_stopped_is_finished() {
    let mut rig = Fixture::new(1);
    assert_eq!(rig.event(Event::Stop), [Action::Finished], "before the first worker was started");
    assert_eq!(rig.tick(), []);
}

#[test]
fn words_of_and_about_workers_that_are_gone_change_nothing() {
    let mut rig = Fixture::ready(1);
    rig.event(Event::Exited(WorkerId(1)));
    for event in [Event::Ready, Event::Exited, Event::Misbehaved, Event::Leaving, Event::Left] {
        assert_eq!(rig.event(event(WorkerId(1))), []);
        assert_eq!(rig.event(event(WorkerId(77))), []);
    }
    assert_eq!(rig.pass(millis(100)), [start(0, 2)]);
    rig.event(Event::Ready(WorkerId(1)));
    assert_eq!(rig.pool.state(Slot(0)), SlotState::Starting);
}

#[test]
fn a_stop_is_over_by_its_deadline_whatever_state_its_workers_are_in() {
    let mut rig = Fixture::ready(4);
    let start = rig.now;
    let end = start + Duration::from_secs(5);
    // Worker 1 serves, 2 leaves by itself, 3 was found to be finished, 4 has died and its replacement, 5, starts.
    rig.event(Event::Left(WorkerId(2)));
    rig.event(Event::Left(WorkerId(3)));
    rig.event(Event::Finished(WorkerId(3)));
    rig.event(Event::Exited(WorkerId(4)));
    rig.pass(FIRST_BACK_OFF);
    rig.pool.end_by(rig.now, end);
    // What was accepted before is handed over first.
    rig.pass(Duration::from_secs(2));
    let asked = rig.event(Event::Stop);
    let grace = (end - start - FIRST_BACK_OFF) / 10;
    let within = end - grace - rig.now;
    assert!(asked.contains(&Action::Drain { worker: WorkerId(1), within }), "{asked:?}");
    let terminated = rig.pass(within);
    assert!(terminated.contains(&Action::Terminate(WorkerId(1))), "{terminated:?}");
    let killed = rig.pass(end - rig.now);
    let left = rig
        .pool
        .workers
        .keys()
        .all(|worker| killed.contains(&Action::Kill(*worker)) || terminated.contains(&Action::Kill(*worker)));
    assert!(left, "{killed:?}");
}
