//! Connections of sessions: where they go when the worker that they are for ends.

use super::*;
use crate::route::Tag;

/// Its sessions are lost then, but waiting clients go to a worker that can answer them.
#[test]
fn what_waited_for_a_worker_beside_its_slot_goes_on_when_it_ends() {
    let mut rig = Fixture::new(&["-w", "2", "--affinity", "session"]);
    let (end, channel) = MasterEnd::pair().expect("pair");
    let (worker, old) = (WorkerEnd::new(channel), WorkerId(7));
    rig.dispatch.attach(Link::haft(old, Slot(0), end));
    worker.send(FromWorker::Ready { limit: 0, tags: true }).expect("ready");
    rig.dispatch.receive(old, &mut Vec::new(), rig.now).expect("a link").1.expect("no violation");
    rig.start(Slot(1), 10);
    rig.dispatch.stand(Slot(0), Availability::OutOfRotation);
    let (client, descriptor) = (EndAddr::Unix, UnixStream::pair().expect("pair").0.into());
    let mut connection = ClientConnection::new(descriptor, 0, (client, EndAddr::Unix), Key::ANYONE, rig.now);
    connection.goal = RouteBy::Session(Tag { slot: Slot(0), generation: 0 });
    assert_eq!(rig.dispatch.admit(connection, rig.now), Some(Slot(0)));
    assert_eq!(rig.dispatch.held_for(Slot(0)), 0, "it waits for the worker alone");
    rig.dispatch.detach(old, rig.now);
    assert_eq!(rig.dispatch.take_grown(), [Slot(1)]);
    assert_eq!(rig.dispatch.held_for(Slot(1)), 1);
    rig.assert_balance();
}

/// After DRAIN it takes no more connections, and its preload ends the sessions that are left: it needs time for that.
#[test]
fn a_program_of_node_ends_its_sessions_by_the_preload_when_it_has_lingered() {
    let (mut rig, mut worker) = node_rig(&["--affinity", "session"], |plan| plan.wait_ready = true);
    assert!(!rig.dispatch.link_mut(worker.worker).expect("a link").ends_sessions(), "without the preload it cannot");
    worker.say(&mut rig, "{\"cmd\":\"NODE_HAFT\",\"act\":\"tags\"}\n\"ready\"\n");
    let (now, within, rest) = (rig.now, Duration::from_secs(25), Duration::from_secs(2));
    let link = rig.dispatch.link_mut(worker.worker).expect("a link");
    assert_eq!((link.takes_sessions(), link.ends_sessions()), (true, true));
    link.linger(now + within, rest, now).expect("sent");
    assert_eq!(link.lingered(false, now + within - Duration::from_millis(1)), None);
    assert!(link.takes_sessions());
    assert_eq!(link.lingered(false, now + within), Some(rest));
    link.drain(rest, None).expect("sent");
    assert!(!link.takes_sessions());

    let (end, _channel) = MasterEnd::pair().expect("pair");
    assert!(Link::haft(WorkerId(7), Slot(0), end).ends_sessions());
}

/// It names its sessions, so that it need not announce when it has none.
#[test]
fn a_worker_that_names_its_sessions_lingers_until_the_last_has_ended() {
    let (mut rig, mut worker) = node_rig(&["--affinity", "session", "--node-style", "socket.io-sticky"], |plan| {
        plan.names_sessions = true;
    });
    let named = |what: &str| format!("{{\"type\":\"sticky:{what}\",\"data\":\"a\"}}\n");
    worker.say(&mut rig, &named("connection"));
    let (now, within) = (rig.now, Duration::from_secs(25));
    let link = rig.dispatch.link_mut(worker.worker).expect("a link");
    assert!(link.takes_sessions());
    link.linger(now + within, Duration::ZERO, now).expect("sent");
    assert_eq!(link.lingered(false, now), None);
    worker.say(&mut rig, &named("disconnection"));
    let link = rig.dispatch.link_mut(worker.worker).expect("a link");
    // One that was sent to it is about to open a session.
    link.opening(now);
    assert_eq!(link.lingered(false, now), None);
    assert_eq!(link.lingered(false, now + Duration::from_secs(10)), Some(Duration::from_secs(15)));
    assert_eq!(link.lingered(true, now), None, "it was sent once");
}
