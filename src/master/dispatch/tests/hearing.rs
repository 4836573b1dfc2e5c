//! Which workers are listened to at once.

use super::*;
use crate::sys::poller::Interest;

/// Of a Node worker that has several connections to acknowledge, only its end is waited for; but as soon as it is near
/// its limit, or somebody waits for it, or it is quiet again, its words are.
#[test]
fn a_node_worker_far_from_its_limit_need_not_be_waited_for() {
    let (mut rig, mut worker) = node_rig(&["--max-in-flight", "8"], |plan| plan.wait_ready = true);
    let interest = |rig: &mut Rig, busy| {
        let (link, interest) = rig.dispatch.interests(busy).next().expect("a link");
        link.interest = interest;
        let unheard = [false, true].map(|all| rig.dispatch.unheard(all).count());
        (interest, unheard)
    };
    let acknowledged = "{\"cmd\":\"NODE_HANDLE_ACK\"}\n";
    worker.say(&mut rig, "\"ready\"\n");
    assert_eq!(interest(&mut rig, true), (Some(Interest::Readable), [0, 0]), "nothing is on its way");
    for host in 0..3 {
        rig.admit(host);
    }
    assert_eq!(interest(&mut rig, true), (Some(Interest::Readable), [0, 0]), "they wait");
    rig.send_all();
    assert_eq!(interest(&mut rig, false), (Some(Interest::Readable), [0, 0]), "there is time for each word");
    assert_eq!(interest(&mut rig, true), (Some(Interest::HangUp), [0, 1]));
    rig.admit(3);
    rig.send_all();
    assert_eq!(rig.dispatch.unheard(false).count(), 1, "half of what it may have is on its way");
    assert_eq!(interest(&mut rig, true), (Some(Interest::Readable), [0, 0]), "as it is after listening in vain");
    worker.say(&mut rig, acknowledged);
    assert_eq!(interest(&mut rig, true), (Some(Interest::HangUp), [0, 1]));
    worker.say(&mut rig, &acknowledged.repeat(3));
    assert_eq!(interest(&mut rig, true), (Some(Interest::Readable), [0, 0]), "all is acknowledged");
    rig.assert_balance();
}

/// Nobody is kept waiting by a pause as long as every slot's worker has something to take; one that has nothing ends it.
#[test]
fn a_pause_is_unnoticed_only_while_every_worker_has_something_to_take() {
    let mut rig = Rig::new(&["-w", "2", "--max-in-flight", "64"]);
    let slots: Vec<_> = rig.dispatch.slots().collect();
    assert_eq!(rig.dispatch.busy_for(), Duration::ZERO, "nobody is there");
    for slot in &slots {
        rig.start(*slot, u64::MAX);
    }
    for host in 0..80 {
        rig.admit(host);
        if host % 10 == 9 {
            rig.send_all();
        }
    }
    // Each takes a frame of several every 10 ms, and has more.
    for _ in 0..4 {
        for slot in &slots {
            rig.receive(*slot);
            rig.speak(*slot, 1000);
        }
        rig.now += Duration::from_millis(10);
    }
    let busy = rig.dispatch.busy_for();
    assert!(busy > Duration::from_millis(1), "{busy:?}");
    while rig.dispatch.link(WorkerId(1)).is_some_and(|link| link.in_flight() > 0) {
        rig.receive(slots[0]);
        rig.speak(slots[0], 1000);
    }
    assert_eq!(rig.dispatch.busy_for(), Duration::ZERO, "one has taken all");
    rig.assert_balance();
}
