//! Dispatch by the kernel: the groups of listeners, and what the master does for them.
//!
//! Each slot has one listener of each group, which its worker accepts from by itself; the kernel chooses the slot by
//! the client's address, past those slots that are bypassed, or whose worker does not have the server that the group is
//! for. The master holds all of them for as long as it serves: were a member closed, the kernel would put another in
//! its place. So a dead worker's queue lives on, and its replacement serves it; a removed slot keeps its listeners open
//! with no traffic steered to them.
//!
//! What remains to be done is for queues that no worker serves. From time to time the master checks how many wait:
//!
//! * Where a worker is ready and clients wait, it is asked to say something. One that does not for `--hang-timeout`
//!   hangs.
//! * Where no worker serves a queue (it hangs, or none has come for `--hold-timeout`) the master accepts from it and
//!   hands the connections to other slots, in each client's own order: it *rescues* them. A program that takes no
//!   connections from us (`listen-fds`) cannot be given any: there they wait.

mod by_master;
mod integrity;
mod queue;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

use self::integrity::Integrity;
pub use self::integrity::Repairs;
pub use self::queue::Queue;
use crate::addr::ListenAddr;
use crate::config::Config;
use crate::route::{Slot, SlotCountError, Steering};
use crate::sys::accept;
use crate::sys::listen::{ListenError, Listener};
use crate::sys::poller::Poller;
use crate::sys::probe;
use crate::sys::process::Reserved;
use crate::sys::reuseport::{self, BpfProgram};

/// How often the queues are looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(250);
/// Tokens from here on are listeners of groups: slot and number are added.
pub(crate) const FIRST_GROUP_TOKEN: u64 = 1 << 48;

/// So many members of a group come before those of the slots: the *keeper*, which no worker is given. The program is
/// changed by it, and it is never steered to.
const KEEPERS: usize = 1;

/// The listeners of one address, one for each slot.
#[derive(Debug)]
pub struct Group {
    /// The keeper, and then by slot, of as many as there ever were.
    members: Vec<Rc<Listener>>,
    backlog: u32,
}

impl Group {
    /// Where clients connect.
    pub fn addr(&self) -> &ListenAddr {
        self.keeper().addr()
    }

    /// The listener of a slot.
    pub fn of_slot(&self, slot: Slot) -> Option<&Listener> {
        self.members.get(slot.index() + KEEPERS).map(AsRef::as_ref)
    }

    fn keeper(&self) -> &Listener {
        // It was bound first.
        &self.members[0]
    }

    /// The slots' listeners, in their order.
    fn slots(&self) -> impl Iterator<Item = (Slot, &Listener)> {
        (0..).map(Slot).zip(self.members.iter().skip(KEEPERS).map(AsRef::as_ref))
    }

    /// For how many slots it has listeners.
    fn len(&self) -> usize {
        self.members.len() - KEEPERS
    }

    /// The group as it is with listeners for so many slots.
    fn grown(&self, slots: usize) -> Result<Self, ListenError> {
        let more = slots.saturating_sub(self.len());
        let new = reuseport::join(&self.members, self.backlog, more)?.into_iter().map(Rc::new);
        Ok(Self { members: self.members.iter().cloned().chain(new).collect(), backlog: self.backlog })
    }

    /// The worker of a slot has called listen(2), which sets the length of the queue to what the program asks for: it is
    /// set
    /// back.
    pub fn restore_backlog(&self, slot: Slot) {
        // One that does not listen has been shut down, which is to be noticed.
        let listener = self.of_slot(slot).filter(|listener| probe::listens(listener.as_fd()));
        let restored = listener.map(|listener| reuseport::set_backlog(listener.as_fd(), self.backlog));
        if let Some(Err(error)) = restored {
            tracing::warn!(%slot, %error, "the length of the accept queue stays as the program has set it");
        }
    }
}

/// Opens groups, each with the steering of a server that no worker has yet.
#[derive(Debug)]
pub struct Opener(RefCell<Steering>);

/// The program for a group in which the members named stand elsewhere than they were bound.
fn program(steering: &Steering, elsewhere: &[(Slot, u32)], probed: bool) -> BpfProgram {
    let instructions = steering.program_to(KEEPERS as u32, elsewhere, probed);
    BpfProgram::new(instructions.into_iter().map(|it| (it.code, it.jt, it.jf, it.k)))
}

impl Opener {
    /// Binds a listener for each slot.
    pub fn open(&self, addr: &ListenAddr, backlog: u32) -> Result<Rc<Group>, ListenError> {
        let steering = self.0.borrow();
        let members = reuseport::bind(addr, backlog, steering.slots() + KEEPERS, &program(&steering, &[], false))?;
        Ok(Rc::new(Group { members: members.into_iter().map(Rc::new).collect(), backlog }))
    }
}

/// The groups, and what is known of their queues.
#[derive(Debug)]
pub struct Kernel {
    opener: Rc<Opener>,
    groups: BTreeMap<u32, WatchedGroup>,
    /// So many of them, the first ones, are those of `--listen`.
    own: u32,
    repairs: Repairs,
    /// The master stops: new connections are not admitted.
    closing: bool,
    _reserved: Option<Reserved>,
}

#[derive(Debug)]
struct WatchedGroup {
    group: Rc<Group>,
    /// The current steering.
    steering: Steering,
    /// By slot.
    queues: Vec<Queue>,
    /// By member: its place in the kernel's group.
    indices: Vec<u32>,
    integrity: Integrity,
    /// The master accepts at the keeper, and no client is steered to a slot.
    by_master: bool,
}

/// A listener of a group: the group's number, and its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberId {
    /// The number of the group among all listeners.
    pub number: u32,
    /// The owner of the listener.
    pub slot: Slot,
}

impl MemberId {
    fn token(self) -> u64 {
        FIRST_GROUP_TOKEN + (u64::from(self.slot.0) << 32) + u64::from(self.number)
    }

    /// The place that a token stands for.
    pub fn of_token(token: u64) -> Option<Self> {
        let rest = token.checked_sub(FIRST_GROUP_TOKEN)?;
        Some(Self { number: rest as u32, slot: Slot(u16::try_from(rest >> 32).ok()?) })
    }
}

/// Why the kernel cannot be left to choose.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No numbers can be kept free for the listeners that workers take over.
    #[error("keeping numbers of descriptors free: {0}")]
    Reserve(io::Error),
    /// Too many slots.
    #[error(transparent)]
    Slots(#[from] SlotCountError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

impl Kernel {
    /// Binds what `listen` names. `passed`: the workers take the listeners over under fixed numbers.
    pub fn new(config: &Config, listen: &[ListenAddr], passed: bool) -> Result<Self, KernelError> {
        // Before anything else is opened.
        let reserved = passed.then(|| Reserved::new(listen.len())).transpose().map_err(KernelError::Reserve)?;
        let opener = Rc::new(Opener(RefCell::new(Steering::new(config.workers, config.prefix)?)));
        let mut kernel = Self {
            opener,
            groups: BTreeMap::new(),
            own: 0,
            repairs: Repairs::default(),
            closing: false,
            _reserved: reserved,
        };
        for addr in listen {
            let group = kernel.opener.open(addr, config.backlog)?;
            kernel.watch(kernel.own, group);
            kernel.own += 1;
        }
        Ok(kernel)
    }

    /// What opens more groups like these.
    pub fn opener(&self) -> Rc<Opener> {
        Rc::clone(&self.opener)
    }

    /// The groups of `--listen`, in that order.
    pub fn own(&self) -> impl Iterator<Item = &Rc<Group>> {
        self.groups.range(..self.own).map(|(_, watched)| &watched.group)
    }

    /// A slot's listeners of `--listen`, in that order.
    pub fn own_listeners(&self, slot: Slot) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.own().filter_map(move |group| group.of_slot(slot)).map(AsFd::as_fd)
    }

    /// Adds a group under a number that no other listener has.
    pub fn add(&mut self, number: u32, group: Rc<Group>) {
        self.watch(number, group);
        // It may have been opened before the steering changed.
        self.groups.get(&number).into_iter().for_each(WatchedGroup::attach);
    }

    fn watch(&mut self, number: u32, group: Rc<Group>) {
        let queues = vec![Queue::default(); group.len()];
        let indices = (0..group.members.len() as u32).collect();
        let steering = self.opener.0.borrow().clone();
        let integrity = Integrity::default();
        self.groups.insert(number, WatchedGroup { group, steering, queues, indices, integrity, by_master: false });
    }

    /// Forgets a group, if there is one of this number. It is closed when no other process holds it.
    pub fn remove(&mut self, number: u32, poller: &Poller) {
        if let Some(watched) = self.groups.remove(&number) {
            watched.shut(poller);
        }
    }

    /// Admits no new connection: all are steered to the keeper, which drops them.
    pub fn stop_accepting(&mut self) -> io::Result<()> {
        self.closing = true;
        self.groups.values().try_for_each(|watched| {
            let keeper = watched.group.keeper();
            match reuseport::stop_accepting(keeper.as_fd()) {
                // Some kernels want CAP_NET_ADMIN for that (6.18 was seen to). Then clients that still come are reset when the
                // keeper is closed, where they would have tried again.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    tracing::debug!(%error, "clients that come from now on are accepted by the kernel, and reset at the end");
                }
                outcome => outcome?,
            }
            BpfProgram::to(watched.indices[0]).attach(keeper)
        })
    }

    /// Forgets all groups. Yields the keepers: as long as they exist, no new connection comes to listeners that workers
    /// still
    /// have.
    #[must_use]
    pub fn close(&mut self, poller: &Poller) -> Vec<Rc<Listener>> {
        let groups = std::mem::take(&mut self.groups);
        let keepers = groups.values().filter_map(|watched| watched.group.members.first().cloned()).collect();
        groups.into_values().for_each(|watched| watched.shut(poller));
        keepers
    }

    /// Where clients connect.
    pub fn addrs(&self) -> impl Iterator<Item = &ListenAddr> {
        self.groups.values().map(|watched| watched.group.addr())
    }

    /// All listeners.
    pub fn places(&self) -> impl Iterator<Item = (MemberId, &Listener)> {
        self.groups.iter().flat_map(|(number, watched)| {
            watched.group.slots().map(|(slot, listener)| (MemberId { number: *number, slot }, listener))
        })
    }

    /// How many groups there are.
    pub fn count(&self) -> usize {
        self.groups.len()
    }

    /// How many clients wait at a slot's listeners now.
    pub fn waiting(&self, slot: Slot) -> usize {
        let listeners = self.groups.values().filter_map(|watched| watched.group.of_slot(slot));
        listeners.filter_map(|listener| accept::waiting(listener.as_fd())).sum()
    }

    /// Opens listeners for all slots of this steering in each group. No traffic is steered to them yet.
    ///
    /// Yields how many. `changed` is called for each group that is another one then.
    pub fn grow(
        &mut self,
        steering: &Steering,
        mut changed: impl FnMut(&Rc<Group>, &Rc<Group>),
    ) -> Result<usize, ListenError> {
        if let Some(addr) = self.addrs().next() {
            let program = program(steering, &[], false);
            let refused = |source| ListenError::Program { addr: addr.clone(), len: program.len(), source };
            program.try_out().map_err(refused)?;
        }
        let slots = steering.slots();
        let short = self.groups.iter().filter(|(_, watched)| watched.group.len() < slots);
        reuseport::alone(short.clone().map(|(_, watched)| &watched.group.members[..]))?;
        let grown = short.map(|(number, watched)| Ok((*number, watched.group.grown(slots)?)));
        let grown = grown.collect::<Result<Vec<_>, ListenError>>()?;
        // Listeners that joined meanwhile may stand among them. They are the last ones, so closing them moves none of ours.
        reuseport::alone(grown.iter().map(|(_, group)| &group.members[..]))?;
        let mut more = 0;
        for (number, group) in grown {
            let Some(watched) = self.groups.get_mut(&number) else { continue };
            let group = Rc::new(group);
            more += group.len() - watched.group.len();
            watched.queues.resize(group.len(), Queue::default());
            watched.indices.extend(watched.group.members.len() as u32..group.members.len() as u32);
            changed(&watched.group, &group);
            watched.group = group;
        }
        Ok(more)
    }

    /// Applies `steering` to each group, by its number, and `new` to groups that are opened later.
    /// Returns whether any group's clients go elsewhere than before.
    pub fn steer(&mut self, new: Steering, steering: impl Fn(u32) -> Steering) -> bool {
        self.opener.0.replace(new);
        if self.closing {
            return false;
        }
        let mut changed = false;
        for (number, watched) in &mut self.groups {
            let steering = steering(*number);
            if watched.steering != steering {
                watched.steering = steering;
                watched.attach();
                changed = true;
            }
        }
        changed
    }

    /// The listener of a queue that the master accepts from.
    pub fn open_listener(&self, place: MemberId) -> Option<&Listener> {
        let watched = self.groups.get(&place.number)?;
        watched.queues.get(place.slot.index()).filter(|queue| queue.open)?;
        watched.group.of_slot(place.slot)
    }

    /// Leaves a queue to its worker, at least until the next look.
    pub fn shut(&mut self, place: MemberId, poller: &Poller) {
        if let Some(watched) = self.groups.get_mut(&place.number)
            && let (Some(queue), Some(listener)) =
                (watched.queues.get_mut(place.slot.index()), watched.group.of_slot(place.slot))
        {
            queue.set_open(false, listener, place, poller);
        }
    }

    /// All accept queues, each with its listener, and whether clients are steered to it.
    pub fn queues(&mut self) -> impl Iterator<Item = (MemberId, &mut Queue, &Listener, bool)> {
        self.groups.iter_mut().flat_map(|(number, watched)| {
            let (steering, queues, by_master) = (&watched.steering, watched.queues.iter_mut(), watched.by_master);
            queues.zip(watched.group.slots()).map(move |(queue, (slot, listener))| {
                (MemberId { number: *number, slot }, queue, listener, !by_master && steering.is_open(slot))
            })
        })
    }
}

impl WatchedGroup {
    fn shut(self, poller: &Poller) {
        for (_, (_, listener)) in self.queues.iter().zip(self.group.slots()).filter(|(queue, _)| queue.open) {
            poller.remove(listener).ok();
        }
    }

    fn program(&self, probed: bool) -> BpfProgram {
        if self.by_master {
            return BpfProgram::to(self.indices[0]);
        }
        let standing = self.indices.iter().skip(KEEPERS);
        let elsewhere = (0..).map(Slot).zip(standing).map(|(slot, index)| (slot, *index));
        let elsewhere = elsewhere.filter(|(slot, index)| *index as usize != slot.index() + KEEPERS).collect::<Vec<_>>();
        program(&self.steering, &elsewhere, probed)
    }

    fn attach(&self) {
        if let Err(error) = self.program(false).attach(self.group.keeper()) {
            tracing::error!(
                addr = %self.group.addr(), %error,
                "the kernel goes on to steer as before; raise net.core.optmem_max (`sysctl -w net.core.optmem_max=131072`)"
            );
        }
    }
}
