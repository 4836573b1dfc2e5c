//! A snapshot for tests: two slots, one of them without a worker, and every number told apart from the others.

use std::time::{Duration, UNIX_EPOCH};

use super::{
    ControlCounts, ExitStatus, Histogram, ReloadState, ReloadStatus, Routing, SlotState, SlotStatus, Snapshot,
};

/// 100 accepted = 70 + 20 delivered + 3 + 2 refused + 5 in flight.
pub(super) fn snapshot() -> Snapshot {
    let mut hand_over = Histogram::new();
    for connection in 0..90 {
        hand_over.observe(Duration::from_micros(15 + connection));
    }
    Snapshot {
        version: "1.2.3".to_owned(),
        pid: 4711,
        started: UNIX_EPOCH + Duration::from_millis(1_700_000_000_250),
        uptime: Duration::from_millis(3_600_500),
        listen: vec![":3000".to_owned()],
        affinity: "ip".to_owned(),
        dispatch: "handover".to_owned(),
        note: None,
        stopping: false,
        accepted: 100,
        delivered: vec![70, 20],
        refused: vec![("hold-timeout", 3), ("no-worker", 2)],
        in_flight: 5,
        held: 4,
        redelivered_unread: 6,
        redelivered_unacknowledged: 7,
        returned: 8,
        routing: Routing {
            routed: vec![("address", 0), ("session", 21)],
            passed: 22,
            unattributed: 28,
            peeking: 2,
            given_up: vec![("timeout", 23)],
            proxy_headers: vec![("taken", 24), ("malformed", 0)],
            client_ip_headers: vec![("taken", 0), ("malformed", 25)],
        },
        rescued: 20,
        accept_errors: vec![("emfile", 1), ("aborted", 9)],
        hand_over,
        descriptors_open: 31,
        descriptors_limit: 65_536,
        generation: 2,
        reload: Some(ReloadStatus {
            state: ReloadState::UnderWay,
            description: "slot 1 of 2".to_owned(),
            unix_time: 1_700_003_500,
        }),
        reloads_done: 14,
        reloads_failed: 15,
        hung: 16,
        hang_kills: 17,
        node_messages: 18,
        node_messages_dropped: 19,
        control: ControlCounts {
            requests: vec![("reload", 12), ("scale", 0)],
            refused: vec![("no_token", 13), ("foreign_uid", 0)],
        },
        slots: vec![ready_slot(), gone_slot()],
    }
}

fn ready_slot() -> SlotStatus {
    SlotStatus {
        slot: 0,
        state: SlotState::Ready,
        drained: false,
        hung: false,
        listens_on_nothing: false,
        draining_workers: 3,
        generation: 0,
        worker: 1,
        pid: Some(4712),
        uptime: Duration::from_secs(3600),
        in_flight: 1,
        held: 0,
        delivered: 70,
        accept_queue: Some(27),
        open: Some(11),
        sessions: Some(26),
        respawned: 0,
        deaths_by_reason: Vec::new(),
        last_exit: None,
    }
}

fn gone_slot() -> SlotStatus {
    SlotStatus {
        slot: 1,
        state: SlotState::Gone,
        drained: true,
        hung: false,
        listens_on_nothing: false,
        draining_workers: 0,
        generation: 0,
        worker: 4,
        pid: None,
        uptime: Duration::ZERO,
        in_flight: 0,
        held: 4,
        delivered: 20,
        accept_queue: None,
        open: None,
        sessions: None,
        respawned: 3,
        deaths_by_reason: vec![("signal SIGKILL".to_owned(), 2), ("a \"quoted\"\nline\\".to_owned(), 1)],
        last_exit: Some(ExitStatus { description: "signal SIGKILL".to_owned(), unix_time: 1_700_003_000 }),
    }
}
