//! Groups that the master accepts from itself, since the workers' listeners turned out to be for another server.
//!
//! A listener cannot be taken back from a worker that accepts from it. So it stays where it is, and the kernel steers all
//! clients of the group to the keeper, which no worker has.

use std::io;
use std::rc::Rc;

use super::{Group, Kernel};
use crate::sys::listen::Listener;

impl Group {
    /// The listener that no worker has, under another descriptor, for the master to accept from.
    ///
    /// # Errors
    ///
    /// When no descriptor is left (EMFILE, ENFILE).
    pub fn for_master(&self) -> io::Result<Listener> {
        self.keeper().duplicate()
    }
}

impl Kernel {
    /// From now on no client of these listeners comes to a worker's: the master accepts at [`Group::for_master`].
    pub fn leave_to_master(&mut self, group: &Rc<Group>) {
        for watched in self.groups.values_mut().filter(|watched| Rc::ptr_eq(&watched.group, group)) {
            watched.by_master = true;
            watched.attach();
        }
    }

    /// Whether the master accepts what comes to the group of this number.
    pub fn is_left_to_master(&self, number: u32) -> bool {
        self.groups.get(&number).is_some_and(|watched| watched.by_master)
    }

    /// The numbers of the groups that the master accepts from.
    pub fn left_to_master(&self) -> impl Iterator<Item = u32> + '_ {
        self.groups.iter().filter(|(_, watched)| watched.by_master).map(|(number, _)| *number)
    }
}
