//! The listeners: taking connections from them, and what to do when there is no descriptor left.
//!
//! Out of descriptors (EMFILE, ENFILE) a connection stays in the kernel's queue, where it costs nothing, and the
//! listeners are left alone for a moment: waiting for them would spin. If that lasts longer than the hold time, a spare
//! descriptor is given up to take and reset those that wait, so that their clients learn of it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::accept::{self, Arrival, MAX_A_TURN, NO_DESCRIPTOR, Turn};
use crate::config::Config;
use crate::sys::accept::somebody_waits;
use crate::sys::listen::Listener;
use crate::sys::placeholder;
use crate::sys::poller::{Interest, Poller};

/// How long the listeners are left alone when there is no descriptor.
const PAUSE: Duration = Duration::from_millis(50);

/// The listeners, and whether they are open.
#[derive(Debug)]
pub struct Listeners {
    listeners: BTreeMap<u32, Listener>,
    spare: Option<OwnedFd>,
    hold_timeout: Duration,
    open: bool,
    paused_until: Option<Instant>,
    starved_since: Option<Instant>,
}

impl Listeners {
    /// Nothing is accepted before [`Listeners::open`]. The listeners have numbers from `first` on.
    pub fn new(listeners: Vec<Listener>, first: u32, hold_timeout: Duration) -> io::Result<Self> {
        let spare = Some(placeholder::new()?);
        let listeners = (first..).zip(listeners).collect();
        Ok(Self { listeners, spare, hold_timeout, open: false, paused_until: None, starved_since: None })
    }

    /// The times of another configuration, from now on.
    pub fn reconfigure(&mut self, config: &Config) {
        self.hold_timeout = config.hold_timeout;
    }

    /// The listeners with their numbers: those of `--listen` in their order, then what programs asked for.
    pub fn listeners(&self) -> impl Iterator<Item = (u32, &Listener)> {
        self.listeners.iter().map(|(number, listener)| (*number, listener))
    }

    /// Adds a listener under a number that no other listener has or had.
    pub fn add(&mut self, number: u32, listener: Listener, poller: &Poller) -> io::Result<()> {
        if self.open {
            poller.add(&listener, number.into(), Interest::Readable)?;
        }
        self.listeners.insert(number, listener);
        Ok(())
    }

    /// Closes a listener; its number is not used again.
    pub fn remove(&mut self, number: u32, poller: &Poller) -> io::Result<()> {
        match self.listeners.remove(&number) {
            Some(listener) if self.open => poller.remove(&listener),
            _ => Ok(()),
        }
    }

    /// Starts to wait for connections; the poller's token of a listener is its number.
    pub fn open(&mut self, poller: &Poller) -> io::Result<()> {
        if !self.open {
            self.open = true;
            for (number, listener) in self.listeners() {
                poller.add(listener, number.into(), Interest::Readable)?;
            }
        }
        Ok(())
    }

    /// Stops waiting for connections for now.
    pub fn shut(&mut self, poller: &Poller) -> io::Result<()> {
        if self.open {
            self.open = false;
            self.listeners().try_for_each(|(_, listener)| poller.remove(listener))?;
        }
        Ok(())
    }

    /// Whether connections are waited for.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Closes the listeners.
    pub fn close(&mut self, poller: &Poller) -> io::Result<()> {
        self.shut(poller)?;
        self.paused_until = None;
        self.listeners.clear();
        Ok(())
    }

    /// Takes what waits at a listener, at most `most`, and gives each connection to `take`.
    pub fn accept(&mut self, token: u64, most: usize, poller: &Poller, take: impl FnMut(Arrival)) -> io::Result<Turn> {
        let known = u32::try_from(token).ok().and_then(|number| Some((number, self.listeners.get(&number)?)));
        let Some((number, listener)) = known else { return Ok(Turn::default()) };
        let turn = accept::take(listener, number, most, take)?;
        if turn.taken > 0 {
            self.starved_since = None;
        }
        if let Some(error) = &turn.exhausted {
            self.pause(poller, error)?;
        }
        Ok(turn)
    }

    fn pause(&mut self, poller: &Poller, error: &io::Error) -> io::Result<()> {
        let now = Instant::now();
        if self.starved_since.is_none() {
            tracing::warn!(%error, "{NO_DESCRIPTOR}");
            self.starved_since = Some(now);
        }
        self.paused_until = Some(now + PAUSE);
        self.shut(poller)
    }

    /// Whether the doors are shut for a moment only, and [`Listeners::resume`] is to be called.
    pub fn is_paused(&self) -> bool {
        self.paused_until.is_some()
    }

    /// Opens the doors again when the pause is over. Where there has been no descriptor for the hold time, gives those
    /// that wait to `refuse`, by means of the spare descriptor.
    pub fn resume(&mut self, now: Instant, poller: &Poller, mut refuse: impl FnMut(Arrival)) -> io::Result<()> {
        if self.paused_until.is_none_or(|until| now < until) {
            return Ok(());
        }
        self.paused_until = None;
        if self.starved_since.is_some_and(|since| now.saturating_duration_since(since) >= self.hold_timeout) {
            self.refuse_waiting(&mut refuse)?;
        }
        // Once no connection waits the shortage is over; connections in the next one have a hold time of their own.
        if !self.listeners().any(|(_, listener)| somebody_waits(listener.as_fd())) {
            self.starved_since = None;
        }
        self.open(poller)
    }

    fn refuse_waiting(&mut self, refuse: &mut impl FnMut(Arrival)) -> io::Result<()> {
        for (number, listener) in &self.listeners {
            for _ in 0..MAX_A_TURN {
                self.spare = None;
                if accept::take(listener, *number, 1, &mut *refuse)?.taken == 0 {
                    break;
                }
                self.spare = placeholder::new().ok();
            }
            self.spare = self.spare.take().or_else(|| placeholder::new().ok());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::ListenAddr;
    use crate::sys::listen::Access;

    fn listener() -> Listener {
        Listener::bind(&ListenAddr::Ip(([127, 0, 0, 1], 0).into()), 1, Access::Umask).expect("a listener")
    }

    #[tokio::test]
    async fn the_first_listener_stays_however_many_a_program_opens_and_closes() {
        let poller = Poller::new(8).expect("poller");
        let mut doors = Listeners::new(vec![listener()], 0, Duration::from_secs(1)).expect("doors");
        doors.open(&poller).expect("open");
        // So many came and went.
        doors.add(1 << 16, listener(), &poller).expect("add");
        let numbers: Vec<u32> = doors.listeners().map(|(number, _)| number).collect();
        assert_eq!(numbers, [0, 1 << 16]);
        doors.remove(1 << 16, &poller).expect("remove");
        assert_eq!((doors.listeners().count(), doors.listeners.len()), (1, 1));
    }
}
