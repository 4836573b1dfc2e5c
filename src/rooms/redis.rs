//! The link between the relays of several hosts: one for each host, over Redis' PUBLISH and SUBSCRIBE.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, ConnectionAddr, RedisError};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc::Receiver;
use tokio::task::{spawn_local, unconstrained};
use tokio::time::{sleep, timeout};

use super::bridge::{BEAT, VERSION};
use super::counts::DropReason;
use super::emitter::EmitterChannels;
use super::relay::{Published, Relay};
use super::servers::{PATIENCE, ServerFinder, ServerNotFound, parse};

/// Between two attempts to connect: at first, and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];
/// Most messages in one write.
const BATCH: usize = 256;

/// Where the other hosts are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisLink {
    /// As [`parse`] reads it, with name and password if there are any.
    pub url: String,
    /// What separates one application's rooms from another's.
    pub prefix: String,
    /// The key of emitters, if there may be any.
    pub emitter: Option<String>,
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error(transparent)]
    NotFound(#[from] ServerNotFound),
    #[error("it does not answer")]
    Silent,
    #[error("it has closed the connection")]
    Closed,
    #[error("no server is known yet")]
    Nowhere,
}

impl RedisLink {
    fn all_hosts(&self) -> String {
        format!("{}:rooms:{VERSION}", self.prefix)
    }

    fn of_host(&self, host: u32) -> String {
        format!("{}:rooms:{VERSION}:{host:x}", self.prefix)
    }

    /// The URL without passwords.
    fn shown(&self) -> String {
        let url = self.url.split_once('?').map_or(self.url.as_str(), |(url, _)| url);
        match (url.split_once("://"), url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
            _ => url.to_owned(),
        }
    }
}

/// The server that the link is with. What is published goes where this host listens, so that one that is found anew is for both.
type PresentServer = Rc<RefCell<Option<Client>>>;

/// One host's end of the link.
struct BridgeListener {
    link: RedisLink,
    relay: Rc<RefCell<Relay>>,
    finder: ServerFinder,
    present: PresentServer,
    is_refusal_logged: bool,
}

/// Bridges the relay to those of other hosts, as long as it lives.
pub(super) async fn bridge(link: RedisLink, relay: Rc<RefCell<Relay>>, queue: Receiver<Published>) {
    let finder = match parse(&link.url) {
        Ok(servers) => ServerFinder::new(servers, relay.borrow().host()),
        Err(error) => {
            tracing::error!("rooms are this host's own: --redis {}: {error}", link.shown());
            return;
        }
    };
    let present = PresentServer::default();
    spawn_local(publish(Rc::clone(&present), link.clone(), Rc::clone(&relay), queue));
    spawn_local(beat(Rc::clone(&relay)));
    let mut listener = BridgeListener { link, relay, finder, present, is_refusal_logged: false };
    let mut pause = PAUSES[0];
    let mut logged = false;
    loop {
        let Err(why) = listener.listen().await;
        let was_linked = listener.relay.borrow_mut().linked(false);
        if was_linked {
            pause = PAUSES[0];
        }
        let is_first = !std::mem::replace(&mut logged, true);
        if was_linked || is_first {
            tracing::warn!(
                "the link to Redis at {} is broken, and rooms are this host's own until it is mended: {why}",
                listener.place()
            );
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES[1]);
    }
}

impl BridgeListener {
    /// Where Redis is, for people: the URL, and which server of several.
    fn place(&self) -> String {
        let url = self.link.shown();
        match &*self.present.borrow() {
            Some(server) if self.finder.has_several() => format!("{} ({url})", server.get_connection_info().addr()),
            _ => url,
        }
    }

    /// Receives what is published, until the link breaks. The link holds as long as what is published here also arrives
    /// here.
    async fn listen(&mut self) -> Result<std::convert::Infallible, Broken> {
        let server = self.finder.find().await?;
        *self.present.borrow_mut() = Some(server.clone());
        let mut subscribed = timeout(PATIENCE, server.get_async_pubsub()).await.map_err(|_| Broken::Silent)??;
        let own = self.relay.borrow().host();
        let channels = [self.link.all_hosts(), self.link.of_host(own)];
        timeout(PATIENCE, subscribed.subscribe(&channels[..])).await.map_err(|_| Broken::Silent)??;
        let emitters = self.link.emitter.as_deref().map(EmitterChannels::new);
        if let Some(emitters) = &emitters {
            let patterns = emitters.patterns();
            let refused = timeout(PATIENCE, subscribed.psubscribe(&patterns[..])).await.map_err(|_| Broken::Silent)?;
            // Rooms are shared all the same.
            if let Err(error) = refused
                && !std::mem::replace(&mut self.is_refusal_logged, true)
            {
                let channels = patterns.join(" ");
                tracing::warn!(%error, channels, "emitters outside haft are not heard: Redis refuses their channels to haft");
            }
        }
        self.relay.borrow_mut().publish_state(true);
        let mut messages = subscribed.into_on_message();
        let mut own_seen = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(own_seen.elapsed());
            let first = timeout(left, messages.next()).await.map_err(|_| Broken::Silent)?.ok_or(Broken::Closed)?;
            let mut next = Some(first);
            while let Some(message) = next {
                if self.receive(&message, emitters.as_ref()) {
                    own_seen = Instant::now();
                    self.hold(&channels[0]);
                }
                // All that was read, at once. The client queues without a bound what it reads, and it reads when this task waits:
                // so no more is queued than one turn of it reads, and the rest stays with the kernel and Redis.
                next = unconstrained(messages.next()).now_or_never().flatten();
            }
        }
    }

    /// Takes in what was published. Returns whether it was this host's own.
    fn receive(&self, message: &::redis::Msg, emitters: Option<&EmitterChannels>) -> bool {
        let mut relay = self.relay.borrow_mut();
        if let (Some(emitters), true) = (emitters, message.from_pattern()) {
            relay.receive_emitted(emitters, message.get_channel_name().as_bytes(), message.get_payload_bytes());
            return false;
        }
        relay.receive_remote(message.get_payload_bytes(), Instant::now())
    }

    /// What was published here has arrived here.
    fn hold(&self, channel: &str) {
        if !self.relay.borrow_mut().linked(true) {
            tracing::info!("rooms are shared with other hosts over Redis at {} ({channel})", self.place());
        }
    }
}

/// Publishes this host's heartbeat, and notices missing ones.
async fn beat(relay: Rc<RefCell<Relay>>) {
    loop {
        sleep(BEAT).await;
        let mut relay = relay.borrow_mut();
        relay.expire_hosts(Instant::now());
        relay.beat();
    }
}

/// Publishes what waits. What cannot be published is dropped, and counted.
async fn publish(present: PresentServer, link: RedisLink, relay: Rc<RefCell<Relay>>, mut queue: Receiver<Published>) {
    let mut connection: Option<(ConnectionAddr, MultiplexedConnection)> = None;
    while let Some(first) = queue.recv().await {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(next) = queue.try_recv()
        {
            batch.push(next);
        }
        relay.borrow_mut().published(batch.iter().map(|it| it.payload.len()).sum());
        if let Err(error) = send(&present, &link, &mut connection, &batch).await {
            connection = None;
            let messages = batch.iter().filter(|it| it.is_message).count();
            relay.borrow().counts().dropped(DropReason::Redis, messages as u64);
            tracing::debug!(%error, messages, "messages for other hosts are dropped");
            sleep(PAUSES[0]).await;
        }
    }
}

async fn send(
    present: &PresentServer,
    link: &RedisLink,
    connection: &mut Option<(ConnectionAddr, MultiplexedConnection)>,
    batch: &[Published],
) -> Result<(), Broken> {
    let server = present.borrow().clone().ok_or(Broken::Nowhere)?;
    let addr = server.get_connection_info().addr();
    let connection = match connection {
        Some((to, connection)) if to == addr => connection,
        _ => {
            // The client's own limits are shorter: it would give up what Redis only takes its time for.
            let unlimited = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
            let connecting = timeout(PATIENCE, server.get_multiplexed_async_connection_with_config(&unlimited));
            let connected = connecting.await.map_err(|_| Broken::Silent)??;
            &mut connection.insert((addr.clone(), connected)).1
        }
    };
    let mut commands = ::redis::pipe();
    for Published { host, payload, .. } in batch {
        let channel = host.map_or_else(|| link.all_hosts(), |host| link.of_host(host));
        commands.cmd("PUBLISH").arg(channel).arg(&payload[..]).ignore();
    }
    Ok(timeout(PATIENCE, commands.exec_async(connection)).await.map_err(|_| Broken::Silent)??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let shown = |url: &str| RedisLink { url: url.to_owned(), prefix: "x".to_owned(), emitter: None }.shown();
        assert_eq!(shown("redis://127.0.0.1:6379"), "redis://127.0.0.1:6379");
        assert_eq!(shown("rediss://me:se@cret@redis.example:6380/1"), "rediss://redis.example:6380/1");
        assert_eq!(shown("redis+sentinel://:secret@a,b/chat?sentinel_password=secret"), "redis+sentinel://a,b/chat");
    }
}
