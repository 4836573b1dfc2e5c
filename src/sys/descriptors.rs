//! How many descriptors this process may have, and how many it has.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::fstat;

/// Raises the soft limit on descriptors (RLIMIT_NOFILE) to the hard limit and returns it.
pub fn raise_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    limit()
}

/// The soft limit on descriptors.
pub fn limit() -> io::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.0)
}

/// Sets the soft limit on descriptors, as far as the hard limit allows. Allocates nothing, so that it can be called
/// between fork and exec.
#[cfg(feature = "master")]
pub(super) fn set_soft_limit(soft: u64) -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard), hard)?)
}

/// The same open file under a number of `at_least` or more, close-on-exec; the old number is free again. Where the
/// limit on descriptors allows no such number it is asked for a smaller one, down to a quarter.
pub fn move_up(descriptor: OwnedFd, at_least: RawFd) -> io::Result<OwnedFd> {
    let mut least = at_least;
    loop {
        match fcntl(&descriptor, FcntlArg::F_DUPFD_CLOEXEC(least)) {
            // SAFETY: the call has just made this descriptor, and nothing else knows its number.
            Ok(moved) => return Ok(unsafe { OwnedFd::from_raw_fd(moved) }),
            Err(Errno::EINVAL) if least > at_least / 4 => least /= 2,
            Err(error) => return Err(error.into()),
        }
    }
}

/// The number of an open file within its file system: of a socket or a pipe, the one by which all processes know it.
pub fn inode(descriptor: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(fstat(descriptor)?.st_ino)
}

/// From so many neighbours on, closing them in one call is cheaper than one by one.
const NEIGHBOURS: usize = 3;

/// Whether close_range(2) is to be asked: not any more once it was refused, by a kernel before 5.9 (ENOSYS) or by a
/// seccomp profile (EPERM, mostly).
static HAS_CLOSE_RANGE: AtomicBool = AtomicBool::new(true);

/// Closes descriptors, those with neighbouring numbers in one system call (close_range(2)): a quarter of the cost of
/// closing them one by one, which is done where that call is refused. Leaves `descriptors` empty, with its room.
pub fn close_all(descriptors: &mut Vec<OwnedFd>) {
    descriptors.sort_unstable_by_key(AsRawFd::as_raw_fd);
    while !descriptors.is_empty() {
        close_some(descriptors);
    }
}

/// Closes as many of the descriptors, sorted by their numbers, as one system call does; one at least if there is one.
pub(super) fn close_some(descriptors: &mut Vec<OwnedFd>) {
    if HAS_CLOSE_RANGE.load(Ordering::Relaxed) {
        close_neighbours(descriptors, close_range);
    } else {
        descriptors.pop();
    }
}

/// Closes the last of the descriptors with those before it that are its neighbours, by `close_range`; if it refuses,
/// the last alone.
fn close_neighbours(descriptors: &mut Vec<OwnedFd>, close_range: impl FnOnce(&[OwnedFd]) -> io::Result<()>) {
    let Some(last) = descriptors.last().map(AsRawFd::as_raw_fd) else { return };
    // Each number is there once, since each is owned.
    let run = descriptors.iter().rev().zip(0..).take_while(|(fd, back)| fd.as_raw_fd() == last - back).count();
    let start = descriptors.len() - run;
    if run < NEIGHBOURS {
        descriptors.pop();
    } else if let Err(error) = close_range(&descriptors[start..]) {
        HAS_CLOSE_RANGE.store(false, Ordering::Relaxed);
        tracing::info!(%error, "close_range(2) is refused: connections are closed one by one, which costs a little more");
        descriptors.pop();
    } else {
        // Their numbers may be others' already: they must not be closed once more.
        descriptors.drain(start..).for_each(|descriptor| {
            let _closed_above = descriptor.into_raw_fd();
        });
    }
}

/// Closes a range of descriptors, whose owner must then forget them. After an error none was closed.
fn close_range(neighbours: &[OwnedFd]) -> io::Result<()> {
    let (Some(first), Some(last)) = (neighbours.first(), neighbours.last()) else { return Ok(()) };
    let (first, last) = (first.as_raw_fd() as libc::c_uint, last.as_raw_fd() as libc::c_uint);
    // By number, since older C libraries do not have the function.
    // SAFETY: the range holds exactly the descriptors that the caller owns, in order and without a gap, and the caller
    // gives them up unless this fails; it fails before it has closed any.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How many descriptors this process has open.
///
/// proc_pid_fd(5): since Linux 6.2 the size of `/proc/self/fd` is their number; before that it is 0 and they are
/// counted one by one.
pub fn open_count() -> io::Result<u64> {
    match fs::metadata("/proc/self/fd")?.size() {
        // One of the entries is the descriptor that reads the folder.
        0 => Ok(fs::read_dir("/proc/self/fd")?.count().saturating_sub(1) as u64),
        count => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_opened_file_is_counted() {
        // Other tests of this process open and close files meanwhile: hold many and compare loosely.
        let before = open_count().expect("count");
        let held: Vec<_> = (0..500).map(|_| fs::File::open("/dev/null").expect("open")).collect();
        let after = open_count().expect("count");
        assert!(after >= before.saturating_sub(200) + held.len() as u64, "{before} then {after}");
    }

    #[test]
    fn each_is_closed_once_and_nobody_elses() {
        let mut ends = Vec::new();
        let mut close = Vec::new();
        // Neighbours, and gaps where others are between them.
        for number in 0..60 {
            let (end, other) = std::os::unix::net::UnixStream::pair().expect("pair");
            if number % 7 == 3 {
                ends.push((other, Some(end)))
            } else {
                ends.push((other, None));
                close.push(OwnedFd::from(end));
            }
        }
        let extra: Vec<_> = (0..40).map(|_| fs::File::open("/dev/null").expect("open")).collect();
        let inodes = fs::metadata("/dev/null").expect("metadata").ino();
        close.extend(extra.into_iter().map(OwnedFd::from));
        close_all(&mut close);
        assert!(close.is_empty() && close.capacity() > 0);
        assert_ne!(inodes, 0);
        for (other, kept) in ends {
            // A process that another test has just started may still have a copy.
            other.set_read_timeout(kept.is_none().then(|| Duration::from_secs(60))).expect("a timeout");
            other.set_nonblocking(kept.is_some()).expect("a mode");
            let read = std::io::Read::read(&mut &other, &mut [0]);
            assert_eq!(read.is_ok(), kept.is_none(), "{read:?}");
        }
        close_all(&mut close);
    }

    #[test]
    fn the_limit_is_at_least_what_is_open() {
        assert!(limit().expect("limit") >= open_count().expect("count"));
    }
}
