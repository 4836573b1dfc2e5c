//! A Node worker's channel on its way to the process that serves.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::sys::descriptors::{inode, move_up};

/// libuv marks what a program of Node inherits as close-on-exec from 0 upwards, and past 15 ends at the first number that
/// is not open: a number far above passes through npm and the like.
const HIGH: i32 = 200;

/// The worker's end of its channel, until the worker has inherited it.
#[derive(Debug)]
pub struct NodeChannel {
    channel: OwnedFd,
    offer: Option<Offer>,
}

#[derive(Debug)]
struct Offer {
    inode: u64,
    /// Holds one byte and its end: of several processes that inherit the channel the one that reads the byte takes it.
    token: OwnedFd,
}

impl NodeChannel {
    /// For the process that is started itself: Node opens it before anything else.
    pub fn direct(channel: OwnedFd) -> Self {
        Self { channel, offer: None }
    }

    /// For whichever process serves, of those that are started one by the other: the preload opens it there.
    pub fn offered(channel: OwnedFd) -> io::Result<Self> {
        let (token, mut giver) = io::pipe()?;
        giver.write_all(b"1")?;
        let (channel, token) = (move_up(channel, HIGH)?, move_up(token.into(), HIGH)?);
        Ok(Self { offer: Some(Offer { inode: inode(channel.as_fd())?, token }), channel })
    }

    /// What the worker inherits, under the numbers that it has here.
    pub fn inherited(&self) -> Vec<BorrowedFd<'_>> {
        let token = self.offer.iter().map(|offer| offer.token.as_fd());
        std::iter::once(self.channel.as_fd()).chain(token).collect()
    }

    /// How the worker learns of it. `number`: its own; `at_start`: the program waits for messages from its beginning.
    pub fn environment(&self, number: u64, serialization: &str, at_start: bool) -> Vec<(&'static str, String)> {
        let channel = self.channel.as_raw_fd();
        let Some(Offer { inode, token }) = &self.offer else {
            return vec![
                ("NODE_CHANNEL_FD", channel.to_string()),
                ("NODE_UNIQUE_ID", number.to_string()),
                ("NODE_CHANNEL_SERIALIZATION_MODE", serialization.to_owned()),
            ];
        };
        let (token, when) = (token.as_raw_fd(), if at_start { "now" } else { "late" });
        vec![("HAFT_NODE_CHANNEL", format!("{channel}:{inode}:{token}:{serialization}:{when}"))]
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::*;
    use crate::sys::scm::stream_pair;

    #[test]
    fn one_process_alone_can_take_an_offered_channel() {
        let (_end, channel) = stream_pair().expect("pair");
        let known = inode(channel.as_fd()).expect("inode");
        let offered = NodeChannel::offered(channel).expect("offered");
        let inherited = offered.inherited();
        assert!(inherited.iter().all(|descriptor| descriptor.as_raw_fd() >= HIGH), "{inherited:?}");
        let [(name, text)] = &offered.environment(7, "json", false)[..] else { panic!("one variable") };
        let numbers = format!("{}:{known}:{}:json:late", inherited[0].as_raw_fd(), inherited[1].as_raw_fd());
        assert_eq!((*name, text), ("HAFT_NODE_CHANNEL", &numbers));
        let mut readers = [0; 2].map(|_| File::from(inherited[1].try_clone_to_owned().expect("copy")));
        let read = readers.each_mut().map(|reader| reader.read(&mut [0; 9]).expect("the byte, or the end"));
        assert_eq!(read, [1, 0]);
    }
}
