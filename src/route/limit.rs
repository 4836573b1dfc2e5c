//! How fast a client may come: token buckets, in a table of a fixed size.
//!
//! A bucket is one number, the time at which it would be full again (GCRA, the generic cell rate algorithm: ATM Forum
//! TM 4.0, 4.4.2). A full one is equivalent to a missing one: so clients that have been quiet cost nothing to forget.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::hash::absorb;

/// Buckets that one client's may be among: a line of the processor's cache.
const WAYS: usize = 4;
/// Sets of them: 256 KiB.
const SETS: usize = 4096;
/// How much of an IPv6 address identifies a client: a customer gets a /64 at least.
const IPV6_BITS: u32 = 64;

/// A client as limits see it: an IPv4 address, or the first 64 bits of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(u128);

impl Source {
    /// The source of an address. An IPv4-mapped IPv6 address is the IPv4 address.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self(ip.to_ipv6_mapped().to_bits()),
            IpAddr::V6(ip) => Self(ip.to_bits() & !(u128::MAX >> IPV6_BITS)),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = Ipv6Addr::from_bits(self.0);
        match ip.to_ipv4_mapped() {
            Some(ip) => ip.fmt(f),
            None => write!(f, "{ip}/{IPV6_BITS}"),
        }
    }
}

/// So many in a time, and so many at once. Both are at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenRate {
    /// How many.
    pub count: u32,
    /// In which time.
    pub period: Duration,
    /// How many at once, after a time without any.
    pub burst: u32,
}

impl TokenRate {
    fn interval(&self) -> u64 {
        (self.period.as_nanos() as u64 / u64::from(self.count.max(1))).max(1)
    }

    /// How far ahead of the clock a bucket may be: what is left when the whole burst has been taken.
    fn tolerance(&self) -> u64 {
        self.interval().saturating_mul(u64::from(self.burst.max(1)) - 1)
    }

    /// Takes one at `now`, for which one may have to wait. Yields the time at which the bucket is full again, and the wait;
    /// nothing is taken if that is longer than `patience`.
    fn take(&self, full: u64, now: u64, patience: u64) -> Result<(u64, u64), TooFast> {
        let full = full.max(now);
        let wait = (full - now).saturating_sub(self.tolerance());
        if wait > patience {
            return Err(TooFast);
        }
        Ok((full.saturating_add(self.interval()), wait))
    }
}

/// It would have to wait for longer than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooFast;

/// One bucket for all.
#[derive(Debug)]
pub struct TokenBucket {
    pace: TokenRate,
    full: u64,
}

impl TokenBucket {
    /// A full one.
    pub fn new(pace: TokenRate) -> Self {
        Self { pace, full: 0 }
    }

    /// Takes one, if there is any. `now` is the time since any fixed moment.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn take(&mut self, now: Duration) -> Result<(), TooFast> {
        (self.full, _) = self.pace.take(self.full, nanos(now), 0)?;
        Ok(())
    }

    /// How many could be taken now.
    pub fn available(&self, now: Duration) -> usize {
        let ahead = self.full.saturating_sub(nanos(now));
        let room = (self.pace.tolerance() + self.pace.interval()).saturating_sub(ahead);
        usize::try_from(room / self.pace.interval()).unwrap_or(usize::MAX)
    }
}

/// A bucket for each source that has come lately: 16,384 of them at most, 256 KiB.
#[derive(Debug)]
pub struct Buckets {
    pace: TokenRate,
    seed: u64,
    sets: Box<[[LimitEntry; WAYS]]>,
}

#[derive(Debug, Clone, Copy, Default)]
struct LimitEntry {
    /// The hash of the source.
    tag: u64,
    full: u64,
}

impl Buckets {
    /// Full ones. `seed` should be random: a client that knows it can choose addresses that push out each other's
    /// buckets.
    pub fn new(pace: TokenRate, seed: u64) -> Self {
        Self { pace, seed, sets: vec![[LimitEntry::default(); WAYS]; SETS].into() }
    }

    /// Takes one from the source's bucket and returns how long to wait for it. `now` is the time since any fixed
    /// moment.
    ///
    /// A source whose bucket was pushed out, by more than four others that came as fast, begins with a full one.
    ///
    /// # Errors
    ///
    /// When the wait would be longer than `patience`; then none is taken.
    pub fn take(&mut self, source: Source, now: Duration, patience: Duration) -> Result<Duration, TooFast> {
        let tag = absorb(absorb(self.seed, (source.0 >> 64) as u64), source.0 as u64);
        // The bits above choose the set, so that the tags of one set differ.
        let set = &mut self.sets[(tag >> 32) as usize % SETS];
        let at = set.iter().position(|entry| entry.tag == tag);
        let full = at.map_or(0, |at| set[at].full);
        let (full, wait) = self.pace.take(full, nanos(now), nanos(patience))?;
        // The fullest one holds the least information.
        let at = at.or_else(|| (0..WAYS).min_by_key(|at| set[*at].full)).unwrap_or(0);
        set[at] = LimitEntry { tag, full };
        Ok(Duration::from_nanos(wait))
    }
}

/// 584 years fit.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn source(text: &str) -> Source {
        Source::of(text.parse().expect(text))
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_the_network_of_an_ipv6_address() {
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.2"), source("192.0.2.1"));
        assert_eq!(source("2001:db8:0:1::1"), source("2001:db8:0:1:ffff::2"));
        assert_ne!(source("2001:db8:0:1::1"), source("2001:db8:0:2::1"));
        assert_eq!(source("192.0.2.1").to_string(), "192.0.2.1");
        assert_eq!(source("2001:db8:0:1::1").to_string(), "2001:db8:0:1::/64");
    }

    fn pace() -> impl Strategy<Value = TokenRate> {
        let period = prop_oneof![Just(Duration::from_secs(1)), Just(Duration::from_secs(60))];
        (1..2000_u32, period, 1..50_u32).prop_map(|(count, period, burst)| TokenRate { count, period, burst })
    }

    /// The tokens themselves, in parts of one that come each nanosecond.
    struct Model(BTreeMap<Source, (u64, u64)>);

    proptest! {
        #[test]
        fn a_bucket_gives_what_counting_tokens_would_give(
            pace in pace(),
            steps in prop::collection::vec((0..3_u8, 0..200_000_000_u64), 1..200),
        ) {
            let mut buckets = Buckets::new(pace, 7);
            let (interval, most) = (pace.interval(), pace.interval() * u64::from(pace.burst));
            let mut model = Model(BTreeMap::new());
            let mut now = 0;
            for (client, later) in steps {
                now += later;
                let source = Source::of(IpAddr::from([10, 0, 0, client]));
                let (tokens, at) = model.0.entry(source).or_insert((most, now));
                *tokens = (*tokens + (now - *at)).min(most);
                *at = now;
                let taken = buckets.take(source, Duration::from_nanos(now), Duration::ZERO);
                prop_assert_eq!(taken.is_ok(), *tokens >= interval);
                *tokens -= if taken.is_ok() { interval } else { 0 };
            }
        }

        #[test]
        fn who_waits_as_long_as_told_keeps_to_the_pace_and_comes_in_turn(
            pace in pace(),
            steps in prop::collection::vec(0..20_000_000_u64, 1..200),
            patience in 0..2_000_000_000_u64,
        ) {
            let mut buckets = Buckets::new(pace, 7);
            let mut now = 0;
            let mut came = Vec::new();
            for later in steps {
                now += later;
                let taken = buckets.take(source("::1"), Duration::from_nanos(now), Duration::from_nanos(patience));
                if let Ok(wait) = taken {
                    prop_assert!(wait <= Duration::from_nanos(patience));
                    came.push(now + wait.as_nanos() as u64);
                }
            }
            prop_assert!(came.is_sorted());
            // Of any so many in a row as there may be at once and one more, the last is an interval behind the first.
            for window in came.windows(pace.burst as usize + 1) {
                prop_assert!(window[window.len() - 1] - window[0] >= pace.interval());
            }
        }

        #[test]
        fn one_bucket_for_all_tells_how_many_it_has(pace in pace(), steps in prop::collection::vec(0..50_000_000_u64, 1..50)) {
            let mut bucket = TokenBucket::new(pace);
            let mut now = Duration::ZERO;
            for later in steps {
                now += Duration::from_nanos(later);
                let available = bucket.available(now);
                prop_assert!(available <= pace.burst as usize);
                let taken = (0..=available).take_while(|_| bucket.take(now).is_ok()).count();
                prop_assert_eq!(taken, available);
            }
        }
    }

    #[test]
    fn among_more_clients_than_there_is_room_for_one_that_floods_is_still_held_back() {
        let pace = TokenRate { count: 10, period: Duration::from_secs(1), burst: 10 };
        let mut buckets = Buckets::new(pace, 7);
        let mut let_in = 0;
        for round in 0..100_000_u32 {
            // 10 seconds in all: 100,000 clients come once, one comes each time.
            let now = Duration::from_micros(100 * u64::from(round));
            buckets.take(Source::of(IpAddr::from(round.to_be_bytes())), now, Duration::ZERO).ok();
            let_in += u32::from(buckets.take(source("2001:db8::1"), now, Duration::ZERO).is_ok());
        }
        assert!((100..=120).contains(&let_in), "{let_in}");
        assert_eq!(size_of::<LimitEntry>() * WAYS * SETS, 256 << 10);
    }
}
