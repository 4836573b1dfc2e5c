//! The master as a process: limits, log, runtime, exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use super::{MasterError, Reread};
use crate::config::{Config, Headroom};
use crate::log;
use crate::sys::{allocator, descriptors};

/// A limit on descriptors below this is worth a warning: each connection costs its worker one.
const FEW_DESCRIPTORS: u64 = 4096;

/// Runs the master as this process. The exit code is 0 after an orderly stop, 1 after a failure at run time, and 2
/// where the configuration asks for what this host cannot give. `reread` yields the configuration anew for a reload.
pub fn main(config: Config, reread: Reread) -> ExitCode {
    allocator::give_back_when_freed();
    log::start(&config.log);
    let limit = match descriptors::raise_limit() {
        Ok(limit) => limit,
        Err(error) => return fail(1, format_args!("the limit on open descriptors cannot be read: {error}")),
    };
    match config.check_descriptors(limit) {
        Ok(Headroom::Ample) => {}
        Ok(low @ Headroom::Low { .. }) => tracing::warn!("{low}"),
        Err(error) => return fail(2, error),
    }
    if limit < FEW_DESCRIPTORS {
        tracing::warn!(
            "RLIMIT_NOFILE is {limit}: a worker can hold no more connections than that; raise the hard limit \
             (ulimit -Hn 65536; LimitNOFILE=65536 in a systemd unit)"
        );
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, format_args!("the event loop cannot be made: {error}")),
    };
    let local = tokio::task::LocalSet::new();
    let outcome = local.block_on(&runtime, super::run(config, limit, reread));
    // What workers have written is passed on by then, or its reader is stuck: do not wait for it.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(code(&error), error),
    }
}

fn code(error: &MasterError) -> u8 {
    match error {
        MasterError::Slots(_) | MasterError::Program(_) | MasterError::Style(_) | MasterError::Unfit(_) => 2,
        MasterError::Listen(_) | MasterError::Start(_) | MasterError::GaveUp { .. } | MasterError::System { .. } => 1,
    }
}

fn fail(code: u8, error: impl std::fmt::Display) -> ExitCode {
    // The exit code tells even where the text cannot be written.
    writeln!(io::stderr(), "haft: error: {error}").ok();
    ExitCode::from(code)
}
