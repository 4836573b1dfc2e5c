//! What a built-in worker gives up before it serves: to run programs, to open files but those it serves, to make
//! sockets.
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
use seccompiler::{SeccompAction, SeccompFilter};

/// The newest rules that this was written for. An older kernel enforces what it knows of them.
const NEWEST: ABI = ABI::V5;

/// Calls that a worker never makes, and that one taken over by a client would begin with: other programs, sockets of
/// its own (`socketpair` reaches nothing and stays), other processes' memory, the kernel's rarely used doors. They fail
/// with EPERM.
const REFUSED: [libc::c_long; 24] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
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

/// Why this process could not be confined.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfineError {
    #[error("landlock: the kernel does not have it")]
    NoLandlock,
    #[error("landlock: {0}")]
    Landlock(#[from] landlock::RulesetError),
    #[error("seccomp: {0}")]
    Filter(#[from] seccompiler::BackendError),
    #[error("seccomp: {0}")]
    Seccomp(#[from] seccompiler::Error),
}

/// Confines this thread and those it starts from now on: of files they can open those below `folders`, to read.
///
/// # Errors
///
/// If the kernel has neither mechanism, or only one. What the kernel supports is enforced in any case.
pub(super) fn confine(folders: &[PathBuf]) -> Result<(), ConfineError> {
    // The second also sets no_new_privs, as the first needs it.
    let files = confine_files(folders);
    confine_calls()?;
    files
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

fn confine_calls() -> Result<(), ConfineError> {
    let refused: BTreeMap<i64, Vec<_>> = REFUSED.into_iter().map(|call| (call, Vec::new())).collect();
    let errno = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(refused, SeccompAction::Allow, errno, ARCH.try_into()?)?;
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
            if let Err(error) = confine(std::slice::from_ref(&public)) {
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
