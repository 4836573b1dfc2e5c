//! What a Node worker has reported of its process: its sessions, and the signals that its program handles.

use crate::handover::channel::WorkerEvent;
use crate::handover::error::LinkError;
use crate::handover::haft::ChannelError;
use crate::ids::WorkerId;
use crate::node::primary::ClusterPrimary;
use crate::node::wire::PreloadMessage;
use crate::route::{Slot, Tag};

/// What a worker has reported of its process.
#[derive(Debug)]
pub(crate) struct Reported {
    sessions: SessionReport,
    handles_term: bool,
    is_forked: bool,
}

/// How a worker's sessions are identified, and how many it has reported.
#[derive(Debug, Clone, Copy)]
enum SessionReport {
    /// Not at all.
    Unknown,
    /// It names its sessions (@socket.io/sticky).
    Named(u64),
    /// It tags them.
    Tagged(u64),
}

impl Reported {
    /// Nothing was reported. `names`: the worker names its sessions.
    pub(super) fn new(names: bool) -> Self {
        Self {
            sessions: if names { SessionReport::Named(0) } else { SessionReport::Unknown },
            handles_term: false,
            is_forked: false,
        }
    }

    /// A message of haft's preload; `whole` is its frame.
    pub(super) fn receive(
        &mut self,
        message: PreloadMessage,
        whole: &[u8],
        worker: WorkerId,
        primary: &mut ClusterPrimary,
        news: &mut Vec<WorkerEvent>,
    ) -> Result<(), LinkError> {
        match message {
            PreloadMessage::Tags => self.sessions = SessionReport::Tagged(0),
            PreloadMessage::Sessions { count } => self.sessions = SessionReport::Tagged(count),
            PreloadMessage::Idle => news.push(WorkerEvent::Idle),
            PreloadMessage::Handles { term } => self.handles_term = term,
            // As if the channel itself had ended, of which others have copies.
            PreloadMessage::Left => return Err(LinkError::Channel(ChannelError::Closed)),
            PreloadMessage::Forked => self.is_forked = true,
            PreloadMessage::Pass { slot, generation } => primary.pass(Tag { slot: Slot(slot), generation }, whole),
            PreloadMessage::Path(path) => primary.paths.learn(worker, path),
            PreloadMessage::Trouble(trouble) => primary.troubles.report(worker.0, trouble),
        }
        Ok(())
    }

    /// The worker has this session (@socket.io/sticky).
    pub(super) fn opened(&mut self, sid: &str, worker: WorkerId, primary: &mut ClusterPrimary) {
        if let SessionReport::Named(count) = &mut self.sessions {
            *count += 1;
            primary.session_opened(worker, sid);
        }
    }

    /// The session has ended (@socket.io/sticky).
    pub(super) fn closed(&mut self, sid: &str, worker: WorkerId, primary: &mut ClusterPrimary) {
        if let SessionReport::Named(count) = &mut self.sessions {
            *count = count.saturating_sub(1);
            primary.session_closed(worker, sid);
        }
    }

    /// Whether the program handles SIGTERM itself.
    pub(crate) fn handles_term(&self) -> bool {
        self.handles_term
    }

    /// Whether its messages may be for what has started it.
    pub(super) fn is_forked(&self) -> bool {
        self.is_forked
    }

    /// Whether the worker names its sessions.
    pub(crate) fn names_sessions(&self) -> bool {
        matches!(self.sessions, SessionReport::Named(_))
    }

    /// Whether the worker reports how many sessions it has.
    pub(crate) fn reports_sessions(&self) -> bool {
        !matches!(self.sessions, SessionReport::Unknown)
    }

    /// Whether the worker can linger, and announces when no session is left.
    pub(crate) fn tags(&self) -> bool {
        matches!(self.sessions, SessionReport::Tagged(_))
    }

    /// How many sessions the worker has reported.
    pub(crate) fn sessions(&self) -> u64 {
        match self.sessions {
            SessionReport::Unknown => 0,
            SessionReport::Named(count) | SessionReport::Tagged(count) => count,
        }
    }
}
