//! Accepting the connections that wait at a listener: one policy for all listeners.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::addr::EndAddr;
use crate::sys::accept::{self, Accepted};
use crate::sys::listen::Listener;

/// Most connections taken from one listener a turn, so that workers' words and other listeners are not kept waiting.
pub const MAX_A_TURN: usize = 64;

/// The line when the process has no descriptor for a waiting connection.
pub const NO_DESCRIPTOR: &str = "no descriptor left to accept with: clients wait in the kernel's queue";

/// A connection as it comes out of a listener.
#[derive(Debug)]
pub struct Arrival {
    /// The connection itself.
    pub descriptor: OwnedFd,
    /// Which listener took it.
    pub listener: u32,
    /// The client's address.
    pub client: EndAddr,
    /// The address at our end.
    pub local: EndAddr,
}

/// What one turn at a listener brought, beside the connections.
#[derive(Debug, Default)]
pub struct Turn {
    /// Connections that went away before they were taken.
    pub aborted: u64,
    /// There was no descriptor left.
    pub exhausted: Option<io::Error>,
    /// How many connections there were.
    pub taken: usize,
}

/// Takes what waits at a listener, at most `most` and [`MAX_A_TURN`], and gives each connection to `each`.
///
/// # Errors
///
/// One of the listener itself, if no connection was taken before it: after one, the next call meets it again.
pub fn take(listener: &Listener, number: u32, most: usize, mut each: impl FnMut(Arrival)) -> io::Result<Turn> {
    let mut turn = Turn::default();
    // The query for the queue's length is cheaper than an accept that finds none. One at least, since a readable
    // listener may have an error to report.
    let waiting = accept::waiting(listener.as_fd()).map_or(usize::MAX, |waiting| waiting.max(1));
    for _ in 0..waiting.min(most).min(MAX_A_TURN) {
        match accept::accept(listener.as_fd()) {
            Ok(Accepted::Connection(descriptor, client)) => {
                let local = match listener.local() {
                    Some(local) => local,
                    // It cannot fail on an open socket; the listener's port is the best other answer.
                    None => accept::local_addr(descriptor.as_fd()).unwrap_or(EndAddr::Unix),
                };
                turn.taken += 1;
                each(Arrival { descriptor, listener: number, client, local });
            }
            Ok(Accepted::Empty) => break,
            Ok(Accepted::Aborted(_)) => turn.aborted += 1,
            Ok(Accepted::Exhausted(error)) => {
                turn.exhausted = Some(error);
                break;
            }
            Err(_) if turn.taken > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(turn)
}
