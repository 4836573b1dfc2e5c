//! Answers without an end. There are few at once, each waits for its reader beside the master's loop and holds one piece
//! for it, and the newest one takes the place of the oldest.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::answer::{Answer, live};
use super::change::ControlError;
use super::control::Control;
use super::places::{Stage, StageReport};

/// Where the status comes again and again, as server-sent events (the HTML standard, section 9.2).
pub(super) const EVENTS: &str = "/events";
const EVENT_STREAM: &str = "text/event-stream";
/// How often.
const EVERY: Duration = Duration::from_secs(1);
/// Streams at once.
const MAX_STREAMS: usize = 8;
/// How long a reader may take for one piece.
pub(super) const READING_TIME: Duration = Duration::from_secs(10);
/// How long the master may take to answer.
const REPLY_TIME: Duration = Duration::from_secs(2);
/// The event that ends a page's stream in favour of another page's: the page must not reconnect by itself, or two would take
/// turns.
const DISPLACED: &str = "event: displaced\ndata: \n\n";

/// The streams that there are, the oldest first.
#[derive(Debug, Default, Clone)]
pub(super) struct Streams(Arc<Mutex<VecDeque<Arc<Notify>>>>);

/// A stream's place among them, until it is dropped.
#[derive(Debug)]
pub(super) struct StreamPlace {
    streams: Streams,
    displaced: Arc<Notify>,
}

impl Streams {
    /// One stream more. If there are too many, the oldest one is to end.
    pub(super) fn begin(&self) -> StreamPlace {
        let displaced = Arc::new(Notify::new());
        let mut streams = self.lock();
        if streams.len() >= MAX_STREAMS
            && let Some(oldest) = streams.pop_front()
        {
            oldest.notify_one();
        }
        streams.push_back(Arc::clone(&displaced));
        drop(streams);
        StreamPlace { streams: self.clone(), displaced }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StreamPlace {
    /// Waits until it is to end for a newer one.
    pub(super) async fn is_displaced(&self) {
        self.displaced.notified().await;
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.streams.lock().retain(|stream| !Arc::ptr_eq(stream, &self.displaced));
    }
}

/// The status, now and each second.
pub(super) fn events(control: &Control, place: StreamPlace, progress: StageReport) -> Answer {
    let (pieces, received) = mpsc::channel(1);
    tokio::spawn(stream(control.clone(), place, progress, pieces));
    live(EVENT_STREAM, received)
}

/// The head of the same.
pub(super) fn events_head() -> Answer {
    live(EVENT_STREAM, mpsc::channel(1).1)
}

async fn stream(control: Control, place: StreamPlace, progress: StageReport, pieces: mpsc::Sender<Bytes>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = place.is_displaced() => {
                pieces.try_send(Bytes::from_static(DISPLACED.as_bytes())).ok();
                return;
            }
            () = pieces.closed() => return,
        }
        let piece = match timeout(REPLY_TIME, control.status()).await.unwrap_or(Err(ControlError::Late)) {
            Ok(json) => [b"data: ".as_slice(), &json, b"\n\n"].concat(),
            Err(error) => format!("event: silent\ndata: {error}\n\n").into_bytes(),
        };
        if !matches!(timeout(READING_TIME, pieces.send(piece.into())).await, Ok(Ok(()))) {
            // Its reader is gone, or has the time that any other has for the rest of an answer.
            progress.reach(Stage::Writing);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_stream_takes_the_place_of_the_oldest() {
        let streams = Streams::default();
        let mut places: Vec<StreamPlace> = (0..MAX_STREAMS).map(|_| streams.begin()).collect();
        drop(places.remove(3));
        places.push(streams.begin());
        assert_eq!(streams.lock().len(), MAX_STREAMS);
        let one_more = streams.begin();
        timeout(Duration::from_secs(60), places[0].displaced.notified()).await.expect("the oldest is notified");
        assert_eq!(streams.lock().len(), MAX_STREAMS);
        drop((places, one_more));
        assert!(streams.lock().is_empty());
    }
}
