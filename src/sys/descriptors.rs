//! How many descriptors this process may have, and how many it has.

use std::fs;
use std::io;
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
    fn the_limit_is_at_least_what_is_open() {
        assert!(limit().expect("limit") >= open_count().expect("count"));
    }
}
