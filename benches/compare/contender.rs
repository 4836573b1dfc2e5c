//! Who is compared, and how each is started.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::client::{self, PATIENCE, Target};
use crate::load::{self, Crowd};
use crate::process::{Program, descendants, until};
use crate::proxy::{self, Proxy};
use crate::{Failure, Outcome};

/// What serves the clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worker {
    /// The minimal one of this program.
    Minimal,
    /// haft's own.
    BuiltIn,
    /// A program of Node with Socket.IO.
    Node,
    /// The same program, run by Deno and by Bun.
    Deno,
    Bun,
}

impl Worker {
    /// What it is called in the results.
    pub fn key(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::BuiltIn => "builtin",
            Self::Node => "node",
            Self::Deno => "deno",
            Self::Bun => "bun",
        }
    }

    /// What runs the program of Node: Deno and Bun are where npm puts them for the tests.
    fn runtime(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Minimal | Self::BuiltIn => None,
            Self::Node => Some(&["node"]),
            Self::Deno => {
                Some(&[concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/node_modules/deno-2/deno"), "run", "-A"])
            }
            Self::Bun => Some(&[concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/node_modules/bun-1/bin/bun")]),
        }
    }

    /// Whether it is warm later than others.
    pub fn is_compiled_late(self) -> bool {
        self.runtime().is_some()
    }
}

/// Who decides which worker serves a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    /// haft, with these flags and behind this command; the style is what the Node program waits for.
    Haft { behind: &'static [&'static str], flags: &'static [&'static str], style: &'static str },
    /// The Node program itself: its primary.
    Primary { style: &'static str },
    /// A proxy before workers that listen on ports of their own.
    Proxy(Proxy),
    /// A proxy before haft, with these flags: it tells haft the clients' addresses.
    Before { proxy: Proxy, flags: &'static [&'static str] },
    /// The kernel: the workers share an address (SO_REUSEPORT).
    ReusePort,
    /// Nobody, since there is one worker only.
    Alone,
    /// The clients: they know all the workers' ports, and take them in turn.
    Clients,
}

#[derive(Debug, Clone, Copy)]
pub struct Contender {
    /// What it is called in the results.
    pub key: &'static str,
    pub name: &'static str,
    pub worker: Worker,
    pub front: Front,
}

const fn contender(key: &'static str, name: &'static str, worker: Worker, front: Front) -> Contender {
    Contender { key, name, worker, front }
}

const fn haft(flags: &'static [&'static str], style: &'static str) -> Front {
    Front::Haft { behind: &[], flags, style }
}

const HANDOVER: Front = haft(&[], "plain");
/// Awake from one connection to the next of a single client.
const AWAKE: Front = haft(&["--busy-poll", "500us"], "plain");
/// Master and workers put nobody off a CPU when they wake (SCHED_BATCH, sched(7)).
const BATCH: Front = Front::Haft { behind: &["chrt", "--batch", "0"], flags: &[], style: "plain" };
const KERNEL: Front = haft(&["--dispatch", "kernel", "--affinity", "ip"], "plain");
const SESSION: Front = haft(&["--affinity", "session"], "plain");
/// Over Node's own channel, as its own primary does.
const CHANNEL: Front = haft(&["--no-preload"], "plain");
const BEHIND_NGINX: Front = Front::Before {
    proxy: Proxy::NginxForwarded,
    flags: &["--client-ip-header", "X-Forwarded-For", "--trusted-proxy", "127.0.0.1"],
};
const BEHIND_HAPROXY: Front =
    Front::Before { proxy: Proxy::HaproxyHeader, flags: &["--proxy-protocol", "--trusted-proxy", "127.0.0.1"] };
const MESSAGE: Front = haft(&["--node-style", "classic"], "classic");

pub const ALL: &[Contender] = &[
    contender("minimal-haft", "haft, hand-over", Worker::Minimal, HANDOVER),
    contender("minimal-haft-awake", "haft, --busy-poll 500us", Worker::Minimal, AWAKE),
    contender("minimal-haft-batch", "haft, behind chrt --batch 0", Worker::Minimal, BATCH),
    contender("minimal-haft-kernel", "haft, kernel dispatch", Worker::Minimal, KERNEL),
    contender("minimal-reuseport", "SO_REUSEPORT, no master", Worker::Minimal, Front::ReusePort),
    contender("minimal-haproxy", "HAProxy tcp, balance source", Worker::Minimal, Front::Proxy(Proxy::Haproxy)),
    contender("minimal-nginx-stream", "nginx stream, hash", Worker::Minimal, Front::Proxy(Proxy::NginxStream)),
    contender("minimal-nginx-http", "nginx http, ip_hash", Worker::Minimal, Front::Proxy(Proxy::NginxHttp)),
    contender("builtin-haft", "haft, hand-over", Worker::BuiltIn, HANDOVER),
    contender("builtin-haft-session", "haft, --affinity session", Worker::BuiltIn, SESSION),
    contender("builtin-haft-kernel", "haft, kernel dispatch", Worker::BuiltIn, KERNEL),
    contender("builtin-nginx-haft", "nginx http, before haft --client-ip-header", Worker::BuiltIn, BEHIND_NGINX),
    contender("builtin-haproxy-haft", "HAProxy tcp, before haft --proxy-protocol", Worker::BuiltIn, BEHIND_HAPROXY),
    contender("node-haft", "haft, hand-over", Worker::Node, HANDOVER),
    contender("node-haft-awake", "haft, --busy-poll 500us", Worker::Node, AWAKE),
    contender("node-haft-batch", "haft, behind chrt --batch 0", Worker::Node, BATCH),
    contender("node-haft-session", "haft, --affinity session", Worker::Node, SESSION),
    contender("node-haft-channel", "haft, --no-preload", Worker::Node, CHANNEL),
    contender("node-haft-kernel", "haft, kernel dispatch", Worker::Node, KERNEL),
    contender("node-haft-message", "haft, --node-style classic", Worker::Node, MESSAGE),
    contender(
        "node-cluster",
        "Node cluster, round robin (not sticky)",
        Worker::Node,
        Front::Primary { style: "plain" },
    ),
    contender("node-classic", "the classic pattern", Worker::Node, Front::Primary { style: "classic" }),
    contender("node-sticky-session", "npm sticky-session", Worker::Node, Front::Primary { style: "sticky-session" }),
    contender(
        "node-socketio-sticky",
        "npm @socket.io/sticky",
        Worker::Node,
        Front::Primary { style: "socket.io-sticky-2" },
    ),
    contender("node-nginx-haft", "nginx http, before haft --client-ip-header", Worker::Node, BEHIND_NGINX),
    contender("node-haproxy-haft", "HAProxy tcp, before haft --proxy-protocol", Worker::Node, BEHIND_HAPROXY),
    contender("node-haproxy-cookie", "HAProxy http, cookie", Worker::Node, Front::Proxy(Proxy::HaproxyCookie)),
    contender("node-nginx-cookie", "nginx http, sticky cookie", Worker::Node, Front::Proxy(Proxy::NginxCookie)),
    contender("node-haproxy", "HAProxy tcp, balance source", Worker::Node, Front::Proxy(Proxy::Haproxy)),
    contender("node-nginx-stream", "nginx stream, hash", Worker::Node, Front::Proxy(Proxy::NginxStream)),
    contender("node-nginx-http", "nginx http, ip_hash", Worker::Node, Front::Proxy(Proxy::NginxHttp)),
    contender("node-alone", "Node alone, one process", Worker::Node, Front::Alone),
    contender("node-clients", "no balancer: a port for each process", Worker::Node, Front::Clients),
    contender("deno-clients", "no balancer: a port for each process", Worker::Deno, Front::Clients),
    contender("bun-clients", "no balancer: a port for each process", Worker::Bun, Front::Clients),
];

/// Why a contender is not measured.
#[derive(Debug)]
pub enum Unstarted {
    /// A program is missing, this build of haft does not know the flags, or this nginx the directives.
    NotAvailable(String),
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for Unstarted {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// A contender whose workers have all answered. The front goes first when it is ended.
#[derive(Debug)]
pub struct Running {
    pub target: Target,
    /// The processes that decide; none where there is no balancer.
    pub balancer: Vec<i32>,
    pub workers: Vec<i32>,
    /// Those that take connections from the kernel.
    pub accepting: Vec<i32>,
    /// How many connections may wait in the kernel's queue.
    pub queue: usize,
    front: Option<Program>,
    backends: Vec<Program>,
    pub folder: TempDir,
}

/// What the programs are.
#[derive(Debug)]
pub struct Programs {
    pub haft: PathBuf,
    pub this: PathBuf,
    /// `STYLE [COUNT PORT]`: all the ways of Node's primaries, with one application.
    styles: PathBuf,
    /// `http:HOST:PORT`: the same application in one process.
    server: PathBuf,
}

impl Programs {
    /// haft is `$HAFT`, else the one that was built with this program.
    pub fn find() -> Outcome<Self> {
        let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/lib");
        let haft = env::var_os("HAFT").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_haft")), PathBuf::from);
        Ok(Self {
            haft: haft.canonicalize().map_err(|error| format!("{}: {error}", haft.display()))?,
            this: env::current_exe()?,
            styles: lib.join("node-style-server.cjs"),
            server: lib.join("node-server.mjs"),
        })
    }
}

/// What Node asks for when a program does not say.
const NODE_QUEUE: usize = 511;
/// What haft asks for, the minimal worker, and the proxies as they are set up here.
pub const QUEUE: usize = 4096;

impl Contender {
    /// How many processes serve when so many are asked for.
    pub fn workers(&self, asked: usize) -> usize {
        if self.front == Front::Alone { 1 } else { asked }
    }

    /// Starts it, and waits until every worker has answered.
    pub fn start(&self, programs: &Programs, workers: usize) -> Result<Running, Unstarted> {
        if let Some([runtime, ..]) = self.worker.runtime()
            && !is_at_hand(runtime)
        {
            return Err(Unstarted::NotAvailable(format!("there is no {runtime}")));
        }
        let folder = tempfile::Builder::new().prefix("haft-bench-").tempdir()?;
        let workers = self.workers(workers);
        let entry = free_port()?;
        let mut target = Target(vec![entry]);
        let mut backends = Vec::new();
        match self.front {
            Front::Haft { .. } | Front::Primary { .. } => {}
            Front::ReusePort | Front::Alone => {
                for slot in 0..workers {
                    backends.push(self.backend(programs, folder.path(), slot, entry)?);
                }
            }
            Front::Before { flags, .. } => {
                target = Target(vec![free_port()?]);
                let mut haft = self.haft(programs, &[], flags, "plain", target.0[0], workers);
                backends.push(Program::start(folder.path(), "haft.log", &mut haft)?);
            }
            Front::Proxy(_) | Front::Clients => {
                target.0.clear();
                for slot in 0..workers {
                    target.0.push(free_port()?);
                    backends.push(self.backend(programs, folder.path(), slot, target.0[slot])?);
                }
            }
        }
        let mut front = self.command(programs, folder.path(), entry, &target.0, workers)?;
        let mut front =
            front.as_mut().map(|command| Program::start(folder.path(), "front.log", command)).transpose()?;
        if matches!(self.front, Front::Proxy(_) | Front::Before { .. }) {
            target = Target(vec![entry]);
        }
        let mut ended = None;
        let answered = until(PATIENCE, || {
            ended = front.as_mut().and_then(Program::ended).or(backends.iter_mut().find_map(Program::ended));
            let crowd = Crowd { clients: workers, threads: 1 };
            ended.is_some() || (client::ask_blocking(&target).is_ok() && load::seat(&target, crowd, workers).is_ok())
        });
        if ended.is_some() || !answered {
            let said: String = front.iter().chain(&backends).map(Program::output).collect();
            return match (self.front, ended) {
                // clap's code and words for a flag that it does not know.
                (Front::Haft { .. } | Front::Before { .. }, Some(2)) if said.contains("unexpected argument") => {
                    Err(Unstarted::NotAvailable(first_line(&said)))
                }
                (Front::Proxy(Proxy::NginxCookie), Some(_)) if said.contains("unknown directive \"sticky\"") => {
                    Err(Unstarted::NotAvailable("this nginx has no `sticky` (1.29.6 and later have it)".to_owned()))
                }
                (_, Some(code)) => Err(format!("it ended with {code}: {}", said.trim()).into()),
                (_, None) => Err(format!("not all of its workers answered: {}", said.trim()).into()),
            };
        }
        Ok(self.running(target, front, backends, folder))
    }

    fn running(&self, target: Target, front: Option<Program>, backends: Vec<Program>, folder: TempDir) -> Running {
        let root: Vec<_> = front.iter().map(Program::pid).collect();
        let below: Vec<_> = root.iter().flat_map(|pid| descendants(*pid)).collect();
        let (balancer, workers) = match self.front {
            Front::Proxy(_) => ([root, below].concat(), backends.iter().map(Program::pid).collect()),
            Front::Haft { .. } | Front::Primary { .. } => (root, below),
            Front::Before { .. } => {
                let masters: Vec<_> = backends.iter().map(Program::pid).collect();
                let workers = masters.iter().flat_map(|pid| descendants(*pid)).collect();
                ([root, below, masters].concat(), workers)
            }
            _ => (Vec::new(), backends.iter().map(Program::pid).collect::<Vec<_>>()),
        };
        let by_workers = self.front == KERNEL || balancer.is_empty();
        let accepting = if by_workers { workers.clone() } else { balancer.clone() };
        let listens_itself = matches!(self.front, Front::Primary { .. } | Front::Alone | Front::Clients);
        let queue = if self.worker.runtime().is_some() && listens_itself { NODE_QUEUE } else { QUEUE };
        Running { target, balancer, workers, accepting, queue, front, backends, folder }
    }

    /// A worker that listens by itself.
    fn backend(&self, programs: &Programs, folder: &Path, slot: usize, at: SocketAddr) -> Outcome<Program> {
        let mut command = if let Some([runtime, words @ ..]) = self.worker.runtime() {
            let mut command = Command::new(runtime);
            command.args(words).arg(&programs.server).arg(format!("http:{at}"));
            command
        } else {
            let mut command = Command::new(&programs.this);
            command.args(["worker", &at.to_string()]);
            command
        };
        Program::start(folder, &format!("worker{slot}.log"), &mut command)
    }

    /// haft on this address, which starts the workers.
    fn haft(
        &self,
        programs: &Programs,
        behind: &[&str],
        flags: &[&str],
        style: &str,
        entry: SocketAddr,
        workers: usize,
    ) -> Command {
        let haft = programs.haft.as_os_str();
        let mut words = behind.iter().map(OsStr::new).chain([haft]);
        let mut command = Command::new(words.next().unwrap_or(haft));
        command.args(words).args(["-w", &workers.to_string(), "-l", &entry.to_string(), "--drain-timeout", "1s"]);
        command.args(flags);
        match self.worker {
            Worker::Minimal => command.arg("--").arg(&programs.this).args(["worker", "haft"]),
            Worker::BuiltIn => &mut command,
            Worker::Node | Worker::Deno | Worker::Bun => {
                command.arg("--").args(self.worker.runtime().into_iter().flatten()).arg(&programs.styles).arg(style)
            }
        };
        command
    }

    /// What is started in front of the workers, or starts them.
    fn command(
        &self,
        programs: &Programs,
        folder: &Path,
        entry: SocketAddr,
        backends: &[SocketAddr],
        workers: usize,
    ) -> Outcome<Option<Command>> {
        let count = workers.to_string();
        Ok(Some(match self.front {
            Front::Haft { behind, flags, style } => self.haft(programs, behind, flags, style, entry, workers),
            Front::Primary { style } => {
                let mut command = Command::new("node");
                command.arg(&programs.styles).args([style, &count, &entry.port().to_string()]);
                command
            }
            Front::Proxy(proxy) | Front::Before { proxy, .. } => proxy::command(proxy, folder, entry, backends)?,
            Front::ReusePort | Front::Alone | Front::Clients => return Ok(None),
        }))
    }
}

impl Running {
    /// What its programs have written, for somebody who looks for the reason of a failure.
    pub fn said(&self) -> String {
        let all: Vec<_> = self.front.iter().chain(&self.backends).map(Program::output).collect();
        let text = all.concat();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or("it ended at once").to_owned()
}

/// Whether a program is there: Node is always, the others where npm has them for this machine.
fn is_at_hand(program: &str) -> bool {
    !program.starts_with('/') || Path::new(program).is_file()
}

/// A port of 127.0.0.1 that nobody uses now.
fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
