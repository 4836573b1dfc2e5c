//! Whether a file, or the whole way to a folder, is in the hands of this user and root alone.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{getegid, geteuid};

/// S_IWGRP, S_IWOTH and S_ISVTX (inode(7)).
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Why a file or a folder is not to be trusted. Each text names the cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// Its owner can change it at any time.
    #[error("{what} belongs to user {uid}, and may only belong to root or to haft's user ({own}): chown {own} {what}")]
    Owner {
        /// The file.
        what: String,
        /// Its owner.
        uid: u32,
        /// This user.
        own: u32,
    },
    /// Others can write to it.
    #[error("others than its owner may write to {what} (mode {mode:04o}): chmod go-w {what}")]
    Writable {
        /// The file.
        what: String,
        /// Its permission bits.
        mode: u32,
    },
}

/// Checks a file that haft takes instructions from. Its group may write to it if that is this process's own.
///
/// # Errors
///
/// If it is another user's, or others may write to it.
pub fn check_file(path: &Path, metadata: &Metadata) -> Result<(), Untrusted> {
    let own_group = metadata.gid() == getegid().as_raw();
    check_owner(path, metadata, 0)?;
    check_mode(path, metadata, if own_group { OTHERS_WRITE } else { OTHERS_WRITE | GROUP_WRITES })
}

/// Checks that an open file is this user's or root's.
///
/// # Errors
///
/// If it is another user's.
pub fn check_file_owner(path: &Path, metadata: &Metadata) -> Result<(), Untrusted> {
    check_owner(path, metadata, 0)
}

/// Checks that only this user and root can replace what is in a folder: the whole way to it, as it really is (without
/// links), and itself. In a folder that all may write to, such as `/tmp`, what is ours stays ours if it has the sticky
/// bit.
///
/// # Errors
///
/// Whatever part of the way is not to be trusted (PermissionDenied), or cannot be looked at.
pub fn check_way(folder: &Path) -> io::Result<PathBuf> {
    let folder = folder.canonicalize()?;
    // In a user namespace that has no root, it is another number that owns all that root does outside.
    let host = fs::metadata("/")?.uid();
    for part in folder.ancestors() {
        let metadata = fs::symlink_metadata(part)?;
        let sticky = metadata.mode() & STICKY != 0;
        check_owner(part, &metadata, host)
            .and_then(|()| check_mode(part, &metadata, if sticky { 0 } else { OTHERS_WRITE | GROUP_WRITES }))
            .map_err(|untrusted| io::Error::new(io::ErrorKind::PermissionDenied, untrusted))?;
    }
    Ok(folder)
}

fn check_owner(path: &Path, metadata: &Metadata, root: u32) -> Result<(), Untrusted> {
    let (uid, own) = (metadata.uid(), geteuid().as_raw());
    if [0, root, own].contains(&uid) {
        return Ok(());
    }
    Err(Untrusted::Owner { what: path.display().to_string(), uid, own })
}

fn check_mode(path: &Path, metadata: &Metadata, forbidden: u32) -> Result<(), Untrusted> {
    match metadata.mode() & forbidden {
        0 => Ok(()),
        _ => Err(Untrusted::Writable { what: path.display().to_string(), mode: metadata.mode() & 0o7777 }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    #[test]
    fn the_whole_way_counts_and_the_sticky_bit_is_enough() {
        let place = tempfile::tempdir().expect("folder");
        let (upper, lower) = (place.path().join("upper"), place.path().join("upper/lower"));
        fs::create_dir_all(&lower).expect("folders");
        let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).expect("mode");
        for (of_upper, of_lower, good) in [
            (0o755, 0o700, true),
            (0o777, 0o700, false),
            (0o770, 0o700, false),
            (0o1777, 0o700, true),
            (0o755, 0o777, false),
            (0o755, 0o1777, true),
        ] {
            mode(&upper, of_upper);
            mode(&lower, of_lower);
            let checked = check_way(&lower);
            assert_eq!(checked.is_ok(), good, "{of_upper:o} {of_lower:o}: {checked:?}");
        }
        mode(&upper, 0o777);
        let link = place.path().join("link");
        symlink(&lower, &link).expect("link");
        let refused = check_way(&link).expect_err("the way behind the link");
        assert!(refused.to_string().contains("chmod go-w") && refused.to_string().contains("upper"), "{refused}");
        if geteuid().is_root() {
            mode(&upper, 0o755);
            chown(&upper, Some(65_533), None).expect("chown");
            assert!(check_way(&lower).expect_err("another user's").to_string().contains("belongs to user 65533"));
        }
    }
}
