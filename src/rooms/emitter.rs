//! What programs outside haft publish by `@socket.io/redis-emitter`, as it is told to members here. Pure.
//!
//! An emitter publishes a broadcast to `KEY#NAMESPACE#` or `KEY#NAMESPACE#ROOM#`: an array of MessagePack, which is its name,
//! a packet and options. It publishes what is to be done with sockets, or said to servers, to `KEY-request#NAMESPACE#`, as
//! JSON. Each host hears all that, and tells its own members. Their body is
//!
//! ```text
//! | 'E' | (length: 4 | piece: length)* |
//! ```
//!
//! with big-endian lengths: the order as JSON ([`EmitOrder`]), the values that go with it as a list of JSON, and the bytes in that
//! list, where Socket.IO's `{"_placeholder":true,"num":N}` stands for the piece N.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::msgpack::{MsgpackToken, Unpacker};
use haft_worker::protocol::rooms::EMITTED;

/// Longest message of an emitter, in bytes: 8 MiB.
const MAX_LENGTH: usize = 8 << 20;
/// How emitters name themselves.
const NAME: &str = "emitter";
/// The type of Socket.IO's packets that are events.
const EVENT: u64 = 2;
/// Events that are Socket.IO's own.
const RESERVED: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// The channels of emitters.
#[derive(Debug, Clone)]
pub(super) struct EmitterChannels {
    key: String,
}

impl EmitterChannels {
    /// `key`: that of the emitters.
    pub(super) fn new(key: &str) -> Self {
        Self { key: key.to_owned() }
    }

    /// What to subscribe to, as Redis' patterns.
    pub(super) fn patterns(&self) -> [String; 2] {
        let plain = self
            .key
            .chars()
            .flat_map(|c| matches!(c, '*' | '?' | '[' | ']' | '\\').then_some('\\').into_iter().chain([c]));
        let key: String = plain.collect();
        [format!("{key}#*"), format!("{key}-request#*")]
    }

    /// The body for members; nothing if it is not an emitter's. `id`: what no other message of this host is called by.
    pub(super) fn read(&self, channel: &[u8], payload: &[u8], id: &str) -> Option<Bytes> {
        if payload.len() > MAX_LENGTH {
            return None;
        }
        let channel = std::str::from_utf8(channel).ok()?.strip_prefix(&self.key)?;
        match channel.strip_prefix("-request#") {
            Some(namespace) => request(namespace.strip_suffix('#')?, payload),
            None => broadcast(payload, id),
        }
    }
}

/// What members are to do.
#[derive(Debug, Serialize)]
struct EmitOrder<'o> {
    act: Act,
    nsp: &'o str,
    options: Options,
    /// The broadcast's name, where clients are made up for what they have missed.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'o str>,
    /// To be joined, or left.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rooms: Vec<Room>,
    /// The connection is closed, too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    close: bool,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Act {
    Emit,
    Join,
    Leave,
    Disconnect,
    Side,
}

/// For whom it is.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Options {
    rooms: Vec<Room>,
    except: Vec<Room>,
    flags: EmitFlags,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct EmitFlags {
    #[serde(skip_serializing_if = "Option::is_none")]
    volatile: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compress: Option<bool>,
}

/// To Socket.IO 5 and "5" are two rooms.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Room {
    Text(String),
    Number(serde_json::Number),
}

#[derive(Debug, Deserialize)]
struct EmitterRequest<'r> {
    r#type: u8,
    uid: Option<String>,
    #[serde(default)]
    opts: Options,
    #[serde(default)]
    rooms: Vec<Room>,
    #[serde(default)]
    close: bool,
    #[serde(borrow)]
    data: Option<&'r RawValue>,
}

fn broadcast(payload: &[u8], id: &str) -> Option<Bytes> {
    let mut unpacker = Unpacker::new(payload);
    let MsgpackToken::Array(3) = unpacker.token()? else { return None };
    let MsgpackToken::Text(name) = unpacker.token()? else { return None };
    if name != NAME.as_bytes() {
        return None;
    }
    let MsgpackToken::Map(fields) = unpacker.token()? else { return None };
    let (mut nsp, mut data, mut bytes, mut kind) = (None, None, Vec::new(), None);
    for _ in 0..fields {
        let MsgpackToken::Text(field) = unpacker.token()? else { return None };
        match field {
            b"type" => kind = Some(unpacker.token()?),
            b"nsp" => nsp = Some(unpacker.token()?),
            b"data" if data.is_none() => data = Some(event(&mut unpacker, &mut bytes)?),
            _ => unpacker.json(&mut String::new(), &mut Vec::new())?,
        }
    }
    let (Some(MsgpackToken::Unsigned(EVENT)), Some(MsgpackToken::Text(nsp))) = (kind, nsp) else { return None };
    let mut text = String::new();
    unpacker.json(&mut text, &mut Vec::new())?;
    let options = serde_json::from_str(&text).ok()?;
    let nsp = std::str::from_utf8(nsp).ok()?;
    let order = EmitOrder { act: Act::Emit, nsp, options, id: Some(id), rooms: Vec::new(), close: false };
    unpacker.is_empty().then(|| body(&order, &data?, &bytes))?
}

/// An event and its values, as JSON.
fn event<'b>(unpacker: &mut Unpacker<'b>, bytes: &mut Vec<&'b [u8]>) -> Option<String> {
    let mut ahead = unpacker.clone();
    let MsgpackToken::Array(1..) = ahead.token()? else { return None };
    let MsgpackToken::Text(name) = ahead.token()? else { return None };
    if RESERVED.iter().any(|reserved| reserved.as_bytes() == name) {
        return None;
    }
    let mut data = String::new();
    unpacker.json(&mut data, bytes)?;
    Some(data)
}

fn request(nsp: &str, payload: &[u8]) -> Option<Bytes> {
    let EmitterRequest { r#type, uid, opts, rooms, close, data } = serde_json::from_slice(payload).ok()?;
    // Servers that have an adapter for Redis name themselves, and ask each other.
    if uid.is_some_and(|uid| uid != NAME) {
        return None;
    }
    let act = match r#type {
        2 => Act::Join,
        3 => Act::Leave,
        4 => Act::Disconnect,
        6 => Act::Side,
        _ => return None,
    };
    let data = match (act, data) {
        (Act::Side, Some(data)) if data.get().starts_with('[') => data.get(),
        (Act::Side, _) => return None,
        _ => "[]",
    };
    // It is not nested deeper than any reader can take.
    serde_json::from_str::<serde_json::Value>(data).ok()?;
    body(&EmitOrder { act, nsp, options: opts, id: None, rooms, close }, data, &[])
}

fn body(order: &EmitOrder<'_>, data: &str, bytes: &[&[u8]]) -> Option<Bytes> {
    let order = serde_json::to_vec(order).ok()?;
    let mut body = BytesMut::with_capacity(64 + order.len() + data.len());
    body.put_u8(EMITTED);
    for piece in [&order, data.as_bytes()].into_iter().chain(bytes.iter().copied()) {
        body.put_u32(u32::try_from(piece.len()).ok()?);
        body.put_slice(piece);
    }
    Some(body.freeze())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rmpv::Value;
    use serde_json::json;

    use super::*;

    fn read(channel: &str, payload: &[u8]) -> Option<(serde_json::Value, serde_json::Value, Vec<Vec<u8>>)> {
        let body = EmitterChannels::new("socket.io").read(channel.as_bytes(), payload, "id")?;
        let (kind, mut rest) = body.split_first().expect("a kind");
        assert_eq!(*kind, EMITTED);
        let mut pieces = Vec::new();
        while let Some((length, more)) = rest.split_first_chunk::<4>() {
            let (piece, more) = more.split_at(u32::from_be_bytes(*length) as usize);
            pieces.push(piece.to_vec());
            rest = more;
        }
        let read = |piece: &[u8]| serde_json::from_slice(piece).expect("JSON");
        Some((read(&pieces[0]), read(&pieces[1]), pieces.split_off(2)))
    }

    fn packed(value: &serde_json::Value, bytes: Option<&[u8]>) -> Vec<u8> {
        let mut value = rmpv::ext::to_value(value).expect("a value");
        if let (Some(bytes), Some(data)) = (bytes, value[1]["data"].as_array().cloned()) {
            let Value::Array(parts) = &mut value else { unreachable!() };
            let Value::Map(packet) = &mut parts[1] else { unreachable!() };
            let data: Vec<_> = data.into_iter().chain([Value::Binary(bytes.to_vec())]).collect();
            packet
                .iter_mut()
                .filter(|(key, _)| key.as_str() == Some("data"))
                .for_each(|(_, it)| *it = data.clone().into());
        }
        let mut payload = Vec::new();
        rmpv::encode::write_value(&mut payload, &value).expect("written");
        payload
    }

    fn emitted() -> serde_json::Value {
        let packet = json!({ "type": 2, "data": ["news", { "b": 1, "a": [null, "ä"] }], "nsp": "/chat" });
        json!(["emitter", packet, { "rooms": ["a", 5], "flags": { "volatile": true, "local": 1 }, "except": ["b"] }])
    }

    #[test]
    fn a_broadcast_says_what_to_whom() {
        let (order, data, bytes) = read("socket.io#/chat#", &packed(&emitted(), Some(b"xyz"))).expect("an order");
        let options = json!({ "rooms": ["a", 5], "except": ["b"], "flags": { "volatile": true } });
        assert_eq!(order, json!({ "act": "emit", "nsp": "/chat", "options": options, "id": "id" }));
        assert_eq!(data, json!(["news", { "b": 1, "a": [null, "ä"] }, { "_placeholder": true, "num": 0 }]));
        assert_eq!(bytes, [b"xyz"]);
        assert!(read("socket.io#/chat#a#", &packed(&emitted(), None)).is_some_and(|(_, _, bytes)| bytes.is_empty()));
    }

    #[test]
    fn what_is_not_an_emitter_s_is_nothing() {
        let broken = |change: fn(&mut serde_json::Value)| {
            let mut value = emitted();
            change(&mut value);
            read("socket.io#/chat#", &packed(&value, None))
        };
        assert!(broken(|_| ()).is_some());
        for change in [
            (|value| value[0] = json!("another")) as fn(&mut serde_json::Value),
            |value| value[1]["type"] = json!(3),
            |value| value[1]["nsp"] = json!(1),
            |value| value[1]["data"] = json!([]),
            |value| value[1]["data"] = json!("news"),
            |value| value[1]["data"][0] = json!("disconnect"),
            |value| value[2]["rooms"] = json!("a"),
            |value| value[2]["rooms"] = json!([[]]),
            |value| value[2] = json!(1),
            |value| *value = json!(["emitter", {}, {}, {}]),
        ] {
            assert!(broken(change).is_none());
        }
        assert!(read("another#/chat#", &packed(&emitted(), None)).is_none());
        assert!(read("socket.io#/#", &[packed(&emitted(), None), vec![0xc0]].concat()).is_none());
        assert!(read("socket.io#/#", &vec![0x90; MAX_LENGTH + 1]).is_none());
    }

    #[test]
    fn requests_move_sockets_and_speak_to_servers() {
        let of = |request: &str| read("socket.io-request#/chat#", request.as_bytes());
        let (order, ..) = of(r#"{"type":2,"opts":{"rooms":["a"],"except":[]},"rooms":["b",7]}"#).expect("an order");
        let options = json!({ "rooms": ["a"], "except": [], "flags": {} });
        assert_eq!(order, json!({ "act": "join", "nsp": "/chat", "options": options, "rooms": ["b", 7] }));
        let (order, ..) = of(r#"{"type":4,"opts":{"rooms":[],"except":["a"]},"close":true}"#).expect("an order");
        let options = json!({ "rooms": [], "except": ["a"], "flags": {} });
        assert_eq!(order, json!({ "act": "disconnect", "nsp": "/chat", "options": options, "close": true }));
        let (order, data, _) = of(r#"{"uid":"emitter","type":6,"data":["tell",{"z":1,"a":2}]}"#).expect("an order");
        assert_eq!((order["act"].as_str(), data), (Some("side"), json!(["tell", { "z": 1, "a": 2 }])));
        assert_eq!(of(r#"{"type":3,"opts":{},"rooms":["b"]}"#).expect("an order").0["act"], json!("leave"));
        // Servers with an adapter for Redis ask each other over the same channel.
        let deep = format!(r#"{{"type":6,"data":{}{}}}"#, "[".repeat(1000), "]".repeat(1000));
        assert!(of(&deep).is_none());
        for other in [r#"{"uid":"Xy","type":2,"opts":{},"rooms":[]}"#, r#"{"type":5}"#, r#"{"type":6}"#, "{", "", "[]"]
        {
            assert!(of(other).is_none(), "{other}");
        }
        assert!(read("socket.io-request#/chat", br#"{"type":4,"opts":{}}"#).is_none());
    }

    #[test]
    fn a_key_is_no_pattern() {
        assert_eq!(EmitterChannels::new("socket.io").patterns(), ["socket.io#*", "socket.io-request#*"]);
        assert_eq!(EmitterChannels::new("a*[b]?\\").patterns()[0], "a\\*\\[b\\]\\?\\\\#*");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200), is_request: bool) {
            let start = packed(&json!(["emitter", { "type": 2 }]), None);
            let channel = if is_request { "socket.io-request#/#" } else { "socket.io#/#" };
            let _ = read(channel, &bytes);
            let _ = read(channel, &[&start[..], &bytes].concat());
        }
    }
}
