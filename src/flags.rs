//! The command line and the YAML file, made into a [`Config`].
//!
//! A flag is defined once, in the module of its topic: its name, its help, its default, its rules, its tests. A key of
//! the file, like a variable of the environment, is turned into what one would type for it (`typed.rs`), so flag and key
//! cannot differ. What is typed beats the environment, that beats the file, the file beats the default.
//!
//! To add a flag: a field in its topic, a line in `Flags::resolve`, one in `effective.rs` and one in the samples of
//! `tests.rs`; tests fail for each that is forgotten.

mod care;
mod dispatch;
mod effective;
mod engine;
mod environment;
mod error;
mod file;
mod handover;
mod limits;
mod listening;
mod node;
mod number;
mod observability;
mod passed;
mod peek;
mod provenance;
mod proxies;
mod rooms;
mod routing;
mod sessions;
mod time;
mod watchdog;
mod workers;
mod yaml_args;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgAction, Command, CommandFactory, FromArgMatches};

use crate::addr::PassedAddr;
use crate::config::{Admin, Config, DialectChoice, Program};
use crate::log::without_error_numbers;
use crate::route::Prefix;
pub use file::YamlError;

use environment::Environment;
use error::{FlagsError, Owner};
use file::ConfigFile;
use provenance::Provenance;

/// The end of the help.
const EXAMPLES: &str = "\
Examples:
  haft                               Socket.IO on http://127.0.0.1:3000
  haft -w 4 -l 8080                  4 workers, port 8080 of every interface
  haft -l 80 --admin 127.0.0.1:9090  with metrics and status
  haft -- node server.js             a Node program, on the port it asks for
  haft -w 4 -- npm start             4 of what package.json starts
  haft -- python3 worker.py -v       a program with haft's worker protocol
  haft -w 4 -l 80 --dispatch kernel --dialect listen-fds -- gunicorn -w 1 app:app
                                     any program that takes a listener over
  haft -c haft.yaml --check          show what a file comes to

Commands (`haft NAME --help` has more):
  completions  print the completions for a shell
  drain        give a slot no new connections
  front        write the configuration of a proxy before several hosts
  health       say whether a running haft is healthy
  logs         show the last lines that workers wrote
  man          print the manual page
  metrics      print the metrics of a running haft
  reload       replace the workers by new ones, with the configuration read again
  restart      give a slot, or all, a new worker
  scale        change the number of workers
  status       show a running haft: slots, workers, connections
  stop         end a running haft in an orderly way
  top          watch a running haft: slots, workers, connections, each second
  trace        follow connections: where each goes, why, and what becomes of it
  undrain      give a drained slot connections again
  why          show which slot a client goes to, and why

Signals:
  HUP         read the configuration again and replace the workers, slot by slot
  TTIN, TTOU  one worker more, one fewer
  USR1        open the log file (--log-file) anew
  TERM, QUIT  finish and exit; a second one ends at once
  INT         the same; as Ctrl-C at a terminal, within a second or two";

/// Hands each connection to the worker that its client sticks to
///
/// A sticky-session TCP load balancer for one host: it accepts each connection, chooses a worker by the client's address,
/// and hands the socket itself to that worker.
#[derive(Debug, clap::Parser)]
#[command(name = "haft", version, override_usage = "haft [FLAGS] [-- COMMAND [ARGS]...]\n       haft NAME [ARGS]...", after_help = EXAMPLES)]
#[command(disable_help_flag = true, disable_version_flag = true)]
struct Flags {
    /// What each worker runs, with its arguments: a Node program, or a program that speaks haft's hand-over protocol or
    /// inherits a listener (--dialect listen-fds)
    /// [default: the built-in Socket.IO worker]
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,

    #[command(flatten)]
    listening: listening::ListenFlags,
    #[command(flatten)]
    workers: workers::Workers,
    #[command(flatten)]
    routing: routing::Routing,
    #[command(flatten)]
    sessions: sessions::SessionFlags,
    #[command(flatten)]
    proxies: proxies::ProxyFlags,
    #[command(flatten)]
    first: peek::FirstFlags,
    #[command(flatten)]
    limits: limits::LimitFlags,
    #[command(flatten)]
    dispatch: dispatch::DispatchFlags,
    #[command(flatten)]
    handover: handover::HandOver,
    #[command(flatten)]
    timeouts: handover::Timeouts,
    #[command(flatten)]
    hanging: watchdog::Hanging,
    #[command(flatten)]
    care: care::CareFlags,
    #[command(flatten)]
    node: node::NodeFlags,
    #[command(flatten)]
    rooms: rooms::RoomsFlags,
    #[command(flatten)]
    engine: engine::EngineFlags,
    #[command(flatten)]
    admin: observability::AdminFlags,
    #[command(flatten)]
    logging: observability::Logging,
    #[command(flatten)]
    configuration: Configuration,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Configuration")]
struct Configuration {
    /// Read flags from a YAML file; a flag on the command line beats the file [default: none]
    ///
    /// Each flag is a key of the same name (`workers: 4`, `listen: [3000, "unix:/run/haft.sock"]`); COMMAND is the key
    /// `command`, a list or a text. Paths are relative to haft's working directory. Each flag is also an environment
    /// variable (HAFT_FLAG_WORKERS=4, HAFT_FLAG_LISTEN=3000,unix:/run/haft.sock), which beats the file and is not passed on
    /// to workers. WEB_CONCURRENCY is the default of --workers; PORT is that of --listen, for every interface.
    #[arg(short, long, value_name = "FILE", value_parser = file_name)]
    config: Option<PathBuf>,

    /// Check everything, print the effective configuration as YAML and where each value comes from, and exit
    #[arg(long)]
    check: bool,

    /// Print this help (-h: in short)
    #[arg(short, long, action = ArgAction::Help)]
    help: Option<bool>,

    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// What stands for the value of a switch, which distinguishes switches from other flags.
const SWITCH: &str = "BOOL";

/// All flags. A switch is `--flag` for true and may be written `--flag=false`, which beats true in the file. It is
/// false by default, unless its help states another default.
pub(crate) fn command() -> Command {
    Flags::command().mut_args(|arg| {
        if !matches!(arg.get_value_names(), Some([name]) if name == SWITCH) {
            return arg;
        }
        let says_default = arg.get_help().is_some_and(|help| help.to_string().contains("[default: "));
        let arg = arg.required(false).num_args(0..=1).require_equals(true).default_missing_value("true");
        let arg = arg.hide_possible_values(true);
        if says_default { arg } else { arg.default_value("false") }
    })
}

fn file_name(text: &str) -> Result<PathBuf, &'static str> {
    if text.is_empty() { Err("the name of the file is missing") } else { Ok(text.into()) }
}

/// What a command line comes to.
#[derive(Debug)]
pub enum ParseOutcome {
    /// To run with this.
    Run(Box<Config>),
    /// To say what it comes to and exit, if this host has what it names.
    Check(Box<Config>, EarlyExit),
    /// To say something and exit: the help, the version, or what is wrong.
    Exit(EarlyExit),
}

/// The text to print before exiting.
#[derive(Debug)]
pub struct EarlyExit(ExitMessage);

#[derive(Debug)]
enum ExitMessage {
    /// In clap's words and colours: the help, the version, what is wrong.
    Clap(clap::Error),
    /// The effective configuration.
    Yaml(String),
}

/// Reads the command line, the program's name first, and the file that it names, as if the environment were empty.
///
/// Reading that file, looking whether the folders that are named exist and whether the token file holds a token, and
/// counting the CPUs for `--workers auto` are all that it does; it prints nothing.
pub fn parse_from<I: IntoIterator<Item: Into<OsString>>>(args: I) -> ParseOutcome {
    parse_with([], args, &[])
}

/// The same, with the environment, and where a service manager has passed sockets.
pub fn parse_with<I: IntoIterator<Item: Into<OsString>>>(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    args: I,
    passed: &[PassedAddr],
) -> ParseOutcome {
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    match configure(environment, &args, passed) {
        Ok((config, None)) => ParseOutcome::Run(Box::new(config)),
        Ok((config, Some(from))) => match config.to_yaml().map(|yaml| effective::with_sources(&yaml, &from)) {
            Ok(text) => ParseOutcome::Check(Box::new(config), EarlyExit(ExitMessage::Yaml(text))),
            Err(error) => ParseOutcome::Exit(EarlyExit::wrong(error)),
        },
        Err(FlagsError::Clap(error)) => ParseOutcome::Exit(EarlyExit(ExitMessage::Clap(error))),
        Err(error) => ParseOutcome::Exit(EarlyExit::wrong(error)),
    }
}

/// The configuration and, if it is only to be shown, where it comes from.
fn configure(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    args: &[OsString],
    passed: &[PassedAddr],
) -> Result<(Config, Option<Provenance>), FlagsError> {
    let command = command();
    let typed = command.clone().try_get_matches_from(args)?;
    if args.last().is_some_and(|last| last == "--") && !typed.contains_id("command") {
        return Err(FlagsError::NothingAfterDashes);
    }
    let environment = Environment::read(&command, environment)?;
    let path = typed.get_one::<PathBuf>("config").cloned().or_else(|| environment.one("config").map(PathBuf::from));
    let file = path.map(|path| ConfigFile::read(&path)).transpose()?;
    let provenance = Provenance::new(&command, &typed, environment, file);
    let flags =
        Flags::from_arg_matches(&command.clone().try_get_matches_from(with_the_rest(&command, args, &provenance)?)?)?;
    check_heeded(&command, &flags, &provenance)?;
    let check = flags.configuration.check;
    let config = flags.resolve(passed, &provenance)?;
    Ok((config, check.then_some(provenance)))
}

/// The command line as if what the file and the environment say had been typed too, except where it is beaten.
fn with_the_rest(command: &Command, args: &[OsString], provenance: &Provenance) -> Result<Vec<OsString>, FlagsError> {
    let (mut flags, mut program) = (Vec::new(), Vec::new());
    let mut take = |key: &str, words: Vec<String>| match key {
        "command" => program = words,
        _ => flags.extend(words),
    };
    if let Some(file) = provenance.file() {
        for (index, (key, node)) in file.entries().enumerate() {
            let words =
                yaml_args::as_typed(command, key, node).map_err(|wrong| file.refuse(index, wrong.in_file(key)))?;
            if !provenance.is_beaten_in_file(key) {
                take(key, words);
            }
        }
    }
    for (key, words) in yaml_args::of_environment(command, provenance)? {
        take(&key, words);
    }
    let (name, rest) = args.split_at(args.len().min(1));
    let said_elsewhere = flags.into_iter().map(OsString::from);
    let program = program.into_iter().map(OsString::from);
    Ok(name.iter().cloned().chain(said_elsewhere).chain(rest.iter().cloned()).chain(program).collect())
}

/// Refuses flags that what is to run would not heed.
fn check_heeded(command: &Command, flags: &Flags, provenance: &Provenance) -> Result<(), FlagsError> {
    let topic = |heading| -> Vec<String> {
        command.get_arguments().filter(|arg| arg.get_help_heading() == Some(heading)).map(file::key).collect()
    };
    let refuse = |keys: &[String], owner| {
        let names: Vec<_> =
            keys.iter().filter(|key| provenance.is_given(key)).map(|key| provenance.name(key)).collect();
        if names.is_empty() { Ok(()) } else { Err(FlagsError::Misplaced { names, owner }) }
    };
    let mut of_node = topic(node::HEADING);
    if !provenance.is_given("command") {
        return refuse(&of_node, Owner::Command);
    }
    let mut of_engine = topic(engine::HEADING);
    if flags.routing.affinity.has_sessions() {
        of_engine.retain(|key| key != "path");
    }
    refuse(&of_engine, Owner::Engine)?;
    let dialect = flags.node.dialect;
    let not_of_node = match dialect {
        DialectChoice::Auto | DialectChoice::Node => None,
        DialectChoice::Haft => Some(&[node::DIALECT][..]),
        DialectChoice::ListenFds => Some(&[node::DIALECT, node::WAIT_READY][..]),
    };
    if let Some(heeded) = not_of_node {
        of_node.retain(|key| !heeded.contains(&key.as_str()));
        refuse(&of_node, Owner::Node { name: provenance.name(node::DIALECT), dialect })?;
    }
    if dialect == DialectChoice::ListenFds {
        refuse(&topic(rooms::HEADING), Owner::Linked { name: provenance.name(node::DIALECT) })?;
    }
    Ok(())
}

impl Flags {
    /// Checks what concerns more than one flag, and what is outside of haft.
    fn resolve(self, passed: &[PassedAddr], provenance: &Provenance) -> Result<Config, FlagsError> {
        let affinity = self.routing.affinity;
        let sessions =
            self.sessions.resolve(self.engine.path.clone(), self.routing.sticky_path, &affinity, provenance)?;
        let rooms = self.rooms.resolve(&self.command, provenance)?;
        let program = match self.command.first() {
            Some(name) if name.is_empty() => return Err(FlagsError::EmptyCommand { name: provenance.name("command") }),
            Some(_) => Program::Command(self.node.resolve(self.command)),
            None => Program::BuiltIn(self.engine.resolve(provenance)?),
        };
        let backlog = self.listening.backlog;
        let (listen, default_listen) = self.listening.resolve(&program, passed, provenance)?;
        listening::check_apart(
            listen.as_deref().unwrap_or_default(),
            self.admin.admin.as_ref().and_then(Admin::addr),
            provenance,
        )?;
        let care = self.care.resolve(provenance)?;
        let config = Config {
            listen,
            default_listen,
            backlog,
            workers: self.workers.workers.resolve()?,
            worker_nofile: self.workers.worker_nofile,
            user: self.workers.user,
            worker_env: self.workers.worker_env,
            prefix_output: self.workers.prefix_output,
            affinity,
            sessions,
            proxies: self.proxies.resolve(provenance)?,
            first: self.first.resolve(),
            limits: self.limits.resolve(provenance)?,
            prefix: Prefix { ipv4: self.routing.ipv4_prefix, ipv6: self.routing.ipv6_prefix },
            dispatch: self.dispatch.dispatch,
            max_in_flight: self.handover.max_in_flight,
            busy_poll: self.handover.busy_poll,
            hold_timeout: self.timeouts.hold_timeout,
            start_timeout: self.timeouts.start_timeout,
            drain_timeout: self.timeouts.drain_timeout,
            drain_signal: self.timeouts.drain_signal,
            hang_timeout: self.hanging.resolve(care.health.is_some(), provenance)?,
            hang_kill: self.hanging.hang_kill,
            care,
            rooms,
            admin_token_file: self.admin.token_file(provenance)?,
            admin: self.admin.admin.unwrap_or_default(),
            name: self.admin.name,
            log: self.logging.resolve(),
            program,
        };
        dispatch::check(&config, provenance)?;
        Ok(config)
    }
}

impl EarlyExit {
    fn wrong(error: impl fmt::Display) -> Self {
        let message = format!("{}\n", without_error_numbers(&error.to_string()));
        Self(ExitMessage::Clap(clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(&command())))
    }

    /// The exit code: 0 if it was asked for, 2 if something is wrong with the flags or the file.
    pub fn code(&self) -> u8 {
        match &self.0 {
            ExitMessage::Clap(error) if error.use_stderr() => 2,
            ExitMessage::Clap(_) | ExitMessage::Yaml(_) => 0,
        }
    }

    /// Writes it to where it belongs, standard output (code 0) or standard error, in colour on a terminal.
    ///
    /// # Errors
    ///
    /// The error of the write, such as EPIPE when the reader is gone.
    pub fn print(&self) -> io::Result<()> {
        match &self.0 {
            ExitMessage::Clap(error) => error.print(),
            ExitMessage::Yaml(yaml) => io::stdout().write_all(yaml.as_bytes()),
        }
    }
}

impl fmt::Display for EarlyExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            ExitMessage::Clap(error) => error.fmt(f),
            ExitMessage::Yaml(yaml) => f.write_str(yaml),
        }
    }
}
