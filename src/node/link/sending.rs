//! Connections and answers on their way to a Node worker.

use std::collections::VecDeque;
use std::os::fd::AsFd;

use super::lane::LaneSockets;
use super::{NodeLink, StartupPhase, answer};
use crate::connection::ClientConnection;
use crate::handover::channel::Blocked;
use crate::handover::error::LinkError;
use crate::handover::outbox::Outbox;
use crate::node::primary::ClusterPrimary;
use crate::node::wire::{Delivery, Handle, ServerId};
use crate::node::wire::{IpcFrameError, Split};
use crate::sys::scm::{self, Sent};

impl NodeLink {
    /// Sends what waits for the kernel, then of `held` what this worker has a server for and room.
    pub(crate) fn send(
        &mut self,
        outbox: &mut Outbox<ClientConnection>,
        held: &mut VecDeque<ClientConnection>,
        primary: &ClusterPrimary,
        max_in_flight: usize,
    ) -> Result<Blocked, LinkError> {
        let unanswered = if self.session.is_pinging() { Vec::new() } else { std::mem::take(&mut self.unanswered) };
        for (server, query) in unanswered {
            answer(&mut self.session, server, query, primary);
        }
        let mut from = 0;
        loop {
            let obstacle = self.flush(outbox, primary)?;
            if obstacle != Blocked::None || self.life != StartupPhase::Ready {
                return Ok(obstacle);
            }
            // As many as go in one system call.
            let mut room = self.room(max_in_flight).min(scm::MANY);
            if room == 0 {
                return Ok(obstacle);
            }
            while room > 0 {
                let next = (from..held.len()).find_map(|at| Some((at, self.delivery(&held[at], primary)?)));
                let Some((at, delivery, connection)) = next.and_then(|(at, way)| Some((at, way, held.remove(at)?)))
                else {
                    return self.flush(outbox, primary);
                };
                (from, room) = (at, room - 1);
                let stated = connection.client.ip().filter(|_| connection.client_is_stated);
                self.session.connection(delivery, stated);
                outbox.push(connection);
            }
        }
    }

    /// How this worker's program gets a connection; `None` while it has no server for it.
    fn delivery<'d>(&self, connection: &ClientConnection, primary: &'d ClusterPrimary) -> Option<Delivery<'d>> {
        let server = primary.server_of(connection.listener)?;
        if server == ServerId::OWN && primary.is_by_message() {
            return Some(Delivery::Message);
        }
        primary.key_for(self.worker, server).map(|key| Delivery::Server { key })
    }

    /// Gives the kernel what waits, as far as it takes it.
    pub(crate) fn flush(
        &mut self,
        outbox: &Outbox<ClientConnection>,
        primary: &ClusterPrimary,
    ) -> Result<Blocked, LinkError> {
        self.answer_settled(primary);
        self.rooms.give(&mut self.session);
        while self.session.queued() > 0 {
            let messages = self.session.chunks().map(|(bytes, handle)| {
                let descriptor = match handle {
                    None => None,
                    Some(Handle::Connection(number)) => outbox.get(number).map(AsFd::as_fd),
                    Some(Handle::Server { server, .. }) => primary.shared_socket(server, self.slot),
                    Some(Handle::Lane) => self.lane.as_ref().and_then(LaneSockets::theirs),
                    Some(Handle::Rooms) => self.rooms.socket(),
                };
                (bytes, descriptor)
            });
            match scm::send_many(self.channel.as_fd(), messages)? {
                Ok(sent) => sent.taken().try_for_each(|taken| self.session.sent(taken))?,
                Err(Sent::TooManyInFlight) => return Ok(Blocked::TooManyInFlight),
                Err(Sent::Bytes(_) | Sent::Full | Sent::TooLong) => return Ok(Blocked::ChannelFull),
            }
        }
        match &self.lane {
            Some(lane) => lane.flush(&mut self.session, outbox),
            None => Ok(Blocked::None),
        }
    }

    /// How many more connections may be sent, if at most `most` may be unacknowledged.
    pub(crate) fn room(&self, most: usize) -> usize {
        self.session.room(most)
    }

    /// Whether something waits for the kernel.
    pub(crate) fn has_unsent(&self) -> bool {
        self.session.queued() > 0 || self.session.has_on_lane()
    }

    /// Whether answers wait until it is settled what they are.
    pub(crate) fn is_unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    /// Answers the queries of which it has been settled what they get.
    fn answer_settled(&mut self, primary: &ClusterPrimary) {
        if self.unsettled.is_empty() || self.session.is_pinging() {
            return;
        }
        for (key, query) in std::mem::take(&mut self.unsettled) {
            match primary.settled(self.worker, &key) {
                None => self.unsettled.push((key, query)),
                Some(Ok(server)) => answer(&mut self.session, server, query, primary),
                Some(Err(refusal)) => self.session.refuse(query, &refusal),
            }
        }
    }
}

impl From<IpcFrameError> for LinkError {
    fn from(error: IpcFrameError) -> Self {
        Self::Node(error.to_string())
    }
}

impl From<Split> for LinkError {
    fn from(error: Split) -> Self {
        Self::Split(error.to_string())
    }
}
