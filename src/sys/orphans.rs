//! Processes whose parent has ended: adopting them and reaping them.

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// What has become of the children that have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaped {
    /// There is none any more.
    All,
    /// One of our own has ended, and hides the others until its exit status is collected.
    OwnFirst,
}

/// Has orphans among the descendants of this process become its children, as they become those of a process 1:
/// PR_SET_CHILD_SUBREAPER of prctl(2), since Linux 3.4.
pub fn adopt() -> nix::Result<()> {
    prctl::set_child_subreaper(true)
}

/// Reaps children (wait(2)), which would stay zombies otherwise. `is_own`: other code waits for this one, and
/// must find its exit status.
pub fn reap(is_own: impl Fn(u32) -> bool) -> Reaped {
    let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
    loop {
        let pid = match waitid(Id::All, ended | WaitPidFlag::WNOWAIT) {
            Ok(status) => status.pid(),
            Err(Errno::EINTR) => continue,
            // ECHILD: it has none, not even living ones.
            Err(_) => None,
        };
        match pid {
            None => return Reaped::All,
            Some(pid) if is_own(pid.as_raw().unsigned_abs()) => return Reaped::OwnFirst,
            // Nothing else waits for it, so it is still there.
            Some(pid) => _ = waitid(Id::Pid(pid), ended),
        }
    }
}

/// Whether this process has a child in a process group, ended or not. As long as that is so, the group's number is no
/// other group's.
pub fn has_child_in_group(leader: u32) -> bool {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    // 0 would be this process's own group.
    i32::try_from(leader).is_ok_and(|leader| leader > 0 && waitid(Id::PGid(Pid::from_raw(leader)), look).is_ok())
}
