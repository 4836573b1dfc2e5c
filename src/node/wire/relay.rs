//! Messages of `@socket.io/cluster-adapter` between workers: which worker gets which. Pure.
//!
//! What its own primary does (`setupPrimary`, read in 0.2.2 and 0.3.0): answers go to the one worker that asked,
//! everything else to all workers but the sender. Two things are better here: answers of the broadcast with
//! acknowledgements go to the one that asked, too, and a worker's end is announced at once for 0.3, which otherwise
//! waits for a heartbeat to fail (10 s) while `fetchSockets()` fails after 5 s.

use std::collections::{BTreeMap, BTreeSet};

use super::Serialization;
use super::compose::Composer;
use super::message::{AdapterRouting, is_answer_of_02};
use crate::ids::WorkerId;

/// Maximum number of namespaces of one worker that are remembered. Answers to others go to all workers, which ignore
/// them.
const MAX_NAMESPACES: usize = 10_000;
/// Longest name that is remembered, in bytes; the adapter's own ids have 16.
const MAX_NAME: usize = 1024;
/// Most bytes of names that are remembered of one worker.
const MAX_NAMED: usize = 1 << 20;

/// Types of 0.3 that are answers and name their receiver by `requesterUid`.
const ANSWERS: [u64; 4] = [8, 10, 11, 12];
/// Type of 0.3: the adapter of a namespace was closed.
const ADAPTER_CLOSE: u64 = 13;
/// Type of 0.2: a worker has ended.
const WORKER_EXIT_OF_02: i64 = 3;

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// To this worker.
    One(WorkerId),
    /// To all workers but this one.
    AllBut(WorkerId),
    /// To no worker: the one that asked is gone.
    Nowhere,
}

/// News of a worker's end, to be sent to all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerDied {
    /// For 0.2: no worker waits for this worker's answers any more.
    WorkerExited(WorkerId),
    /// For 0.3: the same, for one namespace of it.
    AdapterClosed {
        /// The worker that had it.
        uid: Box<str>,
        /// Its name.
        nsp: Box<str>,
    },
}

/// What is known of the workers that use the adapter.
#[derive(Debug, Default)]
pub struct AdapterRelay {
    workers: BTreeMap<WorkerId, AdapterPeer>,
    owners: BTreeMap<Box<str>, (WorkerId, Box<str>)>,
    /// How often a namespace could not be remembered, because of the bounds above.
    forgotten: u64,
}

#[derive(Debug, Default)]
struct AdapterPeer {
    speaks_02: bool,
    /// Bytes of its ids and of the names of its namespaces.
    named: usize,
    uids: BTreeSet<Box<str>>,
}

impl AdapterRelay {
    /// No worker is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where a message of `from` goes. Remembers its sender.
    ///
    /// A worker's number is its NODE_UNIQUE_ID, by which 0.2 names it.
    pub fn route(&mut self, from: WorkerId, message: &AdapterRouting<'_>) -> To {
        let Some(uid) = message.uid.as_deref() else {
            self.workers.entry(from).or_default().speaks_02 = true;
            return match message.worker_id.filter(|_| is_answer_of_02(message.kind)).map(WorkerId) {
                Some(asked) if asked != from && self.workers.contains_key(&asked) => To::One(asked),
                Some(_) => To::Nowhere,
                None => To::AllBut(from),
            };
        };
        if message.kind == ADAPTER_CLOSE {
            self.forget(from, uid);
        } else {
            self.remember(from, uid, message.nsp.as_deref().unwrap_or("/"));
        }
        match message.requester_uid.as_deref().filter(|_| ANSWERS.contains(&message.kind)) {
            None => To::AllBut(from),
            Some(asked) => match self.owners.get(asked) {
                Some((owner, _)) if *owner != from => To::One(*owner),
                None if self.forgotten > 0 => To::AllBut(from),
                Some(_) | None => To::Nowhere,
            },
        }
    }

    /// A worker has ended: what is to be sent to all others.
    pub fn died(&mut self, worker: WorkerId) -> Vec<WorkerDied> {
        let Some(member) = self.workers.remove(&worker) else { return Vec::new() };
        let exited = member.speaks_02.then_some(WorkerDied::WorkerExited(worker));
        let closed = member.uids.into_iter().filter_map(|uid| {
            let (_, nsp) = self.owners.remove(&uid)?;
            Some(WorkerDied::AdapterClosed { uid, nsp })
        });
        exited.into_iter().chain(closed).collect()
    }

    /// How often a namespace of a worker's could not be remembered, because that worker has too many.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn remember(&mut self, from: WorkerId, uid: &str, nsp: &str) {
        // The first worker to use an id keeps it while it lives: ids are random, so a second use is a mistake.
        if self.owners.contains_key(uid) {
            return;
        }
        let member = self.workers.entry(from).or_default();
        let (longest, both) = (uid.len().max(nsp.len()), uid.len() + nsp.len());
        if member.uids.len() >= MAX_NAMESPACES || longest > MAX_NAME || member.named + both > MAX_NAMED {
            self.forgotten += 1;
            return;
        }
        member.named += both;
        member.uids.insert(uid.into());
        self.owners.insert(uid.into(), (from, nsp.into()));
    }

    fn forget(&mut self, from: WorkerId, uid: &str) {
        if let Some(member) = self.workers.get_mut(&from)
            && member.uids.remove(uid)
            && let Some((_, nsp)) = self.owners.remove(uid)
        {
            member.named -= uid.len() + nsp.len();
        }
    }
}

impl WorkerDied {
    /// Writes the message behind what `out` holds.
    pub fn write(&self, serialization: Serialization, out: &mut Vec<u8>) {
        let mut message = Composer::begin(serialization, out);
        message.text("source", super::message::ADAPTER);
        match self {
            Self::WorkerExited(worker) => {
                let id = i64::try_from(worker.0).unwrap_or(i64::MAX);
                message.number("type", WORKER_EXIT_OF_02).number("data", id);
            }
            Self::AdapterClosed { uid, nsp } => {
                message.number("type", ADAPTER_CLOSE as i64).text("uid", uid).text("nsp", nsp);
            }
        }
        message.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: WorkerId = WorkerId(1);
    const B: WorkerId = WorkerId(2);
    const C: WorkerId = WorkerId(3);

    fn of_03(kind: u64, uid: &str, requester: Option<&str>) -> AdapterRouting<'static> {
        AdapterRouting {
            kind,
            uid: Some(uid.to_owned().into()),
            requester_uid: requester.map(|uid| uid.to_owned().into()),
            nsp: Some("/chat".into()),
            worker_id: None,
        }
    }

    fn of_02(kind: u64, worker_id: Option<u64>) -> AdapterRouting<'static> {
        AdapterRouting { kind, nsp: Some("/".into()), worker_id, ..AdapterRouting::default() }
    }

    fn text(notice: &WorkerDied) -> String {
        let mut out = Vec::new();
        notice.write(Serialization::Json, &mut out);
        String::from_utf8(out).expect("utf-8")
    }

    #[test]
    fn in_0_3_answers_go_to_whoever_asked_and_the_rest_to_all_others() {
        let mut relay = AdapterRelay::new();
        for (worker, uid) in [(A, "a"), (B, "b"), (A, "a2")] {
            assert_eq!(relay.route(worker, &of_03(1, uid, None)), To::AllBut(worker));
        }
        for kind in [8, 10, 11, 12] {
            assert_eq!(relay.route(B, &of_03(kind, "b", Some("a2"))), To::One(A));
            assert_eq!(relay.route(A, &of_03(kind, "a", Some("b"))), To::One(B));
            assert_eq!(relay.route(A, &of_03(kind, "a", Some("gone"))), To::Nowhere);
            assert_eq!(relay.route(A, &of_03(kind, "a", Some("a2"))), To::Nowhere);
            assert_eq!(relay.route(A, &of_03(kind, "a", None)), To::AllBut(A));
        }
        for kind in [2, 3, 4, 5, 6, 7, 9, 13, 99] {
            assert_eq!(relay.route(B, &of_03(kind, "b", Some("a"))), To::AllBut(B));
        }
    }

    #[test]
    fn in_0_2_answers_go_to_the_worker_they_name() {
        let mut relay = AdapterRelay::new();
        assert_eq!(relay.route(A, &of_02(1, None)), To::AllBut(A));
        assert_eq!(relay.route(B, &of_02(8, Some(2))), To::AllBut(B), "a question names its sender");
        assert_eq!(relay.route(A, &of_02(9, Some(2))), To::One(B));
        assert_eq!(relay.route(A, &of_02(11, Some(2))), To::One(B));
        assert_eq!(relay.route(A, &of_02(9, Some(3))), To::Nowhere, "an unknown id");
        assert_eq!(relay.route(A, &of_02(9, Some(1))), To::Nowhere);
        relay.died(B);
        assert_eq!(relay.route(A, &of_02(9, Some(2))), To::Nowhere);
    }

    #[test]
    fn a_worker_s_end_is_announced_in_what_it_spoke() {
        let mut relay = AdapterRelay::new();
        relay.route(A, &of_02(1, None));
        assert_eq!(relay.died(A), [WorkerDied::WorkerExited(A)]);
        assert_eq!(relay.died(A), []);
        for (worker, uid) in [(B, "b1"), (B, "b2"), (B, "b3"), (C, "c")] {
            relay.route(worker, &of_03(1, uid, None));
        }
        // One that was closed is announced already, and an id that another has is not this worker's to announce.
        relay.route(B, &of_03(13, "b2", None));
        relay.route(B, &of_03(2, "c", None));
        let notices = relay.died(B);
        let expected = ["b1", "b3"].map(|uid| WorkerDied::AdapterClosed { uid: uid.into(), nsp: "/chat".into() });
        assert_eq!(notices, expected);
        assert_eq!(relay.route(C, &of_03(8, "c", Some("b1"))), To::Nowhere);
        assert_eq!(relay.died(WorkerId(9)), []);
    }

    #[test]
    fn the_notices_are_those_that_were_tried_with_the_adapter() {
        assert_eq!(text(&WorkerDied::WorkerExited(C)), "{\"source\":\"_sio_adapter\",\"type\":3,\"data\":3}\n");
        let closed = WorkerDied::AdapterClosed { uid: "c49ee8e448a78c1f".into(), nsp: "/".into() };
        let expected = "{\"source\":\"_sio_adapter\",\"type\":13,\"uid\":\"c49ee8e448a78c1f\",\"nsp\":\"/\"}\n";
        assert_eq!(text(&closed), expected);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut relay = AdapterRelay::new();
        for at in 0..MAX_NAMESPACES + 5 {
            relay.route(A, &of_03(2, &format!("{at:x}"), None));
        }
        relay.route(A, &of_03(2, &"x".repeat(MAX_NAME + 1), None));
        let last = format!("{:x}", MAX_NAMESPACES + 4);
        assert_eq!(relay.route(B, &of_03(8, "b", Some("0"))), To::One(A));
        assert_eq!(relay.route(B, &of_03(8, "b", Some(&last))), To::AllBut(B), "it may be one that was not remembered");
        assert_eq!(relay.forgotten(), 6);
        assert_eq!(relay.died(A).len(), MAX_NAMESPACES);
    }

    /// Long names are fewer; what was closed makes room again.
    #[test]
    fn the_names_of_one_worker_are_bounded_in_bytes_too() {
        let mut relay = AdapterRelay::new();
        let long = |at: usize| format!("{at:01000}");
        for at in 0..MAX_NAMED / 1000 + 10 {
            relay.route(A, &of_03(2, &long(at), None));
        }
        let forgotten = relay.forgotten();
        assert!(forgotten > 0);
        relay.route(A, &of_03(13, &long(0), None));
        relay.route(A, &of_03(2, &long(0), None));
        assert_eq!(relay.forgotten(), forgotten);
        relay.route(B, &of_03(2, "b", None));
        assert_eq!(relay.forgotten(), forgotten, "another worker has room of its own");
        assert!(relay.died(A).len() <= MAX_NAMED / 1000);
    }
}
