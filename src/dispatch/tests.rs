//! The queues of slots and the links behind them, with the workers' ends of real channels in the test's hand.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use proptest::prelude::*;

use super::*;
use crate::addr::EndAddr;
use crate::flags::{self, ParseOutcome};
use crate::handover::haft::{FromWorker, MasterEnd, MasterMessage, WorkerEnd};
use crate::node::primary::NodePlan;
use crate::node::wire::{ConnectionMessage, Serialization};
use haft_sys::allocator::counting::allocations;

mod hearing;
mod sessions;

const HOLD: Duration = Duration::from_secs(5);

/// A worker that sends what the test makes it send.
struct FakeWorker {
    id: WorkerId,
    end: WorkerEnd,
    /// First sequence number that it has not received, and not acknowledged.
    received: u64,
    taken: u64,
}

struct Fixture {
    dispatch: Dispatch,
    workers: Vec<Option<FakeWorker>>,
    started: u64,
    now: Instant,
}

impl Fixture {
    fn new(flags: &[&str]) -> Self {
        let words = ["haft", "--hold-timeout", "5s"].into_iter().chain(flags.iter().copied()).chain(["--", "true"]);
        let ParseOutcome::Run(config) = flags::parse_from(words) else { panic!("{flags:?}") };
        let workers = (0..config.workers).map(|_| None).collect();
        Self { dispatch: Dispatch::new(&config).expect("slots"), workers, started: 0, now: Instant::now() }
    }

    /// A connection from this host.
    fn admit(&mut self, host: u32) -> Option<Slot> {
        let client = EndAddr::Ip(SocketAddr::from((Ipv4Addr::from_bits(host), 1)));
        let descriptor: OwnedFd = UnixStream::pair().expect("pair").0.into();
        let key = self.dispatch.key(&client);
        self.dispatch.admit(ClientConnection::new(descriptor, 0, (client, EndAddr::Unix), key, self.now), self.now)
    }

    /// The order of slots of a host.
    fn order(&self, host: u32) -> Vec<Slot> {
        let client = EndAddr::Ip(SocketAddr::from((Ipv4Addr::from_bits(host), 1)));
        self.dispatch.table.order(self.dispatch.key(&client)).collect()
    }

    /// Fills a slot with a worker that is ready for so many.
    fn start(&mut self, slot: Slot, limit: u64) {
        self.started += 1;
        let (end, channel) = MasterEnd::pair().expect("pair");
        let puppet = FakeWorker { id: WorkerId(self.started), end: WorkerEnd::new(channel), received: 0, taken: 0 };
        self.dispatch.attach(Link::haft(puppet.id, slot, end));
        puppet.end.send(FromWorker::Ready { limit, tags: false }).expect("ready");
        self.dispatch.receive(puppet.id, &mut Vec::new(), self.now).expect("a link").1.expect("ready");
        self.dispatch.stand(slot, Availability::Serving(puppet.id));
        self.workers[slot.index()] = Some(puppet);
    }

    fn die(&mut self, slot: Slot) {
        if let Some(puppet) = self.workers[slot.index()].take() {
            self.dispatch.detach(puppet.id, self.now);
        }
    }

    fn send_all(&mut self) {
        for slot in self.dispatch.slots() {
            let failed = self.dispatch.send(slot, self.now);
            assert!(failed.is_none(), "{failed:?}");
        }
    }

    /// The worker of a slot receives one frame.
    fn receive(&mut self, slot: Slot) {
        if let Some(puppet) = &mut self.workers[slot.index()]
            && let Some(MasterMessage::Connections(entries, _)) = puppet.end.receive().expect("receive")
        {
            puppet.received += entries.len() as u64;
        }
    }

    /// It answers for what it has received: it takes all, or takes the first part and gives the rest back.
    fn speak(&mut self, slot: Slot, keeps: u64) {
        let Some(puppet) = &mut self.workers[slot.index()] else { return };
        let first = puppet.received.min(puppet.taken + keeps);
        let count = (puppet.received - first) as u32;
        if count > 0 {
            puppet.end.send(FromWorker::Returned { first, count }).expect("send");
        }
        puppet.taken = puppet.received;
        puppet.end.send(FromWorker::Taken { below: puppet.taken, limit: u64::MAX, open: 0 }).expect("send");
        self.dispatch.receive(puppet.id, &mut Vec::new(), self.now).expect("a link").1.expect("no violation");
    }

    fn pass(&mut self, time: Duration) -> Vec<Slot> {
        self.now += time;
        self.dispatch.expire(self.now)
    }

    fn refused(&self, refusal: RejectReason) -> u64 {
        self.dispatch.ledger.refused().find(|(reason, _)| *reason == refusal).expect("a reason").1
    }

    /// Each connection that is not settled is in exactly one place.
    fn assert_balance(&self) {
        let somewhere = self.dispatch.held() + self.dispatch.in_flight();
        assert_eq!(self.dispatch.ledger.outstanding(), somewhere as u64);
    }
}

#[test]
fn past_the_hold_time_a_connection_goes_to_the_next_ready_slot_in_its_order() {
    let mut rig = Fixture::new(&["-w", "4"]);
    let order = rig.order(7);
    [order[2], order[3]].into_iter().for_each(|slot| rig.start(slot, 10));
    assert_eq!(rig.admit(7), Some(order[0]));
    assert_eq!(rig.pass(HOLD - Duration::from_millis(1)), []);
    assert_eq!(rig.pass(Duration::from_millis(1)), [order[2]]);
    rig.send_all();
    assert_eq!((rig.dispatch.held(), rig.dispatch.in_flight()), (0, 1));
}

#[test]
fn a_connection_that_nobody_reads_is_passed_round_once_and_then_refused() {
    let mut rig = Fixture::new(&["-w", "3"]);
    // All are ready, and none has room.
    rig.dispatch.slots().for_each(|slot| rig.start(slot, 0));
    rig.admit(7);
    let mut moves = 0;
    while rig.dispatch.held() > 0 {
        moves += rig.pass(HOLD).len();
        rig.send_all();
        assert!(moves <= 3, "for ever");
        rig.assert_balance();
    }
    assert_eq!((moves, rig.refused(RejectReason::NoWorker)), (3, 1));
}

#[test]
fn a_full_queue_overflows_to_a_ready_slot_and_without_one_is_refused() {
    let mut rig = Fixture::new(&["-w", "2"]);
    let order = rig.order(7);
    (0..MAX_HELD).for_each(|_| assert_eq!(rig.admit(7), Some(order[0])));
    assert_eq!((rig.admit(7), rig.refused(RejectReason::QueueFull)), (None, 1));
    rig.start(order[1], 10);
    assert_eq!(rig.admit(7), Some(order[1]));
    rig.assert_balance();
}

#[test]
fn without_affinity_the_least_loaded_ready_slot_gets_it_and_if_none_is_ready_any() {
    let mut rig = Fixture::new(&["-w", "3", "--affinity", "none"]);
    let mut slots: Vec<Slot> = (0..3).filter_map(|_| rig.admit(7)).collect();
    slots.sort_unstable();
    assert_eq!(slots, rig.dispatch.slots().collect::<Vec<_>>(), "they wait evenly");
    rig.start(Slot(1), 10);
    assert_eq!(rig.admit(7), Some(Slot(1)));
    assert!(rig.pass(HOLD).iter().all(|slot| *slot == Slot(1)));
    rig.die(Slot(1));
    rig.pass(HOLD);
    assert_eq!((rig.dispatch.held(), rig.refused(RejectReason::NoWorker)), (0, 4));
}

/// In a slot that was taken out a connection would never be refused: each look at the slot moves it, and its time
/// begins anew.
#[test]
fn without_affinity_nobody_waits_in_a_slot_that_is_bypassed_while_the_worker_of_another_is_to_come() {
    let mut rig = Fixture::new(&["-w", "2", "--affinity", "none"]);
    rig.dispatch.stand(Slot(0), Availability::OutOfRotation);
    for host in 0..6 {
        assert_eq!(rig.admit(host), Some(Slot(1)));
    }
    let until = rig.now + HOLD;
    while rig.now < until {
        rig.pass(Duration::from_millis(50));
        let now = rig.now;
        rig.dispatch.reassign(Slot(0), now);
    }
    assert_eq!((rig.dispatch.held(), rig.refused(RejectReason::NoWorker)), (0, 6), "past the hold time");
    rig.dispatch.stand(Slot(1), Availability::OutOfRotation);
    assert!(rig.admit(0).is_some(), "where all are bypassed it waits for any");
}

#[test]
fn when_the_master_ends_what_waits_is_refused_and_what_was_sent_is_its_workers() {
    let mut rig = Fixture::new(&["-w", "1"]);
    rig.start(Slot(0), 2);
    (0..5).for_each(|host| assert_eq!(rig.admit(host), Some(Slot(0))));
    rig.send_all();
    rig.dispatch.close(RejectReason::Stopping);
    assert_eq!((rig.refused(RejectReason::Stopping), rig.dispatch.held()), (3, 0));
    rig.receive(Slot(0));
    assert_eq!(rig.workers[0].as_ref().expect("a worker").received, 2);
}

/// What happens in a slot or to the master.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Comes(u32),
    Starts(u16, u64),
    Receives(u16),
    Speaks(u16, u64),
    Dies(u16),
    TimePasses(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => (0..9_u32).prop_map(Happening::Comes),
        2 => (0..3_u16, 0..20_u64).prop_map(|(slot, limit)| Happening::Starts(slot, limit)),
        4 => (0..3_u16).prop_map(Happening::Receives),
        4 => (0..3_u16, 0..4_u64).prop_map(|(slot, keeps)| Happening::Speaks(slot, keeps)),
        1 => (0..3_u16).prop_map(Happening::Dies),
        1 => (0..7_u64).prop_map(Happening::TimePasses),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_each_connection_is_in_one_place_and_settled_once(
        history in prop::collection::vec(happening(), 0..120),
        sticky in any::<bool>(),
    ) {
        let mut rig = Fixture::new(&["-w", "3", "--affinity", if sticky { "ip" } else { "none" }, "--max-in-flight", "5"]);
        for happening in history {
            match happening {
                Happening::Comes(host) => {
                    rig.admit(host);
                }
                Happening::Starts(slot, limit) => {
                    rig.die(Slot(slot));
                    rig.start(Slot(slot), limit);
                }
                Happening::Receives(slot) => rig.receive(Slot(slot)),
                Happening::Speaks(slot, keeps) => rig.speak(Slot(slot), keeps),
                Happening::Dies(slot) => rig.die(Slot(slot)),
                Happening::TimePasses(seconds) => drop(rig.pass(Duration::from_secs(seconds))),
            }
            rig.assert_balance();
            rig.send_all();
            rig.assert_balance();
        }
// Where every slot has a worker that takes all, no connection is left.
        rig.dispatch.slots().for_each(|slot| { rig.die(slot); rig.start(slot, u64::MAX); });
        for _ in 0..200 {
            rig.send_all();
            rig.dispatch.slots().for_each(|slot| {
                rig.receive(slot);
                rig.speak(slot, 5);
            });
        }
        prop_assert_eq!(rig.dispatch.ledger.outstanding(), 0);
    }
}

/// A rig with one slot, whose Node worker takes connections by message; and that worker's end of the channel.
fn node_rig(flags: &[&str], change: impl FnOnce(&mut NodePlan)) -> (Fixture, NodeEnd) {
    use crate::sys::listen::{Access, Listener};

    let mut rig = Fixture::new(&[&["-w", "1"], flags].concat());
    let mut plan = NodePlan {
        serialization: Serialization::Json,
        message: Some(ConnectionMessage::from_json("1").expect("JSON")),
        listens: false,
        wait_ready: false,
        relay_messages: false,
        rooms: false,
        redis: None,
        names_sessions: false,
        start_timeout: Duration::from_secs(60),
        backlog: 1,
        server_ports: Vec::new(),
        tells_ports: false,
    };
    change(&mut plan);
    let own = Listener::bind(&"127.0.0.1:0".parse().expect("address"), 1, Access::Umask).expect("listener");
    let primary = ClusterPrimary::new(plan, &[own]);
    let (ours, theirs) = crate::sys::scm::stream_pair().expect("pair");
    let (slot, worker) = (rig.dispatch.slots().next().expect("a slot"), WorkerId(1));
    rig.dispatch.attach(Link::node(worker, slot, ours, &primary));
    rig.dispatch.node = Some(primary);
    rig.dispatch.stand(slot, Availability::Serving(worker));
    (rig, NodeEnd { worker, channel: theirs.into() })
}

/// A Node worker that sends what the test makes it send.
struct NodeEnd {
    worker: WorkerId,
    channel: UnixStream,
}

impl NodeEnd {
    fn say(&mut self, rig: &mut Fixture, words: &str) -> Vec<WorkerEvent> {
        use std::io::Write;
        let mut news = Vec::new();
        self.channel.write_all(words.as_bytes()).expect("write");
        rig.dispatch.receive(self.worker, &mut news, rig.now).expect("a link").1.expect("no violation");
        news
    }
}

const ONLINE: &str = "{\"cmd\":\"NODE_CLUSTER\",\"act\":\"online\",\"seq\":0}\n";

/// What of a worker's silence makes it ready, and when.
#[test]
fn only_a_program_that_never_listens_is_ready_after_a_short_silence() {
    let query = |act| {
        format!(
            "{{\"cmd\":\"NODE_CLUSTER\",\"act\":\"{act}\",\"index\":0,\"data\":null,\"address\":\"127.0.0.1\",\"port\":0,\
             \"addressType\":4,\"seq\":1}}\n"
        )
    };
    // Whether its style listens, whether it asks, how long it may take at all, and after which silence it is ready.
    for (listens, asks, start_timeout, seconds) in
        [(false, false, 60, 2), (true, false, 60, 15), (false, true, 60, 15), (true, true, 10, 5), (false, false, 2, 1)]
    {
        let (mut rig, mut worker) = node_rig(&[], |plan| {
            plan.listens = listens;
            plan.start_timeout = Duration::from_secs(start_timeout);
        });
        rig.now += Duration::from_secs(100);
        assert_eq!(rig.dispatch.ready_by_silence(rig.now), [], "its Node has not started");
        worker.say(&mut rig, ONLINE);
        if asks {
            worker.say(&mut rig, &query("queryServer"));
        }
        // Any word begins the silence anew.
        rig.now += Duration::from_millis(900);
        worker.say(&mut rig, "\"busy\"\n");
        let silence = Duration::from_secs(seconds);
        assert_eq!(rig.dispatch.ready_by_silence(rig.now + silence - Duration::from_millis(1)), []);
        assert_eq!(rig.dispatch.ready_by_silence(rig.now + silence), [worker.worker], "{listens} {asks}");
        assert_eq!(rig.dispatch.ready_by_silence(rig.now + silence), [], "once");
    }
    let (mut rig, mut worker) = node_rig(&[], |plan| plan.listens = true);
    worker.say(&mut rig, ONLINE);
    worker.say(&mut rig, &query("queryServer"));
    assert_eq!(worker.say(&mut rig, &query("listening")), [WorkerEvent::Ready]);
    let (mut rig, mut worker) = node_rig(&[], |plan| plan.wait_ready = true);
    worker.say(&mut rig, ONLINE);
    assert_eq!(rig.dispatch.ready_by_silence(rig.now + Duration::from_secs(100)), [], "it will say so itself");
}

/// From a connection's arrival to its worker's acknowledgement and the end of our copy.
#[test]
fn once_warm_no_connection_to_node_costs_an_allocation() {
    use std::io::Read;

    let (mut rig, mut worker) = node_rig(&["--max-in-flight", "64"], |plan| plan.wait_ready = true);
    worker.say(&mut rig, "\"ready\"\n");
    let (slot, mut news) = (rig.dispatch.slots().next().expect("a slot"), Vec::new());
    let acknowledged = "{\"cmd\":\"NODE_HANDLE_ACK\"}\n".repeat(50);
    let frame = ConnectionMessage::from_json("1").expect("JSON").frame(Serialization::Json);
    let mut room = vec![0; 1 << 16];
    let mut asked = 0;
    for round in 0..100 {
        let clients: Vec<_> = (0..50)
            .map(|_| {
                let descriptor: OwnedFd = UnixStream::pair().expect("pair").0.into();
                ClientConnection::new(descriptor, 0, (EndAddr::Unix, EndAddr::Unix), Key::ANYONE, rig.now)
            })
            .collect();
        let (sending, ()) = allocations(|| {
            for connection in clients {
                assert_eq!(rig.dispatch.admit(connection, rig.now), Some(slot));
            }
            assert!(rig.dispatch.send(slot, rig.now).is_none());
        });
        assert_eq!(rig.dispatch.in_flight(), 50);
        // A read ends behind each descriptor, and without room for it the kernel closes it.
        let read = (0..50).map(|_| worker.channel.read(&mut room).expect("read")).sum::<usize>();
        assert_eq!(read, 50 * frame.len());
        std::io::Write::write_all(&mut worker.channel, acknowledged.as_bytes()).expect("write");
        let (hearing, ()) = allocations(|| {
            let received = rig.dispatch.receive(worker.worker, &mut news, rig.now);
            assert!(matches!(received, Some((_, Ok(true)))));
            rig.dispatch.ledger.close_delivered();
        });
        if round >= 10 {
            asked += sending + hearing;
        }
    }
    assert_eq!((rig.dispatch.ledger.outstanding(), asked), (0, 0));
}

impl Dispatch {
    /// A connection has come, is counted, and is assigned at once.
    pub(super) fn admit(&mut self, connection: ClientConnection, now: Instant) -> Option<Slot> {
        self.ledger.accept();
        self.assign(connection, now)
    }
}
