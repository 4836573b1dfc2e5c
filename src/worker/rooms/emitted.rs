//! What programs outside haft have published for clients by `@socket.io/redis-emitter`.

use serde_json::Value as Json;

/// A message of the topic [`super::Rooms::EMITTED`].
#[derive(Debug, Clone, PartialEq)]
pub struct Emitted<'m> {
    /// What is to be done, as haft's protocol has it: `act` (`emit`, `join`, `leave`, `disconnect`, `side`), `nsp`, and `options`
    /// with `rooms`, `except` and `flags`.
    pub order: Json,
    /// A list as JSON: the event's name, and its values.
    pub data: &'m [u8],
    /// The bytes in it, for which `{"_placeholder":true,"num":N}` stands.
    pub bytes: Vec<&'m [u8]>,
}

impl<'m> Emitted<'m> {
    /// Reads a payload; nothing if it is none.
    pub fn read(payload: &'m [u8]) -> Option<Self> {
        let mut rest = payload;
        let mut take = || {
            let (length, more) = rest.split_first_chunk::<4>()?;
            let (piece, more) = more.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            rest = more;
            Some(piece)
        };
        let (order, data) = (serde_json::from_slice(take()?).ok()?, take()?);
        let bytes = std::iter::from_fn(take).collect();
        rest.is_empty().then_some(Self { order, data, bytes })
    }

    /// The names of rooms in a list of the order.
    pub fn rooms(list: &Json) -> Vec<String> {
        let name = |room: &Json| room.as_str().map_or_else(|| room.to_string(), str::to_owned);
        list.as_array().into_iter().flatten().map(name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_read() {
        let piece = |piece: &[u8]| [&(piece.len() as u32).to_be_bytes()[..], piece].concat();
        let payload = [piece(br#"{"act":"emit"}"#), piece(b"[]"), piece(b"xyz"), piece(b"")].concat();
        let emitted = Emitted::read(&payload).expect("read");
        assert_eq!((&emitted.order["act"], emitted.data), (&Json::from("emit"), &b"[]"[..]));
        assert_eq!(emitted.bytes, [&b"xyz"[..], b""]);
        for length in (0..payload.len()).filter(|length| ![20 + 4, 20 + 4 + 7].contains(length)) {
            assert_eq!(Emitted::read(&payload[..length]), None, "{length}");
        }
        assert_eq!(Emitted::rooms(&serde_json::json!(["a", 5])), ["a", "5"]);
        assert!(Emitted::rooms(&Json::Null).is_empty());
    }
}
