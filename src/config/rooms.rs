//! Rooms that workers share.

use std::fmt;
use std::str::FromStr;

use super::{UnknownWord, words};

/// Which rooms workers share, and with which hosts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RoomsOptions {
    /// Whether workers share the rooms of Socket.IO.
    pub shared: SharedRooms,
    /// Where other hosts share them, if there are any.
    pub redis: Option<Redis>,
}

/// The Redis over which hosts share rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redis {
    /// Its URL.
    pub url: String,
    /// What separates this application's rooms from another's.
    pub prefix: String,
    /// Whether haft is not ready without it.
    pub required: bool,
    /// The key of `@socket.io/redis-emitter` in programs outside haft; none if they are not heard.
    pub emitter: Option<String>,
}

/// Whether what Socket.IO sends to many reaches the clients of all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SharedRooms {
    /// Where the program's Socket.IO has no adapter of its own.
    #[default]
    Auto,
    /// Never.
    Off,
}

words!(SharedRooms, "auto or off", Auto = "auto", Off = "off");
