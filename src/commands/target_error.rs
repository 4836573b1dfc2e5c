//! Why it is not known which haft is meant.

use std::path::PathBuf;

use super::client::ClientError;

/// Why it is not known which haft is meant.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// None runs.
    #[error(
        "no haft runs here that this user may ask: start one (`haft --help`), or name its admin listener (--admin ADDR)"
    )]
    None,
    /// Others' run.
    #[error(
        "no haft runs here that this user may ask, but there are control sockets of another user ({}): run this command \
         as root or as that user", .0.display()
    )]
    Foreign(PathBuf),
    /// None has this name.
    #[error("no haft here is called {name}; these run:\n\n{list}")]
    Unknown {
        /// The name.
        name: String,
        /// Those that run.
        list: String,
    },
    /// Several run.
    #[error("several run here; say which one with --name:\n\n{0}")]
    Several(String),
    /// `--admin off`.
    #[error("--admin: give the address of an admin listener, such as unix:/run/haft.sock or 9090")]
    NoAddress,
    /// The one that was named does not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No event loop, or an answer that is none.
    #[error("{0}")]
    Other(String),
}
