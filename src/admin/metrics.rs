//! A snapshot as Prometheus reads it.
//!
//! The numbers come from the snapshot at each scrape; nothing is registered or counted here.

mod kernel;

use std::borrow::Cow;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;

use super::families::{Families, Labels, no_labels};
use super::negotiate::Format;
use super::snapshot::{ControlCounts, ReloadState, SlotState, SlotStatus, Snapshot, seconds_since_1970};

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
        redelivery(&mut families, &self.snapshot)?;
        kernel::queues(&mut families, &self.snapshot)?;
        workers(&mut families, &self.snapshot.slots)?;
        supervision(&mut families, &self.snapshot)?;
        node(&mut families, &self.snapshot)?;
        control(&mut families, &self.snapshot.control)?;
        process(&mut families, &self.snapshot)
    }
}

fn slot_label(slot: usize) -> (&'static str, Cow<'static, str>) {
    ("slot", slot.to_string().into())
}

fn by_reason<'a>(counts: &'a [(&'static str, u64)]) -> impl Iterator<Item = (Labels<'a>, u64)> {
    counts.iter().map(|(reason, count)| (vec![("reason", Cow::from(*reason))], *count))
}

fn by_slot(
    slots: &[SlotStatus],
    number: fn(&SlotStatus) -> Option<u64>,
) -> impl Iterator<Item = (Labels<'static>, u64)> {
    slots.iter().filter_map(move |status| Some((vec![slot_label(status.slot)], number(status)?)))
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
        by_reason(&now.refused),
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
        by_reason(&now.accept_errors),
    )?;
    families.histogram(
        "haft_handover_seconds",
        "Time from accept to the worker's acknowledgement.",
        now.hand_over.sum().as_secs_f64(),
        &now.hand_over.buckets().collect::<Vec<_>>(),
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

fn workers(families: &mut Families<'_>, slots: &[SlotStatus]) -> fmt::Result {
    families.gauge(
        "haft_worker_state",
        "Where the slot's worker is in its life: 1 for the state it is in, 0 for the others.",
        slots.iter().flat_map(|status| {
            SlotState::ALL.map(|state| {
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
        "haft_worker_exits",
        "Ends of workers.",
        slots.iter().flat_map(|status| {
            let deaths = status.deaths_by_reason.iter();
            deaths.map(|(reason, count)| (vec![slot_label(status.slot), ("reason", reason.into())], *count))
        }),
    )?;
    families.gauge(
        "haft_worker_connections_in_flight",
        "Connections sent to the slot's worker and not yet acknowledged.",
        by_slot(slots, |status| Some(status.in_flight)),
    )?;
    families.gauge(
        "haft_worker_connections_held",
        "Connections that wait for the slot's worker.",
        by_slot(slots, |status| Some(status.held)),
    )?;
    families.gauge(
        "haft_worker_connections_open",
        "Connections that the slot's worker says it has.",
        by_slot(slots, |status| status.open),
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
        "haft_workers_draining",
        "Former workers of the slot that finish what they have.",
        by_slot(&now.slots, |status| Some(status.draining_workers as u64)),
    )
}

fn node(families: &mut Families<'_>, now: &Snapshot) -> fmt::Result {
    families.counter(
        "haft_node_messages",
        "Messages of Node programs that were for nobody here.",
        [(no_labels(), now.node_messages)],
    )?;
    families.counter(
        "haft_node_messages_dropped",
        "Messages between Node workers that were dropped, because they were too long or too many.",
        [(no_labels(), now.node_messages_dropped)],
    )
}

fn control(families: &mut Families<'_>, control: &ControlCounts) -> fmt::Result {
    families.counter(
        "haft_control_requests",
        "Changes asked for on the admin listener that the master has taken on.",
        control.requests.iter().map(|(action, count)| (vec![("action", Cow::from(*action))], *count)),
    )?;
    families.counter(
        "haft_control_refused",
        "Attempts to change something by those who may not.",
        by_reason(&control.refused),
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
mod tests {
    use super::super::example;
    use super::super::exposition::Exposition;
    use super::*;
    use proptest::prelude::*;

    fn read(snapshot: Snapshot, format: Format) -> Exposition {
        Exposition::read(&encode(snapshot, format).expect("a page"), format)
    }

    /// A sample's name, labels and value.
    type Expected = (&'static str, &'static [(&'static str, &'static str)], f64);

    fn balance(page: &Exposition) -> f64 {
        page.sum("haft_connections_accepted_total")
            - page.sum("haft_connections_delivered_total")
            - page.sum("haft_connections_refused_total")
            - page.sum("haft_connections_in_flight")
    }

    #[test]
    fn every_promised_family_is_there_with_its_type_and_labels() {
        let page = read(example::snapshot(), Format::Text);
        let promised: [(&str, &str, &[&str]); 35] = [
            ("haft_connections_accepted_total", "counter", &[]),
            ("haft_connections_delivered_total", "counter", &["slot"]),
            ("haft_connections_refused_total", "counter", &["reason"]),
            ("haft_connections_in_flight", "gauge", &[]),
            ("haft_connections_held", "gauge", &[]),
            ("haft_connections_redelivered_total", "counter", &["state"]),
            ("haft_connections_returned_total", "counter", &[]),
            ("haft_connections_rescued_total", "counter", &[]),
            ("haft_accept_queue_length", "gauge", &["slot"]),
            ("haft_accept_errors_total", "counter", &["reason"]),
            ("haft_handover_seconds", "histogram", &[]),
            ("haft_handover_seconds_bucket", "", &["le"]),
            ("haft_workers_respawned_total", "counter", &["slot"]),
            ("haft_worker_state", "gauge", &["slot", "state"]),
            ("haft_worker_exits_total", "counter", &["reason", "slot"]),
            ("haft_worker_connections_in_flight", "gauge", &["slot"]),
            ("haft_worker_connections_held", "gauge", &["slot"]),
            ("haft_worker_connections_open", "gauge", &["slot"]),
            ("haft_generation", "gauge", &[]),
            ("haft_reload_under_way", "gauge", &[]),
            ("haft_reloads_total", "counter", &["outcome"]),
            ("haft_workers_hung_total", "counter", &[]),
            ("haft_workers_hang_killed_total", "counter", &[]),
            ("haft_worker_hung", "gauge", &["slot"]),
            ("haft_slot_drained", "gauge", &["slot"]),
            ("haft_workers_draining", "gauge", &["slot"]),
            ("haft_node_messages_total", "counter", &[]),
            ("haft_node_messages_dropped_total", "counter", &[]),
            ("haft_control_requests_total", "counter", &["action"]),
            ("haft_control_refused_total", "counter", &["reason"]),
            ("process_open_fds", "gauge", &[]),
            ("process_max_fds", "gauge", &[]),
            ("process_start_time_seconds", "gauge", &[]),
            ("haft_build_info", "gauge", &["version"]),
            ("haft_handover_seconds_count", "", &[]),
        ];
        for (name, kind, labels) in promised {
            assert_eq!(page.kinds.get(name).map_or("", String::as_str), kind, "{name}");
            assert_eq!(page.label_names(name), labels, "{name}");
        }
        assert_eq!(page.kinds.len(), promised.iter().filter(|(_, kind, _)| !kind.is_empty()).count());
    }

    #[test]
    fn the_numbers_are_the_snapshots() {
        let page = read(example::snapshot(), Format::Text);
        let expected: [Expected; 33] = [
            ("haft_connections_accepted_total", &[], 100.0),
            ("haft_connections_delivered_total", &[("slot", "1")], 20.0),
            ("haft_connections_refused_total", &[("reason", "no-worker")], 2.0),
            ("haft_connections_in_flight", &[], 5.0),
            ("haft_connections_held", &[], 4.0),
            ("haft_connections_redelivered_total", &[("state", "unread")], 6.0),
            ("haft_connections_redelivered_total", &[("state", "unacknowledged")], 7.0),
            ("haft_connections_returned_total", &[], 8.0),
            ("haft_connections_rescued_total", &[], 20.0),
            ("haft_accept_queue_length", &[("slot", "0")], 21.0),
            ("haft_accept_errors_total", &[("reason", "aborted")], 9.0),
            ("haft_workers_respawned_total", &[("slot", "1")], 3.0),
            ("haft_worker_exits_total", &[("slot", "1"), ("reason", "signal SIGKILL")], 2.0),
            ("haft_worker_exits_total", &[("slot", "1"), ("reason", "a \"quoted\"\nline\\")], 1.0),
            ("haft_worker_connections_in_flight", &[("slot", "0")], 1.0),
            ("haft_worker_connections_open", &[("slot", "0")], 11.0),
            ("haft_generation", &[], 2.0),
            ("haft_reload_under_way", &[], 1.0),
            ("haft_reloads_total", &[("outcome", "done")], 14.0),
            ("haft_reloads_total", &[("outcome", "failed")], 15.0),
            ("haft_workers_hung_total", &[], 16.0),
            ("haft_workers_hang_killed_total", &[], 17.0),
            ("haft_worker_hung", &[("slot", "0")], 0.0),
            ("haft_slot_drained", &[("slot", "0")], 0.0),
            ("haft_slot_drained", &[("slot", "1")], 1.0),
            ("haft_workers_draining", &[("slot", "0")], 3.0),
            ("haft_node_messages_total", &[], 18.0),
            ("haft_node_messages_dropped_total", &[], 19.0),
            ("haft_control_requests_total", &[("action", "reload")], 12.0),
            ("haft_control_refused_total", &[("reason", "no_token")], 13.0),
            ("process_open_fds", &[], 31.0),
            ("process_start_time_seconds", &[], 1_700_000_000.25),
            ("haft_build_info", &[("version", "1.2.3")], 1.0),
        ];
        for (name, labels, value) in expected {
            assert_eq!(page.value(name, labels), Some(value), "{name} {labels:?}");
        }
        assert_eq!(page.value("haft_worker_connections_open", &[("slot", "1")]), None, "not said, so not shown");
        assert_eq!(balance(&page), 0.0);
    }

    #[test]
    fn each_slot_is_in_exactly_one_state() {
        let page = read(example::snapshot(), Format::Text);
        for (slot, is) in [("0", "ready"), ("1", "gone")] {
            for state in SlotState::ALL.map(SlotState::name) {
                let value = page.value("haft_worker_state", &[("slot", slot), ("state", state)]);
                assert_eq!(value, Some(f64::from(u8::from(state == is))), "slot {slot} {state}");
            }
        }
    }

    #[test]
    fn the_histogram_is_cumulative_and_complete() {
        let page = read(example::snapshot(), Format::Text);
        let mut buckets: Vec<(f64, f64)> = (page.samples.iter())
            .filter(|((name, _), _)| name == "haft_handover_seconds_bucket")
            .map(|((_, labels), count)| (labels["le"].replace("+Inf", "inf").parse().expect("bound"), *count))
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert_eq!((buckets[0].0, buckets[18].0, buckets[19].0), (1e-5, 10.0, f64::INFINITY));
        assert!(buckets.is_sorted_by_key(|(_, count)| *count), "{buckets:?}");
        assert_eq!(page.value("haft_handover_seconds_count", &[]), Some(90.0));
        assert_eq!(buckets[19].1, 90.0);
        // 15, 16 ... 20 us are the six within 20 us.
        assert_eq!((buckets[0].1, buckets[1].1), (0.0, 6.0));
        let sum: u32 = (15..105).sum();
        assert_eq!(page.value("haft_handover_seconds_sum", &[]), Some(f64::from(sum) / 1e6));
    }

    #[test]
    fn a_master_without_slots_and_without_traffic_still_gives_a_page() {
        let snapshot = Snapshot {
            accepted: 0,
            delivered: Vec::new(),
            refused: Vec::new(),
            in_flight: 0,
            hand_over: super::super::Histogram::new(),
            slots: Vec::new(),
            ..example::snapshot()
        };
        for format in [Format::Text, Format::OpenMetrics] {
            assert_eq!(balance(&read(snapshot.clone(), format)), 0.0);
        }
    }

    proptest! {
        #[test]
        fn both_forms_show_the_same_samples_and_keep_the_balance(
            delivered in proptest::collection::vec(0..1_000_000_u64, 2),
            refused in proptest::collection::vec(0..1_000_000_u64, 2),
            in_flight in 0..1_000_u64,
            reason in "\\PC{0,20}",
        ) {
            let mut snapshot = example::snapshot();
            snapshot.accepted = delivered.iter().sum::<u64>() + refused.iter().sum::<u64>() + in_flight;
            snapshot.refused = vec![("one", refused[0]), ("another", refused[1])];
            snapshot.delivered = delivered;
            snapshot.in_flight = in_flight;
            snapshot.slots[1].deaths_by_reason[0].0.clone_from(&reason);
            prop_assert!(snapshot.is_balanced());

            let text = read(snapshot.clone(), Format::Text);
            let open_metrics = read(snapshot, Format::OpenMetrics);
            prop_assert_eq!(&text.samples, &open_metrics.samples);
            prop_assert_eq!(balance(&text), 0.0);
            prop_assert_eq!(text.value("haft_worker_exits_total", &[("slot", "1"), ("reason", &reason)]), Some(2.0));
        }
    }
}
