//! What haft inherited from its own parent is not for its workers.

use std::fs;
use std::io;
use std::os::fd::RawFd;

/// The first descriptor that is none of the standard streams.
const FIRST: RawFd = 3;

/// Makes every descriptor of this process but the standard streams close-on-exec. Call it before anything is opened that
/// a program is to inherit. (What haft passes on to a worker it opens again, in the child.)
///
/// # Errors
///
/// Where neither close_range(2) nor `/proc/self/fd` can be had.
pub fn mark_inherited() -> io::Result<()> {
    // SAFETY: it changes flags of descriptors; none is closed.
    let marked = unsafe {
        libc::close_range(FIRST as libc::c_uint, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int)
    };
    // Linux before 5.11 has not the flag, before 5.9 not the call, and a seccomp profile may refuse it.
    if marked == 0 { Ok(()) } else { one_by_one() }
}

fn one_by_one() -> io::Result<()> {
    for entry in fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        let Some(number) = number.filter(|number| *number >= FIRST) else { continue };
        // SAFETY: it changes a flag of a descriptor, or fails where the number is none any more.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn both_ways_mark_what_is_open() {
        for mark in [mark_inherited, one_by_one] {
            let file = fs::File::open("/dev/null").expect("open");
            // SAFETY: flags of a descriptor that lives.
            let flags = |set: Option<i32>| unsafe {
                match set {
                    Some(flags) => libc::fcntl(file.as_raw_fd(), libc::F_SETFD, flags),
                    None => libc::fcntl(file.as_raw_fd(), libc::F_GETFD),
                }
            };
            assert_eq!(flags(Some(0)), 0);
            mark().expect("marked");
            assert_eq!(flags(None), libc::FD_CLOEXEC);
        }
    }
}
