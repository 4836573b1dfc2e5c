//! What a connection is assigned by, beyond its address: the session that its first request names, and what a proxy
//! states about its client.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{UnknownWord, words};
use crate::peek::{ClientHeader, TrustedProxies};
use crate::route::{HostId, TagKey};

/// How sessions are identified, if they stick.
#[derive(Debug, Clone, PartialEq)]
pub struct Sessions {
    /// Where Socket.IO's requests go, at least one path, each with a slash at both ends (`/socket.io/`).
    pub paths: Vec<String>,
    /// Requests elsewhere are spread by load; with an empty list all stick.
    pub sticky_paths: Vec<String>,
    /// What tags are made with. None: random, for as long as the master lives.
    pub tag_key: Option<TagSecret>,
    /// This host's name in tags, among several.
    pub host_id: Option<HostId>,
}

/// A secret for tags, and what was typed for it.
#[derive(Clone, PartialEq)]
pub struct TagSecret {
    /// The secret itself, or `@` and a file's name; a second one that is still accepted.
    pub said: Vec<String>,
    /// What it comes to.
    pub key: TagKey,
}

/// What is learnt of a client from a proxy before haft.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Proxies {
    /// Whether trusted peers begin with a PROXY header.
    pub protocol: bool,
    /// The header of a request that states the client's address, if trusted peers send one.
    pub header: Option<ClientHeader>,
    /// Which peers are trusted.
    pub trusted: TrustedProxies,
    /// What becomes of a connection of a trusted peer that does not name its client.
    pub unattributed: Unattributed,
}

/// What becomes of a connection whose client a trusted proxy did not name reliably.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unattributed {
    /// It is served, as one of an unknown client: never as one of the proxy's own.
    #[default]
    Serve,
    /// It is closed.
    Close,
}

words!(Unattributed, "serve or close", Serve = "serve", Close = "close");

/// How a connection's first request is waited for.
#[derive(Debug, Clone, PartialEq)]
pub struct FirstRequest {
    /// How long.
    pub timeout: Duration,
    /// What becomes of a connection then.
    pub timeout_action: PeekTimeoutAction,
    /// Most connections that are waited for at once, at least 1.
    pub most: usize,
}

/// What becomes of a connection whose first request does not come in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeekTimeoutAction {
    /// It goes to a worker by its address; the worker's own time limits hold then.
    HandOver,
    /// It is closed.
    Close,
}

words!(PeekTimeoutAction, "hand-over or close", HandOver = "hand-over", Close = "close");

impl Sessions {
    /// Whether unmodified Node programs report further paths, by haft's preload: unless the user has named them.
    pub fn learns_paths(&self) -> bool {
        self.paths == Self::default().paths
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self { paths: vec!["/socket.io/".to_owned()], sticky_paths: Vec::new(), tag_key: None, host_id: None }
    }
}

impl Default for FirstRequest {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10), timeout_action: PeekTimeoutAction::HandOver, most: 16_384 }
    }
}

impl fmt::Debug for TagSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TagSecret")
    }
}
