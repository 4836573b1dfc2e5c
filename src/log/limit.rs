//! How many lines of one kind are logged: a worker or a client that provokes the same warning without end gets a few of
//! them written, and then how many there were.
//!
//! A kind is the place in the code that logs, together with the slot or worker that the line names: one worker's flood
//! does not suppress lines about another. Lines of level debug and trace are not limited: the operator requested them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::escape::one_line;

/// Lines of one kind that may come at once, and how long it takes until one more may.
const WARNINGS: (u32, Duration) = (20, Duration::from_secs(1));
/// The same for level info.
const INFOS: (u32, Duration) = (200, Duration::from_millis(50));
/// A flood is reported when it has been over for so long ...
const CALM: Duration = Duration::from_secs(1);
/// ... and as often as this while it lasts.
const WHILE_IT_LASTS: Duration = Duration::from_secs(10);
/// Maximum number of kinds that are distinguished by slot or worker.
const MAX_KINDS: usize = 1024;

/// The limits of this process's log.
pub(super) static LIMITS: LogLimits = LogLimits(Mutex::new(Kinds { kinds: BTreeMap::new(), total: 0, pending: 0 }));

#[derive(Debug)]
pub(super) struct LogLimits(Mutex<Kinds>);

/// The place that logs, by its address, and the slot or worker.
type LogKind = (usize, Option<u64>);

#[derive(Debug)]
struct Kinds {
    kinds: BTreeMap<LogKind, LogBucket>,
    /// Lines that were suppressed.
    total: u64,
    /// Kinds with suppressed lines that were not reported.
    pending: usize,
}

#[derive(Debug)]
struct LogBucket {
    left: u32,
    filled: Instant,
    level: Level,
    suppressed: Option<Flood>,
}

#[derive(Debug)]
struct Flood {
    count: u64,
    began: Instant,
    last: Instant,
    example: String,
}

/// Lines of one kind that were suppressed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Suppressed {
    pub(super) level: Level,
    pub(super) count: u64,
    pub(super) example: String,
}

impl LogBucket {
    fn new(level: Level, now: Instant) -> Self {
        Self { left: limits(level).0, filled: now, level, suppressed: None }
    }

    /// Fills up what the time since then allows.
    fn fill(&mut self, now: Instant) {
        let (most, interval) = limits(self.level);
        let more = now.saturating_duration_since(self.filled).as_nanos() / interval.as_nanos();
        if more >= u128::from(most - self.left) {
            (self.left, self.filled) = (most, now);
        } else {
            // Less than `most`.
            self.left += more as u32;
            self.filled += interval * more as u32;
        }
    }

    fn is_idle(&self) -> bool {
        self.left == limits(self.level).0 && self.suppressed.is_none()
    }
}

fn limits(level: Level) -> (u32, Duration) {
    if level == Level::INFO { INFOS } else { WARNINGS }
}

impl Kinds {
    /// Whether one more line may be written now. `example` is asked for the first of those that may not.
    fn admit(&mut self, kind: LogKind, level: Level, now: Instant, example: impl FnOnce() -> String) -> bool {
        if self.kinds.len() >= MAX_KINDS && !self.kinds.contains_key(&kind) {
            self.kinds.retain(|_, bucket| {
                bucket.fill(now);
                !bucket.is_idle()
            });
        }
        let kind = if self.kinds.len() >= MAX_KINDS && !self.kinds.contains_key(&kind) { (kind.0, None) } else { kind };
        let bucket = self.kinds.entry(kind).or_insert_with(|| LogBucket::new(level, now));
        bucket.fill(now);
        if let Some(left) = bucket.left.checked_sub(1) {
            bucket.left = left;
            return true;
        }
        self.total += 1;
        let pending = &mut self.pending;
        let flood = bucket.suppressed.get_or_insert_with(|| {
            *pending += 1;
            Flood { count: 0, began: now, last: now, example: example() }
        });
        flood.count += 1;
        flood.last = now;
        false
    }

    /// Takes the floods that are to be reported now.
    fn due(&mut self, now: Instant, all: bool) -> Vec<Suppressed> {
        let is_due = |flood: &mut Flood| {
            let since = |instant| now.saturating_duration_since(instant);
            all || since(flood.last) >= CALM || since(flood.began) >= WHILE_IT_LASTS
        };
        let due = self.kinds.values_mut().filter_map(|bucket| {
            let Flood { count, example, .. } = bucket.suppressed.take_if(is_due)?;
            Some(Suppressed { level: bucket.level, count, example })
        });
        let due: Vec<_> = due.collect();
        self.pending -= due.len();
        due
    }
}

impl LogLimits {
    /// Lines that were suppressed until now.
    pub(super) fn suppressed(&self) -> u64 {
        self.lock().total
    }

    /// Whether there are suppressed lines that were not reported.
    pub(super) fn has_pending(&self) -> bool {
        self.lock().pending > 0
    }

    /// Takes what is to be reported now; at the end, everything.
    pub(super) fn due(&self, now: Instant, all: bool) -> Vec<Suppressed> {
        self.lock().due(now, all)
    }

    fn admit(&self, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        let mut subject = Subject::default();
        event.record(&mut subject);
        let kind = (std::ptr::from_ref::<Metadata<'_>>(metadata).addr(), subject.number);
        let mut kinds = self.lock();
        let before = kinds.pending;
        let admitted = kinds.admit(kind, *metadata.level(), Instant::now(), || one_line(&subject.message));
        let began = kinds.pending > before;
        drop(kinds);
        if began {
            // It may wait for lines alone.
            super::queue().wake();
        }
        admitted
    }

    fn lock(&self) -> MutexGuard<'_, Kinds> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a line is about.
#[derive(Debug, Default)]
struct Subject {
    message: String,
    /// The slot if it names one, or else the worker.
    number: Option<u64>,
    is_slot: bool,
}

impl Subject {
    fn note(&mut self, field: &Field, number: u64) {
        match field.name() {
            "slot" => (self.number, self.is_slot) = (Some(number), true),
            "worker" if !self.is_slot => self.number = Some(number),
            _ => {}
        }
    }
}

impl Visit for Subject {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.note(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "slot" => {
                if let Ok(number) = format!("{value:?}").parse() {
                    self.note(field, number);
                }
            }
            _ => {}
        }
    }
}

/// The layer that keeps to the limits.
#[derive(Debug)]
pub(super) struct Limiting;

impl<S: Subscriber> Layer<S> for Limiting {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // Reports of missing lines have limits of their own.
        *metadata.level() > Level::INFO || metadata.target() == super::notices::TARGET || LIMITS.admit(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> Kinds {
        Kinds { kinds: BTreeMap::new(), total: 0, pending: 0 }
    }

    #[test]
    fn a_flood_is_a_few_lines_and_how_many_there_were() {
        let (mut kinds, start) = (kinds(), Instant::now());
        let mut admitted =
            |kind, now| (0..40_000).filter(|n| kinds.admit(kind, Level::WARN, now, || format!("warning {n}"))).count();
        assert_eq!(admitted((1, Some(0)), start), 20);
        assert_eq!(admitted((1, Some(1)), start), 20, "another worker's");
        assert_eq!(admitted((2, Some(0)), start), 20, "of another kind");
        assert_eq!(admitted((1, Some(0)), start + Duration::from_secs(2)), 2);
        assert_eq!((kinds.total, kinds.pending), (4 * 40_000 - 62, 3));
        let due = kinds.due(start + Duration::from_secs(2), false);
        assert_eq!(due.len(), 2, "the first goes on: {due:?}");
        let due = kinds.due(start + Duration::from_secs(3), false);
        let expected = Suppressed { level: Level::WARN, count: 79_978, example: "warning 20".to_owned() };
        assert_eq!(due, [expected]);
        assert_eq!((kinds.due(start + Duration::from_secs(9), true).len(), kinds.pending), (0, 0));
    }

    #[test]
    fn a_flood_without_end_is_due_of_while_it_lasts() {
        let (mut kinds, start) = (kinds(), Instant::now());
        let mut due = 0;
        for step in 0..300 {
            let now = start + Duration::from_millis(100) * step;
            let _ = (0..100).filter(|_| kinds.admit((1, None), Level::ERROR, now, String::new)).count();
            due += kinds.due(now, false).len();
        }
        assert_eq!(due, 2);
    }

    #[test]
    fn kinds_that_are_idle_are_forgotten_and_the_others_are_bounded() {
        let (mut kinds, start) = (kinds(), Instant::now());
        for worker in 0..10 * MAX_KINDS as u64 {
            kinds.admit((1, Some(worker)), Level::WARN, start, String::new);
        }
        assert!(kinds.kinds.len() <= MAX_KINDS + 1, "{}", kinds.kinds.len());
        kinds.admit((1, Some(u64::MAX)), Level::WARN, start + Duration::from_secs(60), String::new);
        assert!(kinds.kinds.len() <= 2, "{}", kinds.kinds.len());
    }
}
