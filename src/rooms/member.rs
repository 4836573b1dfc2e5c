//! One member: its socket, and what waits to be written to it.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::Notify;

/// Bytes that may wait for a member before messages for it are dropped: 32 MiB. One more may always be added, so that the
/// longest fits.
pub(super) const MAX_QUEUED: usize = 32 << 20;

/// Frames up to this length are copied together, so that a short one does not hold on to what it was read with.
const SHORT: usize = 16 << 10;
/// Length from which what was copied together is a piece of its own.
const PIECE: usize = 64 << 10;
/// Room that a member to which nothing is to be written keeps for what comes next.
const KEPT: usize = 2 << 10;
/// Pieces in one system call.
const PIECES: usize = 64;

/// What the relay knows of a member.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) stream: Rc<UnixStream>,
    /// Its body of READY, once it has come.
    pub(super) body: Option<Bytes>,
    /// Messages are kept for it before that.
    pub(super) keeps: bool,
    /// Wakes the member's task, when there is something to be waited for.
    pub(super) wake: Rc<Notify>,
    pieces: VecDeque<Bytes>,
    /// Behind them.
    tail: BytesMut,
    /// Bytes in both.
    queued: usize,
    /// It is waited for until it can be written to.
    pub(super) is_blocked: bool,
}

impl Member {
    pub(super) fn new(stream: Rc<UnixStream>, keeps: bool) -> Self {
        Self {
            stream,
            body: None,
            keeps,
            wake: Rc::default(),
            pieces: VecDeque::new(),
            tail: BytesMut::new(),
            queued: 0,
            is_blocked: false,
        }
    }

    /// Puts a frame behind what waits. `false`: too much waits already.
    pub(super) fn push(&mut self, frame: &Bytes) -> bool {
        let fits = self.queued < MAX_QUEUED;
        if fits {
            self.push_always(frame);
        }
        fits
    }

    /// The same for what must not be lost: there are few of them.
    pub(super) fn push_always(&mut self, frame: &Bytes) {
        self.queued += frame.len();
        if frame.len() <= SHORT {
            self.tail.extend_from_slice(frame);
        }
        if frame.len() > SHORT || self.tail.len() >= PIECE {
            self.end_tail();
        }
        if frame.len() > SHORT {
            self.pieces.push_back(frame.clone());
        }
    }

    fn end_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }

    /// Gives the kernel what waits, as far as it takes it.
    ///
    /// # Errors
    ///
    /// When the member is gone.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.queued > 0 {
            if self.pieces.is_empty() {
                match (&*self.stream).write(&self.tail) {
                    Ok(written) => self.written(written),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.block(),
                    Err(error) => return Err(error),
                }
                continue;
            }
            let pieces = self.pieces.iter().map(|piece| &piece[..]).chain(Some(&self.tail[..]));
            let mut slices = [IoSlice::new(&[]); PIECES];
            let count = slices.iter_mut().zip(pieces).map(|(slice, piece)| *slice = IoSlice::new(piece)).count();
            match (&*self.stream).write_vectored(&slices[..count]) {
                Ok(written) => self.written(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.block(),
                Err(error) => return Err(error),
            }
        }
        self.is_blocked = false;
        Ok(())
    }

    /// Waits until it can be written to.
    fn block(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.is_blocked, true) {
            self.wake.notify_one();
        }
        Ok(())
    }

    fn written(&mut self, mut count: usize) {
        self.queued -= count;
        while count > 0 {
            let Some(piece) = self.pieces.front_mut() else {
                self.tail.advance(count);
                break;
            };
            let here = count.min(piece.len());
            piece.advance(here);
            count -= here;
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
        if self.queued == 0 {
            // The room of a rush is given back: a silent member costs next to nothing.
            if self.tail.try_reclaim(KEPT + 1) {
                self.tail = BytesMut::new();
            }
            self.pieces.shrink_to(0);
        }
    }
}
