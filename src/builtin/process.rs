//! The built-in worker as a process: how the master starts it, and what it does from start to end.

use std::env;
use std::process::ExitCode;

use haft_worker::{AttachError, Drain, Incoming, SessionGuard};

use super::{App, BuiltinError, Identity};
use crate::config::{Config, Confinement, EngineConfig, Log, LogFormat};
use crate::log;

/// The variable with a built-in worker's orders, as JSON.
const VARIABLE: &str = "HAFT_BUILTIN";

/// A built-in worker's orders.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Orders {
    engine: EngineConfig,
    log_level: String,
    log_json: bool,
}

/// Why a built-in worker ended other than as asked.
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
pub fn orders(engine: &EngineConfig, config: &Config) -> Vec<(&'static str, String)> {
    let orders = Orders {
        engine: engine.clone(),
        log_level: config.log.level.clone(),
        log_json: config.log.format == LogFormat::Json,
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
            // The exit code remains where the text cannot be written.
            log::last_words(format_args!("haft: worker: error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn work() -> Result<(), WorkerError> {
    let orders: Orders = serde_json::from_str(&env::var(VARIABLE).unwrap_or_default())?;
    let format = if orders.log_json { LogFormat::Json } else { LogFormat::Text };
    let log = Log { format, level: orders.log_level.clone(), file: None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(tokio::task::LocalSet::new().run_until(serve(orders, &log)))
}

/// Serves what the master hands over until the master asks it to finish or is gone; then finishes.
async fn serve(orders: Orders, log: &Log) -> Result<(), WorkerError> {
    let mut incoming = Incoming::from_env()?;
    let mut drain = incoming.drain();
    let tags = incoming.tags();
    let app = App::new(&orders.engine, identity(), tags, incoming.scoreboard(), incoming.rooms())?;
    let confined = match orders.engine.confine {
        Confinement::Auto => app.confine(),
        Confinement::Off => Ok(()),
    };
    // Its thread is confined, too. Only a file can fail to open.
    log::start(log).ok();
    // Each worker has the same kernel: only the first one warns.
    if let (Err(error), 0) = (confined, identity().slot) {
        tracing::warn!("the built-in worker is less confined than it could be: {error} (--confine off goes without)");
    }
    tokio::task::spawn_local(linger(app.clone(), drain.clone(), drain.session()));
    tokio::task::spawn_local(app.say_goodbye(drain.clone()));
    while let Some(connection) = incoming.next().await? {
        // It counts as open from here on, not from its task's first turn: the word to finish may come before that.
        tokio::task::spawn_local(app.serve_connection(connection.stream, connection.peer.client));
    }
    tokio::select! {
        () = app.close() => {}
        // A living master would end this process now; without one, nothing would.
        () = drain.expired() => {
            tracing::warn!(connections = app.connections(), "the time to finish is over: the remaining connections are cut off");
        }
    }
    Ok(())
}

/// Holds `sessions` until the worker was asked to linger and has no session left.
async fn linger(app: App, mut drain: Drain, sessions: SessionGuard) {
    if drain.lingering().await.is_some() {
        app.linger().await;
        drop(sessions);
    }
}

fn identity() -> Identity {
    let number = |name| env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    Identity { slot: number("HAFT_SLOT"), generation: number("HAFT_GENERATION"), pid: std::process::id() }
}
