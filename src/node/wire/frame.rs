//! Cutting what a worker wrote into frames: lines of JSON, or lengths with V8 values.
//!
//! Bytes come in pieces of any size. A frame that lies whole in one piece is lent from there; only a frame that is cut
//! by the end of a piece is copied. No byte is looked at twice, however long the frame.

use super::Serialization;

/// Length of the longest frame that is kept, in bytes: 64 MiB.
///
/// Socket.IO's own limit on a message (`maxHttpBufferSize`) is 1 MB by default. As JSON a broadcast Buffer takes about
/// four bytes for one, so this leaves room for sixteen times the default, and for sixty times with `advanced`. On the
/// other side it bounds what one worker can make the master hold.
pub const MAX_FRAME: usize = 64 << 20;

/// Room for a cut frame that is kept for the next one; more is given back once the long frame is done.
const KEPT_ROOM: usize = 64 << 10;

/// Length of what an `advanced` frame starts with.
const LENGTH_LEN: usize = 4;

/// Why what a worker wrote cannot be cut into frames: nothing after this can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IpcFrameError {
    /// An `advanced` frame of a length that Node reads as a negative number.
    #[error("a message of {0} bytes")]
    Length(u32),
}

/// One frame as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpcFrame<'a> {
    serialization: Serialization,
    whole: &'a [u8],
}

impl<'a> IpcFrame<'a> {
    /// The frame with what marks its length (the newline, or the four bytes in front): what is forwarded as it is.
    pub fn whole(&self) -> &'a [u8] {
        self.whole
    }

    /// The message alone.
    pub fn body(&self) -> &'a [u8] {
        match self.serialization {
            Serialization::Json => {
                let line = self.whole.strip_suffix(b"\n").unwrap_or(self.whole);
                // Bun marks its internal messages with this byte, which no JSON begins with.
                line.strip_prefix(b"\x02").unwrap_or(line)
            }
            Serialization::Advanced => self.whole.get(LENGTH_LEN..).unwrap_or_default(),
        }
    }

    /// How the message is written.
    pub fn serialization(&self) -> Serialization {
        self.serialization
    }
}

/// What came out of the pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A frame.
    Frame(IpcFrame<'a>),
    /// A frame longer than the limit: it was thrown away, the next one is read as usual.
    TooLong {
        /// Its length in bytes.
        len: u64,
    },
}

/// The reading end of a worker's channel, from bytes to frames.
#[derive(Debug)]
pub struct IpcReader {
    serialization: Serialization,
    most: usize,
    /// The beginning of a frame whose end has not come yet.
    cut: Vec<u8>,
    /// A frame that is being thrown away.
    thrown: Option<Thrown>,
}

#[derive(Debug, Clone, Copy)]
struct Thrown {
    seen: u64,
    /// How much of it is still to come, where that is known.
    left: u64,
}

impl IpcReader {
    /// A reader at the start of a channel. Frames longer than `most` bytes ([`MAX_FRAME`]) are thrown away.
    pub fn new(serialization: Serialization, most: usize) -> Self {
        Self { serialization, most, cut: Vec::new(), thrown: None }
    }

    /// Takes in what was read, and yields the frames that it completes.
    ///
    /// They must be taken until there is none left, or the worker given up: what is not taken is lost.
    #[must_use]
    pub fn take_in<'a>(&'a mut self, piece: &'a [u8]) -> IpcFrames<'a> {
        IpcFrames { reader: self, rest: piece, lent: false }
    }

    /// Whether a frame has begun and not ended.
    pub fn is_within_frame(&self) -> bool {
        !self.cut.is_empty() || self.thrown.is_some()
    }

    /// Bytes of memory held.
    pub fn held(&self) -> usize {
        self.cut.capacity()
    }
}

/// The frames that one piece completes.
#[derive(Debug)]
pub struct IpcFrames<'a> {
    reader: &'a mut IpcReader,
    rest: &'a [u8],
    /// The last frame was lent from `reader.cut`.
    lent: bool,
}

impl IpcFrames<'_> {
    /// The next frame; `None` when the piece is used up.
    #[expect(clippy::should_implement_trait, reason = "a frame is lent: it must be let go before the next one")]
    pub fn next(&mut self) -> Result<Option<Piece<'_>>, IpcFrameError> {
        if std::mem::take(&mut self.lent) {
            self.reader.cut.clear();
            self.reader.cut.shrink_to(KEPT_ROOM);
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        match self.reader.serialization {
            Serialization::Json => Ok(self.next_line()),
            Serialization::Advanced => self.next_value(),
        }
    }

    fn next_line(&mut self) -> Option<Piece<'_>> {
        let end = memchr::memchr(b'\n', self.rest).map(|at| at + 1);
        let (line, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        let reader = &mut *self.reader;
        let before = reader.thrown.map_or(reader.cut.len() as u64, |thrown| thrown.seen);
        let seen = before + line.len() as u64;
        if seen > reader.most as u64 {
            reader.cut = Vec::new();
            reader.thrown = end.is_none().then_some(Thrown { seen, left: 0 });
            return end.map(|_| Piece::TooLong { len: seen });
        }
        if end.is_none() || !reader.cut.is_empty() {
            reader.cut.extend_from_slice(line);
            self.lent = end.is_some();
            return self
                .lent
                .then_some(Piece::Frame(IpcFrame { serialization: Serialization::Json, whole: &reader.cut }));
        }
        Some(Piece::Frame(IpcFrame { serialization: Serialization::Json, whole: line }))
    }

    fn next_value(&mut self) -> Result<Option<Piece<'_>>, IpcFrameError> {
        if let Some(thrown) = self.reader.thrown {
            return Ok(self.throw(thrown));
        }
        // The length first, from what was kept or from here.
        let missing = LENGTH_LEN.saturating_sub(self.reader.cut.len());
        if missing < LENGTH_LEN || self.rest.len() < LENGTH_LEN {
            self.keep(missing);
        }
        let start = if self.reader.cut.is_empty() { self.rest } else { &self.reader.cut };
        let Some((length, _)) = start.split_first_chunk::<LENGTH_LEN>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length);
        // Node shifts the four bytes together as a signed number.
        let whole = i32::try_from(length).map_err(|_| IpcFrameError::Length(length))? as usize + LENGTH_LEN;
        if whole > self.reader.most {
            let seen = self.reader.cut.len() as u64;
            self.reader.cut = Vec::new();
            return Ok(self.throw(Thrown { seen, left: whole as u64 - seen }));
        }
        if self.reader.cut.is_empty() && self.rest.len() >= whole {
            let (frame, rest) = self.rest.split_at(whole);
            self.rest = rest;
            return Ok(Some(Piece::Frame(IpcFrame { serialization: Serialization::Advanced, whole: frame })));
        }
        self.keep(whole - self.reader.cut.len());
        self.lent = self.reader.cut.len() == whole;
        let frame = IpcFrame { serialization: Serialization::Advanced, whole: &self.reader.cut };
        Ok(self.lent.then_some(Piece::Frame(frame)))
    }

    /// Moves up to `most` bytes to what is kept.
    fn keep(&mut self, most: usize) {
        let (kept, rest) = self.rest.split_at(most.min(self.rest.len()));
        self.reader.cut.extend_from_slice(kept);
        self.rest = rest;
    }

    fn throw(&mut self, thrown: Thrown) -> Option<Piece<'_>> {
        let here = thrown.left.min(self.rest.len() as u64);
        // It fits: it is at most the length of a slice.
        self.rest = &self.rest[here as usize..];
        let (seen, left) = (thrown.seen + here, thrown.left - here);
        self.reader.thrown = (left > 0).then_some(Thrown { seen, left });
        (left == 0).then_some(Piece::TooLong { len: seen })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What comes out when the bytes come in pieces of the given sizes, again and again.
    fn cut(
        serialization: Serialization,
        most: usize,
        bytes: &[u8],
        sizes: &[usize],
    ) -> Result<Vec<Result<Vec<u8>, u64>>, IpcFrameError> {
        let mut reader = IpcReader::new(serialization, most);
        let (mut out, mut rest) = (Vec::new(), bytes);
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, later) = rest.split_at((*size).clamp(1, rest.len()));
            rest = later;
            let mut frames = reader.take_in(piece);
            while let Some(piece) = frames.next()? {
                out.push(match piece {
                    Piece::Frame(frame) => Ok(frame.body().to_vec()),
                    Piece::TooLong { len } => Err(len),
                });
            }
            assert!(reader.held() <= (2 * most).max(KEPT_ROOM));
        }
        Ok(out)
    }

    fn frames(serialization: Serialization, bodies: &[Vec<u8>]) -> Vec<u8> {
        let frame = |body: &Vec<u8>| match serialization {
            Serialization::Json => [body.as_slice(), b"\n"].concat(),
            Serialization::Advanced => [&(body.len() as u32).to_be_bytes(), body.as_slice()].concat(),
        };
        bodies.iter().flat_map(frame).collect()
    }

    proptest! {
        /// Whatever the pieces, the frames are those that were written, and only those over the limit are missing.
        #[test]
        fn frames_do_not_depend_on_the_pieces(
            advanced: bool,
            bodies in prop::collection::vec(prop::collection::vec(b' '..b'~', 0..80), 0..30),
            sizes in prop::collection::vec(1..100usize, 1..8),
            most in 5..90usize,
        ) {
            let serialization = if advanced { Serialization::Advanced } else { Serialization::Json };
            let extra = if advanced { LENGTH_LEN } else { 1 };
            let expected: Vec<_> = bodies.iter().map(|body| {
                let len = body.len() + extra;
                if len > most { Err(len as u64) } else { Ok(body.clone()) }
            }).collect();
            let bytes = frames(serialization, &bodies);
            prop_assert_eq!(cut(serialization, most, &bytes, &sizes), Ok(expected));
        }

        /// Any bytes give frames or an error.
        #[test]
        fn any_bytes_are_cut(
            advanced: bool, bytes in prop::collection::vec(0..6u8, 0..300), size in 1..70usize, most in 0..40usize,
        ) {
            let serialization = if advanced { Serialization::Advanced } else { Serialization::Json };
            cut(serialization, most, &bytes, &[size]).expect("short lengths");
        }
    }

    /// As Bun 1.4 writes it.
    #[test]
    fn a_mark_before_a_line_is_no_part_of_the_message() {
        let bytes = b"\x02{\"cmd\":\"NODE_CLUSTER\",\"act\":\"online\",\"seq\":0}\n{\"a\":\"\x02\"}\n\x02\n";
        let expected: Vec<Result<Vec<u8>, u64>> =
            [&b"{\"cmd\":\"NODE_CLUSTER\",\"act\":\"online\",\"seq\":0}"[..], b"{\"a\":\"\x02\"}", b""]
                .map(|body| Ok(body.to_vec()))
                .to_vec();
        for size in [1, 5, 1000] {
            assert_eq!(cut(Serialization::Json, 100, bytes, &[size]), Ok(expected.clone()));
        }
    }

    #[test]
    fn a_length_that_node_reads_as_negative_is_an_error() {
        let bytes = [0x80, 0, 0, 0, 1];
        for size in 1..=5 {
            assert_eq!(cut(Serialization::Advanced, 100, &bytes, &[size]), Err(IpcFrameError::Length(1 << 31)));
        }
    }

    #[test]
    fn a_whole_frame_is_lent_and_not_copied() {
        let piece = b"{}\n[]\n{\"cut\":";
        let mut reader = IpcReader::new(Serialization::Json, MAX_FRAME);
        let mut frames = reader.take_in(piece);
        for at in [0..3, 3..6] {
            let Ok(Some(Piece::Frame(frame))) = frames.next() else { panic!("a frame") };
            assert_eq!(frame.whole().as_ptr_range(), piece[at].as_ptr_range());
        }
        assert_eq!(frames.next(), Ok(None));
        assert!(reader.is_within_frame());
    }

    #[test]
    fn a_claimed_length_takes_no_memory_and_a_long_frame_gives_its_memory_back() {
        for serialization in [Serialization::Json, Serialization::Advanced] {
            let mut reader = IpcReader::new(serialization, MAX_FRAME);
            let body = vec![b'x'; 20 << 20];
            let bytes = frames(serialization, std::slice::from_ref(&body));
            let mut seen = 0;
            for (at, piece) in bytes.chunks(KEPT_ROOM).enumerate() {
                let mut frames = reader.take_in(piece);
                while let Some(Piece::Frame(frame)) = frames.next().expect("frame") {
                    assert_eq!(frame.body().len(), body.len());
                    seen += 1;
                }
                assert!(reader.held() <= 2 * (at + 1) * KEPT_ROOM, "no more than came");
            }
            assert_eq!(seen, 1);
            assert!(reader.held() <= KEPT_ROOM, "{}", reader.held());
            assert!(!reader.is_within_frame());
        }
    }
}
