//! The part of a session that goes over the worker's lane.

use super::Split;
use super::{Handle, IpcEffect, IpcViolation, LaneMessage, Passing, ReturnReason, Session};

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

    /// The next of the connections that [`IpcEffect::Took`] counts.
    pub fn next_taken(&mut self) -> Option<u64> {
        let connection = self.lane.answered().ok()?;
        self.in_flight -= 1;
        Some(connection)
    }

    pub(super) fn receive_on_lane(&mut self, message: LaneMessage) -> Result<IpcEffect<'static>, IpcViolation> {
        Ok(match message {
            LaneMessage::Wanted if self.lane.want() => IpcEffect::LaneWanted,
            LaneMessage::Wanted => IpcEffect::Nothing,
            LaneMessage::Open => {
                self.lane.open();
                IpcEffect::LaneOpen
            }
            LaneMessage::Serves { server } => {
                self.lane.serves(server);
                IpcEffect::Nothing
            }
            LaneMessage::Took { count } if count > self.lane.in_flight() as u64 => {
                return Err(IpcViolation::NothingToAcknowledge);
            }
            LaneMessage::Took { count } => IpcEffect::Took { count },
            LaneMessage::Back => {
                let connection = self.lane.answered()?;
                self.in_flight -= 1;
                IpcEffect::Returned { connection, why: ReturnReason::NotAccepted }
            }
        })
    }
}
