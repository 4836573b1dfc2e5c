//! A program to which all was refused that it wanted to listen on, and that lives on.

use std::time::{Duration, Instant};

/// A program that has not asked again within this time has no other port to try. Node's documentation shows a program
/// that tries again after one second.
const PATIENCE: Duration = Duration::from_secs(2);

/// The last that a program asked to listen on was refused.
#[derive(Debug)]
pub(crate) struct RefusedListen {
    since: Instant,
    why: String,
}

impl RefusedListen {
    pub(crate) fn new(why: String, now: Instant) -> Self {
        Self { since: now, why }
    }

    /// Why, for people.
    pub(crate) fn why(&self) -> &str {
        &self.why
    }

    /// Whether the program would have asked for another by now, if it wanted to.
    pub(crate) fn is_final(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= PATIENCE
    }
}
