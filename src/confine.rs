//! What a process or a thread of haft's own gives up before it reads what clients and other hosts send: to run programs,
//! to make sockets, to open files but those it serves.
//!
//! Landlock (Linux 5.13) is for files and for connections, a seccomp filter for system calls. Both hold for the thread
//! that asks and for all that it starts later, and cannot be taken back.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus,
};
use seccompiler::{
    SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Is, SeccompCondition as Argument, SeccompFilter,
    SeccompRule,
};

/// The newest rules that this was written for. An older kernel enforces what it knows of them.
const NEWEST: ABI = ABI::V5;

/// Calls that haft's own processes but the master never make, and that one taken over by a client would begin with:
/// other programs, other processes' memory, the kernel's rarely used doors. They fail with EPERM.
const REFUSED: [libc::c_long; 21] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_by_handle_at,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
];
/// Sockets of its own. (`socketpair` reaches nothing and stays.)
const SOCKETS: [libc::c_long; 3] = [libc::SYS_socket, libc::SYS_connect, libc::SYS_bind];
/// Families that a client of Redis needs: its connection, and what finding its address takes.
const FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
/// What changes files, beside opening them to write.
const CHANGES: [libc::c_long; 12] = [
    libc::SYS_openat2,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_fchmodat,
    libc::SYS_fchownat,
    libc::SYS_truncate,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
];
/// The same by names that newer processors do not have.
#[cfg(target_arch = "x86_64")]
const OLD_CHANGES: [libc::c_long; 11] = [
    libc::SYS_creat,
    libc::SYS_unlink,
    libc::SYS_rmdir,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_link,
    libc::SYS_symlink,
    libc::SYS_mkdir,
    libc::SYS_mknod,
    libc::SYS_chmod,
    libc::SYS_chown,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CHANGES: [libc::c_long; 0] = [];
/// Calls that open a file, and which of their arguments has the flags.
#[cfg(target_arch = "x86_64")]
const OPENS: [(libc::c_long, u8); 2] = [(libc::SYS_openat, 2), (libc::SYS_open, 1)];
#[cfg(not(target_arch = "x86_64"))]
const OPENS: [(libc::c_long, u8); 1] = [(libc::SYS_openat, 2)];
/// Flags with which a file is changed.
const WRITING: [libc::c_int; 4] = [libc::O_WRONLY, libc::O_RDWR, libc::O_CREAT, libc::O_TRUNC];

/// For each call what its arguments must be to be refused: one of these rules, or anything if there is none.
type SyscallRules = BTreeMap<i64, Vec<SeccompRule>>;

/// Why a thread could not be confined.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfineError {
    #[error("landlock: the kernel does not have it")]
    NoLandlock,
    #[error("landlock: {0}")]
    Landlock(#[from] landlock::RulesetError),
    #[error("seccomp: {0}")]
    Filter(#[from] seccompiler::BackendError),
    #[error("seccomp: {0}")]
    Seccomp(#[from] seccompiler::Error),
}

/// Confines a worker, by this thread and those it starts from now on: of files they can open those below `folders`, to
/// read.
///
/// # Errors
///
/// If the kernel has neither mechanism, or only one. What the kernel supports is enforced in any case.
pub(crate) fn worker(folders: &[PathBuf]) -> Result<(), ConfineError> {
    // The second also sets no_new_privs, as the first needs it.
    let files = confine_files(folders);
    refuse(plainly(REFUSED.into_iter().chain(SOCKETS)))?;
    files
}

/// Confines the thread that calls it and those it starts: no programs, and of sockets those that a client of Redis
/// needs, or none.
///
/// # Errors
///
/// If the kernel has no seccomp.
pub(crate) fn relay(to_redis: bool) -> Result<(), ConfineError> {
    if !to_redis {
        return refuse(plainly(REFUSED.into_iter().chain(SOCKETS)));
    }
    let mut rules = plainly(REFUSED.into_iter());
    let none_of = FAMILIES.map(|family| Argument::new(0, Len::Dword, Is::Ne, family as u64));
    let none_of = none_of.into_iter().collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(none_of)?]);
    refuse(rules)
}

/// Confines a process that reads files and sends signals, and does no more.
///
/// # Errors
///
/// If the kernel has no seccomp.
pub(crate) fn onlooker() -> Result<(), ConfineError> {
    let mut rules = plainly(REFUSED.into_iter().chain(SOCKETS).chain(CHANGES).chain(OLD_CHANGES));
    for (call, flags) in OPENS {
        let writing = WRITING.map(|flag| {
            let asked = Argument::new(flags, Len::Dword, Is::MaskedEq(flag as u64), flag as u64)?;
            SeccompRule::new(vec![asked])
        });
        rules.insert(call, writing.into_iter().collect::<Result<_, _>>()?);
    }
    refuse(rules)
}

fn confine_files(folders: &[PathBuf]) -> Result<(), ConfineError> {
    let reading = AccessFs::from_read(NEWEST) & !AccessFs::Execute;
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .create()?;
    for folder in folders {
        // What is not there cannot be opened later either.
        let Ok(open) = PathFd::new(place(folder)) else { continue };
        ruleset = ruleset.add_rule(PathBeneath::new(open, reading))?;
    }
    match ruleset.restrict_self()?.ruleset {
        RulesetStatus::NotEnforced => Err(ConfineError::NoLandlock),
        RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced => Ok(()),
    }
}

/// Below what the files of a folder are. A link may be turned to another folder beside the first one while it is
/// served.
fn place(folder: &Path) -> PathBuf {
    let real = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let is_link = std::path::absolute(folder).is_ok_and(|path| path != real);
    match real.parent() {
        Some(parent) if is_link && parent != Path::new("/") => parent.to_owned(),
        _ => real,
    }
}

/// Rules that do not ask for arguments.
fn plainly(calls: impl Iterator<Item = i64>) -> SyscallRules {
    calls.map(|call| (call, Vec::new())).collect()
}

fn refuse(rules: SyscallRules) -> Result<(), ConfineError> {
    let errno = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, errno, ARCH.try_into()?)?;
    let program: seccompiler::BpfProgram = filter.try_into()?;
    Ok(seccompiler::apply_filter(&program)?)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixStream;
    use std::process::Command;
    use std::thread;

    use super::*;

    #[test]
    fn a_confined_thread_opens_what_it_serves_and_nothing_else() {
        let home = tempfile::tempdir().expect("a folder");
        let [public, private] = ["public", "private"].map(|name| home.path().join(name));
        for folder in [&public, &private] {
            fs::create_dir(folder).expect("a folder");
            fs::write(folder.join("file"), "text").expect("a file");
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        let mut pair = UnixStream::pair().expect("a pair");
        let confined = thread::spawn(move || {
            if let Err(error) = worker(std::slice::from_ref(&public)) {
                println!("skipped: {error}");
                return;
            }
            assert_eq!(fs::read_to_string(public.join("file")).expect("what it serves"), "text");
            fs::read_dir(&public).expect("what it serves");
            let denied = |what: &str, kind: ErrorKind| assert_eq!(kind, ErrorKind::PermissionDenied, "{what}");
            denied("another folder", File::open(private.join("file")).expect_err("opened").kind());
            denied("a path out of it", File::open(public.join("../private/file")).expect_err("opened").kind());
            denied("its own process", File::open("/proc/self/environ").expect_err("opened").kind());
            denied("writing", fs::write(public.join("file"), "other").expect_err("written").kind());
            denied("a program", Command::new("/bin/true").status().expect_err("run").kind());
            denied("a connection", TcpStream::connect(address).expect_err("connected").kind());
            denied("a port", UdpSocket::bind("127.0.0.1:0").expect_err("bound").kind());
            denied(
                "a thread's file",
                thread::spawn(move || File::open("/etc/passwd")).join().expect("it").expect_err("opened").kind(),
            );
            // What a worker lives from goes on.
            listener.set_nonblocking(true).expect("a call");
            assert_eq!(listener.accept().expect_err("no client connects").kind(), ErrorKind::WouldBlock);
            std::io::Write::write_all(&mut pair.0, b"x").expect("its channel");
        });
        confined.join().expect("the thread");
    }

    /// Runs it in a thread of its own, once this has confined that.
    fn confined(how: fn() -> Result<(), ConfineError>, then: impl FnOnce() + Send + 'static) {
        let run = move || match how() {
            Ok(()) => then(),
            Err(error) => println!("skipped: {error}"),
        };
        thread::spawn(run).join().expect("the thread");
    }

    fn assert_denied<T: std::fmt::Debug>(what: &str, outcome: std::io::Result<T>) {
        assert_eq!(outcome.expect_err(what).kind(), ErrorKind::PermissionDenied, "{what}");
    }

    #[test]
    fn a_relay_makes_sockets_for_redis_alone_and_runs_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        confined(
            || relay(false),
            move || {
                assert_denied("a connection", TcpStream::connect(address));
                assert_denied("a program", Command::new("/bin/true").status());
                thread::spawn(move || assert_denied("a thread's", TcpStream::connect(address))).join().expect("it");
            },
        );
        confined(
            || relay(true),
            move || {
                TcpStream::connect(address).expect("Redis");
                std::net::ToSocketAddrs::to_socket_addrs("localhost:6379").expect("its address").for_each(drop);
                assert_denied("a program", Command::new("/bin/true").status());
                assert_denied("packets", socket2::Socket::new(libc::AF_PACKET.into(), socket2::Type::RAW, None));
                let local = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
                local.expect("a socket of this host");
            },
        );
    }

    #[test]
    fn an_onlooker_reads_and_changes_nothing() {
        let home = tempfile::tempdir().expect("a folder");
        let file = home.path().join("file");
        fs::write(&file, "text").expect("a file");
        let mut child = Command::new("sleep").arg("1000").spawn().expect("sleep");
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        confined(onlooker, move || {
            assert_eq!(fs::read_to_string(&file).expect("it reads"), "text");
            assert!(fs::read_dir("/proc/self/fd").expect("it reads").count() > 0);
            assert_denied("writing", File::options().write(true).open(&file));
            assert_denied("writing", File::options().append(true).open(&file));
            assert_denied("truncating", File::options().read(true).write(true).truncate(true).open(&file));
            assert_denied("a new file", File::create(file.with_extension("new")));
            assert_denied("removing", fs::remove_file(&file));
            assert_denied("renaming", fs::rename(&file, file.with_extension("old")));
            assert_denied("a folder", fs::create_dir(file.with_extension("folder")));
            assert_denied("a socket", UdpSocket::bind("127.0.0.1:0"));
            assert_denied("a program", Command::new("/bin/true").status());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it sends signals");
        });
        child.kill().ok();
        child.wait().expect("its end");
    }

    #[test]
    fn a_folder_behind_a_link_may_be_exchanged_for_one_beside_it() {
        let home = tempfile::tempdir().expect("a folder");
        let releases = home.path().canonicalize().expect("its path").join("releases");
        fs::create_dir_all(releases.join("1")).expect("a folder");
        let current = home.path().join("current");
        std::os::unix::fs::symlink(releases.join("1"), &current).expect("a link");
        assert_eq!(place(&current), releases);
        assert_eq!(place(&releases.join("1")), releases.join("1"));
        assert_eq!(place(Path::new("/absent")), Path::new("/absent"));
    }
}
