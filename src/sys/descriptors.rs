//! How many descriptors this process may have, and how many it has.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

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

/// Sets the soft limit on descriptors, as far as the hard limit allows. Allocates nothing, so that it can be called between
/// fork and exec.
pub(super) fn set_soft_limit(soft: u64) -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard), hard)?)
}

/// From so many neighbours on, closing them in one call is cheaper than one by one.
const NEIGHBOURS: usize = 3;

/// Closes descriptors, those with neighbouring numbers in one system call (close_range(2)): a quarter of the cost of
/// closing them one by one. Leaves `descriptors` empty, with its room.
pub fn close_all(descriptors: &mut Vec<OwnedFd>) {
    descriptors.sort_unstable_by_key(AsRawFd::as_raw_fd);
    while let Some(last) = descriptors.last().map(AsRawFd::as_raw_fd) {
        // Each number is there once, since each is owned.
        let run = descriptors.iter().rev().zip(0..).take_while(|(fd, back)| fd.as_raw_fd() == last - back).count();
        let of_run = descriptors.drain(descriptors.len() - run..);
        if run < NEIGHBOURS {
            continue;
        }
        let first = last - run as RawFd + 1;
        // Whose numbers are closed by the range must not be closed once more.
        of_run.for_each(|descriptor| {
            let _closed_below = descriptor.into_raw_fd();
        });
        // SAFETY: the range holds exactly the descriptors that were owned here a moment ago. It can only fail for wrong arguments.
        unsafe { libc::close_range(first as libc::c_uint, last as libc::c_uint, 0) };
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
            other.set_nonblocking(true).expect("non-blocking");
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
