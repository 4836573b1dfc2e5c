//! Reading the workers' channels: at once where a client waits, lazily otherwise.
//!
//! An acknowledgement would wake us for nothing while much else is to be done: the connection is its worker's already,
//! only our copy of the descriptor is kept until we know. So the channels of workers that are far from their limit are
//! in a set of their own. It is waited for as a whole, or, while many connections come, not at all and looked at from
//! time to time; to change that takes one system call, however many workers there are.

use std::io;

use crate::dispatch::link::Link;
use crate::dispatch::{Dispatch, Listening};
use crate::ids::WorkerId;
use crate::listen::kernel::FIRST_GROUP_TOKEN;
use crate::sys::poller::{Interest, Poller, Ready, Set};

/// Tokens from here on are workers, up to [`FIRST_GROUP_TOKEN`]; below are [`TOKEN`] and listeners.
const FIRST_WORKER_TOKEN: u64 = (1 << 32) + 1;
/// The token of the set of lazily polled channels.
pub(in crate::master) const TOKEN: u64 = FIRST_WORKER_TOKEN - 1;
/// Maximum number of channels that are read in one poll; the others are read in the next.
const MAX_EVENTS: usize = 256;

/// The lazily polled channels. All others are in the poller's own set.
#[derive(Debug)]
pub(in crate::master) struct Channels {
    lazy: Set,
    waited_for: bool,
    ready: Vec<Ready>,
}

impl Channels {
    /// No channel is polled yet.
    pub(in crate::master) fn new(poller: &Poller) -> io::Result<Self> {
        let lazy = Set::new(MAX_EVENTS)?;
        poller.add(&lazy, TOKEN, Interest::Readable)?;
        Ok(Self { lazy, waited_for: true, ready: Vec::new() })
    }

    /// Polls each channel as its worker now requires. `busy`: lazily polled channels do not wake the loop.
    pub(in crate::master) fn refresh(
        &mut self,
        dispatch: &mut Dispatch,
        poller: &Poller,
        busy: bool,
    ) -> io::Result<()> {
        if self.waited_for == busy {
            let interest = if busy { Interest::HangUp } else { Interest::Readable };
            poller.set().change(&self.lazy, TOKEN, interest)?;
            self.waited_for = !busy;
        }
        for (link, wanted) in dispatch.listenings() {
            if link.listening != wanted {
                self.listen(link, wanted, poller)?;
            }
        }
        Ok(())
    }

    fn listen(&self, link: &mut Link, wanted: Option<Listening>, poller: &Poller) -> io::Result<()> {
        let token = FIRST_WORKER_TOKEN + link.worker.0;
        let set = |listening: Listening| if listening.lazily { &self.lazy } else { poller.set() };
        match (link.listening, wanted) {
            (Some(has), Some(wanted)) if has.lazily == wanted.lazily => {
                set(wanted).change(&*link, token, wanted.interest)?
            }
            (has, wanted) => {
                has.map_or(Ok(()), |has| set(has).remove(&*link))?;
                wanted.map_or(Ok(()), |wanted| set(wanted).add(&*link, token, wanted.interest))?;
            }
        }
        link.listening = wanted;
        Ok(())
    }

    /// Listens to this worker no more.
    pub(in crate::master) fn forget(&self, link: &mut Link, poller: &Poller) -> io::Result<()> {
        self.listen(link, None, poller)
    }

    /// The lazily polled channels that have something to read.
    pub(in crate::master) fn look(&mut self) -> io::Result<impl Iterator<Item = WorkerId>> {
        self.lazy.look(0, &mut self.ready)?;
        Ok(self.ready.drain(..).filter_map(|event| worker_of(event.token)))
    }
}

/// The worker that an event of this token is about, if it is about one.
pub(in crate::master) fn worker_of(token: u64) -> Option<WorkerId> {
    let workers = FIRST_WORKER_TOKEN..FIRST_GROUP_TOKEN;
    workers.contains(&token).then(|| WorkerId(token - FIRST_WORKER_TOKEN))
}
