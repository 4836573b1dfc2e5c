//! Workers that are replaced though they serve, and slots whose workers end too often.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn aged(slots: usize) -> Fixture {
    let mut rig = Fixture::ready(slots);
    rig.pool.set_policy(Policy { max_age: Some(HOUR), ..POLICY });
    rig
}

fn starts(actions: &[Action]) -> Vec<(u16, u64)> {
    let started = |action: &Action| match action {
        Action::Start { slot, worker, .. } => Some((slot.0, worker.0)),
        _ => None,
    };
    actions.iter().filter_map(started).collect()
}

fn replaced(rig: &Fixture, slot: u16, cause: Cause) -> u64 {
    rig.pool.replaced(Slot(slot))[cause as usize]
}

#[test]
fn a_worker_that_is_too_large_serves_until_the_new_one_can() {
    let mut rig = Fixture::ready(3);
    rig.now += HOUR;
    let actions = rig.event(Event::TooLarge(WorkerId(2), 700));
    let renewing = Action::Renewing { slot: Slot(1), worker: WorkerId(2), why: Renewal::Memory(700), age: HOUR };
    assert_eq!(actions, [start(1, 4), renewing]);
    assert_eq!(rig.event(Event::TooLarge(WorkerId(3), 800)), [], "one slot at a time");
    assert_eq!(rig.event(Event::TooLarge(WorkerId(2), 900)), [], "it is being done");
    assert_eq!((0..3).filter_map(|slot| rig.serving(slot)).count(), 3, "all serve");
    let actions = rig.event(Event::Ready(WorkerId(4)));
    assert_eq!((actions[0], starts(&actions)), (drain_of(2), vec![(2, 5)]));
    assert_eq!((replaced(&rig, 1, Cause::Memory), rig.pool.respawned(Slot(1))), (1, 0));
    rig.event(Event::Ready(WorkerId(5)));
    rig.now += Duration::from_secs(3);
    assert_eq!(rig.event(Event::TooLarge(WorkerId(4), 700)), [], "the worker before has not left");
    assert_eq!(starts(&rig.event(Event::Exited(WorkerId(2)))), [(1, 6)]);
    assert_eq!(rig.event(Event::TooLarge(WorkerId(2), 700)), [], "it is there no more");
}

#[test]
fn a_program_that_is_always_too_large_is_not_replaced_all_the_time() {
    let mut rig = Fixture::ready(1);
    let (mut incumbent, mut begun) = (1, Vec::new());
    let mut since = rig.now;
    while rig.now < 4 * HOUR {
        rig.now += Duration::from_secs(2);
        if let [(_, next)] = starts(&rig.event(Event::TooLarge(WorkerId(incumbent), 1)))[..] {
            begun.push((rig.now - since).as_secs());
            since = rig.now;
            rig.event(Event::Ready(WorkerId(next)));
            rig.event(Event::Exited(WorkerId(incumbent)));
            incumbent = next;
        }
    }
    assert_eq!(begun[..9], [2, 10, 20, 40, 80, 160, 320, 600, 600]);
    // One that had lived long begins anew.
    rig.now += HOUR;
    let [(_, next)] = starts(&rig.event(Event::TooLarge(WorkerId(incumbent), 1)))[..] else { panic!("replaced") };
    rig.event(Event::Ready(WorkerId(next)));
    rig.event(Event::Exited(WorkerId(incumbent)));
    rig.now += Duration::from_secs(2);
    assert_eq!(starts(&rig.event(Event::TooLarge(WorkerId(next), 1))).len(), 1);
}

#[test]
fn workers_are_replaced_at_their_age_or_up_to_a_tenth_sooner_and_not_all_at_once() {
    let mut ages = Vec::new();
    for seed in 0..50 {
        let mut rig = aged(4);
        rig.pool.set_seed(seed);
        rig.now = HOUR - HOUR / 10 - Duration::from_secs(1);
        assert_eq!(rig.event(Event::CheckAges), [], "{seed}");
        let mut left: Vec<u64> = vec![1, 2, 3, 4];
        while !left.is_empty() {
            rig.now += Duration::from_secs(2);
            assert!(rig.now <= HOUR + Duration::from_secs(8), "{seed}: {left:?}");
            let mut actions = rig.event(Event::CheckAges);
            while let Some(at) = actions.iter().position(|action| matches!(action, Action::Renewing { .. })) {
                let Action::Renewing { worker, why: Renewal::Age(lived), age, .. } = actions[at] else {
                    panic!("{actions:?}")
                };
                assert_eq!((lived, starts(&actions).len()), (age, 1));
                ages.push(age);
                left.retain(|id| *id != worker.0);
                let (_, next) = starts(&actions)[0];
                actions = rig.event(Event::Ready(WorkerId(next)));
            }
        }
        assert!((0..4).all(|slot| replaced(&rig, slot, Cause::Age) == 1));
    }
    let spread = *ages.iter().max().expect("ages") - *ages.iter().min().expect("ages");
    assert!(spread > HOUR / 15, "{spread:?}");
}

#[test]
fn each_slot_has_its_turn_where_workers_age_sooner_than_all_can_be_replaced() {
    let mut rig = Fixture::ready(5);
    rig.pool.set_policy(Policy { max_age: Some(Duration::from_secs(1)), ..POLICY });
    let mut newcomer = None;
    for _ in 0..40 {
        rig.now += Duration::from_secs(2);
        let mut actions = newcomer.take().map_or_else(Vec::new, |next| rig.event(Event::Ready(WorkerId(next))));
        actions.extend(rig.event(Event::CheckAges));
        for worker in 1..=60 {
            if rig.pool.is_leaving(WorkerId(worker)) {
                actions.extend(rig.event(Event::Exited(WorkerId(worker))));
            }
        }
        newcomer = starts(&actions).first().map(|(_, worker)| *worker);
    }
    assert!((0..5).all(|slot| replaced(&rig, slot, Cause::Age) >= 2), "{:?}", rig.pool.replaced(Slot(4)));
}

#[test]
fn a_new_worker_that_does_not_become_ready_is_not_tried_again_at_once() {
    let mut rig = Fixture::ready(1);
    let mut tries = Vec::new();
    let begun = rig.now;
    for _ in 0..600 {
        rig.now += Duration::from_secs(1);
        if let [(_, next)] = starts(&rig.event(Event::TooLarge(WorkerId(1), 1)))[..] {
            tries.push((rig.now - begun).as_secs());
            assert_eq!(rig.event(Event::Exited(WorkerId(next))), [Action::RenewalFailed(Slot(0))]);
        }
        assert_eq!(rig.serving(0), Some(WorkerId(1)));
    }
    assert_eq!(tries, [1, 11, 31, 71, 151, 311]);
    assert_eq!(rig.pool.replaced(Slot(0)), [0; 6]);
}

#[test]
fn what_is_replaced_for_other_reasons_is_counted_by_them() {
    let mut rig = Fixture::ready(2);
    rig.event(Event::Renew(Slot(0)));
    rig.event(Event::Ready(WorkerId(3)));
    rig.event(Event::Reload);
    rig.event(Event::TooLarge(WorkerId(3), 1));
    rig.event(Event::Ready(WorkerId(4)));
    rig.event(Event::Ready(WorkerId(5)));
    rig.pool.set_policy(Policy { hang_kill: true, ..POLICY });
    rig.event(Event::Hung(WorkerId(5)));
    rig.event(Event::Exited(WorkerId(4)));
    rig.pass(millis(100));
    let counts = |slot| Cause::ALL.map(|cause| replaced(&rig, slot, cause));
    // ended, hung, memory, age, restart, reload
    assert_eq!((counts(0), counts(1)), ([1, 0, 0, 0, 1, 1], [0, 1, 0, 0, 0, 1]));
}

#[test]
fn a_worker_that_fails_its_health_check_is_passed_over_unless_none_passes() {
    let mut rig = Fixture::ready(2);
    assert_eq!(rig.event(Event::Unhealthy(WorkerId(1))), []);
    assert_eq!((rig.serving(0), rig.serving(1)), (None, Some(WorkerId(2))));
    assert!(rig.pool.worker(Slot(0), rig.now).is_some_and(|worker| worker.hung));
    rig.event(Event::Hung(WorkerId(1)));
    rig.event(Event::Healthy(WorkerId(1)));
    assert_eq!(rig.serving(0), None, "it still acknowledges nothing");
    rig.event(Event::Unhealthy(WorkerId(1)));
    rig.event(Event::Recovered(WorkerId(1)));
    rig.event(Event::Unhealthy(WorkerId(2)));
    assert_eq!((rig.serving(0), rig.serving(1)), (Some(WorkerId(1)), Some(WorkerId(2))), "no other is better");
    assert_eq!(rig.pool.accepting(Slot(0)), Some(WorkerId(1)));
    rig.event(Event::Hung(WorkerId(1)));
    assert_eq!((rig.serving(0), rig.serving(1)), (None, Some(WorkerId(2))), "one that takes nothing is worse");
    rig.event(Event::Healthy(WorkerId(2)));
    assert_eq!((rig.serving(0), rig.pool.accepting(Slot(0))), (None, None));
    rig.event(Event::Unhealthy(WorkerId(2)));
    rig.event(Event::Drain(Slot(1)));
    assert_eq!(rig.serving(1), None, "a drained slot is left alone");
    rig.pool.set_policy(Policy { hang_kill: true, ..POLICY });
    assert_eq!(rig.event(Event::Unhealthy(WorkerId(2))), [Action::Kill(WorkerId(2))]);
}

fn limited(slots: usize, then: GiveUp) -> Fixture {
    let mut rig = Fixture::ready(slots);
    let limit = RestartLimit { most: 2, within: Duration::from_secs(60), then };
    rig.pool.set_policy(Policy { restarts: Some(limit), ..POLICY });
    rig
}

/// The slot's worker ends; yields what follows, the next one's start included, and its number.
fn end(rig: &mut Fixture, worker: u64) -> (Vec<Action>, Option<u64>) {
    let mut actions = rig.event(Event::Exited(WorkerId(worker)));
    actions.extend(rig.pass(MAX_BACK_OFF));
    let next = starts(&actions).first().map(|(_, worker)| *worker);
    next.into_iter().for_each(|next| drop(rig.event(Event::Ready(WorkerId(next)))));
    actions.retain(|action| !matches!(action, Action::Start { .. }));
    (actions, next)
}

#[test]
fn a_slot_whose_workers_end_too_often_is_kept_out_until_the_operator_wants_it() {
    let mut rig = limited(2, GiveUp::Out);
    let (actions, next) = end(&mut rig, 1);
    assert_eq!((actions, next), (vec![], Some(3)));
    assert_eq!(end(&mut rig, 3), (vec![], Some(4)));
    assert_eq!(end(&mut rig, 4), (vec![Action::KeptOut(Slot(0))], None));
    assert_eq!(rig.pool.standing(Slot(0)), Availability::OutOfRotation);
    assert!(rig.pool.is_kept_out(Slot(0)) && rig.pool.is_settled());
    assert_eq!((rig.pass(HOUR), rig.pool.most_workers()), (vec![], 1));
    // The last one is never given up.
    for worker in [2, 5, 6, 7] {
        assert_eq!(end(&mut rig, worker), (vec![], Some(if worker == 2 { 5 } else { worker + 1 })));
    }
    assert_eq!(starts(&rig.event(Event::Renew(Slot(0)))), [(0, 9)]);
    rig.event(Event::Ready(WorkerId(9)));
    assert_eq!((rig.serving(0), rig.pool.is_kept_out(Slot(0))), (Some(WorkerId(9)), false));
    assert_eq!(end(&mut rig, 9), (vec![], Some(10)), "it is judged anew");
}

#[test]
fn a_reload_and_a_new_slot_of_the_same_number_take_a_slot_back() {
    let mut rig = limited(2, GiveUp::Out);
    for worker in [2, 3, 4] {
        end(&mut rig, worker);
    }
    assert!(rig.pool.is_kept_out(Slot(1)));
    rig.event(Event::Reload);
    rig.event(Event::Ready(WorkerId(5)));
    rig.event(Event::Ready(WorkerId(6)));
    assert_eq!((rig.serving(1), rig.pool.is_kept_out(Slot(1))), (Some(WorkerId(6)), false));
    rig.now += HOUR;
    for worker in [6, 7, 8] {
        end(&mut rig, worker);
    }
    assert!(rig.pool.is_kept_out(Slot(1)));
    rig.event(Event::Scale(1));
    assert_eq!(starts(&rig.event(Event::Scale(2))), [(1, 9)]);
}

#[test]
fn ends_that_are_long_past_do_not_count() {
    let mut rig = limited(2, GiveUp::Out);
    let mut worker = 1;
    for _ in 0..20 {
        rig.now += Duration::from_secs(21);
        let (actions, next) = end(&mut rig, worker);
        assert_eq!(actions, []);
        worker = next.expect("another");
    }
}

#[test]
fn haft_stops_where_that_is_wanted() {
    let mut rig = limited(2, GiveUp::Exit);
    end(&mut rig, 1);
    end(&mut rig, 3);
    assert_eq!(end(&mut rig, 4), (vec![Action::TooManyRestarts(Slot(0))], None));
    assert_eq!(rig.event(Event::Stop), [drain_of(2), signal(2)]);
    assert_eq!(rig.event(Event::Exited(WorkerId(2))), [Action::Finished]);
}
