//! How long things took, in fixed buckets: observing costs a search over 19 numbers and allocates nothing.

use std::time::Duration;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

/// Upper bounds of the buckets in nanoseconds, each bound included in its bucket: 1, 2, 5 in every decade from 10 us to
/// 10 s. Whole numbers, so that each bound in seconds is the double nearest to its short decimal form.
const BOUNDS_NANOS: [u64; 19] = [
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// The bounded buckets and one for what took longer than the last bound.
const BUCKETS: usize = BOUNDS_NANOS.len() + 1;

/// A histogram of durations with fixed bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    /// Observations per bucket, not cumulative.
    counts: [u64; BUCKETS],
    sum: Duration,
}

impl Histogram {
    /// A histogram that has seen nothing.
    pub const fn new() -> Self {
        Self { counts: [0; BUCKETS], sum: Duration::ZERO }
    }

    /// Counts one duration. Allocates nothing and cannot fail: the sum stays at its greatest value if it is ever reached.
    pub fn observe(&mut self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_NANOS.partition_point(|bound| *bound < nanos);
        self.counts[bucket] += 1;
        self.sum = self.sum.saturating_add(took);
    }

    /// How many durations were observed.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All observed durations together.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// Each bucket's upper bound in seconds (the last one is infinite) and how many observations fell into that bucket
    /// alone.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS_NANOS.iter().map(|nanos| *nanos as f64 / 1e9).chain([f64::INFINITY]);
        bounds.zip(self.counts)
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// One bucket as Prometheus means it: how many took at most `le_seconds` (`null`: any time at all).
#[derive(Serialize)]
struct Bucket {
    le_seconds: Option<f64>,
    count: u64,
}

impl Serialize for Histogram {
    /// `{ count, sum_seconds, buckets: [{ le_seconds, count }] }`, the buckets cumulative as in `/metrics`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut below = 0;
        let buckets: Vec<Bucket> = self
            .buckets()
            .map(|(bound, count)| {
                below += count;
                Bucket { le_seconds: bound.is_finite().then_some(bound), count: below }
            })
            .collect();
        let mut fields = serializer.serialize_struct("Histogram", 3)?;
        fields.serialize_field("count", &self.count())?;
        fields.serialize_field("sum_seconds", &self.sum.as_secs_f64())?;
        fields.serialize_field("buckets", &buckets)?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bounds_grow_by_two_or_two_and_a_half_from_ten_microseconds_to_ten_seconds() {
        assert_eq!((BOUNDS_NANOS[0], BOUNDS_NANOS[BUCKETS - 2]), (10_000, 10_000_000_000));
        for pair in BOUNDS_NANOS.windows(2) {
            assert!(pair[1] == 2 * pair[0] || 2 * pair[1] == 5 * pair[0], "{pair:?}");
        }
    }

    #[test]
    fn a_duration_equal_to_a_bound_belongs_to_that_bound() {
        for (index, nanos) in BOUNDS_NANOS.into_iter().enumerate() {
            let mut histogram = Histogram::new();
            histogram.observe(Duration::from_nanos(nanos));
            histogram.observe(Duration::from_nanos(nanos + 1));
            assert_eq!((histogram.counts[index], histogram.counts[index + 1]), (1, 1), "bound {nanos}");
        }
    }

    #[test]
    fn the_longest_durations_are_counted_too() {
        let mut histogram = Histogram::new();
        histogram.observe(Duration::MAX);
        histogram.observe(Duration::MAX);
        assert_eq!((histogram.count(), histogram.counts[BUCKETS - 1]), (2, 2));
        assert_eq!(histogram.sum(), Duration::MAX);
    }

    proptest! {
        #[test]
        fn every_duration_falls_into_the_first_bucket_that_holds_it(nanos in proptest::collection::vec(0..20_000_000_000_u64, 0..200)) {
            let mut histogram = Histogram::new();
            nanos.iter().for_each(|n| histogram.observe(Duration::from_nanos(*n)));

            prop_assert_eq!(histogram.count(), nanos.len() as u64);
            prop_assert_eq!(histogram.sum(), Duration::from_nanos(nanos.iter().sum()));
            let mut below = 0;
            for (bound, count) in histogram.buckets() {
                below += count;
                let expected = nanos.iter().filter(|n| **n as f64 / 1e9 <= bound).count() as u64;
                prop_assert_eq!(below, expected, "at most {} s", bound);
            }
        }

        #[test]
        fn the_json_form_is_cumulative_and_ends_with_the_count(nanos in proptest::collection::vec(0..20_000_000_000_u64, 0..50)) {
            let mut histogram = Histogram::new();
            nanos.iter().for_each(|n| histogram.observe(Duration::from_nanos(*n)));
            let json = serde_json::to_value(&histogram).expect("json");
            let buckets = json["buckets"].as_array().expect("buckets");
            let counts: Vec<u64> = buckets.iter().map(|b| b["count"].as_u64().expect("count")).collect();
            prop_assert!(counts.is_sorted());
            prop_assert_eq!(counts.last().copied(), json["count"].as_u64());
            prop_assert!(buckets[buckets.len() - 1]["le_seconds"].is_null());
        }
    }
}
