//! The status of a running haft, as far as commands need it: `/status`, read back.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::client::{Client, ClientError};
use super::table::age;
use super::target_error::TargetError;
use crate::log::escaped;

/// A master as it was at one instant. What an older one does not say is as if it was nothing.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Status {
    pub version: String,
    pub name: String,
    pub pid: u32,
    pub uptime_seconds: f64,
    pub listen: Vec<String>,
    pub affinity: String,
    pub dispatch: String,
    pub note: Option<String>,
    pub keeps_stdout: Option<bool>,
    pub stopping: bool,
    pub accepted: u64,
    pub refused: BTreeMap<String, u64>,
    pub in_flight: u64,
    pub held: u64,
    pub generation: u64,
    pub reload: Option<ReloadView>,
    pub slots: Vec<SlotView>,
    pub draining: Vec<Draining>,
    pub process: Option<Process>,
    pub balance: Vec<Balance>,
    pub routing: RoutingView,
    pub alarms: Vec<AlarmView>,
}

/// A kind of alarm.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AlarmView {
    pub alarm: String,
    pub active: bool,
    pub line: Option<String>,
}

/// How connections are assigned.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RoutingView {
    pub ipv4_prefix: Option<u8>,
    pub ipv6_prefix: Option<u8>,
}

/// A reload, as far as it has come.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ReloadView {
    pub state: String,
    pub description: String,
    pub unix_time: u64,
}

/// A slot and the worker that fills it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SlotView {
    pub slot: usize,
    pub state: String,
    pub drained: bool,
    pub restarting: bool,
    pub hung: bool,
    pub listens_on_nothing: bool,
    pub kept_out: bool,
    pub generation: u64,
    pub worker: u64,
    pub pid: Option<u32>,
    pub uptime_seconds: f64,
    pub in_flight: u64,
    pub held: u64,
    pub delivered: u64,
    pub open: Option<u64>,
    pub sessions: Option<u64>,
    pub respawned: u64,
    /// Workers that got another in their place, by why.
    pub replaced: BTreeMap<String, u64>,
    pub last_exit: Option<ExitView>,
    pub process: Option<Process>,
    /// What its worker reports, by the names of docs/scoreboard.md.
    pub reported: Option<BTreeMap<String, f64>>,
}

/// What a process uses.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Process {
    pub resident_bytes: u64,
    pub cpu_seconds: f64,
}

/// How a process ended.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ExitView {
    pub description: String,
    pub unix_time: u64,
}

/// A worker that finishes what it has.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Draining {
    pub slot: usize,
    pub worker: u64,
    pub pid: Option<u32>,
    pub generation: u64,
    pub uptime_seconds: f64,
    pub in_flight: u64,
    pub held: u64,
    pub open: Option<u64>,
    pub sessions: Option<u64>,
}

/// The books of a slot.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Balance {
    pub delivered: u64,
}

impl Status {
    /// Asks for it.
    ///
    /// # Errors
    ///
    /// If there is no answer, or it is no status.
    pub fn of(client: &Client) -> Result<Self, TargetError> {
        let answer = client.get("/status")?;
        let wrong = |why: String| ClientError::Other { addr: client.addr().clone(), why };
        if !answer.status.is_success() {
            return Err(wrong(answer.body.trim_end().to_owned()).into());
        }
        let read = serde_json::from_str(&answer.body);
        Ok(read.map_err(|error| wrong(format!("this is no haft's admin listener: {error}")))?)
    }

    /// Its identity, in one line.
    pub fn heading(&self) -> String {
        format!(
            "haft {}  {}  pid {}  up {}  {}",
            escaped(&self.version),
            escaped(&self.name),
            self.pid,
            age(self.uptime_seconds),
            escaped(&self.listen.join(" "))
        )
    }

    /// What became of connections, in one line.
    pub fn totals(&self) -> String {
        format!(
            "accepted {}, delivered {}, refused {}, in flight {} (held {}); {} by {}",
            self.accepted,
            self.delivered(),
            self.refused.values().sum::<u64>(),
            self.in_flight,
            self.held,
            escaped(&self.affinity),
            escaped(&self.dispatch)
        )
    }

    /// Why connections were refused, and how many for each reason.
    pub fn refusals(&self) -> impl Iterator<Item = String> {
        let some = self.refused.iter().filter(|(_, count)| **count > 0);
        some.map(|(reason, count)| format!("{} {count}", escaped(reason)))
    }

    /// The lines of the alarms that are active.
    pub fn alarm_lines(&self) -> impl Iterator<Item = String> {
        self.alarms.iter().filter(|alarm| alarm.active).filter_map(|alarm| alarm.line.as_deref()).map(escaped)
    }

    /// Connections that workers have acknowledged.
    pub fn delivered(&self) -> u64 {
        self.balance.iter().map(|slot| slot.delivered).sum()
    }
}

impl SlotView {
    /// A figure that its worker reports.
    pub fn reported(&self, name: &str) -> Option<f64> {
        self.reported.as_ref()?.get(name).copied()
    }

    /// Connections that its worker has, as it reports or as far as haft knows.
    pub fn connections(&self) -> Option<u64> {
        self.reported("open_connections").map(|open| open as u64).or(self.open)
    }

    /// Sessions that its worker has, over all transports.
    pub fn all_sessions(&self) -> Option<u64> {
        let all = ["polling_sessions", "websocket_sessions", "other_sessions"].map(|name| self.reported(name));
        let is_reported = all.iter().any(Option::is_some);
        is_reported.then(|| all.into_iter().flatten().map(|sessions| sessions as u64).sum()).or(self.sessions)
    }

    /// By how many milliseconds its worker's event loop is late: the 99th percentile.
    pub fn loop_delay(&self) -> Option<f64> {
        self.reported("loop_delay_p99").map(|nanos| nanos / 1e6)
    }

    /// How often it got a worker that no operator asked for.
    pub fn restarts(&self) -> u64 {
        let cared = ["memory", "age"].map(|why| self.replaced.get(why).copied().unwrap_or(0));
        self.respawned + cared.iter().sum::<u64>()
    }

    /// What its state is called, with all that keeps clients away.
    pub fn condition(&self) -> String {
        let also = [
            (self.hung, ", hung"),
            (self.drained, ", drained"),
            (self.restarting, ", restarting"),
            (self.listens_on_nothing, ", no server"),
            (self.kept_out, ", kept out"),
        ];
        also.iter().filter(|(is_so, _)| *is_so).fold(self.state.clone(), |text, (_, word)| text + word)
    }
}
