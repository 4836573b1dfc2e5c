//! What dead workers have left behind: processes that they had started, in their process groups.
//!
//! They cannot finish for a worker that is gone, and may hold its connections, or its port. So they get SIGTERM with
//! it, unless the whole group got it before, and are killed when the drain time is over.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::sys::orphans::has_child_in_group;
use crate::sys::process::signal_group;

/// The process groups of dead workers of which something lives.
#[derive(Debug, Default)]
pub struct Remains(Vec<(u32, Instant)>);

impl Remains {
    /// The leader of a group has ended. What it has left is killed after `within`; `announce`: send it SIGTERM first.
    pub fn add(&mut self, leader: u32, announce: bool, within: Duration, now: Instant) {
        // The number of an empty group may be another group's.
        if has_child_in_group(leader) {
            if announce {
                signal_group(leader, Signal::SIGTERM);
            }
            self.0.push((leader, now + within));
        }
    }

    /// Forgets what has ended, and kills what had its time.
    pub fn tick(&mut self, now: Instant) {
        self.0.retain(|(leader, until)| {
            let is_there = has_child_in_group(*leader);
            if is_there && now >= *until {
                signal_group(*leader, Signal::SIGKILL);
            }
            is_there
        });
    }

    /// What is there is killed at this time at the latest.
    pub fn end_by(&mut self, end: Instant) {
        self.0.iter_mut().for_each(|(_, until)| *until = (*until).min(end));
    }

    /// Kills all at once.
    pub fn kill(&mut self) {
        self.0.iter_mut().for_each(|(_, until)| *until = Instant::now());
        self.tick(Instant::now());
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
