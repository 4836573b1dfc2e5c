//! What workers report of themselves, and what their processes use.

use std::borrow::Cow;
use std::fmt;

use super::super::families::{Families, Labels, no_labels};
use super::super::snapshot::{SlotStatus, Snapshot};
use super::super::usage::ProcessFigures;
use super::slot_label;
use haft_worker::protocol::scoreboard::Field;

/// A figure and the label that sets it apart in its family.
type Labelled = (&'static str, Field);

const SESSIONS: [Labelled; 3] =
    [("polling", Field::PollingSessions), ("websocket", Field::WebsocketSessions), ("other", Field::OtherSessions)];
const CLOSED: [Labelled; 5] = [
    ("ping_timeout", Field::ClosedPingTimeout),
    ("transport", Field::ClosedTransport),
    ("error", Field::ClosedError),
    ("server", Field::ClosedByServer),
    ("other", Field::ClosedOther),
];
const REFUSED: [Labelled; 7] = [
    ("transport", Field::RefusedTransport),
    ("session", Field::RefusedSession),
    ("method", Field::RefusedMethod),
    ("request", Field::RefusedRequest),
    ("forbidden", Field::RefusedForbidden),
    ("protocol", Field::RefusedProtocol),
    ("other", Field::RefusedOther),
];
const MESSAGES: [Labelled; 2] = [("in", Field::MessagesIn), ("out", Field::MessagesOut)];
const CLOSED_FOR_MEMORY: [Labelled; 3] = [
    ("connection", Field::ClosedMemoryConnection),
    ("worker", Field::ClosedMemoryWorker),
    ("stalled", Field::ClosedMemoryStalled),
];
const LOST: [Labelled; 2] = [("goodbye", Field::LostGoodbye), ("queue", Field::LostQueue)];
const BYTES: [Labelled; 2] = [("in", Field::BytesIn), ("out", Field::BytesOut)];
const DELAYS: [Labelled; 3] =
    [("p50", Field::LoopDelayP50), ("p99", Field::LoopDelayP99), ("max", Field::LoopDelayMax)];

pub(super) fn figures(families: &mut Families<'_>, now: &Snapshot) -> fmt::Result {
    processes(families, now)?;
    families.gauge(
        "haft_worker_event_loop_delay_seconds",
        "By how much the worker's event loop was late in the last second: the median, the 99th percentile, the most.",
        labelled(&now.slots, "stat", &DELAYS).map(|(labels, nanos)| (labels, nanos as f64 / 1e9)),
    )?;
    let transports = labelled(&now.slots, "transport", &SESSIONS);
    families.gauge("haft_worker_transport_sessions", "Sessions of the worker, by their transport.", transports)?;
    let gauges = [
        (
            "haft_worker_told_connections",
            "Connections that the worker's own servers have open.",
            Field::OpenConnections,
        ),
        ("haft_worker_heap_bytes", "Bytes of the worker's heap in use (Node).", Field::HeapUsed),
        ("haft_worker_heap_limit_bytes", "Bytes that the worker's heap may have (Node).", Field::HeapLimit),
    ];
    for (name, help, field) in gauges {
        families.gauge(name, help, of_each(&now.slots, field))?;
    }
    counters(families, now)
}

/// They go on from one worker of a slot to the next.
fn counters(families: &mut Families<'_>, now: &Snapshot) -> fmt::Result {
    let slots = &now.slots;
    for (name, help, field) in [
        ("haft_worker_connections", "Connections that have come to the slot's workers.", Field::Connections),
        ("haft_worker_sessions_opened", "Sessions that have begun.", Field::SessionsOpened),
        ("haft_worker_upgrades", "Sessions that have moved from long-polling to another transport.", Field::Upgrades),
        (
            "haft_worker_clients_recovered",
            "Clients that came back with what they had (connectionStateRecovery).",
            Field::Recovered,
        ),
        ("haft_worker_uncaught_errors", "Errors that the program did not catch.", Field::UncaughtErrors),
    ] {
        families.counter(name, help, of_each(slots, field))?;
    }
    for (name, help, label, fields) in [
        ("haft_worker_sessions_closed", "Sessions that have ended.", "reason", &CLOSED[..]),
        ("haft_worker_requests_refused", "Requests for sessions that were refused.", "reason", &REFUSED),
        (
            "haft_worker_closed_for_memory",
            "Connections and polling sessions closed for the memory that they held.",
            "reason",
            &CLOSED_FOR_MEMORY,
        ),
        ("haft_worker_messages", "Messages of sessions.", "direction", &MESSAGES),
        ("haft_worker_messages_lost", "Messages of sessions that were lost.", "reason", &LOST),
        ("haft_worker_bytes", "Bytes of clients' connections.", "direction", &BYTES),
    ] {
        families.counter(name, help, labelled(slots, label, fields))?;
    }
    Ok(())
}

fn processes(families: &mut Families<'_>, now: &Snapshot) -> fmt::Result {
    let of = |figure: fn(&ProcessFigures) -> Option<u64>| {
        now.slots.iter().filter_map(move |slot| Some((vec![slot_label(slot.slot)], figure(slot.process.as_ref()?)?)))
    };
    families.gauge(
        "haft_worker_resident_bytes",
        "Resident memory of the worker's process.",
        of(|process| Some(process.resident_bytes)),
    )?;
    families.gauge("haft_worker_threads", "Threads of the worker's process.", of(|process| Some(process.threads)))?;
    families.gauge(
        "haft_worker_open_fds",
        "Descriptors of the worker's process.",
        of(|process| process.descriptors),
    )?;
    let is_known = |slot: &&SlotStatus| slot.process.is_some() || !slot.cpu.is_zero();
    families.seconds_counter(
        "haft_worker_cpu_seconds",
        "Time on a CPU of the slot's workers.",
        now.slots.iter().filter(is_known).map(|slot| (vec![slot_label(slot.slot)], slot.cpu.as_secs_f64())),
    )?;
    families.gauge(
        "haft_worker_age_seconds",
        "How long the slot's worker has been running.",
        now.slots.iter().map(|slot| (vec![slot_label(slot.slot)], slot.uptime.as_secs_f64())),
    )?;
    let own = now.process.iter();
    families.gauge(
        "process_resident_memory_bytes",
        "Resident memory of the master.",
        own.clone().map(|process| (no_labels(), process.resident_bytes)),
    )?;
    families.seconds_counter(
        "process_cpu_seconds",
        "Time on a CPU of the master.",
        own.map(|process| (no_labels(), process.cpu.as_secs_f64())),
    )
}

fn of_each(slots: &[SlotStatus], field: Field) -> impl Iterator<Item = (Labels<'static>, u64)> {
    let figure = move |slot: &SlotStatus| Some((vec![slot_label(slot.slot)], slot.reported.as_ref()?.get(field)?));
    slots.iter().filter_map(figure)
}

fn labelled<'a>(
    slots: &'a [SlotStatus],
    label: &'static str,
    fields: &'a [Labelled],
) -> impl Iterator<Item = (Labels<'static>, u64)> + 'a {
    slots.iter().filter_map(|slot| Some((slot.slot, slot.reported.as_ref()?))).flat_map(move |(slot, reported)| {
        fields.iter().filter_map(move |(value, field)| {
            Some((vec![slot_label(slot), (label, Cow::from(*value))], reported.get(*field)?))
        })
    })
}
