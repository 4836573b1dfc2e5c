//! Which users may connect to a Unix listener, and why an address cannot be listened on.

use std::io;

use crate::addr::ListenAddr;

/// The users that may connect to a Unix listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// As the umask allows.
    Umask,
    /// This user only (mode 0600).
    OwnerOnly,
    /// As the umask allows, and these permission bits for all users.
    And(u32),
}

impl Access {
    /// What Node's `readableAll` and `writableAll` mean: the permission for user, group and others.
    pub fn for_all(readable: bool, writable: bool) -> Self {
        match (readable, writable) {
            (false, false) => Self::Umask,
            _ => Self::And(if readable { 0o444 } else { 0 } | if writable { 0o222 } else { 0 }),
        }
    }
}

/// Why an address cannot be listened on, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// EADDRINUSE.
    #[error("{0}: the port is in use; stop what listens there (`ss -ltnp` shows it) or choose another")]
    PortInUse(ListenAddr),
    /// EACCES, EPERM on a port.
    #[error(
        "{0}: no permission for this port; use one from 1024 on, or give the program CAP_NET_BIND_SERVICE \
         (`setcap cap_net_bind_service=+ep`)"
    )]
    PortPermission(ListenAddr),
    /// EADDRNOTAVAIL, ENODEV.
    #[error("{0}: this host has no such address; `ip address` lists those it has")]
    NotOurs(ListenAddr),
    /// Another process listens on the Unix socket.
    #[error("{0}: another process listens on this socket; stop it or choose another path")]
    PathLive(ListenAddr),
    /// The path exists and is not a socket: it is not ours to remove.
    #[error("{0}: the path exists and is not a socket; remove it or choose another path")]
    PathOccupied(ListenAddr),
    /// Anything else on a Unix path, such as a missing folder.
    #[error("{addr}: the socket cannot be made: {source}; does its folder exist, and may this user write there?")]
    Path {
        /// What was asked for.
        addr: ListenAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The worker that wants it runs as another user, and this process may not act as that user.
    #[error(
        "{addr}: the worker runs as another user, and haft cannot act as that one ({source}); run haft as root or as the \
         worker's user, or have haft listen there itself (--listen {addr})"
    )]
    AnotherUser {
        /// What was asked for.
        addr: ListenAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// One listener for each slot cannot share a Unix socket: SO_REUSEPORT is for TCP and UDP (socket(7)).
    #[error("{0}: the kernel cannot choose a worker on a Unix socket; use a port, or --dispatch handover")]
    Undivided(ListenAddr),
    /// The kernel would also choose among other processes' listeners there.
    #[error(
        "{0}: another process listens there, too (`ss -ltnp` shows it), so it cannot be known where the kernel would put \
         more listeners; stop it"
    )]
    Shared(ListenAddr),
    /// The kernel does not take the program by which it is to choose a worker: ENOMEM where it is too long.
    #[error(
        "{addr}: the kernel does not take a program of {len} instructions by which it would choose a worker: {source}; \
         raise net.core.optmem_max (`sysctl -w net.core.optmem_max=131072`), have fewer workers, or use --dispatch \
         handover"
    )]
    Program {
        /// What was asked for.
        addr: ListenAddr,
        /// How long the program is.
        len: usize,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Anything else.
    #[error("{addr}: cannot listen: {source}")]
    Other {
        /// What was asked for.
        addr: ListenAddr,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl ListenError {
    /// The kernel's number for this error, positive.
    pub fn errno(&self) -> i32 {
        match self {
            Self::PortInUse(_) | Self::PathLive(_) | Self::PathOccupied(_) | Self::Shared(_) => libc::EADDRINUSE,
            Self::PortPermission(_) | Self::AnotherUser { .. } => libc::EACCES,
            Self::NotOurs(_) => libc::EADDRNOTAVAIL,
            Self::Undivided(_) => libc::EOPNOTSUPP,
            Self::Path { source, .. } | Self::Program { source, .. } | Self::Other { source, .. } => {
                source.raw_os_error().unwrap_or(libc::EINVAL)
            }
        }
    }
}
