//! Folders of haft's own in places that others can write to.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// How often another name is tried where one is taken.
const MOST_TRIES: u32 = 16;

/// Makes a folder that did not exist. Nobody but this user and root can write there; others can reach what is in it if
/// they know its name.
pub fn new_private(place: &Path) -> io::Result<PathBuf> {
    let mut tries = 0;
    loop {
        // From the kernel's randomness: `RandomState` takes its keys there, and differs from call to call.
        let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), tries);
        let folder = place.join(format!("haft-{}-{random:016x}", std::process::id()));
        // mkdir(2) follows no link at the end of the path, and fails where anything is.
        match DirBuilder::new().mode(0o711).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < MOST_TRIES => tries += 1,
            Err(error) => return Err(error),
        }
    }
}
