//! The part of a session that goes over the worker's lane.

use super::Split;
use super::{Effect, Handle, LaneMessage, Passing, ReturnReason, Session, Violation};

impl Session {
    /// Gives the worker its end of a lane.
    pub fn offer_lane(&mut self) {
        let voice = &self.voice;
        self.outgoing.with_handle(Passing { handle: Handle::Lane, seq: None }, |out| voice.lane(out));
    }

    /// What is to be sent on the lane: bytes, each with a connection. What the kernel took goes to
    /// [`Session::sent_on_lane`].
    pub fn on_lane(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.lane.waiting()
    }

    /// Whether there is anything of that.
    pub fn has_on_lane(&self) -> bool {
        self.lane.has_waiting()
    }

    /// The kernel took so many bytes of the first record for the lane; see [`Session::sent`].
    pub fn sent_on_lane(&mut self, taken: usize) -> Result<(), Split> {
        self.lane.sent(taken)
    }

    /// The next of the connections that [`Effect::Took`] counts.
    pub fn next_taken(&mut self) -> Option<u64> {
        let connection = self.lane.answered().ok()?;
        self.in_flight -= 1;
        Some(connection)
    }

    pub(super) fn receive_on_lane(&mut self, message: LaneMessage) -> Result<Effect<'static>, Violation> {
        Ok(match message {
            LaneMessage::Wanted if self.lane.want() => Effect::LaneWanted,
            LaneMessage::Wanted => Effect::Nothing,
            LaneMessage::Open => {
                self.lane.open();
                Effect::LaneOpen
            }
            LaneMessage::Serves { server } => {
                self.lane.serves(server);
                Effect::Nothing
            }
            LaneMessage::Took { count } if count > self.lane.in_flight() as u64 => {
                return Err(Violation::NothingToAcknowledge);
            }
            LaneMessage::Took { count } => Effect::Took { count },
            LaneMessage::Back => {
                let connection = self.lane.answered()?;
                self.in_flight -= 1;
                Effect::Returned { connection, why: ReturnReason::NotAccepted }
            }
        })
    }
}
