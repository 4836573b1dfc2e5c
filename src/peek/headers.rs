//! The header lines of a request, read one by one where they lie.

use memchr::memchr;

use super::MalformedForwarded;

/// The header lines of a request.
///
/// Each line is read when it is asked for, so that all count, however many there are: were only the first so many
/// looked at, a client could push out of sight what its proxy has added behind its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Headers<'b>(&'b [u8]);

impl<'b> Headers<'b> {
    /// All of them, if the empty line that ends them has come. `bytes`: what follows the request line; of it, `seen`
    /// bytes were looked at before and the empty line did not end there.
    pub(super) fn complete(bytes: &'b [u8], seen: usize) -> Option<Self> {
        if bytes.starts_with(b"\n") || bytes.starts_with(b"\r\n") {
            return Some(Self(&[]));
        }
        // The line end ahead of the empty line can have been there, and the carriage return of the empty one.
        let mut from = seen.saturating_sub(2);
        while let Some(at) = memchr(b'\n', bytes.get(from..)?) {
            from += at + 1;
            if let [b'\n', ..] | [b'\r', b'\n', ..] = bytes[from..] {
                return Some(Self(&bytes[..from]));
            }
        }
        None
    }

    /// The headers whose lines have arrived so far. `bytes`: what follows the request line.
    pub(super) fn so_far(bytes: &'b [u8]) -> Self {
        let end = memchr::memrchr(b'\n', bytes).map_or(0, |at| at + 1);
        Self::complete(bytes, 0).unwrap_or(Self(&bytes[..end]))
    }

    /// Name and value of each, in order; from the last one if iterated in reverse.
    ///
    /// # Errors
    ///
    /// In place of a line that is no header (RFC 9112, 5): its name is no token or has a space behind it, its value has
    /// control characters, or it goes on with the line before (obsolete line folding).
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Result<(&'b [u8], &'b [u8]), MalformedForwarded>> {
        self.0.split_inclusive(|byte| *byte == b'\n').map(read)
    }

    /// The values of the headers of this name (in any case), in order.
    ///
    /// # Errors
    ///
    /// Those of [`Headers::iter`], whatever the name.
    pub fn values(self, name: &str) -> impl DoubleEndedIterator<Item = Result<&'b [u8], MalformedForwarded>> {
        self.iter().filter_map(move |header| match header {
            Ok((its, value)) => its.eq_ignore_ascii_case(name.as_bytes()).then_some(Ok(value)),
            Err(malformed) => Some(Err(malformed)),
        })
    }
}

fn read(line: &[u8]) -> Result<(&[u8], &[u8]), MalformedForwarded> {
    // RFC 9112, 2.2: a line may be taken to end with a line feed alone.
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (name, value) = memchr(b':', line).map(|at| (&line[..at], &line[at + 1..])).ok_or(MalformedForwarded)?;
    let control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    if name.is_empty() || !name.iter().all(is_token) || value.iter().any(control) {
        return Err(MalformedForwarded);
    }
    Ok((name, value.trim_ascii()))
}

/// RFC 9110, 5.6.2.
pub(super) fn is_token(byte: &u8) -> bool {
    matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_value_are_read_without_what_is_around_them() {
        for (line, header) in [
            ("Host: example.org\r\n", Ok(("Host", "example.org"))),
            ("host:example.org\n", Ok(("host", "example.org"))),
            ("X-A!#$%&'*+-.^_`|~9:  a\tb: c \t\r\n", Ok(("X-A!#$%&'*+-.^_`|~9", "a\tb: c"))),
            ("A:\r\n", Ok(("A", ""))),
            ("A: \u{e4}\r\n", Ok(("A", "\u{e4}"))),
            ("A : b\r\n", Err(MalformedForwarded)),
            (": b\r\n", Err(MalformedForwarded)),
            ("A\r\n", Err(MalformedForwarded)),
            (" A: folded\r\n", Err(MalformedForwarded)),
            ("\tA: folded\r\n", Err(MalformedForwarded)),
            ("\u{c4}: b\r\n", Err(MalformedForwarded)),
            ("A: b\rc\r\n", Err(MalformedForwarded)),
            ("A: b\r\r\n", Err(MalformedForwarded)),
            ("A: b\0\r\n", Err(MalformedForwarded)),
            ("A: b\x7f\r\n", Err(MalformedForwarded)),
        ] {
            let header = header.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            assert_eq!(read(line.as_bytes()), header, "{line:?}");
        }
    }

    #[test]
    fn values_are_found_in_any_case_and_in_order() {
        let headers = Headers(b"A: 1\r\nB: 2\r\na: 3\r\nAB: 4\r\nA: 5\r\n");
        let values: Vec<_> = headers.values("a").collect();
        assert_eq!(values, [Ok(&b"1"[..]), Ok(b"3"), Ok(b"5")]);
        assert!(headers.values("a").rev().eq(values.into_iter().rev()));
        assert_eq!(headers.values("c").count(), 0);
        let headers = Headers(b"A: 1\r\nB\r\nA: 2\r\n");
        assert_eq!(headers.values("a").collect::<Vec<_>>(), [Ok(&b"1"[..]), Err(MalformedForwarded), Ok(b"2")]);
    }
}
