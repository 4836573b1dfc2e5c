//! Which clients may come, how fast, and how many at once.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{UnknownWord, words};
use crate::peek::TrustedProxies;
use crate::route::TokenRate;

/// Which clients may come, how fast, and how many at once. By default all, and as they like.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Limits {
    /// New connections of one client.
    pub rate_per_client: Option<Rate>,
    /// Connections of one client that no worker has taken yet.
    pub waiting_per_client: Option<usize>,
    /// New connections of all clients.
    pub rate: Option<Rate>,
    /// What becomes of a connection that is over a limit.
    pub over: OverLimit,
    /// The peers that may connect; all, if it is empty.
    pub allow: TrustedProxies,
    /// Those of them that may not.
    pub deny: TrustedProxies,
}

impl Limits {
    /// Whether a connection can be over one.
    pub fn has_some(&self) -> bool {
        self.rate_per_client.is_some() || self.waiting_per_client.is_some() || self.rate.is_some()
    }
}

/// What becomes of a connection that is over a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OverLimit {
    /// It waits for its turn.
    #[default]
    Wait,
    /// It is closed with a reset.
    Refuse,
}

words!(OverLimit, "wait or refuse", Wait = "wait", Refuse = "refuse");

/// A rate as it is written: `10/s`, `600/m`, `10/s:50`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    count: u32,
    per_minute: bool,
    burst: Option<u32>,
}

/// Most in a second or minute.
const MOST: u32 = 1_000_000;

/// Why a text is no [`Rate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write 10/s or 600/m, or with how many may come at once, 10/s:50 (numbers from 1 to 1000000)")]
pub struct RateError;

impl Rate {
    /// The same for a bucket. Without a burst it is what may come in the time that the rate names.
    pub fn pace(&self) -> TokenRate {
        let period = Duration::from_secs(if self.per_minute { 60 } else { 1 });
        TokenRate { count: self.count, period, burst: self.burst.unwrap_or(self.count) }
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let number = |digits: &str| {
            let number = digits.bytes().all(|it| it.is_ascii_digit()).then(|| digits.parse::<u32>().ok()).flatten();
            number.filter(|number| (1..=MOST).contains(number)).ok_or(RateError)
        };
        let (rate, burst) = text.split_once(':').map_or((text, None), |(rate, burst)| (rate, Some(burst)));
        let (count, unit) = rate.split_once('/').ok_or(RateError)?;
        let per_minute = match unit {
            "s" => false,
            "m" => true,
            _ => return Err(RateError),
        };
        Ok(Self { count: number(count)?, per_minute, burst: burst.map(number).transpose()? })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, if self.per_minute { 'm' } else { 's' })?;
        self.burst.map_or(Ok(()), |burst| write!(f, ":{burst}"))
    }
}
