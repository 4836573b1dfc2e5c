//! Forgetting the code that the start or a reload took, once that is over.

use crate::dispatch::service::Service;
use crate::pool::SlotState;
use crate::sys::resident;

/// Whether the code that the start or a reload took is not in memory any more.
#[derive(Debug, Default)]
pub(super) struct Settling {
    is_settled: bool,
}

impl Settling {
    /// A reload takes code again.
    pub(super) fn reload_begins(&mut self) {
        self.is_settled = false;
    }

    /// Forgets the code of a haft that serves, if nothing is under way. In a thread: it reads `/proc`.
    pub(super) fn look(&mut self, service: &Service) {
        let (pool, mut slots) = (&service.pool, service.dispatch.slots());
        if self.is_settled || pool.is_reloading() || slots.any(|slot| pool.state(slot) == SlotState::Starting) {
            return;
        }
        self.is_settled = true;
        tokio::task::spawn_blocking(|| {
            if let Err(error) = resident::forget_unused_code() {
                tracing::debug!(%error, "the code that the start took stays in memory");
            }
        });
    }
}
