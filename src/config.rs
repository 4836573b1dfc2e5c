//! What haft will do: the validated configuration. It is plain data; making one has no side effects.
//!
//! [`crate::flags`] turns what was typed into a [`Config`].

use std::path::PathBuf;
use std::time::Duration;

use crate::addr::ListenAddr;

/// Everything that decides what the master does.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where clients connect. Never empty.
    pub listen: Vec<ListenAddr>,
    /// Number of slots, at least 1.
    pub workers: usize,
    /// What sticks to a slot.
    pub affinity: Affinity,
    /// How much of an address is the key.
    pub prefix: Prefix,
    /// Length of the kernel's accept queue, per listener.
    pub backlog: u32,
    /// Most connections sent to one worker and not yet acknowledged.
    pub max_in_flight: usize,
    /// How long a connection waits for its own slot before it goes to the next one.
    pub hold_timeout: Duration,
    /// How long a worker may take until it is ready.
    pub start_timeout: Duration,
    /// How long a worker may take to finish its connections once it is told to stop.
    pub drain_timeout: Duration,
    /// Where metrics and status are served, if anywhere.
    pub admin: Option<ListenAddr>,
    /// How haft writes its log.
    pub log: Log,
    /// What the workers run.
    pub program: Program,
}

/// What the workers run.
#[derive(Debug, Clone, PartialEq)]
pub enum Program {
    /// The Socket.IO engine in haft itself.
    BuiltIn(Engine),
    /// A command line, program first. Never empty.
    Command(Vec<String>),
}

/// What sticks to a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affinity {
    /// The client's address.
    Ip,
    /// Nothing: the worker with the least in flight, then round robin.
    None,
}

/// How many leading bits of an address are the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// Of an IPv4 address, 0 to 32.
    pub ipv4: u8,
    /// Of an IPv6 address, 0 to 128.
    pub ipv6: u8,
}

/// How haft writes its log.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// The form of a line.
    pub format: LogFormat,
    /// A `tracing_subscriber::EnvFilter` directive, such as `info` or `haft=debug`.
    pub level: String,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The built-in Socket.IO worker, with Socket.IO's own names and defaults (the server options of socket.io 4).
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Engine {
    /// Where the Socket.IO requests go, with a slash at both ends (`/socket.io/`).
    pub path: String,
    /// Whether the client bundle is served below `path`.
    pub serve_client: bool,
    /// At least one transport.
    pub transports: Vec<Transport>,
    /// Time between two heartbeats.
    pub ping_interval: Duration,
    /// How long a client may take to answer a heartbeat.
    pub ping_timeout: Duration,
    /// How long a transport upgrade may take.
    pub upgrade_timeout: Duration,
    /// Largest message in bytes.
    pub max_payload: u64,
    /// Origins that may call from another site; empty: none; `*`: all.
    pub cors_origin: Vec<String>,
    /// A folder that is served at `/` instead of the chat page.
    pub static_dir: Option<PathBuf>,
    /// The `dist` folder of an installed npm `socket.io-client`; found by itself in `node_modules` if not given.
    pub client_dist: Option<PathBuf>,
}

/// A transport of Socket.IO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// HTTP long-polling.
    Polling,
    /// WebSocket.
    Websocket,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            path: "/socket.io/".to_owned(),
            serve_client: true,
            transports: vec![Transport::Polling, Transport::Websocket],
            ping_interval: Duration::from_millis(25_000),
            ping_timeout: Duration::from_millis(20_000),
            upgrade_timeout: Duration::from_millis(10_000),
            max_payload: 1_000_000,
            cors_origin: Vec::new(),
            static_dir: None,
            client_dist: None,
        }
    }
}
