//! Values of a first request by which its client can stick: in the query, a cookie, a header or the path.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode;

use super::Request;
use super::headers::is_token;

/// Longest value that counts, in bytes and decoded. A longer one is passed over.
pub const MAX_VALUE: usize = 1024;
/// Longest name of a query parameter, cookie or header, in bytes.
const MAX_NAME: usize = 64;
/// Last segment of a path that can be named.
const MAX_SEGMENT: u8 = 16;

/// Where in a request a value stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ValueSource {
    /// The first parameter of this name in the query, decoded as a form's (WHATWG URL, application/x-www-form-urlencoded).
    Query(String),
    /// The first cookie of this name, as it was sent (RFC 6265, 5.4: quotation marks and escapes are part of the value).
    Cookie(String),
    /// The header of this name, in any case; several are one, with `, ` between them (RFC 9110, 5.3).
    Header(String),
    /// The segment of this number, from 1, decoded (RFC 3986, 3.3): in `/doc/42` the second one is `42`.
    Path(u8),
}

/// The kinds of [`ValueSource`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// The query.
    Query,
    /// A cookie.
    Cookie,
    /// A header.
    Header,
    /// The path.
    Path,
}

/// Why a request has no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoValue {
    /// It is not there, or empty.
    #[error("absent")]
    Absent,
    /// It is longer than [`MAX_VALUE`].
    #[error("too long")]
    TooLong,
}

/// A text is no [`ValueSource`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It begins with none of the words that there are.
    #[error("write query:NAME, cookie:NAME, header:NAME or path:N")]
    Unknown,
    /// The name is missing, too long, or none.
    #[error(
        "a name has 1 to {MAX_NAME} characters, and of a cookie or header no spaces and none of ()<>@,;:\\\"/[]?={{}}"
    )]
    Name,
    /// The number of a segment is none.
    #[error("write path:N, N from 1 to {MAX_SEGMENT}: path:2 is 42 in /doc/42")]
    Segment,
}

/// Room for a value: see [`ValueSource::value`].
#[derive(Debug)]
pub struct ValueRoom {
    bytes: [u8; MAX_VALUE],
    len: usize,
}

impl ValueSource {
    /// What kind it is.
    pub fn kind(&self) -> SourceKind {
        match self {
            Self::Query(_) => SourceKind::Query,
            Self::Cookie(_) => SourceKind::Cookie,
            Self::Header(_) => SourceKind::Header,
            Self::Path(_) => SourceKind::Path,
        }
    }

    /// Whether all headers of the request must have come before the value can be known.
    pub fn needs_headers(&self) -> bool {
        matches!(self, Self::Cookie(_) | Self::Header(_))
    }

    /// The value, decoded, written to `room`. It has 1 to [`MAX_VALUE`] bytes, which may be any.
    ///
    /// # Errors
    ///
    /// When there is none, and why. The first of several with the same name counts, even if it is empty or too long.
    pub fn value<'r>(&self, request: &Request<'_>, room: &'r mut ValueRoom) -> Result<&'r [u8], NoValue> {
        room.len = 0;
        match self {
            Self::Query(name) => {
                let mut pairs = request.query.unwrap_or_default().split('&').map(|pair| halves(pair.as_bytes(), b'='));
                let (_, value) = pairs.find(|(its, _)| form(its).eq(name.bytes())).ok_or(NoValue::Absent)?;
                room.extend(form(value))?;
            }
            Self::Cookie(name) => {
                let lines = request.headers.values("cookie").filter_map(Result::ok);
                let mut pairs = lines.flat_map(|line| line.split(|byte| *byte == b';')).map(<[u8]>::trim_ascii);
                let value = pairs.find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
                room.extend(value.ok_or(NoValue::Absent)?.iter().copied())?;
            }
            Self::Header(name) => {
                for value in request.headers.values(name).filter_map(Result::ok) {
                    let between = if room.len == 0 { &b""[..] } else { b", " };
                    room.extend(between.iter().chain(value).copied())?;
                }
            }
            Self::Path(number) => {
                let path = request.path.strip_prefix('/').ok_or(NoValue::Absent)?;
                let segment = path.split('/').nth(usize::from(*number) - 1).ok_or(NoValue::Absent)?;
                room.extend(percent_decode(segment.as_bytes()))?;
            }
        }
        if room.len == 0 { Err(NoValue::Absent) } else { Ok(&room.bytes[..room.len]) }
    }
}

/// Name and value of a pair; a name alone has an empty value.
fn halves(pair: &[u8], between: u8) -> (&[u8], &[u8]) {
    memchr::memchr(between, pair).map_or((pair, &[]), |at| (&pair[..at], &pair[at + 1..]))
}

/// The bytes that a name or a value in a form stands for.
fn form(text: &[u8]) -> impl Iterator<Item = u8> {
    // An escaped plus sign is one: plus signs that are there before escapes are resolved are spaces.
    let mut rest = text;
    std::iter::from_fn(move || {
        let (first, behind) = rest.split_first()?;
        rest = behind;
        let escaped = |digits: &[u8; 2]| Some(hex(digits[0])? << 4 | hex(digits[1])?);
        Some(match (*first, rest.first_chunk().and_then(escaped)) {
            (b'+', _) => b' ',
            (b'%', Some(byte)) => {
                rest = &rest[2..];
                byte
            }
            (other, _) => other,
        })
    })
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

impl ValueRoom {
    /// Room for one value at a time.
    pub fn new() -> Self {
        Self { bytes: [0; MAX_VALUE], len: 0 }
    }

    fn extend(&mut self, bytes: impl Iterator<Item = u8>) -> Result<(), NoValue> {
        for byte in bytes {
            *self.bytes.get_mut(self.len).ok_or(NoValue::TooLong)? = byte;
            self.len += 1;
        }
        Ok(())
    }
}

impl Default for ValueRoom {
    fn default() -> Self {
        Self::new()
    }
}

impl SourceKind {
    /// The word for it, as in `query:NAME`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Cookie => "cookie",
            Self::Header => "header",
            Self::Path => "path",
        }
    }
}

impl FromStr for ValueSource {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let (kind, name) = text.split_once(':').ok_or(SourceError::Unknown)?;
        let fits = |rule: fn(u8) -> bool| {
            let is_name = (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(rule);
            if is_name { Ok(name.to_owned()) } else { Err(SourceError::Name) }
        };
        match kind {
            "query" => fits(|byte| !byte.is_ascii_control() && byte != b',').map(Self::Query),
            "cookie" => fits(|byte| is_token(&byte)).map(Self::Cookie),
            "header" => fits(|byte| is_token(&byte)).map(|name| Self::Header(name.to_ascii_lowercase())),
            "path" => {
                let number = name.parse().ok().filter(|number| (1..=MAX_SEGMENT).contains(number));
                number
                    .filter(|_| name.bytes().all(|byte| byte.is_ascii_digit()))
                    .map(Self::Path)
                    .ok_or(SourceError::Segment)
            }
            _ => Err(SourceError::Unknown),
        }
    }
}

impl fmt::Display for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind().word();
        match self {
            Self::Query(name) | Self::Cookie(name) | Self::Header(name) => write!(f, "{kind}:{name}"),
            Self::Path(number) => write!(f, "{kind}:{number}"),
        }
    }
}

#[cfg(test)]
mod tests;
