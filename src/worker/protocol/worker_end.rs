//! The worker's end of a channel.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::frame::{Entry, FromMaster, FromWorker, MAX_CONNECTIONS_LEN, MAX_WORKER_FRAME_LEN};
use super::{ChannelError, FrameError};
use haft_sys::scm::{self, Received, Sent};

/// The worker's end of a channel.
#[derive(Debug)]
pub struct WorkerEnd {
    channel: OwnedFd,
    buffer: Vec<u8>,
}

/// A message from the master.
#[derive(Debug)]
pub enum MasterMessage {
    /// Connections. The descriptors belong to the first entries, in order; where there are fewer descriptors than
    /// entries, this process was short of them, and the others must be returned.
    Connections(Vec<Entry>, Vec<OwnedFd>),
    /// Finish within this many milliseconds.
    Drain {
        /// Milliseconds until the worker is made to end.
        within_ms: u32,
    },
    /// Keep the sessions that there are, and say when none is left.
    Linger {
        /// Milliseconds until DRAIN comes at the latest.
        within_ms: u32,
    },
    /// Say something.
    Ping,
}

impl WorkerEnd {
    /// Takes over the worker's end.
    pub fn new(channel: OwnedFd) -> Self {
        Self { channel, buffer: vec![0; MAX_CONNECTIONS_LEN] }
    }

    /// Sends a frame without waiting.
    pub fn send(&self, frame: FromWorker) -> io::Result<Sent> {
        let mut bytes = Vec::with_capacity(MAX_WORKER_FRAME_LEN);
        frame.write(&mut bytes);
        scm::send(self.channel.as_fd(), &bytes, std::iter::empty())
    }

    /// Takes one frame of the master's, if there is one. [`ChannelError::Closed`]: the master is gone.
    pub fn receive(&mut self) -> Result<Option<MasterMessage>, ChannelError> {
        let mut descriptors = Vec::new();
        let len = match scm::receive(self.channel.as_fd(), &mut self.buffer, &mut descriptors)? {
            Received::Empty => return Ok(None),
            Received::Message { len: 0, .. } => return Err(ChannelError::Closed),
            Received::Message { len, cut, .. } => {
                if cut {
                    return Err(FrameError::Length { kind: self.buffer[1], len }.into());
                }
                len
            }
        };
        match FromMaster::read(&self.buffer[..len])? {
            FromMaster::Connections(entries) => Ok(Some(MasterMessage::Connections(entries, descriptors))),
            FromMaster::Drain { within_ms } => Ok(Some(MasterMessage::Drain { within_ms })),
            FromMaster::Linger { within_ms } => Ok(Some(MasterMessage::Linger { within_ms })),
            FromMaster::Ping => Ok(Some(MasterMessage::Ping)),
        }
    }
}

impl AsFd for WorkerEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
