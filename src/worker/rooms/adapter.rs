//! The rooms of socketioxide, shared by all workers.

use socketioxide_redis::drivers::{ChanItem, Driver, MessageStream};
use socketioxide_redis::{CustomRedisAdapter, RedisAdapterConfig, RedisAdapterCtr};
use tokio::sync::mpsc;

use super::{Listener, Rooms, RoomsError};

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
        self.add(chan, Listener::Adapter(sender));
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
