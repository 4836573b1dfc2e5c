//! Alarms over time, with a clock of the test's own.

use std::time::{Duration, Instant};

use super::{Alarm, AlarmCause, Alarms, LOOK_EVERY, Sample, SlotSample};
use crate::connection::RejectReason;

/// Looks every five seconds, as the master does.
struct Clock {
    alarms: Alarms,
    now: Instant,
    lines: Vec<String>,
}

impl Clock {
    fn new() -> Self {
        Self { alarms: Alarms::default(), now: Instant::now(), lines: Vec::new() }
    }

    /// So many looks; `sample` gets the number of seconds so far.
    fn run(&mut self, looks: u32, mut sample: impl FnMut(u32) -> Sample) {
        for look in 0..looks {
            let lines = self.alarms.look(self.now, &sample(look * 5));
            self.lines.extend(lines.into_iter().map(|(_, line)| line));
            self.now += LOOK_EVERY;
        }
    }

    fn finding(&self, alarm: Alarm) -> Option<AlarmCause> {
        self.alarms.state(alarm).1.map(|(finding, _)| finding.clone())
    }

    fn active(&self) -> Vec<&'static str> {
        let active = |alarm: &Alarm| self.finding(*alarm).is_some();
        Alarm::ALL.into_iter().filter(active).map(Alarm::name).collect()
    }
}

fn slots(count: usize, change: impl Fn(&mut SlotSample)) -> Sample {
    let slot = |slot| {
        let mut sample = SlotSample { slot, serves: true, ..SlotSample::default() };
        change(&mut sample);
        sample
    };
    Sample { slots: (0..count).map(slot).collect(), descriptors: (10, 1000), backlog: 4096, ..Sample::default() }
}

#[test]
fn nothing_is_wrong_with_an_even_load() {
    let mut clock = Clock::new();
    clock.run(40, |second| slots(4, |slot| slot.arrivals = u64::from(second) * 10));
    assert!(clock.active().is_empty() && clock.lines.is_empty());
}

#[test]
fn twice_the_mean_for_a_minute_is_skew_and_is_over_with_an_even_minute() {
    let mut clock = Clock::new();
    let skewed = |second: u32| {
        let address = "10.0.0.1".parse().ok();
        let come = |slot: usize| if slot == 2 { 10 } else { 1 };
        let sample = slots(4, |slot| slot.arrivals = u64::from(second) * come(slot.slot));
        Sample { address, ..sample }
    };
    clock.run(12, skewed);
    assert!(clock.active().is_empty(), "not before the minute is over");
    clock.run(1, |_| skewed(60));
    let Some(AlarmCause::Skew { slot: 2, times, .. }) = clock.finding(Alarm::Skew) else {
        panic!("{:?}", clock.active())
    };
    assert!((times - 40.0 / 13.0).abs() < 0.01, "{times}");
    assert!(clock.lines[0].starts_with("slot 2 gets 3.1 times the mean: most clients have the address 10.0.0.1"));
    clock.run(13, |second| slots(4, |slot| slot.arrivals = 600 + u64::from(second) * 5));
    assert_eq!(clock.finding(Alarm::Skew), None);
}

#[test]
fn an_unknown_proxy_is_one_alarm_and_no_skew_beside_it() {
    let mut clock = Clock::new();
    clock.run(30, |second| {
        let sample = slots(2, |slot| slot.arrivals = u64::from(second) * 10 * u64::from(slot.slot == 1));
        Sample { one_address: Some("haft is behind a proxy".to_owned()), ..sample }
    });
    assert_eq!((clock.active(), clock.lines.len()), (vec!["one_address"], 1));
}

#[test]
fn few_connections_one_slot_and_slots_that_take_no_clients_are_no_skew() {
    for sample in [
        (|second| slots(4, |slot| slot.arrivals = u64::from(second / 5 * u32::from(slot.slot == 0))))
            as fn(u32) -> Sample,
        |second| slots(1, |slot| slot.arrivals = u64::from(second) * 100),
        |second| {
            slots(2, |slot| (slot.serves, slot.arrivals) = (slot.slot == 0, u64::from(second) * (2 - slot.slot as u64)))
        },
    ] {
        let mut clock = Clock::new();
        clock.run(30, sample);
        assert!(clock.active().is_empty());
    }
}

#[test]
fn with_two_slots_all_that_come_to_one_are_skew() {
    let mut clock = Clock::new();
    let sample = |second| slots(2, |slot| slot.arrivals = u64::from(second) * 5 * (1 - slot.slot as u64));
    clock.run(14, |second| Sample { affinity: Some("query:room".to_owned()), ..sample(second) });
    assert_eq!(clock.active(), ["skew"]);
    assert!(clock.lines[0].contains("--affinity query:room"), "{:?}", clock.lines);
}

#[test]
fn a_slot_that_loses_four_workers_in_ten_minutes_is_reported_once_an_hour() {
    let mut clock = Clock::new();
    let lost = |losses: u64| {
        move |_| {
            slots(2, move |slot| {
                (slot.losses, slot.last_exit) =
                    (if slot.slot == 1 { losses } else { 0 }, Some("exit code 3".to_owned()));
            })
        }
    };
    clock.run(1, lost(3));
    assert!(clock.active().is_empty());
    clock.run(1, lost(4));
    assert_eq!(clock.active(), ["restarts"]);
    assert!(clock.lines[0].contains("slot 1") && clock.lines[0].contains("exit code 3"), "{:?}", clock.lines);
    // Eleven minutes of peace, four losses more, and so on for two hours.
    for round in 0..10 {
        clock.run(132, lost(4 + round * 4));
        assert!(clock.active().is_empty(), "{round}");
        clock.run(1, lost(8 + round * 4));
        assert_eq!(clock.active(), ["restarts"]);
    }
    assert_eq!(clock.alarms.state(Alarm::Restarts).0, 11);
    assert_eq!(clock.lines.len(), 2, "at the beginning, and after an hour: {:?}", clock.lines);
}

#[test]
fn a_loop_that_is_late_for_half_a_minute_lags_and_a_moment_s_rest_ends_it() {
    let mut clock = Clock::new();
    let late = |millis: u64| {
        move |_| {
            slots(3, move |slot| slot.delay = (slot.slot > 0).then(|| Duration::from_millis(millis * slot.slot as u64)))
        }
    };
    clock.run(6, late(600));
    assert!(clock.active().is_empty());
    clock.run(1, late(600));
    let delay = Duration::from_millis(1200);
    assert_eq!(clock.finding(Alarm::LoopDelay), Some(AlarmCause::LoopDelay { slot: 2, delay, slots: 2 }));
    assert!(clock.lines[0].contains("slot 2 and of 1 more") && clock.lines[0].contains("1200 ms"), "{:?}", clock.lines);
    clock.run(1, late(250));
    assert!(clock.active().is_empty());
    clock.run(6, late(600));
    assert!(clock.active().is_empty(), "it begins anew");
}

#[test]
fn refusals_are_told_with_the_cure_and_wanted_ones_are_not() {
    let mut clock = Clock::new();
    let refused = |no_worker: u64, full: u64, wanted: u64| {
        move |_| Sample {
            refused: vec![
                (RejectReason::NoWorker, no_worker),
                (RejectReason::QueueFull, full),
                (RejectReason::Stopping, wanted),
                (RejectReason::OverLimit, wanted),
                (RejectReason::Denied, wanted),
            ],
            ..slots(1, |_| {})
        }
    };
    clock.run(1, refused(0, 0, 9));
    assert!(clock.active().is_empty());
    clock.run(1, refused(1, 5, 99));
    let reason = RejectReason::QueueFull;
    assert_eq!(clock.finding(Alarm::Refusals), Some(AlarmCause::Refusals { count: 6, reason }));
    clock.run(12, refused(1, 5, 199));
    assert_eq!(clock.active(), ["refusals"], "for a minute");
    clock.run(1, refused(1, 5, 199));
    assert!(clock.active().is_empty());
    assert_eq!(clock.lines.len(), 1, "{:?}", clock.lines);
}

#[test]
fn descriptors_and_the_accept_queue_have_a_way_to_go_before_it_is_over() {
    let mut clock = Clock::new();
    let sample = |open: u64, waiting: usize, length: usize| {
        move |_| Sample {
            descriptors: (open, 1000),
            queue: Some((":3000".to_owned(), waiting, length)),
            ..slots(1, |_| {})
        }
    };
    clock.run(1, sample(799, 3071, 4096));
    assert!(clock.active().is_empty());
    clock.run(1, sample(800, 3072, 4096));
    assert_eq!(clock.active(), ["descriptors", "accept_queue"]);
    clock.run(1, sample(700, 2048, 4096));
    assert_eq!(clock.active().len(), 2);
    clock.run(1, sample(699, 2047, 4096));
    assert!(clock.active().is_empty());
    clock.run(1, sample(1, 0, 128));
    assert_eq!(clock.active(), ["accept_queue"], "short, though it is empty");
    let Some(finding) = clock.finding(Alarm::AcceptQueue) else { panic!("active") };
    assert!(finding.line().contains("sysctl -w net.core.somaxconn=4096"), "{}", finding.line());
}

#[test]
fn each_kind_has_a_name_of_its_own_and_one_line() {
    let findings = [
        AlarmCause::Skew { slot: 1, times: 2.5, address: None, affinity: None },
        AlarmCause::OneAddress("a proxy".to_owned()),
        AlarmCause::Restarts { slot: 1, last: "signal SIGKILL (out of memory)".to_owned() },
        AlarmCause::LoopDelay { slot: 1, delay: Duration::from_secs(1), slots: 1 },
        AlarmCause::Refusals { count: 1, reason: RejectReason::NoWorker },
        AlarmCause::Descriptors { open: 1, limit: 2 },
        AlarmCause::AcceptQueue { listener: ":1".to_owned(), waiting: 1, length: 2, wanted: 2 },
    ];
    assert_eq!(findings.each_ref().map(AlarmCause::alarm), Alarm::ALL);
    assert!(findings.iter().all(|finding| !finding.line().is_empty() && !finding.line().contains('\n')));
    let names: std::collections::BTreeSet<_> = Alarm::ALL.map(Alarm::name).into();
    assert_eq!(names.len(), Alarm::ALL.len());
}
