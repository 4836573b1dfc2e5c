//! The members of each room of this worker: the rules of the chat, without a socket.

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;

/// What the chat accepts from a client.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChatLimits {
    /// Characters of a room's name.
    pub(super) room: usize,
    /// Characters of a member's name.
    pub(super) name: usize,
    /// Characters of a message.
    pub(super) text: usize,
    /// Rooms that one client may be in.
    pub(super) rooms_per_client: usize,
}

/// The limits of this chat.
pub(super) const LIMITS: ChatLimits = ChatLimits { room: 64, name: 32, text: 2000, rooms_per_client: 32 };

/// Why the chat refuses something; the text goes to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ChatError {
    #[error("a room's name has 1 to 64 characters, none of them a control character")]
    Room,
    #[error("a name has 1 to 32 characters, none of them a control character")]
    Name,
    #[error("a message has 1 to 2000 characters")]
    Text,
    #[error("a client may be in 32 rooms at most")]
    TooManyRooms,
    #[error("you are not in this room")]
    NotThere,
    #[error("you have left")]
    Gone,
}

/// One client.
#[derive(Debug, Default)]
pub(super) struct ChatMember {
    /// What the others see.
    pub(super) name: String,
    rooms: BTreeSet<String>,
    gone: bool,
}

impl ChatMember {
    /// A client that is in no room yet.
    pub(super) fn named(name: String) -> Self {
        Self { name, ..Self::default() }
    }
}

/// How many members each room has. A room exists while it has one.
#[derive(Debug, Default)]
pub(super) struct ChatRooms(HashMap<String, usize>);

impl ChatRooms {
    /// Members of a room on this worker.
    pub(super) fn members(&self, room: &str) -> usize {
        self.0.get(room).copied().unwrap_or(0)
    }

    /// All rooms, each with its members on this worker.
    pub(super) fn all(&self) -> HashMap<String, usize> {
        self.0.clone()
    }

    /// Lets `member` in, under a new name if one is given. Returns the room's name as it is kept, and whether the
    /// member was not in it before.
    pub(super) fn join(
        &mut self,
        member: &mut ChatMember,
        room: &str,
        name: Option<&str>,
    ) -> Result<(String, bool), ChatError> {
        let room = line(room, LIMITS.room).ok_or(ChatError::Room)?;
        let name = name.map(|name| line(name, LIMITS.name).ok_or(ChatError::Name)).transpose()?;
        if member.gone {
            return Err(ChatError::Gone);
        }
        if member.rooms.len() >= LIMITS.rooms_per_client && !member.rooms.contains(room) {
            return Err(ChatError::TooManyRooms);
        }
        if let Some(name) = name {
            member.name = name.to_owned();
        }
        let new = member.rooms.insert(room.to_owned());
        if new {
            *self.0.entry(room.to_owned()).or_default() += 1;
        }
        Ok((room.to_owned(), new))
    }

    /// Lets `member` out. Returns the room's name as it is kept.
    pub(super) fn leave(&mut self, member: &mut ChatMember, room: &str) -> Result<String, ChatError> {
        let room = line(room, LIMITS.room).ok_or(ChatError::Room)?;
        if !member.rooms.remove(room) {
            return Err(ChatError::NotThere);
        }
        self.one_less(room);
        Ok(room.to_owned())
    }

    /// Whether `member` may say `text` in `room`. Returns the room's name as it is kept.
    pub(super) fn may_say(&self, member: &ChatMember, room: &str, text: &str) -> Result<String, ChatError> {
        let room = line(room, LIMITS.room).ok_or(ChatError::Room)?;
        if text.trim().is_empty() || text.chars().count() > LIMITS.text {
            return Err(ChatError::Text);
        }
        if !member.rooms.contains(room) {
            return Err(ChatError::NotThere);
        }
        Ok(room.to_owned())
    }

    /// Removes `member` from everything. Returns the rooms it was in.
    pub(super) fn gone(&mut self, member: &mut ChatMember) -> Vec<String> {
        member.gone = true;
        let rooms: Vec<String> = std::mem::take(&mut member.rooms).into_iter().collect();
        rooms.iter().for_each(|room| self.one_less(room));
        rooms
    }

    fn one_less(&mut self, room: &str) {
        if let Some(members) = self.0.get_mut(room) {
            *members -= 1;
            if *members == 0 {
                self.0.remove(room);
            }
        }
    }
}

/// `text` without the spaces around it, if what is left is one line of at most `max` characters.
fn line(text: &str, max: usize) -> Option<&str> {
    let text = text.trim();
    let good = !text.is_empty() && text.chars().count() <= max && !text.chars().any(char::is_control);
    good.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_exists_while_it_has_a_member() {
        let (mut rooms, mut ann, mut bob) = (ChatRooms::default(), ChatMember::default(), ChatMember::default());
        assert_eq!(rooms.join(&mut ann, " lobby ", Some("Ann")), Ok(("lobby".to_owned(), true)));
        assert_eq!(rooms.join(&mut ann, "lobby", None), Ok(("lobby".to_owned(), false)), "twice is once");
        rooms.join(&mut bob, "lobby", None).expect("bob joins");
        assert_eq!((rooms.members("lobby"), ann.name.as_str()), (2, "Ann"));
        rooms.leave(&mut bob, "lobby").expect("bob leaves");
        assert_eq!(rooms.leave(&mut bob, "lobby"), Err(ChatError::NotThere));
        assert_eq!(rooms.gone(&mut ann), ["lobby"]);
        assert_eq!(rooms.members("lobby"), 0);
        assert!(rooms.0.is_empty(), "nothing is kept of an empty room");
    }

    #[test]
    fn a_join_that_comes_after_the_end_leaves_nothing_behind() {
        let (mut rooms, mut ann) = (ChatRooms::default(), ChatMember::default());
        rooms.gone(&mut ann);
        assert_eq!(rooms.join(&mut ann, "lobby", None), Err(ChatError::Gone));
        assert!(rooms.0.is_empty());
    }

    #[test]
    fn limits_are_counted_in_characters() {
        let (mut rooms, mut ann) = (ChatRooms::default(), ChatMember::default());
        let name = |n: usize| "ä".repeat(n);
        assert!(rooms.join(&mut ann, &name(LIMITS.room), Some(&name(LIMITS.name))).is_ok());
        assert_eq!(rooms.join(&mut ann, &name(LIMITS.room + 1), None), Err(ChatError::Room));
        assert_eq!(rooms.join(&mut ann, "r", Some(&name(LIMITS.name + 1))), Err(ChatError::Name));
        assert_eq!(rooms.join(&mut ann, "two\nlines", None), Err(ChatError::Room));
        assert_eq!(rooms.join(&mut ann, "  ", None), Err(ChatError::Room));
        rooms.join(&mut ann, "r", None).expect("join");
        assert!(rooms.may_say(&ann, "r", &name(LIMITS.text)).is_ok());
        assert_eq!(rooms.may_say(&ann, "r", &name(LIMITS.text + 1)), Err(ChatError::Text));
        assert_eq!(rooms.may_say(&ann, "r", " \n"), Err(ChatError::Text));
        assert_eq!(rooms.may_say(&ann, "elsewhere", "hello"), Err(ChatError::NotThere));
    }

    #[test]
    fn a_client_cannot_fill_the_memory_with_rooms() {
        let (mut rooms, mut ann) = (ChatRooms::default(), ChatMember::default());
        for n in 0..LIMITS.rooms_per_client {
            rooms.join(&mut ann, &n.to_string(), None).expect("join");
        }
        assert_eq!(rooms.join(&mut ann, "one more", None), Err(ChatError::TooManyRooms));
        assert!(rooms.join(&mut ann, "0", None).is_ok(), "a room it is in is not one more");
    }

    #[test]
    fn what_the_client_is_told_names_the_limits_that_hold() {
        for (refused, limit) in [
            (ChatError::Room, LIMITS.room),
            (ChatError::Name, LIMITS.name),
            (ChatError::Text, LIMITS.text),
            (ChatError::TooManyRooms, LIMITS.rooms_per_client),
        ] {
            assert!(refused.to_string().contains(&limit.to_string()), "{refused}");
        }
    }
}
