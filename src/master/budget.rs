//! How many connections the master may hold at once, so that descriptors remain for all else.
//!
//! Each worker costs descriptors, the replaced ones too that go on with their sessions: so the budget shrinks with
//! every reload that finds them alive, and grows again as they end. Pure.

use crate::config::DESCRIPTORS_PER_WORKER;

/// Descriptors that the master needs for itself and for starting workers.
const DESCRIPTOR_RESERVE: u64 = 64;
/// Most workers for each slot, those included that finish what they have or go on with their sessions. Far more than
/// an operator reloads within a drain time: what it bounds is the host's memory, of which each worker takes its own.
pub const MAX_WORKERS_A_SLOT: usize = 32;

/// How much of what it would be without old workers the budget may shrink to by a reload: a quarter is enough to hand
/// over at full speed, since a copy is held no longer than a worker takes to acknowledge.
const LEAST_SHARE: u64 = 4;

/// What may be held, of so many descriptors as there are.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    descriptors: u64,
    most: u64,
}

impl Budget {
    /// Of this process's limit on descriptors less those that are taken permanently, with so many workers.
    pub fn new(descriptors: u64, workers: usize) -> Self {
        Self { descriptors, most: most(descriptors, workers) }
    }

    /// So many more descriptors are taken permanently.
    pub fn lose(&mut self, descriptors: u64) {
        self.descriptors = self.descriptors.saturating_sub(descriptors);
    }

    /// There are so many workers now.
    pub fn reconfigure(&mut self, workers: usize) {
        self.most = most(self.descriptors, workers);
    }

    /// How many connections may be held at once.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// How many more may be accepted, if so many are held.
    pub fn room(&self, held: u64) -> usize {
        usize::try_from(self.most.saturating_sub(held)).unwrap_or(usize::MAX)
    }

    /// At how many connections accepting goes on, when it has paused because all of the budget was used.
    pub fn resuming(&self) -> u64 {
        self.most - self.most / 4
    }

    /// Of how many connections the first request may be waited for at once: two thirds. That is less than where
    /// accepting goes on after a pause, so silent clients never keep it paused, however many they are, and a third of
    /// the budget is always left for the others.
    pub fn most_peeking(&self) -> usize {
        usize::try_from(self.most - self.most.div_ceil(3)).unwrap_or(usize::MAX)
    }

    /// Whether each slot may get a new worker beside all `alive` ones.
    ///
    /// # Errors
    ///
    /// Why not, and what helps.
    pub fn allows_reload(&self, alive: usize, slots: usize) -> Result<(), String> {
        let old = alive.saturating_sub(slots);
        if alive + slots > MAX_WORKERS_A_SLOT * slots {
            return Err(format!(
                "{old} old workers still finish what they have, and there may be {MAX_WORKERS_A_SLOT} workers for each \
                 slot: wait for some of them to end (/status), or give a shorter --drain-timeout"
            ));
        }
        // Without a worker from before there is nothing to wait for.
        if old > 0 && most(self.descriptors, alive + slots) < most(self.descriptors, slots) / LEAST_SHARE {
            let more = self.descriptors + DESCRIPTORS_PER_WORKER * alive as u64;
            return Err(format!(
                "{old} old workers still finish what they have, and the limit on descriptors is too low for as many \
                 again: wait for some of them to end (/status), give a shorter --drain-timeout, or raise the limit \
                 (ulimit -n {more}; LimitNOFILE={more} in a systemd unit)"
            ));
        }
        Ok(())
    }
}

fn most(descriptors: u64, workers: usize) -> u64 {
    descriptors.saturating_sub(DESCRIPTOR_RESERVE + DESCRIPTORS_PER_WORKER * workers as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_nothing_leaves_room_and_never_keeps_accepting_paused() {
        // A usual hard limit is enough for 10,000 silent clients.
        assert!(Budget::new(20_000, 4).most_peeking() >= 10_000);
        for descriptors in [100, 1024, 20_000, 1 << 20, 1 << 40] {
            let budget = Budget::new(descriptors, 2);
            let silent = budget.most_peeking() as u64;
            assert!(silent + budget.most() / 13 <= budget.resuming(), "{budget:?}");
            assert!(budget.resuming() < budget.most() && budget.room(silent) as u64 >= budget.most() / 3, "{budget:?}");
        }
        assert_eq!(Budget::new(10, 2).most(), 1, "one at a time, at least");
    }

    #[test]
    fn workers_that_linger_are_no_reason_to_refuse_a_reload_as_long_as_there_is_room_for_more() {
        let usual = Budget::new(20_000, 4);
        for generations in 1..MAX_WORKERS_A_SLOT {
            assert_eq!(usual.allows_reload(4 * generations, 4), Ok(()), "{generations} generations");
        }
        let refused = usual.allows_reload(4 * MAX_WORKERS_A_SLOT, 4).expect_err("too many");
        assert!(refused.starts_with("124 old workers still finish what they have, and there may be 32"), "{refused}");
        assert!(refused.contains("--drain-timeout"), "{refused}");

        let narrow = Budget::new(1024, 16);
        let most = (1..).find(|generations| narrow.allows_reload(16 * generations, 16).is_err()).expect("a bound");
        assert!((5..MAX_WORKERS_A_SLOT).contains(&most), "{most}");
        let refused = narrow.allows_reload(16 * most, 16).expect_err("no descriptors");
        assert!(refused.contains("ulimit -n") && refused.contains("LimitNOFILE="), "{refused}");
        let raised = Budget::new(1024 + DESCRIPTORS_PER_WORKER * 16 * most as u64, 16);
        assert_eq!(raised.allows_reload(16 * most, 16), Ok(()), "the advice helps");
        // A first reload is always allowed.
        assert_eq!(Budget::new(300, 32).allows_reload(32, 32), Ok(()));
    }

    #[test]
    fn old_workers_cost_what_new_ones_do() {
        let mut budget = Budget::new(1024, 4);
        let before = budget.most();
        budget.reconfigure(12);
        assert_eq!(before - budget.most(), 8 * DESCRIPTORS_PER_WORKER);
        budget.reconfigure(4);
        assert_eq!(budget.most(), before);
    }
}
