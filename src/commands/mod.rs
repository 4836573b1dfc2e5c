//! The commands beside running a master: `haft status`, `haft man` and the like. Each has a file, or shares one with its
//! kind. One that needs a running master finds it (`target`) and asks it (`client`); it runs in a process of its own, and
//! may wait.
//!
//! A command is the first word of the command line; `haft` alone, or with flags first, runs a master. What a worker runs
//! stands behind `--`, so a command is never taken for a program.
//!
//! To add a command: a file with its arguments (`clap::Args`) and its `run`, and a line in `Commands` and in
//! [`main`].

mod change;
mod client;
mod completions;
mod front;
mod logs;
mod man;
mod pages;
mod status;
mod table;
mod target;
mod target_error;
mod top;
mod trace;
mod view;
mod why;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use self::target::TargetError;
use crate::flags;

#[derive(Debug, Parser)]
#[command(name = "haft", disable_help_subcommand = true)]
enum Commands {
    Completions(completions::Completions),
    Drain(change::DrainCommand),
    Front(front::Front),
    Health(pages::HealthCommand),
    Logs(logs::Logs),
    Man(man::Man),
    Why(why::Why),
    Metrics(pages::Metrics),
    Reload(change::ReloadCommand),
    Restart(change::Restart),
    Scale(change::Scale),
    Status(status::StatusCommand),
    Stop(change::StopCommand),
    Top(top::Top),
    Trace(trace::TraceCommand),
    Undrain(change::Undrain),
}

/// Whether a command line, the program's name first, begins with a command.
pub fn is_wanted(args: &[OsString]) -> bool {
    args.get(1).and_then(|word| OsStr::to_str(word)).is_some_and(|word| !word.starts_with('-') && !word.is_empty())
}

/// Runs the command that a command line begins with. The exit code is 0 if it did what it is for, 2 if the command line
/// is wrong, and as the command's own help documents otherwise.
pub fn main(args: &[OsString]) -> ExitCode {
    let command = match Commands::try_parse_from(args) {
        Ok(command) => command,
        Err(error) if !error.use_stderr() => {
            error.print().ok();
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            // The exit code remains where the text cannot be written.
            explain(error, args).print().ok();
            return ExitCode::from(2);
        }
    };
    match command {
        Commands::Completions(completions) => completions.run(),
        Commands::Drain(drain) => drain.run(),
        Commands::Front(front) => front.run(),
        Commands::Health(health) => health.run(),
        Commands::Logs(logs) => logs.run(),
        Commands::Man(man) => man.run(),
        Commands::Why(why) => why.run(),
        Commands::Metrics(metrics) => metrics.run(),
        Commands::Reload(reload) => reload.run(),
        Commands::Restart(restart) => restart.run(),
        Commands::Scale(scale) => scale.run(),
        Commands::Status(status) => status.run(),
        Commands::Stop(stop) => stop.run(),
        Commands::Top(top) => top.run(),
        Commands::Trace(trace) => trace.run(),
        Commands::Undrain(undrain) => undrain.run(),
    }
}

/// The error of a command line, in the words of this program where clap's do not help: most often the dashes before a
/// program are missing.
fn explain(error: clap::Error, args: &[OsString]) -> clap::Error {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return error;
    }
    let words: Vec<_> = args.iter().skip(1).map(|word| word.to_string_lossy()).collect();
    let (name, line) = (words.first().map_or("", |name| name), words.join(" "));
    let message = format!("haft has no command {name:?}. To run a program, write `--` before it: haft -- {line}\n");
    clap::Error::raw(ErrorKind::InvalidSubcommand, message).with_cmd(&flags::command())
}

/// Prints the answer of a running haft. The exit code is 2 if it is not known which one was meant, 1 if it did not
/// answer.
fn report(result: Result<String, TargetError>) -> ExitCode {
    match result {
        Ok(text) => print(text.as_bytes()),
        Err(error) => {
            eprintln!("haft: {}", error.to_string().trim_end());
            match error {
                TargetError::Several(_) | TargetError::Unknown { .. } | TargetError::NoAddress => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Writes to standard output. A reader that has had enough (`haft man | head`) is no failure.
fn print(text: &[u8]) -> ExitCode {
    match io::stdout().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("haft: cannot write to standard output: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// All that a command line may hold, flags and commands, as the manual page and completions need it.
fn all() -> clap::Command {
    Commands::command().get_subcommands().fold(flags::command(), |all, command| all.subcommand(command.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn a_command_is_the_first_word_and_never_a_flag_or_a_program() {
        for line in ["haft man", "haft node server.js"] {
            assert!(is_wanted(&args(line)), "{line}");
        }
        for line in ["haft", "haft -w 2", "haft -- man", "haft -w 2 man"] {
            assert!(!is_wanted(&args(line)), "{line}");
        }
    }

    #[test]
    fn the_help_lists_each_command() {
        let help = flags::command().render_long_help().to_string();
        for command in Commands::command().get_subcommands() {
            assert!(help.contains(&format!("\n  {} ", command.get_name())), "{} is missing", command.get_name());
        }
    }

    #[test]
    fn a_program_without_dashes_is_answered_with_the_cure() {
        let args = args("haft node server.js");
        let error = explain(Commands::try_parse_from(&args).expect_err("no such command"), &args).to_string();
        assert!(error.contains("haft -- node server.js"), "{error}");
    }

    #[test]
    fn completions_and_the_manual_page_hold_flags_and_commands() {
        let mut page = Vec::new();
        clap_mangen::Man::new(all()).render(&mut page).expect("written to memory");
        let page = String::from_utf8(page).expect("roff is text");
        assert!(page.contains("\\-\\-affinity") && page.contains("haft\\-man(1)"), "{page}");
        all().debug_assert();
    }
}
