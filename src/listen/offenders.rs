//! Clients over a limit, logged at most once a minute with the worst addresses.

use std::time::{Duration, Instant};

use crate::route::Source;

/// How often they are logged.
const PERIOD: Duration = Duration::from_secs(60);
/// How many addresses are logged, and how many are kept to find the worst among them.
const LOGGED: usize = 5;
const KEPT: usize = 32;

/// What was refused and delayed since the last line.
#[derive(Debug)]
pub(super) struct Offenders {
    refused: u64,
    delayed: u64,
    /// The worst of them, and how often each came, or a little less often (Metwally and others, 2005: Space-Saving).
    worst: Vec<(Source, u64)>,
    logged: Option<Instant>,
}

impl Offenders {
    pub(super) fn new() -> Self {
        Self { refused: 0, delayed: 0, worst: Vec::with_capacity(KEPT), logged: None }
    }

    pub(super) fn note(&mut self, source: Option<Source>) {
        self.refused += 1;
        source.into_iter().for_each(|source| self.count(source));
    }

    pub(super) fn note_delayed(&mut self, source: Source) {
        self.delayed += 1;
        self.count(source);
    }

    fn count(&mut self, source: Source) {
        if let Some((_, count)) = self.worst.iter_mut().find(|(it, _)| *it == source) {
            *count += 1;
        } else if self.worst.len() < KEPT {
            self.worst.push((source, 1));
        } else if let Some(least) = self.worst.iter_mut().min_by_key(|(_, count)| *count) {
            *least = (source, least.1 + 1);
        }
    }

    /// Whether something is still to be logged.
    pub(super) fn has_pending(&self) -> bool {
        self.refused + self.delayed > 0
    }

    /// Logs what there is, if it is due.
    pub(super) fn log(&mut self, now: Instant) {
        if !self.has_pending() || self.logged.is_some_and(|logged| now < logged + PERIOD) {
            return;
        }
        let worst = self.describe();
        tracing::warn!(
            refused = self.refused,
            delayed = self.delayed,
            "clients are over the limits; most are from {worst}"
        );
        *self = Self { logged: Some(now), ..Self::new() };
    }

    fn describe(&mut self) -> String {
        self.worst.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let worst = self.worst.iter().take(LOGGED).map(|(source, count)| format!("{source} ({count})"));
        match self.worst.is_empty() {
            true => "Unix sockets".to_owned(),
            false => worst.collect::<Vec<_>>().join(", "),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn the_worst_are_found_among_many_and_told_once_in_a_time() {
        let mut offenders = Offenders::new();
        let of = |number: u16| Source::of(IpAddr::from([10, 0, (number >> 8) as u8, number as u8]));
        for number in 0..1000 {
            offenders.note(Some(of(number)));
            offenders.note_delayed(of(7));
            offenders.note((number % 2 == 0).then(|| of(8)));
        }
        assert!(offenders.describe().starts_with("10.0.0.7 (10"), "{}", offenders.describe());
        assert!(offenders.describe().contains("10.0.0.8 (5"), "{}", offenders.describe());
        let now = Instant::now();
        offenders.log(now);
        assert!(!offenders.has_pending());
        offenders.note(None);
        offenders.log(now + PERIOD / 2);
        assert!(offenders.has_pending(), "not yet");
        assert_eq!(offenders.describe(), "Unix sockets");
        offenders.log(now + PERIOD);
        assert!(!offenders.has_pending());
    }
}
