//! The listeners that programs ask for, and those that they need no more.

use super::error::Context;
use super::{Master, MasterError};
use crate::admin::socket::Called;
use crate::node::primary::Opened;

impl Master {
    /// Opens and closes the listeners that programs have asked for.
    pub(super) fn refresh_doors(&mut self) -> Result<(), MasterError> {
        let Some(primary) = &mut self.service.dispatch.node else { return Ok(()) };
        let mut groups_changed = false;
        for opened in primary.take_fresh() {
            if !matches!(opened, Opened::TakenBack(..)) {
                self.finished.opened(opened.addr());
                if let Some(name) = self.about.called.on(opened.addr()) {
                    self.admin_files.rename(&name);
                    self.about.called = Called::Finally(name);
                }
            }
            match (opened, &mut self.kernel) {
                (Opened::Accepting(number, listener), _) => {
                    self.doors.add(number, listener, &self.poller).context("waiting for connections")?;
                }
                (Opened::TakenBack(number, listener, group), kernel) => {
                    // Before the master accepts there: the kernel must have no other place for them.
                    kernel.iter_mut().for_each(|kernel| kernel.leave_to_master(&group));
                    self.doors.add(number, listener, &self.poller).context("waiting for connections")?;
                    self.look_soon = true;
                }
                (Opened::Group(number, group), kernel) => {
                    kernel.iter_mut().for_each(|kernel| kernel.add(number, group.clone()));
                    groups_changed = true;
                }
            }
        }
        for number in primary.take_closing() {
            self.kernel.iter_mut().for_each(|kernel| kernel.remove(number, &self.poller));
            self.doors.remove(number, &self.poller).context("closing a listener")?;
            groups_changed |= self.kernel.is_some();
        }
        if groups_changed {
            self.service.dispatch.steer_anew();
            self.steer();
            self.guard_listeners();
        }
        Ok(())
    }
}
