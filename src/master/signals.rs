//! The signals by which the operator controls the master.

use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::MasterError;
use super::error::Context;
use crate::log;
use crate::sys::terminal::Terminal;

/// A signal that asks for nothing that haft does is noted once in this time.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// Signals that other servers use and haft does not, and SIGUSR1 where the log is no file: the log line for each.
const NOTED: [(i32, &str); 3] = [
    (
        libc::SIGUSR1,
        "SIGUSR1 does nothing: haft writes its log to standard error and has no file to open anew (--log-file PATH); rotate \
         it where it is written (systemd, s6-log, logrotate with copytruncate)",
    ),
    (
        libc::SIGUSR2,
        "SIGUSR2 does nothing: to put new workers in place of the old ones send SIGHUP; to upgrade haft itself, stop \
         it (SIGTERM) and start the new one",
    ),
    (
        libc::SIGXCPU,
        "SIGXCPU: the limit on processor time is reached, and the kernel kills haft at the hard limit: raise it \
         (ulimit -t unlimited; LimitCPU=infinity in a systemd unit)",
    ),
];

/// The operator's requests to stop or to change something.
pub(super) struct Signals {
    pub(super) terminate: Signal,
    pub(super) interrupt: Signal,
    pub(super) quit: Signal,
    pub(super) hangup: Signal,
    pub(super) terminal: Terminal,
    /// One worker more.
    pub(super) more: Option<Signal>,
    /// One worker less.
    pub(super) fewer: Option<Signal>,
    pub(super) noted: Noted,
}

/// Signals that are only noted.
pub(super) struct Noted {
    signals: [Signal; NOTED.len()],
    last: [Option<Instant>; NOTED.len()],
}

impl Signals {
    pub(super) fn listen() -> Result<Self, MasterError> {
        let listen = |kind| signal(kind).context("preparing for signals");
        let terminal = Terminal::look();
        // A terminal sends one of these to a background process that writes to it.
        let may_scale = !Terminal::stops_writers();
        let listen_to = |signal| may_scale.then(|| listen(SignalKind::from_raw(signal))).transpose();
        let [usr1, usr2, xcpu] = NOTED.map(|(signal, _)| listen(SignalKind::from_raw(signal)));
        Ok(Self {
            terminal,
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            quit: listen(SignalKind::quit())?,
            hangup: listen(SignalKind::hangup())?,
            more: listen_to(libc::SIGTTIN)?,
            fewer: listen_to(libc::SIGTTOU)?,
            noted: Noted { signals: [usr1?, usr2?, xcpu?], last: [None; NOTED.len()] },
        })
    }
}

impl Noted {
    /// Notes the signals as they come, and has the log file opened anew. Never resolves; cancel safe.
    pub(super) async fn note(&mut self) -> std::convert::Infallible {
        loop {
            let [usr1, usr2, xcpu] = &mut self.signals;
            let which = tokio::select! {
                _ = usr1.recv() => 0,
                _ = usr2.recv() => 1,
                _ = xcpu.recv() => 2,
            };
            if which == 0 && log::reopen() {
                continue;
            }
            let now = Instant::now();
            if self.last[which].is_none_or(|last| now >= last + NOTE_EVERY) {
                self.last[which] = Some(now);
                tracing::warn!("{}", NOTED[which].1);
            }
        }
    }
}

/// Resolves when the signal comes; never, if it is not listened to.
pub(super) async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
