//! The time of day where this host is.

use std::mem::MaybeUninit;
use std::time::{SystemTime, UNIX_EPOCH};

/// Hour, minute and second by the host's time zone (TZ, /etc/localtime); none where the C library does not know it.
pub fn now() -> Option<(i32, i32, i32)> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    at(libc::time_t::try_from(since.as_secs()).ok()?)
}

fn at(seconds: libc::time_t) -> Option<(i32, i32, i32)> {
    let mut time = MaybeUninit::<libc::tm>::uninit();
    // SAFETY: both pointers are valid for the call, and localtime_r keeps neither (localtime(3)).
    let found = unsafe { libc::localtime_r(&seconds, time.as_mut_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: localtime_r has filled it, since it gave no null pointer.
    let time = unsafe { time.assume_init() };
    Some((time.tm_hour, time.tm_min, time.tm_sec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_go_round_and_zones_are_of_quarter_hours() {
        let (hour, minute, second) = at(1_000_000_000).expect("a time");
        assert!((0..24).contains(&hour) && minute % 15 == 46 % 15, "{hour}:{minute}");
        assert_eq!(second, 40, "2001-09-09T01:46:40Z");
        assert!(now().is_some());
    }
}
