//! The command: reads what is wanted, then is the master, or one of its built-in workers.

use std::process::ExitCode;

use haft::addr::PassedAddr;
use haft::config::Config;
use haft::flags::{self, EarlyExit, ParseOutcome};
use haft::process::guardian;
use haft::{builtin, commands, master};

/// From so many bytes on what a built-in worker frees goes back to the host at once, as nearly all messages are smaller: what
/// its bounds allow is then what the process holds.
const LARGE_BLOCK: u32 = 128 << 10;

fn main() -> ExitCode {
    haft_sys::name_service::keep_to_own_services();
    if builtin::process::is_wanted() {
        haft_sys::allocator::give_back_when_freed(LARGE_BLOCK);
        return builtin::process::main();
    }
    if guardian::is_wanted() {
        return guardian::main();
    }
    let args: Vec<_> = std::env::args_os().collect();
    if commands::is_wanted(&args) {
        return commands::main(&args);
    }
    let passed = match haft_sys::passed::take() {
        Ok(passed) => passed,
        Err(error) => return master::cannot_start(error),
    };
    let addrs: Vec<_> = passed.iter().map(|(addr, _)| addr.clone()).collect();
    match flags::parse_with(std::env::vars_os(), args, &addrs) {
        ParseOutcome::Check(config, exit) => match master::check(&config) {
            Ok(()) => say(&exit),
            Err(error) => master::cannot_start(error),
        },
        ParseOutcome::Exit(exit) => say(&exit),
        ParseOutcome::Run(config) => master::main(*config, passed, reread),
    }
}

fn say(exit: &EarlyExit) -> ExitCode {
    // The exit code remains where the text cannot be written.
    exit.print().ok();
    ExitCode::from(exit.code())
}

/// The configuration as it is now: the flags as they were typed, the environment as it was, and the file as it has become.
fn reread(passed: &[PassedAddr]) -> Result<Config, String> {
    match flags::parse_with(std::env::vars_os(), std::env::args_os(), passed) {
        ParseOutcome::Run(config) => Ok(*config),
        ParseOutcome::Check(_, exit) | ParseOutcome::Exit(exit) => Err(exit.to_string()),
    }
}
