//! The master as a process: limits, log, runtime, exit code.

use std::process::ExitCode;
use std::time::Duration;

use super::{DescriptorLimits, MasterError, Reread};
use crate::addr::PassedAddr;
use crate::config::{Config, Headroom};
use crate::log;
use crate::process::env_file;
use crate::process::guardian::Guardian;
use crate::sys::account::{self, Account, AccountError};
use crate::sys::listen::Listener;
use crate::sys::{allocator, close_on_exec, closing, descriptors, folder, signals};

/// A limit on descriptors below this is worth a warning: each connection costs its worker one.
const FEW_DESCRIPTORS: u64 = 4096;

/// From so many bytes on what the master frees goes back to the host at once: it needs little but for rare rushes.
const LARGE_BLOCK: u32 = 64 << 10;

/// How long container engines wait between SIGTERM and SIGKILL by default.
const CONTAINER_STOP: Duration = Duration::from_secs(10);

/// Runs the master as this process. The exit code is 0 after an orderly stop, 1 after a failure at run time, and 2
/// where the configuration asks for what this host cannot give. `passed` are the sockets that a service manager has
/// passed; `reread` yields the configuration anew for a reload.
pub fn main(config: Config, passed: Vec<(PassedAddr, Listener)>, reread: Reread) -> ExitCode {
    allocator::give_back_when_freed(LARGE_BLOCK);
    let account = match account(&config) {
        Ok(account) => account,
        Err(error) => return fail(2, error),
    };
    if let Err(error) = log::start(&config.log) {
        return fail(2, error);
    }
    if let Err(error) = signals::ignore_harmless() {
        return fail(1, format_args!("signals cannot be ignored: {error}"));
    }
    if let Err(error) = close_on_exec::mark_inherited() {
        tracing::warn!(%error, "what haft has inherited beside its standard streams, its workers inherit, too");
    }
    let limits =
        descriptors::limit().and_then(|at_start| Ok(DescriptorLimits { at_start, now: descriptors::raise_limit()? }));
    let limits = match limits {
        Ok(limits) => limits,
        Err(error) => return fail(1, format_args!("the limit on open descriptors cannot be read: {error}")),
    };
    let limit = limits.now;
    tidy();
    if account.is_none() && account::is_root() {
        tracing::warn!(
            "haft runs as root, and so do its workers: name a user for them (--user NAME), or start haft as another user"
        );
    }
    match config.check_descriptors(limit) {
        Ok(Headroom::Ample) => {}
        Ok(low @ Headroom::Low { .. }) => tracing::warn!("{low}"),
        Err(error) => return fail(2, error),
    }
    warn_of_limits(&config, limit);
    // Before there is any worker. Without it, the kernel signals this process's death to most workers.
    let guardian = is_guarded().then(|| Guardian::start(config.drain_timeout)).transpose();
    if let Err(error) = &guardian {
        tracing::warn!(
            %error,
            "haft's guardian process cannot be started: if haft is killed, workers that have changed their user may outlive \
             it and hold their ports; /proc must be mounted, and the limit on processes (ulimit -u) higher"
        );
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, format_args!("the event loop cannot be made: {error}")),
    };
    if let Err(error) = closing::start() {
        return fail(1, format_args!("the thread that closes connections cannot be made: {error}"));
    }
    let local = tokio::task::LocalSet::new();
    let outcome =
        local.block_on(&runtime, super::run(config, passed, limits, reread, guardian.ok().flatten(), account));
    // What workers have written is passed on by then, or its reader is stuck: do not wait for it.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => {
            log::flush();
            ExitCode::SUCCESS
        }
        Err(error) => fail(code(&error), error),
    }
}

/// Warns of limits that are likely too low: descriptors, or the time in which a container may end.
fn warn_of_limits(config: &Config, limit: u64) {
    if limit < FEW_DESCRIPTORS {
        tracing::warn!(
            "RLIMIT_NOFILE is {limit}: a worker can hold no more connections than that; raise the hard limit \
             (ulimit -Hn 65536; LimitNOFILE=65536 in a systemd unit)"
        );
    }
    if let Some(hint) = killed_before_drained(config) {
        tracing::warn!("{hint}");
    }
}

/// What to say where a container is likely to be killed before its workers are done.
fn killed_before_drained(config: &Config) -> Option<String> {
    let drain = humantime::format_duration(config.drain_timeout);
    (std::process::id() == 1 && config.drain_timeout > CONTAINER_STOP).then(|| {
        format!(
            "haft is process 1 and --drain-timeout is {drain}, but container engines kill 10s after SIGTERM unless they are \
             configured otherwise: give more time (docker run --stop-timeout, stop_grace_period in compose.yaml, \
             terminationGracePeriodSeconds in Kubernetes), or lower --drain-timeout"
        )
    })
}

/// The user that workers are to run as. From then on this process has no more of root's rights than it needs for that: so it
/// must have one thread still.
fn account(config: &Config) -> Result<Option<Account>, String> {
    let Some(user) = &config.user else { return Ok(None) };
    let account = Account::find(&user.user, user.group.as_deref()).map_err(of_user)?;
    account::keep_few_rights().map_err(|error| format!("--user {user}: haft cannot give up root's rights: {error}"))?;
    Ok(Some(account))
}

fn of_user(error: AccountError) -> String {
    format!("--user {error}")
}

/// Looks for what the configuration names and haft reads when it starts: the workers' user and their variables.
///
/// # Errors
///
/// As haft would say at its start. That it would have to be root is no mistake of the configuration.
pub fn check(config: &Config) -> Result<(), String> {
    if let Some(path) = &config.worker_env {
        env_file::read(path).map_err(|error| error.to_string())?;
    }
    match config.user.as_ref().map(|user| Account::find(&user.user, user.group.as_deref())) {
        None | Some(Ok(_) | Err(AccountError::NotRoot(_))) => Ok(()),
        Some(Err(error)) => Err(of_user(error)),
    }
}

/// Whether the workers need a guardian: with process 1 of a container, the kernel ends all others.
fn is_guarded() -> bool {
    std::process::id() != 1
}

/// Removes what masters that were killed have left.
fn tidy() {
    for place in folder::places() {
        match folder::remove_stale(&place) {
            Ok(0) => {}
            Ok(removed) => tracing::debug!(removed, "folders of masters that were killed: {}", place.display()),
            Err(error) => tracing::debug!(%error, "what killed masters left is not looked for: {}", place.display()),
        }
    }
}

fn code(error: &MasterError) -> u8 {
    match error {
        MasterError::Slots(_)
        | MasterError::Program(_)
        | MasterError::Style(_)
        | MasterError::Unfit(_)
        | MasterError::EnvFile(_)
        | MasterError::Preload(_) => 2,
        MasterError::Listen(_)
        | MasterError::Admin(_)
        | MasterError::ProgramListen(_)
        | MasterError::Start(_)
        | MasterError::GaveUp { .. }
        | MasterError::TooManyRestarts { .. }
        | MasterError::System { .. } => 1,
    }
}

/// Reports why haft cannot even read its configuration. Returns exit code 2.
pub fn cannot_start(error: impl std::fmt::Display) -> ExitCode {
    fail(2, error)
}

fn fail(code: u8, error: impl std::fmt::Display) -> ExitCode {
    // The exit code holds even where the text cannot be written.
    log::last_words(format_args!("haft: error: {error}"));
    ExitCode::from(code)
}
