//! How a span of time is written.

use std::time::Duration;

/// The longest span: a year. A deadline is "now + span", which must not overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// The longest of Socket.IO's times: ten days. A client in JavaScript adds two of them up for `setTimeout`, which
/// takes at most 2^31 - 1 ms and fires at once beyond that (HTML, timers).
const MAX_MILLIS: Duration = Duration::from_secs(10 * 24 * 3600);

/// Why a text is not a span of time.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum TimeError {
    #[error("give a unit, such as {0}s or {0}000ms")]
    NoUnit(String),
    #[error("write a time such as 500ms, 5s or 1m 30s ({0})")]
    Unclear(#[from] humantime::DurationError),
    #[error("write milliseconds, such as 25000, or a time such as 25s ({0})")]
    UnclearMillis(humantime::DurationError),
    #[error("it must be more than 0")]
    Zero,
    #[error("it must be whole milliseconds")]
    TooFine,
    #[error("at most {}", humantime::format_duration(*.0))]
    TooLong(Duration),
}

/// A time with its unit, 0 to a year.
pub(super) fn span(text: &str) -> Result<Duration, TimeError> {
    if is_number(text) {
        return Err(TimeError::NoUnit(text.to_owned()));
    }
    at_most(LONGEST, humantime::parse_duration(text)?)
}

/// A time with its unit, or 0 for what is off then.
pub(super) fn span_or_off(text: &str) -> Result<Duration, TimeError> {
    if text == "0" { Ok(Duration::ZERO) } else { span(text) }
}

/// A time with its unit, more than 0.
pub(super) fn positive(text: &str) -> Result<Duration, TimeError> {
    more_than_zero(span(text)?)
}

/// A time as Socket.IO writes it, more than 0: a bare number is milliseconds.
pub(super) fn millis(text: &str) -> Result<Duration, TimeError> {
    let time = match text.parse::<u64>() {
        Ok(millis) if is_number(text) => Duration::from_millis(millis),
        _ => humantime::parse_duration(text).map_err(TimeError::UnclearMillis)?,
    };
    if !time.subsec_nanos().is_multiple_of(1_000_000) {
        return Err(TimeError::TooFine);
    }
    at_most(MAX_MILLIS, more_than_zero(time)?)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn more_than_zero(time: Duration) -> Result<Duration, TimeError> {
    if time.is_zero() { Err(TimeError::Zero) } else { Ok(time) }
}

fn at_most(longest: Duration, time: Duration) -> Result<Duration, TimeError> {
    if time > longest { Err(TimeError::TooLong(longest)) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        for (text, millis) in [("5s", 5000), ("500ms", 500), ("0s", 0), ("1m 30s", 90_000), ("1.5s", 1500)] {
            assert_eq!(span(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(span("5").expect_err("no unit").to_string(), "give a unit, such as 5s or 5000ms");
        assert_eq!(positive("0s"), Err(TimeError::Zero));
        assert_eq!(span_or_off("0"), Ok(Duration::ZERO));
        assert_eq!((span_or_off("00").is_err(), span_or_off("1s")), (true, Ok(Duration::from_secs(1))));
    }

    #[test]
    fn a_bare_number_is_milliseconds_where_socket_io_says_so() {
        for (text, expected) in [("25000", 25_000), ("25s", 25_000), ("1ms", 1), ("10days", 864_000_000)] {
            assert_eq!(millis(text), Ok(Duration::from_millis(expected)), "{text}");
        }
        assert_eq!(millis("0"), Err(TimeError::Zero));
        assert_eq!(millis("1us"), Err(TimeError::TooFine));
        assert_eq!(millis("864000001"), Err(TimeError::TooLong(MAX_MILLIS)));
        assert_eq!(millis("99999999999999999999").expect_err("overflow").to_string().lines().count(), 1);
    }

    #[test]
    fn a_wrong_time_is_refused_with_examples() {
        for text in ["", "soon", "-5s", "5 parsecs", "5,5s", "+5s"] {
            let message = span(text).expect_err(text).to_string();
            assert!(message.contains("500ms, 5s"), "{text}: {message}");
            let message = millis(text).expect_err(text).to_string();
            assert!(message.contains("25000"), "{text}: {message}");
        }
        assert!(span("2years").expect_err("too long").to_string().starts_with("at most"));
    }
}
