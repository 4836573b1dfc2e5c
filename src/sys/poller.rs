//! One set of descriptors to wait for, as a single descriptor that tokio can wait for.
//!
//! The master's own descriptors (listeners, channels) are in an epoll set of their own: each turn of the master takes
//! all events at once, so that what was accepted together is handed over together.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::ppoll;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use tokio::io::unix::AsyncFd;

/// A set that can be looked at, or be waited for as a member of another set.
#[derive(Debug)]
pub struct Set {
    epoll: Epoll,
    /// Room for what one look brings.
    events: Vec<EpollEvent>,
}

impl AsRawFd for Set {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.0.as_raw_fd()
    }
}

impl AsFd for Set {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

/// What a descriptor waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Only that the peer is gone, which the kernel always reports (EPOLLHUP, EPOLLERR).
    HangUp,
    /// Something to read, or to accept.
    Readable,
    /// Something to read, or room to write.
    ReadableOrWritable,
    /// More to read than was reported last (EPOLLET), or the peer's end: unread data is not reported again.
    MoreToRead,
}

impl From<Interest> for EpollFlags {
    fn from(interest: Interest) -> Self {
        match interest {
            Interest::HangUp => EpollFlags::empty(),
            Interest::Readable => EpollFlags::EPOLLIN,
            Interest::ReadableOrWritable => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
            Interest::MoreToRead => EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET,
        }
    }
}

/// The set that a task waits for.
#[derive(Debug)]
pub struct Poller {
    set: AsyncFd<Set>,
}

/// What one descriptor of the set is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The caller's token.
    pub token: u64,
    /// There is something to read, or the peer is gone.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// Nothing more will come: the peer has closed its side, or the descriptor has failed.
    pub ended: bool,
}

impl From<&EpollEvent> for Ready {
    fn from(event: &EpollEvent) -> Self {
        let readable = EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR | EpollFlags::EPOLLRDHUP;
        Self {
            token: event.data(),
            readable: event.events().intersects(readable),
            writable: event.events().contains(EpollFlags::EPOLLOUT),
            ended: event.events().intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR | EpollFlags::EPOLLRDHUP),
        }
    }
}

impl Set {
    /// Makes an empty set that yields at most `events` events a look.
    pub fn new(events: usize) -> io::Result<Self> {
        Ok(Self { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?, events: vec![EpollEvent::empty(); events] })
    }

    /// Adds a descriptor, known by a token of the caller's choice. It must be removed before it is closed or handed to
    /// another process: the open file lives on there, and epoll would go on reporting it.
    pub fn add(&self, descriptor: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(self.epoll.add(descriptor, EpollEvent::new(interest.into(), token))?)
    }

    /// Changes what a descriptor waits for.
    pub fn change(&self, descriptor: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(self.epoll.modify(descriptor, &mut EpollEvent::new(interest.into(), token))?)
    }

    /// Takes a descriptor out of the set.
    pub fn remove(&self, descriptor: impl AsFd) -> io::Result<()> {
        Ok(self.epoll.delete(descriptor)?)
    }

    /// Replaces the content of `ready` by what is ready, and returns whether there is anything. Blocks the whole thread up
    /// to
    /// `patience_ms` milliseconds for it.
    ///
    /// Descriptors are level-triggered unless stated otherwise: what was not taken is reported again.
    pub fn look(&mut self, patience_ms: u8, ready: &mut Vec<Ready>) -> io::Result<PollResult> {
        ready.clear();
        match self.epoll.wait(&mut self.events, EpollTimeout::from(patience_ms)) {
            Ok(0) => Ok(PollResult::Nothing),
            Ok(count) => {
                ready.extend(self.events[..count].iter().map(Ready::from));
                Ok(PollResult::Ready)
            }
            Err(Errno::EINTR) => Ok(PollResult::Interrupted),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Looks for nothing for so long, so that events gather; a signal ends it sooner. Blocks the whole thread.
///
/// # Errors
///
/// Those of ppoll(2), but for EINTR.
pub fn gather(pause: Duration) -> io::Result<()> {
    match ppoll(&mut [], Some(TimeSpec::from_duration(pause)), None) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// What looking brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollResult {
    /// Something is ready.
    Ready,
    /// Nothing is.
    Nothing,
    /// A signal came.
    Interrupted,
}

impl Poller {
    /// Makes an empty set that yields at most `events` events a turn. Must be called within a tokio runtime.
    pub fn new(events: usize) -> io::Result<Self> {
        // SAFETY: the set owns its descriptor until it is dropped, and always gives the same number.
        let set = unsafe { AsyncFd::register_with_interest(Set::new(events)?, tokio::io::Interest::READABLE) }?;
        Ok(Self { set })
    }

    /// The set.
    pub fn set(&self) -> &Set {
        self.set.get_ref()
    }

    /// [`Set::add`].
    pub fn add(&self, descriptor: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        self.set().add(descriptor, token, interest)
    }

    /// [`Set::remove`].
    pub fn remove(&self, descriptor: impl AsFd) -> io::Result<()> {
        self.set().remove(descriptor)
    }

    /// Looks at the set ([`Set::look`]), and returns whether anything is ready. Only when nothing is left must
    /// [`Poller::wait`] really wait.
    pub fn look(&mut self, patience_ms: u8, ready: &mut Vec<Ready>) -> io::Result<bool> {
        let looked = self.set.get_mut().look(patience_ms, ready)?;
        if looked == PollResult::Nothing {
            // Clear tokio's cached readiness: try_io only does so on WouldBlock. After a signal
            // it may be so still.
            self.set.try_io(tokio::io::Interest::READABLE, |_| Err::<(), _>(io::ErrorKind::WouldBlock.into())).ok();
        }
        Ok(looked == PollResult::Ready)
    }

    /// Waits until something is ready and puts it in place of what `ready` held.
    ///
    /// Cancel safe: readiness that was not taken is reported by the next call.
    pub async fn wait(&mut self, ready: &mut Vec<Ready>) -> io::Result<()> {
        loop {
            // Letting the guard go keeps the readiness: looking clears it when there is nothing.
            drop(self.set.readable().await?);
            if self.look(0, ready)? {
                return Ok(());
            }
        }
    }
}

/// Lets tokio wait for something to read from, or to accept at, a descriptor that is not a stream of bytes. It must be
/// non-blocking.
///
/// Only for that: a socket that waits for room wakes each time that the peer has read something, though it has nothing
/// to write ([`room`]).
pub fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    watch_for(descriptor, tokio::io::Interest::READABLE)
}

/// Waits until there is room to write. Must be called within a tokio runtime. Cancel safe.
pub async fn room(descriptor: impl AsFd) -> io::Result<()> {
    let duplicate = descriptor.as_fd().try_clone_to_owned()?;
    watch_for(duplicate, tokio::io::Interest::WRITABLE)?.writable().await.map(drop)
}

fn watch_for(descriptor: OwnedFd, interest: tokio::io::Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd holds its descriptor until it is dropped, and always gives the same number.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, interest) }?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    #[tokio::test]
    async fn what_is_ready_is_reported_until_it_is_taken_and_again_when_more_comes() {
        let (mut left, mut right) = UnixStream::pair().expect("pair");
        right.set_nonblocking(true).expect("non-blocking");
        let mut poller = Poller::new(8).expect("poller");
        poller.add(&right, 7, Interest::Readable).expect("add");
        let mut ready = Vec::new();
        for _ in 0..3 {
            left.write_all(b"x").expect("write");
            for _ in 0..2 {
                poller.wait(&mut ready).await.expect("wait");
                assert_eq!(ready, [Ready { token: 7, readable: true, writable: false, ended: false }]);
            }
            assert_eq!(right.read(&mut [0; 8]).expect("read"), 1);
            let nothing = tokio::time::timeout(Duration::from_millis(1), poller.wait(&mut ready)).await;
            assert!(nothing.is_err(), "{ready:?}");
        }
        poller.set().change(&right, 7, Interest::ReadableOrWritable).expect("change");
        poller.wait(&mut ready).await.expect("wait");
        assert_eq!(ready, [Ready { token: 7, readable: false, writable: true, ended: false }]);
        // A channel that is polled lazily reports only its end.
        poller.set().change(&right, 7, Interest::HangUp).expect("change");
        left.write_all(b"x").expect("write");
        assert!(!poller.look(0, &mut ready).expect("look"), "{ready:?}");
        drop(left);
        // A process that another test is starting just now may hold it for a moment more.
        poller.wait(&mut ready).await.expect("wait");
        assert_eq!(ready, [Ready { token: 7, readable: true, writable: false, ended: true }]);
        poller.remove(&right).expect("remove");
        assert!(tokio::time::timeout(Duration::from_millis(1), poller.wait(&mut ready)).await.is_err());
    }

    #[tokio::test]
    async fn a_set_within_a_set_is_waited_for_or_looked_at() {
        let (mut left, right) = UnixStream::pair().expect("pair");
        let (mut poller, mut inner) = (Poller::new(8).expect("poller"), Set::new(4).expect("set"));
        inner.add(&right, 7, Interest::Readable).expect("add");
        poller.add(&inner, 1, Interest::HangUp).expect("add");
        let mut ready = Vec::new();
        assert_eq!(inner.look(0, &mut ready).expect("look"), PollResult::Nothing);
        left.write_all(b"x").expect("write");
        assert!(!poller.look(0, &mut ready).expect("look"), "it is not waited for");
        assert_eq!(inner.look(0, &mut ready).expect("look"), PollResult::Ready);
        assert_eq!(ready, [Ready { token: 7, readable: true, writable: false, ended: false }]);
        poller.set().change(&inner, 1, Interest::Readable).expect("change");
        poller.wait(&mut ready).await.expect("wait");
        assert_eq!(ready, [Ready { token: 1, readable: true, writable: false, ended: false }]);
    }

    #[tokio::test]
    async fn who_only_reads_is_not_woken_for_room_and_who_waits_for_room_gets_it() {
        let (left, right) = UnixStream::pair().expect("pair");
        for end in [&left, &right] {
            end.set_nonblocking(true).expect("non-blocking");
        }
        let watched = watch(left.try_clone().expect("duplicate").into()).expect("watch");
        while (&left).write(&[0; 4096]).is_ok() {}
        let mut waits = std::pin::pin!(room(&left));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waits.as_mut().poll(&mut context).is_pending(), "it is full");
        while (&right).read(&mut [0; 4096]).is_ok() {}
        tokio::time::timeout(Duration::from_secs(10), waits).await.expect("in time").expect("room");
        let woken = tokio::time::timeout(Duration::from_millis(1), watched.readable()).await;
        assert!(woken.is_err(), "there is nothing to read");
    }
}
