//! The chat on the other workers, of this host and of those that share its Redis: its messages, and how many members
//! each room has.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::Duration;

use haft_worker::{Emitted, Rooms, RoomsMessage};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::rooms::LIMITS;
use super::wire::lock;

/// The topic of the messages between workers; the number is its version.
const TOPIC: &str = "haft chat 1";
/// Messages that wait here; more wait in haft.
const BUFFER: usize = 1024;
/// How often the whole state is sent again: a host that was unreachable for a while may have been dropped without
/// knowing it.
const ANEW: Duration = Duration::from_secs(20);

/// A message in a room, as its members get it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ChatMessage {
    pub(super) room: String,
    pub(super) id: u64,
    pub(super) from: String,
    pub(super) text: String,
    /// The host of its sender.
    pub(super) host: String,
    /// The slot of its sender; none if that is a program outside haft.
    pub(super) slot: Option<u32>,
}

/// Members of a room at one worker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct MembersAt {
    pub(super) host: String,
    pub(super) slot: u32,
    pub(super) members: usize,
}

/// What one worker sends to all others.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PeerMessage {
    ChatMessage(ChatMessage),
    /// How many members rooms have there.
    Members {
        host: String,
        slot: u32,
        /// These are all rooms that have any; otherwise, those whose members have changed.
        all: bool,
        rooms: HashMap<String, usize>,
    },
}

/// What happened elsewhere.
#[derive(Debug)]
pub(super) enum News {
    /// A message in a room.
    ChatMessage(ChatMessage),
    /// These rooms have more or fewer members.
    Changed(Vec<String>),
    /// All rooms here are to be sent to the other workers: one has joined, or it is time.
    TellAll,
}

/// The other workers.
#[derive(Debug)]
pub(super) struct OtherWorkers {
    link: Rooms,
    host: String,
    slot: u32,
    known: Mutex<HashMap<u64, OtherWorker>>,
}

/// What is known of one of them.
#[derive(Debug, Default)]
struct OtherWorker {
    host: String,
    slot: u32,
    rooms: HashMap<String, usize>,
}

/// What comes from them.
#[derive(Debug)]
pub(super) struct Arrivals {
    messages: mpsc::Receiver<RoomsMessage>,
    /// From programs outside haft.
    emitted: mpsc::Receiver<RoomsMessage>,
    changes: watch::Receiver<u64>,
    /// Those that there were.
    others: BTreeSet<u64>,
    anew: Interval,
}

impl OtherWorkers {
    /// `slot`: this worker's.
    pub(super) fn new(link: Rooms, slot: u32) -> (Self, Arrivals) {
        let mut anew = interval(ANEW);
        anew.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (messages, changes) = (link.listen(TOPIC, BUFFER), link.changes());
        let emitted = link.listen(Rooms::EMITTED, BUFFER);
        let arrivals = Arrivals { messages, emitted, changes, others: BTreeSet::new(), anew };
        (Self { link, host: own_host(), slot, known: Mutex::default() }, arrivals)
    }

    /// This host's name.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Members of a room on all other workers.
    pub(super) fn members(&self, room: &str) -> usize {
        lock(&self.known).values().filter_map(|known| known.rooms.get(room)).sum()
    }

    /// Where a room has members, `here` of them on this worker. Nothing if there is no other worker.
    pub(super) fn members_at(&self, room: &str, here: usize) -> Vec<MembersAt> {
        let known = lock(&self.known);
        if known.is_empty() {
            return Vec::new();
        }
        let there = known.values().map(|known| MembersAt {
            host: known.host.clone(),
            slot: known.slot,
            members: known.rooms.get(room).copied().unwrap_or(0),
        });
        let own = MembersAt { host: self.host.clone(), slot: self.slot, members: here };
        let mut all: Vec<_> = there.chain([own]).filter(|at| at.members > 0).collect();
        all.sort();
        all
    }

    /// Sends a message from here to the other workers.
    pub(super) async fn say(&self, message: &ChatMessage) {
        if !self.link.others(TOPIC).is_empty() {
            self.send(&PeerMessage::ChatMessage(message.clone())).await;
        }
    }

    /// Sends the other workers how many members rooms have here. `all`: no other room has any.
    pub(super) async fn send_members(&self, rooms: HashMap<String, usize>, all: bool) {
        self.send(&PeerMessage::Members { host: self.host.clone(), slot: self.slot, all, rooms }).await;
    }

    async fn send(&self, message: &PeerMessage) {
        let payload = serde_json::to_vec(message).unwrap_or_default();
        if let Err(error) = self.link.publish(TOPIC, &payload).await {
            tracing::warn!(%error, "a chat message could not be sent to the other workers");
        }
    }

    /// The next that happens elsewhere; nothing once there is nothing to come.
    pub(super) async fn next(&self, arrivals: &mut Arrivals) -> Option<News> {
        loop {
            tokio::select! {
                message = arrivals.messages.recv() => {
                    let RoomsMessage { from, payload } = message?;
                    match serde_json::from_slice(&payload) {
                        Ok(message) => return Some(self.take(from, message)),
                        Err(error) => tracing::debug!(%error, "another worker's words"),
                    }
                }
                message = arrivals.emitted.recv() => match said_outside(&message?.payload) {
                    Some(said) => return Some(News::ChatMessage(said)),
                    None => tracing::debug!("a program outside haft has sent what is no message to one room of the chat"),
                },
                _ = arrivals.anew.tick() => {
                    if !arrivals.others.is_empty() {
                        return Some(News::TellAll);
                    }
                }
                changed = arrivals.changes.changed() => {
                    changed.ok()?;
                    let others = self.link.others(TOPIC);
                    let before = std::mem::replace(&mut arrivals.others, others);
                    let gone: Vec<_> = before.difference(&arrivals.others).copied().collect();
                    if !gone.is_empty() {
                        // Workers that joined meanwhile get it at the next turn.
                        arrivals.others.retain(|number| before.contains(number));
                        arrivals.changes.mark_changed();
                        return Some(News::Changed(self.forget(&gone)));
                    }
                    if arrivals.others.difference(&before).next().is_some() {
                        return Some(News::TellAll);
                    }
                }
            }
        }
    }

    fn take(&self, from: u64, message: PeerMessage) -> News {
        match message {
            PeerMessage::ChatMessage(message) => News::ChatMessage(message),
            PeerMessage::Members { host, slot, all, rooms } => {
                let mut known = lock(&self.known);
                let known = known.entry(from).or_default();
                (known.host, known.slot) = (host, slot);
                let mut changed = Vec::new();
                if all {
                    changed.extend(known.rooms.drain().map(|(room, _)| room));
                }
                for (room, members) in rooms {
                    changed.push(room.clone());
                    match members {
                        0 => known.rooms.remove(&room),
                        _ => known.rooms.insert(room, members),
                    };
                }
                News::Changed(changed)
            }
        }
    }

    fn forget(&self, gone: &[u64]) -> Vec<String> {
        let mut known = lock(&self.known);
        gone.iter().filter_map(|number| known.remove(number)).flat_map(|known| known.rooms.into_keys()).collect()
    }
}

/// A message to one room, by `emitter.to(ROOM).emit("message", { text, from })`; nothing if it is another, or longer than a
/// client's may be.
fn said_outside(payload: &[u8]) -> Option<ChatMessage> {
    #[derive(Deserialize)]
    struct Message {
        text: String,
        from: Option<String>,
    }
    let Emitted { order, data, .. } = Emitted::read(payload)?;
    let (event, Message { text, from }) = serde_json::from_slice::<(String, Message)>(data).ok()?;
    let rooms = Emitted::rooms(&order["options"]["rooms"]);
    let ([room], "emit", "/", "message") = (&rooms[..], order["act"].as_str()?, order["nsp"].as_str()?, &event[..])
    else {
        return None;
    };
    let from = from.unwrap_or_else(|| "outside".to_owned());
    let is_short = text.chars().count() <= LIMITS.text && from.chars().count() <= LIMITS.name;
    is_short.then(|| ChatMessage { room: room.clone(), id: 0, from, text, host: String::new(), slot: None })
}

/// The name that haft was given for session ids, or the machine's.
fn own_host() -> String {
    let named = std::env::var("HAFT_HOST_ID").ok().map(|id| id.trim_start_matches('0').to_owned());
    named
        .filter(|name| !name.is_empty())
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok())
        .map_or_else(|| "?".to_owned(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elsewhere() -> OtherWorkers {
        OtherWorkers::new(Rooms::default(), 0).0
    }

    fn members(slot: u32, all: bool, rooms: &[(&str, usize)]) -> PeerMessage {
        let rooms = rooms.iter().map(|(room, members)| ((*room).to_owned(), *members)).collect();
        PeerMessage::Members { host: "b".to_owned(), slot, all, rooms }
    }

    fn changed(news: News) -> BTreeSet<String> {
        match news {
            News::Changed(rooms) => rooms.into_iter().collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_said_outside_is_a_message_to_one_room() {
        let said = |rooms: &str, act: &str, data: &str| {
            let order = format!(r#"{{"act":"{act}","nsp":"/","options":{{"rooms":{rooms}}}}}"#);
            let piece = |text: &str| [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat();
            said_outside(&[piece(&order), piece(data)].concat())
                .map(|said| (said.room, said.from, said.text, said.slot))
        };
        let expected = |from: &str| Some(("a".to_owned(), from.to_owned(), "hi".to_owned(), None));
        assert_eq!(said(r#"["a"]"#, "emit", r#"["message",{"text":"hi"}]"#), expected("outside"));
        assert_eq!(said(r#"["a"]"#, "emit", r#"["message",{"text":"hi","from":"x"}]"#), expected("x"));
        let long = format!(r#"["message",{{"text":"{}"}}]"#, "y".repeat(LIMITS.text + 1));
        for (rooms, act, data) in [
            (r#"["a","b"]"#, "emit", r#"["message",{"text":"hi"}]"#),
            ("[]", "emit", r#"["message",{"text":"hi"}]"#),
            (r#"["a"]"#, "join", r#"["message",{"text":"hi"}]"#),
            (r#"["a"]"#, "emit", r#"["news",{"text":"hi"}]"#),
            (r#"["a"]"#, "emit", r#"["message","hi"]"#),
            (r#"["a"]"#, "emit", &long),
        ] {
            assert_eq!(said(rooms, act, data), None, "{rooms} {act} {data}");
        }
    }

    fn names(of: &[&str]) -> BTreeSet<String> {
        of.iter().map(|name| (*name).to_owned()).collect()
    }

    #[tokio::test]
    async fn members_are_those_of_the_workers_that_are_there() {
        let elsewhere = elsewhere();
        assert_eq!((elsewhere.members("a"), elsewhere.members_at("a", 3)), (0, vec![]));
        assert_eq!(changed(elsewhere.take(7, members(1, true, &[("a", 2), ("b", 1)]))), names(&["a", "b"]));
        assert_eq!(changed(elsewhere.take(8, members(2, true, &[("a", 5)]))), names(&["a"]));
        assert_eq!((elsewhere.members("a"), elsewhere.members("b")), (7, 1));
        let at = elsewhere.members_at("a", 3);
        assert_eq!(at.iter().map(|at| at.members).sum::<usize>(), 10);
        // Only what has changed, and all anew.
        assert_eq!(changed(elsewhere.take(7, members(1, false, &[("b", 0)]))), names(&["b"]));
        assert_eq!((elsewhere.members("a"), elsewhere.members("b")), (7, 0));
        assert_eq!(changed(elsewhere.take(7, members(1, true, &[("c", 1)]))), names(&["a", "c"]));
        assert_eq!(elsewhere.members("a"), 5);
        assert_eq!(elsewhere.forget(&[8, 9]), ["a"]);
        assert_eq!((elsewhere.members("a"), elsewhere.members("c")), (0, 1));
    }
}
