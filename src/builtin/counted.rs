//! What the built-in worker reports to haft about its sessions.

use std::sync::atomic::{AtomicBool, Ordering};

use haft_worker::scoreboard::{Field, Scoreboard};
use socketioxide::socket::DisconnectReason;

use super::refusal::Refusal;

/// All that it counts, so that none is unknown before it first happens.
const COUNTED: [Field; 24] = [
    Field::PollingSessions,
    Field::WebsocketSessions,
    Field::SessionsOpened,
    Field::Upgrades,
    Field::MessagesIn,
    Field::MessagesOut,
    Field::ClosedPingTimeout,
    Field::ClosedTransport,
    Field::ClosedError,
    Field::ClosedByServer,
    Field::ClosedOther,
    Field::RefusedTransport,
    Field::RefusedSession,
    Field::RefusedMethod,
    Field::RefusedRequest,
    Field::RefusedForbidden,
    Field::RefusedProtocol,
    Field::RefusedOther,
    Field::UncaughtErrors,
    Field::ClosedMemoryConnection,
    Field::ClosedMemoryWorker,
    Field::ClosedMemoryStalled,
    Field::LostGoodbye,
    Field::LostQueue,
];

/// Begins to count.
pub(super) fn begin(scoreboard: &Scoreboard) {
    COUNTED.iter().for_each(|field| scoreboard.add(*field, 0));
}

/// One session, counted by its transport as long as the engine keeps it.
#[derive(Debug)]
pub(super) struct CountedSession {
    scoreboard: Scoreboard,
    websocket: AtomicBool,
}

impl CountedSession {
    /// One that has begun, over WebSocket or over long-polling.
    pub(super) fn new(scoreboard: &Scoreboard, websocket: bool) -> Self {
        scoreboard.add(Field::SessionsOpened, 1);
        scoreboard.add(transport(websocket), 1);
        Self { scoreboard: scoreboard.clone(), websocket: AtomicBool::new(websocket) }
    }

    /// It is on a WebSocket from now on.
    pub(super) fn moves(&self) {
        if !self.websocket.swap(true, Ordering::AcqRel) {
            self.scoreboard.add(Field::Upgrades, 1);
            self.scoreboard.remove(transport(false), 1);
            self.scoreboard.add(transport(true), 1);
        }
    }
}

impl Drop for CountedSession {
    fn drop(&mut self) {
        self.scoreboard.remove(transport(self.websocket.load(Ordering::Acquire)), 1);
    }
}

fn transport(websocket: bool) -> Field {
    if websocket { Field::WebsocketSessions } else { Field::PollingSessions }
}

/// The figure that counts sessions which ended so.
pub(super) fn ended(reason: DisconnectReason) -> Field {
    match reason {
        DisconnectReason::HeartbeatTimeout => Field::ClosedPingTimeout,
        DisconnectReason::TransportClose => Field::ClosedTransport,
        DisconnectReason::TransportError
        | DisconnectReason::PacketParsingError
        | DisconnectReason::MultipleHttpPollingError => Field::ClosedError,
        DisconnectReason::ServerNSDisconnect | DisconnectReason::ClosingServer => Field::ClosedByServer,
        _ => Field::ClosedOther,
    }
}

/// The figure that counts requests which were refused so.
pub(super) fn refused(refusal: Refusal) -> Field {
    match refusal {
        Refusal::UnknownTransport => Field::RefusedTransport,
        Refusal::UnknownSid => Field::RefusedSession,
        Refusal::BadHandshakeMethod => Field::RefusedMethod,
        Refusal::BadRequest => Field::RefusedRequest,
        Refusal::Forbidden => Field::RefusedForbidden,
        Refusal::UnsupportedProtocol => Field::RefusedProtocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_counted_under_its_transport_until_it_ends() {
        let board = Scoreboard::default();
        begin(&board);
        let now = || [Field::PollingSessions, Field::WebsocketSessions, Field::Upgrades].map(|field| board.get(field));
        let (one, two) = (CountedSession::new(&board, false), CountedSession::new(&board, true));
        assert_eq!(now(), [Some(1), Some(1), Some(0)]);
        one.moves();
        one.moves();
        assert_eq!(now(), [Some(0), Some(2), Some(1)]);
        drop((one, two));
        assert_eq!((now(), board.get(Field::SessionsOpened)), ([Some(0), Some(0), Some(1)], Some(2)));
    }
}
