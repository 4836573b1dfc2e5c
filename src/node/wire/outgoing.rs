//! What is to be sent to one worker: bytes in their order, and which descriptor goes with which byte. Pure.
//!
//! # The rule that keeps descriptors and messages together
//!
//! Node reads its channel 64 KiB at a time and keeps ONE descriptor for the next message that wants one. The kernel
//! ends a read behind a piece that carries a descriptor (unix(7)), so a descriptor whose message ends within the same
//! read is safe, however many are on their way. But a message that a read cuts in two leaves its descriptor behind, and
//! the one of the next message then takes its place: one client gets the other's socket. Only long plain messages
//! between descriptors (broadcasts of an adapter) can bring a message to such a cut.
//!
//! Of the two known cures this uses the one that needs no waiting and no knowledge of what the worker has read: where a
//! cut is possible, the message goes out plainly but for its last byte, and the descriptor goes with that byte alone.
//! It then arrives in the read that completes its message, wherever reads begin and end. It costs a second system call,
//! so everywhere else message and descriptor go together: that is safe while the bytes since the last descriptor, with
//! the message, are fewer than Node reads at once, since the last descriptor ended a read.

use std::collections::VecDeque;

/// Bytes since the last descriptor up to which a message cannot be cut by a read: half of the 64 KiB that Node reads at
/// once, so that a Node that reads less is safe too.
const UNCUT: u64 = 32 << 10;
/// Length up to which the kernel takes a message whole or not at all: it is one piece even in the smallest send buffer
/// that can be had (`unix_stream_sendmsg`: half of SOCK_MIN_SNDBUF, less 64). What is longer could come in two pieces,
/// the descriptor with the first.
const UNSPLIT: u64 = 2048;
/// Room that is kept for what comes next; more is given back once it was sent.
const KEPT_ROOM: usize = 64 << 10;

/// The kernel took a message with a descriptor in two: it may have mixed up the descriptors, so the worker must go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the kernel took {taken} of the {len} bytes that carry a descriptor")]
pub struct Split {
    /// Bytes taken.
    pub taken: usize,
    /// Bytes given.
    pub len: usize,
}

/// What one system call is to send.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk<'a, H> {
    /// Never empty.
    pub bytes: &'a [u8],
    /// The descriptor that goes with it.
    pub handle: Option<&'a H>,
}

/// A message that has a descriptor; `H` identifies it.
#[derive(Debug)]
struct DescriptorMark<H> {
    /// Where it ends, counted from the first byte ever.
    end: u64,
    /// The bytes that carry the descriptor start here: the message's first, or its last.
    carries: u64,
    handle: H,
}

/// The bytes that wait for the kernel, with their descriptors.
#[derive(Debug)]
pub struct Outgoing<H> {
    /// Those before `sent` were sent.
    bytes: Vec<u8>,
    sent: usize,
    /// How many bytes were dropped from the front of `bytes` so far.
    dropped: u64,
    marks: VecDeque<DescriptorMark<H>>,
    /// Where the last message with a descriptor ended.
    last: u64,
    #[cfg(test)]
    ruled: bool,
}

impl<H> Outgoing<H> {
    /// Nothing waits.
    pub fn new() -> Self {
        Self {
            bytes: Vec::new(),
            sent: 0,
            dropped: 0,
            marks: VecDeque::new(),
            last: 0,
            #[cfg(test)]
            ruled: true,
        }
    }

    /// The naive way, which mixes descriptors up: it shows that the test can fail.
    #[cfg(test)]
    pub fn without_the_rule() -> Self {
        Self { ruled: false, ..Self::new() }
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Bytes of memory held.
    pub fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Adds a message without a descriptor: `write` appends it whole.
    pub fn plain(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
    }

    /// Adds a message with a descriptor: `write` appends it whole.
    pub fn with_handle(&mut self, handle: H, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.end();
        write(&mut self.bytes);
        let end = self.end();
        debug_assert!(end > start, "a descriptor needs a byte to go with");
        let together = end - start <= UNSPLIT && end - self.last <= UNCUT;
        #[cfg(test)]
        let together = together || !self.ruled;
        let carries = if together { start } else { end - 1 };
        self.marks.push_back(DescriptorMark { end, carries, handle });
        self.last = end;
    }

    /// What is to be sent next.
    pub fn next(&self) -> Option<Chunk<'_, H>> {
        self.chunks().next()
    }

    /// What is to be sent, one system call after the other. Nothing after one that was not taken whole may be sent.
    pub fn chunks(&self) -> impl Iterator<Item = Chunk<'_, H>> {
        let mut at = self.position();
        let mut marks = self.marks.iter();
        let mut next = marks.next();
        std::iter::from_fn(move || {
            let (end, handle) = match next {
                Some(mark) if at == mark.carries => {
                    next = marks.next();
                    (mark.end, Some(&mark.handle))
                }
                Some(mark) => (mark.carries, None),
                None => (self.end(), None),
            };
            // It fits: both lie in `bytes`.
            let range = (at - self.dropped) as usize..(end - self.dropped) as usize;
            at = end;
            (!range.is_empty()).then(|| Chunk { bytes: &self.bytes[range], handle })
        })
    }

    /// The kernel took this many bytes of the first of [`Outgoing::chunks`]: yields the descriptor that went with them.
    pub fn sent(&mut self, taken: usize) -> Result<Option<H>, Split> {
        let Some((len, carries)) = self.next().map(|chunk| (chunk.bytes.len(), chunk.handle.is_some())) else {
            return Ok(None);
        };
        if carries && taken < len {
            return Err(Split { taken, len });
        }
        self.sent += taken.min(len);
        let mark = if carries { self.marks.pop_front() } else { None };
        self.tidy();
        Ok(mark.map(|mark| mark.handle))
    }

    /// Where the next byte to be sent is.
    fn position(&self) -> u64 {
        self.dropped + self.sent as u64
    }

    fn end(&self) -> u64 {
        self.dropped + self.bytes.len() as u64
    }

    /// Gives up the room of what was sent: at once if that is all, else when it is most.
    fn tidy(&mut self) {
        if self.sent == self.bytes.len() || self.sent > KEPT_ROOM.max(self.bytes.len() / 2) {
            self.dropped += self.sent as u64;
            self.bytes.drain(..self.sent);
            self.sent = 0;
            self.bytes.shrink_to(KEPT_ROOM);
        }
    }
}

impl<H> Default for Outgoing<H> {
    fn default() -> Self {
        Self::new()
    }
}
