//! Which workers are listened to at once.

use super::*;
use crate::sys::poller::Interest;

/// A channel is polled lazily unless its worker is near its limit, or a client waits for it.
#[test]
fn a_worker_far_from_its_limit_need_not_be_heard_at_once() {
    let (mut rig, mut worker) = node_rig(&["--max-in-flight", "8"], |plan| plan.wait_ready = true);
    let lazily = |rig: &mut Fixture| {
        let (link, listening) = rig.dispatch.listenings().next().expect("a link");
        link.listening = listening;
        assert_eq!(listening.map(|it| it.interest), Some(Interest::Readable));
        (listening.is_some_and(|it| it.lazily), rig.dispatch.is_owed_words())
    };
    let acknowledged = "{\"cmd\":\"NODE_HANDLE_ACK\"}\n";
    worker.say(&mut rig, "\"ready\"\n");
    assert_eq!(lazily(&mut rig), (true, false), "nothing is on its way");
    for host in 0..3 {
        rig.admit(host);
    }
    assert_eq!(lazily(&mut rig), (false, false), "they wait");
    rig.send_all();
    assert_eq!(lazily(&mut rig), (true, true));
    rig.admit(3);
    rig.send_all();
    assert_eq!(lazily(&mut rig), (false, false), "half of what it may have is on its way");
    worker.say(&mut rig, acknowledged);
    assert_eq!(lazily(&mut rig), (true, true));
    worker.say(&mut rig, &acknowledged.repeat(3));
    assert_eq!(lazily(&mut rig), (true, false), "all is acknowledged");
    rig.assert_balance();
}

/// A pause delays no client as long as every slot's worker has something to take; one that has nothing ends it.
#[test]
fn a_pause_is_unnoticed_only_while_every_worker_has_something_to_take() {
    let mut rig = Fixture::new(&["-w", "2", "--max-in-flight", "64"]);
    let slots: Vec<_> = rig.dispatch.slots().collect();
    assert_eq!(rig.dispatch.busy_for(), Duration::ZERO, "there is no worker");
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
