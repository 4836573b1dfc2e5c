//! What a process uses of its host, and what it reports of itself.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use crate::sys::usage::Usage;
use haft_worker::protocol::scoreboard::{Field, Figures};

/// What a process uses of this host.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ProcessFigures {
    /// Bytes of memory that are resident, shared ones counted.
    pub resident_bytes: u64,
    /// Time on a CPU since it began.
    #[serde(rename = "cpu_seconds", serialize_with = "seconds")]
    pub cpu: Duration,
    /// Its threads.
    pub threads: u64,
    /// Its open descriptors, if haft may look.
    pub descriptors: Option<u64>,
}

impl From<Usage> for ProcessFigures {
    fn from(usage: Usage) -> Self {
        let Usage { resident_bytes, cpu, threads, descriptors } = usage;
        Self { resident_bytes, cpu, threads, descriptors }
    }
}

/// What a slot's workers have reported: the counters of all that there were, the rest of the one that is there now.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ReportedUsage {
    /// Seconds since it was reported.
    #[serde(rename = "age_seconds", serialize_with = "seconds")]
    pub age: Duration,
    /// The figures by their names.
    #[serde(flatten)]
    pub figures: BTreeMap<&'static str, u64>,
}

impl ReportedUsage {
    /// A figure, if it is known.
    pub fn get(&self, field: Field) -> Option<u64> {
        self.figures.get(field.name()).copied()
    }

    pub(super) fn new(now: Option<Figures>, before: Figures) -> Option<Self> {
        let written = now.as_ref().map(|figures| figures.written);
        let mut all = now.unwrap_or_default();
        all.add_counters(&before);
        let figures: BTreeMap<_, _> = all.known().map(|(field, figure)| (field.name(), figure)).collect();
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let age = written.map_or(Duration::ZERO, |written| clock.saturating_sub(Duration::from_millis(written)));
        (!figures.is_empty()).then_some(Self { age, figures })
    }
}

pub(super) fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
