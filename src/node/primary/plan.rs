//! How Node workers are to be treated, as configured.

use std::time::Duration;

use crate::node::wire::{ConnectionMessage, Serialization};

/// How Node workers are to be treated.
#[derive(Debug, Clone)]
pub struct NodePlan {
    /// How messages are written.
    pub serialization: Serialization,
    /// Whether sessions stick and programs of this style name their own sessions.
    pub names_sessions: bool,
    /// The message that comes with each connection, in the styles that have one.
    pub message: Option<ConnectionMessage>,
    /// Whether programs that take their connections by message also listen on a server once they wait for messages.
    pub listens: bool,
    /// Whether a worker is ready only when its program announces it.
    pub wait_ready: bool,
    /// Whether messages to the primary go to all other workers.
    pub relay_messages: bool,
    /// Whether what Socket.IO sends to many reaches the clients of all workers.
    pub rooms: bool,
    /// Where those of other hosts are found.
    pub redis: Option<crate::config::Redis>,
    /// How long a worker may take to be ready.
    pub start_timeout: Duration,
    /// The ports that the program's servers ask for, by the listeners of `--listen` that are for them.
    pub server_ports: Vec<Option<u16>>,
    /// Whether programs have haft's preload, which shows them the port that they asked for.
    pub tells_ports: bool,
    /// Length of the accept queue where the program does not say.
    pub backlog: u32,
}
