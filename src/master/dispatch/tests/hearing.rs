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
