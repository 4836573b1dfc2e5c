//! A page read back.

use super::super::example;
use super::super::exposition::Exposition;
use super::*;
use proptest::prelude::*;

fn read(snapshot: Snapshot, format: Format) -> Exposition {
    Exposition::read(&encode(snapshot, format).expect("a page"), format)
}

/// A sample's name, labels and value.
type Expected = (&'static str, &'static [(&'static str, &'static str)], f64);

/// Names, types, labels.
const PROMISED: &[(&str, &str, &[&str])] = &[
    ("haft_connections_accepted_total", "counter", &[]),
    ("haft_connections_delivered_total", "counter", &["slot"]),
    ("haft_connections_refused_total", "counter", &["reason"]),
    ("haft_connections_in_flight", "gauge", &[]),
    ("haft_connections_held", "gauge", &[]),
    ("haft_slot_connections_assigned_total", "counter", &["slot"]),
    ("haft_slot_connections_moved_total", "counter", &["slot"]),
    ("haft_slot_connections_refused_total", "counter", &["slot"]),
    ("haft_connections_redelivered_total", "counter", &["state"]),
    ("haft_connections_returned_total", "counter", &[]),
    ("haft_connections_rescued_total", "counter", &[]),
    ("haft_accept_queue_length", "gauge", &["slot"]),
    ("haft_listener_repairs_total", "counter", &["fault"]),
    ("haft_admin_connections_closed_total", "counter", &["reason"]),
    ("haft_accept_errors_total", "counter", &["reason"]),
    ("haft_connections_routed_total", "counter", &["by"]),
    ("haft_connections_unattributed_total", "counter", &[]),
    ("haft_connections_peeking", "gauge", &[]),
    ("haft_connections_delayed_total", "counter", &[]),
    ("haft_peeks_given_up_total", "counter", &["reason"]),
    ("haft_proxy_headers_total", "counter", &["outcome"]),
    ("haft_client_ip_headers_total", "counter", &["outcome"]),
    ("haft_sessions_of_other_hosts_total", "counter", &[]),
    ("haft_affinity_criteria_total", "counter", &["criterion", "outcome"]),
    ("haft_worker_sessions", "gauge", &["slot"]),
    ("haft_handover_seconds", "histogram", &[]),
    ("haft_handover_seconds_bucket", "", &["le"]),
    ("haft_workers_respawned_total", "counter", &["slot"]),
    ("haft_worker_replacements_total", "counter", &["reason", "slot"]),
    ("haft_slot_kept_out", "gauge", &["slot"]),
    ("haft_health_checks_total", "counter", &["outcome", "slot"]),
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
    ("haft_node_listens_refused_total", "counter", &[]),
    ("haft_rooms_members", "gauge", &[]),
    ("haft_rooms_hosts", "gauge", &[]),
    ("haft_rooms_linked", "gauge", &[]),
    ("haft_rooms_link_breaks_total", "counter", &[]),
    ("haft_rooms_messages_total", "counter", &[]),
    ("haft_rooms_deliveries_total", "counter", &[]),
    ("haft_rooms_bytes_total", "counter", &[]),
    ("haft_rooms_dropped_total", "counter", &["reason"]),
    ("haft_node_troubles_total", "counter", &["kind"]),
    ("haft_node_names_forgotten_total", "counter", &[]),
    ("haft_log_lines_dropped_total", "counter", &[]),
    ("haft_log_lines_suppressed_total", "counter", &[]),
    ("haft_worker_output_lines_dropped_total", "counter", &["slot"]),
    ("haft_worker_output_pauses_total", "counter", &["slot"]),
    ("haft_alarm_active", "gauge", &["alarm"]),
    ("haft_alarms_raised_total", "counter", &["alarm"]),
    ("haft_control_requests_total", "counter", &["action"]),
    ("haft_control_refused_total", "counter", &["reason"]),
    ("haft_worker_event_loop_delay_seconds", "gauge", &["slot", "stat"]),
    ("haft_worker_transport_sessions", "gauge", &["slot", "transport"]),
    ("haft_worker_told_connections", "gauge", &["slot"]),
    ("haft_worker_heap_bytes", "gauge", &["slot"]),
    ("haft_worker_heap_limit_bytes", "gauge", &["slot"]),
    ("haft_worker_connections_total", "counter", &["slot"]),
    ("haft_worker_sessions_opened_total", "counter", &["slot"]),
    ("haft_worker_upgrades_total", "counter", &["slot"]),
    ("haft_worker_uncaught_errors_total", "counter", &["slot"]),
    ("haft_worker_clients_recovered_total", "counter", &["slot"]),
    ("haft_worker_sessions_closed_total", "counter", &["reason", "slot"]),
    ("haft_worker_requests_refused_total", "counter", &["reason", "slot"]),
    ("haft_worker_closed_for_memory_total", "counter", &["reason", "slot"]),
    ("haft_worker_messages_total", "counter", &["direction", "slot"]),
    ("haft_worker_messages_lost_total", "counter", &["reason", "slot"]),
    ("haft_worker_bytes_total", "counter", &["direction", "slot"]),
    ("haft_worker_resident_bytes", "gauge", &["slot"]),
    ("haft_worker_threads", "gauge", &["slot"]),
    ("haft_worker_open_fds", "gauge", &["slot"]),
    ("haft_worker_cpu_seconds_total", "counter", &["slot"]),
    ("haft_worker_age_seconds", "gauge", &["slot"]),
    ("process_resident_memory_bytes", "gauge", &[]),
    ("process_cpu_seconds_total", "counter", &[]),
    ("process_open_fds", "gauge", &[]),
    ("process_max_fds", "gauge", &[]),
    ("process_start_time_seconds", "gauge", &[]),
    ("haft_build_info", "gauge", &["version"]),
    ("haft_handover_seconds_count", "", &[]),
];

const EXPECTED: &[Expected] = &[
    ("haft_connections_accepted_total", &[], 100.0),
    ("haft_connections_delivered_total", &[("slot", "1")], 20.0),
    ("haft_connections_refused_total", &[("reason", "no-worker")], 2.0),
    ("haft_connections_in_flight", &[], 5.0),
    ("haft_connections_held", &[], 4.0),
    ("haft_connections_redelivered_total", &[("state", "unread")], 6.0),
    ("haft_connections_redelivered_total", &[("state", "unacknowledged")], 7.0),
    ("haft_connections_returned_total", &[], 8.0),
    ("haft_connections_rescued_total", &[], 20.0),
    ("haft_accept_queue_length", &[("slot", "0")], 27.0),
    ("haft_accept_errors_total", &[("reason", "aborted")], 9.0),
    ("haft_connections_routed_total", &[("by", "session")], 21.0),
    ("haft_connections_unattributed_total", &[], 28.0),
    ("haft_connections_peeking", &[], 2.0),
    ("haft_connections_delayed_total", &[], 31.0),
    ("haft_peeks_given_up_total", &[("reason", "timeout")], 23.0),
    ("haft_proxy_headers_total", &[("outcome", "taken")], 24.0),
    ("haft_client_ip_headers_total", &[("outcome", "malformed")], 25.0),
    ("haft_worker_sessions", &[("slot", "0")], 26.0),
    ("haft_workers_respawned_total", &[("slot", "1")], 3.0),
    ("haft_worker_replacements_total", &[("slot", "0"), ("reason", "memory")], 48.0),
    ("haft_slot_kept_out", &[("slot", "1")], 1.0),
    ("haft_health_checks_total", &[("slot", "0"), ("outcome", "failed")], 50.0),
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
    ("haft_node_listens_refused_total", &[], 20.0),
    ("haft_rooms_members", &[], 41.0),
    ("haft_rooms_hosts", &[], 46.0),
    ("haft_rooms_linked", &[], 1.0),
    ("haft_rooms_link_breaks_total", &[], 47.0),
    ("haft_rooms_messages_total", &[], 42.0),
    ("haft_rooms_deliveries_total", &[], 43.0),
    ("haft_rooms_bytes_total", &[], 44.0),
    ("haft_rooms_dropped_total", &[("reason", "unread")], 45.0),
    ("haft_node_troubles_total", &[("kind", "exclusive")], 48.0),
    ("haft_node_troubles_total", &[("kind", "late_server")], 0.0),
    ("haft_node_names_forgotten_total", &[], 21.0),
    ("haft_log_lines_dropped_total", &[], 32.0),
    ("haft_log_lines_suppressed_total", &[], 33.0),
    ("haft_worker_output_lines_dropped_total", &[("slot", "0")], 34.0),
    ("haft_worker_output_pauses_total", &[("slot", "0")], 35.0),
    ("haft_alarm_active", &[("alarm", "skew")], 1.0),
    ("haft_alarm_active", &[("alarm", "restarts")], 0.0),
    ("haft_alarms_raised_total", &[("alarm", "restarts")], 49.0),
    ("haft_control_requests_total", &[("action", "reload")], 12.0),
    ("haft_control_refused_total", &[("reason", "no_token")], 13.0),
    ("haft_worker_event_loop_delay_seconds", &[("slot", "0"), ("stat", "p50")], 111e-9),
    ("haft_worker_transport_sessions", &[("slot", "0"), ("transport", "websocket")], 103.0),
    ("haft_worker_sessions_closed_total", &[("slot", "0"), ("reason", "ping_timeout")], 116.0),
    ("haft_worker_uncaught_errors_total", &[("slot", "0")], 128.0),
    ("haft_worker_closed_for_memory_total", &[("slot", "0"), ("reason", "stalled")], 131.0),
    ("haft_worker_messages_lost_total", &[("slot", "0"), ("reason", "goodbye")], 132.0),
    ("haft_worker_clients_recovered_total", &[("slot", "0")], 134.0),
    ("haft_worker_resident_bytes", &[("slot", "0")], 4_194_304.0),
    ("haft_worker_cpu_seconds_total", &[("slot", "0")], 51.0),
    ("process_cpu_seconds_total", &[], 1.5),
    ("process_open_fds", &[], 31.0),
    ("process_start_time_seconds", &[], 1_700_000_000.25),
    ("haft_build_info", &[("version", "1.2.3")], 1.0),
];

fn balance(page: &Exposition) -> f64 {
    page.sum("haft_connections_accepted_total")
        - page.sum("haft_connections_delivered_total")
        - page.sum("haft_connections_refused_total")
        - page.sum("haft_connections_in_flight")
}

#[test]
fn every_promised_family_is_there_with_its_type_and_labels() {
    let page = read(example::snapshot(), Format::Text);
    for &(name, kind, labels) in PROMISED {
        assert_eq!(page.kinds.get(name).map_or("", String::as_str), kind, "{name}");
        assert_eq!(page.label_names(name), labels, "{name}");
    }
    assert_eq!(page.kinds.len(), PROMISED.iter().filter(|(_, kind, _)| !kind.is_empty()).count());
}

#[test]
fn the_numbers_are_the_snapshots() {
    let page = read(example::snapshot(), Format::Text);
    for &(name, labels, value) in EXPECTED {
        assert_eq!(page.value(name, labels), Some(value), "{name} {labels:?}");
    }
    assert_eq!(page.value("haft_worker_connections_open", &[("slot", "1")]), None, "not reported, so not shown");
    assert_eq!(balance(&page), 0.0);
}

#[test]
fn each_slot_is_in_exactly_one_state() {
    let page = read(example::snapshot(), Format::Text);
    for (slot, is) in [("0", "ready"), ("1", "gone")] {
        for state in WorkerStage::ALL.map(WorkerStage::name) {
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
        hand_over: crate::histogram::Histogram::new(),
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
        for (slot, delivered) in snapshot.balance.iter_mut().zip(&delivered) {
            let waiting = in_flight / 2 * slot.slot as u64 + (in_flight - in_flight / 2) * (1 - slot.slot as u64);
            (slot.delivered, slot.held) = (*delivered, waiting);
            slot.assigned = delivered + slot.refused + slot.moved + slot.in_flight + waiting;
        }
        snapshot.balance[0].assigned -= std::mem::take(&mut snapshot.balance[0].in_flight);
        snapshot.routing.peeking = 0;
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
