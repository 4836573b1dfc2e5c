//! Reading from the link, and writing to it.

use std::env;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::UnboundedReceiver;

use super::body::Body;
use super::{Queued, Rooms, RoomsMessage, TopicListener};
use crate::protocol::rooms::{Frame, Kind, Reader};

/// Most bytes that are gathered for one write.
const GATHERED: usize = 64 << 10;

/// This worker's description for the others.
pub(super) fn own_place() -> Vec<u8> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    serde_json::json!({ "slot": number("HAFT_SLOT"), "generation": number("HAFT_GENERATION") }).to_string().into_bytes()
}

/// Serves the link until it ends.
pub(super) fn begin(rooms: Rooms, stream: UnixStream, queue: UnboundedReceiver<Queued>) {
    let (reading, writing) = stream.into_split();
    tokio::spawn(say(writing, queue));
    tokio::spawn(async move {
        let why = receive(&rooms, reading).await;
        tracing::debug!(?why, "the link to the other workers has ended");
        rooms.state().others.clear();
        // Those that wait to send need not.
        rooms.0.room.close();
        rooms.changed();
    });
}

async fn say(mut stream: OwnedWriteHalf, mut queue: UnboundedReceiver<Queued>) {
    let mut gathered = BytesMut::new();
    while let Some(first) = queue.recv().await {
        let mut batch = vec![first];
        let mut bytes = batch[0].frame.len();
        while bytes < GATHERED
            && let Ok(next) = queue.try_recv()
        {
            bytes += next.frame.len();
            batch.push(next);
        }
        let written = if let [only] = &batch[..] {
            stream.write_all(&only.frame).await
        } else {
            batch.iter().for_each(|each| gathered.extend_from_slice(&each.frame));
            stream.write_all(&gathered.split()).await
        };
        if written.is_err() {
            return;
        }
    }
}

/// Yields why nothing more comes.
async fn receive(rooms: &Rooms, mut stream: OwnedReadHalf) -> String {
    let mut reader = Reader::default();
    loop {
        match stream.read_buf(reader.room()).await {
            Ok(0) => return "it was closed".to_owned(),
            Ok(_) => {}
            Err(error) => return error.to_string(),
        }
        loop {
            match reader.take() {
                Ok(Some(frame)) => rooms.take(&frame).await,
                Ok(None) => break,
                Err(malformed) => return malformed.to_string(),
            }
        }
    }
}

impl Rooms {
    async fn take(&self, frame: &Frame) {
        match frame.kind {
            Kind::Welcome => {}
            Kind::Ready => {
                let mut state = self.state();
                state.others.entry(frame.member).or_default();
                // It may have been taken for dead, and not know of it.
                self.send_topics(&state, frame.member, true);
                drop(state);
                self.changed();
            }
            Kind::Lost => {
                self.state().others.remove(&frame.member);
                self.changed();
            }
            Kind::Message => match Body::read(frame.body()) {
                Some(Body::Message { topic, payload }) => self.give(frame.member, topic, payload).await,
                Some(Body::Topics { topics, asks }) => {
                    let mut state = self.state();
                    if let Some(known) = state.others.get_mut(&frame.member) {
                        *known = topics.into_iter().map(str::to_owned).collect();
                    }
                    if asks {
                        self.send_topics(&state, frame.member, false);
                    }
                    drop(state);
                    self.changed();
                }
                Some(Body::Emitted { payload }) => {
                    #[cfg(feature = "socketioxide")]
                    if let Some((topic, request)) = super::Emitted::read(payload).and_then(|it| it.as_request()) {
                        self.give(frame.member, &topic, &request).await;
                    }
                    self.give(frame.member, Self::EMITTED, payload).await;
                }
                None => tracing::debug!(from = frame.member, "a message of another program"),
            },
        }
    }

    /// Waits for room, so that nothing is lost here.
    async fn give(&self, from: u64, topic: &str, payload: &[u8]) {
        let Some(listener) = self.state().topics.get(topic).cloned() else { return };
        let is_there = match listener {
            TopicListener::Messages(messages) => {
                messages.send(RoomsMessage { from, payload: Bytes::copy_from_slice(payload) }).await.is_ok()
            }
            #[cfg(feature = "socketioxide")]
            TopicListener::Adapter(messages) => messages.send((topic.to_owned(), payload.to_vec())).await.is_ok(),
        };
        if !is_there {
            self.remove(topic);
        }
    }
}
