//! What the operator wants of a pool that runs.

use super::*;

fn drain(worker: u64) -> Action {
    Action::Drain { worker: WorkerId(worker), within: POLICY.drain_timeout }
}

fn start_of(slot: u16, worker: u64, generation: u32) -> Action {
    Action::Start { slot: Slot(slot), worker: WorkerId(worker), generation }
}

#[test]
fn a_reload_goes_from_slot_to_slot_as_each_newcomer_proves_itself() {
    let mut rig = Fixture::ready(2);
    assert_eq!(rig.event(Event::Reload), [start_of(0, 3, 1)]);
    assert!(rig.pool.is_reloading());
    assert_eq!(rig.serving(0), Some(WorkerId(1)), "the old one serves until the new one can");
    assert_eq!(rig.event(Event::Ready(WorkerId(3))), [drain(1), start_of(1, 4, 1)]);
    assert_eq!((rig.serving(0), rig.serving(1)), (Some(WorkerId(3)), Some(WorkerId(2))));
    assert_eq!(rig.event(Event::Ready(WorkerId(4))), [drain(2), Action::Reloaded { generation: 1 }]);
    assert!(!rig.pool.is_reloading());
    assert_eq!(rig.pass(POLICY.drain_timeout), [Action::Terminate(WorkerId(1)), Action::Terminate(WorkerId(2))]);
    assert_eq!(rig.pass(TERMINATION_GRACE), [Action::Kill(WorkerId(1)), Action::Kill(WorkerId(2))]);
    rig.event(Event::Exited(WorkerId(1)));
    rig.event(Event::Exited(WorkerId(2)));
    assert!(rig.pool.is_settled());
    assert_eq!(rig.pool.respawned(Slot(0)), 0, "no worker died");
    // A death after it is made good in the new generation, and the next reload gives another.
    rig.event(Event::Exited(WorkerId(3)));
    assert_eq!(rig.pass(millis(100)), [start_of(0, 5, 1)]);
    assert_eq!(rig.event(Event::Reload), [start_of(0, 6, 2)]);
}

#[test]
fn workers_of_every_generation_finish_beside_each_other_each_in_its_own_time() {
    const RELOADS: u32 = 8;
    let mut rig = Fixture::ready(2);
    let step = POLICY.drain_timeout / (2 * RELOADS);
    for generation in 1..=RELOADS {
        let (first, old) = (u64::from(generation) * 2 + 1, u64::from(generation) * 2 - 1);
        assert_eq!(rig.pool.most_workers(), 2 * generation as usize, "no more than there are");
        assert_eq!(rig.event(Event::Reload), [start_of(0, first, generation)]);
        assert_eq!(rig.pool.most_workers(), 2 * generation as usize + 2, "one that is started, one that is to be");
        assert_eq!(rig.event(Event::Ready(WorkerId(first))), [drain(old), start_of(1, first + 1, generation)]);
        let done = [drain(old + 1), Action::Reloaded { generation }];
        assert_eq!(rig.event(Event::Ready(WorkerId(first + 1))), done, "the workers of older generations");
        assert_eq!(rig.pool.leaving(Slot(0)), generation as usize);
        assert_eq!(
            (0..generation).map(|it| rig.pool.generation_of(WorkerId(u64::from(it) * 2 + 1))).collect::<Vec<_>>(),
            (0..generation).map(Some).collect::<Vec<_>>()
        );
        assert_eq!(rig.pass(step), [], "no worker's time is cut short by a later reload");
    }
    // The first generation's is over first.
    let rest = POLICY.drain_timeout - step * RELOADS;
    let ended = |actions: Vec<Action>| -> Vec<Action> {
        actions.into_iter().filter(|action| !matches!(action, Action::Signal(_))).collect()
    };
    assert_eq!(ended(rig.pass(rest)), [Action::Terminate(WorkerId(1)), Action::Terminate(WorkerId(2))]);
    assert_eq!(ended(rig.pass(step)), [3, 4].map(|worker| Action::Terminate(WorkerId(worker))));
}

#[test]
fn a_newcomer_that_fails_ends_the_reload_and_the_old_workers_stay() {
    let (newcomer, old) = (WorkerId(3), WorkerId(1));
    let failed = Action::ReloadFailed { slot: Slot(0), generation: 1 };
    let late: fn(&mut Fixture) -> Vec<Action> = |rig| rig.pass(POLICY.start_timeout);
    let dead: fn(&mut Fixture) -> Vec<Action> = |rig| rig.event(Event::Exited(WorkerId(3)));
    let wrong: fn(&mut Fixture) -> Vec<Action> = |rig| rig.event(Event::Misbehaved(WorkerId(3)));
    for (fault, expected) in [
        (late, vec![Action::NotReadyInTime(newcomer), Action::Kill(newcomer), failed]),
        (dead, vec![failed]),
        (wrong, vec![Action::Kill(newcomer), failed]),
    ] {
        let mut rig = Fixture::ready(2);
        rig.event(Event::Reload);
        let happened = fault(&mut rig);
        assert_eq!(happened, expected);
        assert_eq!(rig.serving(0), Some(old));
        rig.event(Event::Exited(newcomer));
        assert!(rig.pool.is_settled() && !rig.pool.is_reloading());
        assert_eq!(rig.event(Event::Reload), [start_of(0, 4, 2)], "another may follow, under another number");
    }
}

#[test]
fn a_reload_that_fails_half_way_leaves_each_slot_with_what_it_has() {
    let mut rig = Fixture::ready(2);
    rig.event(Event::Reload);
    rig.event(Event::Ready(WorkerId(3)));
    assert_eq!(rig.event(Event::Exited(WorkerId(4))), [Action::ReloadFailed { slot: Slot(1), generation: 1 }]);
    // Each is replaced by its like.
    rig.event(Event::Exited(WorkerId(3)));
    rig.event(Event::Exited(WorkerId(2)));
    assert_eq!(rig.pass(millis(100)), [start_of(0, 5, 1), start_of(1, 6, 0)]);
    let used: std::collections::BTreeSet<u32> = rig.pool.generations().collect();
    assert_eq!(used, [0, 1].into());
}

#[test]
fn an_old_worker_that_dies_in_a_reload_is_not_replaced_beside_the_newcomer() {
    let mut rig = Fixture::ready(1);
    rig.event(Event::Reload);
    rig.event(Event::Exited(WorkerId(1)));
    assert_eq!(rig.pool.standing(Slot(0)), Availability::Pending);
    assert_eq!(rig.pass(Duration::from_secs(1)), []);
    assert_eq!(rig.event(Event::Ready(WorkerId(2))), [Action::Reloaded { generation: 1 }]);
    // And if the newcomer fails, the old generation comes back.
    rig.event(Event::Reload);
    rig.event(Event::Exited(WorkerId(2)));
    assert_eq!(rig.event(Event::Exited(WorkerId(3))), [Action::ReloadFailed { slot: Slot(0), generation: 2 }]);
    assert_eq!(rig.pass(MAX_BACK_OFF), [start_of(0, 4, 1)]);
}

#[test]
fn a_second_request_during_a_reload_changes_nothing_and_stopping_ends_it() {
    let mut rig = Fixture::ready(2);
    rig.event(Event::Reload);
    assert_eq!(rig.event(Event::Reload), []);
    assert_eq!(rig.event(Event::Stop), [drain(1), Action::Terminate(WorkerId(3)), drain(2), signal(1), signal(2)]);
    assert!(!rig.pool.is_reloading());
    assert_eq!(rig.event(Event::Exited(WorkerId(3))), [], "no failure, and no worker is started");
}

#[test]
fn a_new_slot_is_passed_over_until_it_can_serve_and_then_keeps_its_clients() {
    let mut rig = Fixture::ready(1);
    assert_eq!(rig.event(Event::Scale(3)), [start_of(1, 2, 0), start_of(2, 3, 0)]);
    assert_eq!(rig.pool.standing(Slot(1)), Availability::OutOfRotation);
    rig.event(Event::Ready(WorkerId(2)));
    assert_eq!(rig.serving(1), Some(WorkerId(2)));
    rig.event(Event::Exited(WorkerId(2)));
    assert_eq!(rig.pool.standing(Slot(1)), Availability::Pending, "its clients stick to it now");
}

#[test]
fn a_slot_that_is_not_wanted_drains_and_comes_back_as_new() {
    let mut rig = Fixture::ready(3);
    rig.event(Event::Drain(Slot(2)));
    assert_eq!(rig.event(Event::Scale(1)), [drain(2), drain(3)]);
    assert_eq!(rig.pool.standing(Slot(2)), Availability::OutOfRotation);
    assert_eq!(rig.event(Event::Exited(WorkerId(2))), []);
    assert_eq!(rig.pass(Duration::from_secs(1)), [], "no worker is started in it");
    assert_eq!(rig.event(Event::Scale(3)), [start_of(1, 4, 0), start_of(2, 5, 0)]);
    rig.event(Event::Ready(WorkerId(5)));
    assert_eq!(rig.serving(2), Some(WorkerId(5)), "it is drained no more");
    assert_eq!(rig.event(Event::Scale(0)), [], "there is always one");
    assert_eq!(rig.pool.wanted(), 3);
}

#[test]
fn a_drained_slot_keeps_its_worker_and_has_it_replaced() {
    let mut rig = Fixture::ready(2);
    assert_eq!(rig.event(Event::Drain(Slot(0))), []);
    assert_eq!((rig.pool.standing(Slot(0)), rig.pool.state(Slot(0))), (Availability::OutOfRotation, SlotState::Ready));
    rig.event(Event::Exited(WorkerId(1)));
    assert_eq!(rig.pass(millis(100)), [start(0, 3)]);
    rig.event(Event::Ready(WorkerId(3)));
    assert_eq!(rig.pool.standing(Slot(0)), Availability::OutOfRotation);
    rig.event(Event::Undrain(Slot(0)));
    assert_eq!(rig.serving(0), Some(WorkerId(3)));
    assert_eq!(rig.event(Event::Drain(Slot(9))), []);
}

#[test]
fn a_hung_worker_is_passed_over_until_it_recovers_or_killed_if_that_is_wanted() {
    let mut rig = Fixture::ready(2);
    assert_eq!(rig.event(Event::Hung(WorkerId(1))), []);
    assert_eq!(rig.pool.standing(Slot(0)), Availability::OutOfRotation);
    assert!(rig.pool.worker(Slot(0), rig.now).is_some_and(|worker| worker.hung));
    rig.event(Event::Recovered(WorkerId(1)));
    assert_eq!(rig.serving(0), Some(WorkerId(1)));
    rig.pool.set_policy(Policy { hang_kill: true, ..POLICY });
    assert_eq!(rig.event(Event::Hung(WorkerId(1))), [Action::Kill(WorkerId(1))]);
    assert_eq!(rig.pool.standing(Slot(0)), Availability::Pending, "another one is on its way");
    assert_eq!(rig.pass(millis(100)), [start(0, 3)]);
    assert_eq!(rig.event(Event::Hung(WorkerId(1))), [], "it goes anyway");
}

#[test]
fn slots_are_renewed_one_after_another_and_each_keeps_its_worker_until_the_new_one_can_serve() {
    let mut rig = Fixture::ready(3);
    assert_eq!(rig.event(Event::Renew(Slot(2))), [start_of(2, 4, 0)]);
    assert_eq!(rig.event(Event::Renew(Slot(0))), [], "one at a time");
    assert_eq!(rig.event(Event::Renew(Slot(9))), [], "there is no such slot");
    assert!(rig.pool.is_renewing(Slot(0)) && rig.pool.is_renewing(Slot(2)) && !rig.pool.is_renewing(Slot(1)));
    assert_eq!(rig.pool.most_workers(), 5);
    assert_eq!((0..3).filter_map(|slot| rig.serving(slot)).count(), 3);
    assert_eq!(rig.event(Event::Ready(WorkerId(4))), [drain(3), start_of(0, 5, 0)]);
    assert_eq!(rig.event(Event::Ready(WorkerId(5))), [drain(1)]);
    assert!((0..3).all(|slot| !rig.pool.is_renewing(Slot(slot))));
    assert_eq!(rig.pool.respawned(Slot(0)), 0, "nothing died");
    assert_eq!(rig.pool.newest(), 0, "it is no reload");
}

#[test]
fn a_new_worker_that_does_not_become_ready_leaves_the_old_one_where_it_is() {
    let mut rig = Fixture::ready(2);
    assert_eq!(rig.event(Event::Renew(Slot(0))), [start_of(0, 3, 0)]);
    rig.event(Event::Renew(Slot(1)));
    assert_eq!(rig.event(Event::Exited(WorkerId(3))), [Action::RenewalFailed(Slot(0)), start_of(1, 4, 0)]);
    assert_eq!(rig.serving(0), Some(WorkerId(1)));
    let late = rig.pass(POLICY.start_timeout);
    let failed = Action::RenewalFailed(Slot(1));
    assert!(late.contains(&failed) && late.contains(&Action::Kill(WorkerId(4))), "{late:?}");
    assert!(!rig.pool.is_renewing(Slot(0)) && !rig.pool.is_renewing(Slot(1)));
}

#[test]
fn a_reload_waits_for_the_new_worker_of_a_slot_and_renews_all_the_others() {
    let mut rig = Fixture::ready(2);
    rig.event(Event::Renew(Slot(0)));
    rig.event(Event::Renew(Slot(1)));
    assert_eq!(rig.event(Event::Reload), []);
    assert_eq!(rig.event(Event::Exited(WorkerId(3))), [Action::RenewalFailed(Slot(0)), start_of(0, 4, 1)]);
    assert!(rig.pool.is_reloading(), "the old generation's failure is not the new one's");
    assert_eq!(rig.event(Event::Ready(WorkerId(4))), [drain(1), start_of(1, 5, 1)]);
    assert_eq!(rig.event(Event::Ready(WorkerId(5))), [drain(2), Action::Reloaded { generation: 1 }]);
    // A slot without a worker gets a new one anyway.
    rig.event(Event::Exited(WorkerId(4)));
    assert_eq!(rig.event(Event::Renew(Slot(0))), []);
    assert!(!rig.pool.is_renewing(Slot(0)));
    assert_eq!(rig.pass(millis(100)), [start_of(0, 6, 1)]);
}
