//! Messages between workers: a link to all other workers of this haft, and of the hosts that share its Redis.

#[cfg(feature = "socketioxide")]
mod adapter;
mod body;
mod emitted;
mod link;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::env;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use haft_sys::inherit;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

#[cfg(feature = "socketioxide")]
pub use self::adapter::RoomsAdapter;
pub use self::emitted::Emitted;
use crate::attach_error::AttachError;
use crate::protocol::rooms::{ALL, HEADER, Kind, MAX_FRAME, write};

/// Most bytes that wait to be sent, beside one message: a publisher waits for room.
const MAX_UNSENT: usize = 8 << 20;

/// A link to the other workers, for what concerns the clients of all of them. Clones are the same link.
///
/// Messages have a topic, and reach the workers that listen to it. Those of one worker arrive in its order. Of a worker that
/// does not read, haft drops the messages beyond 32 MiB, and counts them (`haft_rooms_dropped_total`). The end of a
/// worker is known once its process has ended. Without haft, and after its end, a worker is alone: to publish does nothing then.
#[derive(Debug, Clone)]
pub struct Rooms(Arc<Shared>);

/// A message of another worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomsMessage {
    /// The number of the worker that sent it: see [`Rooms::others`].
    pub from: u64,
    /// What it sent.
    pub payload: Bytes,
}

/// A message was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RoomsError {
    /// It has more than 64 MiB, or its topic more than 65,535 bytes.
    #[error(
        "a message of {0} bytes with its topic is too long for other workers: 64 MiB is the limit, and 65,535 bytes for a topic"
    )]
    TooLong(usize),
}

#[derive(Debug)]
struct Shared {
    state: Mutex<RoomsState>,
    changes: watch::Sender<u64>,
    queue: mpsc::UnboundedSender<Queued>,
    room: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct RoomsState {
    /// The other workers, by their numbers, each with the topics that it listens to.
    others: BTreeMap<u64, BTreeSet<String>>,
    topics: HashMap<String, TopicListener>,
}

/// A frame that is to be sent. Its room is free again once it is.
#[derive(Debug)]
struct Queued {
    frame: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// What takes the messages of a topic.
#[derive(Debug, Clone)]
enum TopicListener {
    Messages(mpsc::Sender<RoomsMessage>),
    #[cfg(feature = "socketioxide")]
    Adapter(mpsc::Sender<socketioxide_redis::drivers::ChanItem>),
}

impl Default for Rooms {
    /// Of a worker that has no other.
    fn default() -> Self {
        let (rooms, _) = Self::new();
        rooms.0.room.close();
        rooms
    }
}

impl Rooms {
    /// The topic of what programs outside haft have published for clients, by `@socket.io/redis-emitter`: [`Emitted`].
    pub const EMITTED: &str = "haft emitted 1";

    /// Takes over a link (`HAFT_ROOMS_FD`): for tests, as [`crate::Incoming::over`] is. To be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the socket cannot be waited for.
    pub fn over(socket: OwnedFd) -> io::Result<Self> {
        let socket = UnixStream::from(socket);
        socket.set_nonblocking(true)?;
        let stream = tokio::net::UnixStream::from_std(socket)?;
        let (rooms, queue) = Self::new();
        let ready = write(Kind::Ready, ALL, &link::own_place());
        rooms.0.queue.send(Queued { frame: ready, _room: None }).ok();
        link::begin(rooms.clone(), stream, queue);
        Ok(rooms)
    }

    /// The link that haft gives unless it was started with `--rooms off`.
    pub(super) fn from_env() -> Result<Self, AttachError> {
        let Ok(value) = env::var("HAFT_ROOMS_FD") else { return Ok(Self::default()) };
        let socket = inherit::take_stream(&value).map_err(|source| AttachError::NotRooms { value, source })?;
        Ok(Self::over(socket)?)
    }

    fn new() -> (Self, mpsc::UnboundedReceiver<Queued>) {
        let (queue, queued) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(MAX_UNSENT));
        let shared = Shared { state: Mutex::default(), changes: watch::Sender::new(0), queue, room };
        (Self(Arc::new(shared)), queued)
    }

    /// The other workers that listen to a topic now: numbers that no other worker of this or another host gets.
    pub fn others(&self, topic: &str) -> BTreeSet<u64> {
        let listens = |(number, topics): (&u64, &BTreeSet<String>)| topics.contains(topic).then_some(*number);
        self.state().others.iter().filter_map(listens).collect()
    }

    /// Changes whenever a worker comes, listens to other topics, or goes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Listens to a topic, from now on and in place of whatever did before. `buffer`: how many messages may wait to be taken;
    /// beyond that those of all topics wait, and with them haft.
    pub fn listen(&self, topic: &str, buffer: usize) -> mpsc::Receiver<RoomsMessage> {
        let (sender, messages) = mpsc::channel(buffer.max(1));
        self.add(topic.to_owned(), TopicListener::Messages(sender));
        messages
    }

    /// Sends a message to all other workers that listen to its topic. It waits while 8 MiB of this worker's wait to be sent.
    ///
    /// # Errors
    ///
    /// When it is too long.
    pub async fn publish(&self, topic: &str, payload: &[u8]) -> Result<(), RoomsError> {
        let Some(to) = self.listening(topic) else { return Ok(()) };
        let too_long = RoomsError::TooLong(topic.len() + payload.len());
        let body = body::message(topic, payload).ok_or(too_long)?;
        if HEADER + body.len() > MAX_FRAME {
            return Err(too_long);
        }
        for member in to {
            let frame = write(Kind::Message, member, &body);
            let length = frame.len().min(MAX_UNSENT) as u32;
            // It is closed once the link is over.
            let Ok(room) = Arc::clone(&self.0.room).acquire_many_owned(length).await else { break };
            self.0.queue.send(Queued { frame, _room: Some(room) }).ok();
        }
        Ok(())
    }

    /// To which members a message of this topic goes; nothing if no other listens.
    fn listening(&self, topic: &str) -> Option<Vec<u64>> {
        let others = &self.state().others;
        let to: Vec<u64> =
            others.iter().filter(|(_, topics)| topics.contains(topic)).map(|(number, _)| *number).collect();
        match to.len() {
            0 => None,
            // One frame for all.
            count if count > 1 && count == others.len() => Some(vec![ALL]),
            _ => Some(to),
        }
    }

    /// How many workers listen to a topic, with this one.
    #[cfg(feature = "socketioxide")]
    fn listeners(&self, topic: &str) -> usize {
        let state = self.state();
        let others = state.others.values().filter(|topics| topics.contains(topic)).count();
        others + usize::from(state.topics.contains_key(topic))
    }

    fn add(&self, topic: String, listener: TopicListener) {
        let mut state = self.state();
        if state.topics.insert(topic, listener).is_none() {
            self.send_topics(&state, ALL, false);
        }
    }

    fn remove(&self, topic: &str) {
        let mut state = self.state();
        if state.topics.remove(topic).is_some() {
            self.send_topics(&state, ALL, false);
        }
    }

    /// Sends a member, or all, the topics that are listened to here; `asks`: it is to send its own. Under the lock, so
    /// that the last one sent is the current one.
    fn send_topics(&self, state: &RoomsState, member: u64, asks: bool) {
        let body = body::topics(state.topics.keys().map(String::as_str), asks);
        self.0.queue.send(Queued { frame: write(Kind::Message, member, &body), _room: None }).ok();
    }

    fn state(&self) -> MutexGuard<'_, RoomsState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.0.changes.send_modify(|count| *count += 1);
    }
}
