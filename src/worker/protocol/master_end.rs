//! The master's end of a channel.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::frame::{Entry, FromMaster, FromWorker, MAX_CONNECTIONS_LEN, MAX_WORKER_FRAME_LEN};
use super::{ChannelError, FrameError};
use haft_sys::closing::{SharedFd, SharedFds};
use haft_sys::scm::{self, Received, Sent};

/// The master's end of a channel, with a duplicate of the worker's receiving end.
///
/// The duplicate keeps what the worker has not received alive after its death, so that it differs from what it had
/// received. Its price: not the channel but the process shows its death.
#[derive(Debug)]
pub struct MasterEnd {
    channel: SharedFd,
    receiving: SharedFd,
    frame: Vec<u8>,
}

impl MasterEnd {
    /// Makes a channel: the master's end, and the worker's end for the worker to inherit.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (channel, worker) = scm::seqpacket_pair()?;
        let receiving = worker.try_clone()?;
        Ok((Self { channel: channel.into(), receiving: receiving.into(), frame: Vec::new() }, worker))
    }

    /// Sends connections as one frame. Both iterators yield as many items, at most
    /// [`super::MAX_CONNECTIONS`].
    pub fn send_connections<'a>(
        &mut self,
        entries: impl Iterator<Item = Entry>,
        descriptors: impl ExactSizeIterator<Item = BorrowedFd<'a>>,
    ) -> io::Result<Sent> {
        FromMaster::write_connections(entries, &mut self.frame);
        scm::send(self.channel.as_fd(), &self.frame, descriptors)
    }

    /// Asks the worker to finish.
    pub fn send_drain(&self, within_ms: u32) -> io::Result<Sent> {
        scm::send(self.channel.as_fd(), &FromMaster::drain(within_ms), std::iter::empty())
    }

    /// Asks the worker to keep its sessions until DRAIN comes, within this time.
    pub fn send_linger(&self, within_ms: u32) -> io::Result<Sent> {
        scm::send(self.channel.as_fd(), &FromMaster::linger(within_ms), std::iter::empty())
    }

    /// Asks the worker to say something.
    pub fn send_ping(&self) -> io::Result<Sent> {
        scm::send(self.channel.as_fd(), &FromMaster::ping(), std::iter::empty())
    }

    /// Takes one frame of the worker's, if there is one. No frame brings descriptors: those of one that does are closed
    /// unused.
    pub fn receive(&mut self) -> Result<Option<FromWorker>, ChannelError> {
        // One byte more than the longest frame reveals a longer one.
        let mut buffer = [0; MAX_WORKER_FRAME_LEN + 1];
        // What a worker sends against the rules is closed here.
        let mut descriptors = SharedFds::default();
        let (len, lost) = match scm::receive(self.channel.as_fd(), &mut buffer, &mut descriptors.0)? {
            Received::Empty => return Ok(None),
            Received::Message { len: 0, .. } => return Err(ChannelError::Closed),
            Received::Message { len, cut: true, .. } => {
                return Err(FrameError::Length { kind: buffer[1], len: len.max(buffer.len()) }.into());
            }
            Received::Message { len, descriptors_lost, .. } => (len, descriptors_lost),
        };
        if lost || !descriptors.0.is_empty() {
            return Err(FrameError::Descriptors(buffer[1]).into());
        }
        Ok(Some(FromWorker::read(&buffer[..len])?))
    }

    /// After the worker's death: takes what it never received out of the channel.
    ///
    /// Yields the first sequence number that it had not received; everything from there on was not received either.
    /// The descriptors are closed: the master has its own copies.
    pub fn take_unread(&mut self) -> Option<u64> {
        self.frame.resize(MAX_CONNECTIONS_LEN, 0);
        let mut first = None;
        loop {
            let mut descriptors = SharedFds::default();
            match scm::receive(self.receiving.as_fd(), &mut self.frame, &mut descriptors.0) {
                Ok(Received::Message { len, .. }) if len > 0 => {
                    if let Ok(FromMaster::Connections(entries)) = FromMaster::read(&self.frame[..len]) {
                        first = first.or(entries.first().map(|entry| entry.sequence));
                    }
                }
                Ok(Received::Empty | Received::Message { .. }) | Err(_) => return first,
            }
        }
    }
}

impl AsFd for MasterEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
