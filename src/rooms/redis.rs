//! The link between the relays of several hosts: one for each host, over Redis' PUBLISH and SUBSCRIBE.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, RedisError};
use futures_util::StreamExt;
use tokio::sync::mpsc::Receiver;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::bridge::{BEAT, VERSION};
use super::counts::DropReason;
use super::emitter::EmitterChannels;
use super::relay::{Published, Relay};

/// How long connecting may take, publishing, and until what is published here arrives here.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts to connect: at first, and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];
/// Most messages in one write.
const BATCH: usize = 256;

/// Where the other hosts are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisLink {
    /// `redis://`, `rediss://` or `unix://`, with name and password if there are any.
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
    #[error("it does not answer")]
    Silent,
    #[error("it has closed the connection")]
    Closed,
}

impl RedisLink {
    fn all_hosts(&self) -> String {
        format!("{}:rooms:{VERSION}", self.prefix)
    }

    fn of_host(&self, host: u32) -> String {
        format!("{}:rooms:{VERSION}:{host:x}", self.prefix)
    }

    /// The URL without the password.
    fn shown(&self) -> String {
        match (self.url.split_once("://"), self.url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
            _ => self.url.clone(),
        }
    }
}

/// Bridges the relay to those of other hosts, as long as it lives.
pub(super) async fn bridge(link: RedisLink, relay: Rc<RefCell<Relay>>, queue: Receiver<Published>) {
    let client = match Client::open(link.url.as_str()) {
        Ok(client) => client,
        Err(error) => {
            tracing::error!("rooms are this host's own: --redis {}: {error}", link.shown());
            return;
        }
    };
    spawn_local(publish(client.clone(), link.clone(), Rc::clone(&relay), queue));
    spawn_local(beat(Rc::clone(&relay)));
    let mut pause = PAUSES[0];
    let mut logged = false;
    let mut is_refusal_logged = false;
    loop {
        let Err(why) = listen(&client, &link, &relay, &mut is_refusal_logged).await;
        let was_linked = relay.borrow_mut().linked(false);
        if was_linked {
            pause = PAUSES[0];
        }
        let is_first = !std::mem::replace(&mut logged, true);
        if was_linked || is_first {
            tracing::warn!(
                "the link to Redis at {} is broken, and rooms are this host's own until it is mended: {why}",
                link.shown()
            );
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSES[1]);
    }
}

/// Receives what is published, until the link breaks. The link holds as long as what is published here also arrives
/// here.
async fn listen(
    client: &Client,
    link: &RedisLink,
    relay: &Rc<RefCell<Relay>>,
    is_refusal_logged: &mut bool,
) -> Result<std::convert::Infallible, Broken> {
    let mut subscribed = timeout(PATIENCE, client.get_async_pubsub()).await.map_err(|_| Broken::Silent)??;
    let own = relay.borrow().host();
    let channels = [link.all_hosts(), link.of_host(own)];
    timeout(PATIENCE, subscribed.subscribe(&channels[..])).await.map_err(|_| Broken::Silent)??;
    let emitters = link.emitter.as_deref().map(EmitterChannels::new);
    if let Some(emitters) = &emitters {
        let patterns = emitters.patterns();
        let refused = timeout(PATIENCE, subscribed.psubscribe(&patterns[..])).await.map_err(|_| Broken::Silent)?;
        // Rooms are shared all the same.
        if let Err(error) = refused
            && !std::mem::replace(is_refusal_logged, true)
        {
            let channels = patterns.join(" ");
            tracing::warn!(%error, channels, "emitters outside haft are not heard: Redis refuses their channels to haft");
        }
    }
    relay.borrow_mut().publish_state(true);
    let mut messages = subscribed.into_on_message();
    let mut own_seen = Instant::now();
    loop {
        let left = PATIENCE.saturating_sub(own_seen.elapsed());
        let message = timeout(left, messages.next()).await.map_err(|_| Broken::Silent)?.ok_or(Broken::Closed)?;
        if let (Some(emitters), true) = (&emitters, message.from_pattern()) {
            let channel = message.get_channel_name().as_bytes();
            relay.borrow_mut().receive_emitted(emitters, channel, message.get_payload_bytes());
            continue;
        }
        let is_own = relay.borrow_mut().receive_remote(message.get_payload_bytes(), Instant::now());
        if is_own {
            own_seen = Instant::now();
            if !relay.borrow_mut().linked(true) {
                tracing::info!("rooms are shared with other hosts over Redis at {} ({})", link.shown(), channels[0]);
            }
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
async fn publish(client: Client, link: RedisLink, relay: Rc<RefCell<Relay>>, mut queue: Receiver<Published>) {
    let mut connection: Option<MultiplexedConnection> = None;
    while let Some(first) = queue.recv().await {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(next) = queue.try_recv()
        {
            batch.push(next);
        }
        relay.borrow_mut().published(batch.iter().map(|it| it.payload.len()).sum());
        if let Err(error) = send(&client, &link, &mut connection, &batch).await {
            connection = None;
            let messages = batch.iter().filter(|it| it.is_message).count();
            relay.borrow().counts().dropped(DropReason::Redis, messages as u64);
            tracing::debug!(%error, messages, "messages for other hosts are dropped");
            sleep(PAUSES[0]).await;
        }
    }
}

async fn send(
    client: &Client,
    link: &RedisLink,
    connection: &mut Option<MultiplexedConnection>,
    batch: &[Published],
) -> Result<(), Broken> {
    let connection = match connection {
        Some(connection) => connection,
        None => {
            // The client's own limits are shorter: it would give up what Redis only takes its time for.
            let unlimited = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
            let connecting = timeout(PATIENCE, client.get_multiplexed_async_connection_with_config(&unlimited));
            connection.insert(connecting.await.map_err(|_| Broken::Silent)??)
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
    }
}
