//! A snapshot as Prometheus reads it.
//!
//! The numbers come from the snapshot at each scrape; nothing is registered or counted here.

mod alarms;
mod kernel;
mod output;
mod rooms;
mod routing;
mod scoreboard;

use std::borrow::Cow;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;

use super::families::{Families, Labels, no_labels};
use super::negotiate::Format;
use super::snapshot::{ControlCounts, ReloadState, SlotBalance, SlotStatus, Snapshot, WorkerStage, seconds_since_1970};

/// The body of `/metrics`.
///
/// # Errors
///
/// None that the snapshot can cause: writing into a string does not fail. The encoder's own form is kept.
pub fn encode(snapshot: Snapshot, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape { snapshot, format }));
    let mut page = String::new();
    text::encode_registry(&mut page, &registry)?;
    if format == Format::OpenMetrics {
        text::encode_eof(&mut page)?;
    }
    Ok(page)
}

#[derive(Debug)]
struct Scrape {
    snapshot: Snapshot,
    format: Format,
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families::new(encoder, self.format);
        connections(&mut families, &self.snapshot)?;
        balance(&mut families, &self.snapshot)?;
        redelivery(&mut families, &self.snapshot)?;
        routing::routing(&mut families, &self.snapshot.routing)?;
        kernel::queues(&mut families, &self.snapshot)?;
        workers(&mut families, &self.snapshot)?;
        supervision(&mut families, &self.snapshot)?;
        node(&mut families, &self.snapshot)?;
        rooms::totals(&mut families, &self.snapshot.rooms)?;
        control(&mut families, &self.snapshot.control)?;
        output::lines(&mut families, &self.snapshot)?;
        alarms::alarms(&mut families, &self.snapshot.alarms)?;
        scoreboard::figures(&mut families, &self.snapshot)?;
        process(&mut families, &self.snapshot)
    }
}

fn slot_label(slot: usize) -> (&'static str, Cow<'static, str>) {
    ("slot", slot.to_string().into())
}

fn by<'a>(label: &'static str, counts: &'a [(&'static str, u64)]) -> impl Iterator<Item = (Labels<'a>, u64)> {
    counts.iter().map(move |(value, count)| (vec![(label, Cow::from(*value))], *count))
}

fn by_slot(
    slots: &[SlotStatus],
    number: fn(&SlotStatus) -> Option<u64>,
) -> impl Iterator<Item = (Labels<'static>, u64)> {
    slots.iter().filter_map(move |status| Some((vec![slot_label(status.slot)], number(status)?)))
}

/// The counts that each slot has by the values of one more label.
fn by_slot_and<'a, S: AsRef<str> + 'a>(
    label: &'static str,
    slots: &'a [SlotStatus],
    counts: fn(&SlotStatus) -> &Vec<(S, u64)>,
) -> impl Iterator<Item = (Labels<'a>, u64)> {
    slots.iter().flat_map(move |status| {
        let counts = counts(status).iter();
        counts.map(move |(value, count)| (vec![slot_label(status.slot), (label, value.as_ref().into())], *count))
    })
}

fn connections(families: &mut Families<'_>, now: &Snapshot) -> fmt::Result {
    families.counter("haft_connections_accepted", "Connections accepted.", [(no_labels(), now.accepted)])?;
    families.counter(
        "haft_connections_delivered",
        "Connections acknowledged by a worker.",
        now.delivered.iter().enumerate().map(|(slot, count)| (vec![slot_label(slot)], *count)),
    )?;
    families.counter(
        "haft_connections_refused",
        "Connections closed without having reached a worker.",
        by("reason", &now.refused),
    )?;
    families.gauge(
        "haft_connections_in_flight",
        "Connections accepted and neither delivered nor refused: held, or sent and not yet acknowledged.",
        [(no_labels(), now.in_flight)],
    )?;
    families.gauge(
        "haft_connections_held",
        "Connections in flight that wait for a worker.",
        [(no_labels(), now.held)],
    )?;
    families.counter(
        "haft_accept_errors",
        "Calls of accept that gave no connection.",
        by("reason", &now.accept_errors),
    )?;
    families.histogram(
        "haft_handover_seconds",
        "Time from accept to the worker's acknowledgement.",
        now.hand_over.sum().as_secs_f64(),
        &now.hand_over.buckets().collect::<Vec<_>>(),
    )
}

/// With the deliveries, and what is on its way or waits, these balance slot by slot.
fn balance(families: &mut Families<'_>, now: &Snapshot) -> fmt::Result {
    let by_slot =
        |count: fn(&SlotBalance) -> u64| now.balance.iter().map(move |slot| (vec![slot_label(slot.slot)], count(slot)));
    families.counter(
        "haft_slot_connections_assigned",
        "Connections assigned to the slot; one that comes from another slot's queue is counted again.",
        by_slot(|slot| slot.assigned),
    )?;
    families.counter(
        "haft_slot_connections_moved",
        "Of the connections assigned to the slot, those that were assigned to another one since.",
        by_slot(|slot| slot.moved),
    )?;
    families.counter(
        "haft_slot_connections_refused",
        "Of the connections assigned to the slot, those that were refused.",
        by_slot(|slot| slot.refused),
    )
}

fn redelivery(families: &mut Families<'_>, now: &Snapshot) -> fmt::Result {
    families.counter(
        "haft_connections_redelivered",
        "Connections sent again because their worker died before it had received or acknowledged them.",
        [("unread", now.redelivered_unread), ("unacknowledged", now.redelivered_unacknowledged)]
            .map(|(state, count)| (vec![("state", state.into())], count)),
    )?;
    families.counter("haft_connections_returned", "Connections that a worker gave back.", [(no_labels(), now.returned)])
}

fn workers(families: &mut Families<'_>, now: &Snapshot) -> fmt::Result {
    let slots = &now.slots;
    families.gauge(
        "haft_worker_state",
        "Where the slot's worker is in its life: 1 for the state it is in, 0 for the others.",
        slots.iter().flat_map(|status| {
            WorkerStage::ALL.map(|state| {
                (vec![slot_label(status.slot), ("state", state.name().into())], u64::from(status.state == state))
            })
        }),
    )?;
    families.counter(
        "haft_workers_respawned",
        "Workers that were replaced because they had ended by themselves.",
        by_slot(slots, |status| Some(status.respawned)),
    )?;
    families.counter(
        "haft_worker_replacements",
        "Workers that were replaced by another in their slot, by why.",
        by_slot_and("reason", slots, |status| &status.replaced),
    )?;
    families.counter(
        "haft_health_checks",
        "Health checks of the slot's workers (--health-check).",
        by_slot_and("outcome", slots, |status| &status.health_checks),
    )?;
    families.counter(
        "haft_worker_exits",
        "Ends of workers.",
        by_slot_and("reason", slots, |status| &status.deaths_by_reason),
    )?;
    families.gauge(
        "haft_worker_connections_in_flight",
        "Connections sent to the slot's workers, former ones too, and not yet acknowledged.",
        now.balance.iter().map(|slot| (vec![slot_label(slot.slot)], slot.in_flight)),
    )?;
    families.gauge(
        "haft_worker_connections_held",
        "Connections that wait for the slot's workers.",
        now.balance.iter().map(|slot| (vec![slot_label(slot.slot)], slot.held)),
    )?;
    families.gauge(
        "haft_worker_connections_open",
        "Connections that the slot's worker reports.",
        by_slot(slots, |status| status.open),
    )?;
    families.gauge(
        "haft_worker_sessions",
        "Sessions of the slot's worker, as far as they are known (with --affinity session).",
        by_slot(slots, |status| status.sessions),
    )
}

fn supervision(families: &mut Families<'_>, now: &Snapshot) -> fmt::Result {
    families.gauge(
        "haft_generation",
        "The newest generation of workers.",
        [(no_labels(), u64::from(now.generation))],
    )?;
    let under_way = now.reload.as_ref().is_some_and(|reload| reload.state == ReloadState::UnderWay);
    families.gauge("haft_reload_under_way", "1 while a reload is under way.", [(no_labels(), u64::from(under_way))])?;
    families.counter(
        "haft_reloads",
        "Reloads that have ended.",
        [("done", now.reloads_done), ("failed", now.reloads_failed)]
            .map(|(outcome, count)| (vec![("outcome", outcome.into())], count)),
    )?;
    families.counter("haft_workers_hung", "How often a worker was found to be hung.", [(no_labels(), now.hung)])?;
    families.counter(
        "haft_workers_hang_killed",
        "How often a hung worker was killed for it.",
        [(no_labels(), now.hang_kills)],
    )?;
    families.gauge(
        "haft_worker_hung",
        "1 while the slot's worker counts as hung.",
        by_slot(&now.slots, |status| Some(status.hung.into())),
    )?;
    families.gauge(
        "haft_slot_drained",
        "1 while the slot is drained by the operator.",
        by_slot(&now.slots, |status| Some(status.drained.into())),
    )?;
    families.gauge(
        "haft_slot_kept_out",
        "1 while the slot gets no worker, since its workers ended too often (--max-restarts).",
        by_slot(&now.slots, |status| Some(status.kept_out.into())),
    )?;
    families.gauge(
        "haft_workers_draining",
        "Former workers of the slot that finish what they have.",
        by_slot(&now.slots, |status| Some(status.draining_workers as u64)),
    )
}

fn node(families: &mut Families<'_>, now: &Snapshot) -> fmt::Result {
    families.counter(
        "haft_node_messages",
        "Messages of Node programs that have no receiver here.",
        [(no_labels(), now.node_messages)],
    )?;
    families.counter(
        "haft_node_messages_dropped",
        "Messages between Node workers that were dropped, because they were too long or too many.",
        [(no_labels(), now.node_messages_dropped)],
    )?;
    families.counter(
        "haft_node_listens_refused",
        "What Node workers wanted to listen on and may not, or was too much.",
        [(no_labels(), now.node_listens_refused)],
    )?;
    families.counter(
        "haft_node_troubles",
        "What Node programs did that cannot be sticky, or only in part; the log has the cure.",
        by("kind", &now.node_troubles),
    )?;
    families.counter(
        "haft_node_names_forgotten",
        "Names of sessions and namespaces that Node workers reported and that were too many to be remembered, each time.",
        [(no_labels(), now.node_names_forgotten)],
    )
}

fn control(families: &mut Families<'_>, control: &ControlCounts) -> fmt::Result {
    families.counter(
        "haft_control_requests",
        "Changes asked for on the admin listener that the master has taken on.",
        by("action", &control.requests),
    )?;
    families.counter(
        "haft_control_refused",
        "Attempts to change something by callers that may not.",
        by("reason", &control.refused),
    )?;
    families.counter(
        "haft_admin_connections_closed",
        "Connections of the admin listener that were closed before their time.",
        by("reason", &control.closed),
    )
}

fn process(families: &mut Families<'_>, now: &Snapshot) -> fmt::Result {
    families.gauge("process_open_fds", "Open file descriptors.", [(no_labels(), now.descriptors_open)])?;
    families.gauge("process_max_fds", "Most file descriptors allowed.", [(no_labels(), now.descriptors_limit)])?;
    families.gauge(
        "process_start_time_seconds",
        "When the process started, in seconds since 1970.",
        [(no_labels(), seconds_since_1970(now.started))],
    )?;
    families.info("haft_build", "The running haft.", vec![("version", now.version.as_str().into())])
}

#[cfg(test)]
mod tests;
