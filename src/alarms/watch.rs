//! From samples of counters to alarms that begin and end.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Alarm, AlarmCause};
use crate::connection::RejectReason;

/// How often a sample is to be taken.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A kind of alarm is logged at most once in this time.
const LOG_EVERY: Duration = Duration::from_secs(3600);
/// Arrivals are compared over this time. Shorter than a minute by a part of a look, since looks are never exact.
const SKEW_OVER: Duration = Duration::from_millis(58_500);
/// Fewer connections in that time say nothing.
const FEW: u64 = 100;
/// A slot that has lost more workers than this ...
const MAX_LOSSES: usize = 3;
/// ... in this time loses them again and again.
const LOSSES_OVER: Duration = Duration::from_secs(600);
/// An event loop that is later than this ...
const LATE: Duration = Duration::from_millis(500);
/// ... for so long lags.
const LATE_FOR: Duration = Duration::from_secs(30);
/// Refusals are shown for so long.
const REFUSALS_SHOWN: Duration = Duration::from_secs(60);
/// A queue that has less room than this, and less than it was to have, is short.
const SHORT: usize = 1024;

/// The counters of one instant.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// The slots that there are.
    pub slots: Vec<SlotSample>,
    /// Refused connections, by reason.
    pub refused: Vec<(RejectReason, u64)>,
    /// Descriptors that are open, and how many may be.
    pub descriptors: (u64, u64),
    /// The fullest of the kernel's queues: its listener, how many wait, and how many may.
    pub queue: Option<(String, usize, usize)>,
    /// How many were to have room there (`--backlog`).
    pub backlog: usize,
    /// The address of most clients, if most have one.
    pub address: Option<IpAddr>,
    /// `--affinity`, unless clients stick by their address alone.
    pub affinity: Option<String>,
    /// The line about a proxy that haft is not configured for, once one was found.
    pub one_address: Option<String>,
}

/// The counters of one slot.
#[derive(Debug, Clone, Default)]
pub struct SlotSample {
    /// Its number.
    pub slot: usize,
    /// Whether it takes clients.
    pub serves: bool,
    /// Connections that have come to it.
    pub arrivals: u64,
    /// Workers that were replaced because they had ended by themselves.
    pub losses: u64,
    /// How the last of them ended.
    pub last_exit: Option<String>,
    /// By how much its worker's event loop is late, if that is known.
    pub delay: Option<Duration>,
}

/// A kind of alarm over time.
#[derive(Debug, Clone, Default)]
struct AlarmState {
    finding: Option<AlarmCause>,
    since: Option<Instant>,
    logged: Option<Instant>,
    raised: u64,
}

/// Which alarms there are.
#[derive(Debug, Default)]
pub struct Alarms {
    states: [AlarmState; Alarm::ALL.len()],
    /// When the minute began over which arrivals are compared, and what had come to each slot by then.
    minute: Option<(Instant, BTreeMap<usize, u64>)>,
    skew: Option<AlarmCause>,
    /// By slot: how many workers it had lost, and when the last few were.
    losses: BTreeMap<usize, (u64, VecDeque<Instant>)>,
    /// By slot: since when its event loop has been late.
    late: BTreeMap<usize, Instant>,
    refused: BTreeMap<&'static str, u64>,
    refusals: Option<(Instant, AlarmCause)>,
}

impl Alarms {
    /// Takes in a sample, and yields the lines that are to be logged.
    pub fn look(&mut self, now: Instant, sample: &Sample) -> Vec<(Alarm, String)> {
        let findings = [
            // An unknown proxy is the cause then, and its own line has the cure.
            self.skew(now, sample).filter(|_| sample.one_address.is_none()),
            sample.one_address.clone().map(AlarmCause::OneAddress),
            self.restarts(now, sample),
            self.loop_delay(now, sample),
            self.refusals(now, sample),
            self.descriptors(sample),
            self.accept_queue(sample),
        ];
        let mut lines = Vec::new();
        for alarm in Alarm::ALL {
            let finding = findings.iter().flatten().find(|finding| finding.alarm() == alarm).cloned();
            lines.extend(self.states[alarm as usize].take(finding, now).map(|line| (alarm, line)));
        }
        lines
    }

    /// How often an alarm has begun, and what is the matter while it lasts.
    pub fn state(&self, alarm: Alarm) -> (u64, Option<(&AlarmCause, Instant)>) {
        let state = &self.states[alarm as usize];
        (state.raised, state.finding.as_ref().zip(state.since))
    }

    fn is_active(&self, alarm: Alarm) -> bool {
        self.states[alarm as usize].finding.is_some()
    }

    /// It is judged once a minute, and stays as it was judged.
    fn skew(&mut self, now: Instant, sample: &Sample) -> Option<AlarmCause> {
        let arrivals = || sample.slots.iter().map(|slot| (slot.slot, slot.arrivals)).collect();
        let Some((since, before)) = &self.minute else {
            self.minute = Some((now, arrivals()));
            return None;
        };
        if now.saturating_duration_since(*since) >= SKEW_OVER {
            let came = |slot: &SlotSample| {
                let before = before.get(&slot.slot).copied().unwrap_or(slot.arrivals);
                (slot.slot, slot.arrivals.saturating_sub(before))
            };
            let came: Vec<(usize, u64)> = sample.slots.iter().filter(|slot| slot.serves).map(came).collect();
            self.skew = judge(&came, sample);
            self.minute = Some((now, arrivals()));
        }
        self.skew.clone()
    }

    fn restarts(&mut self, now: Instant, sample: &Sample) -> Option<AlarmCause> {
        let mut found = None;
        for slot in &sample.slots {
            let (before, times) = self.losses.entry(slot.slot).or_default();
            let more = usize::try_from(slot.losses.saturating_sub(*before)).unwrap_or(usize::MAX);
            *before = slot.losses;
            times.extend(std::iter::repeat_n(now, more.min(MAX_LOSSES + 1)));
            while times.len() > MAX_LOSSES + 1
                || times.front().is_some_and(|time| now.saturating_duration_since(*time) > LOSSES_OVER)
            {
                times.pop_front();
            }
            if times.len() > MAX_LOSSES && found.is_none() {
                let last = slot.last_exit.clone().unwrap_or_default();
                found = Some(AlarmCause::Restarts { slot: slot.slot, last });
            }
        }
        found
    }

    fn loop_delay(&mut self, now: Instant, sample: &Sample) -> Option<AlarmCause> {
        let late = |slot: &&SlotSample| slot.delay.is_some_and(|delay| delay > LATE);
        self.late.retain(|slot, _| sample.slots.iter().filter(late).any(|it| it.slot == *slot));
        let mut lagging = Vec::new();
        for slot in sample.slots.iter().filter(late) {
            let since = *self.late.entry(slot.slot).or_insert(now);
            if now.saturating_duration_since(since) >= LATE_FOR {
                lagging.push((slot.delay.unwrap_or_default(), slot.slot));
            }
        }
        let (delay, slot) = lagging.iter().max().copied()?;
        Some(AlarmCause::LoopDelay { slot, delay, slots: lagging.len() })
    }

    fn refusals(&mut self, now: Instant, sample: &Sample) -> Option<AlarmCause> {
        let (mut count, mut most) = (0, None);
        for (reason, refused) in &sample.refused {
            let more = refused.saturating_sub(self.refused.insert(reason.name(), *refused).unwrap_or(0));
            if more == 0 || is_wanted(*reason) {
                continue;
            }
            count += more;
            if most.is_none_or(|(most, _)| more > most) {
                most = Some((more, *reason));
            }
        }
        if let Some((_, reason)) = most {
            self.refusals = Some((now, AlarmCause::Refusals { count, reason }));
        }
        self.refusals.take_if(|(since, _)| now.saturating_duration_since(*since) > REFUSALS_SHOWN);
        self.refusals.as_ref().map(|(_, finding)| finding.clone())
    }

    /// Four fifths are too much; it is over below seven tenths.
    fn descriptors(&self, sample: &Sample) -> Option<AlarmCause> {
        let (open, limit) = sample.descriptors;
        let tenths = if self.is_active(Alarm::Descriptors) { 7 } else { 8 };
        (limit > 0 && open >= limit / 10 * tenths).then_some(AlarmCause::Descriptors { open, limit })
    }

    /// Three quarters are too much; it is over below half.
    fn accept_queue(&self, sample: &Sample) -> Option<AlarmCause> {
        let (listener, waiting, length) = sample.queue.clone()?;
        let (wanted, quarters) = (sample.backlog, if self.is_active(Alarm::AcceptQueue) { 2 } else { 3 });
        let is_short = length < wanted && length < SHORT;
        let is_full = length > 0 && waiting * 4 >= length * quarters;
        (is_short || is_full).then_some(AlarmCause::AcceptQueue { listener, waiting, length, wanted })
    }
}

/// Whether the operator has asked for refusals of this kind.
fn is_wanted(reason: RejectReason) -> bool {
    matches!(reason, RejectReason::Stopping | RejectReason::Denied | RejectReason::OverLimit)
}

/// Whether what came to the slots in a minute is spread badly.
fn judge(came: &[(usize, u64)], sample: &Sample) -> Option<AlarmCause> {
    let total: u64 = came.iter().map(|(_, count)| count).sum();
    let (slot, most) = came.iter().copied().max_by_key(|(_, count)| *count)?;
    let times = most as f64 * came.len() as f64 / total.max(1) as f64;
    (came.len() > 1 && total >= FEW && times >= 2.0).then(|| AlarmCause::Skew {
        slot,
        times,
        address: sample.address,
        affinity: sample.affinity.clone(),
    })
}

impl AlarmState {
    /// What is the matter now; yields the line that is to be logged of it.
    fn take(&mut self, finding: Option<AlarmCause>, now: Instant) -> Option<String> {
        let begins = finding.is_some() && self.finding.is_none();
        self.finding = finding;
        if !begins {
            return None;
        }
        self.raised += 1;
        self.since = Some(now);
        let was_logged = self.logged.is_some_and(|logged| now.saturating_duration_since(logged) < LOG_EVERY);
        if was_logged {
            return None;
        }
        self.logged = Some(now);
        self.finding.as_ref().map(AlarmCause::line)
    }
}
