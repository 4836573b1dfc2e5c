//! The built-in worker as a process: how the master starts it, and what it does from start to end.

use crate::config::{Engine, Log};

/// Command line and environment of a built-in worker.
pub fn recipe(_engine: &Engine, _log: &Log) -> (Vec<String>, Vec<(&'static str, String)>) {
    (vec!["/proc/self/exe".to_owned()], Vec::new())
}

/// Whether this process was started to be a built-in worker.
pub fn is_wanted() -> bool {
    std::env::var_os("HAFT_ENGINE").is_some()
}

/// Is the built-in worker.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
