//! The answer to a poll, with a share of the worker's memory for as long as its client has not read it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, SizeHint};

use super::budget::{Excess, HeldBytes, MemoryBudget};

/// An answer up to this size goes to the HTTP library whole, and is counted there (see [`MeteredStream`](super::metered::MeteredStream)).
pub(super) const UNCOUNTED: usize = PIECE;

/// The library is given so much at a time, and asks for more when it has written what it has.
pub(super) const PIECE: usize = 16 * 1024;

/// The body of a long answer.
#[derive(Debug)]
pub(super) struct Held {
    left: Bytes,
    hold: HeldBytes,
}

impl Held {
    /// # Errors
    /// The connection, or the worker, would hold too much. It is not counted as closed yet.
    pub(super) fn new(bytes: Bytes, budget: &Arc<MemoryBudget>) -> Result<Self, Excess> {
        let mut hold = budget.hold();
        hold.set(bytes.len())?;
        Ok(Self { left: bytes, hold })
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.left.is_empty() {
            return Poll::Ready(None);
        }
        // A copy: a part would keep the whole.
        let piece = Bytes::copy_from_slice(&this.left[..PIECE.min(this.left.len())]);
        this.left.advance(piece.len());
        if this.left.is_empty() {
            this.left = Bytes::new();
            // Less is always allowed.
            let _ = this.hold.set(0);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use haft_worker::scoreboard::Scoreboard;
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn it_is_counted_until_the_last_piece_and_is_whole() {
        let budget = MemoryBudget::new(200_000, Scoreboard::default());
        let whole: Bytes = (0..200_000_u32).map(|n| n as u8).collect::<Vec<_>>().into();
        let mut held = Held::new(whole.clone(), &budget).expect("room");
        assert_eq!(held.size_hint().exact(), Some(200_000));
        let mut received = Vec::new();
        while let Some(piece) = held.frame().await {
            assert_eq!(budget.held(), if held.is_end_stream() { 0 } else { 200_000 });
            received.extend(piece.expect("no error").into_data().expect("data"));
        }
        assert_eq!(received, whole);
    }

    #[test]
    fn there_is_none_where_the_worker_holds_too_much() {
        let budget = MemoryBudget::new(200_000, Scoreboard::default());
        let all: Vec<_> = std::iter::repeat_with(|| Held::new(vec![0; 600_000].into(), &budget)).take(100).collect();
        assert_eq!(all.iter().filter(|held| held.is_ok()).count(), 256 / 3);
        drop(all);
        assert_eq!(budget.held(), 0);
    }
}
