//! Listening sockets that a service manager has passed to haft (sd_listen_fds(3)): `LISTEN_FDS`, `LISTEN_FDNAMES`.
//!
//! `activation` is the other direction: what haft passes to its workers.

use std::env;
use std::io;
use std::os::fd::OwnedFd;

use listenfd::ListenFd;
use socket2::{SockRef, Socket};

use super::listen::Listener;
use crate::addr::PassedAddr;

/// The number of the first one (`SD_LISTEN_FDS_START`), and the descriptors of the standard streams before it.
const FIRST: usize = 3;
/// systemd's name for a socket without one.
const UNNAMED: &str = "unknown";

/// Why a passed descriptor cannot be a listener.
#[derive(Debug, thiserror::Error)]
pub enum PassedError {
    /// It is a datagram socket, a connection, or no socket at all.
    #[error(
        "descriptor {number} ({name}), passed by the service manager, is no listening stream socket ({source}): in the \
         .socket unit use ListenStream= and Accept=no"
    )]
    Unfit {
        /// Its number.
        number: usize,
        /// Its name.
        name: String,
        /// What it lacks.
        source: io::Error,
    },
}

/// Takes all passed sockets, in their order. None if there are none, or if they are meant for another process.
///
/// It changes this process's environment, so call it once and before there are other threads.
///
/// # Errors
///
/// When one of them is not a stream socket that listens.
pub fn take() -> Result<Vec<(PassedAddr, Listener)>, PassedError> {
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut passed = ListenFd::from_env();
    (0..passed.len())
        .map(|index| {
            let name = names.next().filter(|name| !name.is_empty()).unwrap_or(UNNAMED).to_owned();
            match take_one(&mut passed, index) {
                Ok(listener) => Ok((PassedAddr { name, addr: listener.addr().clone() }, listener)),
                Err(source) => Err(PassedError::Unfit { number: FIRST + index, name, source }),
            }
        })
        .collect()
}

fn take_one(passed: &mut ListenFd, index: usize) -> io::Result<Listener> {
    let socket = match passed.take_unix_listener(index) {
        Ok(unix) => unix.map(OwnedFd::from),
        Err(_) => passed.take_tcp_listener(index)?.map(OwnedFd::from),
    };
    let socket = Socket::from(socket.ok_or(io::ErrorKind::NotFound)?);
    if !SockRef::from(&socket).is_listener()? {
        return Err(io::Error::other("it does not listen"));
    }
    Listener::adopt(socket)
}
