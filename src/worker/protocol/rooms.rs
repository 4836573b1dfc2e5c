//! What goes over a worker's link to the rooms that all workers share (`HAFT_ROOMS_FD`), in either direction. Pure.
//!
//! The link is a stream socket to a relay in haft. A worker that sends READY is a member.
//!
//! ```text
//! | length: 4 | kind: 1 | member: 8 | body: length - 9 |
//! ```
//!
//! Numbers are big-endian. `length` counts what follows it. To the relay, `member` names the receiver of a message: 0
//! is all others. From the relay it names the sender, or the member that has come or gone. The body is opaque.
//!
//! | kind | to the relay | from the relay |
//! |---|---|---|
//! | 0 | | WELCOME: `member` is the reader's own number; the body is one byte, the version (1) |
//! | 1 | READY: the member reads; the body is passed to the others | JOINED: a member has come, with its body of READY |
//! | 2 | MESSAGE | MESSAGE |
//! | 3 | LOST: `member` is how many messages could not be sent | LEFT: a member has gone |
//!
//! A member that sends READY is informed of all that are there, and they of it.

use bytes::{Bytes, BytesMut};

/// The version in WELCOME.
pub const VERSION: u8 = 1;
/// Length of what stands before a body.
pub const HEADER: usize = 13;
/// Longest frame, in bytes: 64 MiB.
pub const MAX_FRAME: usize = 64 << 20;
/// Stands for all others. From the relay, a message that names it as its sender is of a program outside haft.
pub const ALL: u64 = 0;
/// What the body of such a message begins with.
pub const EMITTED: u8 = b'E';

/// How much room there is for what comes next.
const ROOM: usize = 64 << 10;

/// What a frame is; the names are those of the table above, of the direction in which it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// To a member alone.
    Welcome,
    /// READY, or JOINED.
    Ready,
    /// A message.
    Message,
    /// LOST, or LEFT.
    Lost,
}

impl Kind {
    fn read(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Welcome,
            1 => Self::Ready,
            2 => Self::Message,
            3 => Self::Lost,
            _ => return None,
        })
    }
}

/// What cannot be a frame: nothing behind it can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No frame is so short, or so long.
    #[error("a frame of {0} bytes")]
    Length(u32),
    /// There is no such kind.
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
}

/// One frame, with its header.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// The member that it names.
    pub member: u64,
    whole: BytesMut,
}

impl Frame {
    /// What stands behind the header.
    pub fn body(&self) -> &[u8] {
        &self.whole[HEADER..]
    }

    /// The same frame, naming another member.
    pub fn naming(mut self, member: u64) -> Bytes {
        self.whole[5..HEADER].copy_from_slice(&member.to_be_bytes());
        self.whole.freeze()
    }
}

/// A frame as it is sent. The body must be shorter than [`MAX_FRAME`] by a header.
pub fn write(kind: Kind, member: u64, body: &[u8]) -> Bytes {
    let mut whole = BytesMut::with_capacity(HEADER + body.len());
    whole.extend_from_slice(&((HEADER - 4 + body.len()) as u32).to_be_bytes());
    whole.extend_from_slice(&[kind as u8]);
    whole.extend_from_slice(&member.to_be_bytes());
    whole.extend_from_slice(body);
    whole.freeze()
}

/// From bytes to frames.
#[derive(Debug, Default)]
pub struct Reader {
    bytes: BytesMut,
}

impl Reader {
    /// Where to put what is read next; there is room.
    pub fn room(&mut self) -> &mut BytesMut {
        // A length that is only claimed takes none.
        self.bytes.reserve(ROOM);
        &mut self.bytes
    }

    /// Takes over what was read elsewhere.
    pub fn push(&mut self, bytes: BytesMut) {
        match self.bytes.is_empty() {
            true => self.bytes = bytes,
            false => self.bytes.extend_from_slice(&bytes),
        }
    }

    /// The next frame, if it is whole.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn take(&mut self) -> Result<Option<Frame>, Malformed> {
        let Some((length, rest)) = self.bytes.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length);
        let whole = length as usize + 4;
        if !(HEADER..=MAX_FRAME).contains(&whole) {
            return Err(Malformed::Length(length));
        }
        let Some((kind, rest)) = rest.split_first() else { return Ok(None) };
        let kind = Kind::read(*kind).ok_or(Malformed::Kind(*kind))?;
        let Some((member, _)) = rest.split_first_chunk::<8>() else { return Ok(None) };
        let member = u64::from_be_bytes(*member);
        if self.bytes.len() < whole {
            return Ok(None);
        }
        let whole = self.bytes.split_to(whole);
        if self.bytes.capacity() == 0 {
            // Even the empty rest would hold on to what was read elsewhere.
            self.bytes = BytesMut::new();
        }
        Ok(Some(Frame { kind, member, whole }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames(bytes: &[u8], piece: usize) -> Result<Vec<(Kind, u64, Vec<u8>)>, Malformed> {
        let (mut reader, mut frames) = (Reader::default(), Vec::new());
        for (number, piece) in bytes.chunks(piece).enumerate() {
            match number % 2 {
                0 => reader.room().extend_from_slice(piece),
                _ => reader.push(piece.into()),
            }
            while let Some(frame) = reader.take()? {
                frames.push((frame.kind, frame.member, frame.body().to_vec()));
            }
        }
        Ok(frames)
    }

    proptest! {
        #[test]
        fn frames_do_not_depend_on_the_pieces(
            sent in prop::collection::vec((0..4u8, any::<u64>(), prop::collection::vec(any::<u8>(), 0..50)), 0..20),
            piece in 1..80usize,
        ) {
            let sent: Vec<_> =
                sent.into_iter().map(|(kind, member, body)| (Kind::read(kind).expect("a kind"), member, body)).collect();
            let bytes: Vec<u8> =
                sent.iter().flat_map(|(kind, member, body)| write(*kind, *member, body).to_vec()).collect();
            prop_assert_eq!(frames(&bytes, piece), Ok(sent));
        }

        #[test]
        fn any_bytes_give_frames_or_an_error(bytes in prop::collection::vec(0..5u8, 0..300), piece in 1..70usize) {
            let _ = frames(&bytes, piece);
        }
    }

    #[test]
    fn what_is_no_frame_is_an_error_at_once() {
        assert_eq!(frames(&[0, 0, 0, 8], 1), Err(Malformed::Length(8)));
        assert_eq!(frames(&[0xff; 4], 1), Err(Malformed::Length(u32::MAX)));
        assert_eq!(frames(&[0, 0, 0, 9, 4], 1), Err(Malformed::Kind(4)));
    }

    #[test]
    fn a_frame_can_name_another_member() {
        let mut reader = Reader::default();
        reader.room().extend_from_slice(&write(Kind::Message, ALL, b"hello"));
        let frame = reader.take().expect("a frame").expect("whole");
        assert_eq!(frame.naming(7), write(Kind::Message, 7, b"hello"));
    }

    #[test]
    fn what_was_read_elsewhere_is_let_go_of_with_its_last_frame() {
        let (mut reader, mut room) = (Reader::default(), BytesMut::with_capacity(100));
        for kind in [Kind::Ready, Kind::Message] {
            room.extend_from_slice(&write(kind, 1, b"hello"));
        }
        let place = room.as_ptr();
        reader.push(room.split());
        assert!(matches!(reader.take(), Ok(Some(Frame { kind: Kind::Ready, .. }))));
        assert!(!room.try_reclaim(100), "the second frame is in it");
        assert!(matches!(reader.take(), Ok(Some(Frame { kind: Kind::Message, .. }))));
        assert!(room.try_reclaim(100));
        assert_eq!(room.as_ptr(), place);
    }

    /// However long a frame claims to be, only what has come takes room.
    #[test]
    fn a_claimed_length_takes_no_memory() {
        let mut reader = Reader::default();
        reader.room().extend_from_slice(&((MAX_FRAME - 4) as u32).to_be_bytes());
        assert_eq!(reader.take(), Ok(None));
        assert!(reader.room().capacity() < 4 * ROOM);
    }
}
