//! Messages from programs: those for other workers, and those that name their sessions.

use super::ClusterPrimary;
use crate::ids::WorkerId;
use crate::node::named::SessionIndex;
use crate::node::wire::{AdapterRouting, Library, To, WorkerDied};
use crate::route::Tag;

/// A message on its way to other workers.
#[derive(Debug)]
pub enum Relayed {
    /// A worker's message, as it was written.
    Message(To, Vec<u8>),
    /// A message of a worker's preload, for the preload of the one that this names.
    Pass(Tag, Vec<u8>),
    /// News of a worker's end, for all others.
    WorkerDied(WorkerDied),
}

impl ClusterPrimary {
    /// Whether sessions stick and programs name their own sessions.
    pub fn names_sessions(&self) -> bool {
        self.plan.names_sessions
    }

    /// A worker names a session as its own.
    pub fn session_opened(&mut self, worker: WorkerId, sid: &str) {
        let before = self.forgotten();
        self.named.opened(sid, worker);
        self.log_forgotten(worker, before);
    }

    /// A worker reports the end of a session.
    pub fn session_closed(&mut self, worker: WorkerId, sid: &str) {
        self.named.closed(sid, worker);
    }

    /// The sessions that workers have named as their own.
    pub fn named(&self) -> &SessionIndex {
        &self.named
    }

    /// A message of a program to its primary. Other workers get it if they are to; else the log states once, for each
    /// library that sends such messages, that no process receives them. `whole`: empty for a descriptor, which is never passed
    /// on; `is_forked`: what has started the program gets them as well.
    pub fn unheard(&mut self, from: WorkerId, whole: &[u8], is_forked: bool) {
        let is_for_another = is_forked && Library::of(whole) == Library::Unknown;
        if is_for_another && !self.plan.relay_messages {
            return;
        }
        self.messages += 1;
        if self.plan.relay_messages && !whole.is_empty() {
            self.mail.push(Relayed::Message(To::AllBut(from), whole.to_vec()));
        } else if self.libraries.insert(Library::of(whole)) {
            tracing::warn!(worker = from.0, "{}", Library::of(whole).advice());
        }
    }

    /// A message for other workers.
    pub fn relay(&mut self, from: WorkerId, routing: &AdapterRouting<'_>, whole: &[u8]) {
        let before = self.forgotten();
        match self.relay.route(from, routing) {
            To::Nowhere => {}
            to => self.mail.push(Relayed::Message(to, whole.to_vec())),
        }
        self.log_forgotten(from, before);
    }

    /// A message of a worker's preload for the preload of the worker that the tag names.
    pub fn pass(&mut self, to: Tag, whole: &[u8]) {
        self.mail.push(Relayed::Pass(to, whole.to_vec()));
    }

    /// Messages to be delivered now.
    pub fn take_mail(&mut self) -> Vec<Relayed> {
        std::mem::take(&mut self.mail)
    }
}
