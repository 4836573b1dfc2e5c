//! Sockets of servers that workers share, or of which each has one of its own.

use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use super::ClusterPrimary;
use crate::ids::WorkerId;
use crate::listen::kernel::Group;
use crate::node::wire::ServerId;
use crate::route::Slot;

impl ClusterPrimary {
    /// The shared socket of a server, which goes with the answer to a worker of this slot.
    pub fn shared_socket(&self, server: ServerId, slot: Slot) -> Option<BorrowedFd<'_>> {
        let group = self.groups.get(&self.servers.listener_of(server));
        let listener = group.and_then(|group| group.of_slot(slot)).map(AsFd::as_fd);
        listener.or_else(|| self.udp.get(&server).map(AsFd::as_fd))
    }

    /// A worker of this slot listens now, at one of the servers that it has: which one is unknown where it asked for
    /// port 0, since it names the port that it got.
    pub fn listens(&self, worker: WorkerId, slot: Slot) {
        let groups = self.servers.of_worker(worker).filter_map(|server| self.groups.get(&server));
        groups.for_each(|group| group.restore_backlog(slot));
    }

    /// A group has more listeners now.
    pub fn regroup(&mut self, before: &Rc<Group>, after: &Rc<Group>) {
        let same = self.groups.values_mut().filter(|group| Rc::ptr_eq(group, before));
        same.for_each(|group| *group = Rc::clone(after));
    }

    /// The listeners are the workers' alone.
    pub fn forget_groups(&mut self) {
        self.groups.clear();
    }
}
