//! What goes wrong for a while.

use std::fmt;

use super::super::alarm_status::AlarmStatus;
use super::super::families::{Families, Labels};

pub(super) fn alarms(families: &mut Families<'_>, alarms: &[AlarmStatus]) -> fmt::Result {
    let by_kind = |count: fn(&AlarmStatus) -> u64| {
        alarms
            .iter()
            .map(move |alarm| -> (Labels<'static>, u64) { (vec![("alarm", alarm.alarm.into())], count(alarm)) })
    };
    families.gauge(
        "haft_alarm_active",
        "1 while something is the matter; haft's log and /status have the reason and the cure.",
        by_kind(|alarm| alarm.active.into()),
    )?;
    families.counter("haft_alarms_raised", "How often an alarm has begun.", by_kind(|alarm| alarm.raised))
}
