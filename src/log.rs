//! How haft speaks to its operator: one line an event on standard error, for people or as JSON.

mod progress;

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

pub use self::progress::progress;
use crate::config::{Log, LogFormat};

/// Starts the log of this process. A level that is not a filter counts as `info`: the flags have judged it before.
pub fn start(log: &Log) {
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| progress::Line)
        .with_target(false)
        // Where nobody reads, it would tell standard error of that, and panic since nobody reads.
        .log_internal_errors(false);
    progress::start(log.format == LogFormat::Text && io::stderr().is_terminal());
    // Only a second start in one process fails, and then there is a log already.
    match log.format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).try_init().ok(),
        LogFormat::Json => lines.json().flatten_event(true).try_init().ok(),
    };
}
