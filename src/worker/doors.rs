//! The listeners that a worker accepts from by itself (`--dispatch kernel`).

use std::env;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::attach_error::AttachError;
use haft_sys::accept::{self, Accepted};
use haft_sys::addr::EndAddr;
use haft_sys::inherit;
use haft_sys::poller;

/// What names the listeners that were inherited.
const VARIABLE: &str = "HAFT_LISTEN_FDS";
/// How long a listener is left alone when this process has no descriptor left.
const REST: Duration = Duration::from_millis(50);

/// A connection as it was accepted.
#[derive(Debug)]
pub(super) struct AcceptedConnection {
    pub descriptor: OwnedFd,
    /// Which `--listen`, from 0.
    pub listener: u16,
    pub client: EndAddr,
    pub local: EndAddr,
}

/// The listeners. None, if the master hands every connection over.
#[derive(Debug, Default)]
pub(super) struct InheritedListeners {
    doors: Vec<InheritedListener>,
    /// Whose turn it is: one that is always busy must not keep the others waiting.
    turn: usize,
}

#[derive(Debug)]
struct InheritedListener {
    listener: AsyncFd<OwnedFd>,
    /// The address at our end of each connection, if it is the same for all.
    local: Option<EndAddr>,
    number: u16,
    /// How many are known to wait still: to ask for it is cheaper than an accept that finds no client.
    waiting: usize,
}

impl InheritedListeners {
    /// Takes over the listeners that haft passed to this process. To be called once, within a tokio runtime.
    pub(super) fn from_env() -> Result<Self, AttachError> {
        let Ok(value) = env::var(VARIABLE) else { return Ok(Self::default()) };
        let mut doors = Vec::new();
        for (number, text) in (0..).zip(value.split(',').filter(|text| !text.is_empty())) {
            let listener = inherit::take_listener(text)
                .map_err(|source| AttachError::NotAListener { value: value.clone(), source })?;
            // Where it is bound to every address each connection has to be asked for its own.
            let local = accept::local_addr(listener.as_fd())?;
            let local = local.ip().is_some_and(|local| !local.ip().is_unspecified()).then_some(local);
            doors.push(InheritedListener { listener: poller::watch(listener)?, local, number, waiting: 0 });
        }
        Ok(Self { doors, turn: 0 })
    }

    /// Closes them all: clients that wait there are left to the other processes that hold them.
    pub(super) fn close(&mut self) {
        self.doors.clear();
    }

    /// The next connection of any of them. Never, if there are none. Cancel safe.
    ///
    /// An error is one of a listener itself.
    pub(super) async fn accept(&mut self) -> io::Result<AcceptedConnection> {
        loop {
            if let Some(arrival) = self.take_one().await? {
                return Ok(arrival);
            }
            std::future::poll_fn(|context| self.poll_any(context)).await?;
        }
    }

    /// Whether a client may wait at one of the listeners.
    fn poll_any(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut polled = self.doors.iter().map(|door| door.listener.poll_read_ready(context));
        polled.find(Poll::is_ready).map_or(Poll::Pending, |ready| ready.map_ok(drop))
    }

    async fn take_one(&mut self) -> io::Result<Option<AcceptedConnection>> {
        let count = self.doors.len();
        for step in 0..count {
            let at = (self.turn + step) % count;
            if let Some(arrival) = self.doors[at].take_one(InheritedListener::look).await? {
                self.turn = (at + 1) % count;
                return Ok(Some(arrival));
            }
        }
        Ok(None)
    }

    /// The next of the clients that wait, once no other is waited for; `None` if there is none, and all are closed.
    pub(super) async fn take_last(&mut self) -> io::Result<Option<AcceptedConnection>> {
        while let Some(door) = self.doors.last_mut() {
            if let Some(arrival) = door.take_one(InheritedListener::waiting).await? {
                return Ok(Some(arrival));
            }
            self.doors.pop();
        }
        Ok(None)
    }
}

impl InheritedListener {
    /// How many wait in the kernel's queue.
    fn waiting(&self) -> usize {
        accept::waiting(self.listener.get_ref().as_fd()).unwrap_or(1)
    }

    /// The same, if a client has come since the last look; otherwise tokio is to report the next one.
    fn look(&self) -> usize {
        // A client that comes after the look within is reported anew.
        let look = |_: &OwnedFd| match self.waiting() {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            waiting => Ok(waiting),
        };
        self.listener.try_io(Interest::READABLE, look).unwrap_or(0)
    }

    async fn take_one(&mut self, look: fn(&Self) -> usize) -> io::Result<Option<AcceptedConnection>> {
        loop {
            if self.waiting == 0 {
                self.waiting = look(self);
                if self.waiting == 0 {
                    return Ok(None);
                }
            }
            self.waiting -= 1;
            match accept::accept(self.listener.get_ref().as_fd())? {
                Accepted::Connection(descriptor, client) => {
                    // It cannot fail on an open socket.
                    let ask = || accept::local_addr(descriptor.as_fd()).unwrap_or(EndAddr::Unix);
                    let local = self.local.unwrap_or_else(ask);
                    return Ok(Some(AcceptedConnection { descriptor, listener: self.number, client, local }));
                }
                // Another worker of the slot was quicker.
                Accepted::Empty => self.waiting = 0,
                Accepted::Aborted(error) => tracing::debug!(%error, "a connection went away before it was accepted"),
                Accepted::Exhausted(error) => {
                    tracing::warn!(%error, "no descriptor left to accept with: clients wait in the kernel's queue");
                    self.waiting = 0;
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }
}
