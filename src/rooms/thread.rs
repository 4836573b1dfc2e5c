//! The relay's thread, and what the master has of it.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;

use nix::sys::signal::SigSet;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::{LocalSet, spawn_local};

use super::counts::{RoomsCounters, RoomsTotals};
use super::redis::{RedisLink, bridge};
use super::relay::Relay;
use super::serving::serve;
use crate::confine;
use crate::sys::scm;

/// The rooms cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub struct RoomsThreadError {
    doing: &'static str,
    source: io::Error,
}

/// The rooms of one master. Their thread begins with the first member, or at once if there may be other hosts, and ends when
/// this is dropped.
#[derive(Debug, Default)]
pub struct RoomsThread {
    thread: Option<UnboundedSender<NewMember>>,
    counts: Arc<RoomsCounters>,
}

impl RoomsThread {
    /// Rooms that are shared with other hosts.
    ///
    /// # Errors
    ///
    /// When there can be no thread.
    pub fn linked(link: RedisLink) -> Result<Self, RoomsThreadError> {
        let counts = Arc::default();
        Ok(Self { thread: Some(begin(Arc::clone(&counts), Some(link))?), counts })
    }

    /// The end of a new member's socket: its holder is that member, until the last copy is closed. Close-on-exec and
    /// non-blocking.
    ///
    /// # Errors
    ///
    /// When there can be no socket, or no thread.
    pub fn attach(&mut self) -> Result<OwnedFd, RoomsThreadError> {
        self.add(true)
    }

    /// The same for one that may never say that it reads: messages from before it does are not kept for it.
    ///
    /// # Errors
    ///
    /// As [`RoomsThread::attach`].
    pub fn offer(&mut self) -> Result<OwnedFd, RoomsThreadError> {
        self.add(false)
    }

    fn add(&mut self, keeps: bool) -> Result<OwnedFd, RoomsThreadError> {
        let (ours, theirs) = scm::stream_pair().map_err(while_doing("making a socket pair"))?;
        let thread = match &self.thread {
            Some(thread) => thread,
            None => self.thread.insert(begin(Arc::clone(&self.counts), None)?),
        };
        let gone = |_| while_doing("reaching the thread of the rooms")(io::ErrorKind::BrokenPipe.into());
        thread.send(NewMember { socket: ours, keeps }).map_err(gone)?;
        Ok(theirs)
    }

    /// What the relay has done so far.
    pub fn totals(&self) -> RoomsTotals {
        self.counts.totals()
    }
}

/// The relay's end of a member's socket.
#[derive(Debug)]
struct NewMember {
    socket: OwnedFd,
    /// Messages are kept for it from the beginning.
    keeps: bool,
}

fn while_doing(doing: &'static str) -> impl Fn(io::Error) -> RoomsThreadError {
    move |source| RoomsThreadError { doing, source }
}

fn begin(counts: Arc<RoomsCounters>, link: Option<RedisLink>) -> Result<UnboundedSender<NewMember>, RoomsThreadError> {
    let failed = while_doing("beginning the thread of the rooms");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(&failed)?;
    let mut host = [0; 4];
    getrandom::fill(&mut host).map_err(|error| failed(io::Error::other(error)))?;
    // 21 bits, so that all members' numbers are exact in JavaScript.
    let host = (u32::from_be_bytes(host) >> 11).max(1);
    let (sender, members) = mpsc::unbounded_channel();
    let run = move || {
        // Signals go to the thread that waits for them.
        SigSet::all().thread_block().ok();
        // It reads what workers and other hosts send.
        if let Err(error) = confine::relay(link.is_some()) {
            tracing::warn!("the thread that carries rooms is less confined than it could be: {error}");
        }
        LocalSet::new().block_on(&runtime, relay(members, Relay::new(host, counts), link));
    };
    std::thread::Builder::new().name("haft-rooms".to_owned()).spawn(run).map_err(&failed)?;
    Ok(sender)
}

async fn relay(mut members: UnboundedReceiver<NewMember>, mut relay: Relay, link: Option<RedisLink>) {
    let published = link.map(|link| (link, relay.open_bridge()));
    let relay = Rc::new(RefCell::new(relay));
    if let Some((link, published)) = published {
        spawn_local(bridge(link, Rc::clone(&relay), published));
    }
    while let Some(NewMember { socket, keeps }) = members.recv().await {
        let served = serve(Rc::clone(&relay), UnixStream::from(socket), keeps);
        spawn_local(async {
            if let Err(error) = served.await {
                tracing::error!(%error, "a worker's link for rooms cannot be watched: it gets no broadcasts");
            }
        });
    }
}
