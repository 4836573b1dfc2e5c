//! When workers are replaced though they serve, and what becomes of a slot whose workers end too often.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{UnknownWord, words};
use crate::pool::{GiveUp, RestartLimit};

words!(GiveUp, "exit or out", Exit = "exit", Out = "out");

/// Care for workers. By default there is none: a worker that ends is replaced, as often as it ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CareConfig {
    /// How much resident memory a worker may have.
    pub max_memory: Option<Size>,
    /// How old a worker may become.
    pub max_age: Option<Duration>,
    /// How often a slot's worker may end by itself, and what happens then.
    pub restarts: Option<RestartLimit>,
    /// What idle workers have to answer, too.
    pub health: Option<HealthCheck>,
}

/// A request that each worker has to answer from time to time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked for.
    pub path: HealthPath,
    /// The time from one to the next.
    pub interval: Duration,
    /// How long a worker may take.
    pub timeout: Duration,
}

/// What is asked for: a path and perhaps a query, as they stand in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthPath(String);

/// Why a text is no [`HealthPath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "write a path as it stands in a request, such as /healthz (printable ASCII without blanks, at most 1024 characters)"
)]
pub struct HealthPathError;

impl HealthPath {
    /// As it stands in the request.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HealthPath {
    type Err = HealthPathError;

    fn from_str(text: &str) -> Result<Self, HealthPathError> {
        let is_right = text.starts_with('/') && text.len() <= 1024 && text.bytes().all(|it| it.is_ascii_graphic());
        if is_right { Ok(Self(text.to_owned())) } else { Err(HealthPathError) }
    }
}

impl fmt::Display for HealthPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An amount of memory as it is written: `512M`, `2G`, with units of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

/// Why a text is no [`Size`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write an amount of memory with its unit, such as 512M or 2G (K, M, G, T: units of 1024)")]
pub struct SizeError;

const UNITS: [(&str, u32); 4] = [("T", 40), ("G", 30), ("M", 20), ("K", 10)];

impl Size {
    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let split = |(unit, shift): (&str, u32)| {
            let rest = ["iB", "B", ""].iter().find_map(|end| text.strip_suffix(&format!("{unit}{end}")))?;
            Some((rest, shift))
        };
        let (digits, shift) = UNITS.into_iter().find_map(split).ok_or(SizeError)?;
        let is_number = !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit());
        let number = is_number.then(|| digits.parse::<u64>().ok()).flatten().filter(|number| *number > 0);
        number.and_then(|number| number.checked_mul(1 << shift)).map(Self).ok_or(SizeError)
    }
}

/// In the largest unit of which it is a whole number.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, shift) = UNITS.into_iter().find(|(_, shift)| self.0.is_multiple_of(1 << shift)).unwrap_or(("K", 10));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

/// So often within this time, as it is written: `5/1m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Often {
    /// How often.
    pub most: usize,
    /// Within which time.
    pub within: Duration,
}

/// Why a text is no [`Often`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write how often and within which time, such as 5/1m or 20/1h (a number from 1 to 1000)")]
pub struct OftenError;

/// The most ends of workers that are remembered of a slot.
const MOST: usize = 1000;
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

impl FromStr for Often {
    type Err = OftenError;

    fn from_str(text: &str) -> Result<Self, OftenError> {
        let (most, within) = text.split_once('/').ok_or(OftenError)?;
        let digits = most.bytes().all(|it| it.is_ascii_digit());
        let most = most.parse().ok().filter(|most| digits && (1..=MOST).contains(most)).ok_or(OftenError)?;
        let within = humantime::parse_duration(within).map_err(|_| OftenError)?;
        if within.is_zero() || within > LONGEST { Err(OftenError) } else { Ok(Self { most, within }) }
    }
}

impl fmt::Display for Often {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.most, humantime::format_duration(self.within))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_of_memory_has_a_unit_of_1024_and_is_shown_as_it_is_read() {
        for (text, bytes, shown) in [
            ("512M", 512 << 20, "512M"),
            ("2G", 2 << 30, "2G"),
            ("2048M", 2 << 30, "2G"),
            ("1536MiB", 1536 << 20, "1536M"),
            ("3KB", 3072, "3K"),
            ("1T", 1 << 40, "1T"),
        ] {
            let size: Size = text.parse().expect(text);
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, shown));
            assert_eq!(shown.parse(), Ok(size));
        }
        for text in
            ["", "M", "512", "0M", "-1M", "1.5G", "512m", "1E", "99999999999999999999M", "18446744073709551615G"]
        {
            assert_eq!(text.parse::<Size>(), Err(SizeError), "{text}");
        }
    }

    #[test]
    fn a_path_to_ask_for_cannot_be_more_than_one_request() {
        for text in ["/", "/healthz", "/a?b=c"] {
            assert_eq!(text.parse::<HealthPath>().expect(text).to_string(), text);
        }
        let long = format!("/{}", "x".repeat(1024));
        for text in ["", "healthz", "http://x/", "/a b", "/a\r\nHost: x", "/\u{e4}", &long] {
            assert_eq!(text.parse::<HealthPath>(), Err(HealthPathError), "{text}");
        }
    }

    #[test]
    fn how_often_is_a_number_and_a_time() {
        for (text, most, seconds) in [("5/1m", 5, 60), ("1/1s", 1, 1), ("1000/1h 30m", 1000, 5400)] {
            let often: Often = text.parse().expect(text);
            assert_eq!((often.most, often.within.as_secs(), often.to_string().as_str()), (most, seconds, text));
        }
        for text in ["", "5", "/", "5/", "0/1m", "1001/1m", "+5/1m", "5/0s", "5/m", "5/2years", "5/1m/1s"] {
            assert_eq!(text.parse::<Often>(), Err(OftenError), "{text}");
        }
    }
}
