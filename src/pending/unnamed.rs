//! Connections whose session has no owner yet.
//!
//! Workers with @socket.io/sticky name a session after they have sent its id to the client. A client that is back
//! at once may be quicker than that word; by its address it would meet a worker that does not know its session.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::connection::{ClientConnection, RouteBy};
use crate::node::named::SessionKey;
use crate::route::Tag;

/// How long a name is waited for. A worker names a session in its next turn, which on a busy machine can be a while
/// away. Ended and made-up sessions wait this long before their clients learn that, so it is short.
const PATIENCE: Duration = Duration::from_millis(250);
/// Maximum number that wait at once. Names arrive within milliseconds, so few do, unless clients forge ids.
const MOST: usize = 256;

/// Those that wait, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct AwaitingOwner {
    waiting: VecDeque<(ClientConnection, SessionKey, Instant)>,
}

impl AwaitingOwner {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes one in, or gives it back where too many wait: it goes by its address then.
    pub(super) fn push(
        &mut self,
        connection: ClientConnection,
        key: SessionKey,
        now: Instant,
    ) -> Option<ClientConnection> {
        if self.waiting.len() >= MOST {
            return Some(connection);
        }
        self.waiting.push_back((connection, key, now));
        None
    }

    /// Takes a connection whose session has got an owner, with that owner, or one that has timed out.
    pub(super) fn settled(
        &mut self,
        now: Instant,
        named: impl Fn(SessionKey) -> Option<Tag>,
    ) -> Option<ClientConnection> {
        let at = self
            .waiting
            .iter()
            .position(|(_, key, since)| now.saturating_duration_since(*since) >= PATIENCE || named(*key).is_some())?;
        let (mut connection, key, _) = self.waiting.remove(at)?;
        if let Some(tag) = named(key) {
            connection.goal = RouteBy::Session(tag);
        }
        Some(connection)
    }

    /// Takes the one that has waited longest.
    pub(super) fn pop(&mut self) -> Option<ClientConnection> {
        self.waiting.pop_front().map(|(connection, ..)| connection)
    }
}
