//! Looking at what a client has sent without taking it, and taking exactly so much of it.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::closing::SharedFds;
use super::scm::{self, Received};

/// What a connection has to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peeked {
    /// So many bytes, from the front; there may be more than there was room for.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// Nothing, and nothing will come: the client has closed its side, or the connection has failed.
    Over,
}

/// Copies what a connection has to read into `room`, and leaves it there (MSG_PEEK). Never waits.
pub fn peek(connection: BorrowedFd<'_>, room: &mut [u8]) -> Peeked {
    loop {
        return match recv(connection.as_raw_fd(), room, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
            Ok(0) => Peeked::Over,
            Ok(count) => Peeked::Bytes(count),
            Err(Errno::EAGAIN) => Peeked::Nothing,
            Err(Errno::EINTR) => continue,
            Err(_) => Peeked::Over,
        };
    }
}

/// Takes as much as `room` holds from the front of what a connection has to read. Never waits.
pub fn consume(connection: BorrowedFd<'_>, room: &mut [u8]) -> Peeked {
    // A client of a Unix socket may have sent descriptors with it. Without room for them the kernel closes them at once,
    // which may sleep.
    let mut descriptors = SharedFds::default();
    match scm::receive(connection, room, &mut descriptors.0) {
        Ok(Received::Message { len: 0, .. }) | Err(_) => Peeked::Over,
        Ok(Received::Message { len, .. }) => Peeked::Bytes(len),
        Ok(Received::Empty) => Peeked::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_is_seen_stays_and_what_is_taken_is_taken_to_the_byte() {
        let (mut client, mut server) = UnixStream::pair().expect("pair");
        let mut room = [0; 8];
        assert_eq!(peek(server.as_fd(), &mut room), Peeked::Nothing);
        client.write_all(b"0123456789").expect("write");
        for _ in 0..2 {
            assert_eq!(peek(server.as_fd(), &mut room), Peeked::Bytes(8));
            assert_eq!(&room, b"01234567");
        }
        assert_eq!(consume(server.as_fd(), &mut room[..4]), Peeked::Bytes(4));
        assert_eq!(peek(server.as_fd(), &mut room), Peeked::Bytes(6));
        assert_eq!(&room[..6], b"456789");
        client.write_all(b"ab").expect("write");
        client.shutdown(std::net::Shutdown::Write).expect("shutdown");
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).expect("read");
        assert_eq!(rest, b"456789ab");
        assert_eq!(peek(server.as_fd(), &mut room), Peeked::Over);
    }
}
