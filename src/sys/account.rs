//! The user that workers run as, and how little the master keeps of root's rights then.

use std::ffi::CString;
use std::io;
use std::path::PathBuf;

use nix::sys::prctl;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

/// What the master needs as root: to start workers as another user, to end them, and to listen on low ports
/// (linux/capability.h).
const KEPT: [u32; 4] = [CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_NET_BIND_SERVICE];
const CAP_KILL: u32 = 5;
const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;
const CAP_NET_BIND_SERVICE: u32 = 10;
/// More than any kernel has; what it has not is EINVAL.
const MAX_CAPABILITIES: u32 = 64;
/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;

/// Where else users may be.
const ELSEWHERE: &str = if cfg!(target_feature = "crt-static") {
    " (a static program knows those alone, and none of LDAP or the like)"
} else {
    " or `getent`"
};

/// Why workers cannot run as a user.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// There is no such user.
    #[error("{0}: this host has no such user; see /etc/passwd{elsewhere}", elsewhere = ELSEWHERE)]
    NoUser(String),
    /// There is no such group.
    #[error("{0}: this host has no such group; see /etc/group{elsewhere}", elsewhere = ELSEWHERE)]
    NoGroup(String),
    /// It is root.
    #[error("{0}: that is root, whose rights workers are not to have: name another user")]
    Root(String),
    /// This process may not.
    #[error("{0}: only root can start workers as another user: start haft as root, or leave it out")]
    NotRoot(String),
    /// The system does not say.
    #[error("{0}: the system cannot look this user up: {1}")]
    Unknown(String, #[source] io::Error),
}

/// A user with its groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    uid: Uid,
    gid: Gid,
    groups: Vec<libc::gid_t>,
    /// Its name.
    pub name: String,
    /// Its home folder.
    pub home: PathBuf,
}

impl Account {
    /// The user of this name, with its own group or the one that is named, and its supplementary groups. A number is as good as
    /// a name.
    ///
    /// # Errors
    ///
    /// When there is none, when it is root, and when this process is not root.
    pub fn find(user: &str, group: Option<&str>) -> Result<Self, AccountError> {
        let unknown = |name: &str, errno: nix::Error| AccountError::Unknown(name.to_owned(), errno.into());
        let found = match user.parse() {
            Ok(uid) => User::from_uid(Uid::from_raw(uid)),
            Err(_) => User::from_name(user),
        };
        let found = found.map_err(|error| unknown(user, error))?;
        let found = found.ok_or_else(|| AccountError::NoUser(user.to_owned()))?;
        let gid = match group {
            None => found.gid,
            Some(group) => {
                let found = match group.parse() {
                    Ok(gid) => Group::from_gid(Gid::from_raw(gid)),
                    Err(_) => Group::from_name(group),
                };
                let found = found.map_err(|error| unknown(group, error))?;
                found.ok_or_else(|| AccountError::NoGroup(group.to_owned()))?.gid
            }
        };
        if found.uid.is_root() {
            return Err(AccountError::Root(user.to_owned()));
        }
        if !Uid::effective().is_root() {
            return Err(AccountError::NotRoot(user.to_owned()));
        }
        let name = CString::new(found.name.as_str()).map_err(|_| AccountError::NoUser(user.to_owned()))?;
        let groups = getgrouplist(&name, gid).map_err(|error| unknown(user, error))?;
        let groups = groups.into_iter().map(Gid::as_raw).collect();
        Ok(Self { uid: found.uid, gid, groups, name: found.name, home: found.dir })
    }

    /// What this process may, as this user: no capabilities, and none to be got by a program that gives some. To be called
    /// between fork and exec: it makes system calls only.
    pub(super) fn assume(&self) -> io::Result<()> {
        let (uid, gid) = (self.uid.as_raw(), self.gid.as_raw());
        // The kernel's own calls: those of the C library would look for other threads.
        // SAFETY: system calls with numbers, and a list that lives.
        unsafe {
            check(libc::syscall(libc::SYS_setgroups, self.groups.len(), self.groups.as_ptr()))?;
            check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
            check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
        }
        set_capabilities(0)?;
        prctl::set_no_new_privs()?;
        Ok(())
    }
}

/// Whether this process is root.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Gives up, irrevocably, all of root's rights but those that are needed to start workers as another user, to end them,
/// and to listen on low ports; and lets no process of another user look into this one. To be called while this process
/// has one thread: others would keep what they have.
///
/// # Errors
///
/// When the kernel refuses.
pub fn keep_few_rights() -> io::Result<()> {
    for capability in (0..MAX_CAPABILITIES).filter(|capability| !KEPT.contains(capability)) {
        // SAFETY: it changes a right of this process. Without CAP_SETPCAP, and past the last capability, it fails.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
    }
    set_capabilities(KEPT.iter().fold(0, |set, capability| set | 1 << capability))?;
    prctl::set_dumpable(false)?;
    Ok(())
}

/// Sets the calling thread's permitted and effective capabilities; none is inheritable. Those that it has not stay away.
fn set_capabilities(wanted: u64) -> io::Result<()> {
    let header = [VERSION, 0];
    // Effective, permitted, inheritable; the low half of each, then the high one.
    let mut sets = [0_u32; 6];
    // SAFETY: the kernel writes as much as this version has, which is what there is room for.
    unsafe { check(libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()))? };
    let permitted = u64::from(sets[4]) << 32 | u64::from(sets[1]);
    let kept = wanted & permitted;
    let (low, high) = (kept as u32, (kept >> 32) as u32);
    let sets = [low, low, 0, high, high, 0];
    // SAFETY: the kernel reads as much as this version has.
    unsafe { check(libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr())) }
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_or_number_and_root_is_none() {
        assert!(matches!(Account::find("nobody-of-this-name", None), Err(AccountError::NoUser(_))));
        assert!(matches!(Account::find("root", None), Err(AccountError::Root(_))));
        assert!(matches!(Account::find("0", None), Err(AccountError::Root(_))));
        assert!(matches!(Account::find("nobody", Some("no-group-of-this-name")), Err(AccountError::NoGroup(_))));
        if is_root() {
            let nobody = Account::find("nobody", None).expect("nobody");
            assert_eq!(Account::find(&nobody.uid.to_string(), None).expect("the same"), nobody);
            let other = Account::find("nobody", Some("daemon")).expect("with a group");
            assert!(other.gid != nobody.gid && other.groups.contains(&other.gid.as_raw()));
        } else {
            assert!(matches!(Account::find("nobody", None), Err(AccountError::NotRoot(_))));
        }
    }

    #[test]
    fn a_thread_gives_up_what_it_had_and_cannot_take_it_back() {
        std::thread::spawn(|| {
            set_capabilities(0).expect("nothing is needed to give up");
            set_capabilities(u64::MAX).expect("what is not there stays away");
            let status = std::fs::read_to_string("/proc/thread-self/status").expect("the status");
            for set in ["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapInh:\t0000000000000000"] {
                assert!(status.contains(set), "{status}");
            }
        })
        .join()
        .expect("a thread");
    }
}
