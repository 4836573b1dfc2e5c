#![doc = include_str!("protocol.md")]

mod frame;
#[cfg(feature = "tags")]
mod host;
mod master_end;
#[cfg(feature = "rooms")]
pub mod rooms;
pub mod scoreboard;
mod slot;
#[cfg(feature = "tags")]
mod tag;
mod worker_end;

#[cfg(test)]
mod tests;

pub use frame::{Entry, FrameError, FromMaster, FromWorker, MAX_CONNECTIONS};
#[cfg(feature = "tags")]
pub use host::{HostId, HostIdError};
pub use master_end::MasterEnd;
pub use slot::Slot;
#[cfg(feature = "tags")]
pub use tag::{Reading, Tag, TagKey, Tagger};
pub use worker_end::{MasterMessage, WorkerEnd};

use std::io;

/// Why nothing more comes from the other end of a channel.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other end broke the rules.
    #[error("broke the hand-over protocol: {0}")]
    Frame(#[from] FrameError),
    /// The socket failed.
    #[error("the channel failed: {0}")]
    Socket(#[from] io::Error),
    /// The other end was closed.
    #[error("the other end of the channel was closed")]
    Closed,
}
