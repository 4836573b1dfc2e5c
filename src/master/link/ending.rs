//! What becomes of connections in flight when the worker, or the master, ends.

use std::collections::VecDeque;
use std::time::Instant;

use super::in_flight::give_back;
use super::{Connection, End, Ledger, Link, NodeDesk};

impl Link {
    /// The worker is dead: takes in its last words, then gives back what it had not acknowledged. The channel is
    /// drained first, so that nothing it had acknowledged is sent again.
    pub fn reclaim(
        mut self,
        held: &mut VecDeque<Connection>,
        ledger: &mut Ledger,
        mut desk: Option<&mut NodeDesk>,
        now: Instant,
    ) {
        // What a dead worker has written fits a socket's buffer; only what it has started could go on for ever.
        for _ in 0..64 {
            match self.receive(held, ledger, desk.as_deref_mut(), &mut Vec::new(), now) {
                Ok(false) => {}
                Ok(true) => break,
                Err(error) => {
                    tracing::debug!(worker = self.worker.0, %error, "the last words of a worker");
                    break;
                }
            }
        }
        let unread_from = match &mut self.end {
            End::Haft(end) => end.unread_from().unwrap_or(u64::MAX),
            // A Node worker's queue dies with it: what was in it cannot be told from what it had received.
            End::Node(_) | End::ListenFds(_) => u64::MAX,
        };
        let mut unread = 0;
        let connections: Vec<Connection> = self
            .outbox
            .reclaim()
            .map(|(sequence, mut connection)| {
                unread += u64::from(sequence >= unread_from);
                // Another worker is to come: the time to wait for it starts now.
                connection.held_since = now;
                connection
            })
            .collect();
        ledger.redelivered_unread += unread;
        ledger.redelivered_unacknowledged += connections.len() as u64 - unread;
        give_back(connections.into_iter(), held);
    }

    /// The master ends: what is in flight is the worker's.
    pub fn abandon(mut self) {
        self.outbox.reclaim().for_each(|(_, connection)| connection.close_delivered());
    }
}
