//! What haft will do: the validated configuration. It is plain data; making one has no side effects.
//!
//! [`crate::flags`] turns what was typed into a [`Config`].

mod affinity;
mod command;
mod dispatch;
mod drain_signal;
mod first;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::addr::{Listen, ListenAddr};
use crate::route::Prefix;
pub use affinity::{Affinity, AffinityError, Criterion, MAX_CRITERIA, Rest};
pub use command::{CommandLine, DialectChoice, NodeOptions, NodeStyle, NodeStyleError, Serialization, SharedRooms};
pub use dispatch::{Contradiction, DispatchBy};
pub use drain_signal::DrainSignal;
pub use first::{FirstRequest, PeekTimeoutAction, Proxies, Sessions, TagSecret, Unattributed};

/// Most slots there can be: far more than the CPUs of one host, few enough to weigh each of them for every client.
pub const MAX_WORKERS: usize = 1024;

/// Everything that decides what the master does.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where clients connect, never an empty list. None: nothing was said, and the program may be a Node program, which
    /// asks for its listeners by itself; [`Config::listen_or_default`] is for one that does not.
    pub listen: Option<Vec<Listen>>,
    /// Where clients connect if neither that nor the program says it.
    pub default_listen: ListenAddr,
    /// Number of slots, 1 to [`MAX_WORKERS`].
    pub workers: usize,
    /// The workers' soft limit on descriptors. None: the one that haft was started with.
    pub worker_nofile: Option<u64>,
    /// Whether each line that a worker writes is marked with its slot (`[w0]`).
    pub prefix_output: bool,
    /// What sticks to a slot.
    pub affinity: Affinity,
    /// How much of an address is the key.
    pub prefix: Prefix,
    /// How sessions are told apart, if they stick.
    pub sessions: Sessions,
    /// What is learnt of a client from a proxy before haft.
    pub proxies: Proxies,
    /// How a connection's first request is waited for, where it must be looked at.
    pub first: FirstRequest,
    /// Who assigns connections.
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
    /// How long a worker may take to finish its connections once it is told to stop.
    pub drain_timeout: Duration,
    /// The signal by which programs learn that they are to finish, before that time is over.
    pub drain_signal: DrainSignal,
    /// After how long without an acknowledgement a worker that has connections to take counts as hung. None: never.
    pub hang_timeout: Option<Duration>,
    /// Whether a hung worker is killed and replaced; never true where none counts as hung.
    pub hang_kill: bool,
    /// Where metrics, status and control are served, if anywhere.
    pub admin: Option<ListenAddr>,
    /// The file with the token that opens control on an admin listener that is a TCP socket. None: control is off there.
    pub admin_token_file: Option<PathBuf>,
    /// How haft writes its log.
    pub log: Log,
    /// What the workers run.
    pub program: Program,
}

/// Descriptors the master holds for one worker: both ends of the channel, the pidfd, the pipes of its standard output
/// and error, and one for the process that serves if it is another.
pub(crate) const DESCRIPTORS_PER_WORKER: u64 = 6;

/// Descriptors the master holds for itself: standard streams, the event loop, signals, the spare one for accepting
/// when there are none left, the admin listener and those who ask there.
const DESCRIPTORS_FOR_ITSELF: u64 = 32;

/// How a limit on open descriptors compares with what the configuration can need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Headroom {
    /// Every worker may have `max_in_flight` connections on their way at once.
    Ample,
    /// It works, but in a burst accepting can stop for want of descriptors. Worth a warning: `Display` is its text.
    Low {
        /// Descriptors the master holds when every worker has `max_in_flight` connections on their way.
        full: u64,
        /// The limit (RLIMIT_NOFILE).
        limit: u64,
    },
}

/// The limit on descriptors (RLIMIT_NOFILE) is too low.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooFewDescriptors {
    /// For the master.
    #[error(
        "--workers {workers}: the master needs {least} descriptors for them, but RLIMIT_NOFILE is {limit}: have at most \
         {most_workers} workers, or raise the limit (ulimit -n {least}; LimitNOFILE={least} in a systemd unit)"
    )]
    Master {
        /// So many are configured.
        workers: usize,
        /// What they take at least.
        least: u64,
        /// What there is.
        limit: u64,
        /// So many fit.
        most_workers: u64,
    },
    /// For what a worker is to have.
    #[error(
        "--worker-nofile {asked}: the hard limit is {limit}; raise it (ulimit -Hn {asked}; LimitNOFILE={asked} in a systemd \
         unit), or ask for less"
    )]
    Worker {
        /// What is asked for.
        asked: u64,
        /// What there is.
        limit: u64,
    },
}

impl Config {
    /// Where clients connect if the program does not ask for listeners by itself: what was said, or the default.
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

    /// Compares the limit on open descriptors of the master (RLIMIT_NOFILE, after it was raised) with what it needs.
    ///
    /// A worker costs the master 6 descriptors and, for each connection on its way to it, the copy that is kept until
    /// the worker has acknowledged. The least is one such copy for each worker; `max_in_flight` of them is the most.
    ///
    /// # Errors
    ///
    /// When not even the least fits.
    pub fn check_descriptors(&self, limit: u64) -> Result<Headroom, TooFewDescriptors> {
        self.check_descriptors_with(limit, 0)
    }

    /// The same, with so many listeners for each worker at least.
    pub(crate) fn check_descriptors_with(&self, limit: u64, groups: usize) -> Result<Headroom, TooFewDescriptors> {
        let (listeners, listeners_each) = self.listeners();
        let fixed = DESCRIPTORS_FOR_ITSELF + listeners;
        let each = DESCRIPTORS_PER_WORKER + listeners_each.max(groups as u64);
        let with_copies = |copies: usize| fixed + self.workers as u64 * (each + copies as u64);
        let (least, full) = (with_copies(1), with_copies(self.max_in_flight));
        if let Some(asked) = self.worker_nofile.filter(|asked| *asked > limit) {
            return Err(TooFewDescriptors::Worker { asked, limit });
        }
        if limit < least {
            let most_workers = limit.saturating_sub(fixed) / (each + 1);
            return Err(TooFewDescriptors::Master { workers: self.workers, least, limit, most_workers });
        }
        Ok(if limit < full { Headroom::Low { full, limit } } else { Headroom::Ample })
    }
}

impl fmt::Display for Headroom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ample => f.write_str("the limit on open descriptors is ample"),
            Self::Low { full, limit } => write!(
                f,
                "RLIMIT_NOFILE is {limit}, but a burst can need {full} descriptors; past the limit accepting waits: \
                 raise it (ulimit -n {full}; LimitNOFILE={full} in a systemd unit) or lower --max-in-flight"
            ),
        }
    }
}

/// What the workers run.
#[derive(Debug, Clone, PartialEq)]
pub enum Program {
    /// The Socket.IO engine in haft itself.
    BuiltIn(Engine),
    /// A program of the user's.
    Command(CommandLine),
}

/// How haft writes its log.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// The form of a line.
    pub format: LogFormat,
    /// A `tracing_subscriber::EnvFilter` directive, such as `info` or `haft=debug`.
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

words!(LogFormat, "text or json", Text = "text", Json = "json");
words!(Transport, "polling or websocket", Polling = "polling", Websocket = "websocket");

#[cfg(test)]
mod tests {
    use super::*;

    fn config(workers: usize, max_in_flight: usize) -> Config {
        Config {
            listen: None,
            default_listen: ListenAddr::default(),
            workers,
            worker_nofile: None,
            prefix_output: false,
            affinity: "ip".parse().expect("an affinity"),
            prefix: Prefix { ipv4: 32, ipv6: 128 },
            sessions: Sessions::default(),
            proxies: Proxies::default(),
            first: FirstRequest::default(),
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
            admin: None,
            admin_token_file: None,
            log: Log { format: LogFormat::Text, level: "info".to_owned(), file: None },
            program: Program::BuiltIn(Engine::default()),
        }
    }

    #[test]
    fn without_listeners_it_is_one_on_the_loopback() {
        let mut config = config(1, 1);
        assert_eq!(config.listen_or_default(), [ListenAddr::default()]);
        let said = vec![ListenAddr::DualStack(80), ListenAddr::DualStack(81)];
        config.listen = Some(said.iter().cloned().map(Listen::from).collect());
        assert_eq!(config.listen_or_default(), said);
    }

    #[test]
    fn the_limit_on_descriptors_is_compared_with_the_least_and_the_most() {
        // 32 for the master and 1 listener; a worker costs 6 and its copies.
        let (least, full) = (33 + 10 * 7, 33 + 10 * (6 + 64));
        let config = config(10, 64);
        assert_eq!(config.check_descriptors(full), Ok(Headroom::Ample));
        assert_eq!(config.check_descriptors(u64::MAX), Ok(Headroom::Ample));
        assert_eq!(config.check_descriptors(full - 1), Ok(Headroom::Low { full, limit: full - 1 }));
        assert_eq!(config.check_descriptors(least), Ok(Headroom::Low { full, limit: least }));
        assert!(config.check_descriptors(least - 1).is_err());
    }

    #[test]
    fn too_few_descriptors_are_refused_with_the_number_of_workers_that_fit() {
        let message = config(1000, 64).check_descriptors(1024).expect_err("too few").to_string();
        for part in ["--workers 1000", "RLIMIT_NOFILE is 1024", "at most 141 workers", "ulimit -n 7033"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(config(141, 64).check_descriptors(1024).is_ok());
        assert!(config(142, 64).check_descriptors(1024).is_err());
    }

    #[test]
    fn workers_get_no_more_than_the_hard_limit() {
        let config = Config { worker_nofile: Some(2048), ..config(1, 1) };
        let message = config.check_descriptors(2047).expect_err("too few").to_string();
        assert!(message.contains("--worker-nofile 2048: the hard limit is 2047; raise it"), "{message}");
        assert!(config.check_descriptors(2048).is_ok());
    }

    #[test]
    fn a_low_limit_is_told_with_its_cure() {
        let headroom = config(16, 64).check_descriptors(1024).expect("it works");
        let text = headroom.to_string();
        for part in ["RLIMIT_NOFILE is 1024", "1153", "--max-in-flight"] {
            assert!(text.contains(part), "{text}");
        }
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
