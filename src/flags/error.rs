//! What can be wrong with the flags and the file. Each message names the thing and the cure.

use std::io;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::addr::{Listen, ListenAddr};
use crate::admin::TokenFileError;
use crate::config::{DialectChoice, DispatchBy};
use crate::process::program::script;
use crate::sys::trust::Untrusted;

#[derive(Debug, thiserror::Error)]
pub(super) enum FlagsError {
    /// The help, the version, or a wrong command line, in clap's words.
    #[error("{0}")]
    Clap(clap::Error),

    #[error("{name} is of no use without --redis: say which Redis, or leave it out")]
    NoRedis { name: String },

    #[error("there is no program after `--`: name one, or leave out `--` for the built-in Socket.IO worker")]
    NothingAfterDashes,

    #[error("{name} begins with an empty word: name a program")]
    EmptyCommand { name: String },

    #[error("--config {}: {source}; check its name and whether this user may read it", path.display())]
    Unreadable { path: PathBuf, source: io::Error },

    #[error("--config: {0}")]
    Untrusted(#[source] Untrusted),

    #[error("--config {}: {why}", path.display())]
    NotConfiguration { path: PathBuf, why: &'static str },

    #[error("{}:{line}: {why}", path.display())]
    Line { path: PathBuf, line: usize, why: String },

    #[error("{name}: {why}")]
    Variable { name: String, why: String },

    #[error("{name} {addr}: it overlaps with {other}, which is {other_is}: choose another address or port")]
    Overlap { name: String, addr: ListenAddr, other: ListenAddr, other_is: &'static str },

    #[error("{name} {listen}: only a server of a Node program has a port of its own: write {name} {}", listen.addr)]
    NoServer { name: String, listen: Listen },

    #[error(
        "{name} {arg}: the service manager has passed no socket of this name (FileDescriptorName={wanted} in the .socket \
         unit gives it); {there}"
    )]
    NotPassed { name: String, arg: String, wanted: String, there: String },

    #[error("{} {} to {owner}", names.join(", "), if names.len() == 1 { "belongs" } else { "belong" })]
    Misplaced { names: Vec<String>, owner: Owner },

    #[error("{name}: * is every site already, leave out the others")]
    EveryOriginAndMore { name: String },

    #[error("{name}: give {most} at most, the one that signs first")]
    TooManyKeys { name: String, most: usize },

    #[error("{name}: the built-in Socket.IO worker has one path; only a COMMAND may have several")]
    OnePath { name: String },

    #[error("{name} {}: {fault}", path.display())]
    Folder { name: String, path: PathBuf, fault: FolderFault },

    #[error("{name} {}: {fault}", path.display())]
    Token { name: String, path: PathBuf, fault: TokenFileError },

    #[error(
        "{name}: it is for an admin listener on TCP, and there is none: give --admin an address such as \
         127.0.0.1:9090, or leave it out (on a Unix socket no token is needed)"
    )]
    TokenForNothing { name: String },

    #[error("{name}: it needs --affinity session, query:NAME or the like, which tag or hash with it")]
    NoSessions { name: String },

    #[error("{name}: it is for session ids: add --affinity session, or leave it out")]
    HostWithoutSessions { name: String },

    #[error("{name}: give --tag-key, too, the same one on every host: by it a host knows the sessions of the others")]
    HostWithoutKey { name: String },

    #[error("{name}: it has no effect with --affinity none: leave out one or the other")]
    NothingSticks { name: String },

    #[error("{name}: give {least} characters or more, such as `openssl rand -hex 32` makes, or @FILE")]
    ShortSecret { name: String, least: usize },

    #[error(
        "{name}: name the proxies, such as --trusted-proxy 10.0.0.0/8 (otherwise any client could forge its address)"
    )]
    NobodyTrusted { name: String },

    #[error("{name}: it has no effect alone: add --proxy-protocol or --client-ip-header, or leave it out")]
    TrustedForNothing { name: String },

    #[error("{kill}: {never} is 0, so no worker counts as hung: leave out one or the other")]
    NeverHung { kill: String, never: String },

    #[error("{name} is of no use without --health-check: give it a path, such as /healthz, or leave it out")]
    NothingToAsk { name: String },

    #[error(
        "{name} is of no use without a limit: add --max-rate-per-client, --max-waiting-per-client or --max-rate, or leave \
         it out"
    )]
    NothingToExceed { name: String },

    #[error("{name}: say when, with --max-restarts such as 5/1m, or leave it out")]
    NeverGivesUp { name: String },

    #[error("{name}: {dispatch} is {is}, and {why}: leave out one or the other")]
    NotByDispatch { name: String, dispatch: String, is: DispatchBy, why: &'static str },

    #[error("--workers auto: the CPUs cannot be counted ({0}): give a number")]
    UnknownCpus(#[source] io::Error),
}

/// What flags belong to that is not what runs, and the cure.
#[derive(Debug, thiserror::Error)]
pub(super) enum Owner {
    #[error("the built-in Socket.IO worker, which does not run when there is a COMMAND: leave out one or the other")]
    Engine,
    #[error("a COMMAND, and there is none: name a program after `--`, or leave out what is for one")]
    Command,
    #[error("a Node program, but {name} says {dialect}: leave out one or the other")]
    Node { name: String, dialect: DialectChoice },
    #[error("a program with a link to haft, but {name} says listen-fds: leave out one or the other")]
    Linked { name: String },
}

/// What is wrong with a folder.
#[derive(Debug, thiserror::Error)]
pub(super) enum FolderFault {
    #[error("{0}: name a folder that exists and may be read")]
    Unreachable(#[from] io::Error),
    #[error("it is not a folder")]
    NoFolder,
    #[error(
        "it holds no {0}: name the folder node_modules/socket.io-client/dist, after `npm install socket.io-client`"
    )]
    Lacks(&'static str),
}

impl From<clap::Error> for FlagsError {
    /// clap's tip for what it does not know is to put it behind `--`; for a flag that would be wrong, and for a program
    /// (`haft node server.js`) there is no tip.
    fn from(mut error: clap::Error) -> Self {
        error.remove(ContextKind::Suggested);
        match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(word))
                if error.kind() == ErrorKind::UnknownArgument && !word.starts_with('-') =>
            {
                let command = script::command_for(word).unwrap_or_else(|| word.clone());
                let tip = format!("a program to run comes after '--': haft -- {command}");
                error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
            }
            _ => {}
        }
        Self::Clap(error)
    }
}
