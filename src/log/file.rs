//! The log in a file (`--log-file`), which is opened anew when it has been renamed.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Its owner writes, its group reads: workers' lines may hold secrets.
const MODE: u32 = 0o640;

static PATH: OnceLock<PathBuf> = OnceLock::new();

/// The file cannot be written to.
#[derive(Debug, thiserror::Error)]
#[error(
    "--log-file {}: {source}; its folder must exist, and the user that haft runs as must be able to write there",
    path.display()
)]
pub struct LogFileError {
    path: PathBuf,
    source: io::Error,
}

/// The path, once the log goes to a file.
pub(super) fn path() -> Option<&'static Path> {
    PATH.get().map(PathBuf::as_path)
}

/// From now on the log goes to this file, if it can be opened.
pub(super) fn use_from_now_on(path: &Path) -> Result<(), LogFileError> {
    // Only whether it can be opened is asked here: the writing thread opens it by itself.
    open(path)?;
    PATH.set(path.to_owned()).ok();
    Ok(())
}

/// Opens the file where it has its name now, at its end.
pub(super) fn open(path: &Path) -> Result<File, LogFileError> {
    // Opening a pipe without a reader would block otherwise.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened = OpenOptions::new().append(true).create(true).mode(MODE).custom_flags(flags).open(path);
    opened.map_err(|source| LogFileError { path: path.to_owned(), source })
}
