//! Connections of sessions: where they go when the worker that they are for ends.

use std::os::fd::AsFd;

use super::*;
use crate::handover::haft::Passed;
use crate::route::Tag;

/// The last that a worker does before it ends may be to pass a connection on.
#[test]
fn what_a_worker_passed_on_with_its_last_words_is_admitted() {
    let mut rig = Rig::new(&["-w", "2", "--affinity", "session"]);
    let (end, channel) = MasterEnd::pair().expect("pair");
    let (worker, dying) = (WorkerEnd::new(channel), WorkerId(7));
    rig.dispatch.attach(Link::haft(dying, Slot(0), end));
    worker.send(FromWorker::Ready { limit: 10, tags: true }).expect("ready");
    rig.start(Slot(1), 10);
    let client = EndAddr::Ip(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
    let tag = Tag { slot: Slot(1), generation: 0 };
    let (connection, _client) = UnixStream::pair().expect("pair");
    worker.pass(Passed { listener: 0, tag, client, local: EndAddr::Unix }, connection.as_fd()).expect("passed");
    drop(worker);
    rig.dispatch.detach(dying, rig.now);
    assert_eq!(rig.dispatch.take_grown(rig.now), [Slot(1)]);
    assert_eq!((rig.dispatch.ledger.passed, rig.dispatch.held()), (1, 1));
    rig.assert_balance();
}

/// Its sessions are lost then, but who waits goes where somebody can say so, and is sent there.
#[test]
fn what_waited_for_a_worker_beside_its_slot_goes_on_when_it_ends() {
    let mut rig = Rig::new(&["-w", "2", "--affinity", "session"]);
    let (end, channel) = MasterEnd::pair().expect("pair");
    let (worker, old) = (WorkerEnd::new(channel), WorkerId(7));
    rig.dispatch.attach(Link::haft(old, Slot(0), end));
    worker.send(FromWorker::Ready { limit: 0, tags: true }).expect("ready");
    rig.dispatch.receive(old, &mut Vec::new(), rig.now).expect("a link").1.expect("no violation");
    rig.start(Slot(1), 10);
    rig.dispatch.stand(Slot(0), Standing::Bypassed);
    let (client, descriptor) = (EndAddr::Unix, UnixStream::pair().expect("pair").0.into());
    let mut connection = Connection::new(descriptor, 0, (client, EndAddr::Unix), Key::ANYONE, rig.now);
    connection.goal = Goal::Session(Tag { slot: Slot(0), generation: 0 });
    assert_eq!(rig.dispatch.admit(connection, rig.now), Some(Slot(0)));
    assert_eq!(rig.dispatch.held_for(Slot(0)), 0, "it waits for the worker alone");
    rig.dispatch.detach(old, rig.now);
    assert_eq!(rig.dispatch.take_grown(rig.now), [Slot(1)]);
    assert_eq!(rig.dispatch.held_for(Slot(1)), 1);
    rig.assert_balance();
}
