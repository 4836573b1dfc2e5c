//! The connections that the master hands over, and those that the kernel gives to this worker.

mod ending;
#[cfg(feature = "axum")]
mod serve;

use std::collections::VecDeque;
use std::env;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use self::ending::{end_oneself, receive_shorter_times};
use super::attach_error::AttachError;
use super::doors::{AcceptedConnection, InheritedListeners};
use super::drain::{Drain, DrainSource, SETTLE};
#[cfg(feature = "rooms")]
use super::rooms::Rooms;
use super::scoreboard::{Field, Scoreboard};
use super::stream::Stream;
#[cfg(feature = "tags")]
use super::tags::{self, Tags};
use super::window::Window;
use crate::protocol::{ChannelError, Entry, FromWorker, MasterMessage, WorkerEnd};
#[cfg(feature = "tags")]
use crate::protocol::{Tag, Tagger};
use haft_sys::addr::EndAddr;
use haft_sys::descriptors;
use haft_sys::inherit;
use haft_sys::poller;
use haft_sys::scm::Sent;

/// How often the number of open connections is sent to the master while it changes.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How often a worker that is out of descriptors looks whether some are free again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A client's connection with its addresses.
#[derive(Debug)]
pub struct Connection {
    /// The connection, unread.
    pub stream: Stream,
    /// Where it comes from.
    pub peer: Peer,
}

/// Where a connection comes from. With axum, handlers have it as `ConnectInfo<Peer>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The client's address.
    pub client: EndAddr,
    /// The address that the client connected to.
    pub local: EndAddr,
    /// Which `--listen` took it, from 0.
    pub listener: u16,
}

/// The connections of this worker: those that the master hands over and, with `--dispatch kernel`, those that the
/// kernel steers to the worker's own listeners. They come the same way.
///
/// The first call of [`Incoming::next`] or [`Incoming::accept`] reports to the master that the worker is ready. A
/// connection is acknowledged before it is yielded, so before its first byte can be read. It is also a listener for
/// `axum::serve`.
#[derive(Debug)]
pub struct Incoming {
    end: WorkerEnd,
    readiness: AsyncFd<OwnedFd>,
    announced: bool,
    queue: VecDeque<(OwnedFd, Entry)>,
    /// Messages that must be sent to the master before anything else is yielded.
    unsent: VecDeque<FromWorker>,
    window: Window,
    /// With `--dispatch kernel`.
    doors: InheritedListeners,
    reported_open: usize,
    reported: Instant,
    ended: bool,
    drain: DrainSource,
    /// What this worker tags with.
    #[cfg(feature = "tags")]
    tagging: Option<(Tagger, Tag)>,
    /// The program asked for tags, and so will tag.
    tags: bool,
    /// While this worker lingers and has not sent IDLE: the earliest moment to send it.
    idle_from: Option<Instant>,
    /// How long this process may outlive its master, if the master gave a time.
    outlive: Option<Duration>,
    scoreboard: Scoreboard,
    #[cfg(feature = "rooms")]
    rooms: Rooms,
}

impl Incoming {
    /// Takes over the channel that haft passed to this process. To be called once, within a tokio runtime.
    ///
    /// From then on the process outlives its master until its clients have been served, or the drain time is over
    /// (`HAFT_DRAIN_TIMEOUT`, milliseconds): then it ends itself by SIGTERM, as the master would have. So SIGHUP, which
    /// the kernel sends to a worker that stood still when its master died, does nothing unless the program handles it.
    pub fn from_env() -> Result<Self, AttachError> {
        let value = env::var("HAFT_CHANNEL_FD").map_err(|_| AttachError::NotUnderHaft)?;
        let channel = inherit::take_seqpacket(&value).map_err(|source| AttachError::NotAChannel { value, source })?;
        // A worker outlives its master until its clients have been served: it learns of the death from the channel.
        inherit::outlive_parent();
        // As many connections as can be: haft gives its workers the limit that it was itself started with.
        descriptors::raise_limit().ok();
        let outlive = env::var("HAFT_DRAIN_TIMEOUT").ok().and_then(|millis| millis.parse().ok());
        let doors = InheritedListeners::from_env()?;
        let incoming = Self {
            outlive: outlive.map(Duration::from_millis),
            doors,
            #[cfg(feature = "tags")]
            tagging: tags::from_env(|name| env::var(name).ok()),
            #[cfg(feature = "rooms")]
            rooms: Rooms::from_env()?,
            ..Self::over(channel)?
        };
        incoming.scoreboard.keep_written(incoming.drain());
        Ok(incoming)
    }

    /// Takes over a worker's end of a channel: for tests, which are the master themselves
    /// ([`crate::protocol::MasterEnd::pair`]). To be called within a tokio runtime.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use haft_worker::{Incoming, protocol::MasterEnd};
    ///
    /// let (master, channel) = MasterEnd::pair()?;
    /// let mut incoming = Incoming::over(channel)?;
    /// drop(master);
    /// assert!(incoming.next().await?.is_none());
    /// # Ok(()) }
    /// ```
    pub fn over(channel: OwnedFd) -> io::Result<Self> {
        // A duplicate: it is read and written through the other.
        let readiness = poller::watch(channel.try_clone()?)?;
        Ok(Self {
            end: WorkerEnd::new(channel),
            readiness,
            announced: false,
            queue: VecDeque::new(),
            unsent: VecDeque::new(),
            window: Window::new(),
            doors: InheritedListeners::default(),
            reported_open: 0,
            reported: Instant::now(),
            ended: false,
            drain: DrainSource::new(),
            #[cfg(feature = "tags")]
            tagging: None,
            tags: false,
            idle_from: None,
            outlive: None,
            scoreboard: Scoreboard::default(),
            #[cfg(feature = "rooms")]
            rooms: Rooms::default(),
        })
    }

    /// Gives it what a master of `--affinity session` gives in `HAFT_TAG_KEY`, `HAFT_SLOT` and `HAFT_GENERATION`: for
    /// tests, as [`Incoming::over`] is.
    #[cfg(feature = "tags")]
    pub fn tagging(self, tagger: Tagger, own: Tag) -> Self {
        Self { tagging: Some((tagger, own)), ..self }
    }

    /// What session ids are tagged with, under `--affinity session`; `None` without it, and once the worker has sent
    /// READY: ask before the first [`Incoming::next`].
    ///
    /// A worker that asks tags every session that it opens over polling, by [`super::TagLayer`] or by itself: the
    /// master is informed so, and lets this worker linger for its sessions when it is replaced (see [`Drain`]).
    ///
    /// The key stays in the environment (`HAFT_TAG_KEY`), which cannot be changed safely once there are threads: a
    /// program that starts others and does not trust them with it takes it from theirs (`Command::env_remove`).
    #[cfg(feature = "tags")]
    pub fn tags(&mut self) -> Option<Tags> {
        let (tagger, own) = self.tagging.clone().filter(|_| !self.announced)?;
        self.tags = true;
        Some(Tags::new(tagger, own, self.drain()))
    }

    /// The link to all other workers of this haft, and of the hosts that share its Redis (`--redis`); with `--rooms off` one
    /// to none.
    #[cfg(feature = "rooms")]
    pub fn rooms(&self) -> Rooms {
        self.rooms.clone()
    }

    /// What this worker reports about itself.
    pub fn scoreboard(&self) -> Scoreboard {
        self.scoreboard.clone()
    }

    /// A handle that knows when to finish.
    pub fn drain(&self) -> Drain {
        self.drain.subscribe()
    }

    /// The next connection; `None` when the worker is to finish and everything that was sent to it has been yielded.
    ///
    /// Cancel safe. An error is one of the channel: no connection will come any more.
    pub async fn next(&mut self) -> io::Result<Option<Connection>> {
        if !self.announced {
            self.announced = true;
            self.unsent.push_back(FromWorker::Ready { limit: self.window.limit(), tags: self.tags });
        }
        loop {
            self.speak().await?;
            while let Some((descriptor, entry)) = self.queue.pop_front() {
                if let Some(idle_from) = &mut self.idle_from {
                    *idle_from = Instant::now() + SETTLE;
                }
                match self.connection(descriptor, entry) {
                    Ok(connection) => return Ok(Some(connection)),
                    Err(error) => tracing::warn!(client = %entry.client, %error, "a connection cannot be used"),
                }
            }
            let arrival = match self.ended {
                // The master asked to finish, and then there are no listeners; or it is gone, and then no other process
                // would take the clients that wait.
                true => match self.doors.take_last().await? {
                    None => return Ok(None),
                    last => last,
                },
                false => self.listen().await?,
            };
            let Some(AcceptedConnection { descriptor, listener, client, local }) = arrival else { continue };
            let entry = Entry { sequence: 0, listener, client, local };
            match self.connection(descriptor, entry) {
                Ok(connection) => return Ok(Some(connection)),
                Err(error) => tracing::warn!(%client, %error, "a connection cannot be used"),
            }
        }
    }

    /// The next TCP connection as tokio's own stream, with the client's address; `None` as with [`Incoming::next`].
    ///
    /// The stream is not counted by [`Drain::finished`]. Connections from a `unix:` listener are not yielded but
    /// closed: use [`Incoming::next`] where there is one.
    pub async fn accept(&mut self) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        while let Some(connection) = self.next().await? {
            match (connection.peer.client.ip(), connection.stream.into_tcp()) {
                (Some(client), Some(stream)) => return Ok(Some((stream, client))),
                _ => tracing::warn!("a connection from a Unix listener was closed: this worker serves TCP only"),
            }
        }
        Ok(None)
    }

    /// Waits for something from the master, for something to report to it, or for a client at a listener.
    async fn listen(&mut self) -> io::Result<Option<AcceptedConnection>> {
        let changed = self.reported_open != self.drain.open();
        let pause = match (self.window.is_shut(), changed) {
            (true, _) => Some(LOOK_AGAIN),
            (false, true) => Some(REPORT_EVERY.saturating_sub(self.reported.elapsed())),
            // Each wait of this thread would set the kernel's timer.
            (false, false) => None,
        };
        let idle_from = self.idle_from.unwrap_or_else(Instant::now);
        tokio::select! {
            biased;
            ready = self.readiness.readable() => {
                let mut ready = ready?;
                let received = self.end.receive();
                if matches!(received, Ok(None)) {
                    ready.clear_ready();
                }
                drop(ready);
                self.receive(received)?;
            }
            () = self.drain.no_session_from(idle_from), if self.idle_from.is_some() => {
                self.idle_from = None;
                self.unsent.push_back(FromWorker::Idle);
            }
            () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {
                if changed || self.window.is_shut() {
                    self.window.widen();
                    self.report();
                }
            }
            // Last: clients that keep coming must not keep the rest waiting.
            arrival = self.doors.accept() => return arrival.map(Some),
        }
        Ok(None)
    }

    fn receive(&mut self, received: Result<Option<MasterMessage>, ChannelError>) -> io::Result<()> {
        match received {
            Ok(None) => {}
            Ok(Some(MasterMessage::Connections(entries, descriptors))) => self.take(&entries, descriptors),
            // Comes only to workers that have announced tags, and once.
            Ok(Some(MasterMessage::Linger { within_ms })) => {
                self.idle_from = Some(Instant::now() + SETTLE);
                self.drain.linger(Duration::from_millis(within_ms.into()));
            }
            Ok(Some(MasterMessage::Drain { within_ms })) => {
                let within = Duration::from_millis(within_ms.into());
                self.ended = true;
                self.doors.close();
                self.drain.request(Some(within));
                self.keep_receiving();
                // The master may be gone by then.
                if self.outlive.take().is_some() {
                    tokio::spawn(end_oneself(within));
                }
            }
            Ok(Some(MasterMessage::Ping)) => self.report(),
            Err(ChannelError::Closed) => self.master_gone(),
            // The master died with unread words of ours in its end. What it had sent is still there, and then the end.
            Err(ChannelError::Socket(error)) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(ChannelError::Socket(error)) => return Err(error),
            Err(ChannelError::Frame(error)) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
        Ok(())
    }

    /// Queues what came, returns what did not, and acknowledges both before anything of it is yielded.
    fn take(&mut self, entries: &[Entry], descriptors: Vec<OwnedFd>) {
        let Some(last) = entries.last() else { return };
        if let Some(missing) = entries.get(descriptors.len()) {
            let count = (entries.len() - descriptors.len()) as u32;
            self.unsent.push_back(FromWorker::Returned { first: missing.sequence, count });
        }
        self.queue.extend(descriptors.into_iter().zip(entries.iter().copied()));
        self.window.receive(last.sequence + 1);
        self.report();
    }

    fn report(&mut self) {
        (self.reported_open, self.reported) = (self.drain.open(), Instant::now());
        self.unsent.push_back(FromWorker::Taken {
            below: self.window.received(),
            limit: self.window.limit(),
            open: u32::try_from(self.reported_open + self.queue.len()).unwrap_or(u32::MAX),
        });
    }

    fn master_gone(&mut self) {
        inherit::mend_output();
        self.ended = true;
        let outlive = self.outlive.take();
        self.drain.master_gone(outlive);
        if let Some(outlive) = outlive {
            tokio::spawn(end_oneself(outlive));
        }
    }

    /// After DRAIN the program asks for no connection any more, but the master may shorten the time.
    fn keep_receiving(&self) {
        let watched = || {
            let channel = self.end.as_fd().try_clone_to_owned()?;
            Ok::<_, io::Error>((poller::watch(channel.try_clone()?)?, WorkerEnd::new(channel)))
        };
        match watched() {
            Ok((readiness, end)) => drop(tokio::spawn(receive_shorter_times(readiness, end, self.drain.clone()))),
            Err(error) => tracing::debug!(%error, "a shorter time to finish would not be received"),
        }
    }

    /// Sends what is unsent, in order, waiting for room if it must.
    async fn speak(&mut self) -> io::Result<()> {
        while let Some(frame) = self.unsent.front() {
            match self.end.send(*frame) {
                Ok(Sent::Bytes(_)) => {
                    self.unsent.pop_front();
                }
                Ok(Sent::Full | Sent::TooManyInFlight | Sent::TooLong) => poller::room(&self.end).await?,
                Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                    // The master is gone: what it sent is ours alone.
                    self.unsent.clear();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn connection(&self, descriptor: OwnedFd, entry: Entry) -> io::Result<Connection> {
        let open = self.drain.opened();
        self.scoreboard.add(Field::Connections, 1);
        // The client's address may have come from a proxy: it does not show what kind of socket this is.
        let stream = match entry.local {
            EndAddr::Ip(_) => Stream::tcp(TcpStream::from_std(descriptor.into())?, open, self.scoreboard.clone()),
            EndAddr::Unix => Stream::unix(UnixStream::from_std(descriptor.into())?, open, self.scoreboard.clone()),
        };
        let Entry { client, local, listener, .. } = entry;
        Ok(Connection { stream, peer: Peer { client, local, listener } })
    }
}

#[cfg(test)]
mod tests;
