//! MessagePack as JSON, with the bytes in it apart, as Socket.IO's own parser parts them. Pure.

use std::fmt::Write;

use rmp::Marker;

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 64;
/// The extension type of a time, by the specification.
const TIMESTAMP: i8 = -1;
const SECONDS_OF_DAY: i64 = 86_400;

/// What comes next in a message.
#[derive(Debug, PartialEq)]
pub(super) enum MsgpackToken<'b> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(&'b [u8]),
    Bytes(&'b [u8]),
    /// So many values follow.
    Array(usize),
    /// So many keys follow, each with its value.
    Map(usize),
    /// A time: seconds since 1970, and nanoseconds.
    Time(i64, u32),
}

/// Takes values off the front of bytes. Whatever they are, it takes no more memory than they do, and nothing is a panic.
#[derive(Debug, Clone)]
pub(super) struct Unpacker<'b> {
    rest: &'b [u8],
}

impl<'b> Unpacker<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next token; nothing if there is none, or it is cut off.
    pub(super) fn token(&mut self) -> Option<MsgpackToken<'b>> {
        let [marker] = self.array()?;
        Some(match Marker::from_u8(marker) {
            Marker::Null => MsgpackToken::Null,
            Marker::True => MsgpackToken::Bool(true),
            Marker::False => MsgpackToken::Bool(false),
            Marker::FixPos(value) => MsgpackToken::Unsigned(value.into()),
            Marker::FixNeg(value) => MsgpackToken::Signed(value.into()),
            Marker::U8 => MsgpackToken::Unsigned(u8::from_be_bytes(self.array()?).into()),
            Marker::U16 => MsgpackToken::Unsigned(u16::from_be_bytes(self.array()?).into()),
            Marker::U32 => MsgpackToken::Unsigned(u32::from_be_bytes(self.array()?).into()),
            Marker::U64 => MsgpackToken::Unsigned(u64::from_be_bytes(self.array()?)),
            Marker::I8 => MsgpackToken::Signed(i8::from_be_bytes(self.array()?).into()),
            Marker::I16 => MsgpackToken::Signed(i16::from_be_bytes(self.array()?).into()),
            Marker::I32 => MsgpackToken::Signed(i32::from_be_bytes(self.array()?).into()),
            Marker::I64 => MsgpackToken::Signed(i64::from_be_bytes(self.array()?)),
            Marker::F32 => MsgpackToken::Float(f32::from_be_bytes(self.array()?).into()),
            Marker::F64 => MsgpackToken::Float(f64::from_be_bytes(self.array()?)),
            Marker::FixStr(length) => MsgpackToken::Text(self.take(length.into())?),
            Marker::Str8 => MsgpackToken::Text(self.counted::<1>()?),
            Marker::Str16 => MsgpackToken::Text(self.counted::<2>()?),
            Marker::Str32 => MsgpackToken::Text(self.counted::<4>()?),
            Marker::Bin8 => MsgpackToken::Bytes(self.counted::<1>()?),
            Marker::Bin16 => MsgpackToken::Bytes(self.counted::<2>()?),
            Marker::Bin32 => MsgpackToken::Bytes(self.counted::<4>()?),
            Marker::FixArray(count) => MsgpackToken::Array(count.into()),
            Marker::Array16 => MsgpackToken::Array(self.count::<2>()?),
            Marker::Array32 => MsgpackToken::Array(self.count::<4>()?),
            Marker::FixMap(count) => MsgpackToken::Map(count.into()),
            Marker::Map16 => MsgpackToken::Map(self.count::<2>()?),
            Marker::Map32 => MsgpackToken::Map(self.count::<4>()?),
            Marker::FixExt4 => self.time(4)?,
            Marker::FixExt8 => self.time(8)?,
            Marker::Ext8 => {
                let length = self.count::<1>()?;
                self.time(length)?
            }
            Marker::FixExt1 | Marker::FixExt2 | Marker::FixExt16 | Marker::Ext16 | Marker::Ext32 | Marker::Reserved => {
                return None;
            }
        })
    }

    /// Writes the next value as JSON. Bytes in it are put behind `bytes`, and stand as what Socket.IO's parser has for them.
    pub(super) fn json(&mut self, into: &mut String, bytes: &mut Vec<&'b [u8]>) -> Option<()> {
        self.value(into, bytes, MAX_DEPTH)
    }

    fn value(&mut self, into: &mut String, bytes: &mut Vec<&'b [u8]>, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match self.token()? {
            MsgpackToken::Null => into.push_str("null"),
            MsgpackToken::Bool(value) => write!(into, "{value}").ok()?,
            MsgpackToken::Unsigned(value) => write!(into, "{value}").ok()?,
            MsgpackToken::Signed(value) => write!(into, "{value}").ok()?,
            MsgpackToken::Float(value) => into.push_str(&serde_json::to_string(&value).ok()?),
            MsgpackToken::Text(text) => push_text(into, text)?,
            MsgpackToken::Bytes(value) => {
                write!(into, r#"{{"_placeholder":true,"num":{}}}"#, bytes.len()).ok()?;
                bytes.push(value);
            }
            MsgpackToken::Time(seconds, nanoseconds) => write!(into, "\"{}\"", iso(seconds, nanoseconds)?).ok()?,
            MsgpackToken::Array(count) => {
                into.push('[');
                for at in 0..count {
                    if at > 0 {
                        into.push(',');
                    }
                    self.value(into, bytes, depth)?;
                }
                into.push(']');
            }
            MsgpackToken::Map(count) => {
                into.push('{');
                for at in 0..count {
                    if at > 0 {
                        into.push(',');
                    }
                    let MsgpackToken::Text(key) = self.token()? else { return None };
                    push_text(into, key)?;
                    into.push(':');
                    self.value(into, bytes, depth)?;
                }
                into.push('}');
            }
        }
        Some(())
    }

    fn time(&mut self, length: usize) -> Option<MsgpackToken<'b>> {
        let [kind] = self.array()?;
        if i8::from_be_bytes([kind]) != TIMESTAMP {
            return None;
        }
        Some(match length {
            4 => MsgpackToken::Time(u32::from_be_bytes(self.array()?).into(), 0),
            8 => {
                let both = u64::from_be_bytes(self.array()?);
                MsgpackToken::Time((both & ((1 << 34) - 1)) as i64, (both >> 34) as u32)
            }
            12 => {
                let nanoseconds = u32::from_be_bytes(self.array()?);
                MsgpackToken::Time(i64::from_be_bytes(self.array()?), nanoseconds)
            }
            _ => return None,
        })
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*array)
    }

    fn count<const N: usize>(&mut self) -> Option<usize> {
        Some(self.array::<N>()?.into_iter().fold(0, |count, byte| (count << 8) | usize::from(byte)))
    }

    fn counted<const N: usize>(&mut self) -> Option<&'b [u8]> {
        let length = self.count::<N>()?;
        self.take(length)
    }

    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}

fn push_text(into: &mut String, text: &[u8]) -> Option<()> {
    into.push_str(&serde_json::to_string(&String::from_utf8_lossy(text)).ok()?);
    Some(())
}

/// As `toISOString` of JavaScript has it; nothing beyond the years with four digits.
fn iso(seconds: i64, nanoseconds: u32) -> Option<String> {
    let (days, of_day) = (seconds.div_euclid(SECONDS_OF_DAY), seconds.rem_euclid(SECONDS_OF_DAY));
    // Days of the years from 0000-03-01 on, in eras of 400 years (H. Hinnant, chrono-compatible date algorithms).
    let days = days.checked_add(719_468)?;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let millisecond = nanoseconds / 1_000_000;
    let is_plain = (0..10_000).contains(&year) && millisecond < 1000;
    is_plain.then(|| format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rmpv::Value;

    use super::*;

    fn json(bytes: &[u8]) -> Option<(String, Vec<Vec<u8>>)> {
        let (mut text, mut apart, mut unpacker) = (String::new(), Vec::new(), Unpacker::new(bytes));
        unpacker.json(&mut text, &mut apart)?;
        unpacker.is_empty().then(|| (text, apart.into_iter().map(<[u8]>::to_vec).collect()))
    }

    fn packed(value: &Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, value).expect("written");
        bytes
    }

    fn values() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<i32>().prop_map(|eighths| (f64::from(eighths) / 8.0).into()),
            ".{0,300}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 40, 20, |inner| {
            let list = prop::collection::vec(inner.clone(), 0..20).prop_map(Into::into);
            let map = prop::collection::btree_map(".{0,8}", inner, 0..20)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect()));
            prop_oneof![list, map]
        })
    }

    proptest! {
        #[test]
        fn what_json_can_say_is_said(value in values()) {
            let packed = packed(&rmpv::ext::to_value(&value).expect("a value"));
            let (text, apart) = json(&packed).expect("read");
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("JSON"), value);
            prop_assert!(apart.is_empty());
            for length in 0..packed.len() {
                prop_assert_eq!(json(&packed[..length]), None, "cut off");
            }
        }

        #[test]
        fn any_bytes_give_json_or_nothing(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some((text, _)) = json(&bytes) {
                serde_json::from_str::<serde_json::Value>(&text).expect("JSON");
            }
        }
    }

    #[test]
    fn bytes_stand_apart_and_times_are_text() {
        let one = |bytes: &[u8]| json(bytes).expect("read");
        let bytes = Value::Array(vec![Value::Binary(vec![1, 2]), Value::Binary(vec![3; 70_000])]);
        let (text, apart) = one(&packed(&bytes));
        assert_eq!(text, r#"[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#);
        assert_eq!(apart, [vec![1, 2], vec![3; 70_000]]);
        let time = |seconds: i64, nanoseconds: u32| {
            let body = [&nanoseconds.to_be_bytes()[..], &seconds.to_be_bytes()].concat();
            json(&packed(&Value::Ext(TIMESTAMP, body))).map(|(text, _)| text)
        };
        for (seconds, nanoseconds, expected) in [
            (0, 0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, 7_000_000, "2000-02-29T00:00:00.007Z"),
            (-1, 999_000_000, "1969-12-31T23:59:59.999Z"),
            (253_402_300_799, 0, "9999-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(time(seconds, nanoseconds), Some(format!("\"{expected}\"")));
        }
        assert_eq!(
            (time(253_402_300_800, 0), time(i64::MAX, 0), time(i64::MIN, 0), time(0, u32::MAX)),
            Default::default()
        );
        assert_eq!(one(&[0xd6, 0xff, 0, 0, 0, 1]).0, "\"1970-01-01T00:00:01.000Z\"");
        let both = (5_000_000_u64 << 34) | 2;
        assert_eq!(one(&[&[0xd7, 0xff][..], &both.to_be_bytes()].concat()).0, "\"1970-01-01T00:00:02.005Z\"");
        assert_eq!(json(&[0xd6, 1, 0, 0, 0, 1]), None, "another extension");
        assert_eq!(one(&[0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0]).0, "null");
    }

    /// Neither depth nor a length that is only claimed costs anything.
    #[test]
    fn what_is_hostile_is_nothing() {
        assert_eq!(json(&[0x91; 1 << 20]), None);
        assert_eq!(json(&[0xdd, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(json(&[0xc6, 0xff, 0xff, 0xff, 0xff, 0]), None);
        assert_eq!(json(&[0x81, 0x01, 0x01]), None, "a key that is no text");
    }
}
