//! What goes on while a worker finishes, and nothing asks for its next connection any more.

use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::signal::{Signal, raise};
use tokio::io::unix::AsyncFd;

use crate::drain::DrainSource;
use crate::protocol::{MasterMessage, WorkerEnd};

/// How long a worker has that ends itself at the last, and again between SIGTERM and SIGKILL.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// Reads the master's messages to the end, for the times in which this worker is to finish.
pub(super) async fn receive_shorter_times(readiness: AsyncFd<OwnedFd>, mut end: WorkerEnd, drain: DrainSource) {
    while let Ok(mut ready) = readiness.readable().await {
        match end.receive() {
            Ok(Some(MasterMessage::Drain { within_ms })) => {
                drain.request(Some(Duration::from_millis(within_ms.into())))
            }
            // None of it is for a worker that finishes.
            Ok(Some(MasterMessage::Connections(..) | MasterMessage::Linger { .. } | MasterMessage::Ping)) => {}
            Ok(None) => ready.clear_ready(),
            Err(_) => return,
        }
    }
}

/// Ends this process if its master does not, which would have done so by then. It may have finished long before.
pub(super) async fn end_oneself(outlive: Duration) {
    tokio::time::sleep(outlive + LAST_MOMENT).await;
    tracing::warn!("the drain time is over: ending with connections open");
    raise(Signal::SIGTERM).ok();
    tokio::time::sleep(LAST_MOMENT).await;
    raise(Signal::SIGKILL).ok();
}
