//! Unix listeners and their files: made, replaced and removed with the rights of the process that asked for them, and
//! never by a path that another process could have changed in between.
//!
//! The file gets its mode from the socket before bind(2), so there is nothing to change afterwards. What is looked at
//! and removed is named relative to a descriptor of its folder, without following a link.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, open, openat, renameat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, umask};
use nix::unistd::{UnlinkatFlags, unlinkat};
use socket2::{Domain, SockAddr, Socket, Type};

use super::listen::error::{Access, ListenError};
use super::rights::Rights;
use crate::addr::ListenAddr;

/// Files of a folder that are looked at for stale sockets.
const MAX_LOOKED_AT: usize = 1024;

/// Permission bits of a file that all users may read, write and execute, less the umask.
const ALL_USERS: u32 = 0o777;

/// Binds and listens at a path, with these rights. What is bound there already is replaced if it is a socket that no
/// process listens on any more.
pub(super) fn bind(
    addr: &ListenAddr,
    path: &Path,
    backlog: i32,
    access: Access,
    rights: &Rights,
) -> Result<(OwnedFd, SocketFile), ListenError> {
    let other = |source| ListenError::Path { addr: addr.clone(), source };
    let bound = rights.act(|| {
        let name = SockAddr::unix(path).map_err(other)?;
        let place = HeldPath::of(path).map_err(other)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(other)?;
        socket.set_nonblocking(true).map_err(other)?;
        match bind_with_mode(&socket, &name, access) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                place.remove_stale(addr)?;
                bind_with_mode(&socket, &name, access).map_err(other)?;
            }
            bound => bound.map_err(other)?,
        }
        let identity = place.socket().map_err(other)?;
        // No client can connect before this.
        socket.listen(backlog).map_err(other)?;
        Ok((socket.into(), place, identity))
    });
    let (socket, place, identity) =
        bound.map_err(|source| ListenError::AnotherUser { addr: addr.clone(), source })??;
    Ok((socket, SocketFile { place, identity, rights: rights.clone() }))
}

/// Removes the sockets in a folder that no process listens on any more. Yields how many.
///
/// # Errors
///
/// If the folder cannot be read.
pub fn remove_stale_in(folder: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for entry in std::fs::read_dir(folder)?.take(MAX_LOOKED_AT) {
        let path = entry?.path();
        let before =
            path.symlink_metadata().is_ok_and(|found| std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()));
        if before {
            HeldPath::of(&path)?.remove_stale(&ListenAddr::Unix(path.clone())).ok();
            removed += usize::from(!path.exists());
        }
    }
    Ok(removed)
}

/// bind(2) gives the file the mode of the socket's own inode, less the umask.
fn bind_with_mode(socket: &Socket, name: &SockAddr, access: Access) -> io::Result<()> {
    let mode = |umask: Mode| match access {
        Access::Umask => None,
        Access::OwnerOnly => Some(0o600),
        Access::And(bits) => Some(ALL_USERS & !umask.bits() | bits),
    };
    if mode(Mode::empty()).is_none() {
        return socket.bind(name);
    }
    let umask = NoUmask::for_now();
    if let Some(mode) = mode(umask.0) {
        fchmod(socket, Mode::from_bits_truncate(mode))?;
    }
    socket.bind(name)
}

/// No umask as long as this lives: it is the process's, so that is as short as can be. No other thread of haft's makes
/// files.
struct NoUmask(Mode);

impl NoUmask {
    fn for_now() -> Self {
        Self(umask(Mode::empty()))
    }
}

impl Drop for NoUmask {
    fn drop(&mut self) {
        umask(self.0);
    }
}

/// Makes the file of the socket that is bound next readable and writable for all users.
pub(super) fn bind_for_everybody<T>(socket: impl AsFd, bind: impl FnOnce() -> nix::Result<T>) -> nix::Result<T> {
    let _umask = NoUmask::for_now();
    fchmod(socket, Mode::from_bits_truncate(0o666))?;
    bind()
}

/// Device and inode: what has others is another file.
type FileIdentity = (u64, u64);

#[expect(clippy::unnecessary_cast, reason = "their types differ from one kind of machine to another")]
fn identity(stat: &FileStat) -> FileIdentity {
    (stat.st_dev as u64, stat.st_ino as u64)
}

fn is_socket(stat: &FileStat) -> bool {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFSOCK
}

/// A name in a folder that is held: whatever becomes of the path, it is this folder.
#[derive(Debug)]
struct HeldPath {
    folder: OwnedFd,
    name: PathBuf,
}

impl HeldPath {
    fn of(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let folder = open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Self { folder, name: OsStr::from_bytes(name.as_bytes()).into() })
    }

    fn look(&self) -> nix::Result<FileStat> {
        fstatat(&self.folder, &self.name, AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    /// The socket that is there.
    fn socket(&self) -> io::Result<FileIdentity> {
        let found = self.look()?;
        if is_socket(&found) { Ok(identity(&found)) } else { Err(Errno::ENOTSOCK.into()) }
    }

    /// Removes a socket that no process listens on any more; anything else is left alone.
    fn remove_stale(&self, addr: &ListenAddr) -> Result<(), ListenError> {
        let other = |source: io::Error| ListenError::Path { addr: addr.clone(), source };
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let found = match openat(&self.folder, &self.name, flags, Mode::empty()) {
            Err(Errno::ENOENT) => return Ok(()),
            found => found.map_err(|errno| other(errno.into()))?,
        };
        let stat = fstat(&found).map_err(|errno| other(errno.into()))?;
        if !is_socket(&stat) {
            return Err(ListenError::PathOccupied(addr.clone()));
        }
        let probe = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(other)?;
        // A live listener with a full queue must not make the probe wait.
        probe.set_nonblocking(true).map_err(other)?;
        // The very file that was looked at, whatever has its name by now.
        let name = SockAddr::unix(proc_path(&found)).map_err(other)?;
        match probe.connect(&name) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.remove(identity(&stat)).map_err(|errno| other(errno.into()))
            }
            Ok(()) => Err(ListenError::PathLive(addr.clone())),
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Err(ListenError::PathLive(addr.clone())),
            Err(error) => Err(other(error)),
        }
    }

    /// Removes this socket; another file at its name is left alone.
    fn remove(&self, socket: FileIdentity) -> nix::Result<()> {
        match self.look() {
            Ok(found) if is_socket(&found) && identity(&found) == socket => {
                unlinkat(&self.folder, &self.name, UnlinkatFlags::NoRemoveDir)
            }
            _ => Ok(()),
        }
    }
}

/// The file of a Unix socket, removed on drop if it is still the one that was made, with the rights that made it.
#[derive(Debug)]
pub struct SocketFile {
    place: HeldPath,
    identity: FileIdentity,
    rights: Rights,
}

impl SocketFile {
    /// Gives the file another name in its folder, in one step: clients that hold the file still reach the listener.
    ///
    /// # Errors
    ///
    /// If there is a file of that name already (`AlreadyExists`), or the folder does not allow it. Then it keeps its
    /// name.
    pub fn rename(&mut self, name: &OsStr) -> io::Result<()> {
        let (folder, old) = (&self.place.folder, &self.place.name);
        self.rights.act(|| renameat2(folder, old.as_path(), folder, name, RenameFlags::RENAME_NOREPLACE))??;
        self.place.name = name.into();
        Ok(())
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // What cannot be removed is replaced by the next one that listens there.
        self.rights.act(|| self.place.remove(self.identity).ok()).ok();
    }
}

/// A Unix socket's file, held whatever becomes of its name.
#[derive(Debug)]
pub struct SocketHandle(OwnedFd);

impl SocketHandle {
    /// Of the file that is there now.
    ///
    /// # Errors
    ///
    /// If there is none, or its folder is closed to this user.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?))
    }

    /// A path at which connect(2) finds it, as long as this lives and `/proc` is there.
    pub fn path(&self) -> PathBuf {
        proc_path(&self.0)
    }
}

/// The file that a descriptor of this process stands for (proc_pid_fd(5)).
fn proc_path(file: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::super::listen::Listener;
    use super::*;

    fn bind(text: &str) -> Result<Listener, ListenError> {
        Listener::bind(&text.parse().expect(text), 128, Access::Umask)
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_or_a_file_is_not() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("haft.sock");
        let text = format!("unix:{}", path.display());
        drop(UnixListener::bind(&path).expect("stale"));
        let listener = bind(&text).expect("stale is replaced");
        UnixStream::connect(&path).expect("connect");
        assert!(matches!(bind(&text), Err(ListenError::PathLive(_))));
        UnixStream::connect(&path).expect("still there");
        drop(listener);
        assert!(!path.exists(), "the file goes with the listener");
        fs::write(&path, "precious").expect("write");
        assert!(matches!(bind(&text), Err(ListenError::PathOccupied(_))));
        assert_eq!(fs::read(&path).expect("read"), b"precious");
        let missing = format!("unix:{}/no/such/haft.sock", folder.path().display());
        assert!(bind(&missing).expect_err("no folder").to_string().contains("does its folder exist"));
    }

    #[test]
    fn a_link_is_not_followed_to_a_stale_socket_nor_to_a_file() {
        let folder = tempfile::tempdir().expect("folder");
        let (link, stale) = (folder.path().join("link"), folder.path().join("stale"));
        drop(UnixListener::bind(&stale).expect("stale"));
        symlink(&stale, &link).expect("link");
        let refused = bind(&format!("unix:{}", link.display())).expect_err("a link");
        assert!(matches!(refused, ListenError::PathOccupied(_)), "{refused}");
        assert!(stale.exists() && link.is_symlink());
    }

    #[test]
    fn another_listener_s_file_is_not_removed() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("haft.sock");
        let listener = bind(&format!("unix:{}", path.display())).expect("bind");
        fs::remove_file(&path).expect("remove");
        let _other = UnixListener::bind(&path).expect("other");
        drop(listener);
        assert!(path.exists());
    }

    #[test]
    fn a_renamed_socket_goes_on_and_replaces_no_other() {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        let (listener, mut file) = bind(&format!("unix:{}", at("api").display())).expect("bind").into_parts();
        let file_of = |file: &mut Option<SocketFile>, name: &str| {
            file.as_mut().expect("a file").rename(OsStr::new(name)).map_err(|error| error.kind())
        };
        fs::write(at("api-1"), "precious").expect("write");
        assert_eq!(file_of(&mut file, "api-1"), Err(io::ErrorKind::AlreadyExists));
        UnixStream::connect(at("api")).expect("still there");
        let held = SocketHandle::open(&at("api")).expect("held");
        assert_eq!(file_of(&mut file, "api-2"), Ok(()));
        UnixStream::connect(at("api-2")).expect("the same listener");
        UnixStream::connect(held.path()).expect("by what was held before");
        assert!(!at("api").exists());
        drop((listener, file));
        assert!(!at("api-2").exists() && at("api-1").exists());
    }

    /// A path changes, the folder that was bound in does not.
    #[test]
    fn the_file_is_removed_where_it_was_made() {
        let place = tempfile::tempdir().expect("folder");
        let (at, moved) = (place.path().join("at"), place.path().join("moved"));
        fs::create_dir(&at).expect("folder");
        let listener = bind(&format!("unix:{}/haft.sock", at.display())).expect("bind");
        fs::rename(&at, &moved).expect("moved");
        fs::create_dir(&at).expect("folder");
        fs::write(at.join("haft.sock"), "precious").expect("write");
        drop(listener);
        assert!(at.join("haft.sock").exists() && !moved.join("haft.sock").exists());
    }

    #[test]
    fn the_mode_is_right_from_the_first_moment() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("admin.sock");
        let addr = ListenAddr::Unix(path.clone());
        let mode = || fs::metadata(&path).expect("metadata").mode() & 0o777;
        let listener = Listener::bind(&addr, 8, Access::OwnerOnly).expect("bind");
        assert_eq!(mode(), 0o600);
        drop(listener);
        let listener = Listener::bind(&addr, 8, Access::Umask).expect("bind");
        let usual = mode();
        drop(listener);
        let _listener = Listener::bind(&addr, 8, Access::And(0o222)).expect("bind");
        assert_eq!(mode(), usual | 0o222);
    }

    /// Only root can act as another user.
    #[test]
    fn with_another_user_s_rights_only_what_that_user_may_is_done() {
        let (user, is_root) = (65_533, nix::unistd::geteuid().is_root());
        if !is_root {
            return;
        }
        let rights = Rights::of(&super::super::rights::Sender { pid: 0, uid: user, gid: user });
        let folder = tempfile::tempdir().expect("folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("mode");
        let path = folder.path().join("worker.sock");
        let addr = ListenAddr::Unix(path.clone());
        let bind = || Listener::bind_as(&addr, 8, Access::And(0o666), &rights);
        assert_eq!(bind().expect_err("root's folder").errno(), libc::EACCES);
        drop(UnixListener::bind(&path).expect("root's stale socket"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("mode");
        assert_eq!(bind().expect_err("root's socket").errno(), libc::EACCES);
        assert!(path.exists());
        fs::remove_file(&path).expect("removed");
        std::os::unix::fs::chown(folder.path(), Some(user), Some(user)).expect("owner");
        let listener = bind().expect("its own folder");
        let made = fs::metadata(&path).expect("metadata");
        assert_eq!((made.uid(), made.gid()), (user, user));
        std::os::unix::fs::chown(folder.path(), Some(0), Some(0)).expect("owner");
        drop(listener);
        assert!(path.exists(), "it could not have removed it itself");
    }
}
