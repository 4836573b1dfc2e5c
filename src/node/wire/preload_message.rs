//! The messages of haft's preload about its process.

use super::trouble::Trouble;
use crate::node::paths::EnginePath;

/// One message of the preload, to the master or to be passed on.
#[derive(Debug, Clone, PartialEq)]
pub enum PreloadMessage {
    /// The program's Engine.IO tags its sessions, and [`super::Session::linger`] means something to the process.
    Tags,
    /// How many Engine.IO sessions the process has.
    Sessions {
        /// Their number.
        count: u64,
    },
    /// No session is left, after [`super::Session::linger`].
    Idle,
    /// Which signals the program handles itself now.
    Handles {
        /// SIGTERM is among them. No other one matters: SIGINT, as Ctrl-C, is sent whether it is handled or not.
        term: bool,
    },
    /// To be forwarded as it is to the worker of this slot and generation, or else to the one that fills the slot.
    Pass {
        /// The slot.
        slot: u16,
        /// The generation.
        generation: u32,
    },
    /// What has started the process has a channel of its own to it: messages that no library is known to send are for that.
    Forked,
    /// The process closes its channel, of which others have copies.
    Left,
    /// The program does something that goes round haft.
    Trouble(Trouble),
    /// The program has an Engine.IO at this path.
    Path(EnginePath),
}
