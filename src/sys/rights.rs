//! Acting with a worker's rights: a worker that has given up root must not have root do for it what it may not do
//! itself.
//!
//! The kernel names a worker's user (SCM_CREDENTIALS, unix(7)) with each message, as of the moment it was sent.
//! What is done for it is done on a thread of its own that has that user's file-system identity, its groups and no
//! capabilities: credentials are a thread's (credentials(7)), so no other thread is affected, and nothing has to be
//! undone. The thread keeps its real user, so that the worker can neither signal nor trace it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::thread;

use nix::sys::prctl;
use nix::unistd::{Gid, Uid, geteuid, setfsgid, setfsuid};

/// The sender of a message as the kernel reports it: its real user and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender {
    /// Its process; 0 if it is not in our pid namespace.
    pub pid: i32,
    /// Its real user.
    pub uid: u32,
    /// Its real group.
    pub gid: u32,
}

/// The user whose rights apply to an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rights {
    /// This process's own.
    Own,
    /// Those of another user.
    Of(User),
}

/// A user that is not this process's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    uid: u32,
    gid: u32,
    groups: Vec<libc::gid_t>,
}

impl Sender {
    /// Whether its paths mean what they mean here: it has the same root folder and the same mounts.
    ///
    /// # Errors
    ///
    /// When that cannot be known, such as of a process that has ended.
    pub fn shares_our_paths(&self) -> io::Result<bool> {
        let of = |process: &str| {
            let root = fs::metadata(format!("/proc/{process}/root/"))?;
            Ok::<_, io::Error>((root.dev(), root.ino(), fs::read_link(format!("/proc/{process}/ns/mnt"))?))
        };
        Ok(of(&self.pid.to_string())? == of("self")?)
    }
}

impl Rights {
    /// The rights of a message's sender.
    pub fn of(sender: &Sender) -> Self {
        if sender.uid == geteuid().as_raw() {
            return Self::Own;
        }
        // Of a process that has ended, or become another one, no groups: that is fewer rights, never more.
        let groups = fs::read_to_string(format!("/proc/{}/status", sender.pid)).ok();
        let groups = groups.and_then(|status| groups_of(&status, sender.uid)).unwrap_or_default();
        Self::Of(User { uid: sender.uid, gid: sender.gid, groups })
    }

    /// Whether they are this process's own.
    pub fn is_own(&self) -> bool {
        matches!(self, Self::Own)
    }

    /// Does something with these rights, on a thread of its own if they are another user's.
    ///
    /// # Errors
    ///
    /// EPERM: this process may not act as another user (it has no CAP_SETUID and CAP_SETGID). Nothing was done then.
    pub fn act<T: Send>(&self, act: impl FnOnce() -> T + Send) -> io::Result<T> {
        let Self::Of(user) = self else { return Ok(act()) };
        // A thread that changes its user makes the kernel clear the whole process's dumpable flag.
        let dumpable = prctl::get_dumpable().unwrap_or(true);
        let done = thread::scope(|scope| {
            let acting = thread::Builder::new().name("haft-as-worker".to_owned());
            let acting = acting.spawn_scoped(scope, || user.become_it().map(|()| act()))?;
            acting.join().unwrap_or_else(|_| Err(io::Error::other("the thread that acts for a worker has failed")))
        });
        if dumpable {
            prctl::set_dumpable(true).ok();
        }
        done
    }
}

impl User {
    /// Makes the calling thread act as this user. Not to be undone: the thread is to end.
    fn become_it(&self) -> io::Result<()> {
        // glibc's own setgroups(3) would change all threads.
        // SAFETY: the kernel reads as many numbers as the list has.
        if unsafe { libc::syscall(libc::SYS_setgroups, self.groups.len(), self.groups.as_ptr()) } == -1 {
            return Err(io::Error::last_os_error());
        }
        // They do not report success: a second call, with an invalid id, returns the current one.
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        setfsgid(gid);
        setfsuid(uid);
        if setfsgid(Gid::from_raw(u32::MAX)) != gid || setfsuid(Uid::from_raw(u32::MAX)) != uid {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        drop_capabilities()
    }
}

/// The calling thread can do no more than its user and groups may.
fn drop_capabilities() -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`: capset(2).
    #[repr(C)]
    struct CapabilityHeader {
        version: u32,
        pid: i32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let header = CapabilityHeader { version: VERSION_3, pid: 0 };
    // Two sets of effective, permitted and inheritable, all empty.
    let none = [0u32; 6];
    // SAFETY: the kernel reads a header and, for this version, two sets; pid 0 is the calling thread.
    match unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The supplementary groups in proc_pid_status(5), if the process is this real user's.
fn groups_of(status: &str, uid: u32) -> Option<Vec<libc::gid_t>> {
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let real = line("Uid:")?.split_whitespace().next()?.parse::<u32>().ok()?;
    (real == uid).then_some(())?;
    line("Groups:")?.split_whitespace().map(|group| group.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn groups_are_read_of_the_user_that_is_meant_alone() {
        let status = "Name:\tnode\nUid:\t1000\t0\t0\t0\nGid:\t5\t5\t5\t5\nGroups:\t4 24 \n";
        assert_eq!(groups_of(status, 1000), Some(vec![4, 24]));
        assert_eq!(groups_of(status, 0), None);
        assert_eq!(groups_of("Uid:\t1\t1\t1\t1\nGroups:\t\n", 1), Some(Vec::new()));
        assert_eq!(groups_of("", 1), None);
    }

    #[test]
    fn this_user_acts_as_itself_and_another_one_as_itself_alone() {
        let own = Sender { pid: 1, uid: geteuid().as_raw(), gid: 0 };
        assert!(Rights::of(&own).is_own());
        let with = |pid| Sender { pid, ..own }.shares_our_paths();
        assert!(with(std::process::id() as i32).expect("this process"));
        assert!(with(0).is_err(), "a process that is not in our pid namespace");
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("secret");
        fs::write(&file, "secret").expect("file");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("mode");
        let other = Rights::Of(User { uid: 65_533, gid: 65_533, groups: Vec::new() });
        match (geteuid().is_root(), other.act(|| fs::read(&file))) {
            (true, Ok(read)) => assert_eq!(read.expect_err("refused").kind(), io::ErrorKind::PermissionDenied),
            (false, acted) => assert!(acted.is_err(), "it may not become another user"),
            (true, Err(error)) => panic!("{error}"),
        }
        assert_eq!(fs::read(&file).expect("the others are as they were"), b"secret");
        fs::read_dir("/proc/self/fd").expect("this process can still be looked into");
    }
}
