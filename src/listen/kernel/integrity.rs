//! Notices when a worker has changed a group of listeners, and puts it right.
//!
//! A worker holds its slot's listener, and with it more than it needs: by shutdown(2) it takes the listener out of the
//! group, and the kernel moves the last one into its place; by SO_DETACH_REUSEPORT_BPF it takes the program away; with
//! a socket of its own that joins, it can attach another. Then clients of other slots come to the wrong worker, and no
//! one gets an error. So each look asks the kernel where it steers: it probes ([`crate::sys::probe`]) a few slots in
//! turn, with addresses whose slot the model predicts. No worker sees anything of that.
//!
//! What was found wrong is put right without a client losing its place in a queue: a listener that was shut down
//! listens again, at the end of the group, and the program learns from probes where each member stands now. Only a
//! listener that was made something else is replaced, and the worker that did it with it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Group, KEEPERS, Kernel, WatchedGroup};
use crate::addr::ListenAddr;
use crate::route::{MARKS_IPV4, MARKS_IPV6, Slot, Steering};
use crate::sys::listen::ListenError;
use crate::sys::poller::Poller;
use crate::sys::probe::{self, Landed, ProbeMark, Trial};
use crate::sys::reuseport;

/// So many slots are probed at each look.
const PROBES: usize = 4;
/// So many addresses, times the number of slots, are tried to find one that is a slot's.
const MAX_SEARCH: u32 = 8;
/// A group's troubles are logged no more often than this.
const TELL_AGAIN: Duration = Duration::from_secs(10);
/// Addresses for probes: 127.104.0.0/16, of the loopback.
const PROBES_FROM: u32 = 127 << 24 | 104 << 16;

/// How often groups were put right, by what was wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repairs {
    /// Listeners that did not listen any more.
    pub shut: u64,
    /// Groups whose clients were steered elsewhere.
    pub steering: u64,
    /// Listeners that had to be replaced.
    pub replaced: u64,
}

impl Repairs {
    /// By what was wrong.
    pub fn by_fault(self) -> Vec<(&'static str, u64)> {
        vec![("shut", self.shut), ("steering", self.steering), ("replaced", self.replaced)]
    }
}

/// What is remembered of a group from one look to the next.
#[derive(Debug, Clone, Default)]
pub(super) struct Integrity {
    /// The slot that is probed next.
    next: usize,
    /// Counts the addresses that were tried.
    tried: u32,
    logged: Option<Instant>,
    /// What was not logged since.
    unlogged: u64,
    /// Since when probes have come elsewhere, though nothing could be put right.
    blind_since: Option<Instant>,
    /// Whether that was logged.
    blind_logged: bool,
}

/// The members of a group that were found not to listen.
#[derive(Debug, Default)]
struct Shut {
    listens_again: Vec<Slot>,
    lost: Vec<Slot>,
}

impl Kernel {
    /// Checks whether all groups are intact, and repairs those that are not. `changed` is called for each group that
    /// is another one then. Yields the slots whose workers must be replaced, since their listeners were.
    pub fn inspect(
        &mut self,
        poller: &Poller,
        now: Instant,
        mut changed: impl FnMut(&Rc<Group>, &Rc<Group>),
    ) -> Vec<Slot> {
        let mut lost = Vec::new();
        if self.closing {
            return lost;
        }
        for (number, watched) in &mut self.groups {
            let shut = watched.listen_again();
            for slot in &shut.lost {
                let before = Rc::clone(&watched.group);
                match watched.replace(*number, *slot, poller) {
                    Ok(()) => {
                        changed(&before, &watched.group);
                        self.repairs.replaced += 1;
                        lost.push(*slot);
                    }
                    Err(error) => tracing::error!(%slot, %error, "the slot's listener is lost; restart haft"),
                }
            }
            let was_shut = !shut.listens_again.is_empty() || !shut.lost.is_empty();
            if !was_shut && watched.is_steered_right(now) {
                continue;
            }
            watched.find_members();
            watched.attach();
            self.repairs.shut += shut.listens_again.len() as u64;
            if !was_shut {
                if !watched.is_steered_right(now) {
                    watched.give_up_probing(now);
                    continue;
                }
                self.repairs.steering += 1;
            }
            watched.log(&shut, now);
        }
        lost
    }

    /// How often groups were put right.
    pub fn repairs(&self) -> Repairs {
        self.repairs
    }
}

impl WatchedGroup {
    /// Lets those listen again that do not.
    fn listen_again(&mut self) -> Shut {
        let mut shut = Shut::default();
        for (slot, listener) in self.group.slots() {
            if probe::listens(listener.as_fd()) {
                continue;
            }
            match reuseport::listen_again(listener, self.group.backlog) {
                Ok(()) => shut.listens_again.push(slot),
                Err(_) => shut.lost.push(slot),
            }
        }
        // In which order they were shut down is not known where there are several: then it is found out by probes, and
        // until then this is as good as any.
        for slot in &shut.listens_again {
            self.moved_to_the_end(slot.index() + KEEPERS);
        }
        shut
    }

    /// What the kernel does with the places when a member leaves and comes again.
    fn moved_to_the_end(&mut self, member: usize) {
        let end = self.indices.len() as u32 - 1;
        let left = self.indices[member];
        self.indices.iter_mut().filter(|index| **index == end).for_each(|index| *index = left);
        self.indices[member] = end;
    }

    /// Gives a slot another listener, since the one that it had cannot be had back.
    fn replace(&mut self, number: u32, slot: Slot, poller: &Poller) -> Result<(), ListenError> {
        let mut new = reuseport::join(&self.group.members, self.group.backlog, 1)?;
        self.moved_to_the_end(slot.index() + KEEPERS);
        let (Some(new), Some(old)) = (new.pop(), self.group.of_slot(slot)) else { return Ok(()) };
        self.queues[slot.index()].set_open(false, old, super::MemberId { number, slot }, poller);
        let mut members = self.group.members.clone();
        members[slot.index() + KEEPERS] = Rc::new(new);
        self.group = Rc::new(Group { members, backlog: self.group.backlog });
        Ok(())
    }

    /// Whether the next few slots' clients come to those slots, as far as that can be seen.
    fn is_steered_right(&mut self, now: Instant) -> bool {
        let is_blind =
            self.integrity.blind_since.is_some_and(|since| now.saturating_duration_since(since) < TELL_AGAIN);
        let Some(to) = address(self.group.addr()).filter(|_| !is_blind && !self.by_master) else { return true };
        let count = PROBES.min(self.steering.slots());
        let probes: Vec<_> = (0..count).map(|_| self.integrity.next_probe(&self.steering, to)).collect();
        let trial = self.group.trial(to);
        probes.into_iter().all(|(mark, slot)| {
            let expected = slot.index() + KEEPERS;
            match trial.probe(mark, expected) {
                Ok(Landed::At(member)) => member == expected,
                Ok(Landed::Elsewhere) => false,
                Ok(Landed::Unknown) | Err(_) => true,
            }
        })
    }

    /// Finds out where in the group each member stands, if that can be known. Probes are steered by what they say then.
    fn find_members(&mut self) {
        let Some(to) = address(self.group.addr()).filter(|_| !self.by_master) else { return };
        let Ok(strangers) = reuseport::strangers(&self.group.members) else { return };
        let marks = if to.is_ipv4() { MARKS_IPV4 } else { MARKS_IPV6 };
        let places = u32::try_from(self.indices.len() + strangers).unwrap_or(u32::MAX);
        if places > marks || self.program(true).attach(self.group.keeper()).is_err() {
            return;
        }
        let mut indices = vec![None; self.indices.len()];
        let trial = self.group.trial(to);
        for place in 0..places {
            let mark = match to {
                SocketAddr::V4(_) => ProbeMark { from: Some(Ipv4Addr::from_bits(PROBES_FROM | place)), class: 0 },
                SocketAddr::V6(_) => ProbeMark { from: None, class: place as u8 },
            };
            let expected = self.indices.iter().position(|index| *index == place).unwrap_or(usize::MAX);
            if let Ok(Landed::At(member)) = trial.probe(mark, expected) {
                indices[member] = Some(place);
            }
        }
        drop(trial);
        if let Some(indices) = indices.into_iter().collect::<Option<Vec<u32>>>() {
            self.indices = indices;
        }
    }

    /// Nothing could be put right: probes come elsewhere for another reason.
    fn give_up_probing(&mut self, now: Instant) {
        self.integrity.blind_since = Some(now);
        if !std::mem::replace(&mut self.integrity.blind_logged, true) {
            tracing::warn!(
                addr = %self.group.addr(),
                "it cannot be seen where the kernel steers clients to: does another process listen at the same port \
                 (`ss -ltnp` shows it), or does a packet filter stand before the loopback? Whether a worker changes that \
                 goes unnoticed"
            );
        }
    }

    fn log(&mut self, shut: &Shut, now: Instant) {
        let integrity = &mut self.integrity;
        if integrity.logged.is_some_and(|logged| now.saturating_duration_since(logged) < TELL_AGAIN) {
            integrity.unlogged += 1;
            return;
        }
        integrity.logged = Some(now);
        let (addr, unlogged) = (self.group.addr(), std::mem::take(&mut integrity.unlogged));
        let slots = |slots: &[Slot]| slots.iter().map(Slot::to_string).collect::<Vec<_>>().join(",");
        match (&shut.listens_again[..], &shut.lost[..]) {
            ([], []) => tracing::warn!(
                %addr, unlogged,
                "a worker took haft's program from the listeners, or attached another (SO_DETACH_REUSEPORT_BPF), or shut \
                 its listener down and listened again: clients came to the wrong workers; it is put right. Have the \
                 program leave the listener's options alone"
            ),
            (shut, []) => tracing::warn!(
                %addr, unlogged, slots = slots(shut),
                "a worker of the slot shut its listener down: clients came to the wrong workers; it listens again. Have \
                 the program end by close(2), not by shutdown(2), of its listener"
            ),
            (_, lost) => tracing::error!(
                %addr, unlogged, slots = slots(lost),
                "a worker of the slot made its listener something else: it is given another one, and replaced. Have the \
                 program only accept from its listener"
            ),
        }
    }
}

impl Group {
    fn trial(&self, to: SocketAddr) -> Trial<'_> {
        Trial::new(self.members.iter().map(|member| member.as_fd()).collect(), to)
    }
}

impl Integrity {
    /// A probe of the next slot, and the slot that it should come to, which is another one where no address is found
    /// that is that slot's: it may be bypassed.
    fn next_probe(&mut self, steering: &Steering, to: SocketAddr) -> (ProbeMark, Slot) {
        let IpAddr::V4(_) = to.ip() else {
            // A connection to an address of this host comes from the same one.
            return (ProbeMark::default(), steering.slot_of(to.ip()));
        };
        let slots = steering.slots();
        let wanted = Slot((self.next % slots) as u16);
        self.next = (self.next + 1) % slots;
        let mut left = MAX_SEARCH.saturating_mul(slots as u32);
        loop {
            self.tried = self.tried.wrapping_add(1);
            left = left.saturating_sub(1);
            let from = Ipv4Addr::from_bits(PROBES_FROM | (self.tried & (MARKS_IPV4 - 1)));
            let slot = steering.slot_of(from.into());
            if slot == wanted || left == 0 {
                return (ProbeMark { from: Some(from), class: 0 }, slot);
            }
        }
    }
}

/// An address of this host at which a listener can be reached, if it is not a Unix socket.
fn address(addr: &ListenAddr) -> Option<SocketAddr> {
    let (ip, port) = match addr {
        ListenAddr::DualStack(port) => (IpAddr::V4(Ipv4Addr::LOCALHOST), *port),
        ListenAddr::Ip(at) => match at.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => (IpAddr::V4(Ipv4Addr::LOCALHOST), at.port()),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => (IpAddr::V6(Ipv6Addr::LOCALHOST), at.port()),
            ip => (ip, at.port()),
        },
        ListenAddr::Unix(_) => return None,
    };
    Some(SocketAddr::new(ip, port))
}
