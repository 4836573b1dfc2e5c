//! Writing objects in either serialization into a buffer of the caller's; nothing is allocated but by that buffer.

use std::fmt;
use std::io::Write;

use super::Serialization;

/// The version of V8's format that is written: every Node from 14 on reads it.
const V8_VERSION: u8 = 13;
/// Deepest nesting of the objects that are written.
const MAX_DEPTH: usize = 4;

/// One message while it is being written: an object, its fields in the order of the calls.
#[derive(Debug)]
pub struct Composer<'o> {
    out: &'o mut Vec<u8>,
    serialization: Serialization,
    start: usize,
    /// How many fields each open object has so far.
    counts: [u32; MAX_DEPTH],
    depth: usize,
}

impl<'o> Composer<'o> {
    /// Begins a message behind what `out` holds.
    pub fn begin(serialization: Serialization, out: &'o mut Vec<u8>) -> Self {
        let start = out.len();
        begin_frame(serialization, out);
        out.push(if serialization == Serialization::Json { b'{' } else { b'o' });
        Self { out, serialization, start, counts: [0; MAX_DEPTH], depth: 0 }
    }

    /// Goes on with the message that begins at `start` and ends `out`, as [`Composer::finish`] left it; `None` if it is
    /// no object of less than 128 fields.
    pub fn reopen(serialization: Serialization, start: usize, out: &'o mut Vec<u8>) -> Option<Self> {
        let count = match (serialization, out.get(start..)?) {
            (Serialization::Json, [.., b'{', b'}', b'\n']) => 0,
            // How many there are matters to V8 alone.
            (Serialization::Json, [.., b'}', b'\n']) => 1,
            (Serialization::Advanced, [.., b'{', count @ 0..0x80]) => u32::from(*count),
            _ => return None,
        };
        out.truncate(out.len() - 2);
        Some(Self { out, serialization, start, counts: [count, 0, 0, 0], depth: 0 })
    }

    /// A field that is text.
    pub fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.name(name);
        write_text(self.serialization, value, self.out);
        self
    }

    /// A field that is text of less than 128 characters, all of them ASCII and none that JSON escapes. Unlike
    /// [`Composer::text`] it takes what is no text yet, without a buffer of its own.
    pub fn brief(&mut self, name: &str, value: impl fmt::Display) -> &mut Self {
        self.name(name);
        // JSON's quotation mark is V8's tag of a text of one byte a character.
        self.out.push(b'"');
        if self.serialization == Serialization::Advanced {
            self.out.push(0);
        }
        let start = self.out.len();
        // Writing to a Vec does not fail.
        write!(self.out, "{value}").unwrap_or_else(|error| unreachable!("{error}"));
        let length = self.out.len() - start;
        debug_assert!(length < 0x80 && self.out[start..].is_ascii());
        match self.serialization {
            Serialization::Json => self.out.push(b'"'),
            Serialization::Advanced => self.out[start - 1] = length as u8,
        }
        self
    }

    /// A field that is a number.
    pub fn number(&mut self, name: &str, value: i64) -> &mut Self {
        self.name(name);
        write_number(self.serialization, value, self.out);
        self
    }

    /// A field that is `null`.
    pub fn null(&mut self, name: &str) -> &mut Self {
        self.name(name);
        self.out.extend_from_slice(if self.serialization == Serialization::Json { b"null" } else { b"0" });
        self
    }

    /// A field whose value is written already, in the same serialization.
    pub fn raw(&mut self, name: &str, value: &[u8]) -> &mut Self {
        self.name(name);
        self.out.extend_from_slice(value);
        self
    }

    /// Begins a field that is an object; the fields that follow are its own until [`Composer::close`].
    pub fn open(&mut self, name: &str) -> &mut Self {
        self.name(name);
        self.out.push(if self.serialization == Serialization::Json { b'{' } else { b'o' });
        self.depth += 1;
        self.counts[self.depth] = 0;
        self
    }

    /// Ends the object that was opened last.
    pub fn close(&mut self) -> &mut Self {
        self.end_object();
        self.depth -= 1;
        self
    }

    /// Ends the message.
    pub fn finish(&mut self) {
        self.end_object();
        end_frame(self.serialization, self.start, self.out);
    }

    fn name(&mut self, name: &str) {
        let first = self.counts[self.depth] == 0;
        self.counts[self.depth] += 1;
        if self.serialization == Serialization::Json && !first {
            self.out.push(b',');
        }
        write_text(self.serialization, name, self.out);
        if self.serialization == Serialization::Json {
            self.out.push(b':');
        }
    }

    fn end_object(&mut self) {
        match self.serialization {
            Serialization::Json => self.out.push(b'}'),
            Serialization::Advanced => {
                self.out.push(b'{');
                write_varint(self.counts[self.depth], self.out);
            }
        }
    }
}

/// Writes what a frame starts with; [`end_frame`] must follow the value.
pub fn begin_frame(serialization: Serialization, out: &mut Vec<u8>) {
    if serialization == Serialization::Advanced {
        out.extend_from_slice(&[0, 0, 0, 0, 0xff, V8_VERSION]);
    }
}

/// Completes the frame that began at `start`.
pub fn end_frame(serialization: Serialization, start: usize, out: &mut Vec<u8>) {
    match serialization {
        Serialization::Json => out.push(b'\n'),
        Serialization::Advanced => {
            // Longer frames are not written: what is forwarded is bounded, the rest is short.
            let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
            out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        }
    }
}

/// Writes a JSON value in either serialization.
pub fn write_value(serialization: Serialization, value: &serde_json::Value, out: &mut Vec<u8>) {
    match serialization {
        Serialization::Json => write_json(value, out),
        Serialization::Advanced => write_v8(value, out),
    }
}

fn write_json(value: &serde_json::Value, out: &mut Vec<u8>) {
    // Writing to a Vec does not fail, and the names of the objects are text.
    serde_json::to_writer(out, value).unwrap_or_else(|error| unreachable!("{error}"));
}

fn write_v8(value: &serde_json::Value, out: &mut Vec<u8>) {
    use serde_json::Value;
    match value {
        Value::Null => out.push(b'0'),
        Value::Bool(true) => out.push(b'T'),
        Value::Bool(false) => out.push(b'F'),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => write_number(Serialization::Advanced, whole, out),
            None => write_double(number.as_f64().unwrap_or(f64::NAN), out),
        },
        Value::String(text) => write_text(Serialization::Advanced, text, out),
        Value::Array(elements) => {
            let length = u32::try_from(elements.len()).unwrap_or(u32::MAX);
            out.push(b'A');
            write_varint(length, out);
            elements.iter().for_each(|element| write_v8(element, out));
            out.extend_from_slice(b"$\0");
            write_varint(length, out);
        }
        Value::Object(fields) => {
            out.push(b'o');
            for (name, value) in fields {
                write_text(Serialization::Advanced, name, out);
                write_v8(value, out);
            }
            out.push(b'{');
            write_varint(u32::try_from(fields.len()).unwrap_or(u32::MAX), out);
        }
    }
}

fn write_text(serialization: Serialization, text: &str, out: &mut Vec<u8>) {
    match serialization {
        Serialization::Json => {
            serde_json::to_writer(out, text).unwrap_or_else(|error| unreachable!("{error}"));
        }
        Serialization::Advanced => {
            // One byte a character, or UTF-8: both are read by every version.
            out.push(if text.is_ascii() { b'"' } else { b'S' });
            write_varint(u32::try_from(text.len()).unwrap_or(u32::MAX), out);
            out.extend_from_slice(text.as_bytes());
        }
    }
}

/// Writes a number in either serialization.
pub fn write_number(serialization: Serialization, number: i64, out: &mut Vec<u8>) {
    match (serialization, i32::try_from(number)) {
        (Serialization::Json, _) => {
            serde_json::to_writer(out, &number).unwrap_or_else(|error| unreachable!("{error}"));
        }
        (Serialization::Advanced, Ok(small)) => {
            out.push(b'I');
            // Zigzag: the sign is the lowest bit.
            write_varint(((small << 1) ^ (small >> 31)) as u32, out);
        }
        (Serialization::Advanced, Err(_)) => write_double(number as f64, out),
    }
}

fn write_double(number: f64, out: &mut Vec<u8>) {
    out.push(b'N');
    out.extend_from_slice(&number.to_le_bytes());
}

fn write_varint(mut number: u32, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
