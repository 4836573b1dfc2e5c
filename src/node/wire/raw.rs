//! Values of a message that are left as they stand in the frame, in either serialization, until one is needed.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Serialization;
use super::v8::Cursor;

/// The largest integer that JavaScript distinguishes from its neighbours.
const MAX_WHOLE: f64 = 9_007_199_254_740_991.0;

/// One value of a message, unread. It is well-formed: it was walked to find its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raw<'a> {
    serialization: Serialization,
    bytes: &'a [u8],
}

/// A message is none: it is not JSON, or does not start with V8's header.
#[derive(Debug, thiserror::Error)]
pub enum MalformedMessage {
    /// Not JSON. Node itself would die of it; so would the other workers if it were forwarded.
    #[error("a line that is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// No V8 header.
    #[error("a message without V8's header")]
    Header,
}

/// What a message is, at its outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside<'a> {
    /// An object: its fields were given to the caller.
    Object,
    /// Any other value.
    Value(Raw<'a>),
    /// An `advanced` message of a kind that cannot be walked here; another Node may well read it.
    Unknown,
}

/// Walks a message once and gives each field of the object that it is to `field`, in their order.
///
/// The whole of the message is checked, but nothing is built.
pub fn walk<'a>(
    serialization: Serialization,
    body: &'a [u8],
    field: impl FnMut(&str, Raw<'a>),
) -> Result<Outside<'a>, MalformedMessage> {
    match serialization {
        Serialization::Json => walk_json(body, field),
        Serialization::Advanced => {
            let mut cursor = Cursor::of_message(body).ok_or(MalformedMessage::Header)?;
            Ok(walk_v8(&mut cursor, body, field).unwrap_or(Outside::Unknown))
        }
    }
}

fn walk_json<'a>(body: &'a [u8], field: impl FnMut(&str, Raw<'a>)) -> Result<Outside<'a>, MalformedMessage> {
    let is_object = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let mut json = serde_json::Deserializer::from_slice(body);
    if is_object {
        json.deserialize_map(FieldVisitor(field))?;
        json.end()?;
        return Ok(Outside::Object);
    }
    IgnoredAny::deserialize(&mut json)?;
    json.end()?;
    Ok(Outside::Value(Raw { serialization: Serialization::Json, bytes: body }))
}

fn walk_v8<'a>(cursor: &mut Cursor<'a>, body: &'a [u8], mut field: impl FnMut(&str, Raw<'a>)) -> Option<Outside<'a>> {
    let bytes_of = |bytes| Raw { serialization: Serialization::Advanced, bytes };
    if cursor.enter_object() {
        let mut seen = 0;
        while let Some((name, bytes)) = cursor.property(&mut seen).ok()? {
            field(&name, bytes_of(bytes));
        }
        return cursor.is_at_end().then_some(Outside::Object);
    }
    let start = cursor.at();
    cursor.skip().ok()?;
    cursor.is_at_end().then_some(Outside::Value(bytes_of(&body[start..])))
}

/// Gives the fields of a JSON object to a function.
struct FieldVisitor<F>(F);

impl<'de, F: FnMut(&str, Raw<'de>)> Visitor<'de> for FieldVisitor<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(FieldName(name)) = map.next_key::<FieldName>()? {
            let bytes = map.next_value::<&'de RawValue>()?.get().as_bytes();
            (self.0)(&name, Raw { serialization: Serialization::Json, bytes });
        }
        Ok(())
    }
}

/// A field's name. It is read as bytes because serde_json refuses half a surrogate pair in a text, which
/// `JSON.stringify` may write (as an escape); no name that matters has one.
struct FieldName<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for FieldName<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
            type Value = FieldName<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<FieldName<'de>, E> {
                Ok(FieldName(String::from_utf8_lossy(bytes)))
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<FieldName<'de>, E> {
                Ok(FieldName(Cow::Owned(String::from_utf8_lossy(bytes).into_owned())))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

impl<'a> Raw<'a> {
    /// The value as it stands in the frame: JSON text, or V8's bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The value as text, if it is a string.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        if self.serialization == Serialization::Advanced {
            return Cursor::of_value(self.bytes).text().ok();
        }
        let inside = self.bytes.trim_ascii().strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        if !inside.contains(&b'\\') {
            return std::str::from_utf8(inside).ok().map(Cow::Borrowed);
        }
        serde_json::from_slice::<String>(self.bytes).ok().map(Cow::Owned)
    }

    /// Whether the value is this string.
    pub fn is_text(&self, text: &str) -> bool {
        self.text().is_some_and(|own| own == text)
    }

    /// The value as a number, if it is one.
    pub fn number(&self) -> Option<f64> {
        match self.serialization {
            Serialization::Advanced => Cursor::of_value(self.bytes).number().ok(),
            Serialization::Json => serde_json::from_slice(self.bytes).ok(),
        }
    }

    /// The value as a whole number that JavaScript holds exactly.
    pub fn integer(&self) -> Option<i64> {
        let number = self.number()?;
        (number.fract() == 0.0 && number.abs() <= MAX_WHOLE).then_some(number as i64)
    }

    /// The value as a whole number that is not negative.
    pub fn count(&self) -> Option<u64> {
        self.integer().and_then(|number| number.try_into().ok())
    }

    /// Whether the value is `true`.
    pub fn is_true(&self) -> bool {
        match self.serialization {
            Serialization::Advanced => Cursor::of_value(self.bytes).peek() == Some(b'T'),
            Serialization::Json => self.bytes.trim_ascii() == b"true",
        }
    }

    /// Whether the value is `null` or `undefined`.
    pub fn is_nothing(&self) -> bool {
        match self.serialization {
            Serialization::Advanced => matches!(Cursor::of_value(self.bytes).peek(), Some(b'0' | b'_')),
            Serialization::Json => self.bytes.trim_ascii() == b"null",
        }
    }

    /// Whether the value means the same in another message: V8 may write a part that was there before as a reference.
    pub fn stands_alone(&self) -> bool {
        self.serialization == Serialization::Json || Cursor::without_references(self.bytes).skip().is_ok()
    }

    /// Whether the value, a list of short names, has this one. It is looked for as either serialization writes a text.
    pub fn lists(&self, name: &str) -> bool {
        let written = match self.serialization {
            Serialization::Json => format!("\"{name}\"").into_bytes(),
            Serialization::Advanced => [&[b'"', name.len() as u8], name.as_bytes()].concat(),
        };
        self.bytes.windows(written.len()).any(|bytes| bytes == written)
    }

    /// A field of the value, if it is an object that has it.
    pub fn field(&self, name: &str) -> Option<Raw<'a>> {
        let mut found = None;
        let take = |own: &str, value| {
            if own == name {
                found = Some(value);
            }
        };
        match self.serialization {
            Serialization::Advanced => _ = walk_v8(&mut Cursor::of_value(self.bytes), self.bytes, take)?,
            Serialization::Json => _ = walk_json(self.bytes, take).ok()?,
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Raw<'_> {
        Raw { serialization: Serialization::Json, bytes: text.as_bytes() }
    }

    #[test]
    fn fields_come_in_their_order_and_unread() {
        let mut seen = Vec::new();
        let line = br#" {"a" : [1, {"b": 2}],"\u0063":"x\ny","\ud800":"\udfff","n":-1.5e3} "#;
        let outside = walk(Serialization::Json, line, |name, raw| seen.push((name.to_owned(), raw))).expect("json");
        assert_eq!(outside, Outside::Object);
        let names: Vec<&str> = seen.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[..2], ["a", "c"]);
        assert_eq!(names[3], "n");
        assert_eq!(seen[0].1.bytes(), br#"[1, {"b": 2}]"#);
        assert_eq!(seen[1].1.text().as_deref(), Some("x\ny"));
        assert_eq!(seen[2].1.text(), None, "half a surrogate pair");
        assert_eq!(seen[3].1.number(), Some(-1500.0));
    }

    #[test]
    fn what_node_would_die_of_is_malformed() {
        for line in ["", " ", "{", "{}{}", "{\"a\":1,}", "nul", "\"\t\"", "{\"a\":\"\u{1}\"}", "[1", "01", "\u{feff}{}"]
        {
            assert!(walk(Serialization::Json, line.as_bytes(), |_, _| {}).is_err(), "{line:?}");
        }
        for body in [&b""[..], b"\xff", b"{}", b"\xff\x0c0", b"\xff\xff\xff\xff\xff\xff0"] {
            assert!(walk(Serialization::Advanced, body, |_, _| {}).is_err(), "{body:?}");
        }
        assert_eq!(walk(Serialization::Advanced, b"\xff\x0d", |_, _| {}).expect("header"), Outside::Unknown);
    }

    #[test]
    fn deep_nesting_is_walked_or_given_up_but_breaks_nothing() {
        let deep = [b"{\"d\":".as_slice(), &b"[".repeat(200_000), &b"]".repeat(200_000), b",\"cmd\":1}"].concat();
        let mut names = Vec::new();
        walk(Serialization::Json, &deep, |name, _| names.push(name.to_owned())).expect("json");
        assert_eq!(names, ["d", "cmd"]);
        for depth in [1000, 200_000] {
            let deep = [&b"\xff\x0d"[..], &b"A\x01".repeat(depth), b"0", &b"$\0\x01".repeat(depth)].concat();
            let outside = walk(Serialization::Advanced, &deep, |_, _| {}).expect("header");
            assert_eq!(outside == Outside::Unknown, depth > 1024);
        }
    }

    #[test]
    fn values_are_what_they_are_and_nothing_else() {
        assert_eq!(json("12").count(), Some(12));
        for other in ["-1", "1.5", "1e300", "\"1\"", "null", "[1]", "9007199254740993"] {
            assert_eq!(json(other).count(), None, "{other}");
        }
        assert!(json("true").is_true() && !json("1").is_true() && !json("\"true\"").is_true());
        assert!(json("null").is_nothing() && !json("0").is_nothing());
        assert_eq!(json(r#"{"a":{"workerId":1},"workerId":7}"#).field("workerId"), Some(json("7")));
        assert_eq!(json(r#"["workerId"]"#).field("workerId"), None);
        assert!(json(r#"["SIGINT", "SIGTERM"]"#).lists("SIGTERM") && !json(r#"["SIGTERMS"]"#).lists("SIGTERM"));
        let advanced = Raw { serialization: Serialization::Advanced, bytes: b"A\x01\"\x07SIGTERM$\0\x01" };
        assert!(advanced.lists("SIGTERM") && !advanced.lists("SIGTE") && !advanced.lists("SIGINT"));
        assert_eq!(json("\"a\"").text().as_deref(), Some("a"));
        assert_eq!(json("{}").text(), None);
    }
}
