//! What a Node worker can make the master keep, and what happens past it. Nothing else of its messages is kept.
//!
//! | what | bound | past it |
//! |---|---|---|
//! | servers | 256 in all, 128 of one worker | EMFILE |
//! | a server's address | 4096 bytes | ENAMETOOLONG |
//! | a server's data (ticket keys) | 64 KiB, 1 MiB in all | EMSGSIZE, ENOBUFS |
//! | sockets asked for and not acknowledged | 1024 of one worker | it is ended |
//! | half of a message | 64 MiB of one worker | the message is thrown away and counted as dropped |
//! | messages of others that wait for a worker that does not read | 32 MiB and one message | they are dropped and counted |
//! | answers that wait for a worker that does not read | 33 MiB and one message | it is ended |
//! | ids and names of adapters' namespaces | 10,000 and 1 MiB of one worker | answers to it go to all workers; counted |
//! | sessions that it names (8 bytes each) | 2^18 of one worker, 2^20 in all | found by their address; counted |
//! | connections of its own sessions that wait | as all that wait: `--max-in-flight`, the budget of descriptors | clients wait in the kernel |
//!
//! So one worker can cost the master 200 MiB at the very most, and only by messages that are long; what it keeps of a
//! worker that sends none of those is below 10 MiB.

use super::ClusterPrimary;
use crate::ids::WorkerId;

impl ClusterPrimary {
    /// How often a worker's name (a session's, a namespace's) was not remembered, because it has too many.
    pub fn forgotten(&self) -> u64 {
        self.named.forgotten + self.relay.forgotten()
    }

    /// Logs once that there are names which are not remembered; each is counted.
    pub(super) fn log_forgotten(&self, worker: WorkerId, before: u64) {
        if before == 0 && self.forgotten() > 0 {
            tracing::warn!(
                worker = worker.0,
                "it has named more or longer sessions or adapters' namespaces than are remembered, or one of \
                 another worker's: such sessions are found by their client's address, such answers go to all workers \
                 (haft_node_names_forgotten_total counts them)"
            );
        }
    }
}
