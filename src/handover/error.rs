//! Why a worker is not to be trusted any further.

use std::io;

use crate::handover::haft::ChannelError;
use crate::handover::outbox::Violation;

/// Why a worker is not to be trusted any further.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Its channel failed, or it sent no proper frame.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// It said what cannot be.
    #[error("broke the hand-over protocol: {0}")]
    Violation(#[from] Violation),
    /// It said something before it was ready.
    #[error("broke the hand-over protocol: it spoke before it was ready")]
    NotReadyYet,
    /// It said what only a worker says that tags its sessions, or was told to linger.
    #[error("broke the hand-over protocol: it said what it was not asked for")]
    NotAsked,
    /// It said a second time that it is ready.
    #[error("broke the hand-over protocol: it said that it is ready a second time")]
    ReadyTwice,
    /// A Node worker said what cannot be.
    #[error("broke Node's cluster protocol: {0}")]
    Node(String),
    /// A message with a descriptor was cut in two.
    #[error("cannot be sent to any more: {0}")]
    Split(String),
    /// Nothing can be sent to it.
    #[error("takes nothing any more: {0}")]
    Send(#[from] io::Error),
}

impl LinkError {
    /// Whether it says only that the worker has closed its end.
    pub fn is_closed_end(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        matches!(self, Self::Send(error) if matches!(error.kind(), BrokenPipe | ConnectionReset))
    }
}
