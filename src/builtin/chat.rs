//! The application of the built-in worker: chat rooms, and echo.
//!
//! # Events in the namespace `/`
//!
//! | from | event | data | acknowledged with |
//! |---|---|---|---|
//! | server | `hello` | `{slot, generation, pid, host, client, name, version}`, once connected | |
//! | client | `join` | `{room, name?}` | `{ok: true, room, name, members}` |
//! | client | `leave` | `{room}` | `{ok: true, room, members}` |
//! | client | `message` | `{room, text}` | `{ok: true, room, id, members, missed}` |
//! | server | `message` | `{room, id, from, text, host, slot}`, to the other members | |
//! | server | `members` | `{room, members, at?}`, to all members when the number has changed | |
//! | client | `echo` | anything, binary too | the same; and an event `echo` with the same |
//!
//! What is refused is acknowledged with `{ok: false, error}`, `error` being a sentence. A message reaches the members
//! on all workers, and `members` counts these; `at` lists `{host, slot, members}` where there are other workers.
//! `missed` counts the members on the sender's worker that were too far behind to get the message. `host` and `slot` of
//! a message are its sender's. The namespace `/echo` has nothing but `echo`.
//!
//! Nothing tells one client the `socket.id` of another: in socketioxide it is the Engine.IO session id, and a client
//! that knows it can speak in the session's name.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rmpv::Value;
use serde::de::{SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use socketioxide::extract::{AckSender, Extension, MaybeHttpExtension, SocketRef, TryData};
use socketioxide::socket::DisconnectReason;
use socketioxide::{BroadcastError, SocketIo};

use super::Identity;
use super::counted;
use super::drain::Registry;
use super::elsewhere::{Arrivals, ChatMessage, MembersAt, News, OtherWorkers};
use super::outbox::PollingOutbox;
use super::pollers::Pollers;
pub(super) use super::rooms::LIMITS;
use super::rooms::{ChatError, ChatMember, ChatRooms};
use super::wire::lock;
use haft_worker::EndAddr;
use haft_worker::scoreboard::{Field, Scoreboard};

/// How long changes of a room's members are gathered, so that not each of many that join is sent to each member.
const GATHER: Duration = Duration::from_millis(100);

/// The chat of one worker.
struct Chat {
    io: SocketIo,
    identity: Identity,
    registry: Arc<Registry>,
    rooms: Mutex<ChatRooms>,
    pollers: Pollers,
    elsewhere: OtherWorkers,
    /// Rooms whose number of members is to be announced, each with whether it has changed on this worker.
    changed: Mutex<HashMap<String, bool>>,
    guests: AtomicU64,
    messages: AtomicU64,
    scoreboard: Scoreboard,
}

/// One client in the chat. Locked before the rooms where both are.
struct Seat {
    chat: Arc<Chat>,
    member: Mutex<ChatMember>,
    /// What counts what is sent to it, if it began over polling.
    outbox: Option<Arc<PollingOutbox>>,
}

/// Puts the application on the engine. `others`: the link to the other workers.
pub(super) fn put_on(
    io: &SocketIo,
    identity: Identity,
    registry: Arc<Registry>,
    scoreboard: Scoreboard,
    others: haft_worker::Rooms,
) {
    let (elsewhere, arrivals) = OtherWorkers::new(others, identity.slot);
    let echoing = scoreboard.clone();
    let chat = Arc::new(Chat {
        io: io.clone(),
        identity,
        registry,
        rooms: Mutex::default(),
        pollers: Pollers::default(),
        elsewhere,
        changed: Mutex::default(),
        guests: AtomicU64::new(0),
        messages: AtomicU64::new(0),
        scoreboard,
    });
    tokio::spawn(attend(Arc::clone(&chat), arrivals));
    io.ns(
        "/",
        move |socket: SocketRef,
              MaybeHttpExtension(client): MaybeHttpExtension<EndAddr>,
              MaybeHttpExtension(outbox): MaybeHttpExtension<Arc<PollingOutbox>>| {
            let chat = Arc::clone(&chat);
            async move { welcome(&socket, client, outbox, chat) }
        },
    );
    io.ns("/echo", async move |socket: SocketRef| {
        socket.extensions.insert(echoing.clone());
        socket.on("echo", echo);
    });
}

#[derive(Serialize)]
struct Hello {
    #[serde(flatten)]
    worker: Identity,
    host: String,
    client: Option<String>,
    name: String,
    version: &'static str,
}

fn welcome(socket: &SocketRef, client: Option<EndAddr>, outbox: Option<Arc<PollingOutbox>>, chat: Arc<Chat>) {
    let name = format!("guest {}", chat.guests.fetch_add(1, Ordering::Relaxed) + 1);
    let hello = Hello {
        worker: chat.identity,
        host: chat.elsewhere.host().to_owned(),
        client: client.map(|client| client.to_string()),
        name: name.clone(),
        version: env!("CARGO_PKG_VERSION"),
    };
    let member = Mutex::new(ChatMember::named(name));
    socket.extensions.insert(chat.scoreboard.clone());
    socket.extensions.insert(Arc::new(Seat { chat, member, outbox }));
    socket.on("join", join);
    socket.on("leave", leave);
    socket.on("message", message);
    socket.on("echo", echo);
    socket.on_disconnect(gone);
    log_failure(socket.emit("hello", &hello));
}

#[derive(Deserialize)]
struct Join {
    room: String,
    name: Option<String>,
}

#[derive(Serialize)]
struct Joined {
    ok: bool,
    room: String,
    name: String,
    members: usize,
}

async fn join(socket: SocketRef, Extension(seat): Seated, TryData(data): TryData<Join>, ack: AckSender) {
    let joined = match data {
        Ok(Join { room, name }) => seat.join(&socket, &room, name.as_deref()),
        Err(_) => return misread(ack, "join takes {room: text, name?: text}"),
    };
    answer(ack, joined);
}

#[derive(Deserialize)]
struct Leave {
    room: String,
}

#[derive(Serialize)]
struct RoomMembers {
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<bool>,
    room: String,
    members: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    at: Vec<MembersAt>,
}

async fn leave(socket: SocketRef, Extension(seat): Seated, TryData(data): TryData<Leave>, ack: AckSender) {
    let left = match data {
        Ok(Leave { room }) => seat.leave(&socket, &room),
        Err(_) => return misread(ack, "leave takes {room: text}"),
    };
    answer(ack, left);
}

#[derive(Deserialize)]
struct Say {
    room: String,
    text: String,
}

#[derive(Serialize)]
struct Delivered {
    ok: bool,
    room: String,
    id: u64,
    members: usize,
    missed: usize,
}

async fn message(socket: SocketRef, Extension(seat): Seated, TryData(data): TryData<Say>, ack: AckSender) {
    seat.chat.scoreboard.add(Field::MessagesIn, 1);
    let Ok(Say { room, text }) = data else { return misread(ack, "message takes {room: text, text: text}") };
    let may = {
        let member = lock(&seat.member);
        let rooms = lock(&seat.chat.rooms);
        rooms.may_say(&member, &room, &text).map(|room| (rooms.members(&room), room, member.name.clone()))
    };
    let delivered = match may {
        Ok((members, room, from)) => {
            let id = seat.chat.messages.fetch_add(1, Ordering::Relaxed) + 1;
            let (host, slot) = (seat.chat.elsewhere.host().to_owned(), seat.chat.identity.slot);
            let message = ChatMessage { room: room.clone(), id, from, text, host, slot: Some(slot) };
            seat.chat.elsewhere.say(&message).await;
            seat.chat.pollers.sent(&room, seat.outbox.as_ref(), &message);
            let missed = missed(socket.to(room.clone()).emit("message", &message).await);
            seat.chat.scoreboard.add(Field::MessagesOut, members.saturating_sub(1 + missed) as u64);
            seat.chat.scoreboard.add(Field::LostQueue, missed as u64);
            let members = members + seat.chat.elsewhere.members(&room);
            Ok(Delivered { ok: true, room, id, members, missed })
        }
        Err(refused) => Err(refused),
    };
    answer(ack, delivered);
}

async fn gone(reason: DisconnectReason, Extension(seat): Seated) {
    seat.chat.scoreboard.add(counted::ended(reason), 1);
    let left = {
        let mut member = lock(&seat.member);
        lock(&seat.chat.rooms).gone(&mut member)
    };
    for room in left {
        seat.left(&room);
        seat.chat.send_members(room, true);
    }
}

async fn echo(
    socket: SocketRef,
    Extension(scoreboard): Extension<Scoreboard>,
    TryData(args): TryData<Args>,
    ack: AckSender,
) {
    scoreboard.add(Field::MessagesIn, 1);
    let Ok(args) = args else { return misread(ack, "echo takes anything that can be read") };
    log_failure(ack.send(&args));
    scoreboard.add(Field::MessagesOut, 1);
    log_failure(socket.emit("echo", &args));
}

type Seated = Extension<Arc<Seat>>;

impl Seat {
    fn join(&self, socket: &SocketRef, room: &str, name: Option<&str>) -> Result<Joined, ChatError> {
        // The member stays locked until the socket is in the room, so that the end of the session cannot come between.
        let mut member = lock(&self.member);
        let mut rooms = lock(&self.chat.rooms);
        let (room, new) = rooms.join(&mut member, room, name)?;
        let members = rooms.members(&room) + self.chat.elsewhere.members(&room);
        drop(rooms);
        socket.join(room.clone());
        if new {
            if let Some(outbox) = &self.outbox {
                self.chat.pollers.join(&room, outbox);
            }
            self.chat.send_members(room.clone(), true);
        }
        Ok(Joined { ok: true, room, name: member.name.clone(), members })
    }

    fn leave(&self, socket: &SocketRef, room: &str) -> Result<RoomMembers, ChatError> {
        let mut member = lock(&self.member);
        let mut rooms = lock(&self.chat.rooms);
        let room = rooms.leave(&mut member, room)?;
        let members = rooms.members(&room) + self.chat.elsewhere.members(&room);
        drop(rooms);
        socket.leave(room.clone());
        self.left(&room);
        self.chat.send_members(room.clone(), true);
        Ok(RoomMembers { ok: Some(true), room, members, at: Vec::new() })
    }

    fn left(&self, room: &str) {
        if let Some(outbox) = &self.outbox {
            self.chat.pollers.leave(room, outbox);
        }
    }
}

impl Chat {
    /// Announces the number of members to the members of `room`, a little later, and to the other workers if it has
    /// changed `here`. (A worker that drains does not announce it to its own members: all will leave, and each
    /// announcement would only make the remaining ones poll once more.)
    fn send_members(self: &Arc<Self>, room: String, here: bool) {
        match lock(&self.changed).entry(room.clone()) {
            Entry::Occupied(mut waiting) => {
                *waiting.get_mut() |= here;
                return;
            }
            Entry::Vacant(free) => _ = free.insert(here),
        }
        let chat = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(GATHER).await;
            let here = lock(&chat.changed).remove(&room).unwrap_or(true);
            let own = lock(&chat.rooms).members(&room);
            if here {
                chat.elsewhere.send_members(HashMap::from([(room.clone(), own)]), false).await;
            }
            if own > 0 && !chat.registry.draining() {
                let (members, at) = (own + chat.elsewhere.members(&room), chat.elsewhere.members_at(&room, own));
                let news = RoomMembers { ok: None, room: room.clone(), members, at };
                chat.pollers.sent(&room, None, &news);
                let missed = missed(chat.io.to(room).emit("members", &news).await);
                chat.scoreboard.add(Field::LostQueue, missed as u64);
            }
        });
    }

    /// Delivers a message from another worker to the members on this one.
    async fn pass_on(&self, message: &ChatMessage) {
        let members = lock(&self.rooms).members(&message.room);
        if members > 0 {
            self.pollers.sent(&message.room, None, message);
            let missed = missed(self.io.to(message.room.clone()).emit("message", message).await);
            self.scoreboard.add(Field::MessagesOut, members.saturating_sub(missed) as u64);
            self.scoreboard.add(Field::LostQueue, missed as u64);
        }
    }
}

/// Takes in what happens on the other workers.
async fn attend(chat: Arc<Chat>, mut arrivals: Arrivals) {
    while let Some(news) = chat.elsewhere.next(&mut arrivals).await {
        match news {
            News::ChatMessage(message) => chat.pass_on(&message).await,
            News::Changed(rooms) => rooms.into_iter().for_each(|room| chat.send_members(room, false)),
            News::TellAll => {
                let all = lock(&chat.rooms).all();
                chat.elsewhere.send_members(all, true).await;
            }
        }
    }
}

/// How many did not get the message.
fn missed(result: Result<(), BroadcastError>) -> usize {
    match result {
        Ok(()) => 0,
        Err(BroadcastError::Socket(errors)) => errors.len(),
        Err(error) => {
            tracing::debug!(%error, "a broadcast");
            0
        }
    }
}

/// Logs a failed emit: the client has left, or is too far behind. It learns of that from the end of its session.
fn log_failure<E: std::fmt::Display>(result: Result<(), E>) {
    if let Err(error) = result {
        tracing::debug!(%error, "a message could not be sent to a client");
    }
}

#[derive(Serialize)]
struct No {
    ok: bool,
    error: String,
}

fn answer<T: Serialize>(ack: AckSender, result: Result<T, ChatError>) {
    log_failure(match result {
        Ok(answer) => ack.send(&answer),
        Err(refused) => ack.send(&No { ok: false, error: refused.to_string() }),
    });
}

fn misread(ack: AckSender, expected: &str) {
    log_failure(ack.send(&No { ok: false, error: expected.to_owned() }));
}

/// All arguments of an event, whatever they are. (A tuple for serde: that is how socketioxide distinguishes several
/// arguments from one that is a list.)
struct Args(Vec<Value>);

impl Serialize for Args {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut args = serializer.serialize_tuple(self.0.len())?;
        self.0.iter().try_for_each(|arg| args.serialize_element(arg))?;
        args.end()
    }
}

impl<'de> Deserialize<'de> for Args {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Args;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("arguments")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Args, A::Error> {
                let mut args = Vec::new();
                while let Some(arg) = seq.next_element()? {
                    args.push(arg);
                }
                Ok(Args(args))
            }
        }
        // The number is not known before; JSON does not ask for it.
        deserializer.deserialize_tuple(0, All)
    }
}
