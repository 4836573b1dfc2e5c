//! What haft will do: the validated configuration. It is plain data; making one has no side effects.
//!
//! [`crate::flags`] turns what was typed into a [`Config`].

mod admin;
mod affinity;
mod care;
mod command;
mod descriptors;
mod dispatch;
mod drain_signal;
mod first;
mod limits;
mod rooms;
mod workers_user;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::addr::{Listen, ListenAddr};
use crate::route::Prefix;
pub use admin::{Admin, InstanceName};
pub use affinity::{Affinity, AffinityError, Criterion, MAX_CRITERIA, Rest};
pub use care::{CareConfig, HealthCheck, HealthPath, HealthPathError, Often, OftenError, Size, SizeError};
pub use command::{CommandLine, DialectChoice, NodeOptions, NodeStyle, NodeStyleError, Serialization};
pub(crate) use descriptors::DESCRIPTORS_PER_WORKER;
pub use descriptors::{Headroom, TooFewDescriptors};
pub use dispatch::{Contradiction, DispatchBy};
pub use drain_signal::DrainSignal;
pub use first::{FirstRequest, PeekTimeoutAction, Proxies, Sessions, TagSecret, Unattributed};
pub use limits::{Limits, OverLimit, Rate, RateError};
pub use rooms::{Redis, RoomsOptions, SharedRooms};
pub use workers_user::{WorkersUser, WorkersUserError};

/// Most slots there can be: far more than the CPUs of one host, few enough to weigh each of them for every client.
pub const MAX_WORKERS: usize = 1024;

/// Everything that decides what the master does.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where clients connect, never an empty list. None: not configured, and the program may be a Node program, which
    /// asks for its listeners by itself; [`Config::listen_or_default`] is for one that does not.
    pub listen: Option<Vec<Listen>>,
    /// Where clients connect if neither that nor the program decides.
    pub default_listen: ListenAddr,
    /// Number of slots, 1 to [`MAX_WORKERS`].
    pub workers: usize,
    /// The workers' soft limit on descriptors. None: the one that haft was started with.
    pub worker_nofile: Option<u64>,
    /// The user that workers run as. None: haft's own.
    pub user: Option<WorkersUser>,
    /// A file with more of the workers' environment, read at each start and reload.
    pub worker_env: Option<PathBuf>,
    /// Whether each line that a worker writes is marked with its slot (`[w0]`); [`Config::marks_output`] has the default.
    pub prefix_output: Option<bool>,
    /// What sticks to a slot.
    pub affinity: Affinity,
    /// How much of an address is the key.
    pub prefix: Prefix,
    /// How sessions are identified, if they stick.
    pub sessions: Sessions,
    /// What is learnt of a client from a proxy before haft.
    pub proxies: Proxies,
    /// How a connection's first request is waited for, where it must be looked at.
    pub first: FirstRequest,
    /// Which clients may come, and how fast.
    pub limits: Limits,
    /// What assigns connections.
    pub dispatch: DispatchBy,
    /// Length of the kernel's accept queue, per listener; the kernel caps it at `net.core.somaxconn` (listen(2)).
    pub backlog: u32,
    /// Most connections sent to one worker and not yet acknowledged, at least 1.
    pub max_in_flight: usize,
    /// For how long after a connection the master looks for the next one without sleeping.
    pub busy_poll: Duration,
    /// How long a connection waits for its own slot before it goes to the next one.
    pub hold_timeout: Duration,
    /// How long a worker may take until it is ready.
    pub start_timeout: Duration,
    /// How long a worker may take to finish its connections once it is asked to stop.
    pub drain_timeout: Duration,
    /// The signal by which programs learn that they are to finish, before that time is over.
    pub drain_signal: DrainSignal,
    /// After how long without an acknowledgement a worker that has connections to take counts as hung. None: never.
    pub hang_timeout: Option<Duration>,
    /// Whether a hung worker is killed and replaced; never true where none counts as hung.
    pub hang_kill: bool,
    /// When workers are replaced though they serve, and when a slot is given up.
    pub care: CareConfig,
    /// Which rooms workers share, and with which hosts.
    pub rooms: RoomsOptions,
    /// Where metrics, status and control are served.
    pub admin: Admin,
    /// What this haft is called. None: after its program and port.
    pub name: Option<InstanceName>,
    /// The file with the token that opens control on an admin listener that is a TCP socket. None: control is off there.
    pub admin_token_file: Option<PathBuf>,
    /// How haft writes its log.
    pub log: Log,
    /// What the workers run.
    pub program: Program,
}

impl Config {
    /// Whether each line that a worker writes is marked with its slot: where there are several, unless configured
    /// otherwise.
    pub fn marks_output(&self) -> bool {
        self.prefix_output.unwrap_or(self.workers > 1)
    }

    /// Where clients connect if the program does not ask for listeners by itself: what was configured, or the default.
    pub fn listen_or_default(&self) -> Vec<ListenAddr> {
        let addr = |listen: &Listen| listen.addr.clone();
        self.listen
            .as_ref()
            .map_or_else(|| vec![self.default_listen.clone()], |listen| listen.iter().map(addr).collect())
    }

    /// Whether connections must be looked at before they can be assigned.
    pub fn peeks(&self) -> bool {
        self.affinity.reads_requests()
            || !self.sessions.sticky_paths.is_empty()
            || self.proxies.protocol
            || self.proxies.header.is_some()
    }
}

/// What the workers run.
#[derive(Debug, Clone, PartialEq)]
pub enum Program {
    /// The Socket.IO engine in haft itself.
    BuiltIn(EngineConfig),
    /// A program of the user's.
    Command(CommandLine),
}

impl Program {
    /// Whether its workers have a link to haft, and by it to each other.
    pub fn has_link(&self) -> bool {
        !matches!(self, Self::Command(command) if command.dialect == DialectChoice::ListenFds)
    }
}

/// How haft writes its log.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// The form of a line.
    pub format: LogFormat,
    /// What `tracing_subscriber::filter::Targets` reads, such as `info` or `haft=debug`.
    pub level: String,
    /// The file that takes the place of standard error.
    pub file: Option<PathBuf>,
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
pub struct EngineConfig {
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
    /// Whether a worker gives up what it does not need.
    pub confine: Confinement,
}

/// Whether a built-in worker gives up to run programs, to open files but those it serves, and to make sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confinement {
    /// As far as the kernel can.
    #[default]
    Auto,
    /// Not at all.
    Off,
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

impl Default for EngineConfig {
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
            confine: Confinement::Auto,
        }
    }
}

/// A word that is none of those it could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write {0}")]
pub struct UnknownWord(&'static str);

/// The words for the variants of an enum: one list serves reading and writing, so that they cannot differ.
macro_rules! words {
    ($enum:ty, $all:literal, $($variant:ident = $word:literal),+) => {
        impl FromStr for $enum {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownWord($all)),
                }
            }
        }

        impl fmt::Display for $enum {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $word,)+
                })
            }
        }
    };
}

// A path, by which the modules of this one find it.
use words;

words!(Confinement, "auto or off", Auto = "auto", Off = "off");
words!(LogFormat, "text or json", Text = "text", Json = "json");
words!(Transport, "polling or websocket", Polling = "polling", Websocket = "websocket");

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn config(workers: usize, max_in_flight: usize) -> Config {
        Config {
            listen: None,
            default_listen: ListenAddr::default(),
            workers,
            worker_nofile: None,
            user: None,
            worker_env: None,
            prefix_output: None,
            affinity: "ip".parse().expect("an affinity"),
            prefix: Prefix::default(),
            sessions: Sessions::default(),
            proxies: Proxies::default(),
            first: FirstRequest::default(),
            limits: Limits::default(),
            dispatch: DispatchBy::Handover,
            backlog: 4096,
            max_in_flight,
            busy_poll: Duration::ZERO,
            hold_timeout: Duration::from_secs(5),
            start_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(25),
            drain_signal: DrainSignal::Auto,
            hang_timeout: None,
            hang_kill: false,
            care: CareConfig::default(),
            rooms: RoomsOptions::default(),
            admin: Admin::Default,
            name: None,
            admin_token_file: None,
            log: Log { format: LogFormat::Text, level: "info".to_owned(), file: None },
            program: Program::BuiltIn(EngineConfig::default()),
        }
    }

    #[test]
    fn without_listeners_it_is_one_on_the_loopback() {
        let mut config = config(1, 1);
        assert_eq!(config.listen_or_default(), [ListenAddr::default()]);
        let given = vec![ListenAddr::DualStack(80), ListenAddr::DualStack(81)];
        config.listen = Some(given.iter().cloned().map(Listen::from).collect());
        assert_eq!(config.listen_or_default(), given);
    }

    #[test]
    fn each_word_is_read_as_it_is_written() {
        for transport in [Transport::Polling, Transport::Websocket] {
            assert_eq!(transport.to_string().parse(), Ok(transport));
        }
        for dispatch in [DispatchBy::Handover, DispatchBy::Kernel] {
            assert_eq!(dispatch.to_string().parse(), Ok(dispatch));
        }
        for format in [LogFormat::Text, LogFormat::Json] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        let error = "JSON".parse::<LogFormat>().expect_err("case matters");
        assert_eq!(error.to_string(), "write text or json");
    }
}
