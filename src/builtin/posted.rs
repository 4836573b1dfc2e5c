//! What a client posts: read whole, within the worker's bounds, and given to the engine in small parts.
//!
//! The engine handles all packets of a body in one go, each in a task of its own: a body of a megabyte can be a hundred
//! thousand of them. So it gets a few at a time, and what they cause has its turn in between.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use socketioxide::socket::Sid;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::answers::SEPARATOR;
use super::budget::{Excess, MemoryBudget};
use super::engine::Engine;
use super::outbox::PollingOutbox;

/// How long a whole request may take to arrive (Node's `server.requestTimeout`).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);

/// Packets, and bytes, that the engine is given at once. (One packet can be longer.)
const PACKETS: usize = 64;
const BYTES: usize = 16 * 1024;

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// It did not come in time.
    Late,
    /// The client went away in the middle.
    Broken,
    /// The worker holds too much.
    TooMuch,
}

/// Reads a body of up to `max` bytes. One that is longer comes cut, with one byte too many.
pub(super) async fn read<B>(mut body: B, max: usize, budget: &Arc<MemoryBudget>) -> Result<Bytes, Unread>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
{
    let mut hold = budget.hold();
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut whole = BytesMut::with_capacity(expected.min(BYTES));
    let reading = async {
        while let Some(frame) = body.frame().await {
            let Ok(mut data) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
            let room = (max + 1).saturating_sub(whole.len());
            data.truncate(room);
            whole.put(&mut data);
            if hold.set(whole.len().min(budget.each)).is_err() {
                budget.close(Excess::Worker);
                return Err(Unread::TooMuch);
            }
            if !data.has_remaining() && whole.len() > max {
                break;
            }
        }
        Ok(())
    };
    timeout(REQUEST_TIMEOUT, reading).await.map_err(|_| Unread::Late)??;
    Ok(whole.freeze())
}

/// Gives the engine what a session posted. Between the parts what waits for the session is counted: the session may end
/// of it. What the engine did not take stays in `body`.
pub(super) async fn give(
    engine: &Engine,
    sid: Sid,
    outbox: &PollingOutbox,
    body: &mut Bytes,
    max: usize,
) -> Response<Body> {
    if body.len() > max {
        return engine.post(sid, std::mem::take(body)).unwrap_or_else(failed);
    }
    loop {
        let length = part(body);
        let answer = engine.post(sid, body.slice(..length)).unwrap_or_else(failed);
        if answer.status() != StatusCode::OK {
            return answer;
        }
        // Without the separator.
        body.advance((length + 1).min(body.len()));
        if body.is_empty() && length < BYTES {
            return answer;
        }
        // What the packets caused runs first, and is counted.
        for _ in 0..3 {
            yield_now().await;
        }
        if !outbox.gather() || outbox.ended() || body.is_empty() {
            return answer;
        }
    }
}

/// How many messages a payload holds.
pub(super) fn messages(payload: &[u8]) -> u64 {
    payload.split(|byte| *byte == SEPARATOR).filter(|packet| matches!(packet, [b'4' | b'b', ..])).count() as u64
}

/// How long the first part of a payload is: whole packets, without the separator behind the last.
fn part(body: &[u8]) -> usize {
    let ends = memchr::memchr_iter(SEPARATOR, body).enumerate();
    let mut ends = ends.skip_while(|(packets, end)| packets + 1 < PACKETS && *end < BYTES);
    ends.next().map_or(body.len(), |(_, end)| end)
}

fn failed() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_messages_of_a_payload_are_counted() {
        for (payload, count) in [("", 0), ("3", 0), ("42[]", 1), ("3\x1e42[1]\x1ebAQ==\x1e2", 2)] {
            assert_eq!(messages(payload.as_bytes()), count, "{payload}");
        }
    }

    #[test]
    fn a_payload_is_cut_between_packets() {
        assert_eq!(part(b""), 0);
        assert_eq!(part(b"4a"), 2);
        assert_eq!(part(b"4a\x1e4b"), 5);
        let many = [b"4a".as_slice(); 200].join(&SEPARATOR);
        assert_eq!(part(&many), PACKETS * 3 - 1);
        let long = [vec![b'4'; BYTES], vec![b'4'; 10]].join(&SEPARATOR);
        assert_eq!(part(&long), BYTES);
        assert_eq!(part(&vec![b'4'; 100 * BYTES]), 100 * BYTES, "a packet is never cut");
    }
}
