//! A descriptor that stands for nothing.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

/// Takes a descriptor's number, which is free again once this is dropped. It needs no file: a root may have none.
///
/// An error is EMFILE, ENFILE, ENOBUFS or ENOMEM.
pub fn new() -> io::Result<OwnedFd> {
    UnixDatagram::unbound().map(OwnedFd::from)
}
