//! The rooms of socketioxide, shared by all workers.

use bytes::Bytes;
use serde_json::Value as Json;
use socketioxide_core::adapter::remote_packet::{RequestOut, RequestTypeOut};
use socketioxide_core::adapter::{BroadcastFlags, BroadcastOptions, Room};
use socketioxide_core::packet::Packet;
use socketioxide_core::{Uid, Value};
use socketioxide_redis::drivers::{ChanItem, Driver, MessageStream};
use socketioxide_redis::{CustomRedisAdapter, RedisAdapterConfig, RedisAdapterCtr};
use tokio::sync::mpsc;

use super::{Emitted, Rooms, RoomsError, TopicListener};

/// socketioxide's adapter over haft. No Redis is involved but the one that haft may be configured with (`--redis`).
pub type RoomsAdapter<E> = CustomRedisAdapter<E, Rooms>;

impl Rooms {
    /// What `SocketIo::builder().with_adapter::<RoomsAdapter<_>>(...)` takes.
    pub fn adapter(&self) -> RedisAdapterCtr<Self> {
        RedisAdapterCtr::new_with_driver(self.clone(), RedisAdapterConfig::new())
    }
}

impl Driver for Rooms {
    type Error = RoomsError;

    async fn publish(&self, chan: String, val: Vec<u8>) -> Result<(), RoomsError> {
        Rooms::publish(self, &chan, &val).await
    }

    async fn subscribe(&self, chan: String, size: usize) -> Result<MessageStream<ChanItem>, RoomsError> {
        let (sender, messages) = mpsc::channel(size.max(1));
        self.add(chan, TopicListener::Adapter(sender));
        Ok(MessageStream::new(messages))
    }

    async fn unsubscribe(&self, chan: String) -> Result<(), RoomsError> {
        self.remove(&chan);
        Ok(())
    }

    async fn num_serv(&self, chan: &str) -> Result<u16, RoomsError> {
        Ok(u16::try_from(self.listeners(chan)).unwrap_or(u16::MAX))
    }
}

impl Emitted<'_> {
    /// The same as adapters hear it of another server: their topic, and the message. Nothing if it has no meaning for them.
    pub(super) fn as_request(&self) -> Option<(String, Vec<u8>)> {
        let Self { order, data, bytes } = self;
        let rooms = |list: &Json| -> Vec<Room> { Self::rooms(list).into_iter().map(Room::from).collect() };
        let nsp = order["nsp"].as_str()?;
        let mut options = BroadcastOptions::default();
        options.rooms = rooms(&order["options"]["rooms"]).into();
        options.except = rooms(&order["options"]["except"]).into();
        if options.rooms.is_empty() {
            options.add_flag(BroadcastFlags::Broadcast);
        }
        if order["options"]["flags"]["volatile"] == true {
            options.add_flag(BroadcastFlags::Volatile);
        }
        let moved = rooms(&order["rooms"]);
        let packet;
        let what = match order["act"].as_str()? {
            "emit" => {
                let text = String::from_utf8(data.to_vec()).ok()?;
                let apart = bytes.iter().map(|piece| Bytes::copy_from_slice(piece)).collect();
                packet = Packet::event(nsp.to_owned(), Value::Str(text.into(), (!bytes.is_empty()).then_some(apart)));
                RequestTypeOut::Broadcast(&packet)
            }
            "join" => RequestTypeOut::AddSockets(&moved),
            "leave" => RequestTypeOut::DelSockets(&moved),
            "disconnect" => RequestTypeOut::DisconnectSockets,
            _ => return None,
        };
        let message = rmp_serde::to_vec(&RequestOut::new(Uid::new(), what, &options)).ok()?;
        Some((format!("socket.io-request#{nsp}#"), message))
    }
}

#[cfg(test)]
mod tests {
    use socketioxide_core::adapter::remote_packet::{RequestIn, RequestTypeIn};
    use socketioxide_core::packet::PacketData;

    use super::*;

    fn read(order: Json, data: &str, bytes: &[&[u8]]) -> Option<(String, RequestIn)> {
        let emitted = Emitted { order, data: data.as_bytes(), bytes: bytes.to_vec() };
        let (topic, message) = emitted.as_request()?;
        Some((topic, rmp_serde::from_slice(&message).expect("a request")))
    }

    #[test]
    fn a_broadcast_is_one_of_another_server() {
        let options = serde_json::json!({ "rooms": ["a", 5], "except": ["b"], "flags": { "volatile": true } });
        let order = serde_json::json!({ "act": "emit", "nsp": "/chat", "options": options });
        let (topic, request) = read(order, r#"["news",1]"#, &[]).expect("an order");
        assert_eq!(topic, "socket.io-request#/chat#");
        let options = request.opts.expect("options");
        assert_eq!((&options.rooms[..], &options.except[..]), (&["a".into(), "5".into()][..], &["b".into()][..]));
        assert!(options.has_flag(BroadcastFlags::Volatile) && !options.has_flag(BroadcastFlags::Broadcast));
        let RequestTypeIn::Broadcast(packet) = request.r#type else { panic!("a broadcast") };
        assert_eq!(packet, Packet::event("/chat", Value::Str(r#"["news",1]"#.into(), None)));

        let order = serde_json::json!({ "act": "emit", "nsp": "/", "options": { "rooms": [], "flags": {} } });
        let (_, request) = read(order, r#"["news",{"_placeholder":true,"num":0}]"#, &[b"xyz"]).expect("an order");
        assert!(request.opts.expect("options").has_flag(BroadcastFlags::Broadcast));
        let RequestTypeIn::Broadcast(packet) = request.r#type else { panic!("a broadcast") };
        assert!(
            matches!(packet.inner, PacketData::BinaryEvent(Value::Str(_, Some(bytes)), None) if bytes[0] == b"xyz"[..])
        );
    }

    #[test]
    fn sockets_are_moved_and_disconnected() {
        let of = |act: &str| {
            read(
                serde_json::json!({ "act": act, "nsp": "/", "options": { "rooms": ["a"] }, "rooms": ["b"] }),
                "[]",
                &[],
            )
        };
        let kind = |act: &str| of(act).expect("an order").1.r#type;
        assert!(matches!(kind("join"), RequestTypeIn::AddSockets(rooms) if rooms == ["b"]));
        assert!(matches!(kind("leave"), RequestTypeIn::DelSockets(rooms) if rooms == ["b"]));
        assert!(matches!(kind("disconnect"), RequestTypeIn::DisconnectSockets));
        assert!(of("side").is_none() && of("another").is_none());
        assert!(read(serde_json::json!({}), "[]", &[]).is_none());
    }
}
