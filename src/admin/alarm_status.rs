//! What the admin pages know of alarms. Plain data, a part of the snapshot.

use serde::Serialize;

/// A kind of alarm: one entry for each kind, whether it is active or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AlarmStatus {
    /// Its name.
    pub alarm: &'static str,
    /// Whether something is the matter now.
    pub active: bool,
    /// How often it has begun.
    pub raised: u64,
    /// While it is active: since when, in seconds since 1970.
    pub unix_time: Option<u64>,
    /// While it is active, for people, one line: what is so, the likely reason, the cure.
    pub line: Option<String>,
}
