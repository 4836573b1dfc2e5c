//! Notifications to the service manager that started haft, such as systemd (sd_notify(3), systemd.service(5)).
//!
//! The loop decides what is sent and when; a thread sends it, since the manager's socket may be full and its send would
//! then block. So a watchdog message means that the loop has come round.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::stopping::{self, Life, Phase};
use crate::dispatch::service::Service;
use crate::pool::SlotState;

/// How often the status is looked at, at least.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// Watchdog messages that are sent in the time within which one must come.
const BEATS_IN_TIME: u32 = 3;
/// How long the manager is asked to wait for the next word while haft starts, reloads or stops: some times as long as
/// it takes until that is sent.
const PATIENCE: Duration = Duration::from_secs(15);
/// For so long after the end of the drain time workers that were killed may take to be gone.
const AFTER_THE_END: Duration = Duration::from_secs(10);
/// Messages that may wait for the thread. Further ones are dropped: the next one supersedes them, or is sent again.
const MAX_WAITING: usize = 16;

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub(super) struct ServiceManager {
    thread: Option<SyncSender<String>>,
    watchdog: Option<Duration>,
    /// What the status line was last.
    status: String,
    /// That haft is ready was dropped: the manager took nothing.
    owes_ready: bool,
    /// What became of the last reload, if it was not done.
    last_reload: &'static str,
}

impl ServiceManager {
    /// The one that the environment names (`NOTIFY_SOCKET`, `WATCHDOG_USEC`).
    pub(super) fn find() -> Self {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Self::default();
        }
        let (sender, messages) = sync_channel(MAX_WAITING);
        let thread = std::thread::Builder::new().name("haft-notify".to_owned()).spawn(move || send(&messages));
        if let Err(error) = &thread {
            tracing::warn!(%error, "the service manager (NOTIFY_SOCKET) gets no status: no thread can be started for it");
        }
        let watchdog = sd_notify::watchdog_enabled().filter(|time| !time.is_zero());
        Self { thread: thread.is_ok().then_some(sender), watchdog, ..Self::default() }
    }

    /// Whether there is one.
    pub(super) fn is_there(&self) -> bool {
        self.thread.is_some()
    }

    /// How often [`ServiceManager::beat`] is to be called.
    pub(super) fn period(&self) -> Duration {
        self.watchdog.map_or(STATUS_EVERY, |time| (time / BEATS_IN_TIME).min(STATUS_EVERY))
    }

    /// `false`: the manager takes nothing at the moment, and this was dropped.
    fn notify(&self, states: &[NotifyState<'_>]) -> bool {
        let Some(thread) = &self.thread else { return true };
        let text = states.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        !matches!(thread.try_send(text), Err(TrySendError::Full(_)))
    }

    /// A connection that comes now would be served: after the start, and after a reload.
    pub(super) fn notify_ready(&mut self, status: String) {
        let main = NotifyState::MainPid(std::process::id());
        self.owes_ready = !self.notify(&[NotifyState::Ready, main, NotifyState::Status(&status)]);
        self.status = status;
    }

    /// A reload is wanted. [`ServiceManager::note_reload`] must follow, and [`ServiceManager::notify_ready`].
    pub(super) fn notify_reloading(&mut self) {
        self.owes_ready = false;
        // Useless without its time: the manager could not distinguish it from an earlier one.
        if let Ok(time) = NotifyState::monotonic_usec_now() {
            self.notify(&[NotifyState::Reloading, time]);
        }
    }

    /// The reload is done, or `why` it was not.
    pub(super) fn note_reload(&mut self, why: Option<&'static str>) {
        self.last_reload = why.unwrap_or_default();
    }

    /// haft has begun to stop.
    pub(super) fn notify_stopping(&mut self) {
        self.notify(&[NotifyState::Stopping]);
    }

    /// To be called every [`ServiceManager::period`]: the loop goes round, and how things are.
    pub(super) fn beat(&mut self, service: &Service, life: &Life) {
        let status = self.status_line(service, life);
        if self.owes_ready && life.phase() == Phase::Serving {
            self.notify_ready(status.clone());
        }
        let mut states = Vec::new();
        if self.watchdog.is_some() {
            states.push(NotifyState::Watchdog);
        }
        if wants_more_time(service, life) {
            states.push(NotifyState::ExtendTimeoutUsec(PATIENCE.as_micros() as u32));
        }
        if status != self.status {
            states.push(NotifyState::Status(&status));
        }
        let notified = states.is_empty() || self.notify(&states);
        drop(states);
        if notified {
            self.status = status;
        }
    }

    /// How haft is, in a line for people.
    pub(super) fn status_line(&self, service: &Service, life: &Life) -> String {
        if let Some(stop) = life.stop() {
            return stop.describe(service, Instant::now());
        }
        let pool = &service.pool;
        let ready = service.dispatch.slots().filter(|slot| pool.state(*slot) == SlotState::Ready).count();
        let links = service.dispatch.links().filter(|link| link.reports_sessions());
        let sessions = links.map(|link| link.reported_sessions()).reduce(|one, other| one + other);
        let mut line = format!("{ready} of {} workers", pool.wanted());
        if let Some(sessions) = sessions {
            line += &format!(", {}", stopping::counted(sessions, "session"));
        }
        line += &format!(", generation {}", pool.newest());
        if pool.is_reloading() {
            line += ", reloading";
        }
        line + self.last_reload
    }
}

fn send(messages: &Receiver<String>) {
    let mut failed = false;
    for message in messages {
        match sd_notify::notify(&[NotifyState::Custom(&message)]) {
            Err(error) if !failed => {
                failed = true;
                tracing::warn!(%error, "the status cannot be sent to the service manager (NOTIFY_SOCKET)");
            }
            _ => {}
        }
    }
}

/// Whether haft is on its way to another state, within times of its own.
fn wants_more_time(service: &Service, life: &Life) -> bool {
    match life.stop() {
        Some(stop) => Instant::now() < stop.until() + AFTER_THE_END,
        None => life.phase() == Phase::Starting || service.pool.is_reloading(),
    }
}
