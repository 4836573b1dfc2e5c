//! What COMMAND is: whether it starts Node, and what to start if a package manager would keep the channel to itself.
//!
//! Node learns its channel from the environment (`NODE_CHANNEL_FD`) and takes those variables away before it runs
//! anything. So whatever is itself Node and starts another Node - npm, yarn, npx, cross-env, a build step before the
//! server - swallows the channel, and the server would bind its port by itself. haft therefore looks through the command
//! line and package.json for the start of the server, and runs that.
//!
//! It reads files (package.json, the first line of scripts), and does nothing else.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;

pub mod inspect;
mod look;
mod managed;
mod manager;
mod node;
mod package;
mod prefix;
pub mod preload;
pub mod script;
mod shell;
#[cfg(test)]
mod tests;
mod text;

pub use look::Place;
pub use package::PackageError;
pub use preload::Preload;

use look::{Aim, Looker, Notes};

/// What is spoken on the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// haft's own.
    Haft,
    /// That of Node's cluster.
    Node,
    /// None: the program takes its listeners over.
    ListenFds,
}

/// A command, understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Recognised {
    /// What to speak with it.
    pub dialect: Dialect,
    /// What to start; never empty. What was typed, unless `notes` say otherwise.
    pub command: Vec<String>,
    /// What was decided; for the log.
    pub said: Vec<String>,
    /// What will probably go wrong, and the cure; for the log.
    pub warnings: Vec<String>,
}

/// Why a command cannot be started as it was typed.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// A script is asked for, and there is no package.json.
    #[error(
        "{saying}: there is no package.json in {} or above it: go to the program's folder, \
         or give haft the command itself (haft -- node server.js)", folder.display()
    )]
    NoPackage {
        /// What was typed.
        saying: String,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// package.json has no such script.
    #[error("{saying}: {} has no script {name:?}; it has: {known}", file.display())]
    NoScript {
        /// What was typed.
        saying: String,
        /// The script.
        name: String,
        /// The package.json.
        file: PathBuf,
        /// The scripts there are.
        known: String,
    },
    /// No script is named.
    #[error("{saying}: name the script to run; there are: {known}")]
    Unnamed {
        /// What was typed.
        saying: String,
        /// The scripts there are.
        known: String,
    },
    /// A program is asked for that would have to be downloaded.
    #[error(
        "{saying}: {program} is installed neither in {} nor in PATH, and haft downloads nothing: npm install {program}",
        folder.join("node_modules").display()
    )]
    NotInstalled {
        /// What was typed.
        saying: String,
        /// The program.
        program: String,
        /// The folder whose node_modules was looked into.
        folder: PathBuf,
    },
    /// A member of a workspace is named instead of its folder.
    #[error("{saying}: haft does not look for members of a workspace: go to the folder of {member} and start it there")]
    Workspace {
        /// What was typed.
        saying: String,
        /// The member.
        member: String,
    },
    /// Scripts that call each other without end.
    #[error("{saying}: the scripts of package.json call each other without end")]
    Loop {
        /// The script at which looking ended.
        saying: String,
    },
    /// A package.json that is of no use.
    #[error(transparent)]
    Package(#[from] PackageError),
}

impl Place {
    /// Where this process is.
    ///
    /// # Errors
    ///
    /// When the working directory is gone or cannot be reached.
    pub fn here() -> io::Result<Self> {
        let path = std::env::var_os("PATH");
        let path = std::env::split_paths(path.as_deref().unwrap_or(OsStr::new("/usr/bin:/bin"))).collect();
        Ok(Self { folder: std::env::current_dir()?, path })
    }
}

/// Looks at a command line (never empty) as it would be started at `place`. `asked` is the dialect that the user wants,
/// if one was named: then only what to start is looked for.
///
/// # Errors
///
/// When a package manager is asked for something that is not there.
pub fn recognise(command: &[String], place: &Place, asked: Option<Dialect>) -> Result<Recognised, ProgramError> {
    let unchanged = |dialect| Recognised { dialect, command: command.to_vec(), said: Vec::new(), warnings: Vec::new() };
    if asked == Some(Dialect::Haft) {
        // Its channel has another name (HAFT_CHANNEL_FD), which passes through package managers.
        return Ok(unchanged(Dialect::Haft));
    }
    if asked == Some(Dialect::ListenFds) {
        return Ok(unchanged(Dialect::ListenFds));
    }
    let mut looker = Looker::new(Aim::Start { forced: asked == Some(Dialect::Node) });
    looker.started_in.clone_from(&place.folder);
    let seen = looker.command(command, place)?;
    if !seen.node && asked.is_none() {
        return Ok(unchanged(Dialect::Haft));
    }
    let Notes { said, warnings } = looker.notes;
    Ok(Recognised { dialect: Dialect::Node, command: seen.instead.unwrap_or_else(|| command.to_vec()), said, warnings })
}
