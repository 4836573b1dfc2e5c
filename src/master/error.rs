//! Why the master failed.

use std::io;

use crate::listen::kernel::KernelError;
use crate::node::preload::PreloadError;
use crate::process::crew::StartError;
use crate::process::env_file::EnvFileError;
use crate::process::program::ProgramError;
use crate::route::SlotCountError;
use crate::sys::listen::ListenError;

/// Why the master failed.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// An address cannot be listened on.
    #[error("--listen {0}")]
    Listen(#[from] ListenError),
    /// The admin listener's address cannot be.
    #[error("--admin {0}")]
    Admin(#[source] ListenError),
    /// What the program wants to listen on cannot be, and it ended of that.
    #[error("the program cannot listen on {0}, or give an address with --listen")]
    ProgramListen(#[source] ListenError),
    /// Too many slots.
    #[error(transparent)]
    Slots(#[from] SlotCountError),
    /// What is to be run is not there.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// `--node-style` is no message that a program could get.
    #[error("--node-style: {0}")]
    Style(#[from] serde_json::Error),
    /// What is to be run cannot be had with these flags.
    #[error("{0}")]
    Unfit(&'static str),
    /// The preload cannot be written, without which a Node program would not do what was asked for.
    #[error(transparent)]
    Preload(#[from] PreloadError),
    /// What is to be added to the workers' environment cannot be read.
    #[error(transparent)]
    EnvFile(#[from] EnvFileError),
    /// A worker's program cannot be started at all.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The workers die before they are ready.
    #[error("worker exited before it was ready ({times} times): giving up ({end}; {wrote}){hint}")]
    GaveUp {
        /// How often in a row.
        times: u32,
        /// How the last one ended.
        end: String,
        /// Where to see what it wrote.
        wrote: &'static str,
        /// The probable cause, if its end suggests one.
        hint: &'static str,
    },
    /// The workers of a slot end again and again.
    #[error("{why}: haft has stopped (--give-up exit)")]
    TooManyRestarts {
        /// Which, and how often.
        why: String,
    },
    /// The system refused what cannot be done without.
    #[error("{doing}: {source}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Adds what was being done when a system call failed.
pub(super) trait Context<T> {
    fn context(self, doing: &'static str) -> Result<T, MasterError>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, doing: &'static str) -> Result<T, MasterError> {
        self.map_err(|source| MasterError::System { doing, source })
    }
}

impl From<KernelError> for MasterError {
    fn from(error: KernelError) -> Self {
        match error {
            KernelError::Reserve(source) => Self::System { doing: "keeping numbers of descriptors free", source },
            KernelError::Slots(error) => error.into(),
            KernelError::Listen(error) => error.into(),
        }
    }
}
