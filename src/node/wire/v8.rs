//! Walking values in V8's own format (`advanced`), without building them.
//!
//! The format is that of V8's `value-serializer.cc`, versions 13 to 15, with what Node puts around it
//! (`lib/internal/child_process/serialization.js`): a Buffer or typed array is a "host object" of its own layout. A
//! later version is walked as if it were 15: so far each only added tags, and what cannot be walked is no error but a
//! message that haft does not understand.
//!
//! Frames that are walked to their end are well-formed in lengths, counts and references, so that they may be forwarded
//! to other workers, which die of a malformed one.

use std::borrow::Cow;

/// Deepest nesting that is walked. V8 itself ends at some thousands; the memory for it is bounded by this.
const MAX_DEPTH: usize = 1024;
/// The oldest version that a Node of ours writes or reads.
const OLDEST: u32 = 13;
/// From this version on a typed array's entry has flags.
const WITH_VIEW_FLAGS: u32 = 14;

/// A value cannot be walked: it is cut, damaged, too deep, or of a kind unknown here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a value that cannot be read at byte {at}")]
pub struct Unwalkable {
    /// Where.
    pub at: usize,
}

type Result<T> = std::result::Result<T, Unwalkable>;

/// A place in a V8 message.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    version: u32,
    /// How many objects have begun: what a reference may name.
    objects: u32,
    /// Whether the objects are counted.
    counts: bool,
}

/// A value that has begun and not ended.
#[derive(Debug, Clone, Copy)]
enum OpenValue {
    /// Properties until `end`; what follows it repeats their number and, of an array, its length.
    Properties { end: u8, count: u32, length: Option<u32> },
    /// Elements of a dense array; then its properties.
    Elements { left: u32, length: u32 },
    /// Values until `end`; what follows it repeats their number.
    Values { end: u8, count: u32 },
    /// The parts of an Error.
    Error,
}

impl<'a> Cursor<'a> {
    /// At the value of a message that starts with V8's header; `None` if it does not.
    pub fn of_message(body: &'a [u8]) -> Option<Self> {
        let mut cursor = Self { bytes: body, at: 0, version: 0, objects: 0, counts: true };
        let header = cursor.byte().ok()?;
        cursor.version = cursor.varint().ok()?;
        (header == 0xff && cursor.version >= OLDEST).then_some(cursor)
    }

    /// At a value out of the middle of a message, whose references therefore cannot be checked.
    pub fn of_value(value: &'a [u8]) -> Self {
        Self { objects: u32::MAX, ..Self::without_references(value) }
    }

    /// At a value out of the middle of a message, in which no reference is accepted.
    pub fn without_references(value: &'a [u8]) -> Self {
        Self { bytes: value, at: 0, version: OLDEST, objects: 0, counts: false }
    }

    /// How many bytes are read.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Whether everything is read.
    pub fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Enters an object, if one begins here.
    pub fn enter_object(&mut self) -> bool {
        let enters = self.peek() == Some(b'o');
        if enters {
            self.at += 1;
            self.count_object();
        }
        enters
    }

    /// The next property of the object that was entered, by its name and its value as it stands; `None` at its end.
    /// A name that is no text is empty. `seen` counts the properties, from 0.
    pub fn property(&mut self, seen: &mut u32) -> Result<Option<(Cow<'a, str>, &'a [u8])>> {
        if self.peek() == Some(b'{') {
            self.at += 1;
            return if self.varint()? == *seen { Ok(None) } else { self.unwalkable() };
        }
        *seen += 1;
        let name = match self.peek() {
            Some(b'"' | b'S' | b'c') => self.text()?,
            _ => {
                self.key()?;
                Cow::Borrowed("")
            }
        };
        let start = self.at;
        self.skip()?;
        Ok(Some((name, &self.bytes[start..self.at])))
    }

    /// Goes past one value.
    pub fn skip(&mut self) -> Result<()> {
        let mut stack: Vec<OpenValue> = Vec::new();
        loop {
            if let Some(open) = self.begin()? {
                if stack.len() == MAX_DEPTH {
                    return self.unwalkable();
                }
                stack.push(open);
            }
            loop {
                let Some(open) = stack.last_mut() else { return Ok(()) };
                if self.continues(open)? {
                    break;
                }
                stack.pop();
            }
        }
    }

    /// Reads a value that has no parts, or the beginning of one that has.
    fn begin(&mut self) -> Result<Option<OpenValue>> {
        let tag = self.tag()?;
        match tag {
            b'-' | b'_' | b'0' | b'T' | b'F' => {}
            b'I' | b'U' => _ = self.varint()?,
            b'N' => self.pass(8)?,
            b'Z' => self.big_int()?,
            b'"' | b'S' | b'c' => _ = self.string(tag)?,
            b'^' => {
                if self.varint()? >= self.objects {
                    return self.unwalkable();
                }
                self.view()?;
            }
            b'o' => return self.open(OpenValue::Properties { end: b'{', count: 0, length: None }),
            b'a' => {
                let length = self.varint()?;
                return self.open(OpenValue::Properties { end: b'@', count: 0, length: Some(length) });
            }
            b'A' => {
                let length = self.varint()?;
                return self.open(OpenValue::Elements { left: length, length });
            }
            b';' => return self.open(OpenValue::Values { end: b':', count: 0 }),
            b'\'' => return self.open(OpenValue::Values { end: b',', count: 0 }),
            b'r' => return self.open(OpenValue::Error),
            // A count that old versions wrote for checking; the value follows.
            b'?' => {
                self.varint()?;
                return self.begin_again();
            }
            b'\\' => return self.host_object(),
            _ => self.plain_object(tag)?,
        }
        Ok(None)
    }

    /// An object without parts that are values.
    fn plain_object(&mut self, tag: u8) -> Result<()> {
        self.count_object();
        match tag {
            b'D' | b'n' => self.pass(8),
            b'y' | b'x' => Ok(()),
            b'z' => self.big_int(),
            b's' => self.tagged_string(),
            b'R' => {
                self.tagged_string()?;
                self.varint().map(drop)
            }
            b'B' => {
                let length = self.varint()?;
                self.pass(length)?;
                self.view()
            }
            b'~' => {
                let (length, most) = (self.varint()?, self.varint()?);
                if length > most {
                    return self.unwalkable();
                }
                self.pass(length)?;
                self.view()
            }
            _ => self.unwalkable(),
        }
    }

    /// What Node writes itself: a tag of its own, then a Buffer or typed array, or any other object as a plain one.
    fn host_object(&mut self) -> Result<Option<OpenValue>> {
        self.count_object();
        match self.varint()? {
            0 => {
                let _kind = self.varint()?;
                let length = self.varint()?;
                self.pass(length)?;
                Ok(None)
            }
            1 => self.begin_again(),
            _ => self.unwalkable(),
        }
    }

    /// One value in place of another. It may not be repeated, or a long row of them would recurse deeply.
    fn begin_again(&mut self) -> Result<Option<OpenValue>> {
        match self.peek() {
            Some(b'\\' | b'?') | None => self.unwalkable(),
            Some(_) => self.begin(),
        }
    }

    fn open(&mut self, open: OpenValue) -> Result<Option<OpenValue>> {
        self.count_object();
        Ok(Some(open))
    }

    /// Whether one more value belongs to what is open; otherwise its end was read.
    fn continues(&mut self, open: &mut OpenValue) -> Result<bool> {
        match open {
            OpenValue::Elements { left, .. } if *left > 0 => *left -= 1,
            OpenValue::Elements { length, .. } => {
                *open = OpenValue::Properties { end: b'$', count: 0, length: Some(*length) };
                return self.continues(open);
            }
            OpenValue::Properties { end, count, length } => {
                if self.peek() == Some(*end) {
                    self.at += 1;
                    self.expect(*count)?;
                    length.map_or(Ok(()), |length| self.expect(length))?;
                    return Ok(false);
                }
                self.key()?;
                *count += 1;
            }
            OpenValue::Values { end, count } => {
                if self.peek() == Some(*end) {
                    self.at += 1;
                    // A Map has a value for each key.
                    let odd = *end == b':' && *count % 2 == 1;
                    self.expect(*count)?;
                    return if odd { self.unwalkable() } else { Ok(false) };
                }
                *count += 1;
            }
            OpenValue::Error => return self.error_part(),
        }
        Ok(true)
    }

    /// Parts of an Error up to its cause, which is a value, or its end.
    fn error_part(&mut self) -> Result<bool> {
        loop {
            match self.byte()? {
                b'E' | b'R' | b'F' | b'S' | b'T' | b'U' => {}
                b'm' | b's' => self.tagged_string()?,
                b'c' => return Ok(true),
                b'.' => return Ok(false),
                _ => return self.unwalkable(),
            }
        }
    }

    /// A typed array over the ArrayBuffer that was just read, if there is one.
    fn view(&mut self) -> Result<()> {
        if self.peek() == Some(b'V') {
            self.at += 1;
            self.count_object();
            self.byte()?;
            self.varint()?;
            self.varint()?;
            if self.version >= WITH_VIEW_FLAGS {
                self.varint()?;
            }
        }
        Ok(())
    }

    fn key(&mut self) -> Result<()> {
        match self.tag()? {
            b'I' | b'U' => self.varint().map(drop),
            b'N' => self.pass(8),
            tag @ (b'"' | b'S' | b'c') => self.string(tag).map(drop),
            _ => self.unwalkable(),
        }
    }

    fn big_int(&mut self) -> Result<()> {
        // The lowest bit is the sign, the others are the number of bytes.
        let field = self.varint()?;
        self.pass(field >> 1)
    }

    fn tagged_string(&mut self) -> Result<()> {
        let tag = self.tag()?;
        self.string(tag).map(drop)
    }

    /// The bytes of a string whose tag was read.
    fn string(&mut self, tag: u8) -> Result<&'a [u8]> {
        if !matches!(tag, b'"' | b'S' | b'c') {
            return self.unwalkable();
        }
        let length = self.varint()?;
        if tag == b'c' && length % 2 == 1 {
            return self.unwalkable();
        }
        let start = self.at;
        self.pass(length)?;
        Ok(&self.bytes[start..self.at])
    }

    /// A string as text; what is no Unicode in it is replaced.
    pub fn text(&mut self) -> Result<Cow<'a, str>> {
        let tag = self.tag()?;
        let bytes = self.string(tag)?;
        Ok(match tag {
            b'c' => {
                let units = bytes.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit));
                Cow::Owned(char::decode_utf16(units).map(|unit| unit.unwrap_or('\u{fffd}')).collect())
            }
            b'"' if !bytes.is_ascii() => Cow::Owned(bytes.iter().map(|byte| char::from(*byte)).collect()),
            _ => String::from_utf8_lossy(bytes),
        })
    }

    /// A number.
    pub fn number(&mut self) -> Result<f64> {
        match self.tag()? {
            b'I' => self.varint().map(|coded| f64::from((coded >> 1) as i32 ^ -((coded & 1) as i32))),
            b'U' => self.varint().map(f64::from),
            b'N' => {
                let start = self.at;
                self.pass(8)?;
                let mut eight = [0; 8];
                eight.copy_from_slice(&self.bytes[start..self.at]);
                Ok(f64::from_le_bytes(eight))
            }
            _ => self.unwalkable(),
        }
    }

    /// The tag of the next value, which is left to be read.
    pub fn peek(&mut self) -> Option<u8> {
        // Padding aligns strings of two-byte characters.
        while self.bytes.get(self.at) == Some(&0) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    fn tag(&mut self) -> Result<u8> {
        self.peek();
        self.byte()
    }

    fn byte(&mut self) -> Result<u8> {
        let byte = self.bytes.get(self.at).copied().ok_or(Unwalkable { at: self.at })?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u32> {
        let mut value = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return u32::try_from(value).map_err(|_| Unwalkable { at: self.at });
            }
        }
        self.unwalkable()
    }

    fn expect(&mut self, number: u32) -> Result<()> {
        if self.varint()? == number { Ok(()) } else { self.unwalkable() }
    }

    fn pass(&mut self, length: u32) -> Result<()> {
        if length as usize > self.bytes.len() - self.at {
            return self.unwalkable();
        }
        self.at += length as usize;
        Ok(())
    }

    fn count_object(&mut self) {
        self.objects += u32::from(self.counts);
    }

    fn unwalkable<T>(&self) -> Result<T> {
        Err(Unwalkable { at: self.at })
    }
}
