//! Where one request of a connection ends and the next may begin, without a second parser of requests.
//!
//! The HTTP library parses ahead: what it has read may hold more than the request it is at. Whoever wants to look at the
//! next request before it is read must know that all that was read is used up, and all that was owed is written. Guessing
//! wrong would take a client's body for a request, so nothing is guessed here: the library itself says how long a body
//! is, and only the end of a head is looked for, which is never found later than the library finds it. What does not add
//! up, or is of unknown length, is no boundary, then or ever after on that connection.

use memchr::memchr;

/// How far a connection is in its current request.
#[derive(Debug, Default)]
pub(super) struct Boundary {
    head: HeadScan,
    /// Bytes read after the end of the head.
    after: u64,
    /// Once the head is parsed: how long the body is.
    body: Option<u64>,
    /// The answer has been made to its end.
    answered: bool,
    /// All that was answered has been written.
    flushed: bool,
    /// This connection is not followed any more.
    lost: bool,
}

impl Boundary {
    /// Whether the last request has been read to its last byte and no further, and its answer has been written.
    pub(super) fn is_here(&self) -> bool {
        !self.lost && self.answered && self.flushed && self.head == HeadScan::Ended && self.body == Some(self.after)
    }

    /// From here on the next request is read.
    pub(super) fn begin(&mut self) {
        if self.is_here() {
            *self = Self::default();
        }
    }

    /// These bytes were read.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        self.after += self.head.feed(bytes).len() as u64;
    }

    /// A head was parsed, to which belongs a body of this length; `None`: nobody knows beforehand.
    pub(super) fn asked(&mut self, body: Option<u64>) {
        // A second request before the boundary: it was read together with the first.
        self.lost |= body.is_none() || self.body.is_some();
        self.body = body;
    }

    /// The connection is not one of requests any more.
    pub(super) fn upgraded(&mut self) {
        self.lost = true;
    }

    /// The answer has come to its end; its last bytes may still have to be written.
    pub(super) fn answered(&mut self) {
        (self.answered, self.flushed) = (true, false);
    }

    /// Something was written, and perhaps not all there is.
    pub(super) fn wrote(&mut self) {
        self.flushed = false;
    }

    /// All that was there to be written has been written.
    pub(super) fn flushed(&mut self) {
        self.flushed = self.answered;
    }
}

/// Looks for the end of a head: an empty line (RFC 9112, 2.2), a bare LF ending a line too, as the library has it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum HeadScan {
    /// Before the request line. Empty lines here belong to it.
    #[default]
    Before,
    Line,
    /// After LF.
    LineEnded,
    /// After LF CR.
    Cr,
    Ended,
}

impl HeadScan {
    /// Takes the next bytes; returns those after the end of the head.
    fn feed<'b>(&mut self, mut bytes: &'b [u8]) -> &'b [u8] {
        while *self != Self::Ended {
            if *self == Self::Line {
                let Some(at) = memchr(b'\n', bytes) else { return &[] };
                (*self, bytes) = (Self::LineEnded, &bytes[at + 1..]);
            }
            let Some((&byte, rest)) = bytes.split_first() else { return &[] };
            bytes = rest;
            *self = match (*self, byte) {
                (Self::Before, b'\r' | b'\n') => Self::Before,
                (Self::LineEnded | Self::Cr, b'\n') => Self::Ended,
                (Self::LineEnded, b'\r') => Self::Cr,
                _ => Self::Line,
            };
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use httparse::{EMPTY_HEADER, Request, Status};
    use proptest::prelude::*;

    use super::*;

    /// Where the library's parser finds the end of the head.
    fn parsed(bytes: &[u8]) -> Option<usize> {
        match Request::new(&mut [EMPTY_HEADER; 32]).parse(bytes) {
            Ok(Status::Complete(end)) => Some(end),
            _ => None,
        }
    }

    fn scanned(bytes: &[u8], cut: usize) -> Option<usize> {
        let (mut scan, mut after) = (HeadScan::default(), 0);
        for part in bytes.chunks(cut) {
            after += scan.feed(part).len();
        }
        (scan == HeadScan::Ended).then(|| bytes.len() - after)
    }

    proptest! {
        #[test]
        fn the_head_ends_where_the_library_says(
            before in "(\r?\n){0,3}",
            lines in prop::collection::vec("[a-z]{1,8}: [ -~]{0,12}\r?\n", 0..6),
            end in "\r?\n",
            body in prop::collection::vec(any::<u8>(), 0..30),
            cut in 1..40_usize,
        ) {
            let head = format!("{before}GET /?sid=x HTTP/1.1\n{}{end}", lines.concat());
            let bytes = [head.as_bytes(), &body].concat();
            prop_assert_eq!(parsed(&bytes), Some(head.len()));
            prop_assert_eq!(scanned(&bytes, cut), Some(head.len()));
        }

        /// A boundary that is found too late would be one in the midst of the next request.
        #[test]
        fn the_end_is_never_found_later(soup in "(GET / HTTP/1.1|[a:\r\n\t \\x00]|\r\n){0,24}", cut in 1..40_usize) {
            if let Some(end) = parsed(soup.as_bytes()) {
                prop_assert!(scanned(soup.as_bytes(), cut).is_some_and(|scanned| scanned <= end));
            }
        }
    }

    /// A request as the connection sees it, each step in its time.
    fn request(boundary: &mut Boundary, bytes: &[u8], body: Option<u64>) {
        boundary.read(bytes);
        assert!(!boundary.is_here());
        boundary.asked(body);
        boundary.wrote();
        boundary.flushed();
        assert!(!boundary.is_here(), "not answered");
        boundary.answered();
        assert!(!boundary.is_here(), "not written");
        boundary.wrote();
        boundary.flushed();
    }

    const GET: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

    #[test]
    fn between_two_requests_there_is_a_boundary() {
        let mut boundary = Boundary::default();
        for _ in 0..2 {
            assert!(!boundary.is_here(), "nothing was asked");
            request(&mut boundary, GET, Some(0));
            assert!(boundary.is_here());
            boundary.begin();
            request(&mut boundary, b"POST / HTTP/1.1\r\n\r\n12345", Some(5));
            assert!(boundary.is_here());
            boundary.begin();
        }
    }

    #[test]
    fn what_was_read_too_far_or_not_far_enough_is_none() {
        let mut boundary = Boundary::default();
        request(&mut boundary, b"POST / HTTP/1.1\r\n\r\n123", Some(5));
        assert!(!boundary.is_here(), "two bytes are to come");
        boundary.begin();
        boundary.read(b"45");
        assert!(boundary.is_here());
        boundary.begin();
        request(&mut boundary, &[GET, b"G"].concat(), Some(0));
        assert!(!boundary.is_here(), "a byte of the next was read");
        boundary.read(&GET[1..]);
        boundary.asked(Some(0));
        boundary.answered();
        boundary.flushed();
        assert!(!boundary.is_here(), "and from then on nothing is sure");
    }

    #[test]
    fn a_body_of_unknown_length_and_an_upgrade_end_it_for_good() {
        for ends in [|boundary: &mut Boundary| boundary.asked(None), Boundary::upgraded] {
            let mut boundary = Boundary::default();
            boundary.read(GET);
            ends(&mut boundary);
            boundary.answered();
            boundary.flushed();
            assert!(!boundary.is_here());
            boundary.begin();
            boundary.read(GET);
            boundary.asked(Some(0));
            boundary.answered();
            boundary.flushed();
            assert!(!boundary.is_here());
        }
    }
}
