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
    /// It sent an impossible message.
    #[error("broke the hand-over protocol: {0}")]
    Violation(#[from] Violation),
    /// It sent a message before it was ready.
    #[error("broke the hand-over protocol: it sent a message before it was ready")]
    NotReadyYet,
    /// It sent what only a worker sends that tags its sessions, or was asked to linger.
    #[error("broke the hand-over protocol: it sent an answer that it was not asked for")]
    NotAsked,
    /// It reported a second time that it is ready.
    #[error("broke the hand-over protocol: it sent READY a second time")]
    ReadyTwice,
    /// A Node worker sent an impossible message.
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
    /// Whether it means only that the worker has closed its end.
    pub fn is_closed_end(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        matches!(self, Self::Send(error) if matches!(error.kind(), BrokenPipe | ConnectionReset))
    }
}
