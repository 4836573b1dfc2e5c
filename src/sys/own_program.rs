//! This program itself, to be started once more.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tokio::process::Command;

/// Names this very file, whatever has its path by now: as a command it is `path`.
pub const OWN: &str = "/proc/self/exe";

/// What to execute for [`OWN`]. Where `/proc` is not mounted it is the path that this process was started by, and thus
/// a newer program once the file has been exchanged.
///
/// # Errors
///
/// Without `/proc`, if the kernel does not tell the path, or the current folder is gone.
pub(super) fn path() -> io::Result<PathBuf> {
    if Path::new(OWN).symlink_metadata().is_ok() { Ok(OWN.into()) } else { started_by() }
}

/// A program to be started, which may be [`OWN`].
pub(super) fn command(program: &str) -> io::Result<Command> {
    if program != OWN {
        return Ok(Command::new(program));
    }
    let mut own = Command::new(path()?);
    // What `ps` shows.
    own.arg0("haft: worker");
    Ok(own)
}

fn started_by() -> io::Result<PathBuf> {
    // SAFETY: it reads the process's auxiliary vector.
    let name = unsafe { libc::getauxval(libc::AT_EXECFN) } as *const libc::c_char;
    if name.is_null() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "/proc is not mounted: haft does not find its own program",
        ));
    }
    // SAFETY: it is not null, and then it is a text that the kernel put above the stack, where it stays (getauxval(3)).
    let name = unsafe { CStr::from_ptr(name) };
    std::path::absolute(OsStr::from_bytes(name.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_with_and_without_proc() {
        let this = std::env::current_exe().expect("its path");
        for path in [path(), started_by()] {
            assert_eq!(path.and_then(|path| path.canonicalize()).expect("a path"), this);
        }
    }
}
