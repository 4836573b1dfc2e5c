//! The service with the workers' ends of real channels in the test's hand.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;

use super::*;
use crate::addr::EndAddr;
use crate::dispatch::link::Link;
use crate::flags::{self, ParseOutcome};
use crate::handover::haft::{FromWorker, MasterEnd, MasterMessage, WorkerEnd};
use haft_sys::allocator::counting::allocations;

const HANG: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(50);

struct Fixture {
    service: Service,
    now: Instant,
    /// By worker number, from 1.
    workers: Vec<WorkerEnd>,
    killed: Vec<WorkerId>,
}

impl Fixture {
    /// As many workers as slots, all ready.
    fn ready(flags: &[&str]) -> Self {
        let words = ["haft"].iter().chain(flags).chain(&["--", "true"]);
        let ParseOutcome::Run(config) = flags::parse_from(words) else { panic!("{flags:?}") };
        let now = Instant::now();
        let service = Service::new(&config, now).expect("a service");
        let mut rig = Self { service, now, workers: Vec::new(), killed: Vec::new() };
        rig.pass(TICK);
        rig
    }

    /// Time passes, looked at as the master does. New workers are ready at once.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now = (self.now + TICK).min(until);
            self.service.tick(self.now);
            while let Some(effect) = self.service.next_effect() {
                match effect {
                    Effect::Act(Action::Start { slot, worker, .. }) => self.start(slot, worker),
                    Effect::Act(Action::Kill(worker)) => {
                        self.killed.push(worker);
                        self.service.exited(worker, self.now);
                    }
                    _ => {}
                }
            }
        }
    }

    fn start(&mut self, slot: Slot, worker: WorkerId) {
        let (end, channel) = MasterEnd::pair().expect("pair");
        self.service.dispatch.attach(Link::haft(worker, slot, end));
        let end = WorkerEnd::new(channel);
        end.send(FromWorker::Ready { limit: 1000, tags: false }).expect("ready");
        self.workers.push(end);
        assert_eq!(self.workers.len() as u64, worker.0);
        self.service.read_channel(worker, self.now);
    }

    /// Clients of so many hosts come.
    fn arrive(&mut self, hosts: std::ops::Range<u32>) {
        for host in hosts {
            let client = EndAddr::Ip(SocketAddr::from((Ipv4Addr::from_bits(host), 1)));
            let key = self.service.dispatch.key(&client);
            let descriptor = UnixStream::pair().expect("pair").0.into();
            let connection = ClientConnection::new(descriptor, 0, (client, EndAddr::Unix), key, self.now);
            self.service.admit(connection, self.now);
        }
        self.service.send(self.now);
    }

    /// The worker receives all that was sent to it and takes it. How many that were, and how often the service asked
    /// for
    /// memory when it learnt of it.
    fn take_counted(&mut self, worker: WorkerId) -> (u64, u64) {
        let mut count = 0;
        let mut below = 0;
        while let Ok(Some(MasterMessage::Connections(entries, _))) = self.workers[worker.0 as usize - 1].receive() {
            count += entries.len() as u64;
            below = entries.last().expect("an entry").sequence + 1;
        }
        if count > 0 {
            let taken = FromWorker::Taken { below, limit: below + 1000, open: 0 };
            self.workers[worker.0 as usize - 1].send(taken).expect("send");
        }
        let (allocations, ()) = allocations(|| self.service.read_channel(worker, self.now));
        (count, allocations)
    }

    /// The worker receives all that was sent to it and takes it. How many that were.
    fn take(&mut self, worker: WorkerId) -> u64 {
        self.take_counted(worker).0
    }

    fn standing(&self, slot: u16) -> Availability {
        self.service.pool.standing(Slot(slot))
    }
}

/// From a connection's arrival to its worker's acknowledgement and the end of our copy.
#[test]
fn once_warm_no_connection_costs_an_allocation() {
    let mut rig = Fixture::ready(&["-w", "2", "--max-in-flight", "64"]);
    let mut served = 0;
    let mut asked = 0;
    for round in 0..100 {
        let clients: Vec<_> = (0..60)
            .map(|host| {
                let client = EndAddr::Ip(SocketAddr::from((Ipv4Addr::from_bits(host), 1)));
                let key = rig.service.dispatch.key(&client);
                let descriptor = UnixStream::pair().expect("pair").0.into();
                ClientConnection::new(descriptor, 0, (client, EndAddr::Unix), key, rig.now)
            })
            .collect();
        let (allocations, ()) = allocations(|| {
            clients.into_iter().for_each(|connection| rig.service.admit(connection, rig.now));
            rig.service.send(rig.now);
        });
        let taken = [WorkerId(1), WorkerId(2)].map(|worker| rig.take_counted(worker));
        if round >= 10 {
            served += taken.iter().map(|(count, _)| count).sum::<u64>();
            asked += allocations + taken.iter().map(|(_, allocations)| allocations).sum::<u64>();
        }
    }
    assert_eq!((served, asked), (90 * 60, 0));
}

#[test]
fn a_worker_that_takes_nothing_is_passed_over_and_taken_in_again_when_it_does() {
    let mut rig = Fixture::ready(&["-w", "2"]);
    rig.arrive(0..20);
    let stuck = rig.service.dispatch.link(WorkerId(1)).expect("a link").in_flight() as u64;
    assert!((1..20).contains(&stuck));
    assert_eq!(rig.take(WorkerId(2)), 20 - stuck);
    rig.pass(HANG - TICK);
    assert_eq!(rig.standing(0), Availability::Serving(WorkerId(1)));
    rig.pass(TICK * 2);
    assert_eq!((rig.standing(0), rig.service.dispatch.ledger.hung), (Availability::OutOfRotation, 1));
    rig.arrive(20..40);
    assert_eq!(rig.take(WorkerId(2)), 20, "all new clients go to the other slot");
    assert_eq!(rig.take(WorkerId(1)), stuck, "what it had is still its own");
    assert_eq!(rig.standing(0), Availability::Serving(WorkerId(1)));
    assert_eq!(rig.service.dispatch.ledger.outstanding(), 0);
    assert_eq!((rig.service.dispatch.ledger.hung, rig.killed.len()), (1, 0));
}

#[test]
fn a_hung_worker_that_is_killed_leaves_what_it_had_to_its_replacement() {
    let mut rig = Fixture::ready(&["-w", "2", "--hang-kill"]);
    rig.arrive(0..20);
    let stuck = rig.service.dispatch.link(WorkerId(1)).expect("a link").in_flight() as u64;
    rig.take(WorkerId(2));
    rig.pass(HANG + Duration::from_secs(1));
    assert_eq!(
        (rig.killed.as_slice(), rig.standing(0)),
        ([WorkerId(1)].as_slice(), Availability::Serving(WorkerId(3)))
    );
    assert_eq!(rig.take(WorkerId(3)), stuck);
    assert_eq!(rig.service.dispatch.ledger.outstanding(), 0);
    assert_eq!(rig.service.dispatch.ledger.hang_kills, 1);
}

#[test]
fn what_the_master_did_not_see_says_nothing_of_a_worker_and_only_that() {
    let mut rig = Fixture::ready(&["-w", "1"]);
    // A rest in which nothing had to be looked at.
    rig.now += Duration::from_secs(3600);
    rig.arrive(0..1);
    // The master is kept from looking for longer than a worker may be silent.
    rig.pass(HANG / 2);
    rig.now += HANG * 5;
    rig.pass(HANG - TICK);
    assert_eq!(rig.service.dispatch.ledger.hung, 0);
    rig.pass(TICK * 3);
    assert_eq!(rig.service.dispatch.ledger.hung, 1);
}

#[test]
fn a_worker_that_has_spoken_and_was_not_heard_is_not_hung() {
    let mut rig = Fixture::ready(&["-w", "1"]);
    rig.arrive(0..3);
    rig.pass(HANG - TICK);
    let taken = FromWorker::Taken { below: 1, limit: 1000, open: 0 };
    rig.workers[0].send(taken).expect("send");
    rig.pass(TICK * 4);
    assert_eq!((rig.service.dispatch.ledger.hung, rig.standing(0)), (0, Availability::Serving(WorkerId(1))));
}

#[test]
fn a_hung_worker_is_taken_in_again_although_by_a_later_configuration_none_ever_hangs() {
    let mut rig = Fixture::ready(&["-w", "2"]);
    rig.arrive(0..20);
    rig.pass(HANG + TICK);
    assert_eq!(rig.standing(0), Availability::OutOfRotation);
    let ParseOutcome::Run(config) = flags::parse_from(["haft", "-w2", "--hang-timeout=0", "--", "true"]) else {
        panic!()
    };
    rig.service.reconfigure(&config);
    assert!(rig.take(WorkerId(1)) > 0);
    assert_eq!(rig.standing(0), Availability::Serving(WorkerId(1)));
}

#[test]
fn a_worker_that_does_not_answer_hangs_and_those_who_wait_for_it_are_rescued() {
    let mut rig = Fixture::ready(&["-w", "3"]);
    rig.service.ping(WorkerId(1), rig.now);
    rig.pass(HANG - TICK);
    assert_eq!((rig.service.dispatch.ledger.hung, rig.service.depends_on_time()), (0, true));
    rig.pass(TICK * 2);
    assert_eq!((rig.service.dispatch.ledger.hung, rig.standing(0)), (1, Availability::OutOfRotation));
    assert_eq!(rig.service.served_by(0, Slot(0)), None);
    for host in 0..30 {
        let client = EndAddr::Ip(SocketAddr::from((Ipv4Addr::from_bits(host), 1)));
        let key = rig.service.dispatch.key(&client);
        let descriptor = UnixStream::pair().expect("pair").0.into();
        assert!(rig.service.dispatch.can_rescue(Slot(0), 0));
        rig.service.rescue(ClientConnection::new(descriptor, 0, (client, EndAddr::Unix), key, rig.now), Slot(0));
    }
    rig.service.send(rig.now);
    let (ledger, taken) = (&rig.service.dispatch.ledger, [WorkerId(2), WorkerId(3)]);
    assert_eq!((ledger.rescued, ledger.accepted(), ledger.outstanding()), (30, 30, 30));
    let taken = taken.map(|worker| rig.take(worker));
    assert!(taken.iter().all(|taken| *taken > 0), "each client in its own order: {taken:?}");
    assert_eq!((taken.iter().sum::<u64>(), rig.service.dispatch.ledger.outstanding()), (30, 0));
    // It finds the ping in its channel, and answers.
    assert!(matches!(rig.workers[0].receive(), Ok(Some(MasterMessage::Ping))));
    rig.workers[0].send(FromWorker::Taken { below: 0, limit: 1000, open: 0 }).expect("send");
    rig.service.read_channel(WorkerId(1), rig.now);
    assert_eq!(rig.standing(0), Availability::Serving(WorkerId(1)));
    assert_eq!(rig.service.served_by(0, Slot(0)), Some(WorkerId(1)));
}

#[test]
fn where_nobody_else_is_ready_nobody_can_be_rescued() {
    let mut rig = Fixture::ready(&["-w", "2"]);
    assert!(rig.service.dispatch.can_rescue(Slot(0), 0));
    rig.service.ping(WorkerId(2), rig.now);
    rig.pass(HANG + TICK);
    assert_eq!((rig.standing(1), rig.service.dispatch.can_rescue(Slot(0), 0)), (Availability::OutOfRotation, false));
    assert!(rig.service.dispatch.can_rescue(Slot(1), 0));
}

/// A program of Node closes its channel while it still serves clients. A peer that sent it something meanwhile (another
/// worker, the master) finds it gone, which must not cost those clients their worker.
#[test]
fn a_program_that_has_closed_its_channel_has_left_although_that_was_learnt_by_sending() {
    use std::io::Write;

    use crate::node::primary::{ClusterPrimary, NodePlan};
    use crate::node::wire::Serialization;
    use crate::sys::listen::{Access, Listener};

    let ParseOutcome::Run(config) = flags::parse_from(["haft", "-w1", "--", "node"]) else { panic!() };
    let now = Instant::now();
    let mut service = Service::new(&config, now).expect("a service");
    service.tick(now);
    let (slot, worker) = (Slot(0), WorkerId(1));
    let plan = NodePlan {
        serialization: Serialization::Json,
        message: None,
        listens: false,
        wait_ready: true,
        relay_messages: false,
        rooms: false,
        redis: None,
        names_sessions: false,
        start_timeout: Duration::from_secs(60),
        backlog: 1,
        server_ports: Vec::new(),
        tells_ports: false,
    };
    let own = Listener::bind(&"127.0.0.1:0".parse().expect("address"), 1, Access::Umask).expect("listener");
    let primary = ClusterPrimary::new(plan, &[own]);
    let (ours, theirs) = crate::sys::scm::stream_pair().expect("pair");
    service.dispatch.attach(Link::node(worker, slot, ours, &primary));
    service.dispatch.node = Some(primary);
    let mut program = UnixStream::from(theirs);
    program.write_all(b"{\"cmd\":\"NODE_CLUSTER\",\"act\":\"online\",\"seq\":0}\n\"ready\"\n").expect("write");
    service.read_channel(worker, now);
    assert_eq!(service.pool.standing(slot), Availability::Serving(worker));
    while service.next_effect().is_some() {}

    // Its last word and its end are there, unread; and something is sent to it.
    program.write_all(b"\"a last word\"\n").expect("write");
    drop(program);
    service.dispatch.link_mut(worker).expect("a link").drain(Duration::from_secs(1), None).expect("it is only noted");
    service.send(now);
    let messages = service.dispatch.node.as_ref().map(|primary| primary.messages);
    assert_eq!(messages, Some(1), "the last word was received");
    assert!(service.dispatch.link(worker).is_some_and(|link| link.has_ended()));
    while let Some(effect) = service.next_effect() {
        assert!(!matches!(effect, Effect::Act(Action::Kill(_))), "it is left to finish");
    }
}

/// Another operator's Ctrl-C, in the middle of a reload.
#[test]
fn a_worker_that_finishes_hears_that_it_has_less_time() {
    let mut rig = Fixture::ready(&["-w", "1", "--drain-timeout", "1h"]);
    rig.service.observe(Event::Reload, rig.now);
    rig.pass(TICK);
    let mut times = Vec::new();
    rig.service.observe(Event::Interrupt, rig.now);
    while let Some(received) = rig.workers[0].receive().expect("receive") {
        if let MasterMessage::Drain { within_ms } = received {
            times.push(within_ms);
        }
    }
    assert_eq!(times, [3_600_000, 1000]);
}

impl Service {
    /// A connection has come, is counted, and is assigned at once.
    pub(super) fn admit(&mut self, connection: ClientConnection, now: Instant) {
        self.dispatch.ledger.accept();
        self.assign(connection, now);
    }
}
