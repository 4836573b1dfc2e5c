//! The built-in worker as a process: how the master starts it, and what it does from start to end.

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use haft_worker::{AttachError, Drain, Incoming, SessionGuard};

use super::{App, BuiltinError, Identity};
use crate::config::{Config, Engine, Log, LogFormat};
use crate::log;

/// What a built-in worker is told in its environment, as JSON.
const VARIABLE: &str = "HAFT_BUILTIN";

/// The last part of the time to linger, in which sessions are ended one by one. The master lets a worker linger for nine
/// tenths of `--drain-timeout`, so sessions are left alone for four fifths of that.
const SHARE_OF_GOODBYES: u32 = 9;

/// Within so short a time all sessions are told to end at once.
const SHORT: Duration = Duration::from_secs(1);

/// What a built-in worker is told.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Orders {
    engine: Engine,
    log_level: String,
    log_json: bool,
    drain_timeout: Duration,
}

/// Why a built-in worker ended other than as it was told to.
#[derive(Debug, thiserror::Error)]
enum WorkerError {
    #[error("{VARIABLE} does not hold a worker's orders: {0}")]
    Orders(#[from] serde_json::Error),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error(transparent)]
    Engine(#[from] BuiltinError),
    #[error("the event loop or the channel failed: {0}")]
    Io(#[from] std::io::Error),
}

/// The environment that makes a process of this program a built-in worker.
pub fn orders(engine: &Engine, config: &Config) -> Vec<(&'static str, String)> {
    let orders = Orders {
        engine: engine.clone(),
        log_level: config.log.level.clone(),
        log_json: config.log.format == LogFormat::Json,
        drain_timeout: config.drain_timeout,
    };
    // Texts, numbers and paths that came from the command line: there is nothing that JSON cannot hold, and a worker
    // without orders would say so.
    vec![(VARIABLE, serde_json::to_string(&orders).unwrap_or_default())]
}

/// Whether this process was started to be a built-in worker.
pub fn is_wanted() -> bool {
    env::var_os(VARIABLE).is_some()
}

/// Is the built-in worker, from start to end.
pub fn main() -> ExitCode {
    match work() {
        Ok(()) => {
            log::flush();
            ExitCode::SUCCESS
        }
        Err(error) => {
            // The exit code tells even where the text cannot be written.
            log::last_words(format_args!("haft: worker: error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn work() -> Result<(), WorkerError> {
    let orders: Orders = serde_json::from_str(&env::var(VARIABLE).unwrap_or_default())?;
    let format = if orders.log_json { LogFormat::Json } else { LogFormat::Text };
    // Only a file can fail to open.
    log::start(&Log { format, level: orders.log_level.clone(), file: None }).ok();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(tokio::task::LocalSet::new().run_until(serve(orders)))
}

/// Serves what the master hands over, until it says to finish or is gone; then finishes.
async fn serve(orders: Orders) -> Result<(), WorkerError> {
    let mut incoming = Incoming::from_env()?;
    let mut drain = incoming.drain();
    let tags = incoming.tags();
    let app = App::new(&orders.engine, identity(), tags, incoming.scoreboard())?;
    tokio::task::spawn_local(linger(app.clone(), drain.clone(), drain.session()));
    while let Some(connection) = incoming.next().await? {
        // It counts as open from here on, not from its task's first turn: the word to finish may come before that.
        tokio::task::spawn_local(app.serve_connection(connection.stream, connection.peer.client));
    }
    let (within, alone) = match drain.requested().await {
        Some(within) => (within, Duration::ZERO),
        // The master is gone and gives no time: the configured one holds. No operator waits for the end, so who has a
        // session keeps it for a while before the goodbyes begin.
        None => (orders.drain_timeout, orders.drain_timeout / 2),
    };
    // The last to be told need a moment before the time is over.
    let goodbye = app.close_later(alone, goodbyes_over(within - alone));
    // A master that lives would end this process now; without one nobody would.
    if tokio::time::timeout(within, goodbye).await.is_err() {
        tracing::warn!(connections = app.connections(), "the time to finish is over: those who are left are cut off");
    }
    Ok(())
}

/// Over how much of this time sessions are told to end one by one. Where it is short, somebody waits for the end (Ctrl-C), and
/// nothing is won by spreading them.
fn goodbyes_over(within: Duration) -> Duration {
    if within <= SHORT { Duration::ZERO } else { within / 5 * 4 }
}

/// Holds `sessions` until the worker has been told to linger and has no session left. In the last of its time for that it
/// says goodbye to those who are still there: connections of theirs do not come any more once it is over.
async fn linger(app: App, mut drain: Drain, sessions: SessionGuard) {
    let Some(within) = drain.lingering().await else { return };
    let last = within / SHARE_OF_GOODBYES;
    let goodbye = async {
        tokio::time::sleep(within - last).await;
        // The last to be told need a moment to poll once more.
        app.say_goodbye(last / 5 * 4).await;
    };
    tokio::select! {
        () = app.linger() => drop(sessions),
        () = goodbye => {}
    }
}

fn identity() -> Identity {
    let number = |name| env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    Identity { slot: number("HAFT_SLOT"), generation: number("HAFT_GENERATION"), pid: std::process::id() }
}
