//! Folders of haft's own in places that others can write to, and what is left there of masters that were killed.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::{Pid, UnlinkatFlags, geteuid, unlinkat};

use super::trust;

/// How often another name is tried where one is taken.
const MAX_TRIES: u32 = 16;
/// What such a folder's name begins with; its maker's process number follows.
const PREFIX: &str = "haft-";
/// All files that are ever made in one: what else is there is not haft's to remove.
const FILES: [&str; 2] = [PRELOAD, NOTIFY];
/// The script for Node programs.
pub const PRELOAD: &str = "haft-preload.cjs";
/// The socket of a listen-fds program.
pub const NOTIFY: &str = "notify";

/// A new folder, as long as this lives. Only this user and root can write there or replace it; others
/// can reach what is in it if they know its name.
///
/// It is locked: systemd-tmpfiles(8) removes nothing from a folder that another process has locked, however old it is,
/// and the next haft knows by it that its maker lives.
#[derive(Debug)]
pub struct PrivateFolder {
    path: PathBuf,
    _lock: File,
}

impl PrivateFolder {
    /// Makes one in a place to which the whole way is in the hands of this user and root.
    ///
    /// # Errors
    ///
    /// Where the place is not to be trusted (PermissionDenied), or nothing can be made there.
    pub fn below(place: &Path) -> io::Result<Self> {
        let place = trust::check_way(place)?;
        let mut tries = 0;
        loop {
            // From the kernel's randomness: `RandomState` takes its keys there, and differs from call to call.
            let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), tries);
            let path = place.join(format!("{PREFIX}{}-{random:016x}", std::process::id()));
            // mkdir(2) follows no link at the end of the path, and fails where anything is.
            match DirBuilder::new().mode(0o711).create(&path).and_then(|()| File::open(&path)) {
                Ok(lock) => {
                    // A file system without locks: nothing checks them.
                    lock.lock_shared().ok();
                    let made = Self { path, _lock: lock };
                    // A haft in another pid namespace may have taken it for one that was left, until it was locked.
                    if made.path.exists() {
                        return Ok(made);
                    }
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {
                    if tries == MAX_TRIES || !place.exists() {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
            tries += 1;
        }
    }

    /// Its absolute path, without links.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        // What is left in it keeps it. Its files are their makers' to remove.
        fs::remove_dir(&self.path).ok();
    }
}

/// Where such folders may be made, the best first: `$XDG_RUNTIME_DIR`, and the folder for temporary files.
///
/// Root's own runtime folder is usually closed to others, and root's workers may be another user's: then it is of no
/// use.
pub fn places() -> Vec<PathBuf> {
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let open_to_others = |folder: &PathBuf| {
        !geteuid().is_root() || fs::metadata(folder).is_ok_and(|metadata| metadata.mode() & 0o001 != 0)
    };
    runtime.filter(open_to_others).into_iter().chain([env::temp_dir()]).collect()
}

/// Removes the folders that masters of this user have left when they were killed. Yields how many.
///
/// # Errors
///
/// Where the place is not to be trusted, or cannot be read.
pub fn remove_stale(place: &Path) -> io::Result<usize> {
    let place = trust::check_way(place)?;
    let mut removed = 0;
    for entry in fs::read_dir(&place)? {
        let Ok(entry) = entry else { continue };
        if maker(&entry.file_name()).is_some_and(|pid| !lives(pid)) && remove_if_left(&entry.path()).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}

/// The process that owns this folder, by its name.
fn maker(name: &OsStr) -> Option<u32> {
    let (pid, random) = name.to_str()?.strip_prefix(PREFIX)?.split_once('-')?;
    let is_random = random.len() == 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit());
    pid.parse().ok().filter(|_| is_random)
}

/// Whether a process lives that may be the maker. This one is not: it has not made any yet that is not locked (in a
/// container the number is often the same each time).
fn lives(pid: u32) -> bool {
    let Ok(number) = i32::try_from(pid) else { return false };
    pid != std::process::id() && number > 0 && kill(Pid::from_raw(number), None) != Err(Errno::ESRCH)
}

/// Removes a folder of this user's that is not locked, with what haft makes in one.
fn remove_if_left(path: &Path) -> io::Result<()> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let folder = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if folder.metadata()?.uid() != geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    folder.try_lock()?;
    for name in FILES {
        unlinkat(&folder, name, UnlinkatFlags::NoRemoveDir).ok();
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_killed_masters_left_goes_and_nothing_else() {
        let place = tempfile::tempdir().expect("folder");
        let at = |name: &str| place.path().join(name);
        // No process has such a number (proc(5): pid_max is at most 2^22).
        let gone = 5_000_000;
        let left = [format!("haft-{gone}-0123456789abcdef"), format!("haft-{}-0123456789abcdef", std::process::id())];
        for name in &left {
            fs::create_dir(at(name)).expect("folder");
            fs::write(at(name).join(PRELOAD), "old").expect("file");
        }
        fs::write(at(&left[0]).join(NOTIFY), "old").expect("file");
        let living = PrivateFolder::below(place.path()).expect("made");
        let other = format!("haft-{gone}-00000000000000ff");
        fs::create_dir(at(&other)).expect("folder");
        fs::write(at(&other).join("precious"), "").expect("file");
        let of_parent = format!("haft-{}-0123456789abcdef", nix::unistd::getppid());
        let kept = [other.clone(), of_parent, "haft-x-0123456789abcdef".into(), format!("haft-{gone}-short")];
        kept[1..].iter().for_each(|name| fs::create_dir(at(name)).expect("folder"));
        let link = format!("haft-{gone}-aaaaaaaaaaaaaaaa");
        std::os::unix::fs::symlink(living.path(), at(&link)).expect("link");
        assert_eq!(remove_stale(place.path()).expect("removed"), left.len());
        assert!(left.iter().all(|name| !at(name).exists()));
        assert!(kept.iter().all(|name| at(name).exists()) && at(&other).join("precious").exists());
        assert!(living.path().exists() && at(&link).is_symlink());
    }
}
