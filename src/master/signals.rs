//! The signals by which the operator tells the master what to do.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::MasterError;
use super::error::While;
use crate::sys::terminal::Terminal;

/// How the operator tells the master to stop, and what to change.
pub(super) struct Signals {
    pub(super) terminate: Signal,
    pub(super) interrupt: Signal,
    pub(super) hangup: Signal,
    pub(super) terminal: Terminal,
    /// One worker more.
    pub(super) more: Option<Signal>,
    /// One worker less.
    pub(super) fewer: Option<Signal>,
}

impl Signals {
    pub(super) fn listen() -> Result<Self, MasterError> {
        let listen = |kind| signal(kind).doing("preparing for signals");
        let terminal = Terminal::look();
        // A terminal that stops who writes to it says so with one of these.
        let may_scale = !Terminal::stops_writers();
        let listen_to = |signal| may_scale.then(|| listen(SignalKind::from_raw(signal))).transpose();
        Ok(Self {
            terminal,
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
            more: listen_to(libc::SIGTTIN)?,
            fewer: listen_to(libc::SIGTTOU)?,
        })
    }
}

/// Resolves when the signal comes; never, if it is not listened to.
pub(super) async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
