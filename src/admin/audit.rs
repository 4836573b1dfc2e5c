//! What was asked of control: counted, and logged at a limited rate, so that callers cannot flood the log.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::action::ControlAction;
use super::guard::{AuthError, Caller, Denial};
use super::snapshot::ControlCounts;

/// Lines about refusals for one reason within one window.
const LINES: u32 = 5;
/// Length of a window.
const WINDOW: Duration = Duration::from_secs(60);

/// Why a connection of the admin listener was closed before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// Another one needed its place, and it waited for its client.
    PushedOut,
    /// Its client took too long.
    TooSlow,
}

impl Closed {
    const ALL: [Self; 2] = [Self::PushedOut, Self::TooSlow];

    const fn name(self) -> &'static str {
        match self {
            Self::PushedOut => "pushed_out",
            Self::TooSlow => "too_slow",
        }
    }
}

/// The counts of what was asked of control, and what keeps the log short.
#[derive(Debug, Default)]
pub(super) struct Audit {
    done: [AtomicU64; ControlAction::ALL.len()],
    refused: [AtomicU64; AuthError::ALL.len()],
    closed: [AtomicU64; Closed::ALL.len()],
    paces: Mutex<[RateLimit; AuthError::ALL.len()]>,
}

impl Audit {
    /// A change that the master has taken on.
    pub(super) fn done(&self, caller: &Caller, action: ControlAction, text: &str) {
        self.done[action as usize].fetch_add(1, Ordering::Relaxed);
        tracing::info!(%caller, action = action.name(), "control: {text}");
    }

    /// A change that the master did not take on, asked by a caller that may ask.
    pub(super) fn denied(caller: &Caller, action: ControlAction, why: &dyn fmt::Display) {
        tracing::info!(%caller, action = action.name(), "control, not done: {why}");
    }

    /// An attempt by a caller that may not.
    pub(super) fn refused(&self, caller: &Caller, action: &str, refused: &Denial, now: Instant) {
        let refusal = refused.refusal;
        self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(unlogged) = paces[refusal as usize].admit(now) {
            let (reason, detail) = (refusal.name(), refused.detail.as_ref());
            tracing::warn!(%caller, action, reason, detail, unlogged, "control refused");
        }
    }

    /// A connection was closed before its time.
    pub(super) fn closed(&self, why: Closed) {
        self.closed[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// All counts, those that are still zero too.
    pub(super) fn counts(&self) -> ControlCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ControlCounts {
            requests: ControlAction::ALL.map(|action| (action.name(), read(&self.done[action as usize]))).to_vec(),
            closed: Closed::ALL.map(|why| (why.name(), read(&self.closed[why as usize]))).to_vec(),
            refused: AuthError::ALL.map(|refusal| (refusal.name(), read(&self.refused[refusal as usize]))).to_vec(),
        }
    }
}

/// Lets a few through in each window of time, and counts the others.
#[derive(Debug, Default)]
struct RateLimit {
    began: Option<Instant>,
    lines: u32,
    unlogged: u64,
}

impl RateLimit {
    /// Whether one more may be logged now; if so, how many were not since the last one that was.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= WINDOW) {
            (self.began, self.lines) = (Some(now), 0);
        }
        if self.lines == LINES {
            self.unlogged += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_and_the_next_line_tells_how_many_there_were() {
        let (mut pace, start) = (RateLimit::default(), Instant::now());
        for _ in 0..LINES {
            assert_eq!(pace.admit(start), Some(0));
        }
        for _ in 0..1000 {
            assert_eq!(pace.admit(start + WINDOW - Duration::from_nanos(1)), None);
        }
        assert_eq!(pace.admit(start + WINDOW), Some(1000));
        for _ in 1..LINES {
            assert_eq!(pace.admit(start + WINDOW), Some(0));
        }
        assert_eq!(pace.admit(start + WINDOW), None);
        assert_eq!(pace.admit(start), None, "a clock that is behind opens no window");
    }

    #[test]
    fn each_count_has_its_own_name() {
        let audit = Audit::default();
        let caller = Caller::Unix { uid: Some(7) };
        audit.done(&caller, ControlAction::Drain, "slot 1 is drained");
        for _ in 0..LINES + 2 {
            audit.refused(&caller, ControlAction::Scale.name(), &AuthError::NoToken.into(), Instant::now());
        }
        let counts = audit.counts();
        assert_eq!(
            counts.requests,
            [("reload", 0), ("scale", 0), ("drain", 1), ("undrain", 0), ("restart", 0), ("stop", 0)]
        );
        assert_eq!(counts.refused.iter().map(|(_, count)| count).sum::<u64>(), u64::from(LINES) + 2);
        assert!(counts.refused.contains(&("no_token", u64::from(LINES) + 2)), "{counts:?}");
    }
}
