//! Why a program cannot be a worker.

use std::io;

use haft_sys::inherit::InheritError;

/// Why a program cannot be a worker.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// It was not started by haft.
    #[error("this program was not started by haft (HAFT_CHANNEL_FD is not set): run it as `haft -- PROGRAM`")]
    NotUnderHaft,
    /// The variable does not name a channel of this process.
    #[error("HAFT_CHANNEL_FD={value} is not a channel of haft's: {source}")]
    NotAChannel {
        /// What the variable holds.
        value: String,
        /// What is wrong with it.
        source: InheritError,
    },
    /// The variable does not name listeners of this process.
    #[error("HAFT_LISTEN_FDS={value} are not listeners of haft's: {source}")]
    NotAListener {
        /// What the variable holds.
        value: String,
        /// What is wrong with one of them.
        source: InheritError,
    },
    /// The variable does not name a link to other workers.
    #[error("HAFT_ROOMS_FD={value} is not a link of haft's to other workers: {source}")]
    NotRooms {
        /// What the variable holds.
        value: String,
        /// What is wrong with it.
        source: InheritError,
    },
    /// The channel cannot be waited for.
    #[error("the channel to the master cannot be used: {0}")]
    Channel(#[from] io::Error),
}
